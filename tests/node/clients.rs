//! Clients that others wrote: Python's `websockets` and Node's `ws`, as line clients.
//!
//! scripts/test-tools.sh puts both under target/tools. Where one is missing the test fails: a
//! test that is skipped proves nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use serde_json::{Value, json};

use crate::support::{Node, PATIENCE, Setup};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A client in a process of its own. Its lines are explained in tests/clients/talk.py.
struct Talk {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

#[derive(Clone, Copy)]
enum Kind {
    Python,
    NodeJs,
}

fn tools() -> PathBuf {
    std::env::var_os("THRONG_TOOLS")
        .map_or_else(|| Path::new(ROOT).join("target/tools"), PathBuf::from)
}

impl Talk {
    fn start(kind: Kind, url: &str, protocols: &[&str]) -> Talk {
        let (program, needed, script) = match kind {
            Kind::Python => {
                let python = tools().join("py/bin/python");
                (python.clone(), python, "talk.py")
            }
            Kind::NodeJs => {
                let library = tools().join("node/node_modules/ws");
                (PathBuf::from("node"), library, "talk.mjs")
            }
        };
        let advice = "run scripts/test-tools.sh (make test does)";
        assert!(needed.exists(), "{} is missing: {advice}", needed.display());
        let mut child = Command::new(&program)
            .arg(Path::new(ROOT).join("tests/clients").join(script))
            .arg(url)
            .args(protocols)
            .env("THRONG_TOOLS", tools())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: {advice}", program.display()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Talk {
            input: child.stdin.take(),
            child,
            lines,
        }
    }

    fn line(&self) -> String {
        self.lines
            .recv_timeout(PATIENCE)
            .expect("the client says nothing")
    }

    /// The next message.
    fn hear(&self) -> Value {
        let line = self.line();
        let text = line.strip_prefix("recv ").expect(&line);
        serde_json::from_str(text).expect(text)
    }

    fn say(&mut self, text: &str) {
        let mut input = self.input.as_ref().unwrap();
        writeln!(input, "{text}").unwrap();
    }

    fn status(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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
