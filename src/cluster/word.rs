//! What is said on the channels between nodes, and how it is written.
//!
//! A word is a line, and behind it what it carries. The line begins with the version of the
//! format, the kind, the epoch of the life of the node that is meant (0: every node), and the name
//! of the node that speaks. What scripts publish is read here too.

use crate::hub::post::Selector;
use crate::protocol::away::Parcel;
use crate::protocol::envelope::Head;
use crate::store::redis::Doorbell;
use crate::store::redis::names::{FORMAT, escape, unescape};

/// What a node hears.
#[derive(Debug, PartialEq)]
pub enum Word<'a> {
    /// What scripts say: an inbox has grown, a session is to end, a user came or went.
    Script(Box<Doorbell>),
    /// A message for a user's sessions.
    Live {
        uid: String,
        only: Option<u64>,
        selector: Option<Selector>,
        head: Head,
        tail: &'a [u8],
    },
    /// A frame for everybody.
    All {
        selector: Option<Selector>,
        frame: &'a [u8],
    },
    /// This node speaks to itself.
    Probe { epoch: u64 },
    /// A node came, goes, or went.
    Nodes,
}

impl<'a> Word<'a> {
    /// What is said, and by which node. None: nobody wrote that, or a version that is too new or
    /// too old.
    pub fn parse(payload: &'a [u8]) -> Option<(Word<'a>, String)> {
        let end = payload.iter().position(|&byte| byte == b'\n')?;
        let line = std::str::from_utf8(&payload[..end]).ok()?;
        let carried = &payload[end + 1..];
        let mut words = line.split(' ');
        let version: u32 = words.next()?.parse().ok()?;
        if version > FORMAT || version + 1 < FORMAT {
            return None;
        }
        let kind = words.next()?;
        let epoch: u64 = words.next()?.parse().ok()?;
        let from = words.next()?.to_owned();
        let word = match kind {
            "live" => {
                let uid = unescape(words.next()?)?;
                let only = match words.next()? {
                    "-" => None,
                    mark => Some(mark.parse().ok()?),
                };
                let head = read_head(words.next()?)?;
                let (selector, tail) = read_selector(words.next()?, carried)?;
                Word::Live {
                    uid,
                    only,
                    selector,
                    head,
                    tail,
                }
            }
            "all" => {
                let (selector, frame) = read_selector(words.next()?, carried)?;
                Word::All { selector, frame }
            }
            "probe" => Word::Probe { epoch },
            "nodes" => Word::Nodes,
            _ => Word::Script(Box::new(Doorbell::parse(payload)?)),
        };
        Some((word, from))
    }
}

/// Who speaks.
pub struct Voice<'a>(pub &'a str);

impl Voice<'_> {
    /// A message for a user at the node of which that life is, or at all nodes.
    pub fn live(&self, epoch: u64, parcel: &Parcel) -> Vec<u8> {
        let only = parcel.only.map_or("-".to_owned(), |mark| mark.to_string());
        let head = match parcel.head {
            Head::Bare => 'b',
            Head::Envelope => 'e',
            Head::Chat => 'c',
        };
        let selector = selector_text(parcel.selector.as_ref());
        let (uid, length) = (escape(&parcel.uid), selector.len());
        let words = format!("{uid} {only} {head} {length}");
        [
            self.line("live", epoch, &words),
            selector,
            parcel.tail.to_vec(),
        ]
        .concat()
    }

    pub fn all(&self, selector: Option<&Selector>, frame: &[u8]) -> Vec<u8> {
        let selector = selector_text(selector);
        let line = self.line("all", 0, &selector.len().to_string());
        [line.as_slice(), &selector, frame].concat()
    }

    pub fn close(&self, epoch: u64, uid: &str, session: &str, code: u16) -> Vec<u8> {
        let (uid, session) = (escape(uid), escape(session));
        self.line("close", epoch, &format!("{uid} {session} {code}"))
    }

    pub fn probe(&self, epoch: u64) -> Vec<u8> {
        self.line("probe", epoch, "-")
    }

    pub fn nodes(&self) -> Vec<u8> {
        self.line("nodes", 0, "-")
    }

    fn line(&self, kind: &str, epoch: u64, words: &str) -> Vec<u8> {
        let from = self.0;
        format!("{FORMAT} {kind} {epoch} {from} {words}\n").into_bytes()
    }
}

fn read_head(text: &str) -> Option<Head> {
    Some(match text {
        "b" => Head::Bare,
        "e" => Head::Envelope,
        "c" => Head::Chat,
        _ => return None,
    })
}

/// JSON, or nothing.
fn selector_text(selector: Option<&Selector>) -> Vec<u8> {
    let pairs = selector.map(|pairs| serde_json::to_vec(pairs).unwrap_or_default());
    pairs.unwrap_or_default()
}

/// The selector, as long as it says, and what comes behind it.
fn read_selector<'a>(length: &str, carried: &'a [u8]) -> Option<(Option<Selector>, &'a [u8])> {
    let (selector, rest) = carried.split_at_checked(length.parse().ok()?)?;
    if selector.is_empty() {
        return Some((None, rest));
    }
    Some((Some(serde_json::from_slice(selector).ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::Word as Said;

    #[test]
    fn what_is_written_is_read() {
        let voice = Voice("n:1");
        let heard = |word| Some((word, "n:1".to_owned()));
        let selector = vec![("room\n".to_owned(), "a b".to_owned())];
        let parcel = Parcel {
            uid: "a b\n".to_owned(),
            only: Some(u64::MAX),
            selector: Some(selector.clone()),
            head: Head::Envelope,
            tail: b"tail\n".to_vec().into(),
        };
        let read = Word::Live {
            uid: "a b\n".to_owned(),
            only: Some(u64::MAX),
            selector: Some(selector.clone()),
            head: Head::Envelope,
            tail: b"tail\n",
        };
        assert_eq!(Word::parse(&voice.live(7, &parcel)), heard(read));
        let read = Word::All {
            selector: None,
            frame: b"\x81\x00",
        };
        assert_eq!(Word::parse(&voice.all(None, b"\x81\x00")), heard(read));
        let close = Doorbell {
            node_epoch: 7,
            from: "n:1".to_owned(),
            word: Said::Close {
                uid: "bob".to_owned(),
                session: "n:1_bob_20240102022812".to_owned(),
                code: 4410,
            },
        };
        let written = voice.close(7, "bob", "n:1_bob_20240102022812", 4410);
        let read = Word::Script(Box::new(close));
        assert_eq!(Word::parse(&written), heard(read));
        assert_eq!(
            Word::parse(&voice.probe(7)),
            heard(Word::Probe { epoch: 7 })
        );
        assert_eq!(Word::parse(&voice.nodes()), heard(Word::Nodes));
    }

    #[test]
    fn what_nobody_wrote_says_nothing() {
        for payload in [
            &b""[..],
            b"\n",
            b"1 live 7 n bob - e 5\nabc",
            b"1 live 7 n bob x e 0\nabc",
            b"1 live 7 n bob - z 0\nabc",
            b"1 all x n 0\n",
            b"9 nodes 0 n -\n",
            b"1 close 7 n bob s\n",
            b"\xff nodes 0 n -\n",
        ] {
            assert_eq!(Word::parse(payload), None, "{payload:?}");
        }
    }
}
