//! The texts that the crowd sends, and what it reads out of those that it receives.
//!
//! A message of the crowd carries a mark (`@@`) by which its receiver knows it again, wherever
//! in an envelope it stands: the number of a broadcast; number, time and receivers of a direct
//! message or a push. That of a chat message, to a user or a group, is its msgid as well.

use std::fmt::Write as _;

use memchr::memmem;

/// Bytes of a message: the `msg` of a direct frame, the `msg` object of a push.
pub const BODY_BYTES: usize = 100;

const MARK: &[u8] = b"@@";
const WAVE: u8 = b'w';
const DIRECT: u8 = b'd';
const POST: u8 = b'p';
const CHAT: u8 = b'c';

/// The key that every client of the crowd sends, and what a server makes of it (RFC 6455).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a received text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Broadcast number `0` of the crowd.
    Wave(u32),
    Direct(Direct),
    Post(PostMark),
    /// An error frame of the server (type 500 or msgType -1).
    Refusal,
    Other,
}

/// What a direct message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct {
    pub number: u32,
    /// Since the beginning of the volley.
    pub sent_nanos: u64,
    /// Index of the client that it is for.
    pub receiver: u32,
}

/// What a push says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostMark {
    /// A store may still have pushes of another run.
    pub run: u32,
    /// Which of the users it is for: all of those in this block.
    pub block: u32,
    /// Its number in this block.
    pub number: u32,
    /// When it was to be pushed, since the beginning of the run.
    pub due_nanos: u64,
}

pub fn read(text: &[u8]) -> Text {
    marked(text).unwrap_or_else(|| {
        let has = |needle: &[u8]| memmem::find(text, needle).is_some();
        if has(b"\"msgType\":-1") || has(b"\"type\":500") {
            Text::Refusal
        } else {
            Text::Other
        }
    })
}

fn marked(text: &[u8]) -> Option<Text> {
    let rest = &text[memmem::find(text, MARK)? + MARK.len()..];
    match *rest.first()? {
        WAVE => Some(Text::Wave(hex(rest.get(1..9)?)? as u32)),
        DIRECT => Some(Text::Direct(Direct {
            number: hex(rest.get(1..9)?)? as u32,
            sent_nanos: hex(rest.get(9..25)?)?,
            receiver: hex(rest.get(25..33)?)? as u32,
        })),
        POST => Some(Text::Post(PostMark {
            run: hex(rest.get(1..9)?)? as u32,
            block: hex(rest.get(9..17)?)? as u32,
            number: hex(rest.get(17..25)?)? as u32,
            due_nanos: hex(rest.get(25..41)?)?,
        })),
        _ => None,
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum, &digit| {
        Some(sum << 4 | u64::from(char::from(digit).to_digit(16)?))
    })
}

/// True for the connected notice.
pub fn is_notice(text: &[u8]) -> bool {
    memmem::find(text, b"\"msgType\":0").is_some()
}

/// True for the answer to a registration.
pub fn is_registered(text: &[u8]) -> bool {
    memmem::find(text, b"\"type\":8").is_some()
}

/// The `msg` object of broadcast `wave`, [`BODY_BYTES`] long.
pub fn wave(wave: u32) -> String {
    let mut body = format!("{{\"text\":\"@@w{wave:08x}");
    pad(&mut body, BODY_BYTES - 2);
    body.push_str("\"}");
    body
}

/// The `msg` object of a push, so many bytes long if there is room for its mark.
pub fn write_post(out: &mut String, mark: PostMark, bytes: usize) {
    let end = out.len() + bytes.max(2) - 2;
    let PostMark {
        run,
        block,
        number,
        due_nanos,
    } = mark;
    let _ = write!(
        out,
        "{{\"text\":\"@@p{run:08x}{block:08x}{number:08x}{due_nanos:016x}"
    );
    pad(out, end);
    out.push_str("\"}");
}

/// The `msg` text of a direct message, [`BODY_BYTES`] long.
pub fn write_direct_body(out: &mut String, direct: Direct) {
    let end = out.len() + BODY_BYTES;
    let Direct {
        number,
        sent_nanos,
        receiver,
    } = direct;
    let _ = write!(out, "@@d{number:08x}{sent_nanos:016x}{receiver:08x}");
    pad(out, end);
}

/// A direct frame for the user `to`.
pub fn write_direct(out: &mut String, to: &str, direct: Direct) {
    let _ = write!(out, "{{\"to\":\"{to}\",\"msg\":\"");
    write_direct_body(out, direct);
    out.push_str("\",\"msgType\":1}");
}

/// What a chat message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatMark {
    /// A store may still have messages of another run.
    pub run: u32,
    pub number: u32,
    /// When it was to be sent, since the beginning of the run.
    pub due_nanos: u64,
    /// Index of the client that it is for, or number of the group.
    pub receiver: u32,
}

impl ChatMark {
    /// Its msgid, and the beginning of its text.
    pub fn text(self) -> String {
        let ChatMark {
            run,
            number,
            due_nanos,
            receiver,
        } = self;
        format!("@@c{run:08x}{number:08x}{due_nanos:016x}{receiver:08x}")
    }

    pub fn read(text: &str) -> Option<ChatMark> {
        let digits = text.as_bytes().strip_prefix(MARK)?.strip_prefix(&[CHAT])?;
        Some(ChatMark {
            run: hex(digits.get(..8)?)? as u32,
            number: hex(digits.get(8..16)?)? as u32,
            due_nanos: hex(digits.get(16..32)?)?,
            receiver: hex(digits.get(32..40)?)? as u32,
        })
    }
}

/// A chat message for the user (type 1) or the group (type 9) `to`, whose text has
/// [`BODY_BYTES`].
pub fn write_chat(out: &mut String, kind: u8, to: &str, mark: ChatMark) {
    let msgid = mark.text();
    let _ = write!(
        out,
        "{{\"type\":{kind},\"params\":{{\"toMessageId\":\"{to}\",\"fileType\":0,\"msgid\":\"{msgid}\",\"message\":\""
    );
    let end = out.len() + BODY_BYTES;
    out.push_str(&msgid);
    pad(out, end);
    out.push_str("\"}}");
}

/// The acknowledgement (type 15) of a message.
pub fn write_ack(out: &mut String, message_id: &str) {
    let _ = write!(
        out,
        "{{\"type\":15,\"params\":{{\"from\":\"client\",\"msgid\":\"{message_id}\"}}}}"
    );
}

fn pad(text: &mut String, length: usize) {
    const PADDING: &str = " a hundred bytes are what people say to each other: hello, are you there, see you at eight";
    while text.len() < length {
        let room = length - text.len();
        text.push_str(&PADDING[..room.min(PADDING.len())]);
    }
}

/// The command that registers the user `uid`.
pub fn write_register(out: &mut String, uid: &str) {
    let _ = write!(
        out,
        "{{\"type\":7,\"params\":{{\"openid\":\"{uid}\",\"userName\":\"{uid}\",\"loginStatus\":\"1\"}}}}"
    );
}

/// The upgrade request for `path` (which may have a query) with `query` added.
pub fn write_upgrade(out: &mut String, host: &str, path: &str, query: &str) {
    let mark = if path.contains('?') { '&' } else { '?' };
    let _ = write!(
        out,
        "GET {path}{mark}{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    );
}

/// What a server says to an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// It has not fully arrived.
    Torn,
    /// 101; so many bytes long.
    Switched(usize),
    /// Another status, and perhaps after how many seconds to come back.
    Refused {
        status: u16,
        retry_secs: Option<u32>,
    },
    /// Not HTTP, too long, or the wrong accept key.
    Malformed,
}

pub fn read_upgrade(bytes: &[u8]) -> Upgrade {
    const HEAD_BYTES_MAX: usize = 16 << 10;
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES_MAX {
            Upgrade::Malformed
        } else {
            Upgrade::Torn
        };
    };
    let head = &bytes[..end];
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    match status {
        Some(101) if memmem::find(head, ACCEPT.as_bytes()).is_some() => Upgrade::Switched(end + 4),
        None | Some(101) => Upgrade::Malformed,
        Some(status) => Upgrade::Refused {
            status,
            retry_secs: retry_secs(head),
        },
    }
}

fn retry_secs(head: &[u8]) -> Option<u32> {
    let fields = std::str::from_utf8(head).ok()?.lines();
    let mut fields = fields.filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("retry-after"))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_the_promised_length_and_are_known_again() {
        assert_eq!(wave(0xbeef).len(), BODY_BYTES);
        assert_eq!(
            read(format!("{{\"msg\":{}}}", wave(0xbeef)).as_bytes()),
            Text::Wave(0xbeef)
        );
        let direct = Direct {
            number: 7,
            sent_nanos: 1 << 40,
            receiver: 17_999,
        };
        let (mut body, mut text) = (String::new(), String::new());
        write_direct_body(&mut body, direct);
        write_direct(&mut text, "bob", direct);
        assert_eq!(body.len(), BODY_BYTES);
        assert_eq!(read(text.as_bytes()), Text::Direct(direct));
    }

    #[test]
    fn a_push_is_as_long_as_wished_for_and_known_again() {
        let mark = PostMark {
            run: 0xfeed_beef,
            block: 3,
            number: 7,
            due_nanos: 1 << 40,
        };
        for bytes in [100, 5000] {
            let mut body = String::new();
            write_post(&mut body, mark, bytes);
            assert_eq!(body.len(), bytes);
            let text = format!("{{\"msg\":{body}}}");
            assert_eq!(read(text.as_bytes()), Text::Post(mark));
        }
    }

    #[test]
    fn a_chat_message_is_known_again_by_its_msgid_and_by_its_text() {
        let mark = ChatMark {
            run: 0xfeed_beef,
            number: 7,
            due_nanos: 1 << 40,
            receiver: 3,
        };
        let mut text = String::new();
        write_chat(&mut text, 1, "bob", mark);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let body = json["params"]["message"].as_str().unwrap();
        assert_eq!(body.len(), BODY_BYTES);
        assert_eq!(ChatMark::read(body), Some(mark));
        let msgid = json["params"]["msgid"].as_str().unwrap();
        assert_eq!(ChatMark::read(msgid), Some(mark));
        assert_eq!(ChatMark::read("@@d"), None);
    }

    #[test]
    fn errors_of_the_server_are_told_from_other_texts() {
        assert_eq!(
            read(br#"{"type":500,"status":500,"params":{}}"#),
            Text::Refusal
        );
        assert_eq!(
            read(br#"{"msgType":-1,"resultMsg":"nobody"}"#),
            Text::Refusal
        );
        assert_eq!(read(br#"{"msgType":1,"msg":"hi @@"}"#), Text::Other);
        assert_eq!(read(b"@@wxyz"), Text::Other);
    }

    #[test]
    fn an_upgrade_is_judged_by_status_and_accept_key() {
        let good =
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
        assert_eq!(read_upgrade(good.as_bytes()), Upgrade::Switched(good.len()));
        assert_eq!(
            read_upgrade(&good.as_bytes()[..good.len() - 1]),
            Upgrade::Torn
        );
        assert_eq!(
            read_upgrade(b"HTTP/1.1 401 Unauthorized\r\n\r\n"),
            Upgrade::Refused {
                status: 401,
                retry_secs: None
            }
        );
        assert_eq!(
            read_upgrade(b"HTTP/1.1 503 Busy\r\nX: y\r\nretry-after: 7\r\n\r\n"),
            Upgrade::Refused {
                status: 503,
                retry_secs: Some(7)
            }
        );
        assert_eq!(
            read_upgrade(b"HTTP/1.1 101 Yes\r\n\r\n"),
            Upgrade::Malformed
        );
        assert_eq!(read_upgrade(b"SSH-2.0\r\n\r\n"), Upgrade::Malformed);
    }
}
