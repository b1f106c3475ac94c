//! The report as one page: no scripts, nothing from elsewhere, light or dark as the reader likes.

use std::fmt::Write as _;

use crate::Failed;
use crate::findings::About;
use crate::report::plot::{GRID, INK, Plot};
use crate::report::{Report, plots, table};
use crate::setting::Setting;
use crate::watch::Watched;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#222831;--grid:#d8dce2;--soft:#667085;--page:#fff;--box:#f6f7f9;
--good:#1f9d55;--bad:#d64545}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--grid:#3a414b;--soft:#9aa3af;--page:#15181c;--box:#1e2227}}
body{margin:0 auto;max-width:1100px;padding:24px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:18px;margin:32px 0 8px}h3{font-size:15px;margin:0 0 4px}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
code,pre,td,th{font-family:ui-monospace,monospace;font-size:13px}
code{overflow-wrap:anywhere}
pre,figure,.wide{background:var(--box);border-radius:8px;padding:12px;margin:0;overflow-x:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px 0}dt{color:var(--soft)}dd{margin:0}
ul{padding-left:20px}table{border-collapse:collapse;width:100%}
td,th{padding:3px 10px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
td:first-child,th:first-child{text-align:left}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(420px,100%),1fr));gap:16px}
svg{display:block;width:100%;height:auto}
.key{display:flex;flex-wrap:wrap;gap:0 14px;font-size:13px;color:var(--soft)}
.key i{display:inline-block;width:12px;height:3px;margin-right:5px;vertical-align:middle}
";

pub fn page(report: &Report, watched: &Watched, setting: &Setting) -> Result<String, Failed> {
    let mut page =
        String::from("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">";
    page += "<title>Throng load test</title><style>";
    page += STYLE;
    let _ = writeln!(
        page,
        "svg [fill=\"{INK}\"]{{fill:var(--ink)}}svg [stroke=\"{INK}\"]{{stroke:var(--ink)}}\
         svg [stroke=\"{GRID}\"]{{stroke:var(--grid)}}</style></head><body>"
    );
    summary(&mut page, report, setting);
    findings(&mut page, report);
    latencies(&mut page, watched);
    drawings(&mut page, &plots::plots(watched, &report.fields), setting)?;
    counts(&mut page, report, watched);
    page += "</body></html>\n";
    Ok(page)
}

fn summary(page: &mut String, report: &Report, setting: &Setting) {
    let (class, verdict) = if report.is_complete {
        ("good", "complete: everything that was asked for happened")
    } else {
        (
            "bad",
            "not complete: something that was asked for did not happen",
        )
    };
    let _ = writeln!(
        page,
        "<h1>Throng load test</h1><p class=\"{class}\"><strong>{verdict}</strong></p><dl>"
    );
    let rows = [
        (
            "command",
            format!("<code>{}</code>", escaped(&setting.command)),
        ),
        ("target", escaped(&setting.targets.join(", "))),
        ("connections", setting.connections.to_string()),
        ("machine", escaped(&setting.machine.to_string())),
        ("version", setting.version.to_owned()),
        ("began", escaped(&setting.began)),
    ];
    for (name, text) in rows {
        let _ = writeln!(page, "<dt>{name}</dt><dd>{text}</dd>");
    }
    page.push_str("</dl>\n");
}

fn findings(page: &mut String, report: &Report) {
    page.push_str("<h2>Whose limits were reached</h2><ul>\n");
    for finding in &report.findings {
        let class = match finding.about {
            About::Client | About::Host | About::Limit | About::Server => "bad",
            About::Nothing => "good",
            About::Note => "soft",
        };
        let _ = writeln!(
            page,
            "<li class=\"{class}\">{}</li>",
            escaped(&finding.text)
        );
    }
    page.push_str("</ul>\n");
}

fn latencies(page: &mut String, watched: &Watched) {
    if watched.latencies.is_empty() {
        return;
    }
    page.push_str("<h2>Latencies in milliseconds</h2><div class=\"wide\"><table><tr><th></th>");
    for name in table::head() {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr>\n");
    for (what, histogram) in &watched.latencies {
        let _ = write!(page, "<tr><td>{}</td>", escaped(what.name()));
        for cell in table::cells(histogram) {
            let _ = write!(page, "<td>{cell}</td>");
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn drawings(page: &mut String, plots: &[Plot], setting: &Setting) -> Result<(), Failed> {
    page.push_str("<h2>Over time</h2>\n");
    if plots.is_empty() {
        page.push_str(
            "<p class=\"soft\">The run was too short for plots: there is one look a second.</p>\n",
        );
    }
    if !setting.has_servers {
        page.push_str(
            "<p class=\"soft\">With <code>--server-pid PID</code> there are plots of the memory and \
             the CPU of a server on this host, too.</p>\n",
        );
    }
    page.push_str("<div class=\"plots\">\n");
    for plot in plots {
        let _ = write!(
            page,
            "<figure><h3>{}</h3>{}<div class=\"key\">",
            escaped(&plot.title),
            plot.svg()?
        );
        for (name, color) in plot.legend() {
            let _ = write!(
                page,
                "<span><i style=\"background:{color}\"></i>{}</span>",
                escaped(name)
            );
        }
        page.push_str("</div></figure>\n");
    }
    page.push_str("</div>\n");
    Ok(())
}

fn counts(page: &mut String, report: &Report, watched: &Watched) {
    page.push_str("<h2>What happened</h2>\n");
    if let Some(counts) = &report.counts {
        let _ = writeln!(page, "<pre>{}</pre>", escaped(&counts.to_string()));
    }
    if let Some(slab) = watched.slab.as_ref().filter(|slab| !slab.caches.is_empty()) {
        page.push_str(
            "<h2>Kernel slab for each connection, in bytes</h2><div class=\"wide\"><table>\n",
        );
        for (name, bytes) in &slab.caches {
            let each = bytes / slab.connections.max(1);
            let _ = writeln!(page, "<tr><td>{}</td><td>{each}</td></tr>", escaped(name));
        }
        page.push_str("</table></div>\n");
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}
