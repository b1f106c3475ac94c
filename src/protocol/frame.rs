//! One WebSocket frame (RFC 6455 section 5.2), by tungstenite's header codec.

use std::io::{Cursor, Write};

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::violation::Violation;

/// Bytes of a header at most.
pub const HEADER_BYTES_MAX: usize = 14;
/// Payload of a control frame at most (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }
}

impl From<Opcode> for OpCode {
    fn from(opcode: Opcode) -> OpCode {
        match opcode {
            Opcode::Continuation => OpCode::Data(Data::Continue),
            Opcode::Text => OpCode::Data(Data::Text),
            Opcode::Binary => OpCode::Data(Data::Binary),
            Opcode::Close => OpCode::Control(Control::Close),
            Opcode::Ping => OpCode::Control(Control::Ping),
            Opcode::Pong => OpCode::Control(Control::Pong),
        }
    }
}

/// A client's frame header that is legal by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub opcode: Opcode,
    pub is_final: bool,
    pub mask: [u8; 4],
    /// Payload bytes as declared: not yet held against any limit.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

impl Header {
    /// Reads a client's header from the start of `bytes`; `Ok(None)` when it is torn.
    ///
    /// Errors: what RFC 6455 sections 5.1, 5.2 and 5.5 forbid a client to send. What is wrong in
    /// the first two bytes is found without the rest.
    pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Violation> {
        let &[first, second, ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let is_control = first & 0x08 != 0;
        if is_control && second & 0x7f > CONTROL_BYTES_MAX as u8 {
            return Err(Violation::LongControl);
        }
        if is_control && first & 0x80 == 0 {
            return Err(Violation::FragmentedControl);
        }
        if matches!(first & 0x0f, 3..=7 | 11..) {
            return Err(Violation::ReservedOpcode);
        }
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::ReservedOpcode)?;
        let Some((header, length)) = parsed else {
            return Ok(None);
        };
        let is_minimal = match second & 0x7f {
            126 => length > 125,
            127 => length > 0xffff && length >> 63 == 0,
            _ => true,
        };
        if !is_minimal {
            return Err(Violation::BadLength);
        }
        let opcode = match header.opcode {
            OpCode::Data(Data::Continue) => Opcode::Continuation,
            OpCode::Data(Data::Text) => Opcode::Text,
            OpCode::Data(Data::Binary) => Opcode::Binary,
            OpCode::Control(Control::Close) => Opcode::Close,
            OpCode::Control(Control::Ping) => Opcode::Ping,
            OpCode::Control(Control::Pong) => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        Ok(Some(Header {
            opcode,
            is_final: header.is_final,
            mask: header.mask.unwrap_or_default(),
            length,
            size: cursor.position() as usize,
        }))
    }
}

/// Appends the header of a whole server frame with `length` payload bytes.
pub fn write_header(opcode: Opcode, length: usize, out: &mut Vec<u8>) {
    format_header(opcode, length, out);
}

fn format_header(opcode: Opcode, length: usize, out: &mut impl Write) {
    let header = FrameHeader {
        opcode: opcode.into(),
        ..FrameHeader::default()
    };
    header
        .format(length as u64, out)
        .expect("there is room for every header");
}

/// Bytes of the header of a server frame with `length` payload bytes.
pub fn header_size(length: usize) -> usize {
    match length {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// A whole server frame.
pub fn encode(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(header_size(payload.len()) + payload.len());
    write_header(opcode, payload.len(), &mut out);
    out.extend_from_slice(payload);
    out
}

/// Appends a whole server frame whose payload `write` appends.
pub fn append(opcode: Opcode, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    // Most messages need a header of four bytes: with that guess nothing is moved.
    const GUESS: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; GUESS]);
    write(out);
    let length = out.len() - start - GUESS;
    let mut header = [0; HEADER_BYTES_MAX];
    let size = header_size(length);
    let mut unwritten = &mut header[..];
    format_header(opcode, length, &mut unwritten);
    if size == GUESS {
        out[start..start + GUESS].copy_from_slice(&header[..size]);
    } else {
        out.splice(start..start + GUESS, header[..size].iter().copied());
    }
}

/// Length of the server frame that `bytes` begins with, whole or not.
pub fn server_frame_len(bytes: &[u8]) -> usize {
    match FrameHeader::parse(&mut Cursor::new(bytes)) {
        Ok(Some((header, length))) => header.len(length) + length as usize,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_has_the_shortest_length_and_no_mask() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = encode(Opcode::Text, &vec![b'x'; length]);
            assert_eq!(
                (frame.len(), header_size(length)),
                (header + length, header)
            );
            assert_eq!((frame[0], frame[1] & 0x80), (0x81, 0));
            assert_eq!(server_frame_len(&frame), frame.len());
            let mut out = vec![1, 2, 3];
            append(Opcode::Text, &mut out, |out| out.extend(vec![b'x'; length]));
            assert_eq!(out[3..], frame);
        }
    }

    #[test]
    fn what_a_client_may_not_send_is_found_in_the_header() {
        let ok = [0x81, 0x80, 1, 2, 3, 4];
        let header = Header::parse(&ok).unwrap().unwrap();
        assert_eq!(
            (header.length, header.size, header.mask),
            (0, 6, [1, 2, 3, 4])
        );
        for cut in 0..ok.len() {
            assert_eq!(Header::parse(&ok[..cut]), Ok(None));
        }
        for (bytes, violation) in [
            (&[0xc1, 0x80][..], Violation::ReservedBits),
            (&[0xa1, 0x80], Violation::ReservedBits),
            (&[0x91, 0x80], Violation::ReservedBits),
            (&[0x81, 0x00], Violation::Unmasked),
            (&[0x83, 0x80], Violation::ReservedOpcode),
            (&[0x8b, 0x80], Violation::ReservedOpcode),
            (&[0x8f, 0x80], Violation::ReservedOpcode),
            (&[0x09, 0x80], Violation::FragmentedControl),
            (&[0x89, 0xfe], Violation::LongControl),
            (&[0x81, 0xfe, 0, 125, 0, 0, 0, 0], Violation::BadLength),
            (
                &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
                Violation::BadLength,
            ),
            (
                &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                Violation::BadLength,
            ),
        ] {
            assert_eq!(Header::parse(bytes), Err(violation), "{bytes:?}");
        }
    }
}
