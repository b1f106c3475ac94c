//! A slab of connections whose keys are never mistaken for each other.
//!
//! Owns: the values and each slot's generation.
//! Invariants: a key finds the value it was given for, or nothing, for as long as anyone keeps it.

use super::key::Key;
use super::pages::Pages;

pub struct Slots<T> {
    reactor: usize,
    values: Pages<T>,
    generations: Vec<u32>,
}

impl<T> Slots<T> {
    pub fn new(reactor: usize) -> Slots<T> {
        Slots {
            reactor,
            values: Pages::default(),
            generations: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every index in use is below.
    pub fn bound(&self) -> usize {
        self.values.slots()
    }

    /// None if the reactor holds as many as a key can name.
    pub fn insert(&mut self, value: T) -> Option<Key> {
        if self.len() >= Key::SLOTS_MAX {
            return None;
        }
        let index = self.values.insert(value);
        if index >= self.generations.len() {
            self.generations.resize(index + 1, 0);
        }
        Some(self.key_at(index))
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        if self.is_current(key) {
            self.values.get(key.index())
        } else {
            None
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        if self.is_current(key) {
            self.values.get_mut(key.index())
        } else {
            None
        }
    }

    /// Whoever is in the slot `index` now.
    pub fn at(&mut self, index: usize) -> Option<(Key, &mut T)> {
        let key = Key::new(self.reactor, index, *self.generations.get(index)?);
        Some((key, self.values.get_mut(index)?))
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        if !self.is_current(key) {
            return None;
        }
        let value = self.values.remove(key.index())?;
        let generation = &mut self.generations[key.index()];
        *generation = generation.wrapping_add(1);
        Some(value)
    }

    fn key_at(&self, index: usize) -> Key {
        Key::new(self.reactor, index, self.generations[index])
    }

    fn is_current(&self, key: Key) -> bool {
        key.reactor() == self.reactor
            && self.generations.get(key.index()) == Some(&key.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_outlived_its_owner_finds_nothing() {
        let mut slots = Slots::new(3);
        let old = slots.insert("old").unwrap();
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new").unwrap();
        assert_eq!(new.index(), old.index());
        assert_eq!((slots.get(old), slots.get(new)), (None, Some(&"new")));
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.get(Key::new(2, new.index(), new.generation())), None);
        assert_eq!(
            slots.at(new.index()).map(|(key, v)| (key, *v)),
            Some((new, "new"))
        );
    }
}
