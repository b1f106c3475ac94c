//! What happens when a client is silent, or slow, or never says who it is.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{dial, status};
use crate::support::frame::encode;
use crate::support::{Client, Node, Opcode, Setup};

#[test]
fn who_does_not_say_who_it_is_in_time_is_closed_4401_and_pings_do_not_help() {
    let node = Node::start(&["--auth-timeout-secs", "2"]);
    let began = Instant::now();
    let mut silent = node.stranger();
    let mut busy = node.stranger();
    let mut known = node.join("alice");
    let mut pongs = 0;
    loop {
        busy.send(Opcode::Ping, b"here");
        let frame = busy.frame();
        if frame.opcode == Opcode::Close {
            assert_eq!(frame.payload[..2], 4401u16.to_be_bytes());
            break;
        }
        assert_eq!(
            (frame.opcode, &frame.payload[..]),
            (Opcode::Pong, &b"here"[..])
        );
        pongs += 1;
        // Slower than the limit of control frames.
        sleep(Duration::from_millis(150));
    }
    assert!(pongs > 0);
    silent.expect_close(4401);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1500), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    known.is_heard();
    assert_eq!(node.metric("closes_total{code=\"4401\"}"), 2.0);
}

#[test]
fn silence_is_closed_4408_and_any_byte_is_life() {
    let node = Node::start(&["--idle-secs", "2", "--ping-secs", "0"]);
    let mut silent = node.join("alice");
    let mut speaker = node.join("bob");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(3500) {
        speaker.say(&json!({"type": 11}));
        assert_eq!(speaker.hear()["type"], 12);
        sleep(Duration::from_millis(300));
    }
    silent.expect_close(4408);
    speaker.is_heard();
}

#[test]
fn a_silent_client_is_pinged_and_lives_as_long_as_it_answers() {
    let node = Node::start(&["--ping-secs", "1", "--idle-secs", "3"]);
    let mut deaf = node.join("alice");
    let mut good = node.join("bob");
    let mut pings = 0;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(5) {
        let ping = good.frame();
        assert_eq!(ping.opcode, Opcode::Ping);
        good.send(Opcode::Pong, &ping.payload);
        pings += 1;
    }
    assert!(pings >= 2);
    good.is_heard();
    assert_eq!(deaf.frame().opcode, Opcode::Ping);
    deaf.expect_close(4408);
    assert!(node.metric("pings_total") >= 4.0);
}

#[test]
fn a_message_or_a_frame_that_does_not_end_is_closed_1008() {
    let node = Setup::new().config("[limits]\nmessage_secs = 1\n").start();
    let mut torn = node.join("alice");
    torn.write(&encode(0x81, b"{\"path\":\"ping\"}")[..9]);
    let mut endless = node.join("bob");
    endless.write(&encode(0x01, b"{\"path\""));
    // Control frames in between are answered and change nothing.
    endless.send(Opcode::Ping, b"x");
    assert_eq!(endless.frame().opcode, Opcode::Pong);
    assert_eq!(torn.expect_close(1008), "message took too long");
    endless.expect_close(1008);
    node.serves();
}

#[test]
fn an_upgrade_that_does_not_come_is_cut() {
    let node = Setup::new()
        .config("[limits]\nhandshake_secs = 1\n")
        .start();
    let mut silent = Client::over(dial(node.ws));
    let mut begun = Client::over(dial(node.ws));
    begun.write(b"GET /websocket HTTP/1.1\r\nHost: x\r\n");
    assert_eq!(status(&begun.read_head()), 408);
    begun.read_to_end();
    assert_eq!(silent.read_to_end(), "", "there was nothing to answer");
    node.awaits_emptiness();
}
