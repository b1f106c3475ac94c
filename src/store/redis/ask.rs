//! Requests as calls of scripts, and what the scripts answer as outcomes.

use std::sync::Arc;

use redis::{Cmd, Value};

use super::names::{self, CHAT, NOTICE, OTHER};
use super::scripts::Script;
use super::{Doorbell, Place};
use crate::inbox::records::{Entry, EntryBody, decode, encode};
use crate::inbox::rows::Broken;
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{
    Accept, Accepted, Acknowledged, Attached, Cancelled, GroupAccepted, GroupChange, GroupError,
    InboxRules, Page, Reach, hash,
};
use crate::protocol::envelope::MessageId;
use crate::protocol::identity::is_id;

/// The largest whole number that Lua tells from its neighbours.
const EXACT_MAX: u64 = 1 << 53;
const ID_BYTES: usize = 16;

/// What all calls of a batch have in common.
pub struct Scene<'a> {
    pub prefix: &'a str,
    /// Which life of which server is asked.
    pub run: &'a str,
    /// For inboxes of which it is not known what they have lost.
    pub fresh_epoch: u64,
    pub now_ms: u64,
    pub rules: &'a InboxRules,
    pub place: &'a Place,
}

impl Scene<'_> {
    pub fn call(&self, script: Script) -> Call {
        let rules = self.rules;
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script.sha()).arg(0).arg(self.prefix).arg(self.run);
        for number in [
            self.fresh_epoch,
            self.now_ms,
            u64::from(rules.entries_max),
            rules.bytes_max,
            u64::from(rules.notices_max),
            rules.devices_max as u64,
            rules.ttl_ms,
            rules.seen_ms,
            u64::from(rules.seen_max),
        ] {
            cmd.arg(number);
        }
        let place = self.place;
        let routing = if place.is_broadcast { "b" } else { "d" };
        cmd.arg(&place.node).arg(place.epoch).arg(routing);
        Call(cmd)
    }

    /// The calls that a request is made of, in their order.
    pub fn calls(&self, request: &Request) -> Vec<Cmd> {
        match request {
            Request::Accept(accept) => vec![self.accept(accept)],
            Request::AcceptAll(accepts) => accepts.iter().map(|one| self.accept(one)).collect(),
            Request::Schedule { due_ms, accepts } => accepts
                .iter()
                .map(|one| self.message(Script::Schedule, one).with(due_ms).0)
                .collect(),
            Request::Cancel(id) => vec![self.call(Script::Cancel).with(&id.0[..]).0],
            Request::AcceptForGroup(accept) => {
                let call = self
                    .call(Script::GroupAccept)
                    .with(&accept.group)
                    .with(&accept.sender)
                    .optional(accept.msgid.as_deref())
                    .entry(&accept.entry);
                let origin = accept.origin.as_ref();
                let device = origin.map(|origin| origin.device.as_str());
                let connection = origin.map_or(0, |origin| origin.connection);
                vec![call.optional(device).with(connection).0]
            }
            Request::Group {
                id,
                by,
                change,
                rules,
            } => {
                if refused(id, change).is_some() {
                    return Vec::new();
                }
                let call = self.call(Script::GroupChange).with(id);
                let call = call.optional(by.as_deref()).with(word(change));
                let call = call.with(rules.per_user_max).with(rules.members_max);
                let call = call.with(u8::from(rules.is_open));
                vec![match change {
                    GroupChange::Create { members } | GroupChange::Join { members } => {
                        members.iter().fold(call, Call::with).0
                    }
                    GroupChange::Leave { uid } => call.with(uid).0,
                    GroupChange::Delete | GroupChange::Look => call.0,
                }]
            }
            Request::Groups { after, limit } => {
                let from = match after.as_str() {
                    "" => "-".to_owned(),
                    after => format!("({after}"),
                };
                let mut cmd = redis::cmd("ZRANGEBYLEX");
                cmd.arg(format!("{}{}", self.prefix, names::GROUPS));
                cmd.arg(from).arg("+");
                let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
                cmd.arg("LIMIT").arg(0).arg(limit);
                vec![cmd]
            }
            Request::GroupsOf { uid } => {
                let mut cmd = redis::cmd("ZRANGE");
                cmd.arg(names::key(self.prefix, names::GROUPS_OF, uid));
                cmd.arg(0).arg(-1);
                vec![cmd]
            }
            Request::Attach(attach) => {
                let call = self.call(Script::Attach).with(&attach.uid);
                let call = call.with(&attach.device).with(attach.page);
                let call = match attach.cursor {
                    Some(cursor) => call.with(cursor.epoch).with(cursor.seq),
                    None => call.with("").with(""),
                };
                let call = match &attach.entry {
                    Some(entry) => call.with(&entry.session).with(self.value_of(entry)),
                    None => call.with("").with(""),
                };
                vec![call.with(attach.sessions_max.max(1)).0]
            }
            Request::Pull {
                uid,
                device,
                after,
                limit,
            } => {
                let call = self.call(Script::Pull).with(uid).with(device);
                vec![call.with((*after).min(EXACT_MAX)).with(limit).0]
            }
            Request::Look { uid, after, limit } => {
                let call = self.call(Script::Look).with(uid);
                vec![call.with((*after).min(EXACT_MAX)).with(limit).0]
            }
            Request::Acknowledge { uid, device, reach } => {
                let call = self.call(Script::Acknowledge).with(uid).with(device);
                vec![match reach {
                    Reach::Messages(ids) => {
                        let ids = ids.iter().map(|id| &id.0[..]);
                        ids.fold(call.with("messages"), Call::with).0
                    }
                    Reach::UpTo { epoch, seq } => call.with("cursor").with(epoch).with(seq).0,
                    Reach::Silently { seq } => call.with("silently").with(seq).0,
                }]
            }
            Request::Remember { uid, device } => {
                vec![self.call(Script::Remember).with(uid).with(device).0]
            }
            Request::Unbind { uid, session } => {
                vec![self.call(Script::Unbind).with(uid).with(session).0]
            }
        }
    }

    fn accept(&self, accept: &Accept) -> Cmd {
        self.message(Script::Accept, accept).0
    }

    fn message(&self, script: Script, accept: &Accept) -> Call {
        self.call(script)
            .with(&accept.to)
            .with(&accept.sender)
            .optional(accept.msgid.as_deref())
            .entry(&accept.entry)
    }
}

/// A call of a script, with its own arguments so far.
pub struct Call(pub Cmd);

impl Call {
    pub(super) fn with(mut self, argument: impl redis::ToRedisArgs) -> Call {
        self.0.arg(argument);
        self
    }

    fn optional(self, text: Option<&str>) -> Call {
        match text {
            Some(text) => self.with(format!("={text}")),
            None => self.with(""),
        }
    }

    fn entry(self, entry: &Entry) -> Call {
        let kind = match entry.body {
            EntryBody::Chat { .. } => CHAT,
            EntryBody::Delivered { .. } => NOTICE,
            EntryBody::Raw { .. } | EntryBody::GroupChat { .. } => OTHER,
        };
        let hash = hash(&entry.body);
        self.with(&hash[..]).with(kind).with(encode(entry))
    }
}

fn word(change: &GroupChange) -> &'static str {
    match change {
        GroupChange::Create { .. } => "create",
        GroupChange::Join { .. } => "join",
        GroupChange::Leave { .. } => "leave",
        GroupChange::Delete => "delete",
        GroupChange::Look => "look",
    }
}

/// What needs no look into the store.
fn refused(id: &str, change: &GroupChange) -> Option<GroupError> {
    if !is_id(id) {
        return Some(GroupError::BadId);
    }
    let (GroupChange::Create { members } | GroupChange::Join { members }) = change else {
        return None;
    };
    let bad = members.iter().find(|uid| !is_id(uid))?;
    Some(GroupError::BadUser(bad.clone()))
}

/// What a script answers has two parts: the answer, and what rings on this node.
pub fn open(value: Value) -> Option<(Value, Vec<Doorbell>)> {
    let [answer, rings] = list(value)?;
    let rings = items(rings)?;
    let doorbells = rings.iter().map(|ring| Doorbell::parse(bytes(ring)?));
    Some((answer, doorbells.collect::<Option<_>>()?))
}

/// False: the answer comes from Redis itself.
pub(super) fn is_scripted(request: &Request) -> bool {
    !matches!(request, Request::Groups { .. } | Request::GroupsOf { .. })
}

/// What a request came to, by the answers to its calls.
pub fn outcome(request: &Request, answers: Vec<Value>) -> Result<Outcome, Broken> {
    if let Request::Group { id, change, .. } = request
        && let Some(error) = refused(id, change)
    {
        return Ok(Outcome::Group(Err(error)));
    }
    let mut answers = answers.into_iter();
    if let Request::AcceptAll(_) | Request::Schedule { .. } = request {
        let accepted: Option<Vec<_>> = answers.map(accepted).collect();
        return accepted.map(Outcome::AllAccepted).ok_or_else(unread);
    }
    let answer = answers.next().unwrap_or(Value::Nil);
    read(request, answer).ok_or_else(unread)
}

fn read(request: &Request, answer: Value) -> Option<Outcome> {
    Some(match request {
        Request::Accept(_) => Outcome::Accepted(accepted(answer)?),
        Request::AcceptAll(_) | Request::Schedule { .. } => return None,
        Request::Cancel(_) => Outcome::Cancelled(match number(&answer)? {
            names::CANCELLED => Cancelled::Yes,
            names::TOO_LATE => Cancelled::TooLate,
            names::UNKNOWN => Cancelled::Unknown,
            _ => return None,
        }),
        Request::AcceptForGroup(_) => Outcome::ForGroup(accepted_for_group(answer)?),
        Request::Group { .. } => Outcome::Group(group(answer)?),
        Request::Groups { .. } | Request::GroupsOf { .. } => Outcome::Names(texts(answer)?),
        Request::Attach(_) => {
            let [epoch, head_seq, low, is_known, page, replaced] = list(answer)?;
            Outcome::Attached(Box::new(Attached {
                epoch: natural(&epoch)?,
                head_seq: natural(&head_seq)?,
                low: natural(&low)?,
                page: read_page(page)?,
                is_known: natural(&is_known)? == 1,
                replaced: texts(replaced)?,
            }))
        }
        Request::Pull { .. } | Request::Look { .. } => Outcome::Page(Box::new(read_page(answer)?)),
        Request::Acknowledge { .. } => {
            let [unknown, fits, low, above] = list(answer)?;
            Outcome::Acknowledged(Acknowledged {
                unknown: items(unknown)?.iter().map(id).collect::<Option<_>>()?,
                fits: natural(&fits)? == 1,
                low: natural(&low)?,
                above: naturals(above)?,
            })
        }
        Request::Remember { .. } | Request::Unbind { .. } => Outcome::Done,
    })
}

fn accepted(answer: Value) -> Option<Accepted> {
    let answer = items(answer)?;
    Some(match number(answer.first()?)? {
        names::NEW => Accepted::New(id(answer.get(1)?)?),
        names::AGAIN => Accepted::Again(id(answer.get(1)?)?),
        names::CONFLICT => Accepted::Conflict,
        names::FULL => Accepted::Full,
        _ => return None,
    })
}

fn accepted_for_group(answer: Value) -> Option<GroupAccepted> {
    let answer = items(answer)?;
    Some(match number(answer.first()?)? {
        names::NEW => GroupAccepted::New(id(answer.get(1)?)?),
        names::AGAIN => GroupAccepted::Again(id(answer.get(1)?)?),
        names::CONFLICT => GroupAccepted::Conflict,
        names::NOT_FOUND => GroupAccepted::Refused(GroupError::NotFound),
        names::NOT_MEMBER => GroupAccepted::Refused(GroupError::NotMember),
        _ => return None,
    })
}

fn group(answer: Value) -> Option<Result<Vec<String>, GroupError>> {
    let [code, named] = list(answer)?;
    let mut named = texts(named)?;
    Some(match number(&code)? {
        names::DONE => Ok(named),
        names::EXISTS => Err(GroupError::Exists),
        names::NOT_FOUND => Err(GroupError::NotFound),
        names::NOT_MEMBER => Err(GroupError::NotMember),
        names::CROWDED => Err(GroupError::Full),
        names::TOO_MANY => Err(GroupError::TooMany(named.pop()?)),
        names::BAD_ID => Err(GroupError::BadId),
        _ => return None,
    })
}

fn read_page(answer: Value) -> Option<Page> {
    let [
        until,
        head_seq,
        epoch,
        low,
        offered,
        resync,
        told,
        passed,
        rows,
    ] = list(answer)?;
    let rows = items(rows)?;
    let entries = rows.chunks_exact(2).map(|pair| {
        let entry = decode("entry", bytes(&pair[1])?).ok()?;
        Some((natural(&pair[0])?, Arc::new(entry)))
    });
    Some(Page {
        entries: entries.collect::<Option<_>>()?,
        passed: naturals(passed)?,
        until: natural(&until)?,
        low: natural(&low)?,
        head_seq: natural(&head_seq)?,
        epoch: natural(&epoch)?,
        offered: natural(&offered)?,
        resync: natural(&resync)? == 1,
        told: match told {
            Value::Nil => None,
            seq => Some(natural(&seq)?),
        },
    })
}

pub fn unread() -> Broken {
    Broken("Redis answers what no script of this version says".to_owned())
}

pub fn items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        _ => None,
    }
}

pub fn list<const N: usize>(value: Value) -> Option<[Value; N]> {
    items(value)?.try_into().ok()
}

/// What comes in pairs: a hash, in either form that a server has for it.
pub fn pairs(value: Value) -> Option<Vec<(Value, Value)>> {
    if let Value::Map(pairs) = value {
        return Some(pairs);
    }
    let mut flat = items(value)?.into_iter();
    Some(std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect())
}

pub fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

pub fn natural(value: &Value) -> Option<u64> {
    u64::try_from(number(value)?).ok()
}

fn naturals(value: Value) -> Option<Vec<u64>> {
    items(value)?.iter().map(natural).collect()
}

pub fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn id(value: &Value) -> Option<MessageId> {
    let bytes: [u8; ID_BYTES] = bytes(value)?.try_into().ok()?;
    Some(MessageId(bytes))
}

pub fn texts(value: Value) -> Option<Vec<String>> {
    let text = |value: &Value| String::from_utf8(bytes(value)?.to_vec()).ok();
    items(value)?.iter().map(text).collect()
}
