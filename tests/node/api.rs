//! The HTTP API on its own port: who may ask, and what the metrics look like.

use serde_json::json;

use crate::support::http::{Answer, call};
use crate::support::{Node, Setup};

const KEY: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn with_a_key_everything_but_the_probes_needs_it() {
    let node = Setup::new().env("THRONG_API_KEY", KEY).start();
    let get = |path: &str, fields: &[&str]| call(node.api, "GET", path, fields, "");
    for path in ["/health", "/ready"] {
        assert_eq!(get(path, &[]).status, 200);
    }
    let (good, bad) = (
        format!("Authorization: Bearer {KEY}"),
        format!("Authorization: Bearer {KEY}x"),
    );
    for path in ["/metrics", "/api/v1/online", "/nothing"] {
        for fields in [&[][..], &[bad.as_str()], &["Authorization: Bearer"]] {
            let answer = get(path, fields);
            assert_eq!(answer.status, 401, "{path} {fields:?}");
            assert!(answer.field("WWW-Authenticate").is_some());
        }
    }
    assert_eq!(get("/metrics", &[&good]).status, 200);
    // The key is asked for whatever name the caller used.
    assert_eq!(
        get("/api/v1/online", &[&good, "Host: gateway.example"]).status,
        200
    );
    let order = json!({"sendToAll": true, "msg": {}}).to_string();
    let post = |fields: &[&str]| call(node.api, "POST", "/api/v1/messages", fields, &order);
    assert_eq!((post(&[]).status, post(&[&good]).status), (401, 200));
}

#[test]
fn without_a_key_only_this_machine_is_heard() {
    let node = Node::start(&[]);
    let ask = |host: &str| call(node.api, "GET", "/api/v1/online", &[host], "").status;
    assert_eq!(ask("Host: localhost:8084"), 200);
    assert_eq!(ask("Host: [::1]"), 200);
    for foreign in [
        "Host: evil.example",
        "Host: 127.0.0.1.evil.example",
        "Host: 10.0.0.1",
    ] {
        assert_eq!(ask(foreign), 403, "{foreign}");
    }
}

#[test]
fn every_answer_has_one_shape() {
    let node = Node::start(&[]);
    let shape = |answer: Answer| {
        let value = answer.json();
        assert!(
            value["success"].is_boolean() && value["msg"].is_string(),
            "{value}"
        );
        assert!(value.get("content").is_some());
        assert_eq!(value["statusCode"], answer.status, "{value}");
        answer.status
    };
    assert_eq!(shape(node.get("/api/v1/online")), 200);
    assert_eq!(shape(node.get("/health")), 200);
    assert_eq!(shape(node.get("/nothing")), 404);
    assert_eq!(shape(node.get("/api/v1/messages")), 405);
    assert_eq!(
        shape(node.post("/api/v1/messages", &json!({"to": []}))),
        400
    );
    assert_eq!(shape(node.post("/api/v1/messages", &json!([1]))), 400);
    let large = json!({"sendToAll": true, "msg": {"text": "x".repeat(1 << 20)}});
    assert_eq!(shape(node.post("/api/v1/messages", &large)), 413);
}

/// Checks text against the grammar of OpenMetrics, as far as it is used, and counts the samples.
fn samples_of(text: &str) -> usize {
    let body = text.strip_suffix("# EOF\n").expect("no end");
    let mut family = String::new();
    let mut count = 0;
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let kind = words.next().unwrap();
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            family = words.next().expect(line).to_owned();
            assert!(words.next().is_some(), "{line}");
            continue;
        }
        assert!(
            line.starts_with(&family) && family.starts_with("throng_"),
            "{line}"
        );
        let (name, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        if let Some((_, labels)) = name.split_once('{') {
            for label in labels.strip_suffix('}').expect(line).split(',') {
                let (key, text) = label.split_once('=').expect(line);
                assert!(key.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
                assert!(
                    text.len() > 2 && text.starts_with('"') && text.ends_with('"'),
                    "{line}"
                );
            }
        }
        count += 1;
    }
    count
}

#[test]
fn metrics_are_text_that_a_scraper_reads_and_show_the_connections() {
    let node = Node::start(&["--reactors", "2", "--max-connections", "50"]);
    let clients: Vec<_> = (0..5).map(|n| node.join(&format!("u{n}"))).collect();
    let stranger = node.stranger();
    let answer = node.get("/metrics");
    let kind = answer.field("Content-Type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    assert!(samples_of(&answer.body) > 50);
    for (name, value) in [
        ("connections", 6.0),
        ("connections_max", 50.0),
        ("sessions", 5.0),
        ("users", 5.0),
        ("accepted_total", 6.0),
        ("draining", 0.0),
        ("sockets{state=\"authenticated\"}", 5.0),
        ("sockets{state=\"unauthenticated\"}", 1.0),
        ("sockets{state=\"leaving\"}", 0.0),
        ("watches", 0.0),
    ] {
        assert_eq!(node.metric(name), value, "{name}");
    }
    // Five at most share pages and queues that were made for many more.
    let each = node.metric("connection_bytes");
    assert!((100.0..1e6).contains(&each), "{each}");
    assert!(node.metric("sent_bytes_total") > 500.0);
    drop((clients, stranger));
}
