//! Other rules while connections live.
//!
//! Owns: the sweep over the slots that follows them. Most rules are looked at when they are
//! needed; but a deadline stands in the wheel already, and one that is earlier by the new rules
//! would be missed by whoever is silent.

use std::sync::Arc;

use super::Reactor;
use crate::parts::rate::Rate;
use crate::parts::time::Now;
use crate::protocol::inbound::Scratch;
use crate::session::rules::Rules;

/// Slots that are looked at in a turn.
const SLOTS_PER_TURN: usize = 2048;

/// How far it has come.
#[derive(Default)]
pub struct Sweep {
    next: usize,
}

impl Reactor {
    pub(super) fn take_rules(&mut self, rules: Arc<Rules>, now: Now) {
        let json_depth_max = rules.limits.json_depth_max;
        if json_depth_max != self.rules.limits.json_depth_max {
            self.scratch = Scratch::new(json_depth_max);
        }
        let reactors = self.shared.switchboard.reactors();
        self.door.rate = Rate::new(rules.limits.handshakes_per_sec, reactors, now.tick);
        self.rules = rules;
        self.sweep = Some(Sweep::default());
    }

    /// Brings deadlines forward that are due earlier now. Later ones come due too early, and are
    /// armed again then.
    pub(super) fn look_at_clocks(&mut self, now: Now) {
        let Some(Sweep { next }) = self.sweep.take() else {
            return;
        };
        let end = self.slots.bound().min(next + SLOTS_PER_TURN);
        for index in next..end {
            if let Some((key, _)) = self.slots.at(index) {
                self.watch(key, now);
            }
        }
        if end < self.slots.bound() {
            self.sweep = Some(Sweep { next: end });
        }
    }
}
