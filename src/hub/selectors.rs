//! Which connections of one reactor say what of themselves: from metadata to keys.
//!
//! Owns: for each pair of name and value that occurs, the set of connections that have it.
//! Invariants: no set is empty, and a pair that nobody has takes no room. The index belongs to
//! one reactor, so there is no lock.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::parts::key::Key;
use crate::parts::room;
use crate::protocol::metadata::Metadata;

#[derive(Default)]
pub struct Selectors {
    hasher: RandomState,
    entries: HashTable<Entry>,
    connections: usize,
}

struct Entry {
    name: Box<str>,
    value: Box<str>,
    /// A tree: half of a reactor's connections may share a pair, and it shrinks as they go.
    connections: BTreeSet<Key>,
}

impl Entry {
    fn is(&self, name: &str, value: &str) -> bool {
        &*self.name == name && &*self.value == value
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((&*self.name, &*self.value))
    }
}

impl Selectors {
    /// Enters a connection, once, with what it says of itself.
    pub fn insert(&mut self, key: Key, metadata: &Metadata) {
        let mut is_new = false;
        for (name, value) in metadata.pairs() {
            let entry = self
                .entries
                .entry(
                    self.hasher.hash_one((name, value)),
                    |entry| entry.is(name, value),
                    |entry| entry.hash(&self.hasher),
                )
                .or_insert_with(|| Entry {
                    name: name.into(),
                    value: value.into(),
                    connections: BTreeSet::new(),
                });
            is_new |= entry.into_mut().connections.insert(key);
        }
        self.connections += usize::from(is_new);
    }

    /// Takes a connection out; `metadata` is what it was entered with.
    pub fn remove(&mut self, key: Key, metadata: &Metadata) {
        let mut was_here = false;
        for (name, value) in metadata.pairs() {
            let hash = self.hasher.hash_one((name, value));
            let Ok(mut entry) = self.entries.find_entry(hash, |entry| entry.is(name, value)) else {
                continue;
            };
            was_here |= entry.get_mut().connections.remove(&key);
            if entry.get().connections.is_empty() {
                entry.remove();
            }
        }
        self.connections -= usize::from(was_here);
        if let Some(capacity) = room::to_keep(self.entries.len(), self.entries.capacity()) {
            self.entries
                .shrink_to(capacity, |entry| entry.hash(&self.hasher));
        }
    }

    /// The connections that have all pairs of `selector`. An empty one finds nobody: it is no
    /// selector.
    pub fn find<S: AsRef<str>>(&self, selector: &[(S, S)]) -> Vec<Key> {
        let sets: Option<SmallVec<[&BTreeSet<Key>; 8]>> = selector
            .iter()
            .map(|(name, value)| self.connections_with(name.as_ref(), value.as_ref()))
            .collect();
        let mut sets = sets.unwrap_or_default();
        sets.sort_unstable_by_key(|set| set.len());
        let Some((rarest, others)) = sets.split_first() else {
            return Vec::new();
        };
        rarest
            .iter()
            .filter(|key| others.iter().all(|set| set.contains(key)))
            .copied()
            .collect()
    }

    fn connections_with(&self, name: &str, value: &str) -> Option<&BTreeSet<Key>> {
        let hash = self.hasher.hash_one((name, value));
        self.entries
            .find(hash, |entry| entry.is(name, value))
            .map(|entry| &entry.connections)
    }

    /// Connections that said something of themselves.
    pub fn len(&self) -> usize {
        self.connections
    }

    pub fn is_empty(&self) -> bool {
        self.connections == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        let pairs = pairs
            .iter()
            .map(|&(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)));
        Metadata::collect(pairs, 8, 256).unwrap()
    }

    fn key(index: usize) -> Key {
        Key::new(0, index, 0)
    }

    #[test]
    fn a_selector_finds_those_who_have_all_of_it() {
        let mut selectors = Selectors::default();
        let phone = metadata(&[("os", "ios"), ("app", "chat")]);
        let tablet = metadata(&[("os", "ios"), ("app", "mail")]);
        selectors.insert(key(1), &phone);
        selectors.insert(key(2), &tablet);
        selectors.insert(key(3), &phone);
        selectors.insert(key(4), &Metadata::default());
        assert_eq!(selectors.len(), 3);
        assert_eq!(selectors.find(&[("os", "ios")]), [key(1), key(2), key(3)]);
        let both = [("os", "ios"), ("app", "chat")];
        assert_eq!(selectors.find(&both), [key(1), key(3)]);
        for nobody in [
            &[("os", "ios"), ("zone", "x")][..],
            &[("os", "ios"), ("os", "linux")],
            &[("app", "chat"), ("app", "mail")],
            &[("ios", "os")],
            &[("o", "sios")],
            &[],
        ] {
            assert!(selectors.find(nobody).is_empty(), "{nobody:?}");
        }
        selectors.remove(key(1), &phone);
        selectors.remove(key(1), &phone);
        assert_eq!((selectors.find(&both), selectors.len()), (vec![key(3)], 2));
    }

    #[test]
    fn the_index_and_the_metadata_agree_on_who_is_meant() {
        let mut selectors = Selectors::default();
        let said: Vec<Metadata> = (0..300)
            .map(|i: u32| {
                let (a, b) = ((i % 3).to_string(), (i % 7).to_string());
                metadata(&[("a", &a), ("b", &b)])
            })
            .collect();
        for (i, metadata) in said.iter().enumerate() {
            selectors.insert(key(i), metadata);
        }
        for (a, b) in [("0", "0"), ("2", "6"), ("1", "3"), ("1", "9")] {
            let selector = [("a", a), ("b", b)];
            let meant: Vec<Key> = (0..300)
                .filter(|&i| said[i].matches(&selector))
                .map(key)
                .collect();
            assert_eq!(selectors.find(&selector), meant);
        }
    }

    #[test]
    fn memory_goes_back_when_connections_go() {
        let mut selectors = Selectors::default();
        let own = |i: usize| metadata(&[("os", "ios"), ("serial", &i.to_string())]);
        for i in 0..10_000 {
            selectors.insert(key(i), &own(i));
        }
        assert!(selectors.entries.capacity() > 10_000);
        for i in 0..10_000 {
            selectors.remove(key(i), &own(i));
        }
        assert_eq!((selectors.len(), selectors.entries.len()), (0, 0));
        assert!(selectors.entries.capacity() < 100);
    }
}
