//! Small random numbers. The same seed gives the same ones.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..8 {
            random.below(2);
        }
        random
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n.max(1)
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below((to - from) as usize) as u64)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// The seed of this run: DELIVERY_SEED, or another one each time.
pub fn seed() -> u64 {
    match std::env::var("DELIVERY_SEED") {
        Ok(text) => text.parse().expect("DELIVERY_SEED is a number"),
        Err(_) => {
            let time = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(time.unwrap().subsec_nanos())
        }
    }
}
