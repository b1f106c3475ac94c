//! `throng doctor`: judges the host that the tests run on, and leaves it as it is.

use std::process::Output;

use serde_json::Value;

use crate::support::Setup;
use crate::support::setup::Folder;

fn doctor(args: &[&str]) -> Setup {
    let setup = Setup::bare(Folder::new()).args(&["doctor"]);
    let data = setup.folder.path("data").display().to_string();
    setup.args(&["--data-dir", &data]).args(args)
}

fn says(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The finding of this name in a report as JSON.
fn finding(setup: &Setup, name: &str) -> Value {
    let output = setup.run();
    let report: Value = serde_json::from_str(&says(&output)).unwrap();
    let ready = report["ready"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!ready)), "{report}");
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("{report}")).clone()
}

#[test]
fn a_host_that_holds_the_wanted_number_is_ready() {
    let output = doctor(&["--connections", "10"]).run();
    let text = says(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("This host is ready for 10 connections."));
}

#[test]
fn what_does_not_fit_is_told_with_what_mends_it_and_then_it_fits() {
    // 300 descriptors less 256 leave 44 for each reactor.
    let setup = doctor(&["--connections", "100", "--reactors", "2"]).descriptors(300);
    let output = setup.run();
    let text = says(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("throng --reactors 3\n"), "{text}");
    assert!(text.contains("1 thing to change before this host holds 100 connections."));
    let mended = setup.args(&["--reactors", "3"]);
    assert_eq!(mended.run().status.code(), Some(0));
}

#[test]
fn it_judges_the_node_that_the_configuration_describes() {
    let setup = doctor(&["--json", "--proxy-idle-secs", "60"]).config("max_connections = 7\n");
    let cap = finding(&setup, "max_connections");
    assert_eq!((&cap["status"], &cap["now"]), (&"ok".into(), &"7".into()));
    let ping = finding(&setup, "ping_secs");
    assert_eq!(ping["status"], "warn");
    assert_eq!(ping["mend"][0]["command"], "throng --ping-secs 45");
    assert_eq!(ping["mend"][0]["lasts"]["lines"], "ping_secs = 45");
    let setup = setup.env("THRONG_PING_SECS", "45");
    assert_eq!(finding(&setup, "ping_secs")["status"], "ok");
    let setup = setup.args(&["--connections", "8"]);
    assert_eq!(finding(&setup, "max_connections")["status"], "fail");
}

#[test]
fn what_cannot_be_judged_has_status_2() {
    for args in [["--connections", "none"], ["--connections", "0"]] {
        doctor(&args).fails_with(2);
    }
    let bad = doctor(&["--idle-secs", "5", "--ping-secs", "9"]).config("pth = 1\n");
    let says = bad.fails_with(2);
    assert!(says.contains("2 problems in the configuration"), "{says}");
}

#[test]
fn it_makes_nothing_and_asks_no_redis() {
    let setup = doctor(&["--redis", "redis://127.0.0.1:1", "--connections", "10"]);
    let output = setup.run();
    assert_eq!(output.status.code(), Some(0), "{}", says(&output));
    let mut left = std::fs::read_dir(setup.folder.path("")).unwrap();
    assert!(left.next().is_none());
}
