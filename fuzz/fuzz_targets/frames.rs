//! A stream of frames in pieces of any length: the same events as when it arrives whole, and
//! none that breaks a rule.
//!
//! Input: a count, so many lengths of pieces, a byte that chooses the limits, and the stream.

#![no_main]

#[path = "../../tests/rig/feed.rs"]
#[allow(dead_code)]
mod feed;

use feed::Feed;
use libfuzzer_sys::fuzz_target;
use throng::parts::time::Tick;
use throng::protocol::assembler::{Assembler, Bounds, Event, Input, PADDING};
use throng::protocol::frame::Opcode;
use throng::protocol::violation::Violation;

fuzz_target!(|data: &[u8]| {
    let (cuts, rest) = feed::cuts(data);
    let Some((&limits, stream)) = rest.split_first() else {
        return;
    };
    let bounds = Bounds {
        message_bytes_max: [16, 125, 300, 70_000][usize::from(limits & 3)],
        fragments_max: [1, 2, 5, 1024][usize::from(limits >> 2 & 3)],
    };
    let whole = read(Feed::Whole, stream, &bounds);
    assert_eq!(whole, read(cuts, stream, &bounds));
    assert_eq!(whole, read(Feed::ByteByByte, stream, &bounds));
    for (opcode, payload) in &whole.0 {
        if opcode.is_control() {
            assert!(payload.len() <= 125);
        } else {
            assert!(payload.len() <= bounds.message_bytes_max);
            assert!(*opcode != Opcode::Text || std::str::from_utf8(payload).is_ok());
            assert!(matches!(opcode, Opcode::Text | Opcode::Binary));
        }
    }
});

type Read = (Vec<(Opcode, Vec<u8>)>, Option<Violation>, bool);

/// The events, what ended them, and whether something is incomplete.
fn read(mut feed: Feed, stream: &[u8], bounds: &Bounds) -> Read {
    let mut assembler = Assembler::default();
    let mut events = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at(feed.piece(rest.len()));
        rest = later;
        let mut buffer = [piece, &[b'"'; PADDING]].concat();
        let mut input = Input {
            buffer: &mut buffer,
            at: 0,
            filled: piece.len(),
        };
        loop {
            match assembler.next(&mut input, bounds, Tick(1)) {
                Ok(None) => break,
                Ok(Some(Event::InPlace(opcode, range))) => {
                    events.push((opcode, input.buffer[range].to_vec()));
                }
                Ok(Some(Event::Assembled(opcode, mut body))) => {
                    body.truncate(body.len() - PADDING);
                    events.push((opcode, body));
                }
                Ok(Some(Event::Control(opcode, payload))) => {
                    events.push((opcode, payload.to_vec()));
                }
                Err(violation) => return (events, Some(violation), false),
            }
        }
        assert_eq!(input.at, input.filled, "bytes were left behind");
    }
    (events, None, assembler.torn_since().is_some())
}
