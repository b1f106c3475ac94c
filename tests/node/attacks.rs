//! What a public port meets: slow, foreign and hostile peers, beside honest ones that go on.

use std::io::Write;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{dial, reset, status};
use crate::support::frame::{encode, whole};
use crate::support::setup::raise_descriptors;
use crate::support::{Client, Node, Opcode, Setup};

#[test]
fn two_thousand_slow_handshakes_do_not_hold_up_an_honest_client() {
    const SLOW: usize = 2000;
    raise_descriptors();
    let node = Setup::new()
        .config("[limits]\nhandshake_secs = 2\n")
        .start();
    let mut honest = node.join("alice");
    // Who has begun is answered when the time is over; who has not just sees the end.
    let begin = |_| {
        let mut stream = dial(node.ws);
        stream.write_all(b"G").unwrap();
        stream
    };
    let mut slow: Vec<TcpStream> = (0..SLOW).map(begin).collect();
    for byte in b"ET /websocket HTTP" {
        for stream in &mut slow {
            // It may have been cut already.
            let _ = stream.write(&[*byte]);
        }
        assert_eq!(honest.is_heard(), Vec::<Value>::new());
        sleep(Duration::from_millis(50));
    }
    node.serves();
    node.awaits("open_sockets", 1.0);
    assert_eq!(node.metric("refusals_total{status=\"408\"}"), SLOW as f64);
    for stream in slow {
        let head = Client::over(stream).read_to_end();
        assert_eq!(status(&head), 408);
    }
    honest.is_heard();
}

#[test]
fn other_protocols_on_this_port_are_turned_away() {
    let node = Setup::new()
        .config("[limits]\nhandshake_secs = 1\n")
        .start();
    let mut hello = vec![
        0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03,
    ];
    hello.extend([0x5a; 506]);
    let mut large_hello = hello.clone();
    large_hello.extend([0x5a; 8000]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let proxy = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET /websocket HTTP/1.1\r\n\r\n";
    for bytes in [
        &hello[..],
        &large_hello,
        preface,
        proxy,
        b"SSH-2.0-x\r\n\r\n",
        b"\r\n\r\n\r\n",
    ] {
        let mut client = Client::over(dial(node.ws));
        client.write(bytes);
        let answer = client.read_to_end();
        assert!((400..=505).contains(&status(&answer)), "{answer}");
    }
    node.awaits_emptiness();
    node.serves();
}

#[test]
fn a_flood_of_pings_from_a_client_that_never_reads_is_closed_1008() {
    let node = Node::start(&[]);
    let mut honest = node.join("alice");
    let mut flood = node.join("eve");
    flood.stream.set_nonblocking(true).unwrap();
    let pings = whole(Opcode::Ping, &[b'p'; 125]).repeat(500);
    let mut at = 0;
    while node.metric("closes_total{code=\"1008\"}") == 0.0 {
        while let Ok(count) = flood.stream.write(&pings[at..]) {
            at = (at + count) % pings.len();
        }
        honest.is_heard();
    }
    node.awaits("open_sockets", 1.0);
    // By then the answers were few: a burst of twenty at most.
    assert!(node.metric("frames_received_total") < 1000.0);
    honest.is_heard();
    node.serves();
}

#[test]
fn a_storm_of_resets_leaves_nothing_behind() {
    let node = Node::start(&["--reactors", "2"]);
    let mut honest = node.join("alice");
    let token = node.token("eve");
    let half = whole(Opcode::Text, br#"{"path":"ping"}"#);
    for n in 0..300 {
        let mut client = node.open(&format!("?token={token}"), &[]).unwrap();
        match n % 3 {
            0 => {}
            1 => client.write(&half[..7]),
            _ => client.write(&half),
        }
        reset(client.stream);
        if n % 100 == 0 {
            honest.is_heard();
        }
    }
    node.awaits("sessions", 1.0);
    node.awaits("open_sockets", 1.0);
    honest.leave();
    node.awaits_emptiness();
}

#[test]
fn a_message_for_somebody_who_was_just_reset_harms_nobody() {
    let node = Node::start(&["--reactors", "2"]);
    let mut alice = node.join("alice");
    for n in 0..50 {
        let bob = node.join("bob");
        reset(bob.stream);
        alice.say(&json!({"to": "bob,alice", "msg": n, "msgType": 1}));
        // Whether bob was still there is a race; alice always is.
        let heard = |alice: &mut Client| loop {
            let message = alice.hear();
            if message["msg"] == n {
                return;
            }
            assert_eq!(message["params"]["code"], 404, "{message}");
        };
        heard(&mut alice);
    }
    alice.is_heard();
    node.awaits("sessions", 1.0);
}

#[test]
fn too_much_before_authentication_is_closed_1008() {
    let node = Node::start(&[]);
    let mut stranger = node.stranger();
    // One frame of more than 4 KiB.
    stranger.write(&encode(0x81, &[b' '; 4097])[..20]);
    assert_eq!(stranger.expect_close(1008), "authenticate first");
    // More than 8 KiB in all, in frames that are allowed.
    let mut stranger = node.stranger();
    for _ in 0..3 {
        let padding = " ".repeat(3000);
        stranger.send(Opcode::Text, format!("{{\"type\":11}}{padding}").as_bytes());
    }
    assert_eq!(stranger.hear()["type"], 12);
    stranger.expect_close(1008);
    node.awaits_emptiness();
}

#[test]
fn who_sends_too_fast_is_told_so_and_then_closed_4429() {
    let config = "[limits]\nframes_per_sec = 10\n";
    let node = Setup::new().config(config).start();
    let mut fast = node.join("eve");
    let ping = whole(Opcode::Text, br#"{"path":"ping"}"#);
    fast.write(&ping.repeat(100));
    let mut answers = [0, 0];
    let closed = loop {
        let frame = fast.frame();
        if frame.opcode == Opcode::Close {
            break frame;
        }
        let value: Value = serde_json::from_slice(&frame.payload).unwrap();
        answers[usize::from(value["statusCode"] == 429)] += 1;
    };
    assert_eq!(closed.payload[..2], 4429u16.to_be_bytes());
    assert!((20..=40).contains(&answers[0]), "{answers:?}");
    assert!(answers[1] > 0, "{answers:?}");
}
