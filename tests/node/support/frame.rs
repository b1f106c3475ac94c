//! Frames as RFC 6455 section 5.2 draws them, from the client's side.

/// The opcodes of section 11.8; any other number may be sent with [`encode`] as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub is_final: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

pub const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame. `first`: the first byte, with FIN, reserved bits and opcode.
pub fn encode(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// A whole message in one masked frame.
pub fn whole(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    encode(0x80 | opcode as u8, payload)
}

/// Takes the frame at the start of `bytes` out of them; none if it is not complete. It panics
/// where a server breaks the rules: a mask, reserved bits, an unknown opcode, a wasteful length.
pub fn take(bytes: &mut Vec<u8>) -> Option<Frame> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0x70, 0, "the server set reserved bits");
    assert_eq!(second & 0x80, 0, "the server masked a frame");
    let (start, length) = match second {
        126 => {
            let length = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            assert!(length > 125, "the length is not in its shortest form");
            (4, usize::from(length))
        }
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
            assert!(length > 0xffff, "the length is not in its shortest form");
            (10, usize::try_from(length).unwrap())
        }
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    bytes.drain(..start + length);
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => panic!("the server sent opcode {other}"),
    };
    let is_final = first & 0x80 != 0;
    assert!(
        is_final || opcode as u8 <= 2,
        "the server cut a control frame in two"
    );
    Some(Frame {
        is_final,
        opcode,
        payload,
    })
}
