//! Which connections want to know when a user comes or goes.
//!
//! Owns: connection → users it watches, and user → connections that watch him, each in shards
//! behind short locks.
//! Invariants: both sides hold the same watches, and the counter is never below their number.
//! Locks: a connection's shard first, then a user's, one at a time and nothing after that.
//! `watchers` takes a user's shard alone. Nothing is called out of here, so whatever lock a
//! caller holds, there is no circle.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::parts::key::Key;
use crate::parts::room;

const SHARDS: usize = 64;

/// The connections that watch one user.
pub type Watchers = SmallVec<[Key; 4]>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more users than one connection may watch")]
pub struct TooManyWatches;

/// By connection, the ids of the users it watches, sorted.
type Watched = HashMap<Key, Vec<Arc<str>>>;
/// By user, who watches. A tree: all the world may watch one user, and leave at once.
type Watching = HashMap<Arc<str>, BTreeSet<Key>>;

pub struct Watches {
    hasher: RandomState,
    /// Raised before a watch is entered and lowered after it is taken out.
    count: AtomicUsize,
    by_key: Box<[Mutex<Watched>]>,
    by_uid: Box<[Mutex<Watching>]>,
}

impl Default for Watches {
    fn default() -> Watches {
        Watches {
            hasher: RandomState::default(),
            count: AtomicUsize::new(0),
            by_key: (0..SHARDS).map(|_| Mutex::default()).collect(),
            by_uid: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Watches {
    /// Lets `key` watch all of `uids`, or none if it would watch more than `max` then. Those that
    /// it watches already count once.
    ///
    /// Watch first, and look into the roster after that: who comes in between is told of twice,
    /// and nobody is missed.
    pub fn watch(&self, key: Key, uids: &[&str], max: usize) -> Result<(), TooManyWatches> {
        let mut shard = self.shard_of_key(key);
        let watched = shard.get(&key).map_or(&[][..], Vec::as_slice);
        let mut fresh: Vec<&str> = uids
            .iter()
            .copied()
            .filter(|uid| place(watched, uid).is_err())
            .collect();
        fresh.sort_unstable();
        fresh.dedup();
        if fresh.is_empty() {
            return Ok(());
        }
        if watched.len() + fresh.len() > max {
            return Err(TooManyWatches);
        }
        self.count.fetch_add(fresh.len(), Relaxed);
        let watched = shard.entry(key).or_default();
        watched.reserve_exact(fresh.len());
        watched.extend(fresh.into_iter().map(|uid| self.enter(uid, key)));
        watched.sort_unstable();
        Ok(())
    }

    /// Ends the watches of `key` on `uids`; those that it does not watch are passed over.
    pub fn unwatch(&self, key: Key, uids: &[&str]) {
        if self.is_empty() {
            return;
        }
        let mut shard = self.shard_of_key(key);
        let Some(watched) = shard.get_mut(&key) else {
            return;
        };
        for uid in uids {
            if let Ok(at) = place(watched, uid) {
                self.strike(&watched.remove(at), key);
            }
        }
        if watched.is_empty() {
            shard.remove(&key);
            room::give_back(&mut shard);
        }
    }

    /// Ends all watches of a connection that is gone, and returns whom it watched.
    pub fn forget(&self, key: Key) -> Vec<Arc<str>> {
        // Its own watches it sees without fail: they were entered by the thread that is here now.
        if self.is_empty() {
            return Vec::new();
        }
        let mut shard = self.shard_of_key(key);
        let watched = shard.remove(&key).unwrap_or_default();
        for uid in &watched {
            self.strike(uid, key);
        }
        room::give_back(&mut shard);
        watched
    }

    /// Who is to be told of `uid`. Cheap while nobody watches anybody.
    ///
    /// Ask after the roster was changed: then a connection that watched first and found the old
    /// state in the roster is among these, since the roster's lock came between.
    pub fn watchers(&self, uid: &str) -> Watchers {
        if self.is_empty() {
            return Watchers::new();
        }
        self.shard_of_uid(uid)
            .get(uid)
            .map(|watching| watching.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Everybody who is watched.
    pub fn watched(&self) -> Vec<Arc<str>> {
        let shards = self.by_uid.iter().map(unpoisoned);
        shards
            .flat_map(|shard| shard.keys().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Watches in all.
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a watcher at the user, and returns the one text of that user's id.
    fn enter(&self, uid: &str, key: Key) -> Arc<str> {
        let mut shard = self.shard_of_uid(uid);
        let uid = match shard.get_key_value(uid) {
            Some((uid, _)) => uid.clone(),
            None => Arc::from(uid),
        };
        shard.entry(uid.clone()).or_default().insert(key);
        uid
    }

    fn strike(&self, uid: &str, key: Key) {
        let mut shard = self.shard_of_uid(uid);
        if let Some(watching) = shard.get_mut(uid) {
            watching.remove(&key);
            if watching.is_empty() {
                shard.remove(uid);
                room::give_back(&mut shard);
            }
        }
        drop(shard);
        self.count.fetch_sub(1, Relaxed);
    }

    fn shard_of_key(&self, key: Key) -> MutexGuard<'_, Watched> {
        unpoisoned(&self.by_key[self.hasher.hash_one(key) as usize % SHARDS])
    }

    fn shard_of_uid(&self, uid: &str) -> MutexGuard<'_, Watching> {
        unpoisoned(&self.by_uid[self.hasher.hash_one(uid) as usize % SHARDS])
    }
}

/// Where `uid` is among the sorted, or where it would be.
fn place(watched: &[Arc<str>], uid: &str) -> Result<usize, usize> {
    watched.binary_search_by(|other| (**other).cmp(uid))
}

/// A panic aborts the process, so a poisoned lock is never seen.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> Key {
        Key::new(index % 4, index, 0)
    }

    #[test]
    fn watchers_are_told_until_they_look_away() {
        let watches = Watches::default();
        watches.watch(key(1), &["bob", "eve"], 9).unwrap();
        watches.watch(key(2), &["bob"], 9).unwrap();
        let mut found = watches.watchers("bob");
        found.sort();
        assert_eq!(found.as_slice(), [key(1), key(2)]);
        assert_eq!(watches.watchers("eve").as_slice(), [key(1)]);
        assert!(watches.watchers("joe").is_empty());
        watches.unwatch(key(1), &["bob", "bob", "joe"]);
        watches.unwatch(key(3), &["bob"]);
        assert_eq!(watches.watchers("bob").as_slice(), [key(2)]);
        assert_eq!(watches.watchers("eve").as_slice(), [key(1)]);
        assert_eq!(watches.len(), 2);
        watches.forget(key(1));
        watches.forget(key(1));
        watches.unwatch(key(2), &["bob"]);
        assert!(watches.watchers("bob").is_empty() && watches.is_empty());
    }

    #[test]
    fn a_connection_watches_all_of_what_it_asks_for_or_nothing_of_it() {
        let watches = Watches::default();
        watches.watch(key(1), &["a", "b", "a"], 3).unwrap();
        assert_eq!(watches.len(), 2);
        assert_eq!(watches.watch(key(1), &["c", "d"], 3), Err(TooManyWatches));
        assert!(watches.watchers("c").is_empty() && watches.watchers("d").is_empty());
        watches.watch(key(1), &["a", "c", "b", "c"], 3).unwrap();
        assert_eq!(watches.len(), 3);
        assert_eq!(watches.watch(key(1), &["a", "d"], 3), Err(TooManyWatches));
        watches.watch(key(1), &["c", "a"], 0).unwrap();
        assert_eq!(watches.watch(key(2), &["a"], 0), Err(TooManyWatches));
        watches.watch(key(2), &[], 0).unwrap();
        assert_eq!(watches.len(), 3);
        watches.unwatch(key(1), &["b"]);
        watches.watch(key(1), &["d"], 3).unwrap();
        assert_eq!(watches.watchers("d").as_slice(), [key(1)]);
    }

    #[test]
    fn nothing_stays_behind_when_all_are_gone() {
        let watches = Watches::default();
        for i in 0..20_000 {
            watches
                .watch(key(i), &["star", &format!("user-{i}")], 2)
                .unwrap();
        }
        assert_eq!(watches.watchers("star").len(), 20_000);
        for i in 0..20_000 {
            watches.forget(key(i));
        }
        assert_eq!(watches.len(), 0);
        for shard in &watches.by_key {
            let shard = unpoisoned(shard);
            assert!(shard.is_empty() && shard.capacity() < 100);
        }
        for shard in &watches.by_uid {
            let shard = unpoisoned(shard);
            assert!(shard.is_empty() && shard.capacity() < 100);
        }
    }
}
