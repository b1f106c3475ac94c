//! Orders carried out: who is meant, what they get, and what the sender hears of it. One meaning
//! for the three families of messages and for the HTTP API.
//!
//! Owns: the watches of the node. What is stored is not carried out here, but by the store.
//! Neighbours: a [`Carrier`] brings frames to connections; each thread has its own way to do so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::code::UserCodes;
use super::node::Node;
use super::others::Others;
use super::push;
use super::roster::{Roster, SessionView, Sessions};
use super::watches::Watches;
use crate::parts::key::Key;
pub use crate::protocol::away::Selector;
use crate::protocol::away::{Elsewhere, Errand, Parcel, Unheard};
use crate::protocol::envelope::{Body, Envelope, Head, MessageId, Text, Trigger};
use crate::protocol::identity::{ID_BYTES_MAX, Identity, is_id, not_an_id};
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::order::{
    Deliveries, Done, Fault, GroupView, Order, Reply, STORE_DOWN, Targets,
};
use crate::protocol::outbound::{self, SessionId};

/// A queue on the way is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jammed;

/// What brings frames to connections.
pub trait Carrier {
    fn message_id(&mut self) -> MessageId;
    /// Brings what `write` appends, behind each receiver's own `head`, to all of `to`.
    fn carry(&mut self, to: &[Key], head: Head, write: &dyn Fn(&mut Vec<u8>))
    -> Result<(), Jammed>;
    /// Brings a whole frame to everybody who is online, or to those that `selector` matches.
    fn broadcast(&mut self, frame: Vec<u8>, selector: Option<Selector>) -> Result<(), Jammed>;
    /// Lets other nodes do something of which nothing is to be heard. Where they are too far
    /// behind it is lost.
    fn send_away(&mut self, errand: Errand);
    /// Notes that a limit has struck.
    fn strike(&mut self, limit: Limit);
}

/// Who gives an order.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    pub identity: &'a Identity,
    pub key: Key,
}

/// What surrounds an order.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    pub limits: &'a Limits,
    pub request_id: Option<&'a str>,
}

pub struct Post {
    pub roster: Roster,
    pub watches: Arc<Watches>,
    pub codes: UserCodes,
    pub node: Arc<Node>,
    /// None: there are none, and never will be.
    pub others: Option<Arc<Others>>,
}

impl Post {
    /// Does what `sender` wants of others.
    pub fn carry_out<'a>(
        &self,
        order: &Order<'a>,
        sender: Sender<'_>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<Done<'a>, Fault> {
        match order {
            Order::Send { to, msg } => self.send(to, msg, sender, cx, carrier).map(Done::Sent),
            Order::Online {
                uids,
                watch,
                unwatch,
            } => {
                self.watch(sender.key, watch, unwatch, cx, carrier)?;
                let asked = [uids.as_slice(), watch.as_slice()].concat();
                self.online(&asked, cx, carrier)
            }
            Order::Push { body } => {
                let from = Some(sender.identity.uid());
                Ok(push::carry_out(self, body.as_bytes(), from, cx, carrier))
            }
            // What is stored is not for us.
            Order::Chat { .. } | Order::GroupChat { .. } | Order::Group(_) => Err(STORE_DOWN),
        }
    }

    fn send<'a>(
        &self,
        to: &Targets<'a>,
        msg: &'a str,
        sender: Sender<'_>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<Deliveries<'a>, Fault> {
        check_targets(to.len(), cx.limits, carrier)?;
        let mut deliveries = Deliveries::default();
        // Named twice is meant once, or one frame could fill somebody's queue.
        let mut seen = HashSet::new();
        for target in to {
            if to.len() > 1 && !seen.insert(*target) {
                continue;
            }
            let Meant { sessions, away } = self.find(target);
            if sessions.is_empty() && away.is_none() {
                deliveries.missing.push(target);
                continue;
            }
            let envelope = Envelope {
                from: sender.identity.uid(),
                ..from_client(Body::Raw(msg), cx, carrier)
            };
            if let Some((uid, only)) = away {
                let parcel = parcel(uid, only, None, &envelope);
                let missing = sessions.is_empty().then_some(*target);
                deliveries.away.push((parcel, missing));
            }
            if sessions.is_empty() {
                continue;
            }
            match deliver(&sessions, &envelope, carrier) {
                Ok(id) => deliveries.accepted.push((target, id)),
                Err(Jammed) => deliveries.refused.push(target),
            }
        }
        Ok(deliveries)
    }

    /// A group as its members see it. Where it has changed, those that are online hear of it,
    /// all but the session `but`, which is answered. `elsewhere`: the sessions of others of the
    /// audience, or members, on other nodes.
    pub fn group(
        &self,
        id: &str,
        members: &[String],
        audience: Option<(&[String], Option<Key>)>,
        elsewhere: &HashMap<String, Vec<Elsewhere>>,
        carrier: &mut impl Carrier,
    ) -> GroupView {
        let name_elsewhere = |uid: &String| {
            let sessions = elsewhere.get(uid)?.iter();
            let newest = sessions.max_by_key(|of| (of.entry.since_secs, of.entry.ordinal))?;
            Some(newest.entry.uname.clone()).filter(|name| !name.is_empty())
        };
        let name = |uid: &String| match self.roster.identity(uid) {
            Some(identity) => identity.name().to_owned(),
            None => name_elsewhere(uid).unwrap_or_else(|| uid.clone()),
        };
        let view = GroupView {
            group_id: id.to_owned(),
            name_list: members.iter().map(name).collect(),
            user_id_list: members.to_vec(),
        };
        if let Some((audience, but)) = audience {
            let sessions: Vec<Key> = audience
                .iter()
                .flat_map(|uid| self.roster.find(uid))
                .filter(|key| Some(*key) != but)
                .collect();
            let write = |out: &mut Vec<u8>| outbound::group_text(&view, &mut Text(out));
            // Whoever is too far behind to hear it can ask; the carrier has counted it.
            let _ = carrier.carry(&sessions, Head::Bare, &write);
            let mut tail = Vec::new();
            write(&mut tail);
            let tail: Arc<[u8]> = tail.into();
            let parcel = |uid: &String| Parcel {
                uid: uid.clone(),
                only: None,
                selector: None,
                head: Head::Bare,
                tail: tail.clone(),
            };
            let is_unknown = self.others.is_some() && !self.has_directory();
            let is_away = |uid: &&String| is_unknown || elsewhere.contains_key(*uid);
            let away = audience.iter().filter(is_away);
            let parcels: Vec<Parcel> = away.map(parcel).collect();
            if !parcels.is_empty() {
                carrier.send_away(Errand::Carry(parcels));
            }
        }
        view
    }

    /// The connections of a user, or the one that a user code names.
    fn find(&self, target: &str) -> Meant {
        let has_others = self.others.is_some();
        if target.len() <= ID_BYTES_MAX {
            return Meant {
                sessions: self.roster.find(target),
                away: has_others.then(|| (target.to_owned(), None)),
            };
        }
        let Some((mark, uid)) = self.codes.read(target) else {
            return Meant::default();
        };
        let mut sessions = self.roster.find(&uid);
        sessions.retain(|session| *session == self.node.marked(mark));
        let is_elsewhere = has_others && sessions.is_empty();
        Meant {
            sessions,
            away: is_elsewhere.then_some((uid, Some(mark))),
        }
    }

    fn watch(
        &self,
        key: Key,
        watch: &[&str],
        unwatch: &[&str],
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<(), Fault> {
        if let Some(uid) = watch.iter().find(|uid| !is_id(uid)) {
            return Err(Fault::new(400, "").saying(not_an_id("watch", uid)));
        }
        self.watches.unwatch(key, unwatch);
        let watched = self.watches.watch(key, watch, cx.limits.watches_max);
        let watched = watched.map_err(|_| {
            carrier.strike(Limit::Watches);
            let max = cx.limits.watches_max;
            let message = format!("a connection watches {max} users at most");
            Fault::new(400, "").saying(message)
        });
        if self.has_directory() && !(watch.is_empty() && unwatch.is_empty()) {
            let changed = watch.iter().chain(unwatch);
            carrier.send_away(Errand::Watch(
                changed.map(|uid| (*uid).to_owned()).collect(),
            ));
        }
        watched
    }

    /// A session's name.
    pub fn name_of(&self, session: &SessionView) -> String {
        let id = SessionId {
            node: &self.node.name,
            uid: session.identity.uid(),
            since_secs: session.since_secs,
            ordinal: session.ordinal,
        };
        id.to_string()
    }

    /// Those of a user's sessions here that have one of these names.
    pub fn named(&self, uid: &str, names: &[String]) -> Sessions {
        let sessions = self.roster.sessions(uid);
        let named = sessions
            .iter()
            .filter(|of| names.contains(&self.name_of(of)));
        named.map(|session| session.key).collect()
    }

    /// It is known who is on which of several nodes.
    pub fn has_directory(&self) -> bool {
        let others = self.others.as_ref();
        others.is_some_and(|others| others.has_directory)
    }

    /// Who of `uids` is online; where none are named, how many are.
    pub fn online<'a>(
        &self,
        uids: &[&str],
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<Done<'a>, Fault> {
        check_targets(uids.len(), cx.limits, carrier)?;
        if uids.is_empty() {
            return Ok(Done::Reply(Reply::ok(self.counts())));
        }
        let mut known = Map::new();
        let mut asked = Vec::new();
        for uid in uids {
            let is_here = self.roster.is_online(uid);
            if is_here || !self.has_directory() {
                known.insert((*uid).to_owned(), is_here.into());
            } else {
                asked.push((*uid).to_owned());
            }
        }
        if asked.is_empty() {
            return Ok(Done::Reply(Reply::ok(json!({ "online": known }))));
        }
        let errand = Errand::Find(asked.clone());
        Ok(Done::Away(
            errand,
            Box::new(Unheard::Online { known, asked }),
        ))
    }

    /// How many sessions and users there are, on all nodes. A user on several counts on each.
    fn counts(&self) -> Value {
        let (mut users, mut sessions) = self.roster.counts();
        let mut nodes = Map::new();
        nodes.insert(self.node.name.clone(), sessions.into());
        let others = self.others.as_ref().map(|others| others.all());
        for node in others.iter().flat_map(|others| others.iter()) {
            users += node.users;
            sessions += node.sessions;
            nodes.insert(node.name.clone(), node.sessions.into());
        }
        json!({"onlineNum": sessions, "users": users, "nodes": nodes})
    }
}

/// Whom a target means.
#[derive(Default)]
struct Meant {
    sessions: Sessions,
    /// Who may be on other nodes as well, and which session of his alone is meant.
    away: Option<(String, Option<u64>)>,
}

/// An envelope for a user's sessions on other nodes.
pub fn parcel(
    uid: String,
    only: Option<u64>,
    selector: Option<Selector>,
    envelope: &Envelope<'_>,
) -> Parcel {
    let mut tail = Vec::new();
    envelope.write_tail(&mut tail);
    Parcel {
        uid,
        only,
        selector,
        head: envelope.head(),
        tail: tail.into(),
    }
}

/// What watchers hear of a user who came or went: the tail of an envelope.
pub fn write_presence(uid: &str, is_online: bool, id: MessageId, now_ms: u64, out: &mut Vec<u8>) {
    let msg = format!("{{\"event\":\"online\",\"userId\":\"{uid}\",\"online\":{is_online}}}");
    Envelope {
        active_ms: now_ms,
        from: "system",
        message_id: id,
        body: Body::Raw(&msg),
        msg_type: 0,
        request_id: None,
        trigger: Trigger::WebSocket,
    }
    .write_tail(out);
}

fn from_client<'a>(
    body: Body<'a>,
    cx: Circumstances<'a>,
    carrier: &mut impl Carrier,
) -> Envelope<'a> {
    Envelope {
        active_ms: cx.now_ms,
        from: "system",
        message_id: carrier.message_id(),
        body,
        msg_type: 1,
        request_id: cx.request_id,
        trigger: Trigger::WebSocket,
    }
}

/// Hands an envelope to `sessions`, and returns its id.
pub fn deliver(
    sessions: &[Key],
    envelope: &Envelope<'_>,
    carrier: &mut impl Carrier,
) -> Result<MessageId, Jammed> {
    let write = |out: &mut Vec<u8>| envelope.write_tail(out);
    carrier.carry(sessions, envelope.head(), &write)?;
    Ok(envelope.message_id)
}

fn check_targets(count: usize, limits: &Limits, carrier: &mut impl Carrier) -> Result<(), Fault> {
    if count <= limits.targets_max {
        return Ok(());
    }
    carrier.strike(Limit::Targets);
    let message = format!("more than {} users are named", limits.targets_max);
    Err(Fault::new(400, "").saying(message))
}
