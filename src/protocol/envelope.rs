//! The envelope in which a message reaches a session, and the ids it carries.
//!
//! An envelope is one JSON object in two parts: a short head that is the receiving session's own
//! (`sessionId`, `to`), and a tail that all receivers share.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::order::{ChatText, FileType};

/// 128 bits, written as 32 hex digits. Those of messages that are stored begin with the time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// The same with the time in its first 48 bits (Unix milliseconds).
    pub fn at(self, ms: u64) -> MessageId {
        let mut id = self.0;
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        MessageId(id)
    }

    /// The time that an id of a stored message begins with, in Unix milliseconds.
    pub fn at_ms(self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The id of the notice that this message was delivered.
    pub fn of_notice(self) -> MessageId {
        let mut id = self.0;
        id[15] ^= 0x80;
        MessageId(id)
    }

    /// From the 32 digits; none if it is something else.
    pub fn from_hex(text: &str) -> Option<MessageId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let bits = u128::from_str_radix(text, 16).ok()?;
        Some(MessageId(bits.to_be_bytes()))
    }

    /// The 32 digits.
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ];
        }
        hex
    }
}

/// The digits for people, the bytes for everything else.
impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.collect_str(self)
        } else {
            self.0.serialize(to)
        }
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<MessageId, D::Error> {
        if !from.is_human_readable() {
            return Ok(MessageId(<[u8; 16]>::deserialize(from)?));
        }
        let text = String::deserialize(from)?;
        MessageId::from_hex(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no message id")))
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_hex()).unwrap_or_default())
    }
}

/// What caused a message: `trigger` in the envelope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    Http = 1,
    WebSocket = 2,
}

/// What an envelope carries.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// JSON text, passed through as it came.
    Raw(&'a str),
    /// Type 2. `toUser` is the receiving session's, so it is part of the head.
    Chat { from: Party<'a>, text: ChatText<'a> },
    /// Type 10.
    GroupChat {
        from: Party<'a>,
        group: &'a str,
        text: ChatText<'a>,
    },
    /// Type 17: the message reached `to`.
    Delivered {
        msgid: Option<&'a str>,
        message: MessageId,
        to: &'a str,
    },
}

/// A user in a chat.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    pub uid: &'a str,
    pub name: &'a str,
    pub is_online: bool,
}

/// What stands before the part that all receivers share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Head {
    /// Nothing: the frame is bare.
    Bare,
    /// `sessionId` and `to`.
    Envelope,
    /// These, and the beginning of a chat message up to `toUser`.
    Chat,
}

/// A message as all its receivers see it.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// Unix milliseconds at which it was accepted.
    pub active_ms: u64,
    /// A user id or `system`: it goes between quotes as it is.
    pub from: &'a str,
    pub message_id: MessageId,
    pub body: Body<'a>,
    pub msg_type: i32,
    pub request_id: Option<&'a str>,
    pub trigger: Trigger,
}

impl Envelope<'_> {
    /// The head that the tail goes behind.
    pub fn head(&self) -> Head {
        match self.body {
            Body::Chat { .. } => Head::Chat,
            Body::Raw(_) | Body::GroupChat { .. } | Body::Delivered { .. } => Head::Envelope,
        }
    }

    /// Appends the shared part: everything behind the head, up to and with the closing brace.
    pub fn write_tail(&self, out: &mut Vec<u8>) {
        let mut out = Text(out);
        match self.body {
            Body::Raw(msg) => {
                out.raw("\"msg\":");
                out.raw(msg);
            }
            Body::Chat { from, text } => {
                out.raw(",\"fromUser\":");
                out.party(from);
                out.chat(text);
                out.raw("}}");
            }
            Body::GroupChat { from, group, text } => {
                out.raw("\"msg\":{\"type\":10,\"status\":200,\"params\":{\"fromUser\":");
                out.party(from);
                out.chat(text);
                out.raw(",\"groupId\":\"");
                out.raw(group);
                out.raw("\"}}");
            }
            Body::Delivered { msgid, message, to } => {
                out.raw("\"msg\":{\"type\":17,\"status\":200,\"params\":{");
                if let Some(msgid) = msgid {
                    out.raw("\"msgid\":");
                    out.json(msgid);
                    out.raw(",");
                }
                out.raw("\"messageId\":\"");
                out.0.extend_from_slice(&message.to_hex());
                out.raw("\",\"toUser\":\"");
                out.raw(to);
                out.raw("\"}}");
            }
        }
        out.raw(",\"activeTime\":");
        out.number(self.active_ms);
        out.raw(",\"from\":\"");
        out.raw(self.from);
        out.raw("\",\"messageId\":\"");
        out.0.extend_from_slice(&self.message_id.to_hex());
        out.raw("\",\"msgType\":");
        out.number(self.msg_type);
        if let Some(id) = self.request_id {
            out.raw(",\"requestId\":");
            out.json(id);
        }
        out.raw(",\"trigger\":");
        out.number(self.trigger as u8);
        out.raw("}");
    }

    /// The JSON text for everybody: one encoding, `to` is `["*"]`, no session id.
    pub fn write_broadcast(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"to\":[\"*\"],");
        self.write_tail(out);
    }
}

/// A byte buffer that JSON text is written to.
pub struct Text<'a>(pub &'a mut Vec<u8>);

impl Text<'_> {
    pub fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    pub fn number(&mut self, number: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(number));
    }

    /// A user in a chat, as an object.
    pub fn party(&mut self, party: Party<'_>) {
        self.raw("{\"openid\":\"");
        self.raw(party.uid);
        self.raw("\",\"loginStatus\":\"");
        self.number(u8::from(party.is_online));
        self.raw("\",\"userName\":");
        self.json(party.name);
        self.raw("}");
    }

    fn chat(&mut self, text: ChatText<'_>) {
        self.raw(",\"message\":");
        self.raw(text.message);
        self.raw(",\"fileType\":");
        match text.file_type {
            FileType::Text(text) => self.json(text),
            FileType::Number(number) => {
                self.raw("\"");
                self.number(number);
                self.raw("\"");
            }
        }
    }

    /// `value` as compact JSON.
    pub fn json(&mut self, value: &(impl Serialize + ?Sized)) {
        serde_json::to_writer(&mut *self.0, value).expect("strings and numbers have a JSON form");
    }
}

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.raw(text);
        Ok(())
    }
}
