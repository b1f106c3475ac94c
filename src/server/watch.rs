//! The watchdog: finds reactors that do not come back from a turn.

use std::sync::Arc;
use std::time::Instant;

use crate::stats::ReactorStats;

pub struct Watchdog {
    stats: Vec<Arc<ReactorStats>>,
    /// The start of the node's ticks.
    origin: Instant,
    /// Which of them were found stuck the last time.
    stuck: Vec<bool>,
}

impl Watchdog {
    pub fn new(stats: Vec<Arc<ReactorStats>>, origin: Instant) -> Watchdog {
        Watchdog {
            stuck: vec![false; stats.len()],
            stats,
            origin,
        }
    }

    /// Logs each transition once; the metric shows how long the running turn has lasted. A limit
    /// of 0: nobody looks.
    pub fn look(&mut self, limit_secs: u32) {
        if limit_secs == 0 {
            return;
        }
        let now_ms = self.origin.elapsed().as_millis() as u64;
        for (reactor, (stats, was_stuck)) in self.stats.iter().zip(&mut self.stuck).enumerate() {
            let running_ms = match stats.turn_since_ms.get() {
                0 => 0,
                since_ms => now_ms.saturating_sub(since_ms),
            };
            let is_stuck = running_ms >= u64::from(limit_secs) * 1000;
            if is_stuck && !*was_stuck {
                tracing::error!(reactor, running_ms, "a reactor is stuck in a turn");
            } else if *was_stuck && !is_stuck {
                tracing::info!(reactor, "a stuck reactor goes on");
            }
            *was_stuck = is_stuck;
        }
    }
}
