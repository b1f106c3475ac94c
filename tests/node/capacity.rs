//! The cap: who is beyond it hears where to go, and no place is ever lost.

use std::net::TcpStream;
use std::thread::scope;

use serde_json::{Value, json};

use crate::support::client::{dial, reset, status};
use crate::support::http::call;
use crate::support::{Client, Node, Opcode, Setup};

const PUBLIC: &str = "wss://ws1.example.com/websocket";

fn farewell(mut client: Client) -> Value {
    let closed = client.closed();
    assert_eq!(closed.code, 1013);
    client.say_goodbye(1013);
    assert_eq!(client.read_to_end(), "");
    serde_json::from_str(&closed.reason).expect(&closed.reason)
}

#[test]
fn one_too_many_is_upgraded_and_told_when_to_come_back_and_where() {
    let node = Node::start(&["--max-connections", "3", "--public-url", PUBLIC]);
    let mut clients: Vec<Client> = (0..3).map(|n| node.join(&format!("u{n}"))).collect();
    let token = node.token("late");
    let mut retries = Vec::new();
    for query in [format!("?token={token}"), String::new()] {
        let reason = farewell(node.open(&query, &[]).unwrap());
        assert_eq!(reason["to"], PUBLIC);
        let retry_ms = reason["retryMs"].as_u64().unwrap();
        assert!((1000..10_000).contains(&retry_ms), "{retry_ms}");
        retries.push(retry_ms);
    }
    assert_ne!(retries[0], retries[1], "they come back at different times");
    assert_eq!(node.metric("farewells_total"), 2.0);
    assert_eq!(node.metric("closes_total{code=\"1013\"}"), 2.0);
    // Who is beyond the cap was never there.
    assert_eq!(node.metric("connections"), 3.0);
    assert_eq!(node.push(&["late"], &json!({})).json()["statusCode"], -501);
    let probe = call(node.ws, "GET", "/health", &[], "");
    assert_eq!(probe.status, 200, "a full node is healthy");
    let ready = node.get("/ready");
    assert_eq!(ready.status, 503, "and not ready");
    assert_eq!(ready.json()["content"]["reason"], "full");
    clients.pop().unwrap().leave();
    node.awaits("connections", 2.0);
    assert_eq!(node.get("/ready").status, 200);
    let last = node.join("late");
    farewell(node.stranger());
    drop((clients, last));
    node.awaits_emptiness();
}

#[test]
fn where_everything_is_local_the_node_names_itself_and_elsewhere_nobody() {
    let node = Node::start(&["--max-connections", "1"]);
    let first = node.join("alice");
    let reason = farewell(node.stranger());
    assert_eq!(reason["to"], format!("ws://{}/websocket", node.ws));
    drop(first);
    let node = Node::start(&["--max-connections", "1", "--listen", "0.0.0.0:0"]);
    let first = node.join("alice");
    let reason = farewell(node.stranger());
    assert!(reason.get("to").is_none(), "{reason}");
    drop(first);
}

#[test]
fn only_so_many_are_told_goodbye_at_a_time() {
    let node = Node::start(&["--max-connections", "1", "--reactors", "1"]);
    let first = node.join("alice");
    // These have a place for their farewell, and do not ask for it.
    let silent: Vec<TcpStream> = (0..64).map(|_| dial(node.ws)).collect();
    node.awaits("open_sockets", 65.0);
    let mut client = Client::over(dial(node.ws));
    let head = client.read_head();
    assert_eq!(status(&head), 503, "{head}");
    assert!(head.contains("\r\nRetry-After: "), "{head}");
    client.read_to_end();
    drop((client, silent));
    node.awaits("open_sockets", 1.0);
    farewell(node.stranger());
    drop(first);
}

#[test]
fn strangers_hold_half_of_the_places_and_the_oldest_makes_room() {
    let node = Node::start(&["--max-connections", "10", "--reactors", "1"]);
    let mut known: Vec<Client> = (0..4).map(|n| node.join(&format!("u{n}"))).collect();
    let mut strangers: Vec<Client> = (0..5).map(|_| node.stranger()).collect();
    let is_there = |client: &mut Client| {
        client.say(&json!({"type": 11}));
        assert_eq!(client.hear()["type"], 12);
    };
    strangers.iter_mut().for_each(is_there);
    strangers.push(node.stranger());
    strangers.remove(0).expect_close(1008);
    strangers.iter_mut().for_each(is_there);
    for client in &mut known {
        client.is_heard();
    }
    // Who has said who it is is a stranger no more.
    let token = node.token("late");
    let mut late = strangers.remove(0);
    late.say(&json!({"path": "connet", "token": token}));
    assert_eq!(late.hear()["msg"]["userId"], "late");
    late.hear();
    strangers.push(node.stranger());
    strangers.iter_mut().for_each(is_there);
    late.is_heard();
}

#[test]
fn a_node_may_refuse_instead_of_saying_goodbye() {
    let setup = Setup::new().config("overflow = \"refuse\"\n");
    let node = setup.args(&["--max-connections", "2"]).start();
    let clients = [node.join("alice"), node.join("bob")];
    for _ in 0..3 {
        let answer = node.open("", &[]).err().unwrap();
        assert_eq!(status(&answer), 503, "{answer}");
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    }
    assert_eq!(node.metric("refusals_total{status=\"503\"}"), 3.0);
    drop(clients);
    node.awaits_emptiness();
    node.serves();
}

/// Comes and goes in one of many ways.
fn visit(node: &Node, token: &str, n: usize) {
    let upgraded = || node.open(&format!("?token={token}"), &[]);
    match n % 10 {
        0 => drop(dial(node.ws)),
        1 => reset(dial(node.ws)),
        2 => {
            let mut half = Client::over(dial(node.ws));
            half.write(b"GET /websocket HTTP/1.1\r\nHost: half");
        }
        3 => {
            let mut garbage = Client::over(dial(node.ws));
            garbage.write(b"\x00\xff garbage \r\n\r\n");
            garbage.read_to_end();
        }
        4 => drop(node.open("?token=bad", &[]).err()),
        5 => drop(upgraded()),
        6 => {
            if let Ok(client) = upgraded() {
                client.vanish();
            }
        }
        7 => {
            if let Ok(mut client) = upgraded() {
                client.write(&[0x82, 0x01, 0x00]);
            }
        }
        8 => {
            if let Ok(mut client) = upgraded() {
                client.send(Opcode::Close, &[]);
            }
        }
        _ => {
            if let Ok(mut client) = upgraded() {
                client.send(Opcode::Ping, b"");
                client.write(&[0x89, 0x80, 1, 2]);
            }
        }
    }
}

#[test]
fn no_place_is_lost_however_they_come_and_go() {
    for cap in ["1000", "3"] {
        let node = Node::start(&["--reactors", "2", "--max-connections", cap]);
        let token = node.token("alice");
        scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| (0..100).for_each(|n| visit(&node, &token, n)));
            }
        });
        node.awaits_emptiness();
        let accepted = node.metric("accepted_total");
        assert!(accepted >= 499.0, "{accepted}");
        node.serves();
    }
}
