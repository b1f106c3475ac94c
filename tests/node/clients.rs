//! Clients that others wrote, and the ends that they see: Python's `websockets` and Node's `ws`.

use serde_json::{Value, json};

use crate::support::talk::{Kind, Talk};
use crate::support::{Node, Setup};

fn url(node: &Node) -> String {
    format!("ws://{}/websocket", node.ws)
}

#[test]
fn alice_in_python_and_bob_in_node_talk_and_hear_a_push() {
    let node = Node::start(&["--reactors", "2"]);
    let query = format!("{}?token={}", url(&node), node.token("alice"));
    let bearer = format!("bearer.{}", node.token("bob"));
    let mut alice = Talk::start(Kind::Python, &query, &[]);
    let mut bob = Talk::start(Kind::NodeJs, &url(&node), &["throng", &bearer]);
    assert_eq!(
        (alice.line().as_str(), bob.line().as_str()),
        ("open", "open throng")
    );
    assert_eq!(alice.hear()["msg"]["userId"], "alice");
    assert_eq!(bob.hear()["msg"]["userId"], "bob");
    alice.say(r#"{"to":"bob","msg":"hi bob é","msgType":1}"#);
    let message = bob.hear();
    assert_eq!(
        (&message["from"], &message["msg"]),
        (&json!("alice"), &json!("hi bob é"))
    );
    bob.say(r#"{"to":"alice","msg":{"re":"hi"},"msgType":1}"#);
    let message = alice.hear();
    assert_eq!(
        (&message["from"], &message["msg"]["re"]),
        (&json!("bob"), &json!("hi"))
    );
    node.send_to_all(&json!({"text": "hello all"})).content();
    node.push(&["alice", "bob"], &json!({"text": "hello two"}))
        .content();
    for client in [&alice, &bob] {
        assert_eq!(client.hear()["msg"]["text"], "hello all");
        assert_eq!(client.hear()["msg"]["text"], "hello two");
    }
    for mut client in [alice, bob] {
        client.say("quit");
        assert_eq!(client.line(), "close 1000");
        assert_eq!(client.status(), Some(0));
    }
    node.awaits_emptiness();
}

#[test]
fn their_heartbeats_keep_them_there() {
    let node = Node::start(&["--ping-secs", "1", "--idle-secs", "3"]);
    let clients = [Kind::Python, Kind::NodeJs].map(|kind| {
        let query = format!("{}?token={}", url(&node), node.token("alice"));
        let client = Talk::start(kind, &query, &[]);
        assert_eq!(client.line(), "open");
        client.hear();
        client
    });
    std::thread::sleep(std::time::Duration::from_secs(5));
    node.push(&["alice"], &json!({"n": 1})).content();
    for client in clients {
        assert_eq!(client.hear()["msg"]["n"], 1);
    }
}

#[test]
fn they_see_refusals_and_the_reasons_of_every_end() {
    let setup = Setup::new().args(&[
        "--max-connections",
        "2",
        "--public-url",
        "wss://a.example/w",
    ]);
    let node = setup.start();
    for kind in [Kind::Python, Kind::NodeJs] {
        let query = format!("{}?token={}", url(&node), node.token("alice"));
        let refused = Talk::start(kind, &format!("{}?token=bad", url(&node)), &[]);
        assert_eq!(refused.line(), "refused 401");
        assert_eq!(refused.status(), Some(1));
        node.awaits("connections", 0.0);
        let mut client = Talk::start(kind, &query, &[]);
        assert_eq!(client.line(), "open");
        client.hear();
        let second = node.join("bob");
        let surplus = Talk::start(kind, &query, &[]);
        assert_eq!(surplus.line(), "open");
        let line = surplus.line();
        let reason: Value =
            serde_json::from_str(line.strip_prefix("close 1013 ").expect(&line)).unwrap();
        assert_eq!(reason["to"], "wss://a.example/w");
        assert_eq!(surplus.status(), Some(0));
        for _ in 0..3 {
            client.say("nonsense");
            assert_eq!(client.hear()["type"], 500);
        }
        assert_eq!(client.line(), "close 1008 malformed messages");
        second.leave();
        node.awaits_emptiness();
    }
    let query = format!("{}?token={}", url(&node), node.token("alice"));
    let clients = [Kind::Python, Kind::NodeJs].map(|kind| {
        let client = Talk::start(kind, &query, &[]);
        assert_eq!(client.line(), "open");
        client.hear();
        client
    });
    node.signal("TERM");
    for client in clients {
        let line = client.line();
        assert!(line.starts_with("close 1012 {\"retryMs\":"), "{line}");
        assert_eq!(client.status(), Some(0));
    }
    assert_eq!(node.end().0.code(), Some(0));
}
