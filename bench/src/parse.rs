//! Parsing a client's message: simd-json as the protocol uses it, beside serde_json with
//! borrowed fields, on frames of 60 to 500 bytes.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use throng::protocol::assembler::PADDING;
use throng::protocol::inbound::{self, Ask, Scratch};
use throng::protocol::order::Order;

/// As the default limits have it.
const DEPTH_MAX: usize = 32;
const SIZES: [usize; 5] = [60, 100, 200, 350, 500];

/// Nanoseconds for one message.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    pub bytes: usize,
    pub simd_json: f64,
    pub serde_json: f64,
}

/// `lasts`: how long each measurement takes at least.
pub fn rows(lasts: Duration) -> Vec<Row> {
    SIZES.map(|bytes| row(bytes, lasts)).into()
}

fn row(bytes: usize, lasts: Duration) -> Row {
    let frame = frame(bytes);
    let mut scratch = Scratch::new(DEPTH_MAX);
    let mut buffer = vec![0; bytes + PADDING];
    // Both copy the frame first: simd-json changes what it reads.
    let simd_json = nanos(lasts, || {
        buffer[..bytes].copy_from_slice(&frame);
        let inbound = inbound::parse(&mut scratch, black_box(&mut buffer), bytes);
        matches!(
            inbound.map(|inbound| inbound.ask),
            Ok(Ask::Order(Order::Send { .. }))
        )
    });
    let serde_json = nanos(lasts, || {
        buffer[..bytes].copy_from_slice(&frame);
        let direct = serde_json::from_slice::<Direct>(black_box(&buffer[..bytes]));
        black_box(direct).is_ok_and(|direct| direct.is_live())
    });
    Row {
        bytes,
        simd_json,
        serde_json,
    }
}

/// The best of five: the others were disturbed.
fn nanos(lasts: Duration, mut parse: impl FnMut() -> bool) -> f64 {
    const BATCH: u32 = 1000;
    let mut measure = || {
        let (began, mut count) = (Instant::now(), 0);
        loop {
            for _ in 0..BATCH {
                assert!(black_box(parse()), "the frame is understood");
            }
            count += BATCH;
            if began.elapsed() >= lasts {
                break;
            }
        }
        began.elapsed().as_nanos() as f64 / f64::from(count)
    };
    (0..5).map(|_| measure()).fold(f64::INFINITY, f64::min)
}

/// A direct message of `bytes` bytes.
fn frame(bytes: usize) -> Vec<u8> {
    let (head, tail) = (r#"{"to":"bob","msg":""#, r#"","msgType":1}"#);
    let text = "hello, are you there? "
        .chars()
        .cycle()
        .take(bytes - head.len() - tail.len());
    format!("{head}{}{tail}", text.collect::<String>()).into_bytes()
}

/// The same fields as `inbound` collects.
#[derive(Deserialize)]
struct Direct<'a> {
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(rename = "msgType")]
    msg_type: Option<i64>,
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
    #[serde(borrow)]
    msgid: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "requestId")]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

impl Direct<'_> {
    fn is_live(&self) -> bool {
        let is_other = self.path.is_some() || self.kind.is_some() || self.params.is_some();
        let is_stored = self.msgid.is_some() || self.request_id.is_some() || self.token.is_some();
        let is_direct = self.msg_type == Some(1) && self.to.is_some() && self.msg.is_some();
        is_direct && !is_other && !is_stored && self.body.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_parsers_understand_frames_of_every_size() {
        for row in rows(Duration::ZERO) {
            assert_eq!(frame(row.bytes).len(), row.bytes);
            assert!(row.simd_json > 0.0 && row.serde_json > 0.0);
        }
        for bytes in SIZES {
            let frame = frame(bytes);
            assert!(serde_json::from_slice::<Direct>(&frame).unwrap().is_live());
        }
    }
}
