//! A table of descriptors that is full: by construction it is not, and where it is, it passes.

use std::net::TcpStream;
use std::process::Command;

use crate::support::client::dial;
use crate::support::{Node, Setup, eventually};

/// Sets the soft limit of a running process.
fn limit_descriptors(node: &Node, limit: &str) {
    let nofile = format!("--nofile={limit}:");
    let id = node.id().to_string();
    let status = Command::new("prlimit")
        .args(["--pid", &id, &nofile])
        .status();
    let status = status.expect("prlimit (of util-linux) is needed");
    assert!(status.success(), "prlimit {nofile}");
}

#[test]
fn a_crowd_beyond_the_cap_leaves_descriptors_to_spare() {
    // 300 less 256: a cap of 38, and the table is never full, whoever else comes.
    let node = Setup::new()
        .descriptors(300)
        .args(&["--reactors", "1"])
        .start();
    assert_eq!(node.metric("connections_max"), 38.0);
    let crowd: Vec<TcpStream> = (0..400).map(|_| dial(node.ws)).collect();
    node.awaits("accepted_total", 400.0);
    assert_eq!(node.metric("descriptors_exhausted_total"), 0.0);
    assert!(node.metric("connections") <= 38.0);
    assert!(node.metric("open_sockets") <= 38.0 + 192.0);
    // The API has what it needs as well.
    node.get("/api/v1/online").content();
    drop(crowd);
    node.awaits_emptiness();
    node.serves();
}

#[test]
fn a_full_table_is_told_and_survived() {
    let node = Setup::new()
        .descriptors(400)
        .args(&["--reactors", "1"])
        .start();
    let mut before = node.join("before");
    // As if somebody had lowered the limit of the running process.
    limit_descriptors(&node, "40");
    let crowd: Vec<TcpStream> = (0..60).map(|_| dial(node.ws)).collect();
    eventually("the table is full", || {
        node.metric("descriptors_exhausted_total") >= 2.0
    });
    let held = node.metric("open_sockets");
    assert!((10.0..40.0).contains(&held), "{held}");
    before.is_heard();
    assert!(node.metric("refusals_total{status=\"503\"}") >= 1.0);
    let warnings = node.errors().matches("no descriptors left").count();
    assert_eq!(warnings, 1, "told once in a while, not each time");
    drop(crowd);
    node.awaits("open_sockets", 1.0);
    node.serves();
    before.leave();
    node.awaits_emptiness();
    node.serves();
}
