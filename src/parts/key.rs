//! A connection's name: it outlives its owner and then finds nothing.

/// Slot generation (32 bits), reactor (10 bits) and slot index (22 bits) of one connection.
///
/// The same key travels as mio token, in the roster, in timers and in commands. When a slot is
/// freed its generation grows, so that a key of the old owner finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    const INDEX_BITS: u32 = 22;
    const REACTOR_BITS: u32 = 10;
    /// Slots of one reactor; the two highest indices are left to tokens that name no connection.
    pub const SLOTS_MAX: usize = (1 << Self::INDEX_BITS) - 2;
    /// Reactors of one node.
    pub const REACTORS_MAX: usize = 1 << Self::REACTOR_BITS;

    /// `index < SLOTS_MAX`, `reactor < REACTORS_MAX`.
    pub fn new(reactor: usize, index: usize, generation: u32) -> Key {
        debug_assert!(index < Self::SLOTS_MAX && reactor < Self::REACTORS_MAX);
        Key((u64::from(generation) << 32) | ((reactor as u64) << Self::INDEX_BITS) | index as u64)
    }

    pub fn from_bits(bits: u64) -> Key {
        Key(bits)
    }

    pub fn bits(self) -> u64 {
        self.0
    }

    pub fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }

    pub fn reactor(self) -> usize {
        ((self.0 >> Self::INDEX_BITS) & ((1 << Self::REACTOR_BITS) - 1)) as usize
    }

    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}#{}",
            self.reactor(),
            self.index(),
            self.generation()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_survives_the_packing() {
        for (r, i, g) in [(0, 0, 0), (1023, Key::SLOTS_MAX - 1, u32::MAX), (5, 77, 3)] {
            let key = Key::from_bits(Key::new(r, i, g).bits());
            assert_eq!((key.reactor(), key.index(), key.generation()), (r, i, g));
        }
    }
}
