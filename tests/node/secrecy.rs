//! Tokens and keys appear in no log line on any level, in no metric and in no error.

use serde_json::json;

use crate::support::http::call;
use crate::support::{Client, Node, Opcode, Setup};

const KEY: &str = "canary-key-0123456789abcdef0123456789";
const SECRET: &str = "canary-secret-0123456789abcdef0123456789";

/// Everything that a node tells, gathered.
fn gather(node: Node, mut told: String) -> String {
    let key = format!("Authorization: Bearer {KEY}");
    told += &call(node.api, "GET", "/metrics", &[&key], "").body;
    told += &call(node.api, "GET", "/api/v1/online", &[&key], "").body;
    told += &call(node.api, "GET", "/", &[&key], "").body;
    node.signal("TERM");
    let (status, output, errors) = node.end();
    assert_eq!(status.code(), Some(0));
    told + &output + &errors
}

#[test]
fn no_token_and_no_key_is_told_anywhere() {
    let setup = Setup::new().config("log_level = \"trace\"\n");
    let setup = setup
        .env("THRONG_API_KEY", KEY)
        .env("THRONG_TOKEN_SECRET", SECRET);
    let node = setup.start();
    let key = format!("Authorization: Bearer {KEY}");
    let order = json!({"userId": "alice", "ttlSecs": 60}).to_string();
    let answer = call(node.api, "POST", "/api/v1/tokens", &[&key], &order);
    let good = answer.content()["wsToken"].as_str().unwrap().to_owned();
    let mut bad = good.clone();
    bad.replace_range(..1, if good.starts_with('A') { "B" } else { "A" });
    let mut told = String::new();
    for token in [&good, &bad, &"canary.token".to_owned()] {
        for (query, field) in [
            (format!("?token={token}"), "X: 1".to_owned()),
            (String::new(), format!("Authorization: Bearer {token}")),
            (
                String::new(),
                format!("Sec-WebSocket-Protocol: throng, bearer.{token}"),
            ),
            // Refused for another reason, with the token in it.
            (format!("?token={token}"), "Content-Length: 1".to_owned()),
        ] {
            match node.open(&query, &[&field]) {
                Ok(client) => told += &farewell(client),
                Err(answer) => told += &answer,
            }
        }
        for message in [
            json!({"path": "connet", "token": token}),
            json!({"path": "ping", "token": token}),
            json!({"path": token, "token": token, "to": 7}),
            json!({"type": 7, "params": {"openid": "alice", "token": token}}),
            json!({"type": 7, "params": {"openid": "eve", "token": token}}),
        ] {
            let mut client = node.stranger();
            client.say(&message);
            let answer = farewell(client);
            // A path is the caller's own word, and comes back to it.
            if message["path"] != **token {
                told += &answer;
            }
        }
        let path = format!("/api/v1/online?token={token}&key={KEY}x");
        let field = format!("Authorization: Bearer {KEY}{token}");
        told += &call(node.api, "GET", &path, &[&field], "").body;
        told += &call(node.api, "POST", "/api/v1/tokens", &[&key], token).body;
    }
    let told = gather(node, told);
    let demo = told.lines().filter(|line| line.contains("demo token"));
    assert_eq!(demo.count(), 1, "the demo token is told on purpose, once");
    assert!(
        told.contains("TRACE") || told.contains("INFO"),
        "there is a log"
    );
    for canary in [good.as_str(), bad.as_str(), "canary"] {
        assert!(!told.contains(canary), "{canary} was told:\n{told}");
    }
    // Nor the half of a token that says everything.
    assert!(!told.contains(good.split('.').next().unwrap()));
    assert!(!told.contains(good.split('.').nth(1).unwrap()));
}

/// Ends a connection and returns everything that came over it.
fn farewell(mut client: Client) -> String {
    client.send(Opcode::Close, &1000u16.to_be_bytes());
    let mut told = std::mem::take(&mut client.head);
    told += &client.read_to_end();
    told
}
