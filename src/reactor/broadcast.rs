//! Handing out broadcasts: a sweep over the slots, some of them a turn.
//!
//! A turn stays short however many connections there are, and frames that arrive during a sweep
//! join what each connection is due: one write carries all of it.

use super::Reactor;
use crate::parts::time::Now;

/// Connections that are written to in a turn, and slots that are looked at.
const WRITES_PER_TURN: usize = 512;
const VISITS_PER_TURN: usize = 8 * WRITES_PER_TURN;

impl Reactor {
    pub(super) fn hand_out_broadcasts(&mut self, now: Now) {
        if self.ring.is_empty() {
            return;
        }
        let slots = self.slots.bound();
        let mut writes = 0;
        for _ in 0..VISITS_PER_TURN {
            let done = self.ring.trim(slots);
            if done > 0 {
                self.inbox.broadcast_done(done);
            }
            if writes == WRITES_PER_TURN {
                break;
            }
            let Some(slot) = self.ring.visit(slots) else {
                break;
            };
            if let Some((key, connection)) = self.slots.at(slot)
                && connection.session.is_online()
                && connection.position != self.ring.head()
            {
                self.flush(key, now);
                writes += 1;
            }
        }
    }
}
