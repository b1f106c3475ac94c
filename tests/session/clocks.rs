//! Silence: pings, and the end of who does not answer them.

use super::rig::wire::{Frame, Heard};
use super::rig::{Peer, Rig};
use throng::session::host::Counted;

/// Ticks until `peer` hears something, and what.
fn wait(rig: &mut Rig, peer: Peer, ticks_max: u32) -> (u32, Vec<Heard>) {
    for ticks in 1..=ticks_max {
        rig.advance_ticks(1);
        let heard = rig.heard(peer);
        if !heard.is_empty() {
            return (ticks, heard);
        }
    }
    panic!("nothing in {ticks_max} ticks");
}

#[test]
fn a_silent_connection_is_pinged_after_sixty_seconds_and_a_spread() {
    let mut moments = Vec::new();
    let mut rig = Rig::new();
    let crowd: Vec<Peer> = (0..64).map(|n| rig.user(&format!("u{n}"))).collect();
    for tick in 1..=751 {
        rig.advance_ticks(1);
        for &peer in &crowd {
            match &rig.heard(peer)[..] {
                [] => {}
                [Heard::Ping(payload)] if payload.is_empty() => moments.push(tick),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(moments.len(), crowd.len(), "each is pinged once");
    assert!(moments[0] >= 600 && moments[63] <= 750, "{moments:?}");
    let busiest = moments.chunk_by(|a, b| a == b).map(<[i32]>::len).max();
    assert!(busiest <= Some(2), "they are spread: {moments:?}");
}

#[test]
fn who_answers_pings_stays() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    for _ in 0..40 {
        let (ticks, heard) = wait(&mut rig, rose, 751);
        assert!(ticks >= 599);
        assert_eq!(heard, [Heard::Ping(Vec::new())]);
        rig.say_frame(rose, &Frame::pong(""));
    }
    let pings = rig.desk.counted.iter().filter(|c| **c == Counted::Ping);
    assert_eq!(pings.count(), 40);
}

#[test]
fn any_byte_is_life() {
    let mut rig = Rig::with(|rules| rules.limits.message_secs = 0);
    let rose = rig.user("rose");
    let frame = Frame::text(r#"{"type":11}"#).encode(&mut super::rig::feed::Chance(1));
    for byte in frame {
        rig.advance_secs(59);
        assert_eq!(rig.heard(rose), [], "no ping is needed");
        rig.say_bytes(rose, &[byte]);
    }
    assert_eq!(rig.messages(rose).len(), 1);
}

#[test]
fn who_stays_silent_for_210_seconds_is_closed_4408() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    rig.advance_secs(30);
    rig.say(rose, r#"{"type":11}"#);
    rig.heard(rose);
    rig.advance_secs(210);
    let heard = rig.heard(rose);
    assert!(
        heard.iter().all(|one| matches!(one, Heard::Ping(_))),
        "{heard:?}"
    );
    assert!((2..=3).contains(&heard.len()), "{heard:?}");
    rig.advance_ticks(2);
    assert_eq!(rig.close_code(rose), Some(4408));
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn what_is_sent_to_somebody_is_no_sign_of_life_from_them() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    for _ in 0..211 {
        rig.say(alice, r#"{"to":"bob","msg":1}"#);
        rig.advance_secs(1);
    }
    assert_eq!(rig.close_code(bob), Some(4408));
}

#[test]
fn heartbeats_can_be_turned_off() {
    let mut rig = Rig::with(|rules| {
        rules.limits.ping_secs = 0;
        rules.limits.idle_secs = 0;
    });
    let rose = rig.user("rose");
    rig.advance_secs(3500);
    assert_eq!(rig.heard(rose), []);
    assert_eq!(rig.counts(), (1, 1));
}

#[test]
fn last_words_wait_ten_seconds_for_a_peer_that_does_not_read() {
    let mut rig = Rig::new();
    let rose = rig.echo();
    rig.takes = Some((super::rig::feed::Chance(1), 1));
    rig.say(rose, "x".repeat(1000));
    rig.say_frame(rose, &Frame::close(1000, ""));
    rig.advance_ticks(100);
    assert!(!rig.is_gone(rose));
    rig.advance_ticks(1);
    assert!(rig.is_gone(rose));
}
