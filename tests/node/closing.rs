//! The end of a connection: the peer really sees why, and then an end rather than a reset.

use serde_json::json;

use crate::support::frame::{encode, whole};
use crate::support::{Client, Event, Node, Opcode};

#[test]
fn a_clients_close_is_answered_with_its_own_code_and_the_end() {
    let node = Node::start(&[]);
    for code in [1000u16, 1001, 1008, 3000, 4999] {
        let mut client = node.join("alice");
        client.say_goodbye(code);
        assert_eq!(client.expect_close(code), "");
    }
    let mut client = node.join("alice");
    client.send(Opcode::Close, b"");
    let close = client.frame();
    assert_eq!((close.opcode, close.payload.len()), (Opcode::Close, 0));
    assert_eq!(client.next(), Event::End);
    let mut client = node.join("alice");
    client.send(
        Opcode::Close,
        &[&1000u16.to_be_bytes()[..], &[b'r'; 123]].concat(),
    );
    client.expect_close(1000);
    node.awaits_emptiness();
}

#[test]
fn what_was_asked_before_the_close_is_answered_and_nothing_after_it() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    let ask = |id: &str| {
        let text = json!({"path": "ping", "requestId": id}).to_string();
        whole(Opcode::Text, text.as_bytes())
    };
    let close = whole(Opcode::Close, &1000u16.to_be_bytes());
    client.write(&[ask("before"), close, ask("after")].concat());
    assert_eq!(client.hear()["requestId"], "before");
    client.expect_close(1000);
}

#[test]
fn the_code_arrives_though_the_server_had_not_read_everything() {
    let node = Node::start(&[]);
    let token = node.token("alice");
    for n in 0..20 {
        let mut client = node.open(&format!("?token={token}"), &[]).unwrap();
        client.hear();
        // A fault, and behind it far more than one read takes.
        let mut bytes = whole(Opcode::Binary, b"fault");
        bytes.extend(encode(0x82, &[7; 60_000]).repeat(10 + n));
        client.write(&bytes);
        client.expect_close(1003);
    }
    node.awaits_emptiness();
}

#[test]
fn a_client_that_does_not_answer_the_close_still_sees_the_code_and_the_end() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    client.send(Opcode::Binary, b"x");
    client.expect_close(1003);
    // It keeps its end open, and is not waited for any longer than a second or so.
    node.awaits_emptiness();
    drop(client);
}

#[test]
fn a_refused_upgrade_with_a_large_body_still_sees_its_status() {
    let node = Node::start(&[]);
    for _ in 0..10 {
        let length = "Content-Length: 700000";
        let head = crate::support::client::request("/websocket", &[length]);
        let mut client = Client::over(crate::support::client::dial(node.ws));
        let mut bytes = head.into_bytes();
        bytes.resize(bytes.len() + 700_000, b'b');
        client.write(&bytes);
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        client.read_to_end();
        assert_eq!(client.next(), Event::End);
    }
}

#[test]
fn an_end_without_a_close_frame_is_an_end() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    // Half of a message, and then no more: the other direction is still open.
    client.write(&encode(0x81, b"{\"path\":\"ping\"}")[..8]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.next(), Event::End);
    node.awaits_emptiness();
    assert_eq!(node.metric("closes_total{code=\"1006\"}"), 1.0);
}
