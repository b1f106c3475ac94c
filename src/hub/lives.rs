//! The lives of a node in one process: one for each lease that it has held.
//!
//! A lease that has run out may have been cleaned up after; so the next one has another epoch,
//! and what was written under the old one counts no longer. What others still send to a life
//! that was ours is ours all the same.

use std::sync::{PoisonError, RwLock};

/// Never empty; the last one is the present.
pub struct Lives(RwLock<Vec<u64>>);

impl Lives {
    pub fn beginning_with(epoch: u64) -> Lives {
        Lives(RwLock::new(vec![epoch]))
    }

    pub fn present(&self) -> u64 {
        let lives = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lives.last().copied().unwrap_or_default()
    }

    pub fn has_been(&self, epoch: u64) -> bool {
        let lives = self.0.read().unwrap_or_else(PoisonError::into_inner);
        lives.contains(&epoch)
    }

    pub fn begin(&self, epoch: u64) {
        let mut lives = self.0.write().unwrap_or_else(PoisonError::into_inner);
        lives.push(epoch);
    }
}
