//! The roster: who is here, and on which connection. The one thing that reactors share.
//!
//! Owns: user id → sessions on this node, in shards by the hash of the id, each behind a short
//! lock that is taken at bind, unbind and look-up.
//! Invariants: one entry for each bound connection; the id text is shared with the connection
//! (and with the user's other sessions of the same name), never copied.
//! Layout: a shard keeps its entries densely in a slab and hashes four-byte slot numbers, so
//! that a growing table moves five bytes an entry, and its slack is five bytes, not thirty.

use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::parts::key::Key;
use crate::parts::pages::Pages;
use crate::protocol::identity::Identity;

const SHARDS: usize = 64;
/// Small, since each shard's last page is half empty.
const SHARD_PAGE_BYTES: usize = 4 << 10;

/// The connections of one user.
pub type Sessions = SmallVec<[Key; 4]>;

pub struct Roster {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

#[derive(Default)]
struct Shard {
    slots: HashTable<u32>,
    sessions: Pages<Session, SHARD_PAGE_BYTES>,
    /// Users and sessions that are online.
    users: usize,
    online: usize,
}

struct Session {
    identity: Identity,
    key: Key,
    since_secs: u32,
    ordinal: u16,
    /// False for one that said goodbye (loginStatus 0) and stays connected: it keeps its
    /// name here, and nobody finds it.
    is_online: bool,
}

/// What a connection keeps of its place in the roster.
pub struct Bound {
    /// Shared with an equal one that was there already.
    pub identity: Identity,
    /// 0, or the n that tells apart sessions of one user that began in the same second.
    pub ordinal: u16,
}

impl Default for Roster {
    fn default() -> Roster {
        Roster::for_sessions(0)
    }
}

impl Roster {
    /// With tables that need not grow until `count` sessions are here: five bytes each, which the
    /// system hands out as they are used, instead of moving entries under a lock.
    pub fn for_sessions(count: usize) -> Roster {
        let shard = || Shard {
            slots: HashTable::with_capacity(count / SHARDS),
            ..Shard::default()
        };
        Roster {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
        }
    }

    /// Enters the connection `key` of a user, online since `since_secs` (Unix time).
    pub fn bind(&self, identity: Identity, key: Key, since_secs: u32) -> Bound {
        let hash = self.hasher.hash_one(identity.uid());
        let mut shard = self.shard(hash);
        let mut same = None;
        let mut is_known = false;
        let mut taken: SmallVec<[u16; 8]> = SmallVec::new();
        for session in shard.of(hash, identity.uid()) {
            is_known |= session.is_online;
            if session.since_secs == since_secs {
                taken.push(session.ordinal);
            }
            if session.identity == identity {
                same = Some(session.identity.clone());
            }
        }
        let identity = same.unwrap_or(identity);
        let ordinal = (0..=u16::MAX)
            .find(|n| !taken.contains(n))
            .unwrap_or(u16::MAX);
        let entry = Session {
            identity: identity.clone(),
            key,
            since_secs,
            ordinal,
            is_online: true,
        };
        shard.users += usize::from(!is_known);
        shard.online += 1;
        let Shard {
            slots, sessions, ..
        } = &mut *shard;
        let slot = sessions.insert(entry) as u32;
        slots.insert_unique(hash, slot, |&slot| {
            sessions
                .get(slot as usize)
                .map_or(0, |s| self.hasher.hash_one(s.identity.uid()))
        });
        Bound { identity, ordinal }
    }

    /// Gives a bound connection another display name.
    pub fn rename(&self, identity: &Identity, key: Key) {
        let hash = self.hasher.hash_one(identity.uid());
        let mut shard = self.shard(hash);
        if let Some(slot) = shard.slot_of(hash, identity.uid(), key)
            && let Some(session) = shard.sessions.get_mut(slot as usize)
        {
            session.identity = identity.clone();
        }
    }

    /// Lets a connection that is in the roster be found, or not.
    pub fn set_online(&self, uid: &str, key: Key, is_online: bool) {
        let hash = self.hasher.hash_one(uid);
        let mut shard = self.shard(hash);
        let Some(slot) = shard.slot_of(hash, uid, key) else {
            return;
        };
        let was_there = shard.is_there(hash, uid);
        let Some(session) = shard.sessions.get_mut(slot as usize) else {
            return;
        };
        let was_online = std::mem::replace(&mut session.is_online, is_online);
        shard.online = shard.online + usize::from(is_online) - usize::from(was_online);
        let is_there = shard.is_there(hash, uid);
        shard.users = shard.users + usize::from(is_there) - usize::from(was_there);
    }

    /// Takes the connection `key` of `uid` out; nothing else of the user is touched.
    pub fn unbind(&self, uid: &str, key: Key) {
        let hash = self.hasher.hash_one(uid);
        let mut shard = self.shard(hash);
        let Some(slot) = shard.slot_of(hash, uid, key) else {
            return;
        };
        if let Ok(entry) = shard.slots.find_entry(hash, |&s| s == slot) {
            entry.remove();
        }
        let was_online = shard
            .sessions
            .remove(slot as usize)
            .is_some_and(|s| s.is_online);
        let is_gone = was_online && !shard.is_there(hash, uid);
        shard.online -= usize::from(was_online);
        shard.users -= usize::from(is_gone);
    }

    /// The connections of `uid` that are online, none if the user is not here.
    pub fn find(&self, uid: &str) -> Sessions {
        let hash = self.hasher.hash_one(uid);
        let shard = self.shard(hash);
        let mut keys = Sessions::new();
        for session in shard.of(hash, uid).filter(|session| session.is_online) {
            keys.push(session.key);
        }
        keys
    }

    /// Users online here, and their sessions.
    pub fn counts(&self) -> (usize, usize) {
        self.shards
            .iter()
            .map(unpoisoned)
            .fold((0, 0), |(users, sessions), shard| {
                (users + shard.users, sessions + shard.online)
            })
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table uses the top seven and the low bits of the hash: these are in between.
        unpoisoned(&self.shards[(hash >> 48) as usize % SHARDS])
    }
}

/// A panic aborts the process, so a poisoned lock is never seen.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn of<'a>(&'a self, hash: u64, uid: &'a str) -> impl Iterator<Item = &'a Session> {
        self.slots
            .iter_hash(hash)
            .filter_map(|&slot| self.sessions.get(slot as usize))
            .filter(move |session| session.identity.is(uid))
    }

    fn is_there(&self, hash: u64, uid: &str) -> bool {
        self.of(hash, uid).any(|session| session.is_online)
    }

    fn slot_of(&self, hash: u64, uid: &str, key: Key) -> Option<u32> {
        self.slots.iter_hash(hash).copied().find(|&slot| {
            self.sessions
                .get(slot as usize)
                .is_some_and(|s| s.key == key && s.identity.is(uid))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: &str) -> Identity {
        Identity::new(uid, "").unwrap()
    }

    #[test]
    fn sessions_are_found_until_they_are_unbound() {
        let roster = Roster::default();
        let (first, second) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
        roster.bind(user("bob"), first, 10);
        roster.bind(user("bob"), second, 11);
        roster.bind(user("eve"), Key::new(0, 2, 0), 11);
        let mut found = roster.find("bob");
        found.sort();
        assert_eq!(found.as_slice(), [first, second]);
        assert_eq!(roster.counts(), (2, 3));
        roster.unbind("bob", first);
        roster.unbind("bob", first);
        assert_eq!(roster.find("bob").as_slice(), [second]);
        roster.unbind("bob", second);
        assert!(roster.find("bob").is_empty());
        assert_eq!(roster.counts(), (1, 1));
    }

    #[test]
    fn one_that_said_goodbye_is_not_found_but_keeps_its_name() {
        let roster = Roster::default();
        let key = Key::new(0, 1, 0);
        roster.bind(user("bob"), key, 10);
        roster.set_online("bob", key, false);
        assert!(roster.find("bob").is_empty());
        assert_eq!(roster.counts(), (0, 0));
        assert_eq!(roster.bind(user("bob"), Key::new(0, 2, 0), 10).ordinal, 1);
        assert_eq!(roster.counts(), (1, 1));
        roster.set_online("bob", key, true);
        roster.set_online("bob", key, true);
        assert_eq!(roster.counts(), (1, 2));
        roster.unbind("bob", Key::new(0, 2, 0));
        roster.set_online("bob", key, false);
        roster.unbind("bob", key);
        assert_eq!(roster.counts(), (0, 0));
    }

    #[test]
    fn sessions_of_one_second_get_different_ordinals() {
        let roster = Roster::default();
        let ordinals: Vec<u16> = (0..3)
            .map(|i| roster.bind(user("bob"), Key::new(0, i, 0), 10).ordinal)
            .collect();
        assert_eq!(ordinals, [0, 1, 2]);
        roster.unbind("bob", Key::new(0, 1, 0));
        assert_eq!(roster.bind(user("bob"), Key::new(0, 9, 0), 10).ordinal, 1);
        assert_eq!(roster.bind(user("bob"), Key::new(0, 10, 0), 11).ordinal, 0);
    }

    #[test]
    fn many_users_survive_the_growth_of_the_tables() {
        let roster = Roster::default();
        for i in 0..20_000 {
            roster.bind(user(&format!("user-{i}")), Key::new(0, i, 0), 1);
        }
        for i in 0..20_000 {
            assert_eq!(
                roster.find(&format!("user-{i}")).as_slice(),
                [Key::new(0, i, 0)]
            );
        }
        for i in 0..20_000 {
            roster.unbind(&format!("user-{i}"), Key::new(0, i, 0));
        }
        assert_eq!(roster.counts(), (0, 0));
    }
}
