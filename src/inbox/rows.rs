//! What the inbox needs of a store: rows in order, changed within one transaction.
//!
//! Owns: the names of all rows. A key is a letter for the kind of row, then ids that each end
//! with a zero byte (no id holds one), then numbers in big endian, so that rows stand in the
//! order in which they are read.

use crate::protocol::envelope::MessageId;

/// A transaction on ordered rows. What was put is read back before it is committed.
pub trait Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken>;
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken>;
    fn remove(&mut self, key: &[u8]) -> Result<(), Broken>;
    /// Shows the rows of `from..to` in order until `visit` says false.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken>;
}

/// Takes a key and its value; false: enough.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// The store cannot be read or written, or holds what nobody wrote. Nothing of the transaction
/// may be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

impl Broken {
    pub fn row(what: &str, error: impl std::fmt::Display) -> Broken {
        Broken(format!("the store holds no sound {what}: {error}"))
    }
}

/// Kinds of rows. The letters are part of the format on disk.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    /// user → Head
    Head = b'h',
    /// user, seq → Entry
    Entry = b'e',
    /// receiver, sender, msgid → Seen
    Seen = b's',
    /// receiver, sender → Pair
    Pair = b'p',
    /// receiver, messageId → Held
    Held = b'i',
    /// group → Group
    Group = b'g',
    /// user, group → nothing
    Member = b'm',
    /// group, number → GroupEntry
    GroupLog = b'l',
    /// group, number → nothing: its members have not all got it
    Work = b'w',
    /// due ms, messageId → Scheduled
    Delay = b'd',
    /// messageId → due ms, 0 when it was due
    DelayId = b'D',
}

impl Kind {
    pub fn of(letter: u8) -> Option<Kind> {
        const ALL: [Kind; 11] = [
            Kind::Head,
            Kind::Entry,
            Kind::Seen,
            Kind::Pair,
            Kind::Held,
            Kind::Group,
            Kind::Member,
            Kind::GroupLog,
            Kind::Work,
            Kind::Delay,
            Kind::DelayId,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == letter)
    }
}

fn key(kind: Kind, ids: &[&str]) -> Vec<u8> {
    let length = ids.iter().map(|id| id.len() + 1).sum::<usize>();
    let mut key = Vec::with_capacity(1 + length + 16);
    key.push(kind as u8);
    for id in ids {
        key.extend_from_slice(id.as_bytes());
        key.push(0);
    }
    key
}

fn numbered(kind: Kind, id: &str, number: u64) -> Vec<u8> {
    let mut key = key(kind, &[id]);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The number that a key ends with.
pub fn number_of(key: &[u8]) -> u64 {
    key.last_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The message id that a key ends with.
pub fn message_of(key: &[u8]) -> MessageId {
    MessageId(key.last_chunk().copied().unwrap_or_default())
}

/// The text of a key between its letter and its first zero.
pub fn first_id_of(key: &[u8]) -> &str {
    let ids = key.get(1..).unwrap_or_default();
    let end = ids.iter().position(|&b| b == 0).unwrap_or(ids.len());
    std::str::from_utf8(&ids[..end]).unwrap_or_default()
}

/// The last id of a key that ends with one.
pub fn last_id_of(key: &[u8]) -> &str {
    let ids = key.strip_suffix(&[0]).unwrap_or(key);
    let start = ids.iter().rposition(|&b| b == 0).map_or(1, |at| at + 1);
    std::str::from_utf8(ids.get(start..).unwrap_or_default()).unwrap_or_default()
}

/// Behind the last key that begins with `prefix`.
pub fn end_of(mut prefix: Vec<u8>) -> Vec<u8> {
    // Every prefix ends with the zero byte behind an id, or is one letter.
    if let Some(last) = prefix.last_mut() {
        *last += 1;
    }
    prefix
}

pub fn head(uid: &str) -> Vec<u8> {
    key(Kind::Head, &[uid])
}

pub fn entry(uid: &str, seq: u64) -> Vec<u8> {
    numbered(Kind::Entry, uid, seq)
}

/// Behind the last entry of a user.
pub fn end_of_entries(uid: &str) -> Vec<u8> {
    end_of(key(Kind::Entry, &[uid]))
}

pub fn seen(uid: &str, sender: &str, msgid: &str) -> Vec<u8> {
    let mut key = key(Kind::Seen, &[uid, sender]);
    key.extend_from_slice(msgid.as_bytes());
    key
}

pub fn seen_of(uid: &str) -> Vec<u8> {
    key(Kind::Seen, &[uid])
}

pub fn pair_of(uid: &str) -> Vec<u8> {
    key(Kind::Pair, &[uid])
}

pub fn pair(uid: &str, sender: &str) -> Vec<u8> {
    key(Kind::Pair, &[uid, sender])
}

pub fn held(uid: &str, id: MessageId) -> Vec<u8> {
    let mut key = key(Kind::Held, &[uid]);
    key.extend_from_slice(&id.0);
    key
}

pub fn held_of(uid: &str) -> Vec<u8> {
    key(Kind::Held, &[uid])
}

pub fn group(id: &str) -> Vec<u8> {
    key(Kind::Group, &[id])
}

pub fn member(uid: &str, group: &str) -> Vec<u8> {
    key(Kind::Member, &[uid, group])
}

pub fn member_of(uid: &str) -> Vec<u8> {
    key(Kind::Member, &[uid])
}

pub fn group_log(group: &str, number: u64) -> Vec<u8> {
    numbered(Kind::GroupLog, group, number)
}

pub fn group_log_of(group: &str) -> Vec<u8> {
    key(Kind::GroupLog, &[group])
}

pub fn work_of(group: &str) -> Vec<u8> {
    key(Kind::Work, &[group])
}

pub fn work(group: &str, number: u64) -> Vec<u8> {
    numbered(Kind::Work, group, number)
}

pub fn delay(due_ms: u64, id: MessageId) -> Vec<u8> {
    let mut key = vec![Kind::Delay as u8];
    key.extend_from_slice(&due_ms.to_be_bytes());
    key.extend_from_slice(&id.0);
    key
}

pub fn delay_id(id: MessageId) -> Vec<u8> {
    let mut key = vec![Kind::DelayId as u8];
    key.extend_from_slice(&id.0);
    key
}

/// All rows of one kind begin with it.
pub mod all {
    use super::Kind;

    /// Behind the last row of any kind.
    pub const END: &[u8] = &[0xff];

    pub fn heads() -> Vec<u8> {
        vec![Kind::Head as u8]
    }

    pub fn groups() -> Vec<u8> {
        vec![Kind::Group as u8]
    }

    pub fn work() -> Vec<u8> {
        vec![Kind::Work as u8]
    }

    pub fn delays() -> Vec<u8> {
        vec![Kind::Delay as u8]
    }
}
