//! Both languages as the other end speaks them: a client's frames, written from RFC 6455 and not
//! with the code under test, and a reader of the server's that forgives nothing.

use serde_json::Value;

use super::feed::Chance;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A request to upgrade; `fields` are further header fields, each with its line end.
pub fn head(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// A client's frame, as good or as bad as a test wants it.
#[derive(Clone, Debug)]
pub struct Frame {
    /// FIN, RSV and opcode.
    pub first: u8,
    pub payload: Vec<u8>,
    is_masked: bool,
    /// A length that is not the payload's, and the width it is written in.
    length: Option<(u8, u64)>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            first: 0x80 | opcode,
            payload: payload.into(),
            is_masked: true,
            length: None,
        }
    }

    pub fn text(payload: impl Into<Vec<u8>>) -> Frame {
        Frame::new(TEXT, payload)
    }

    pub fn binary(payload: impl Into<Vec<u8>>) -> Frame {
        Frame::new(BINARY, payload)
    }

    pub fn more(payload: impl Into<Vec<u8>>) -> Frame {
        Frame::new(CONTINUATION, payload)
    }

    pub fn ping(payload: impl Into<Vec<u8>>) -> Frame {
        Frame::new(PING, payload)
    }

    pub fn pong(payload: impl Into<Vec<u8>>) -> Frame {
        Frame::new(PONG, payload)
    }

    pub fn close(code: u16, reason: impl AsRef<[u8]>) -> Frame {
        let payload = [&code.to_be_bytes(), reason.as_ref()].concat();
        Frame::new(CLOSE, payload)
    }

    /// Not the last fragment.
    pub fn begun(mut self) -> Frame {
        self.first &= 0x7f;
        self
    }

    pub fn reserved(mut self, bits: u8) -> Frame {
        self.first |= bits << 4;
        self
    }

    pub fn unmasked(mut self) -> Frame {
        self.is_masked = false;
        self
    }

    /// With the length field `short` (126 or 127) and `length` behind it, true or not.
    pub fn with_length(mut self, short: u8, length: u64) -> Frame {
        self.length = Some((short, length));
        self
    }

    pub fn encode(&self, masks: &mut Chance) -> Vec<u8> {
        let actual = self.payload.len() as u64;
        let (short, length) = self.length.unwrap_or(match actual {
            0..=125 => (actual as u8, actual),
            126..=0xffff => (126, actual),
            _ => (127, actual),
        });
        let mut bytes = vec![self.first, (u8::from(self.is_masked) << 7) | short];
        match short {
            126 => bytes.extend((length as u16).to_be_bytes()),
            127 => bytes.extend(length.to_be_bytes()),
            _ => {}
        }
        if self.is_masked {
            let mask = (masks.draw() as u32).to_be_bytes();
            bytes.extend(mask);
            let masked = self.payload.iter().zip(mask.iter().cycle());
            bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        } else {
            bytes.extend(&self.payload);
        }
        bytes
    }
}

/// Something whole that the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// An answer to the request: its status, and all of it.
    Http(u16, String),
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl Heard {
    /// The JSON of a text message.
    pub fn json(&self) -> Value {
        match self {
            Heard::Text(text) => serde_json::from_str(text).unwrap(),
            other => panic!("not a text message: {other:?}"),
        }
    }
}

/// Reads what a server says, as a strict client does. It panics at anything but an HTTP answer
/// followed by whole, unmasked, unfragmented frames with the shortest lengths, text in UTF-8,
/// and nothing behind a close frame.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    has_answer: bool,
    is_over: bool,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What lies behind the first `count` bytes never came.
    pub fn truncate(&mut self, count: usize) {
        self.bytes.truncate(count);
    }

    /// Everything whole; a begun frame stays.
    pub fn take(&mut self) -> Vec<Heard> {
        let mut heard = Vec::new();
        while let Some((one, length)) = self.next() {
            self.bytes.drain(..length);
            heard.push(one);
        }
        heard
    }

    fn next(&mut self) -> Option<(Heard, usize)> {
        assert!(
            !self.is_over || self.bytes.is_empty(),
            "said behind the last word: {:?}",
            self.bytes
        );
        let next = if self.has_answer {
            frame(&self.bytes)?
        } else {
            answer(&self.bytes)?
        };
        match next.0 {
            Heard::Http(101, _) => self.has_answer = true,
            Heard::Http(..) | Heard::Close(..) => self.is_over = true,
            _ => {}
        }
        Some(next)
    }
}

fn answer(bytes: &[u8]) -> Option<(Heard, usize)> {
    let head_len = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_len]).unwrap();
    let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
        .parse()
        .unwrap();
    let body_len = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse::<usize>().unwrap());
    assert_eq!(status == 101, !head.contains("Content-Length"), "{head}");
    let whole = bytes.get(..head_len + body_len)?;
    let text = String::from_utf8(whole.to_vec()).unwrap();
    Some((Heard::Http(status, text), whole.len()))
}

fn frame(bytes: &[u8]) -> Option<(Heard, usize)> {
    let &[first, second, ref rest @ ..] = bytes else {
        return None;
    };
    assert_eq!(first & 0xf0, 0x80, "a fragment, or reserved bits");
    assert!(second < 0x80, "a masked frame from a server");
    let (header, length) = match second {
        126 => {
            let length = u16::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 125, "not the shortest length");
            (4, usize::from(length))
        }
        127 => {
            let length = u64::from_be_bytes(*rest.first_chunk()?);
            assert!(length > 0xffff, "not the shortest length");
            (10, length as usize)
        }
        short => (2, usize::from(short)),
    };
    let payload = bytes.get(header..header + length)?.to_vec();
    let utf8 = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(first & 8 == 0 || length <= 125, "a long control frame");
    let heard = match first & 0x0f {
        TEXT => Heard::Text(utf8(payload)),
        BINARY => Heard::Binary(payload),
        PING => Heard::Ping(payload),
        PONG => Heard::Pong(payload),
        CLOSE if payload.is_empty() => Heard::Close(None, String::new()),
        CLOSE => {
            let code = u16::from_be_bytes(*payload.first_chunk().unwrap());
            Heard::Close(Some(code), utf8(payload[2..].to_vec()))
        }
        other => panic!("opcode {other} from a server"),
    };
    Some((heard, header + length))
}
