//! Who is connected, as all threads see it while it changes.
//!
//! Owns: how many are on their way, and for each client when its connection was last interrupted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::target::Targets;

/// Whose connection was interrupted within this time is no survivor.
pub const STEADY: Duration = Duration::from_secs(10);
/// The interruption goes on.
const GOES_ON: u64 = u64::MAX;

pub struct Presence {
    pub began: Instant,
    arriving: AtomicU64,
    arriving_max: AtomicU64,
    /// Clients that will not come back.
    stopped: AtomicU64,
    /// The end of each client's last interruption, in nanoseconds; 0 if there was none.
    interrupted: Box<[AtomicU64]>,
}

/// How many were connected at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    pub secs: f64,
    pub open: u64,
    /// By target, in their order.
    pub by_target: Vec<u64>,
    pub arriving: u64,
}

impl Presence {
    pub fn new(clients: usize) -> Presence {
        Presence {
            began: Instant::now(),
            arriving: AtomicU64::new(0),
            arriving_max: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            interrupted: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn sets_out(&self) {
        let arriving = self.arriving.fetch_add(1, Relaxed) + 1;
        self.arriving_max.fetch_max(arriving, Relaxed);
    }

    /// It is there, or has failed on the way.
    pub fn stops_arriving(&self) {
        self.arriving.fetch_sub(1, Relaxed);
    }

    pub fn arriving_max(&self) -> u64 {
        self.arriving_max.load(Relaxed)
    }

    pub fn stops(&self) {
        self.stopped.fetch_add(1, Relaxed);
    }

    /// Clients that will not come back.
    pub fn stopped(&self) -> u64 {
        self.stopped.load(Relaxed)
    }

    pub fn is_interrupted(&self, index: u32) {
        self.note(index, GOES_ON);
    }

    pub fn is_back(&self, index: u32, now: Instant) {
        self.note(index, self.nanos(now));
    }

    fn note(&self, index: u32, nanos: u64) {
        if let Some(last) = self.interrupted.get(index as usize) {
            last.store(nanos, Relaxed);
        }
    }

    /// True if this client's connection has not been interrupted since [`STEADY`] before then.
    pub fn is_steady(&self, index: u32, since: Instant) -> bool {
        let last = self.interrupted.get(index as usize);
        last.map(|last| last.load(Relaxed)).is_some_and(|last| {
            let settled = last.checked_add(STEADY.as_nanos() as u64);
            last == 0 || settled.is_some_and(|settled| settled <= self.nanos(since))
        })
    }

    pub fn sample(&self, targets: &Targets) -> Sample {
        let all = targets.all();
        let by_target: Vec<u64> = all.iter().map(|t| t.open.load(Relaxed)).collect();
        Sample {
            secs: self.began.elapsed().as_secs_f64(),
            open: by_target.iter().sum(),
            by_target,
            arriving: self.arriving.load(Relaxed),
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_nanos() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_was_not_interrupted_since_ten_seconds_before() {
        let presence = Presence::new(2);
        let after = |secs| presence.began + Duration::from_secs(secs);
        assert!(
            presence.is_steady(0, after(0)),
            "the first connection is no interruption"
        );
        presence.is_interrupted(0);
        assert!(!presence.is_steady(0, after(1000)));
        presence.is_back(0, after(5));
        assert!(!presence.is_steady(0, after(14)) && presence.is_steady(0, after(15)));
        assert!(presence.is_steady(1, after(14)));
    }

    #[test]
    fn the_most_that_were_on_their_way_at_once_are_remembered() {
        let presence = Presence::new(3);
        (0..3).for_each(|_| presence.sets_out());
        presence.stops_arriving();
        presence.sets_out();
        assert_eq!(presence.arriving_max(), 3);
    }
}
