//! Too much in the write queues of the node: the largest are given up, whoever's they are.
//!
//! A sweep over the slots closes whoever is owed more than a threshold. Each sweep that was not
//! enough halves it, so that what goes is the largest within a factor of two; nothing is kept
//! for it per connection, and nothing is done while there is room.
//!
//! Reactors sweep at the same time and agree on nothing but the pace: whoever finds too much rings
//! the others, and no threshold is halved before all had the time for it.

use super::Reactor;
use crate::parts::time::{Now, Tick};
use crate::protocol::violation::Violation;

/// Slots looked at in a turn.
const VISITS_PER_TURN: usize = 8192;
/// Smaller queues are left alone: closing them would give back next to nothing.
const THRESHOLD_MIN: usize = 1024;
/// For how long a threshold stands, at least: one tick, and the rest of that in which it began.
const STANDS_TICKS: u32 = 2;

/// A sweep that is going on.
pub struct Shedding {
    threshold: usize,
    cursor: usize,
    /// When the threshold came to be.
    since: Tick,
    /// All were looked at; the threshold still stands.
    is_waiting: bool,
}

impl Shedding {
    /// More turns may help: they are to come without sleep.
    pub fn is_working(&self) -> bool {
        !self.is_waiting
    }
}

impl Reactor {
    pub(super) fn shed_largest(&mut self, now: Now) {
        if !self.shared.node.is_over_budget() {
            self.shedding = None;
            return;
        }
        let hard = self.rules.limits.queue_hard_bytes;
        let first = Shedding {
            threshold: (hard / 2).max(THRESHOLD_MIN),
            cursor: 0,
            since: now.tick,
            is_waiting: false,
        };
        let mut shedding = self.shedding.take().unwrap_or_else(|| {
            // Those that sleep may hold the largest.
            self.shared.switchboard.wake();
            Shedding { ..first }
        });
        for _ in 0..VISITS_PER_TURN {
            shedding.is_waiting = false;
            if shedding.cursor >= self.slots.bound() {
                if now.tick < shedding.since.plus_ticks(STANDS_TICKS) {
                    shedding.is_waiting = true;
                    break;
                }
                // Past the smallest it begins anew: others have grown meanwhile.
                shedding = match shedding.threshold / 2 {
                    threshold @ THRESHOLD_MIN.. => Shedding { threshold, ..first },
                    _ => Shedding { ..first },
                };
            }
            if !self.shared.node.is_over_budget() {
                break;
            }
            if let Some((key, connection)) = self.slots.at(shedding.cursor)
                && connection.session.is_established()
                && connection.owed() >= shedding.threshold
            {
                self.drop_slow_consumer(key, Violation::Shed, now);
                self.report_queues();
            }
            shedding.cursor += 1;
        }
        self.shedding = Some(shedding);
    }

    /// Tells the node how much waits here.
    pub(super) fn report_queues(&mut self) {
        let node = &self.shared.node;
        node.note_queued(self.reported_bytes, self.queued_bytes);
        self.reported_bytes = self.queued_bytes;
    }
}
