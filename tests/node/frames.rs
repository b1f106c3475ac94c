//! Frames over real sockets; tests/rfc6455.rs has the whole of the standard without them.

use serde_json::{Value, json};

use crate::support::frame::{encode, whole};
use crate::support::{Client, Node, Opcode, eventually};

fn ping(id: &str) -> Vec<u8> {
    let message = json!({"path": "ping", "requestId": id});
    whole(Opcode::Text, message.to_string().as_bytes())
}

#[test]
fn frames_may_be_torn_at_every_byte() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    let mut bytes = ping("one");
    // A message in three fragments, with a ping among them.
    bytes.extend(encode(0x01, br#"{"path":"pi"#));
    bytes.extend(whole(Opcode::Ping, b"between"));
    bytes.extend(encode(0x00, br#"ng","requestId":"#));
    bytes.extend(encode(0x80, "\"zwö\"}".as_bytes()));
    for byte in bytes {
        client.write(&[byte]);
    }
    assert_eq!(client.hear()["requestId"], "one");
    let pong = client.frame();
    assert_eq!(
        (pong.opcode, &pong.payload[..]),
        (Opcode::Pong, &b"between"[..])
    );
    assert_eq!(client.hear()["requestId"], "zwö");
    client.leave();
}

#[test]
fn many_frames_may_come_in_one_packet() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    let bytes: Vec<u8> = (0..500).flat_map(|n| ping(&n.to_string())).collect();
    client.write(&bytes);
    for n in 0..500 {
        assert_eq!(client.hear()["requestId"], n.to_string());
    }
}

/// A direct frame to oneself that is so many bytes long.
fn message_of(bytes: usize) -> Vec<u8> {
    let text = |padding: usize| json!({"to": "alice", "msg": "m".repeat(padding)}).to_string();
    let message = text(bytes - text(0).len());
    assert_eq!(message.len(), bytes);
    message.into_bytes()
}

#[test]
fn the_log_names_the_user_who_has_gone_past_a_limit() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    client.send(Opcode::Text, &message_of((64 << 10) + 1));
    client.expect_close(1009);
    eventually("it is told", || {
        node.errors()
            .lines()
            .any(|line| line.contains("limit=\"message_bytes_max\"") && line.contains("user=alice"))
    });
}

#[test]
fn a_message_of_64_kib_is_taken_and_one_byte_more_is_closed_1009() {
    const MAX: usize = 64 << 10;
    let node = Node::start(&[]);
    for size in [MAX - 1, MAX] {
        let mut client = node.join("alice");
        let message = message_of(size);
        client.send(Opcode::Text, &message);
        let first: Value = client.hear();
        // The same in two fragments.
        client.write(&encode(0x01, &message[..1000]));
        client.write(&encode(0x80, &message[1000..]));
        assert_eq!(client.hear()["msg"], first["msg"]);
        client.leave();
    }
    let large = message_of(MAX + 1);
    let mut client = node.join("alice");
    client.send(Opcode::Text, &large);
    client.expect_close(1009);
    let mut client = node.join("alice");
    client.write(&encode(0x01, &large[..MAX]));
    client.write(&encode(0x80, &large[MAX..]));
    client.expect_close(1009);
    // The header alone is enough: nothing of the message has to arrive.
    let mut client = node.join("alice");
    client.write(&[
        0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
    ]);
    client.expect_close(1009);
    node.awaits_emptiness();
}

#[test]
fn broken_rules_have_their_close_codes() {
    let node = Node::start(&[]);
    let cases: [(u16, Vec<u8>); 9] = [
        (1002, vec![0x81, 0x02, b'{', b'}']),
        (1002, encode(0xc1, b"{}")),
        (1002, encode(0x83, b"{}")),
        (1002, encode(0x09, b"")),
        (1002, encode(0x80, b"{}")),
        (1002, whole(Opcode::Ping, &[0; 126])),
        (1002, whole(Opcode::Close, &1005u16.to_be_bytes())),
        (1003, whole(Opcode::Binary, b"{}")),
        (1007, encode(0x01, b"{\"path\":\"\xc0")),
    ];
    for (code, bytes) in cases {
        let mut client = node.join("alice");
        client.write(&bytes);
        client.expect_close(code);
    }
    node.awaits_emptiness();
}

#[test]
fn the_third_malformed_message_is_the_last() {
    let node = Node::start(&[]);
    let mut client: Client = node.join("alice");
    for text in ["[]", "{\"a\":", "{\"type\":99}"] {
        client.send(Opcode::Text, text.as_bytes());
        assert_eq!(client.hear()["params"]["code"], 400, "{text}");
    }
    client.expect_close(1008);
}

#[test]
fn too_many_fragments_are_closed_1008_empty_ones_too() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    let mut bytes = encode(0x01, b"");
    bytes.extend(encode(0x00, b"").repeat(1023));
    client.write(&bytes);
    // A fragmented message is no place for another one, but for a ping.
    client.send(Opcode::Ping, b"alive");
    assert_eq!(client.frame().payload, b"alive");
    client.write(&encode(0x00, b""));
    client.expect_close(1008);
}
