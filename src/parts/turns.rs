//! How much CPU time each turn of a thread took, without asking the kernel each time.
//!
//! Owns: the thread's CPU time when it was last asked for, and the turns since.
//! Invariants: no turn is told as shorter than it was; one that took longer than [`SHORT`] is told
//! as too long by the CPU time of [`SHORT_MAX`] short ones at most.

use std::time::Duration;

/// What took no longer by the wall is short: its time by the wall, which costs no system call, is
/// told in place of its CPU time, which is not more.
pub const SHORT: Duration = Duration::from_micros(250);
/// Short turns between two questions.
const SHORT_MAX: u32 = 64;

pub struct Turns {
    cpu_nanos: u64,
    short: u32,
}

impl Turns {
    /// `cpu_nanos`: what the thread has used so far.
    pub fn new(cpu_nanos: u64) -> Turns {
        Turns {
            cpu_nanos,
            short: 0,
        }
    }

    /// A turn is over that took so long by the wall; `ask` is what the thread has used by now.
    /// The turn's CPU time, in microseconds.
    pub fn end(&mut self, wall: Duration, ask: impl FnOnce() -> u64) -> u64 {
        let is_short = wall <= SHORT;
        if is_short && self.short < SHORT_MAX {
            self.short += 1;
            return wall.as_micros() as u64;
        }
        let now = ask();
        let used = Duration::from_nanos(now - self.cpu_nanos);
        (self.cpu_nanos, self.short) = (now, 0);
        used.min(wall).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_long_turn_is_told_by_its_cpu_time() {
        let mut turns = Turns::new(MS);
        let waited_for_a_core = turns.end(Duration::from_millis(30), || 3 * MS);
        assert_eq!(waited_for_a_core, 2000);
        assert_eq!(turns.end(Duration::from_millis(5), || 8 * MS), 5000);
    }

    #[test]
    fn short_turns_are_told_by_the_wall_and_asked_after_once_in_a_while() {
        let mut turns = Turns::new(0);
        let (mut asked, mut cpu) = (0, 0);
        for _ in 0..650 {
            cpu += 20_000;
            let told = turns.end(Duration::from_micros(20), || {
                asked += 1;
                cpu
            });
            assert_eq!(told, 20);
        }
        assert_eq!(asked, 10);
    }

    #[test]
    fn what_short_turns_used_makes_the_next_long_one_no_longer_than_it_was_by_the_wall() {
        let mut turns = Turns::new(0);
        for _ in 0..60 {
            turns.end(Duration::from_micros(100), || 0);
        }
        assert_eq!(turns.end(Duration::from_millis(1), || 7 * MS), 1000);
    }
}
