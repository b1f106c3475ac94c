//! SIGTERM and SIGINT: everybody is told to come back, and then the node ends.

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::call;
use crate::support::{Client, Node, Setup, eventually};

/// A node where whoever does not answer the close frame holds the drain for a long time.
fn patient() -> Node {
    let config = "[limits]\nclose_secs = 60\n";
    let setup = Setup::new().config(config);
    setup.args(&["--drain-secs", "60"]).start()
}

fn come_back(reason: &str) -> Value {
    let reason: Value = serde_json::from_str(reason).expect(reason);
    let retry_ms = reason["retryMs"].as_u64().unwrap();
    assert!((1000..10_000).contains(&retry_ms), "{reason}");
    reason
}

#[test]
fn every_client_hears_1012_and_when_to_come_back_and_then_the_node_ends_with_status_0() {
    for signal in ["TERM", "INT"] {
        let node = Node::start(&["--reactors", "2"]);
        let ws = node.ws;
        let mut clients: Vec<Client> = (0..20).map(|n| node.join(&format!("u{n}"))).collect();
        clients.push(node.stranger());
        node.signal(signal);
        let mut retries = Vec::new();
        for mut client in clients {
            let closed = client.closed();
            assert_eq!(closed.code, 1012);
            let reason = come_back(&closed.reason);
            assert_eq!(reason["to"], format!("ws://{ws}/websocket"));
            retries.push(reason["retryMs"].as_u64().unwrap());
            client.say_goodbye(1012);
            assert_eq!(client.read_to_end(), "");
        }
        retries.dedup();
        assert!(retries.len() > 1, "all come back at once");
        let (status, _, errors) = node.end();
        assert_eq!(status.code(), Some(0), "{errors}");
        TcpListener::bind(ws).expect("the port is free again");
    }
}

#[test]
fn a_node_without_clients_ends_at_once() {
    let node = Node::start(&[]);
    node.signal("TERM");
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[test]
fn while_it_drains_probes_hear_503_and_newcomers_1012() {
    let node = patient();
    assert_eq!(call(node.ws, "GET", "/health", &[], "").status, 200);
    let mut holdout = node.join("alice");
    let token = node.token("bob");
    node.signal("TERM");
    assert_eq!(holdout.closed().code, 1012);
    for addr in [node.ws, node.api] {
        assert_eq!(call(addr, "GET", "/health", &[], "").status, 503);
    }
    assert_eq!(node.get("/ready").status, 503);
    assert_eq!(node.metric("draining"), 1.0);
    assert_eq!(node.metric("closes_total{code=\"1012\"}"), 1.0);
    // Whoever is still there is reached, though some reactors may have ended.
    node.send_to_all(&json!({"n": 1})).content();
    let mut newcomer = node.open(&format!("?token={token}"), &[]).unwrap();
    let closed = newcomer.closed();
    assert_eq!(closed.code, 1012, "and before that nothing");
    come_back(&closed.reason);
    drop((holdout, newcomer));
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
}

#[test]
fn a_second_signal_stops_at_once_with_status_1() {
    let mut node = patient();
    let mut holdout = node.join("alice");
    node.signal("TERM");
    assert_eq!(holdout.closed().code, 1012);
    sleep(Duration::from_millis(300));
    assert!(node.is_running(), "it waits for the client's close frame");
    let began = Instant::now();
    node.signal("TERM");
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("second signal"), "{errors}");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn the_drain_ends_when_its_time_is_over() {
    let config = "[limits]\nclose_secs = 60\n";
    let node = Setup::new()
        .config(config)
        .args(&["--drain-secs", "1"])
        .start();
    let mut holdout = node.join("alice");
    let silent = Client::over(crate::support::client::dial(node.ws));
    eventually("both are seen", || node.metric("connections") == 2.0);
    let began = Instant::now();
    node.signal("TERM");
    assert_eq!(holdout.closed().code, 1012);
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(500), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    drop(silent);
}
