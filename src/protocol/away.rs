//! What concerns users on other nodes: what is brought to them there, what is asked of them, and
//! what is heard back.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::envelope::{Head, MessageId};
use super::order::{Fault, Reply};

/// Pairs of metadata that a connection must have.
pub type Selector = Vec<(String, String)>;

/// The other nodes cannot be asked.
pub const CLUSTER_DOWN: Fault =
    Fault::new(503, "the other nodes cannot be reached").because("cluster_down");

/// Something for other nodes to do or to say.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Messages for sessions elsewhere. Heard: who of them was there.
    Carry(Vec<Parcel>),
    /// A whole frame for everybody elsewhere, or for those that `selector` matches.
    Broadcast {
        frame: Arc<[u8]>,
        selector: Option<Selector>,
    },
    /// Where users have sessions elsewhere.
    Find(Vec<String>),
    /// The end of a user's sessions elsewhere, or of the one that is named. Heard: their names.
    Kick {
        uid: String,
        session: Option<String>,
    },
    /// Somebody here wants to hear of these users' coming and going, or nobody does any more.
    Watch(Vec<String>),
    /// A user's sessions here are called otherwise than they were.
    Rename(String),
}

impl Errand {
    /// What it holds of messages, about.
    pub fn bytes(&self) -> usize {
        match self {
            Errand::Carry(parcels) => parcels.iter().map(|parcel| parcel.tail.len()).sum(),
            Errand::Broadcast { frame, .. } => frame.len(),
            Errand::Find(_) | Errand::Kick { .. } | Errand::Watch(_) | Errand::Rename(_) => 0,
        }
    }
}

/// A message for a user's sessions on other nodes: `tail` behind each receiver's own head.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub uid: String,
    /// Only for the session of this mark.
    pub only: Option<u64>,
    pub selector: Option<Selector>,
    pub head: Head,
    pub tail: Arc<[u8]>,
}

/// What came of an errand.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// For each parcel: somebody was there.
    Carried(Vec<bool>),
    /// For each user that was asked for.
    Found(Vec<Vec<Elsewhere>>),
    /// The names of sessions that were told to end.
    Kicked(Vec<String>),
    /// It was not done.
    Lost,
}

/// A session on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub node: String,
    pub entry: DirectoryEntry,
}

/// A session, as the directory of the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The session's name.
    pub session: String,
    /// Unix time.
    pub since_secs: u32,
    pub ordinal: u16,
    /// The connection's name, another one in each process.
    pub mark: u64,
    /// `default` where it has none.
    pub device: String,
    /// Empty where the user gave no name.
    pub uname: String,
}

/// What was found of `uids`, by user; without those who are nowhere else.
pub fn by_user(uids: &[String], found: Vec<Vec<Elsewhere>>) -> HashMap<String, Vec<Elsewhere>> {
    let found = uids.iter().cloned().zip(found);
    found.filter(|(_, places)| !places.is_empty()).collect()
}

/// An answer that waits for what is heard of others.
#[derive(Clone, Debug, PartialEq)]
pub enum Unheard {
    /// Of a push to those who are connected.
    Push(Addressed),
    /// Who is online: what is known here, and who else is asked for.
    Online {
        known: Map<String, Value>,
        asked: Vec<String>,
    },
}

/// What came of a push to those who are connected.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Addressed {
    pub sent: Map<String, Value>,
    /// Nobody is here; in brackets the id that the message has, if somebody is elsewhere.
    pub unknown: Vec<(String, MessageId)>,
    /// They are here, and the way to them is full.
    pub refused: Vec<String>,
    /// To whom parcels went, in their order.
    pub away: Vec<String>,
}

impl Unheard {
    pub fn reply(self, heard: Heard) -> Reply {
        match (self, heard) {
            (Unheard::Push(addressed), Heard::Carried(was_there)) => addressed.reply(&was_there),
            (Unheard::Online { mut known, asked }, Heard::Found(found)) => {
                let is_there = found.iter().map(|sessions| (!sessions.is_empty()).into());
                known.extend(asked.into_iter().zip(is_there));
                Reply::ok(json!({ "online": known }))
            }
            (Unheard::Push(addressed), _) if addressed.unknown.is_empty() => addressed.reply(&[]),
            (Unheard::Push(addressed), _) => {
                let unasked: Vec<_> = addressed.unknown.into_iter().map(|(uid, _)| uid).collect();
                let content = json!({
                    "reason": "cluster_down", "sent": addressed.sent, "notSent": unasked,
                });
                Reply::from(CLUSTER_DOWN).with(content)
            }
            _ => CLUSTER_DOWN.into(),
        }
    }
}

impl Addressed {
    /// `was_there`: for each of those who got parcels, whether anybody was elsewhere.
    pub fn reply(self, was_there: &[bool]) -> Reply {
        let Addressed {
            mut sent,
            unknown,
            refused,
            away,
        } = self;
        let is_elsewhere = |uid: &String| {
            let mut heard = away.iter().zip(was_there);
            heard.any(|(to, was_there)| to == uid && *was_there)
        };
        let mut missing = Vec::new();
        for (uid, id) in unknown {
            if is_elsewhere(&uid) {
                sent.insert(uid, id.to_string().into());
            } else {
                missing.push(uid);
            }
        }
        if !refused.is_empty() {
            let content =
                json!({"reason": "busy", "sent": sent, "notSent": refused, "unknown": missing});
            return Reply::busy().with(content);
        }
        if missing.is_empty() {
            Reply::ok(sent.into())
        } else {
            Reply::unknown(missing)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> MessageId {
        MessageId([byte; 16])
    }

    fn addressed() -> Addressed {
        let mut sent = Map::new();
        sent.insert("here".to_owned(), id(1).to_string().into());
        let unknown = ["there", "nowhere"].map(str::to_owned);
        Addressed {
            sent,
            unknown: unknown.into_iter().zip([id(2), id(3)]).collect(),
            refused: Vec::new(),
            away: ["here", "there", "nowhere"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn who_is_elsewhere_counts_as_reached_and_who_is_nowhere_is_named() {
        let reply = addressed().reply(&[false, true, false]);
        assert_eq!((reply.status, reply.content), (-501, json!(["nowhere"])));
        let reply = addressed().reply(&[false, true, true]);
        let ids = [1, 2, 3].map(|byte| id(byte).to_string());
        let all = json!({"here": ids[0], "there": ids[1], "nowhere": ids[2]});
        assert_eq!((reply.status, reply.content), (200, all));
    }

    #[test]
    fn where_the_others_cannot_be_asked_it_is_told_who_was_reached_here() {
        let reply = Unheard::Push(addressed()).reply(Heard::Lost);
        assert_eq!(reply.status, 503);
        let sent = json!({"here": id(1).to_string()});
        let content =
            json!({"reason": "cluster_down", "sent": sent, "notSent": ["there", "nowhere"]});
        assert_eq!(reply.content, content);
        let all_here = Addressed {
            unknown: Vec::new(),
            ..addressed()
        };
        assert_eq!(Unheard::Push(all_here).reply(Heard::Lost).status, 200);
    }

    #[test]
    fn who_is_online_is_known_here_or_found_elsewhere() {
        let online = || Unheard::Online {
            known: Map::from_iter([("a".to_owned(), true.into())]),
            asked: ["b", "c"].map(str::to_owned).into(),
        };
        let there = Elsewhere {
            node: "n".to_owned(),
            entry: DirectoryEntry {
                session: "n_b_20240102022812".to_owned(),
                since_secs: 1,
                ordinal: 0,
                mark: 7,
                device: "default".to_owned(),
                uname: String::new(),
            },
        };
        let found = Heard::Found(vec![vec![there], Vec::new()]);
        let content = json!({"online": {"a": true, "b": true, "c": false}});
        assert_eq!(online().reply(found).content, content);
        assert_eq!(online().reply(Heard::Lost).status, 503);
    }
}
