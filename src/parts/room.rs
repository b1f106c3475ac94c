//! When a table that was large gives its room back: a hash table keeps all it ever grew to,
//! and an idle node is to shrink after a storm.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Tables this small are left alone.
const CAPACITY_MIN: usize = 64;

/// The capacity to shrink a table to, once less than an eighth of it is used; None before. What
/// remains is a quarter or less full, so a table that shrank does not do so again soon.
pub fn to_keep(len: usize, capacity: usize) -> Option<usize> {
    (capacity > CAPACITY_MIN && len < capacity / 8).then_some(len * 4)
}

/// Shrinks a map from which much was removed.
pub fn give_back<K: Eq + Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if let Some(capacity) = to_keep(map.len(), map.capacity()) {
        map.shrink_to(capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_keeps_its_room_until_it_is_nearly_empty() {
        assert_eq!(to_keep(100, 800), None);
        assert_eq!(to_keep(99, 800), Some(396));
        assert_eq!(to_keep(0, 800), Some(0));
        assert_eq!(to_keep(0, CAPACITY_MIN), None);
    }
}
