//! `throng-loadtest`: holds, broadcasts to, or lets talk a crowd of WebSocket clients, perhaps
//! while somebody restarts their nodes, and says what happened to them; and judges what was
//! written down of it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Common, What};
use crate::progress::Progress;
use crate::report::{Report, html};
use crate::setting::Setting;
use crate::watch::Watch;

mod args;
mod findings;
mod progress;
mod report;
mod scenarios;
mod setting;
mod watch;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.what) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("throng-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if everything that was asked for happened.
fn run(what: What) -> Result<bool, Failed> {
    let is_json = what.is_json();
    let observed = what.common().map(Observed::begin).transpose()?;
    let mut report = scenarios::run(what)?;
    let html = observed.map(|observed| observed.end(&mut report));
    if is_json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text);
    }
    html.unwrap_or(Ok(()))?;
    Ok(report.is_complete)
}

/// A scenario that is watched while it goes on.
struct Observed {
    watch: Watch,
    setting: Setting,
    html: Option<(PathBuf, File)>,
}

impl Observed {
    fn begin(common: &Common) -> Result<Observed, Failed> {
        // Now, so that nobody waits an hour to hear that there is no such directory.
        let create = |path: &PathBuf| {
            let file = File::create(path);
            let file = file.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
            Ok::<_, Failed>((path.clone(), file))
        };
        let html = common.html.as_ref().map(create).transpose()?;
        let progress = if common.quiet {
            Progress::quiet()
        } else {
            Progress::new(u64::from(common.connections))
        };
        let setting = Setting::of(common);
        let watch = Watch::begin(common.pulse.clone(), &common.server_pid, progress)?;
        Ok(Observed {
            watch,
            setting,
            html,
        })
    }

    fn end(self, report: &mut Report) -> Result<(), Failed> {
        let watched = self
            .watch
            .end()
            .ok_or("the thread that watches has failed")?;
        report.watched(&watched, &self.setting);
        if let Some((path, mut file)) = self.html {
            let page = html::page(report, &watched, &self.setting)?;
            let written = file.write_all(page.as_bytes());
            written.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
        Ok(())
    }
}
