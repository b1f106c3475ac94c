//! Rows in memory: nothing of it outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::rows::{Broken, Rows, Visit};

type Bytes = Box<[u8]>;

/// All rows, and how to take back what the open transaction has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRows {
    rows: BTreeMap<Bytes, Bytes>,
    undo: Vec<(Bytes, Option<Bytes>)>,
}

impl MemoryRows {
    /// Keeps what was changed.
    pub fn commit(&mut self) {
        self.undo.clear();
    }

    /// Takes back what was changed since the last commit.
    pub fn roll_back(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl Rows for MemoryRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        Ok(self.rows.get(key).map(|value| value.to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        let before = self.rows.insert(key.into(), value.into());
        self.undo.push((key.into(), before));
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Broken> {
        if let Some(before) = self.rows.remove(key) {
            self.undo.push((key.into(), Some(before)));
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.rows.range::<[u8], _>(bounds) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
