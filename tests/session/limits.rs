//! How much a client may say: before it is known, in a second, and past that.

use super::error_code;
use super::rig::Rig;
use super::rig::feed::{Chance, Feed};
use super::rig::wire::{Frame, Heard};
use throng::protocol::limits::Limit;

/// A heartbeat of exactly `length` bytes.
fn heartbeat(length: usize) -> String {
    let empty = r#"{"type":11,"x":""}"#.len();
    format!(r#"{{"type":11,"x":"{}"}}"#, "x".repeat(length - empty))
}

/// How a guest ends that says frames of these payloads; none if it does not.
fn guest_says(lengths: &[usize], feed: Feed) -> Option<u16> {
    let mut rig = Rig::new();
    let guest = rig.guest();
    rig.feed = feed;
    for &length in lengths {
        rig.say(guest, heartbeat(length));
    }
    rig.close_code(guest)
}

#[test]
fn before_authentication_a_frame_has_four_kilobytes() {
    for feed in Feed::all() {
        for (length, expected) in [(4095, None), (4096, None), (4097, Some(1008))] {
            assert_eq!(guest_says(&[length], feed.clone()), expected, "{feed:?}");
        }
    }
    let mut rig = Rig::new();
    let guest = rig.guest();
    rig.say_frame(guest, &Frame::text("").with_length(127, 1 << 40));
    assert_eq!(rig.close_code(guest), Some(1008), "its header is enough");
}

#[test]
fn before_authentication_all_frames_have_eight_kilobytes() {
    // A header and a mask are eight bytes at these lengths.
    for feed in Feed::all() {
        for (second, expected) in [(4079, None), (4080, None), (4081, Some(1008))] {
            assert_eq!(
                guest_says(&[4096, second], feed.clone()),
                expected,
                "{feed:?}"
            );
        }
    }
}

#[test]
fn each_limit_strikes_under_its_own_name() {
    let struck = |target: &str, says: &[String]| {
        let mut rig = Rig::new();
        let peer = rig.connect(target);
        says.iter().for_each(|text| rig.say(peer, text));
        rig.desk.courier.struck
    };
    let order = || r#"{"to":"bob","msg":1}"#.to_owned();
    let three = [order(), order(), order()];
    assert_eq!(struck("/websocket", &three), [Limit::Strikes]);
    let long = [heartbeat(4097)];
    assert_eq!(struck("/websocket", &long), [Limit::Preauth]);
    let pairs: String = (0..9).map(|n| format!("&k{n}=v")).collect();
    let many = format!("/websocket?{pairs}");
    assert_eq!(struck(&many, &[]), [Limit::MetadataPairs]);
    let long = format!("/websocket?k={}", "v".repeat(256));
    assert_eq!(struck(&long, &[]), [Limit::Metadata]);
}

#[test]
fn bytes_past_the_limit_are_not_looked_at() {
    // Bad text within the limit ends it 1007, behind it 1008: however it arrives.
    for feed in Feed::all() {
        for (at, expected) in [(4000, 1007), (4079, 1007), (4080, 1008), (4090, 1008)] {
            let mut rig = Rig::new();
            let guest = rig.guest();
            rig.feed = feed.clone();
            rig.say(guest, heartbeat(4096));
            let mut bad = heartbeat(4096).into_bytes();
            bad[at] = 0xff;
            rig.say_frame(guest, &Frame::text(bad));
            assert_eq!(rig.close_code(guest), Some(expected), "{at}, fed {feed:?}");
        }
    }
}

#[test]
fn the_limits_of_the_unknown_end_with_authentication() {
    for feed in Feed::all() {
        let mut rig = Rig::new();
        let guest = rig.guest();
        rig.feed = feed;
        let connet = format!(r#"{{"path":"connet","token":"{}"}}"#, rig.token("rose"));
        let mut masks = Chance(1);
        let mut bytes = Frame::text(connet).encode(&mut masks);
        bytes.extend(Frame::text(heartbeat(60_000)).encode(&mut masks));
        rig.say_bytes(guest, &bytes);
        let heard = rig.messages(guest);
        assert_eq!(heard.len(), 3);
        assert!(heard.iter().any(|message| message["type"] == 12));
    }
}

#[test]
fn too_many_messages_are_refused_then_end_the_connection() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    let say = r#"{"msgType":3,"requestId":"r"}"#;
    for _ in 0..2000 {
        rig.say(rose, say);
    }
    assert!(rig.messages(rose).iter().all(|m| m["msgType"] == 4));
    for _ in 0..200 {
        let answer = rig.ask(rose, say);
        assert_eq!(
            (error_code(&answer), answer["params"]["ref"].as_str()),
            (429, Some("r"))
        );
    }
    rig.say(rose, say);
    assert!(matches!(rig.heard(rose)[..], [Heard::Close(Some(4429), _)]));
}

#[test]
fn who_slows_down_after_a_429_is_heard_again() {
    let mut rig = Rig::with(|rules| rules.limits.frames_per_sec = 10);
    let (rose, bob) = (rig.user("rose"), rig.user("bob"));
    let say = r#"{"to":"bob","msg":1}"#;
    (0..20).for_each(|_| rig.say(rose, say));
    assert_eq!(rig.messages(bob).len(), 20);
    assert_eq!(error_code(&rig.ask(rose, say)), 429);
    assert_eq!(rig.heard(bob), [], "it was not delivered");
    rig.advance_secs(1);
    (0..9).for_each(|_| rig.say(rose, say));
    assert_eq!(rig.messages(bob).len(), 9);
    assert_eq!(rig.heard(rose), []);
}

#[test]
fn too_many_bytes_are_as_too_many_messages() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    for _ in 0..32 {
        assert_eq!(rig.ask(rose, heartbeat(64 << 10))["type"], 12);
    }
    for _ in 0..3 {
        assert_eq!(error_code(&rig.ask(rose, heartbeat(64 << 10))), 429);
    }
    rig.say(rose, heartbeat(64 << 10));
    assert_eq!(rig.close_code(rose), Some(4429));
}
