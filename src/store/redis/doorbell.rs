//! What is said on the channels of nodes: something was appended to a user's inbox, or lost; a
//! session has to go; a user came or went.
//!
//! A line of words, and behind it, for an entry, its row:
//! version, kind, node epoch, publisher, user, and what the kind has. The epoch is that of the
//! addressed node's own life, because a node that came after the one that was meant leaves the
//! doorbell alone; 0 means every node. The publisher is the node that asked, or `-`: it has heard
//! of it in the answer already.

use std::sync::Arc;

use super::names::{FORMAT, unescape};
use crate::inbox::records::decode;
use crate::inbox::{PresenceChange, Ring};

#[derive(Clone, Debug, PartialEq)]
pub struct Doorbell {
    pub node_epoch: u64,
    /// Who published it.
    pub from: String,
    pub word: Word,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Ring(Ring),
    /// A session of the node has to go.
    Close {
        uid: String,
        session: String,
        code: u16,
    },
    Presence(PresenceChange),
}

impl Doorbell {
    /// None: nobody wrote that, or a version that is too new or too old.
    pub fn parse(payload: &[u8]) -> Option<Doorbell> {
        let end = payload.iter().position(|&byte| byte == b'\n')?;
        let (line, row) = (
            std::str::from_utf8(&payload[..end]).ok()?,
            &payload[end + 1..],
        );
        let mut words = line.split(' ');
        let version: u32 = words.next()?.parse().ok()?;
        if version > FORMAT || version + 1 < FORMAT {
            return None;
        }
        let kind = words.next()?;
        let node_epoch = words.next()?.parse().ok()?;
        let from = words.next()?.to_owned();
        let uid = unescape(words.next()?)?;
        let word = match kind {
            "lost" => Word::Ring(Ring::Lost { uid }),
            "entry" => Word::Ring(Ring::Entry {
                uid,
                epoch: words.next()?.parse().ok()?,
                seq: words.next()?.parse().ok()?,
                but: match words.next()? {
                    "-" => None,
                    connection => Some(connection.parse().ok()?),
                },
                entry: Arc::new(decode("entry", row).ok()?),
            }),
            "close" => Word::Close {
                uid,
                session: unescape(words.next()?)?,
                code: words.next()?.parse().ok()?,
            },
            "presence" => Word::Presence(PresenceChange {
                uid,
                is_online: match words.next()? {
                    "0" => false,
                    "1" => true,
                    _ => return None,
                },
                at_ms: words.next()?.parse().ok()?,
            }),
            _ => return None,
        };
        Some(Doorbell {
            node_epoch,
            from,
            word,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(payload: &[u8]) -> Option<Word> {
        let doorbell = Doorbell::parse(payload)?;
        assert_eq!((doorbell.node_epoch, doorbell.from.as_str()), (7, "n:1"));
        Some(doorbell.word)
    }

    #[test]
    fn what_has_no_row_is_told_by_its_line_alone() {
        let uid = || "a b".to_owned();
        assert_eq!(
            word(b"1 lost 7 n:1 a%20b\n"),
            Some(Word::Ring(Ring::Lost { uid: uid() }))
        );
        let close = Word::Close {
            uid: uid(),
            session: "x y".to_owned(),
            code: 4409,
        };
        assert_eq!(word(b"1 close 7 n:1 a%20b x%20y 4409\n"), Some(close));
        let change = PresenceChange {
            uid: uid(),
            is_online: true,
            at_ms: 9,
        };
        assert_eq!(
            word(b"1 presence 7 n:1 a%20b 1 9\n"),
            Some(Word::Presence(change))
        );
    }

    #[test]
    fn what_nobody_wrote_rings_nowhere() {
        for payload in [
            &b""[..],
            b"\n",
            b"1 lost 7 - bob",
            b"1 lost x - bob\n",
            b"1 lost 7 -\n",
            b"3 lost 7 - bob\n",
            b"1 found 7 - bob\n",
            b"1 entry 7 - bob 1 1 -\n",
            b"1 entry 7 - bob 1 1\n\x01",
            b"1 close 7 - bob x 70000\n",
            b"1 presence 7 - bob 2 9\n",
            b"\xff lost 7 - bob\n",
        ] {
            assert_eq!(Doorbell::parse(payload), None, "{payload:?}");
        }
    }
}
