//! A request head of any bytes: no panic, an answer that a strict client can read, and the same
//! one however the bytes arrive, and whether or not a proxy said before it for whom it speaks.
//!
//! Input: a count, so many lengths of pieces, and then the bytes of the request, perhaps with a
//! header of the PROXY protocol before it.

#![no_main]

#[path = "../../tests/rig/mod.rs"]
mod rig;

use libfuzzer_sys::fuzz_target;
use rig::Rig;
use rig::feed::Feed;
use rig::wire::Heard;
use throng::protocol::proxy::{self, Beginning};
use throng::session::{Newcomer, Phase};

fuzz_target!(|data: &[u8]| {
    let (cuts, request) = rig::feed::cuts(data);
    let whole = answer(Feed::Whole, request, false);
    assert_eq!(whole, answer(cuts.clone(), request, false));
    let (heard, phase) = &whole;
    let is_answered = !matches!(phase, Phase::Handshake);
    assert_eq!(is_answered, !heard.is_empty());
    if let Some(Heard::Http(101, _)) = heard.first() {
        assert!(
            request.starts_with(b"GET /") || request.starts_with(b"\r\n") || request[0] == b'\n'
        );
    }
    let proxied = answer(Feed::Whole, request, true);
    assert_eq!(proxied, answer(cuts, request, true));
    match proxy::header(request) {
        Ok(Beginning::Torn) => assert_eq!(proxied, (Vec::new(), Phase::Handshake)),
        Ok(Beginning::Client) => assert_eq!(proxied, whole),
        Ok(Beginning::Header(header)) => {
            assert_eq!(
                proxied,
                answer(Feed::Whole, &request[header.bytes..], false)
            );
        }
        Err(_) => assert!(matches!(proxied.0[..], [Heard::Http(400, _)])),
    }
});

fn answer(feed: Feed, request: &[u8], is_proxy: bool) -> (Vec<Heard>, Phase) {
    let mut rig = Rig::new();
    rig.feed = feed;
    let peer = rig.knock(Newcomer::Admitted);
    if is_proxy {
        rig.trust(peer);
    }
    rig.say_bytes(peer, request);
    let heard = rig.heard(peer);
    (heard, rig.phase(peer))
}
