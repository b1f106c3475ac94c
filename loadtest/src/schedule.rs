//! What is due when, whatever becomes of what was due before: an open loop.
//!
//! Owns: the slices of time that have passed, and how much was due in them.

use std::time::{Duration, Instant};

/// Messages are due at the beginning of such a slice of time.
pub const SLICE: Duration = Duration::from_millis(1);
/// How much is said.
#[derive(Clone, Copy, Debug)]
pub enum Flow {
    /// So many a second, whatever becomes of those before.
    PerSec(f64),
    /// Another one when the sender has been told that one has arrived: so many are on their way.
    InFlight(u32),
}

impl Flow {
    /// The part of one worker, which has so many of all who talk.
    pub fn part(self, talkers: u32, of: u32) -> Flow {
        let share = f64::from(talkers) / f64::from(of.max(1));
        match self {
            Flow::PerSec(rate) => Flow::PerSec(rate * share),
            Flow::InFlight(count) => Flow::InFlight((f64::from(count) * share).ceil() as u32),
        }
    }
}

/// What is said from when to when; for one worker, its part of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub from: Instant,
    pub slices: u64,
    pub flow: Flow,
    slice: u64,
    said: u64,
}

impl Schedule {
    pub fn new(from: Instant, lasts: Duration, flow: Flow) -> Schedule {
        Schedule {
            from,
            slices: (lasts.as_nanos() / SLICE.as_nanos()) as u64,
            flow,
            slice: 0,
            said: 0,
        }
    }

    /// How many messages are due, and since when. `settled`: so many of those said so far have
    /// come to their end.
    pub fn next(&mut self, now: Instant, settled: u64) -> Option<(Instant, u64)> {
        match self.flow {
            Flow::PerSec(rate) => self.next_slice(now, rate),
            Flow::InFlight(max) => {
                let due = (settled + u64::from(max)).saturating_sub(self.said);
                self.said += due;
                (due > 0 && !self.is_over(now)).then_some((now, due))
            }
        }
    }

    /// Nothing more is due.
    pub fn is_over(&self, now: Instant) -> bool {
        let is_used_up = match self.flow {
            Flow::PerSec(_) => self.slice >= self.slices,
            Flow::InFlight(_) => true,
        };
        is_used_up && now >= self.from + SLICE.mul_f64(self.slices as f64)
    }

    /// The next slice that has begun: its time, and what is due in it. A slice that is late keeps
    /// its time.
    fn next_slice(&mut self, now: Instant, per_sec: f64) -> Option<(Instant, u64)> {
        let begins = self.from + SLICE.mul_f64(self.slice as f64);
        if self.slice >= self.slices || begins > now {
            return None;
        }
        self.slice += 1;
        let whole = self.slice as f64 * SLICE.as_secs_f64() * per_sec;
        let due = (whole as u64).saturating_sub(self.said);
        self.said += due;
        Some((begins, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_and_its_times_however_late_it_is_asked() {
        let from = Instant::now();
        let mut schedule = Schedule::new(from, Duration::from_secs(2), Flow::PerSec(1500.0));
        assert_eq!(schedule.next(from, 0), Some((from, 1)));
        assert_eq!(schedule.next(from, 0), None);
        let late = from + Duration::from_secs(10);
        let slices: Vec<_> = std::iter::from_fn(|| schedule.next(late, 0)).collect();
        assert_eq!(slices[0], (from + SLICE, 2));
        assert_eq!(slices.iter().map(|(_, due)| due).sum::<u64>() + 1, 3000);
        assert_eq!(slices.len(), 1999);
        let last = slices[1998].0;
        assert!(last > from + SLICE * 1998 && last < from + SLICE * 2000);
    }

    #[test]
    fn where_so_many_are_in_flight_another_one_leaves_when_one_has_arrived() {
        let from = Instant::now();
        let lasts = Duration::from_secs(2);
        let mut schedule = Schedule::new(from, lasts, Flow::InFlight(10).part(1, 2));
        assert_eq!(schedule.next(from, 0), Some((from, 5)));
        assert_eq!(schedule.next(from, 0), None);
        let later = from + lasts / 2;
        assert_eq!(schedule.next(later, 3), Some((later, 3)));
        assert_eq!(schedule.next(later, 3), None);
        assert_eq!(schedule.next(from + lasts, 8), None);
    }
}
