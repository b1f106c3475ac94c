//! Groups of users on this node.
//!
//! Owns: group → members, in shards that every message to a group reads, and a book that only
//! changes and the operator's questions need.
//! Invariants: a group has at least one member, each once, in the order of joining; shards and
//! book agree whenever the book is free; an id's text exists once, shared by all who name it.
//! Locks: a change holds the book from beginning to end, so changes come one after the other; a
//! shard is locked only to put a finished list in its place. The book comes first, then a shard.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::fast::RandomState;
use foldhash::{HashMap, HashSet};

use crate::parts::room;
use crate::protocol::identity::is_id;

const SHARDS: usize = 64;

/// Who is in a group, in the order of joining. Copied when it changes: whoever got it keeps it.
pub type Members = Arc<[Arc<str>]>;

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
    /// A user who is named has no proper id.
    #[error("{0:?} is no user id")]
    BadUser(String),
}

/// Groups by id: what a message to one of them reads.
type Shard = RwLock<HashMap<Arc<str>, Members>>;

pub struct Groups {
    hasher: RandomState,
    shards: Box<[Shard]>,
    book: Mutex<Book>,
}

/// What is not asked for by every message.
#[derive(Default)]
struct Book {
    ids: BTreeSet<Arc<str>>,
    /// By user, the groups that he is in, sorted. The key is the text that all members' lists share.
    users: HashMap<Arc<str>, Vec<Arc<str>>>,
    memberships: usize,
}

impl Default for Groups {
    fn default() -> Groups {
        Groups {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            book: Mutex::default(),
        }
    }
}

impl Groups {
    /// Makes a group of its creator, if there is one, and `others`; who is named twice is in it
    /// once. All of them or nobody: on an error nothing has changed.
    pub fn create(
        &self,
        id: &str,
        by: Option<&str>,
        others: &[&str],
        rules: &GroupRules,
    ) -> Result<Members, GroupError> {
        let named = distinct(by.into_iter().chain(others.iter().copied()))?;
        if !is_id(id) || named.is_empty() {
            return Err(GroupError::BadId);
        }
        let mut book = self.book();
        if book.ids.contains(id) {
            return Err(GroupError::Exists);
        }
        self.admit(&mut book, id, Members::default(), &named, rules)
    }

    /// Adds users to a group: all of them or nobody. Those who are members already stay where
    /// they are, and no limit counts them again.
    ///
    /// With `by` None it is the operator who adds. A user who names nobody else joins himself,
    /// which takes an open group; one who names others must be a member, open or not.
    pub fn join(
        &self,
        id: &str,
        by: Option<&str>,
        whom: &[&str],
        rules: &GroupRules,
    ) -> Result<Members, GroupError> {
        let is_alone = by.is_some_and(|by| whom.iter().all(|&uid| uid == by));
        let named = distinct(
            by.into_iter()
                .filter(|_| is_alone)
                .chain(whom.iter().copied()),
        )?;
        let mut book = self.book();
        let present = self.members(id).ok_or(GroupError::NotFound)?;
        let may_add = match by {
            None => true,
            Some(by) => book.is_in(by, id) || (is_alone && rules.is_open),
        };
        if !may_add {
            return Err(GroupError::NotMember);
        }
        self.admit(&mut book, id, present, &named, rules)
    }

    /// Takes `uid` out and returns those who remain. With its last member a group is gone.
    pub fn leave(&self, id: &str, uid: &str) -> Result<Members, GroupError> {
        let mut book = self.book();
        let present = self.members(id).ok_or(GroupError::NotFound)?;
        if !book.strike(uid, id) {
            return Err(GroupError::NotMember);
        }
        let remaining: Members = present
            .iter()
            .filter(|member| &***member != uid)
            .cloned()
            .collect();
        if remaining.is_empty() {
            self.remove(&mut book, id);
        } else {
            self.put(book.text_of(id), remaining.clone());
        }
        Ok(remaining)
    }

    /// Removes a group and returns who was in it.
    pub fn delete(&self, id: &str) -> Result<Members, GroupError> {
        let mut book = self.book();
        let members = self.members(id).ok_or(GroupError::NotFound)?;
        for uid in members.iter() {
            book.strike(uid, id);
        }
        self.remove(&mut book, id);
        Ok(members)
    }

    /// Who is in the group, if there is one.
    pub fn members(&self, id: &str) -> Option<Members> {
        self.shard(id)
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    }

    /// The groups that `uid` is in, sorted.
    pub fn of_user(&self, uid: &str) -> Vec<String> {
        let book = self.book();
        book.groups_of(uid)
            .iter()
            .map(|id| id.to_string())
            .collect()
    }

    /// Ids of groups behind `after`, sorted, at most `limit`.
    pub fn ids(&self, after: &str, limit: usize) -> Vec<String> {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let book = self.book();
        let ids = book.ids.range::<str, _>(behind).take(limit);
        ids.map(|id| id.to_string()).collect()
    }

    /// Groups, and memberships in all of them.
    pub fn counts(&self) -> (usize, usize) {
        let book = self.book();
        (book.ids.len(), book.memberships)
    }

    /// Puts the newcomers among `named` behind those who are `present`, if the rules allow all of
    /// them.
    fn admit(
        &self,
        book: &mut Book,
        id: &str,
        present: Members,
        named: &[&str],
        rules: &GroupRules,
    ) -> Result<Members, GroupError> {
        let newcomers = || named.iter().copied().filter(|uid| !book.is_in(uid, id));
        let count = newcomers().count();
        if count == 0 {
            return Ok(present);
        }
        if present.len() + count > rules.members_max {
            return Err(GroupError::Full);
        }
        if let Some(uid) = newcomers().find(|uid| book.groups_of(uid).len() >= rules.per_user_max) {
            return Err(GroupError::TooMany(uid.to_owned()));
        }
        let id = book.text_of(id);
        let mut members = Vec::with_capacity(present.len() + count);
        members.extend(present.iter().cloned());
        members.extend(named.iter().filter_map(|uid| book.enter(uid, &id)));
        let members = Members::from(members);
        book.ids.insert(id.clone());
        self.put(id, members.clone());
        Ok(members)
    }

    fn put(&self, id: Arc<str>, members: Members) {
        self.shard(&id)
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, members);
    }

    fn remove(&self, book: &mut Book, id: &str) {
        book.ids.remove(id);
        let mut shard = self
            .shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        shard.remove(id);
        room::give_back(&mut shard);
    }

    fn shard(&self, id: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    /// A panic aborts the process, so a poisoned lock is never seen.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn groups_of(&self, uid: &str) -> &[Arc<str>] {
        self.users.get(uid).map_or(&[], Vec::as_slice)
    }

    fn is_in(&self, uid: &str, id: &str) -> bool {
        place(self.groups_of(uid), id).is_ok()
    }

    /// The one text of a group's id.
    fn text_of(&self, id: &str) -> Arc<str> {
        self.ids.get(id).cloned().unwrap_or_else(|| Arc::from(id))
    }

    /// Enters a newcomer and returns the one text of the user's id; None for a member.
    fn enter(&mut self, uid: &str, id: &Arc<str>) -> Option<Arc<str>> {
        let uid = match self.users.get_key_value(uid) {
            Some((uid, _)) => uid.clone(),
            None => Arc::from(uid),
        };
        let groups = self.users.entry(uid.clone()).or_default();
        let at = place(groups, id).err()?;
        groups.insert(at, id.clone());
        self.memberships += 1;
        Some(uid)
    }

    /// False if `uid` is not in the group.
    fn strike(&mut self, uid: &str, id: &str) -> bool {
        let Some(groups) = self.users.get_mut(uid) else {
            return false;
        };
        let Ok(at) = place(groups, id) else {
            return false;
        };
        groups.remove(at);
        if groups.is_empty() {
            self.users.remove(uid);
            room::give_back(&mut self.users);
        }
        self.memberships -= 1;
        true
    }
}

/// Where `id` is among the sorted, or where it would be.
fn place(groups: &[Arc<str>], id: &str) -> Result<usize, usize> {
    groups.binary_search_by(|other| (**other).cmp(id))
}

/// The users named, each once and in order. Errors: one of them has no proper id.
fn distinct<'a>(uids: impl Iterator<Item = &'a str>) -> Result<Vec<&'a str>, GroupError> {
    let mut seen = HashSet::default();
    let mut named = Vec::new();
    for uid in uids {
        if !is_id(uid) {
            return Err(GroupError::BadUser(uid.to_owned()));
        }
        if seen.insert(uid) {
            named.push(uid);
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests;
