//! Message ids that never repeat.

use crate::protocol::envelope::MessageId;

/// A random half of this generator's own, and a count that a bijection scatters.
pub struct MessageIds {
    prefix: u64,
    next: u64,
}

impl MessageIds {
    /// `seed`: from the system's random source.
    pub fn new(seed: [u64; 2]) -> MessageIds {
        MessageIds {
            prefix: seed[0],
            next: seed[1],
        }
    }

    pub fn message_id(&mut self) -> MessageId {
        let mut id = [0; 16];
        let random = self.random();
        id[..8].copy_from_slice(&self.prefix.to_be_bytes());
        id[8..].copy_from_slice(&random.to_be_bytes());
        MessageId(id)
    }

    /// The next value of a sequence that visits every number once (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
