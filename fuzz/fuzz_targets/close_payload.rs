//! The payload of a close frame: what is taken is legal, what is legal is taken, and what we
//! answer with is taken by ourselves.

#![no_main]

use libfuzzer_sys::fuzz_target;
use throng::protocol::close::{self, REASON_BYTES_MAX};
use throng::protocol::violation::Violation;

fuzz_target!(|payload: &[u8]| {
    assert_eq!(close::parse(payload), expected(payload));
    let reason = String::from_utf8_lossy(payload);
    let mut frame = Vec::new();
    close::append(Some(1013), &reason, &mut frame);
    assert_eq!((frame[0], usize::from(frame[1])), (0x88, frame.len() - 2));
    assert!(frame.len() <= 2 + 2 + REASON_BYTES_MAX);
    assert_eq!(close::parse(&frame[2..]), Ok(Some(1013)));
});

/// RFC 6455 section 7.4 in its own words.
fn expected(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let &[high, low, ref reason @ ..] = payload else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Violation::BadClose)
        };
    };
    let code = u16::from_be_bytes([high, low]);
    let is_legal = match code {
        1004..=1006 | 1014..=1015 => false,
        1000..=1013 | 3000..=4999 => true,
        _ => false,
    };
    if !is_legal {
        Err(Violation::BadClose)
    } else if std::str::from_utf8(reason).is_err() {
        Err(Violation::BadUtf8)
    } else {
        Ok(Some(code))
    }
}
