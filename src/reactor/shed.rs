//! Too much in the write queues of the node: the largest are given up, whoever's they are.
//!
//! A sweep over the slots closes whoever is owed more than a threshold. Each sweep that was not
//! enough halves it, so that what goes is the largest within a factor of two; nothing is kept
//! for it per connection, and nothing is done while there is room.

use super::Reactor;
use crate::parts::time::Now;
use crate::protocol::violation::Violation;

/// Slots looked at in a turn.
const VISITS_PER_TURN: usize = 8192;
/// Smaller queues are left alone: closing them would give back next to nothing.
const THRESHOLD_MIN: usize = 1024;

/// A sweep that is going on.
pub struct Shedding {
    threshold: usize,
    cursor: usize,
}

impl Shedding {
    /// More turns may help: they are to come without sleep.
    pub fn is_working(&self) -> bool {
        self.threshold >= THRESHOLD_MIN
    }
}

impl Reactor {
    pub(super) fn shed_largest(&mut self, now: Now) {
        if !self.shared.node.is_over_budget() {
            self.shedding = None;
            return;
        }
        let hard = self.rules.limits.queue_hard_bytes;
        let Shedding {
            mut threshold,
            mut cursor,
        } = self.shedding.take().unwrap_or(Shedding {
            threshold: hard / 2,
            cursor: 0,
        });
        for _ in 0..VISITS_PER_TURN {
            if threshold < THRESHOLD_MIN || !self.shared.node.is_over_budget() {
                break;
            }
            if cursor >= self.slots.bound() {
                cursor = 0;
                threshold /= 2;
            }
            if let Some((key, connection)) = self.slots.at(cursor)
                && connection.session.is_established()
                && connection.owed() >= threshold
            {
                self.drop_slow_consumer(key, Violation::Shed, now);
                self.report_queues();
            }
            cursor += 1;
        }
        self.shedding = Some(Shedding { threshold, cursor });
    }

    /// Tells the node how much waits here.
    pub(super) fn report_queues(&mut self) {
        let node = &self.shared.node;
        node.note_queued(self.reported_bytes, self.queued_bytes);
        self.reported_bytes = self.queued_bytes;
    }
}
