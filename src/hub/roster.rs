//! The roster: who is here, and on which connection. The one thing that reactors share.
//!
//! Owns: user id → sessions on this node, in shards by the hash of the id, each behind a short
//! lock that is taken at bind, unbind and look-up.
//! Invariants: one entry for each bound connection; the id text is shared with the connection
//! (and with the user's other sessions of the same name), never copied; a user has no more
//! sessions than the policy allows, at no moment.
//! Layout: a shard keeps its entries densely in a slab and hashes four-byte slot numbers, so
//! that a growing table moves five bytes an entry, and its slack is five bytes, not thirty. What
//! only some connections have (device, metadata) stands aside and costs the others nothing.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::parts::key::Key;
use crate::parts::pages::Pages;
use crate::protocol::identity::Identity;
use crate::protocol::metadata::{ANONYMOUS, Metadata};

const SHARDS: usize = 64;
/// Small, since each shard's last page is half empty.
const SHARD_PAGE_BYTES: usize = 4 << 10;

/// The connections of one user.
pub type Sessions = SmallVec<[Key; 4]>;

/// Told that a user came (true) or went, in the order in which it happened. It is called under
/// the lock of the user's shard: it must be short, and must not call the roster.
pub type OnPresence = Arc<dyn Fn(&str, bool) + Send + Sync>;

pub struct Roster {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
    on_presence: Option<OnPresence>,
}

#[derive(Default)]
struct Shard {
    slots: HashTable<u32>,
    sessions: Pages<Session, SHARD_PAGE_BYTES>,
    extras: HashMap<Key, Arc<Extra>, RandomState>,
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
    has_extra: bool,
}

/// What some connections say of themselves.
#[derive(Debug, Default)]
pub struct Extra {
    /// None: an anonymous connection of the device `default`.
    pub device: Option<Box<str>>,
    pub metadata: Metadata,
}

/// How many sessions a user may have.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Only the newest.
    pub is_single: bool,
    pub sessions_max: usize,
}

/// What a connection keeps of its place in the roster.
pub struct Bound {
    /// Shared with an equal one that was there already.
    pub identity: Identity,
    /// 0, or the n that tells apart sessions of one user that began in the same second.
    pub ordinal: u16,
    /// Sessions that had to go for it: they are in the roster no longer, and are to be closed.
    pub replaced: Sessions,
    /// One of them, because the user had too many.
    pub is_one_too_many: bool,
}

/// How far somebody has come who goes through all sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    shard: usize,
    slot: usize,
}

/// What a user's sessions mean for one more.
#[derive(Default)]
struct Others {
    /// One of them is online.
    was_there: bool,
    /// The first that is free among those that began in the same second.
    ordinal: u16,
    /// An equal identity, to be shared.
    same: Option<Identity>,
    /// Slots of those that make room.
    going: SmallVec<[u32; 4]>,
    /// One of these goes because there are too many.
    is_one_too_many: bool,
}

/// A session as others may see it.
#[derive(Clone, Debug)]
pub struct SessionView {
    pub key: Key,
    pub identity: Identity,
    pub since_secs: u32,
    pub ordinal: u16,
    pub is_online: bool,
    pub extra: Option<Arc<Extra>>,
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
            on_presence: None,
        }
    }

    pub fn observed_by(self, on_presence: OnPresence) -> Roster {
        Roster {
            on_presence: Some(on_presence),
            ..self
        }
    }

    /// Enters the connection `key` of a user, online since `since_secs` (Unix time). Sessions of
    /// the same device name go, and the oldest where `policy` allows no more.
    pub fn bind(
        &self,
        identity: Identity,
        key: Key,
        since_secs: u32,
        extra: Option<Arc<Extra>>,
        policy: Policy,
    ) -> Bound {
        let hash = self.hasher.hash_one(identity.uid());
        let mut shard = self.shard(hash);
        let device = extra.as_ref().and_then(|extra| extra.device.as_deref());
        let Others {
            was_there,
            ordinal,
            same,
            going,
            is_one_too_many,
        } = shard.others(hash, &identity, since_secs, device, policy);
        let replaced = going
            .iter()
            .filter_map(|&slot| shard.take_out(hash, slot))
            .map(|session| session.key)
            .collect();
        let identity = same.unwrap_or(identity);
        let entry = Session {
            identity: identity.clone(),
            key,
            since_secs,
            ordinal,
            is_online: true,
            has_extra: extra.is_some(),
        };
        if let Some(extra) = extra {
            shard.extras.insert(key, extra);
        }
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
        self.note_presence(&mut shard, identity.uid(), was_there, true);
        Bound {
            identity,
            ordinal,
            replaced,
            is_one_too_many,
        }
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
        self.note_presence(&mut shard, uid, was_there, is_there);
    }

    /// Takes the connection `key` of `uid` out; nothing else of the user is touched.
    pub fn unbind(&self, uid: &str, key: Key) {
        let hash = self.hasher.hash_one(uid);
        let mut shard = self.shard(hash);
        let Some(slot) = shard.slot_of(hash, uid, key) else {
            return;
        };
        let was_there = shard.is_there(hash, uid);
        shard.take_out(hash, slot);
        let is_there = shard.is_there(hash, uid);
        self.note_presence(&mut shard, uid, was_there, is_there);
    }

    fn note_presence(&self, shard: &mut Shard, uid: &str, was_there: bool, is_there: bool) {
        if was_there == is_there {
            return;
        }
        shard.users = shard.users + usize::from(is_there) - usize::from(was_there);
        if let Some(on_presence) = &self.on_presence {
            on_presence(uid, is_there);
        }
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

    /// Those of them whose metadata match all pairs of `selector`.
    pub fn find_matching(&self, uid: &str, selector: &[(String, String)]) -> Sessions {
        let hash = self.hasher.hash_one(uid);
        let shard = self.shard(hash);
        shard
            .of(hash, uid)
            .filter(|session| session.is_online && session.has_extra)
            .filter(|session| {
                let extra = shard.extras.get(&session.key);
                extra.is_some_and(|extra| extra.metadata.matches(selector))
            })
            .map(|session| session.key)
            .collect()
    }

    /// The names of the devices on which `uid` is online, each once; `default` where one has none.
    pub fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        let hash = self.hasher.hash_one(uid);
        let shard = self.shard(hash);
        let mut names: SmallVec<[String; 2]> = SmallVec::new();
        for session in shard.of(hash, uid).filter(|session| session.is_online) {
            let name = shard.device(session).unwrap_or(ANONYMOUS);
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    pub fn is_online(&self, uid: &str) -> bool {
        let hash = self.hasher.hash_one(uid);
        self.shard(hash).is_there(hash, uid)
    }

    /// How a user who is online is called: by the newest of the sessions.
    pub fn identity(&self, uid: &str) -> Option<Identity> {
        let hash = self.hasher.hash_one(uid);
        let shard = self.shard(hash);
        let newest = shard
            .of(hash, uid)
            .filter(|session| session.is_online)
            .max_by_key(|session| session.age());
        newest.map(|session| session.identity.clone())
    }

    /// All sessions of a user, the oldest first, and those that said goodbye among them.
    pub fn sessions(&self, uid: &str) -> Vec<SessionView> {
        let hash = self.hasher.hash_one(uid);
        let shard = self.shard(hash);
        let mut views: Vec<SessionView> = shard
            .of(hash, uid)
            .map(|session| shard.view(session))
            .collect();
        views.sort_by_key(|view| (view.since_secs, view.ordinal));
        views
    }

    /// Some of the sessions behind `place`, `count` at most; none where there are no more. Who
    /// comes meanwhile may be left out.
    pub fn page(&self, place: &mut Place, count: usize) -> Vec<SessionView> {
        let mut views = Vec::new();
        while place.shard < SHARDS && views.len() < count {
            let shard = unpoisoned(&self.shards[place.shard]);
            while place.slot < shard.sessions.slots() && views.len() < count {
                let session = shard.sessions.get(place.slot);
                views.extend(session.map(|session| shard.view(session)));
                place.slot += 1;
            }
            if place.slot == shard.sessions.slots() {
                (place.shard, place.slot) = (place.shard + 1, 0);
            }
        }
        views
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
pub(super) fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Grows from session to session of one user.
    fn age(&self) -> (u32, u16) {
        (self.since_secs, self.ordinal)
    }
}

impl Shard {
    fn of<'a>(&'a self, hash: u64, uid: &'a str) -> impl Iterator<Item = &'a Session> {
        self.slots_of(hash, uid).map(|(_, session)| session)
    }

    fn slots_of<'a>(&'a self, hash: u64, uid: &'a str) -> impl Iterator<Item = (u32, &'a Session)> {
        self.slots
            .iter_hash(hash)
            .filter_map(|&slot| Some((slot, self.sessions.get(slot as usize)?)))
            .filter(move |(_, session)| session.identity.is(uid))
    }

    fn view(&self, session: &Session) -> SessionView {
        SessionView {
            key: session.key,
            identity: session.identity.clone(),
            since_secs: session.since_secs,
            ordinal: session.ordinal,
            is_online: session.is_online,
            extra: self.extras.get(&session.key).cloned(),
        }
    }

    fn is_there(&self, hash: u64, uid: &str) -> bool {
        self.of(hash, uid).any(|session| session.is_online)
    }

    fn slot_of(&self, hash: u64, uid: &str, key: Key) -> Option<u32> {
        self.slots_of(hash, uid)
            .find(|(_, session)| session.key == key)
            .map(|(slot, _)| slot)
    }

    /// What the user's other sessions mean for one more of them, which begins at `since_secs`
    /// on `device`.
    fn others(
        &self,
        hash: u64,
        identity: &Identity,
        since_secs: u32,
        device: Option<&str>,
        policy: Policy,
    ) -> Others {
        let mut others = Others::default();
        let mut staying = SmallVec::<[_; 8]>::new();
        for (slot, session) in self.slots_of(hash, identity.uid()) {
            others.was_there |= session.is_online;
            if session.since_secs == since_secs {
                others.ordinal = others.ordinal.max(session.ordinal.saturating_add(1));
            }
            if session.identity == *identity {
                others.same = Some(session.identity.clone());
            }
            let is_named_so = || device.is_some() && self.device(session) == device;
            if policy.is_single || is_named_so() {
                others.going.push(slot);
            } else {
                staying.push((session.age(), slot));
            }
        }
        let surplus = (staying.len() + 1).saturating_sub(policy.sessions_max.max(1));
        if surplus > 0 {
            staying.sort_unstable();
            let oldest = staying.iter().take(surplus);
            others.going.extend(oldest.map(|(_, slot)| *slot));
            others.is_one_too_many = true;
        }
        others
    }

    fn device(&self, session: &Session) -> Option<&str> {
        let extra = self.extras.get(&session.key).filter(|_| session.has_extra);
        extra.and_then(|extra| extra.device.as_deref())
    }

    fn take_out(&mut self, hash: u64, slot: u32) -> Option<Session> {
        self.slots.find_entry(hash, |&s| s == slot).ok()?.remove();
        let session = self.sessions.remove(slot as usize)?;
        self.online -= usize::from(session.is_online);
        if session.has_extra {
            self.extras.remove(&session.key);
        }
        Some(session)
    }
}

#[cfg(test)]
mod tests;
