//! How large, how many, how long, how often: what a peer may ask of the reader of frames.

use super::rig::Rig;
use super::rig::feed::{Chance, Feed};
use super::rig::wire::{Frame, Heard, PING};
use super::{closed, heard, text};
use throng::session::Phase;

/// A heartbeat of exactly `length` bytes.
fn heartbeat(length: usize) -> String {
    let empty = r#"{"type":11,"x":""}"#.len();
    format!(r#"{{"type":11,"x":"{}"}}"#, "x".repeat(length - empty))
}

#[test]
fn the_echo_endpoint_takes_what_a_suite_sends() {
    let mut rig = Rig::new();
    let peer = rig.echo();
    let big = "x".repeat(16 << 20);
    rig.say(peer, &big);
    assert_eq!(rig.heard(peer), [text(&big)]);
    for _ in 0..5000 {
        rig.say_frame(peer, &Frame::ping(""));
    }
    assert_eq!(rig.heard(peer).len(), 5000, "no rates");
    rig.say_frame(peer, &Frame::text("").begun());
    for _ in 0..5000 {
        rig.say_frame(peer, &Frame::more("").begun());
    }
    rig.advance_secs(1000);
    rig.say_frame(peer, &Frame::more("end"));
    assert_eq!(
        rig.heard(peer),
        [text("end")],
        "no clock, no count of fragments"
    );
}

#[test]
fn a_message_of_the_limit_is_heard_and_one_byte_more_is_not() {
    const MAX: usize = 64 << 10;
    for length in [MAX - 1, MAX, MAX + 1] {
        let message = heartbeat(length);
        let (a, rest) = message.as_bytes().split_at(1000);
        let (b, c) = rest.split_at(MAX - 2000);
        let fragments = vec![
            Frame::text(a).begun(),
            Frame::more(b).begun(),
            Frame::more(c),
        ];
        let last_alone = vec![
            Frame::text(&message.as_bytes()[..length - 1]).begun(),
            Frame::more(&message.as_bytes()[length - 1..]),
        ];
        for say in [vec![Frame::text(message.clone())], fragments, last_alone] {
            for feed in Feed::all() {
                let mut rig = Rig::new();
                let peer = rig.user("rose");
                rig.feed = feed.clone();
                say.iter().for_each(|frame| rig.say_frame(peer, frame));
                if length <= MAX {
                    assert_eq!(rig.messages(peer)[0]["type"], 12, "{length}, fed {feed:?}");
                } else {
                    assert_eq!(
                        heard(&mut rig, peer),
                        [closed(1009)],
                        "{length}, fed {feed:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_message_too_big_is_refused_by_its_header() {
    let mut rig = Rig::new();
    let peer = rig.user("rose");
    let header = Frame::text("").with_length(127, (64 << 10) + 1);
    rig.say_frame(peer, &header);
    assert_eq!(heard(&mut rig, peer), [closed(1009)]);
}

#[test]
fn a_message_has_so_many_fragments_and_no_more() {
    for (count, is_heard) in [(1023, true), (1024, true), (1025, false)] {
        let mut say = vec![Frame::text(heartbeat(20)).begun()];
        say.extend((2..count).map(|_| Frame::more("").begun()));
        say.push(Frame::more(""));
        for feed in [Feed::Whole, Feed::ByteByByte, Feed::split(1)] {
            let mut rig = Rig::new();
            let peer = rig.user("rose");
            rig.feed = feed;
            say.iter().for_each(|frame| rig.say_frame(peer, frame));
            match is_heard {
                true => assert_eq!(rig.messages(peer)[0]["type"], 12, "{count}"),
                false => assert_eq!(heard(&mut rig, peer), [closed(1008)], "{count}"),
            }
        }
    }
}

#[test]
fn a_message_that_does_not_end_ends_the_connection() {
    let torn_frame = Frame::text(heartbeat(50)).encode(&mut Chance(1));
    let torn_message = Frame::text("{").begun().encode(&mut Chance(1));
    for begun in [&torn_frame[..1], &torn_frame[..30], &torn_message] {
        let mut rig = Rig::new();
        let peer = rig.user("rose");
        rig.say_bytes(peer, begun);
        rig.advance_ticks(300);
        assert_eq!(rig.heard(peer), [], "not before 30 s");
        rig.advance_ticks(1);
        assert_eq!(heard(&mut rig, peer), [closed(1008)]);
    }
}

#[test]
fn pings_do_not_win_time_for_a_message_that_does_not_end() {
    let mut rig = Rig::new();
    let peer = rig.user("rose");
    rig.say_frame(peer, &Frame::text("{").begun());
    for _ in 0..29 {
        rig.advance_secs(1);
        rig.say_frame(peer, &Frame::ping(""));
        rig.say_frame(peer, &Frame::more("").begun());
    }
    assert_eq!(rig.heard(peer), vec![Heard::Pong(Vec::new()); 29]);
    rig.advance_ticks(11);
    assert_eq!(heard(&mut rig, peer), [closed(1008)]);
    let mut rig = Rig::new();
    let peer = rig.user("rose");
    for _ in 0..4 {
        rig.say_frame(peer, &Frame::text("{").begun());
        rig.advance_secs(29);
        rig.say_frame(peer, &Frame::more(r#""type":11}"#));
        assert_eq!(
            rig.messages(peer)[0]["type"],
            12,
            "each message has its own time"
        );
    }
}

#[test]
fn a_flood_of_control_frames_ends_the_connection() {
    for frame in [Frame::ping("p"), Frame::pong("p")] {
        let mut rig = Rig::new();
        let peer = rig.user("rose");
        let mut answers = vec![Heard::Pong(b"p".to_vec()); 20];
        if frame.first & 0x0f != PING {
            answers.clear();
        }
        (0..20).for_each(|_| rig.say_frame(peer, &frame));
        assert_eq!(rig.heard(peer), answers, "a burst of twenty");
        rig.advance_secs(1);
        (0..10).for_each(|_| rig.say_frame(peer, &frame));
        assert_eq!(rig.phase(peer), Phase::Open, "ten more a second later");
        rig.heard(peer);
        rig.say_frame(peer, &frame);
        assert_eq!(heard(&mut rig, peer), [closed(1008)]);
    }
}
