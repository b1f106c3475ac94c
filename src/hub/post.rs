//! Orders carried out: who is meant, what they get, and what the sender hears of it. One meaning
//! for the three families of messages and for the HTTP API.
//!
//! Owns: the watches of the node. What is stored is not carried out here, but by the store.
//! Neighbours: a [`Carrier`] brings frames to connections; each thread has its own way to do so.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::code::UserCodes;
use super::node::Node;
use super::push;
use super::roster::{Roster, Sessions};
use super::watches::Watches;
use crate::parts::key::Key;
use crate::protocol::envelope::{Body, Envelope, Head, MessageId, Text, Trigger};
use crate::protocol::identity::{ID_BYTES_MAX, Identity, is_id, not_an_id};
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::order::{
    Deliveries, Done, Fault, GroupView, Order, Reply, STORE_DOWN, Targets,
};
use crate::protocol::outbound;

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
    /// Notes that a limit has struck.
    fn strike(&mut self, limit: Limit);
}

/// Pairs of metadata that a connection must have.
pub type Selector = Vec<(String, String)>;

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
                self.online(&asked, cx, carrier).map(Done::Reply)
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
            let sessions = self.find(target);
            if sessions.is_empty() {
                deliveries.missing.push(target);
                continue;
            }
            let envelope = Envelope {
                from: sender.identity.uid(),
                ..from_client(Body::Raw(msg), cx, carrier)
            };
            match deliver(&sessions, &envelope, carrier) {
                Ok(id) => deliveries.accepted.push((target, id)),
                Err(Jammed) => deliveries.refused.push(target),
            }
        }
        Ok(deliveries)
    }

    /// A group as its members see it. Where it has changed, those that are online hear of it,
    /// all but the session `but`, which is answered.
    pub fn group(
        &self,
        id: &str,
        members: &[String],
        audience: Option<(&[String], Option<Key>)>,
        carrier: &mut impl Carrier,
    ) -> GroupView {
        let name = |uid: &String| match self.roster.identity(uid) {
            Some(identity) => identity.name().to_owned(),
            None => uid.clone(),
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
        }
        view
    }

    /// The connections of a user, or the one that a user code names.
    fn find(&self, target: &str) -> Sessions {
        if target.len() <= ID_BYTES_MAX {
            return self.roster.find(target);
        }
        let Some((key, uid)) = self.codes.read(target) else {
            return Sessions::new();
        };
        let mut sessions = self.roster.find(&uid);
        sessions.retain(|session| *session == key);
        sessions
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
        watched.map_err(|_| {
            carrier.strike(Limit::Watches);
            let max = cx.limits.watches_max;
            let message = format!("a connection watches {max} users at most");
            Fault::new(400, "").saying(message)
        })
    }

    /// Who of `uids` is online; where none are named, how many are.
    pub fn online(
        &self,
        uids: &[&str],
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<Reply, Fault> {
        check_targets(uids.len(), cx.limits, carrier)?;
        if uids.is_empty() {
            let (users, sessions) = self.roster.counts();
            let name = self.node.name.as_str();
            let counts = json!({"onlineNum": sessions, "users": users, "nodes": {name: sessions}});
            return Ok(Reply::ok(counts));
        }
        let online: serde_json::Map<String, Value> = uids
            .iter()
            .map(|uid| ((*uid).to_owned(), self.roster.is_online(uid).into()))
            .collect();
        Ok(Reply::ok(json!({ "online": online })))
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
