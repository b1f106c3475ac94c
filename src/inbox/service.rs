//! Requests to a store as values, and what is answered.
//!
//! Whoever serves them takes a batch, carries out each request within one transaction, commits,
//! and only then answers and rings. If the transaction fails, nothing of it happened.

use super::groups::{GroupAccept, GroupAccepted, GroupChange, GroupError, GroupRules};
use super::read::{Attach, Attached, Page};
use super::records::{Entry, EntryBody};
use super::rows::Broken;
use super::{Accept, Accepted, Acknowledged, Books, Cancelled, Reach};
use crate::protocol::envelope::MessageId;
use crate::protocol::order::StoredPush;

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Accept(Box<Accept>),
    /// One message each for several.
    AcceptAll(Vec<Accept>),
    /// The same, at a later time (Unix milliseconds).
    Schedule {
        due_ms: u64,
        accepts: Vec<Accept>,
    },
    Cancel(MessageId),
    AcceptForGroup(Box<GroupAccept>),
    Group {
        id: String,
        by: Option<String>,
        change: GroupChange,
        rules: GroupRules,
    },
    Groups {
        after: String,
        limit: usize,
    },
    GroupsOf {
        uid: String,
    },
    Attach(Box<Attach>),
    /// What a device has not got behind `after`.
    Pull {
        uid: String,
        device: String,
        after: u64,
        limit: usize,
    },
    /// What an inbox holds behind `after`.
    Look {
        uid: String,
        after: u64,
        limit: usize,
    },
    Acknowledge {
        uid: String,
        device: String,
        reach: Reach,
    },
    /// A device was here, and found no inbox.
    Remember {
        uid: String,
        device: String,
    },
    /// A session has ended, for a store that is also the directory of several nodes.
    Unbind {
        uid: String,
        session: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Accepted(Accepted),
    /// In the order in which they were asked for.
    AllAccepted(Vec<Accepted>),
    Cancelled(Cancelled),
    ForGroup(GroupAccepted),
    Group(Result<Vec<String>, GroupError>),
    Names(Vec<String>),
    Attached(Box<Attached>),
    Page(Box<Page>),
    Acknowledged(Acknowledged),
    Done,
    /// The store did not do it: nothing of it happened.
    Down,
}

impl Request {
    /// `id`: makes a new message id.
    pub fn of_push(push: StoredPush, now_ms: u64, mut id: impl FnMut() -> MessageId) -> Request {
        let accepts = push
            .to
            .iter()
            .map(|uid| Accept {
                to: uid.clone(),
                sender: push.from.clone(),
                msgid: push.msgid.clone(),
                entry: Entry {
                    id: id().at(now_ms),
                    at_ms: now_ms,
                    from: push.from.clone(),
                    request_id: Some(push.request_id.clone()),
                    is_http: push.is_http,
                    body: EntryBody::Raw {
                        msg: push.msg.clone(),
                    },
                },
            })
            .collect();
        match push.due_ms {
            Some(due_ms) => Request::Schedule { due_ms, accepts },
            None => Request::AcceptAll(accepts),
        }
    }

    /// It changes nothing that anybody was promised: asked again, it says the same.
    pub fn is_a_look(&self) -> bool {
        matches!(
            self,
            Request::Attach(_)
                | Request::Pull { .. }
                | Request::Look { .. }
                | Request::Groups { .. }
                | Request::GroupsOf { .. }
                | Request::Acknowledge {
                    reach: Reach::Silently { .. },
                    ..
                }
        )
    }
}

impl Books<'_> {
    pub fn serve(&mut self, request: &Request) -> Result<Outcome, Broken> {
        Ok(match request {
            Request::Accept(accept) => Outcome::Accepted(self.accept(accept)?),
            Request::AcceptAll(accepts) => Outcome::AllAccepted(
                accepts
                    .iter()
                    .map(|accept| self.accept(accept))
                    .collect::<Result<_, _>>()?,
            ),
            Request::Schedule { due_ms, accepts } => Outcome::AllAccepted(
                accepts
                    .iter()
                    .map(|accept| self.schedule(accept, *due_ms))
                    .collect::<Result<_, _>>()?,
            ),
            Request::Cancel(id) => Outcome::Cancelled(self.cancel(*id)?),
            Request::AcceptForGroup(accept) => Outcome::ForGroup(self.accept_for_group(accept)?),
            Request::Group {
                id,
                by,
                change,
                rules,
            } => Outcome::Group(self.change_group(id, by.as_deref(), change, rules)?),
            Request::Groups { after, limit } => Outcome::Names(self.groups(after, *limit)?),
            Request::GroupsOf { uid } => Outcome::Names(self.groups_of(uid)?),
            Request::Attach(attach) => Outcome::Attached(Box::new(self.attach(attach)?)),
            Request::Pull {
                uid,
                device,
                after,
                limit,
            } => Outcome::Page(Box::new(self.pull(uid, device, *after, *limit)?)),
            Request::Look { uid, after, limit } => {
                Outcome::Page(Box::new(self.look(uid, *after, *limit)?))
            }
            Request::Acknowledge { uid, device, reach } => {
                Outcome::Acknowledged(self.acknowledge(uid, device, reach)?)
            }
            Request::Remember { uid, device } => {
                self.remember_device(uid, device)?;
                Outcome::Done
            }
            // One node needs no directory.
            Request::Unbind { .. } => Outcome::Done,
        })
    }
}
