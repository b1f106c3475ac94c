//! RFC 6455 as the Autobahn suite asks for it, without a socket: each case whole, byte by byte
//! and split by seeds. The feed of a failing case, with its seed, stands in the message.

#![allow(clippy::unwrap_used)]

mod rig;

#[path = "rfc6455/limits.rs"]
mod limits;
#[path = "rfc6455/utf8.rs"]
mod utf8;

use rig::feed::Feed;
use rig::wire::{BINARY, CLOSE, CONTINUATION, Frame, Heard, PING};
use rig::{Peer, Rig};
use throng::session::Phase;

/// What is heard when `say` is said on the echo path, however it is fed.
fn echo(name: &str, say: &[Frame], hear: &[Heard]) {
    check(name, Rig::echo, say, hear);
}

fn check(name: &str, join: impl Fn(&mut Rig) -> Peer, say: &[Frame], hear: &[Heard]) {
    for feed in Feed::all() {
        let mut rig = Rig::new();
        let peer = join(&mut rig);
        rig.feed = feed.clone();
        for frame in say {
            rig.say_frame(peer, frame);
        }
        assert_eq!(heard(&mut rig, peer), hear, "{name}, fed {feed:?}");
    }
}

/// What was heard, without the reasons that the server gives.
fn heard(rig: &mut Rig, peer: Peer) -> Vec<Heard> {
    let blunt = |one| match one {
        Heard::Close(code, _) => Heard::Close(code, String::new()),
        other => other,
    };
    rig.heard(peer).into_iter().map(blunt).collect()
}

fn text(text: &str) -> Heard {
    Heard::Text(text.to_owned())
}

fn closed(code: u16) -> Heard {
    Heard::Close(Some(code), String::new())
}

fn user(rig: &mut Rig) -> Peer {
    rig.user("rose")
}

#[test]
fn messages_of_every_length_come_back() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 200_000] {
        let good = "*".repeat(length);
        let bytes = vec![0xfe; length];
        let say = [Frame::text(good.clone()), Frame::binary(bytes.clone())];
        echo(
            "one frame",
            &say,
            &[text(&good), Heard::Binary(bytes.clone())],
        );
    }
}

#[test]
fn pings_are_answered_with_their_payload_and_in_order() {
    for length in [0, 1, 124, 125] {
        let payload = vec![0xff; length];
        let pong = Heard::Pong(payload.clone());
        echo("a ping", &[Frame::ping(payload)], &[pong]);
    }
    let pings: Vec<Frame> = (0..10).map(|n| Frame::ping(vec![n])).collect();
    let pongs: Vec<Heard> = (0..10).map(|n| Heard::Pong(vec![n])).collect();
    echo("ten pings", &pings, &pongs);
    let long = Frame::ping(vec![1; 126]);
    echo("126 bytes", &[long], &[closed(1002)]);
}

#[test]
fn a_pong_that_nobody_asked_for_is_ignored() {
    let say = [
        Frame::pong(""),
        Frame::pong("x"),
        Frame::ping("y"),
        Frame::pong(""),
    ];
    echo("pongs", &say, &[Heard::Pong(b"y".to_vec())]);
}

#[test]
fn reserved_bits_end_the_connection() {
    for bits in 1..=7 {
        for bad in [
            Frame::text("x"),
            Frame::binary(vec![7; 200]),
            Frame::ping(""),
            Frame::close(1000, ""),
        ] {
            let say = [
                Frame::text("before"),
                bad.reserved(bits),
                Frame::text("after"),
            ];
            echo("reserved bits", &say, &[text("before"), closed(1002)]);
        }
    }
}

#[test]
fn reserved_opcodes_end_the_connection() {
    for opcode in (3..=7).chain(11..=15) {
        for payload in ["", "x"] {
            let say = [
                Frame::text("before"),
                Frame::new(opcode, payload),
                Frame::ping(""),
            ];
            echo("reserved opcode", &say, &[text("before"), closed(1002)]);
        }
    }
}

#[test]
fn a_message_in_fragments_is_one_message() {
    let say = [
        Frame::text("fra").begun(),
        Frame::more("").begun(),
        Frame::more("gment"),
    ];
    echo("fragments", &say, &[text("fragment")]);
    let say = [
        Frame::text("").begun(),
        Frame::more("").begun(),
        Frame::more(""),
    ];
    echo("empty fragments", &say, &[text("")]);
    let say = [
        Frame::binary("a").begun(),
        Frame::more("b"),
        Frame::text("c"),
    ];
    echo(
        "binary, then text",
        &say,
        &[Heard::Binary(b"ab".to_vec()), text("c")],
    );
}

#[test]
fn control_frames_may_come_between_fragments() {
    let say = [
        Frame::text("a").begun(),
        Frame::ping("1"),
        Frame::more("b").begun(),
        Frame::pong(""),
        Frame::ping("2"),
        Frame::more("c"),
        Frame::text("d").begun(),
        Frame::close(1000, "bye"),
        Frame::more("e"),
    ];
    let hear = [
        Heard::Pong(b"1".to_vec()),
        Heard::Pong(b"2".to_vec()),
        text("abc"),
        closed(1000),
    ];
    echo("control between", &say, &hear);
}

#[test]
fn a_control_frame_is_never_fragmented() {
    for opcode in [PING, CLOSE, 10] {
        let say = [Frame::new(opcode, "x").begun(), Frame::more("y")];
        echo("fragmented control", &say, &[closed(1002)]);
    }
}

#[test]
fn fragments_out_of_sequence_end_the_connection() {
    let cases = [
        vec![Frame::more("of nothing")],
        vec![Frame::more("of nothing").begun()],
        vec![Frame::text("a").begun(), Frame::text("b")],
        vec![Frame::text("a").begun(), Frame::binary("b").begun()],
        vec![
            Frame::text("a").begun(),
            Frame::ping(""),
            Frame::new(BINARY, ""),
        ],
    ];
    for say in cases {
        let mut hear = vec![closed(1002)];
        if say.iter().any(|frame| frame.first & 0x0f == PING) {
            hear.insert(0, Heard::Pong(Vec::new()));
        }
        echo("out of sequence", &say, &hear);
    }
    let say = [Frame::text("a").begun(), Frame::more("b"), Frame::more("c")];
    echo("one too many", &say, &[text("ab"), closed(1002)]);
}

#[test]
fn a_close_is_answered_with_its_code_and_ends_everything() {
    let behind = [
        Frame::ping(""),
        Frame::text("x"),
        Frame::close(1000, ""),
        Frame::new(3, ""),
    ];
    let none = Heard::Close(None, String::new());
    let with = |close: Frame| [&[close], &behind[..]].concat();
    echo("no code", &with(Frame::new(CLOSE, "")), &[none]);
    for reason in ["", "bye", "é".repeat(61).as_str()] {
        let close = Frame::close(1000, reason);
        echo("a reason", &with(close), &[closed(1000)]);
    }
    let longest = Frame::close(1000, "*".repeat(123));
    echo("123 bytes", &with(longest), &[closed(1000)]);
    let long = Frame::close(1000, "*".repeat(124));
    echo("124 bytes", &with(long), &[closed(1002)]);
    echo("one byte", &with(Frame::new(CLOSE, "x")), &[closed(1002)]);
    let bad = Frame::close(1000, b"\xce\xba\xf4\x90");
    echo("reason is no text", &with(bad), &[closed(1007)]);
}

#[test]
fn only_close_codes_that_belong_on_the_wire_are_taken() {
    let good = (1000..=1003)
        .chain(1007..=1013)
        .chain([3000, 3999, 4000, 4999]);
    for code in good {
        echo("good", &[Frame::close(code, "")], &[closed(code)]);
    }
    let bad = [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ];
    for code in bad {
        echo(
            &code.to_string(),
            &[Frame::close(code, "")],
            &[closed(1002)],
        );
    }
}

#[test]
fn unmasked_frames_end_the_connection() {
    for bad in [
        Frame::text("x"),
        Frame::ping(""),
        Frame::close(1000, ""),
        Frame::more(""),
    ] {
        echo("unmasked", &[bad.unmasked()], &[closed(1002)]);
    }
}

#[test]
fn a_length_has_its_shortest_form_and_no_highest_bit() {
    let cases = [
        (Frame::text("x").with_length(126, 1), 1002),
        (Frame::text("").with_length(126, 0), 1002),
        (Frame::text(vec![b'x'; 125]).with_length(126, 125), 1002),
        (Frame::text(vec![b'x'; 126]).with_length(127, 126), 1002),
        (Frame::text("x").with_length(127, 0xffff), 1002),
        (Frame::text("x").with_length(127, 1 << 63), 1002),
        (Frame::text("x").with_length(127, u64::MAX), 1002),
        (Frame::text("x").with_length(127, (1 << 63) - 1), 1009),
        (Frame::text("x").with_length(127, (16 << 20) + 1), 1009),
        (Frame::ping("x").with_length(126, 1), 1002),
        (Frame::ping("x").with_length(127, 70_000), 1002),
    ];
    for (bad, code) in cases {
        echo(&format!("{bad:?}"), &[bad], &[closed(code)]);
    }
}

#[test]
fn what_is_wrong_in_two_bytes_is_said_before_more_arrives() {
    for first_two in [
        [0xc1, 0xff],
        [0x81, 0x7f],
        [0x83, 0xff],
        [0x09, 0x80],
        [0x89, 0xfe],
    ] {
        let mut rig = Rig::new();
        let peer = rig.echo();
        rig.say_bytes(peer, &first_two);
        assert_eq!(
            heard(&mut rig, peer),
            [closed(1002)],
            "{first_two:x?} on an empty buffer"
        );
    }
}

#[test]
fn binary_is_for_the_echo_endpoint_only() {
    check("one frame", user, &[Frame::binary("x")], &[closed(1003)]);
    let say = [Frame::binary("x").begun(), Frame::new(CONTINUATION, "y")];
    check("fragments", user, &say, &[closed(1003)]);
    check(
        "no message",
        user,
        &[Frame::new(BINARY, "")],
        &[closed(1003)],
    );
}

#[test]
fn the_rules_hold_on_the_real_path_as_well() {
    let cases = [
        (Frame::ping(vec![9; 126]), 1002),
        (Frame::text("x").reserved(4), 1002),
        (Frame::new(7, ""), 1002),
        (Frame::more(""), 1002),
        (Frame::text("x").unmasked(), 1002),
        (Frame::text(b"\xff"), 1007),
        (Frame::close(4000, ""), 4000),
        (Frame::close(1005, ""), 1002),
    ];
    for (bad, code) in cases {
        let say = [
            Frame::ping("before"),
            bad,
            Frame::ping("after"),
            Frame::close(1001, ""),
        ];
        let hear = [Heard::Pong(b"before".to_vec()), closed(code)];
        check("bound", user, &say, &hear);
        check("unknown", Rig::guest, &say, &hear);
    }
}

#[test]
fn the_end_is_awaited_for_a_second_and_no_longer() {
    let mut rig = Rig::new();
    let (patient, gone) = (rig.echo(), rig.echo());
    for peer in [patient, gone] {
        rig.say_frame(peer, &Frame::close(1000, ""));
        assert_eq!(rig.heard(peer), [closed(1000)]);
        assert_eq!(rig.phase(peer), Phase::Lingering);
    }
    rig.hang_up(gone);
    assert!(rig.is_gone(gone));
    rig.advance_ticks(10);
    assert!(!rig.is_gone(patient));
    rig.advance_ticks(1);
    assert!(rig.is_gone(patient));
}

#[test]
fn short_writes_lose_nothing_and_keep_the_order() {
    for seed in 1..=20 {
        let mut rig = Rig::new();
        let peer = rig.echo();
        rig.feed = Feed::split(seed);
        rig.takes = Some((rig::feed::Chance(seed), 40));
        let mut hear = Vec::new();
        for n in 0..50usize {
            let message = n.to_string().repeat(n);
            rig.say(peer, &message);
            rig.say_frame(peer, &Frame::ping(vec![n as u8]));
            hear.extend([text(&message), Heard::Pong(vec![n as u8])]);
        }
        rig.say_frame(peer, &Frame::close(1000, ""));
        hear.push(closed(1000));
        assert_eq!(rig.phase(peer), Phase::Leaving, "it has not all left");
        assert_eq!(rig.heard(peer), hear, "seed {seed}");
        assert_eq!(rig.phase(peer), Phase::Lingering);
    }
}
