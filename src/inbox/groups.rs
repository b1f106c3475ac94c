//! Groups: who is in them, and what is said to them.
//!
//! A message to a group is accepted when it stands in the group's log. Its members get it after
//! that, in the order of the log, each once however often the work is begun.

use super::accept::Accepted;
use super::records::{Entry, Group, GroupEntry, Held, Origin, decode, encode};
use super::rows::{self, Broken};
use super::{Books, Ring};
use crate::protocol::envelope::MessageId;
use crate::protocol::identity::is_id;

/// What holds for groups; part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRules {
    /// Groups that a user may be in.
    pub per_user_max: usize,
    pub members_max: usize,
    /// Users may join by themselves.
    pub is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("there is a group with this id")]
    Exists,
    #[error("there is no such group")]
    NotFound,
    #[error("only a member may do this")]
    NotMember,
    #[error("the group would have more members than it may")]
    Full,
    /// That user is in as many groups as he may be in.
    #[error("{0} is in as many groups as a user may be in")]
    TooMany(String),
    #[error("an id is 1 to 64 of [A-Za-z0-9_.@-], and a group has at least one member")]
    BadId,
    /// Somebody named is no user.
    #[error("{0:?} is no user id")]
    BadUser(String),
}

/// A change to a group, or a look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// Of the caller and `members`.
    Create {
        members: Vec<String>,
    },
    /// Adds `members`, or the caller where none are named.
    Join {
        members: Vec<String>,
    },
    Leave {
        uid: String,
    },
    Delete,
    /// Changes nothing.
    Look,
}

/// A message to a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupAccept {
    pub group: String,
    pub sender: String,
    pub msgid: Option<String>,
    pub entry: Entry,
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAccepted {
    New(MessageId),
    Again(MessageId),
    Conflict,
    Refused(GroupError),
}

impl Books<'_> {
    /// Changes the group `id` on behalf of `by`; without one it is the operator who asks. Returns
    /// who is in it then, or, of one that has ended, who was.
    pub fn change_group(
        &mut self,
        id: &str,
        by: Option<&str>,
        change: &GroupChange,
        rules: &GroupRules,
    ) -> Result<Result<Vec<String>, GroupError>, Broken> {
        if !is_id(id) {
            return Ok(Err(GroupError::BadId));
        }
        if let GroupChange::Create { members } | GroupChange::Join { members } = change
            && let Some(bad) = members.iter().find(|uid| !is_id(uid))
        {
            return Ok(Err(GroupError::BadUser(bad.clone())));
        }
        let found = self.group(id)?;
        let Some(mut group) = found else {
            return match change {
                GroupChange::Create { members } => {
                    let named = by.into_iter().chain(members.iter().map(String::as_str));
                    self.enter(id, Group::default(), named, rules)
                }
                _ => Ok(Err(GroupError::NotFound)),
            };
        };
        let is_member = |uid: &str| group.members.iter().any(|member| member == uid);
        match change {
            GroupChange::Create { .. } => Ok(Err(GroupError::Exists)),
            GroupChange::Join { members } => {
                let may = by.is_none_or(|by| {
                    is_member(by) || (rules.is_open && members.iter().all(|uid| uid == by))
                });
                if !may {
                    return Ok(Err(GroupError::NotMember));
                }
                let own = by.filter(|_| members.is_empty());
                let named = own.into_iter().chain(members.iter().map(String::as_str));
                self.enter(id, group, named, rules)
            }
            GroupChange::Leave { uid } => {
                if !is_member(uid) || by.is_some_and(|by| by != uid) {
                    return Ok(Err(GroupError::NotMember));
                }
                group.members.retain(|member| member != uid);
                self.rows.remove(&rows::member(uid, id))?;
                if group.members.is_empty() {
                    self.end(id)?;
                } else {
                    self.rows.put(&rows::group(id), &encode(&group))?;
                }
                Ok(Ok(group.members))
            }
            GroupChange::Delete => {
                if by.is_some_and(|by| !is_member(by)) {
                    return Ok(Err(GroupError::NotMember));
                }
                // What was accepted for its members is theirs.
                for number in self.open_work(id)? {
                    self.finish(id, number)?;
                }
                for uid in &group.members {
                    self.rows.remove(&rows::member(uid, id))?;
                }
                self.end(id)?;
                Ok(Ok(group.members))
            }
            GroupChange::Look => match by {
                Some(by) if !is_member(by) => Ok(Err(GroupError::NotMember)),
                _ => Ok(Ok(group.members)),
            },
        }
    }

    fn group(&self, id: &str) -> Result<Option<Group>, Broken> {
        let row = self.rows.get(&rows::group(id))?;
        row.map(|bytes| decode("group", &bytes)).transpose()
    }

    /// All of `named`, or nobody.
    fn enter<'n>(
        &mut self,
        id: &str,
        mut group: Group,
        named: impl Iterator<Item = &'n str>,
        rules: &GroupRules,
    ) -> Result<Result<Vec<String>, GroupError>, Broken> {
        let before = group.members.len();
        for uid in named {
            if group.members.iter().any(|member| member == uid) {
                continue;
            }
            if group.members.len() >= rules.members_max {
                return Ok(Err(GroupError::Full));
            }
            if self.groups_of(uid)?.len() >= rules.per_user_max {
                return Ok(Err(GroupError::TooMany(uid.to_owned())));
            }
            group.members.push(uid.to_owned());
        }
        if group.members.is_empty() {
            return Ok(Err(GroupError::BadId));
        }
        for uid in &group.members[before..] {
            self.rows.put(&rows::member(uid, id), &[])?;
        }
        self.rows.put(&rows::group(id), &encode(&group))?;
        Ok(Ok(group.members))
    }

    /// A group that nobody is in: another one may have its id, and takes over nothing.
    fn end(&mut self, id: &str) -> Result<(), Broken> {
        let own = inbox_of(id);
        self.rows.remove(&rows::group(id))?;
        for all in [
            rows::work_of(id),
            rows::group_log_of(id),
            rows::held_of(&own),
            rows::seen_of(&own),
            rows::pair_of(&own),
        ] {
            self.clear(&all, &rows::end_of(all.clone()))?;
        }
        Ok(())
    }

    /// Forgets what is old of the messages to a group; false if there is none.
    pub fn expire_group(&mut self, id: &str) -> Result<bool, Broken> {
        let Some(group) = self.group(id)? else {
            return Ok(false);
        };
        self.sweep_seen(&inbox_of(id), group.seq)?;
        Ok(true)
    }

    /// The groups of a user, sorted.
    pub fn groups_of(&self, uid: &str) -> Result<Vec<String>, Broken> {
        let from = rows::member_of(uid);
        let mut groups = Vec::new();
        self.rows
            .scan(&from, &rows::end_of(from.clone()), &mut |key, _| {
                groups.push(rows::last_id_of(key).to_owned());
                true
            })?;
        Ok(groups)
    }

    /// Groups behind `after`, sorted, at most `limit`.
    pub fn groups(&self, after: &str, limit: usize) -> Result<Vec<String>, Broken> {
        let from = match after {
            "" => rows::all::groups(),
            id => rows::end_of(rows::group(id)),
        };
        self.ids(&from, &rows::end_of(rows::all::groups()), limit)
    }

    /// Accepts a message to a group: from here on its members will get it.
    pub fn accept_for_group(&mut self, accept: &GroupAccept) -> Result<GroupAccepted, Broken> {
        let GroupAccept {
            group: id,
            sender,
            msgid,
            entry,
            origin,
        } = accept;
        let Some(mut group) = self.group(id)? else {
            return Ok(GroupAccepted::Refused(GroupError::NotFound));
        };
        // Before the sender's right to send: what was accepted once is not refused afterwards.
        let inbox = inbox_of(id);
        match self.seen_before(&inbox, sender, msgid.as_deref(), &entry.body)? {
            Some(Accepted::Again(id)) => return Ok(GroupAccepted::Again(id)),
            Some(_) => return Ok(GroupAccepted::Conflict),
            None => {}
        }
        if !group.members.contains(sender) {
            return Ok(GroupAccepted::Refused(GroupError::NotMember));
        }
        group.seq += 1;
        self.rows.put(&rows::group(id), &encode(&group))?;
        let logged = GroupEntry {
            entry: entry.clone(),
            sender: sender.clone(),
            origin: origin.clone(),
        };
        self.rows
            .put(&rows::group_log(id, group.seq), &encode(&logged))?;
        self.rows.put(&rows::work(id, group.seq), &[])?;
        self.remember(
            &inbox,
            sender,
            msgid.as_deref(),
            entry,
            group.seq,
            group.seq,
        )?;
        self.trim_seen(&inbox, group.seq)?;
        Ok(GroupAccepted::New(entry.id))
    }

    /// Does one piece of work: brings the oldest unfinished message of a group to its members,
    /// and says which group that was; the groups take turns, `behind` had the last one. None:
    /// nothing is unfinished.
    pub fn work(&mut self, behind: &str) -> Result<Option<String>, Broken> {
        let next = match self.first_work(&rows::end_of(rows::work_of(behind)))? {
            Some(next) => Some(next),
            None => self.first_work(&rows::all::work())?,
        };
        let Some((id, number)) = next else {
            return Ok(None);
        };
        self.finish(&id, number)?;
        Ok(Some(id))
    }

    /// The first unfinished message from the row `from` on.
    fn first_work(&self, from: &[u8]) -> Result<Option<(String, u64)>, Broken> {
        let mut first = None;
        self.rows
            .scan(from, &rows::end_of(rows::all::work()), &mut |key, _| {
                first = Some((rows::first_id_of(key).to_owned(), rows::number_of(key)));
                false
            })?;
        Ok(first)
    }

    fn finish(&mut self, id: &str, number: u64) -> Result<(), Broken> {
        let members = self.group(id)?.map(|group| group.members);
        let row = self.rows.get(&rows::group_log(id, number))?;
        if let (Some(members), Some(row)) = (members, row) {
            let logged: GroupEntry = decode("message of a group", &row)?;
            for uid in &members {
                self.hand_over(uid, &logged)?;
            }
        }
        self.rows.remove(&rows::work(id, number))?;
        self.rows.remove(&rows::group_log(id, number))
    }

    /// Puts a group's message into a member's inbox, unless it is there. One that is full gets a
    /// gap and hears of it: the group is not held up.
    fn hand_over(&mut self, uid: &str, logged: &GroupEntry) -> Result<(), Broken> {
        let GroupEntry {
            entry,
            sender,
            origin,
        } = logged;
        if self.rows.get(&rows::held(uid, entry.id))?.is_some() {
            return Ok(());
        }
        let mut head = self.open(uid)?;
        let row = encode(entry);
        let own = origin.as_ref().filter(|_| uid == sender);
        if let Some(origin) = own {
            self.know(&mut head, &origin.device);
        }
        if !self.make_room(uid, &mut head, row.len())? {
            let has_it = own.map(|origin| origin.device.as_str());
            self.miss(uid, &mut head, has_it);
            return self.save(uid, &mut head);
        }
        let seq = self.append(uid, &mut head, entry, &row)?;
        if let Some(origin) = own {
            let known = self.know(&mut head, &origin.device);
            known.above.push(seq);
            self.advance(uid, &mut head, &origin.device, 0)?;
            if let Some(Ring::Entry { but, .. }) = self.rings.last_mut() {
                *but = Some(origin.connection);
            }
            self.drop_passed(uid, &mut head)?;
        }
        self.save(uid, &mut head)?;
        let held = Held {
            seq,
            sender: sender.clone(),
            msgid: None,
            owes_notice: false,
        };
        self.rows.put(&rows::held(uid, entry.id), &encode(&held))?;
        self.trim_seen(uid, head.dropped)
    }

    fn open_work(&self, id: &str) -> Result<Vec<u64>, Broken> {
        let mut open = Vec::new();
        let from = rows::work_of(id);
        self.rows
            .scan(&from, &rows::end_of(from.clone()), &mut |key, _| {
                open.push(rows::number_of(key));
                true
            })?;
        Ok(open)
    }
}

/// Where a group remembers its messages, as an inbox does. No user has this name: an id holds no
/// colon.
fn inbox_of(id: &str) -> String {
    format!("group:{id}")
}
