//! Orders carried out: who is meant, what they get, and what the sender hears of it. One meaning
//! for the three families of messages and for the HTTP API.
//!
//! Owns: the groups and the watches of the node.
//! Neighbours: a [`Carrier`] brings frames to connections; each thread has its own way to do so.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::code::UserCodes;
use super::groups::{GroupError, GroupRules, Groups, Members};
use super::node::Node;
use super::push;
use super::roster::{Roster, Sessions};
use super::watches::Watches;
use crate::parts::key::Key;
use crate::protocol::envelope::{Body, Envelope, Head, MessageId, Party, Text, Trigger};
use crate::protocol::identity::{ID_BYTES_MAX, Identity, is_id, not_an_id};
use crate::protocol::limits::{Limit, Limits};
use crate::protocol::order::{
    ChatText, Deliveries, Done, Fault, GroupOrder, GroupView, Order, Reply, Targets,
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
    pub is_online: bool,
}

/// What surrounds an order.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// Unix milliseconds.
    pub now_ms: u64,
    pub limits: &'a Limits,
    /// Anybody may join a group.
    pub groups_are_open: bool,
    pub request_id: Option<&'a str>,
}

pub struct Post {
    pub roster: Roster,
    pub watches: Arc<Watches>,
    pub groups: Groups,
    pub codes: UserCodes,
    pub node: Arc<Node>,
}

const BUSY: Fault = Fault::new(503, "the node is busy, try again").because("busy");
const NOBODY: Fault = Fault::new(404, "the receiver is not here");
const BAD_GROUP_ID: Fault = Fault::new(400, "a group id is 1 to 64 of [A-Za-z0-9_.@-]");

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
            Order::Chat { to, text } => self
                .chat(to, *text, sender, cx, carrier)
                .map(Done::Accepted),
            Order::GroupChat { group, text } => self
                .group_chat(group, *text, sender, cx, carrier)
                .map(Done::Accepted),
            Order::Group(order) => self
                .group(order, Some(sender), cx, carrier)
                .map(Done::Group),
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
                let reply = push::carry_out(self, body.as_bytes(), from, cx, carrier);
                Ok(Done::Reply(reply))
            }
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

    fn chat(
        &self,
        to: &str,
        text: ChatText<'_>,
        sender: Sender<'_>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<MessageId, Fault> {
        if !is_id(to) {
            return Err(Fault::new(400, "toMessageId is not a user id"));
        }
        let sessions = self.roster.find(to);
        if sessions.is_empty() {
            return Err(NOBODY);
        }
        let from = sender.party();
        let envelope = from_client(Body::Chat { from, text }, cx, carrier);
        deliver(&sessions, &envelope, carrier).map_err(|Jammed| BUSY)
    }

    fn group_chat(
        &self,
        group: &str,
        text: ChatText<'_>,
        sender: Sender<'_>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<MessageId, Fault> {
        let members = self.groups.members(group).ok_or(GroupError::NotFound)?;
        let own = sender.identity.uid();
        if !members.iter().any(|uid| &**uid == own) {
            return Err(GroupError::NotMember.into());
        }
        let sessions = self.sessions_of(&members, Some(sender.key));
        let from = sender.party();
        let envelope = from_client(Body::GroupChat { from, group, text }, cx, carrier);
        deliver(&sessions, &envelope, carrier).map_err(|Jammed| BUSY)
    }

    /// Changes a group, or looks at it; without a sender it is the operator who asks. Members
    /// that are online hear of changes, all but the sender's own session, which is answered.
    pub fn group(
        &self,
        order: &GroupOrder<'_>,
        sender: Option<Sender<'_>>,
        cx: Circumstances<'_>,
        carrier: &mut impl Carrier,
    ) -> Result<GroupView, Fault> {
        let rules = GroupRules {
            per_user_max: cx.limits.groups_per_user_max,
            members_max: cx.limits.group_members_max,
            is_open: cx.groups_are_open,
        };
        let by = sender.map(|sender| sender.identity.uid());
        let (id, outcome) = match order {
            GroupOrder::Create { id, members } => {
                (*id, self.groups.create(id, by, members, &rules))
            }
            GroupOrder::Join { id, members } => (*id, self.groups.join(id, by, members, &rules)),
            GroupOrder::Leave { id } => (*id, self.groups.leave(id, by.unwrap_or_default())),
            GroupOrder::Members { id } => return self.members(id, by),
        };
        let members = outcome.map_err(|error| group_fault(error, carrier))?;
        let view = self.view(id, &members);
        self.tell(&members, &view, sender.map(|sender| sender.key), carrier);
        Ok(view)
    }

    /// The operator takes a user out of a group.
    pub fn take_out(
        &self,
        group: &str,
        uid: &str,
        carrier: &mut impl Carrier,
    ) -> Result<GroupView, Fault> {
        let remaining = self.groups.leave(group, uid)?;
        let view = self.view(group, &remaining);
        self.tell(&remaining, &view, None, carrier);
        Ok(view)
    }

    /// The operator ends a group: its members hear of a group without members.
    pub fn end_group(&self, group: &str, carrier: &mut impl Carrier) -> Result<GroupView, Fault> {
        let members = self.groups.delete(group)?;
        let view = self.view(group, &Members::from([]));
        self.tell(&members, &view, None, carrier);
        Ok(view)
    }

    fn members(&self, id: &str, by: Option<&str>) -> Result<GroupView, Fault> {
        let members = self.groups.members(id).ok_or(GroupError::NotFound)?;
        if let Some(by) = by
            && !members.iter().any(|uid| &**uid == by)
        {
            return Err(GroupError::NotMember.into());
        }
        Ok(self.view(id, &members))
    }

    fn tell(
        &self,
        members: &Members,
        view: &GroupView,
        but: Option<Key>,
        carrier: &mut impl Carrier,
    ) {
        let sessions = self.sessions_of(members, but);
        let write = |out: &mut Vec<u8>| outbound::group_text(view, &mut Text(out));
        // Whoever is too far behind to hear it can ask; the carrier has counted it.
        let _ = carrier.carry(&sessions, Head::Bare, &write);
    }

    fn view(&self, id: &str, members: &Members) -> GroupView {
        let name = |uid: &Arc<str>| match self.roster.identity(uid) {
            Some(identity) => identity.name().to_owned(),
            None => uid.to_string(),
        };
        GroupView {
            group_id: id.to_owned(),
            name_list: members.iter().map(name).collect(),
            user_id_list: members.iter().map(|uid| uid.to_string()).collect(),
        }
    }

    fn sessions_of(&self, members: &Members, but: Option<Key>) -> Vec<Key> {
        members
            .iter()
            .flat_map(|uid| self.roster.find(uid))
            .filter(|key| Some(*key) != but)
            .collect()
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

impl<'a> Sender<'a> {
    fn party(&self) -> Party<'a> {
        Party {
            uid: self.identity.uid(),
            name: self.identity.name(),
            is_online: self.is_online,
        }
    }
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

fn group_fault(error: GroupError, carrier: &mut impl Carrier) -> Fault {
    match error {
        GroupError::Full => carrier.strike(Limit::GroupMembers),
        GroupError::TooMany(_) => carrier.strike(Limit::GroupsPerUser),
        _ => {}
    }
    error.into()
}

impl From<GroupError> for Fault {
    fn from(error: GroupError) -> Fault {
        match error {
            GroupError::Exists => Fault::new(409, "the group exists").because("group_exists"),
            GroupError::NotFound => Fault::new(404, "there is no such group"),
            GroupError::NotMember => Fault::new(403, "not a member").because("not_member"),
            GroupError::Full => {
                Fault::new(409, "the group has no room for more members").because("group_full")
            }
            GroupError::TooMany(uid) => Fault::new(409, "")
                .because("too_many_groups")
                .saying(format!("{uid} is in as many groups as a user may be")),
            GroupError::BadId => BAD_GROUP_ID,
            GroupError::BadUser(uid) => Fault::new(400, "").saying(not_an_id("userIdList", &uid)),
        }
    }
}
