//! Timing wheel: which slots are due now. One per reactor.
//!
//! Owns: for each slot at most one entry, in doubly linked lists by the tick it is due, threaded
//! through one array: arming, moving and cancelling are O(1) and allocate nothing.
//! Invariants: nothing fires early; what is armed fires once. Deadlines beyond the horizon fire
//! at the horizon: whoever armed them looks again and arms the rest.
//! Neighbours: the reactor arms it lazily. Traffic moves a connection's own deadline only; the
//! entry that comes due too early for it is armed again.

use super::time::Tick;

const BUCKETS: usize = 4096;
const NONE: u32 = u32::MAX;
/// Ticks to the horizon.
const REACH: u32 = BUCKETS as u32 - 1;
const UNARMED: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    next: u32,
    /// The tick it is due at, `UNARMED` if it is in no list.
    due: u32,
}

pub struct Wheel {
    links: Vec<Link>,
    heads: Box<[u32; BUCKETS]>,
    /// One bit a bucket that is not empty.
    occupied: [u64; BUCKETS / 64],
    /// Everything up to this tick has been handed out, but for the rest of its own bucket.
    now: u32,
    len: usize,
}

impl Wheel {
    pub fn new(now: Tick) -> Wheel {
        Wheel {
            links: Vec::new(),
            heads: Box::new([NONE; BUCKETS]),
            occupied: [0; BUCKETS / 64],
            now: now.0,
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// When the slot's entry is due; `NEVER` if it has none.
    pub fn due(&self, index: usize) -> Tick {
        self.links
            .get(index)
            .map_or(Tick::NEVER, |link| Tick(link.due))
    }

    /// Makes the slot due at `deadline`, wherever it was before. A past one is due at once.
    pub fn arm(&mut self, index: usize, deadline: Tick) {
        let due = deadline.0.clamp(self.now, self.now + REACH);
        if index >= self.links.len() {
            self.links.resize(
                index + 1,
                Link {
                    prev: NONE,
                    next: NONE,
                    due: UNARMED,
                },
            );
        }
        if self.links[index].due == due {
            return;
        }
        self.cancel(index);
        let bucket = due as usize % BUCKETS;
        let next = self.heads[bucket];
        self.links[index] = Link {
            prev: NONE,
            next,
            due,
        };
        if next != NONE {
            self.links[next as usize].prev = index as u32;
        }
        self.heads[bucket] = index as u32;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
        self.len += 1;
    }

    pub fn cancel(&mut self, index: usize) {
        let Some(&Link { prev, next, due }) = self.links.get(index) else {
            return;
        };
        if due == UNARMED {
            return;
        }
        let bucket = due as usize % BUCKETS;
        if prev == NONE {
            self.heads[bucket] = next;
        } else {
            self.links[prev as usize].next = next;
        }
        if next != NONE {
            self.links[next as usize].prev = prev;
        }
        if self.heads[bucket] == NONE {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
        self.links[index].due = UNARMED;
        self.len -= 1;
    }

    /// Takes out one slot that is due at `now` or before; call it until it says none.
    pub fn pop_due(&mut self, now: Tick) -> Option<usize> {
        let Some(first) = self.next_due().filter(|&first| first <= now) else {
            self.now = self.now.max(now.0);
            return None;
        };
        self.now = self.now.max(first.0);
        let index = self.heads[first.0 as usize % BUCKETS] as usize;
        self.cancel(index);
        Some(index)
    }

    /// The earliest tick at which something is due.
    pub fn next_due(&self) -> Option<Tick> {
        if self.len == 0 {
            return None;
        }
        let start = self.now as usize % BUCKETS;
        let words = BUCKETS / 64;
        for step in 0..=words {
            let word = (start / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= !0 << (start % 64);
            } else if step == words {
                bits &= !(!0 << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (bucket + BUCKETS - start) % BUCKETS;
                return Some(Tick(self.now + ahead as u32));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u32) -> Vec<usize> {
        let mut all: Vec<usize> = std::iter::from_fn(|| wheel.pop_due(Tick(now))).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn nothing_fires_early_and_everything_fires_once() {
        let mut wheel = Wheel::new(Tick(0));
        for index in 0..5000 {
            wheel.arm(index, Tick(index as u32));
        }
        let mut count = 0;
        for tick in 0..6000 {
            for index in fired(&mut wheel, tick) {
                // Beyond the horizon it fires at the horizon, and is armed again by its owner.
                if index as u32 > tick {
                    wheel.arm(index, Tick(index as u32));
                } else {
                    assert_eq!(index as u32, tick);
                    count += 1;
                }
            }
        }
        assert_eq!((count, wheel.len()), (5000, 0));
    }

    #[test]
    fn an_entry_moves_and_can_be_cancelled() {
        let mut wheel = Wheel::new(Tick(10));
        wheel.arm(0, Tick(500));
        wheel.arm(1, Tick(500));
        wheel.arm(2, Tick(500));
        wheel.arm(1, Tick(20));
        wheel.cancel(2);
        wheel.cancel(2);
        assert_eq!(wheel.next_due(), Some(Tick(20)));
        assert_eq!(fired(&mut wheel, 19), [0usize; 0]);
        assert_eq!(fired(&mut wheel, 20), [1]);
        wheel.arm(1, Tick(3));
        assert_eq!(
            fired(&mut wheel, 21),
            [1],
            "a deadline that has passed fires at once"
        );
        assert_eq!(fired(&mut wheel, 10_000), [0]);
        assert_eq!(wheel.next_due(), None);
    }

    #[test]
    fn a_long_sleep_misses_nothing() {
        let mut wheel = Wheel::new(Tick(0));
        wheel.arm(7, Tick(4000));
        assert_eq!(fired(&mut wheel, 3999), [0usize; 0]);
        wheel.arm(8, Tick(8000));
        assert_eq!(fired(&mut wheel, 1_000_000), [7, 8]);
        wheel.arm(9, Tick(1_000_001));
        assert_eq!(wheel.next_due(), Some(Tick(1_000_001)));
    }
}
