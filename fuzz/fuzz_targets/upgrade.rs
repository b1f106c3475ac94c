//! A request head of any bytes: no panic, an answer that a strict client can read, and the same
//! one however the bytes arrive.
//!
//! Input: a count, so many lengths of pieces, and then the bytes of the request.

#![no_main]

#[path = "../../tests/rig/mod.rs"]
mod rig;

use libfuzzer_sys::fuzz_target;
use rig::Rig;
use rig::feed::Feed;
use rig::wire::Heard;
use throng::session::{Newcomer, Phase};

fuzz_target!(|data: &[u8]| {
    let (cuts, request) = rig::feed::cuts(data);
    let whole = answer(Feed::Whole, request);
    assert_eq!(whole, answer(cuts, request));
    let (heard, phase) = whole;
    let is_answered = !matches!(phase, Phase::Handshake);
    assert_eq!(is_answered, !heard.is_empty());
    if let Some(Heard::Http(101, _)) = heard.first() {
        assert!(
            request.starts_with(b"GET /") || request.starts_with(b"\r\n") || request[0] == b'\n'
        );
    }
});

fn answer(feed: Feed, request: &[u8]) -> (Vec<Heard>, Phase) {
    let mut rig = Rig::new();
    rig.feed = feed;
    let peer = rig.knock(Newcomer::Admitted);
    rig.say_bytes(peer, request);
    let heard = rig.heard(peer);
    (heard, rig.phase(peer))
}
