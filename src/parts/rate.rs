//! How many may come in a second, when all who come are served and the others wait: a bucket of
//! tokens over ticks.
//!
//! A node's rate is parted among its reactors, so a whole one costs as many units as a second
//! has of ticks and the node of parts, and each tick brings as many units as the rate has: no
//! division, so nothing is lost to rounding, whatever the rate.

use super::time::{TICKS_PER_SEC, Tick};

/// One of the equal parts of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Units that a tick brings; 0: any number may come.
    per_tick: u64,
    /// Units that one who comes takes.
    price: u64,
    units: u64,
    at: Tick,
}

impl Rate {
    /// One of `parts` parts of so many a second; 0: any number.
    pub fn new(per_sec: u32, parts: usize, now: Tick) -> Rate {
        let mut rate = Rate {
            per_tick: u64::from(per_sec),
            price: u64::from(TICKS_PER_SEC) * parts.max(1) as u64,
            units: 0,
            at: now,
        };
        rate.units = rate.full();
        rate
    }

    /// One wants to come: true if it may do so now, and is counted.
    pub fn take(&mut self, now: Tick) -> bool {
        if self.per_tick == 0 {
            return true;
        }
        let ticks = u64::from(now.0.saturating_sub(self.at.0));
        self.at = self.at.max(now);
        self.units = (self.units + ticks * self.per_tick).min(self.full());
        let may_come = self.units >= self.price;
        if may_come {
            self.units -= self.price;
        }
        may_come
    }

    /// When the next one may come. From then on, and no earlier, [`Rate::take`] says yes: so one
    /// may ask this first, and take when somebody has come indeed.
    pub fn next(&self) -> Tick {
        if self.per_tick == 0 {
            return self.at;
        }
        let missing = self.price.saturating_sub(self.units);
        let ticks = missing.div_ceil(self.per_tick);
        self.at.plus_ticks(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// A tick's worth beside what is left over of one: nobody who comes at each tick loses
    /// anything, and a burst is a tenth of a second's worth, rounded up.
    fn full(&self) -> u64 {
        self.per_tick + self.price - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a crowd come in at this tick.
    fn crowd(rate: &mut Rate, tick: u32) -> u64 {
        (0..).find(|_| !rate.take(Tick(tick))).unwrap()
    }

    #[test]
    fn it_is_exact_over_time_whatever_it_is() {
        const TICKS: u32 = 300;
        for (per_sec, parts) in [
            (1, 1),
            (1, 3),
            (7, 1),
            (10, 1),
            (15, 1),
            (99, 7),
            (1000, 3),
            (12_345, 16),
        ] {
            let mut rate = Rate::new(per_sec, parts, Tick(0));
            crowd(&mut rate, 0);
            let left = rate.units;
            let came: u64 = (1..=TICKS).map(|tick| crowd(&mut rate, tick)).sum();
            let due = left + u64::from(per_sec) * u64::from(TICKS);
            assert_eq!(came, due / rate.price, "{per_sec} in {parts} parts");
        }
    }

    #[test]
    fn the_parts_of_a_rate_are_the_rate() {
        let mut parts = [Rate::new(100, 3, Tick(0)); 3];
        let mut at = |tick| parts.iter_mut().map(|rate| crowd(rate, tick)).sum::<u64>();
        at(0);
        let came: u64 = (1..=600).map(at).sum();
        // Each holds less than one back.
        assert!((5998..=6002).contains(&came), "{came}");
    }

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_one_at_least() {
        for (per_sec, parts, expected) in [
            (1, 1, 1),
            (1, 64, 1),
            (9, 1, 1),
            (10, 1, 1),
            (11, 1, 2),
            (1000, 1, 100),
            (1000, 4, 25),
            (1000, 3, 34),
        ] {
            let mut rate = Rate::new(per_sec, parts, Tick(7));
            assert_eq!(crowd(&mut rate, 7), expected, "at the start");
            assert_eq!(crowd(&mut rate, 100_000), expected, "after a long silence");
            assert_eq!(crowd(&mut rate, 100_000), 0);
        }
    }

    #[test]
    fn a_slow_rate_lets_one_in_at_a_time() {
        let mut rate = Rate::new(2, 1, Tick(0));
        let came: Vec<u32> = (0..20)
            .filter(|&tick| crowd(&mut rate, tick) == 1)
            .collect();
        assert_eq!(came, [0, 5, 10, 15]);
    }

    #[test]
    fn the_next_may_come_when_it_says_and_no_earlier() {
        for (per_sec, parts) in [(1, 1), (3, 1), (7, 2), (10, 1), (250, 4)] {
            let mut rate = Rate::new(per_sec, parts, Tick(5));
            assert_eq!(rate.next(), Tick(5));
            let mut now = 5;
            for _ in 0..50 {
                crowd(&mut rate, now);
                let next = rate.next();
                assert!(next > Tick(now));
                let mut early = rate;
                assert!(next == Tick(now + 1) || !early.take(Tick(next.0 - 1)));
                assert!(rate.take(next), "{per_sec} in {parts} parts");
                now = next.0;
            }
        }
    }

    #[test]
    fn without_a_rate_anybody_may_come_at_once() {
        let mut rate = Rate::new(0, 4, Tick(3));
        assert!((0..10_000).all(|_| rate.take(Tick(3))));
        assert_eq!(rate.next(), Tick(3));
    }

    #[test]
    fn neither_a_clock_that_stands_nor_the_largest_numbers_confuse_it() {
        let mut rate = Rate::new(1, 1, Tick(50));
        assert!(rate.take(Tick(50)) && !rate.take(Tick(40)) && !rate.take(Tick(50)));
        assert!(rate.take(Tick(60)));
        let mut rate = Rate::new(u32::MAX, 1, Tick(0));
        assert!(rate.take(Tick::NEVER) && rate.take(Tick::NEVER));
        let mut rate = Rate::new(1, usize::MAX >> 8, Tick(0));
        assert!(rate.take(Tick(0)) && !rate.take(Tick::NEVER));
        assert_eq!(rate.next(), Tick::NEVER);
    }
}
