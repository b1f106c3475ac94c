//! What the program says of a run besides its counts: latencies, the page, whose limits were
//! reached; over a tiny server.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use throng_loadtest::frame::{self, TEXT};
use throng_loadtest::message;

const SECRET: &str = "a secret that is long enough for this and is shown nowhere";

/// Registers everybody, and then holds.
fn node() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "ws://{}/websocket?token=hunter2",
        listener.local_addr().unwrap()
    );
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            std::thread::spawn(move || hold(stream));
        }
    });
    url
}

fn hold(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer)?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        message::ACCEPT
    )?;
    for text in [
        r#"{"msgType":0,"msg":{}}"#,
        r#"{"type":8,"status":200,"params":{}}"#,
    ] {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, TEXT, text.as_bytes());
        stream.write_all(&wire)?;
        let _ = stream.read(&mut buffer)?;
    }
    Ok(())
}

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_throng-loadtest"));
    program.args(arguments).env("THRONG_TOKEN_SECRET", SECRET);
    program
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

/// The parts of a page that are drawn.
fn drawings(page: &str) -> Vec<&str> {
    let parts = page.split("<svg").skip(1);
    parts
        .map(|part| part.split("</svg>").next().unwrap())
        .collect()
}

#[test]
fn the_page_is_whole_needs_nothing_from_elsewhere_and_tells_no_secret() {
    let (url, me) = (node(), std::process::id().to_string());
    let path = std::env::temp_dir().join(format!("throng-page-{me}.html"));
    let file = path.to_str().unwrap();
    let idle = ["idle", "--connections", "150", "--secs", "3", "--url", &url];
    let output = run(&[&idle[..], &["--html", file, "--server-pid", &me]].concat());
    assert!(output.status.success(), "{}", text(&output.stdout));
    let page = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();

    let drawn = drawings(&page);
    for title in [
        "Connections",
        "Memory of the servers",
        "Distribution of the latencies",
    ] {
        assert!(page.contains(&format!("<h3>{title}</h3>")), "{title}");
    }
    assert!(drawn.len() >= 6, "{} plots", drawn.len());
    for svg in drawn {
        let svg = format!("<svg{svg}</svg>");
        let parsed = roxmltree::Document::parse(&svg).unwrap();
        assert!(
            parsed
                .descendants()
                .any(|node| node.has_tag_name("polyline"))
        );
    }
    // Without the line that only HTML has, all of it is XML.
    let body = page
        .split("<body>")
        .nth(1)
        .unwrap()
        .replace("</body></html>", "");
    roxmltree::Document::parse(&format!("<body>{body}</body>")).unwrap();
    for reference in [
        "src=", "href=", "http:", "https:", "url(", "@import", "<script",
    ] {
        assert!(!page.contains(reference), "{reference}");
    }
    let shown = url.split('?').next().unwrap();
    assert!(page.contains(shown));
    for secret in ["hunter2", SECRET, "token="] {
        assert!(!page.contains(secret), "{secret}");
    }
}

#[test]
fn json_has_the_latencies_their_distribution_the_series_and_the_findings() {
    let url = node();
    let arguments = [
        "idle",
        "--connections",
        "20",
        "--secs",
        "2",
        "--url",
        &url,
        "--json",
    ];
    let output = run(&arguments);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["latencies"]["connect"]["count"], 20);
    let distribution = report["histograms"]["connect"].as_array().unwrap();
    assert_eq!(distribution.last().unwrap()[0], 1.0);
    let series = report["series"].as_array().unwrap();
    assert_eq!(
        (&series[0]["open"], &series.last().unwrap()["open"]),
        (&0.into(), &20.into())
    );
    assert!(!report["findings"].as_array().unwrap().is_empty());
    assert_eq!(report["connect"]["open"], 20);
    assert!(!text(&output.stdout).contains("hunter2"));
}

/// The limit is set by a shell, which becomes the program.
#[test]
fn a_client_that_has_no_more_descriptors_says_that_and_what_helps() {
    let url = node();
    let program = env!("CARGO_BIN_EXE_throng-loadtest");
    let script = format!("ulimit -n 100 && exec {program} \"$@\"");
    let output = Command::new("sh")
        .args([
            "-c",
            &script,
            "sh",
            "idle",
            "--connections",
            "300",
            "--threads",
            "1",
        ])
        .args(["--secs", "1", "--openid", "--url", &url])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let mut findings = said.lines().filter(|line| line.starts_with("finding"));
    let limit = findings.find(|line| line.contains("a limit of this host stopped it"));
    let limit = limit.unwrap_or_else(|| panic!("{said}"));
    assert!(
        limit.contains("EMFILE") && limit.contains("--threads"),
        "{limit}"
    );
    assert!(!said.contains("neither client nor host"), "{said}");
}

#[test]
fn nothing_is_said_on_the_way_where_that_is_not_wanted() {
    let url = node();
    let output = program(&["idle", "--connections", "2", "--secs", "1", "--url", &url])
        .arg("--quiet")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_page_that_cannot_be_written_is_told_before_anybody_connects() {
    let output = run(&[
        "idle",
        "--html",
        "/nowhere/page.html",
        "--url",
        "ws://127.0.0.1:9/",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot write /nowhere/page.html"));
    assert!(output.stdout.is_empty());
}
