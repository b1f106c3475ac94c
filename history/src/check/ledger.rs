//! The book of messages: what was sent, what was said of it, and whom it has reached.
//!
//! Owns: one entry for each message and one for each messageId, however often they were sent,
//! received or acknowledged. Devices are seats: small numbers within a message's audience.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::names::Bits;
use crate::event::Class;

pub struct Message {
    pub class: Class,
    /// Numbers of users, or of a group.
    pub sender: u32,
    pub to: u32,
    /// Where the first attempt was made, and on which line.
    pub connection: Option<u64>,
    pub sent_line: u64,
    /// The group's members as they were then, and when it was confirmed.
    pub version: u32,
    pub version_confirmed: u32,
    pub attempts: u32,
    pub failed: u32,
    pub unknown: u32,
    pub confirmed: u32,
    pub confirmed_line: u64,
    pub confirmed_ms: u64,
    /// The first messageId that it was seen with.
    pub id: Option<u32>,
    pub has_two_ids: bool,
    /// It was delivered when each attempt had been refused.
    pub came_refused: bool,
    /// Epoch and seq in the receiver's inbox; not for groups.
    pub place: Option<(u32, u64)>,
    /// The notice's epoch and seq in the sender's inbox.
    pub notice: Option<(u32, u64)>,
    pub answered_ms: Option<u64>,
    pub delivered: Bits,
    pub acked: Bits,
    pub noticed: Bits,
}

impl Message {
    /// Every attempt so far was definitely refused.
    pub fn is_refused(&self) -> bool {
        self.failed == self.attempts
    }

    /// Some attempt may have been accepted before the latest one was.
    pub fn may_be_repeated(&self) -> bool {
        self.confirmed > 0 || self.attempts - self.failed > 1
    }
}

/// A messageId.
#[derive(Default)]
pub struct Id {
    pub message: Option<u32>,
    /// It was acknowledged before anybody said what it is.
    pub is_acked_early: bool,
    pub delivered: Bits,
}

#[derive(Default)]
pub struct Ledger {
    pub messages: Vec<Message>,
    pub ids: Vec<Id>,
    by_key: HashMap<Box<str>, u32>,
    by_id: HashMap<Box<str>, u32>,
    key: String,
}

impl Ledger {
    /// The message that `sender` calls `msgid`.
    pub fn find(&mut self, class: Class, sender: u32, to: u32, msgid: &str) -> Option<u32> {
        self.write_key(class, sender, to, msgid);
        self.by_key.get(self.key.as_str()).copied()
    }

    pub fn begin(&mut self, message: Message, msgid: &str) -> u32 {
        self.write_key(message.class, message.sender, message.to, msgid);
        let number = self.messages.len() as u32;
        self.by_key.insert(self.key.as_str().into(), number);
        self.messages.push(message);
        number
    }

    fn write_key(&mut self, class: Class, sender: u32, to: u32, msgid: &str) {
        self.key.clear();
        // Writing to a text cannot fail.
        let _ = write!(self.key, "{}.{sender}.{to}:{msgid}", class as u8);
    }

    pub fn id(&mut self, message_id: &str) -> u32 {
        if let Some(&id) = self.by_id.get(message_id) {
            return id;
        }
        let id = self.ids.len() as u32;
        self.by_id.insert(message_id.into(), id);
        self.ids.push(Id::default());
        id
    }

    /// The message that a messageId stands for, as far as is known.
    pub fn message_of(&self, message_id: &str) -> Option<u32> {
        let id = *self.by_id.get(message_id)?;
        self.ids[id as usize].message
    }

    /// What the sender calls it. Slow, because only a violation asks.
    pub fn msgid(&self, message: u32) -> &str {
        let key = self.by_key.iter().find(|(_, of)| **of == message);
        let msgid = key.and_then(|(key, _)| key.split_once(':'));
        msgid.map_or("?", |(_, msgid)| msgid)
    }

    /// The messageId itself, as slow.
    pub fn id_text(&self, id: Option<u32>) -> &str {
        let found = self.by_id.iter().find(|(_, of)| Some(**of) == id);
        found.map_or("no messageId", |(text, _)| text)
    }
}
