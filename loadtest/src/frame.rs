//! WebSocket frames as a client sees them: its own are masked, the server's are not.
//!
//! Owns: nothing but what [`Torn`] keeps of a unit that has not fully arrived.
//! Invariants: any split of the same bytes gives the same frames.

use throng::protocol::mask;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// No honest server sends this client more in one frame.
const PAYLOAD_BYTES_MAX: u64 = 16 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub is_final: bool,
    pub opcode: u8,
    pub payload: &'a [u8],
}

/// A frame that no server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("masked frame")]
    Masked,
    #[error("reserved bits or opcode")]
    Reserved,
    #[error("frame too big")]
    TooBig,
}

/// The first frame in `bytes` and its length on the wire; none if it has not fully arrived.
pub fn parse(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, BadFrame> {
    let &[first, second, ref rest @ ..] = bytes else {
        return Ok(None);
    };
    let opcode = first & 0x0f;
    if first & 0x70 != 0 || !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
        return Err(BadFrame::Reserved);
    }
    if second & 0x80 != 0 {
        return Err(BadFrame::Masked);
    }
    let (length, rest) = match second {
        126 => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    if length > PAYLOAD_BYTES_MAX {
        return Err(BadFrame::TooBig);
    }
    let header = bytes.len() - rest.len();
    let Some(payload) = rest.get(..length as usize) else {
        return Ok(None);
    };
    Ok(Some((
        Frame {
            is_final: first & 0x80 != 0,
            opcode,
            payload,
        },
        header + payload.len(),
    )))
}

/// Appends a whole frame to `out`, masked, as a client must.
pub fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], key: [u8; 4]) {
    write_header(out, opcode, payload.len(), 0x80);
    out.extend_from_slice(&key);
    let begin = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[begin..], key, 0);
}

/// Appends a whole frame to `out`, as a server sends it.
pub fn write_plain(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    write_header(out, opcode, payload.len(), 0);
    out.extend_from_slice(payload);
}

fn write_header(out: &mut Vec<u8>, opcode: u8, length: usize, mask_bit: u8) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(mask_bit | length as u8),
        126..=0xffff => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Masking keys: unpredictable is more than a load generator needs, different is enough.
pub struct Keys(u64);

impl Keys {
    pub fn new(seed: u64) -> Keys {
        Keys(seed)
    }

    pub fn draw(&mut self) -> [u8; 4] {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(0x5851_f42d);
        ((self.0 >> 32) as u32).to_ne_bytes()
    }
}

/// The beginning of a unit whose end has not arrived. Allocates only while something is torn.
#[derive(Default)]
pub struct Torn(Vec<u8>);

impl Torn {
    /// Gives `eat` what has arrived until it eats no more (it returns how much it ate, 0 for a
    /// torn unit), and keeps the rest.
    pub fn feed<E>(
        &mut self,
        bytes: &[u8],
        mut eat: impl FnMut(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let mut kept = std::mem::take(&mut self.0);
        let whole: &[u8] = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let mut rest = whole;
        while !rest.is_empty() {
            match eat(rest)? {
                0 => break,
                eaten => rest = &rest[eaten..],
            }
        }
        self.0 = rest.to_vec();
        Ok(())
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
        let (mut torn, mut frames) = (Torn::default(), Vec::new());
        for piece in pieces {
            torn.feed(&piece, |rest| {
                let Some((frame, length)) = parse(rest)? else {
                    return Ok(0);
                };
                frames.push((frame.opcode, frame.payload.to_vec()));
                Ok::<_, BadFrame>(length)
            })
            .unwrap();
        }
        assert!(torn.is_empty());
        frames
    }

    #[test]
    fn frames_may_arrive_in_any_pieces() {
        let mut wire = Vec::new();
        let long = vec![b'x'; 300];
        let longer = vec![b'y'; 70_000];
        for (opcode, payload) in [
            (TEXT, &b"hello"[..]),
            (PING, b""),
            (TEXT, &long),
            (BINARY, &longer),
            (CLOSE, b"ab"),
        ] {
            write_plain(&mut wire, opcode, payload);
        }
        let whole = heard([wire.clone()].into_iter());
        assert_eq!(whole.len(), 5);
        for size in (1..400).chain([5000, 69_000]) {
            assert_eq!(
                heard(wire.chunks(size).map(<[u8]>::to_vec)),
                whole,
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_masked_frame_is_the_plain_one_under_its_key() {
        let (mut masked, mut plain) = (Vec::new(), Vec::new());
        write_masked(&mut masked, TEXT, b"hello world", [1, 2, 3, 4]);
        write_plain(&mut plain, TEXT, b"hello world");
        assert_eq!(parse(&masked), Err(BadFrame::Masked));
        masked[1] &= 0x7f;
        let key: [u8; 4] = masked[2..6].try_into().unwrap();
        masked.drain(2..6);
        mask::apply(&mut masked[2..], key, 0);
        assert_eq!(masked, plain);
    }

    #[test]
    fn what_no_server_may_send_is_an_error() {
        assert_eq!(parse(&[0xc1, 0]), Err(BadFrame::Reserved));
        assert_eq!(parse(&[0x83, 0]), Err(BadFrame::Reserved));
        assert_eq!(
            parse(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]),
            Err(BadFrame::TooBig),
            "a length is judged before anything is allocated"
        );
        assert_eq!(parse(&[0x82, 127, 0, 0]), Ok(None));
    }
}
