//! The names of rows as values, for whoever walks all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::rows::{self, Kind};
use crate::protocol::envelope::MessageId;

/// What a key says. `user` may be a group as well, as `group:<id>`: it remembers messages as an
/// inbox does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum RowName {
    Head {
        user: String,
    },
    Entry {
        user: String,
        seq: u64,
    },
    Seen {
        user: String,
        sender: String,
        msgid: String,
    },
    Pair {
        user: String,
        sender: String,
    },
    Held {
        user: String,
        message_id: MessageId,
    },
    Group {
        group: String,
    },
    Member {
        user: String,
        group: String,
    },
    GroupLog {
        group: String,
        number: u64,
    },
    Work {
        group: String,
        number: u64,
    },
    Delay {
        due_ms: u64,
        message_id: MessageId,
    },
    DelayId {
        message_id: MessageId,
    },
}

impl RowName {
    /// None: nobody gives a row such a key.
    pub fn parse(key: &[u8]) -> Option<RowName> {
        let (&letter, rest) = key.split_first()?;
        let mut parts = Parts(rest);
        let name = match Kind::of(letter)? {
            Kind::Head => RowName::Head { user: parts.id()? },
            Kind::Entry => RowName::Entry {
                user: parts.id()?,
                seq: parts.number()?,
            },
            Kind::Seen => RowName::Seen {
                user: parts.id()?,
                sender: parts.id()?,
                msgid: parts.rest()?,
            },
            Kind::Pair => RowName::Pair {
                user: parts.id()?,
                sender: parts.id()?,
            },
            Kind::Held => RowName::Held {
                user: parts.id()?,
                message_id: parts.message()?,
            },
            Kind::Group => RowName::Group { group: parts.id()? },
            Kind::Member => RowName::Member {
                user: parts.id()?,
                group: parts.id()?,
            },
            Kind::GroupLog => RowName::GroupLog {
                group: parts.id()?,
                number: parts.number()?,
            },
            Kind::Work => RowName::Work {
                group: parts.id()?,
                number: parts.number()?,
            },
            Kind::Delay => RowName::Delay {
                due_ms: parts.number()?,
                message_id: parts.message()?,
            },
            Kind::DelayId => RowName::DelayId {
                message_id: parts.message()?,
            },
        };
        parts.0.is_empty().then_some(name)
    }

    pub fn key(&self) -> Vec<u8> {
        match self {
            RowName::Head { user } => rows::head(user),
            RowName::Entry { user, seq } => rows::entry(user, *seq),
            RowName::Seen {
                user,
                sender,
                msgid,
            } => rows::seen(user, sender, msgid),
            RowName::Pair { user, sender } => rows::pair(user, sender),
            RowName::Held { user, message_id } => rows::held(user, *message_id),
            RowName::Group { group } => rows::group(group),
            RowName::Member { user, group } => rows::member(user, group),
            RowName::GroupLog { group, number } => rows::group_log(group, *number),
            RowName::Work { group, number } => rows::work(group, *number),
            RowName::Delay { due_ms, message_id } => rows::delay(*due_ms, *message_id),
            RowName::DelayId { message_id } => rows::delay_id(*message_id),
        }
    }
}

/// As an operator reads it.
impl fmt::Display for RowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowName::Head { user } => write!(f, "head {user}"),
            RowName::Entry { user, seq } => write!(f, "entry {user} {seq}"),
            RowName::Seen {
                user,
                sender,
                msgid,
            } => write!(f, "seen {user} {sender} {msgid:?}"),
            RowName::Pair { user, sender } => write!(f, "pair {user} {sender}"),
            RowName::Held { user, message_id } => write!(f, "held {user} {message_id}"),
            RowName::Group { group } => write!(f, "group {group}"),
            RowName::Member { user, group } => write!(f, "member {user} {group}"),
            RowName::GroupLog { group, number } => write!(f, "groupLog {group} {number}"),
            RowName::Work { group, number } => write!(f, "work {group} {number}"),
            RowName::Delay { due_ms, message_id } => write!(f, "delay {due_ms} {message_id}"),
            RowName::DelayId { message_id } => write!(f, "delayId {message_id}"),
        }
    }
}

/// What of a key is not read yet.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn id(&mut self) -> Option<String> {
        let end = self.0.iter().position(|&b| b == 0)?;
        let (id, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        text(id)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    fn message(&mut self) -> Option<MessageId> {
        let (id, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(MessageId(*id))
    }

    fn rest(&mut self) -> Option<String> {
        text(std::mem::take(&mut self.0))
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_its_key_says() {
        let (user, sender) = ("bob".to_owned(), "alice".to_owned());
        let (group, message_id) = (
            "team".to_owned(),
            MessageId([0, 1, 0, 255, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
        );
        let names = [
            RowName::Head { user: user.clone() },
            RowName::Entry {
                user: user.clone(),
                seq: 0x0001_0203_0405_0607,
            },
            RowName::Seen {
                user: user.clone(),
                sender: sender.clone(),
                msgid: "m\0 é".to_owned(),
            },
            RowName::Pair {
                user: "group:team".to_owned(),
                sender,
            },
            RowName::Held {
                user: user.clone(),
                message_id,
            },
            RowName::Group {
                group: group.clone(),
            },
            RowName::Member {
                user,
                group: group.clone(),
            },
            RowName::GroupLog {
                group: group.clone(),
                number: 7,
            },
            RowName::Work { group, number: 0 },
            RowName::Delay {
                due_ms: u64::MAX,
                message_id,
            },
            RowName::DelayId { message_id },
        ];
        for name in names {
            let key = name.key();
            assert_eq!(RowName::parse(&key), Some(name.clone()));
            let longer = [&key[..], b"x"].concat();
            assert_ne!(RowName::parse(&longer), Some(name.clone()));
            assert_ne!(RowName::parse(&key[..key.len() - 1]), Some(name));
        }
        for bad in [
            &b""[..],
            b"x",
            b"h",
            b"hbob",
            b"h\xff\0",
            b"e\x00123",
            b"Dshort",
        ] {
            assert_eq!(RowName::parse(bad), None, "{bad:?}");
        }
    }
}
