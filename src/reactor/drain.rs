//! Letting everybody go, paced, so that the nodes that they go to are not overrun.

use super::Reactor;
use crate::command::DrainPlan;
use crate::parts::time::{Now, TICKS_PER_SEC, Tick};
use crate::session::host::Host;

/// A closing, in millionths: many reactors share a slow pace.
const ONE: u64 = 1_000_000;

pub struct Drain {
    /// Closings a tick, for this reactor, in millionths.
    pace_micro: u64,
    /// Millionths of closings that are due and not done.
    credit_micro: u64,
    last: Tick,
    /// When nobody is waited for any longer.
    until: Tick,
    /// The next slot to look at.
    cursor: usize,
}

impl Reactor {
    pub(super) fn start_draining(&mut self, plan: DrainPlan, now: Now) {
        let reactors = self.shared.switchboard.reactors().max(1) as u64;
        // A second order, with another pace, goes on where the first one is.
        self.drain = Some(Drain {
            pace_micro: u64::from(plan.per_sec) * ONE / reactors / u64::from(TICKS_PER_SEC),
            credit_micro: ONE,
            last: now.tick,
            until: now.tick.plus_secs(plan.within_secs),
            cursor: self.drain.as_ref().map_or(0, |drain| drain.cursor),
        });
    }

    /// Drained: nobody is left on the node (newcomers may still knock at any of its doors, so
    /// all of them stay open until then), or the time is over.
    pub(super) fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            let is_empty = self.slots.is_empty() && self.shared.node.connections() == 0;
            is_empty || drain.until <= self.shared.now().tick
        })
    }

    /// Closes as many connections as are due by now. Newcomers are told to go elsewhere by their
    /// own upgrade; the listener goes last, with the reactor.
    pub(super) fn let_go(&mut self, now: Now) {
        let Some(drain) = &mut self.drain else { return };
        let ticks = u64::from(now.tick.0.saturating_sub(drain.last.0));
        drain.last = now.tick;
        drain.credit_micro += ticks * drain.pace_micro;
        let mut due = drain.credit_micro / ONE;
        drain.credit_micro %= ONE;
        let mut cursor = drain.cursor;
        for _ in 0..self.slots.bound() {
            if due == 0 {
                break;
            }
            if let Some((key, connection)) = self.slots.at(cursor)
                && connection.session.is_to_go(now.tick)
            {
                self.with_session(key, now, |session, cx| {
                    let reason = cx.host.come_back();
                    session.close(1012, &reason, cx);
                });
                due -= 1;
            }
            cursor = (cursor + 1) % self.slots.bound();
        }
        if let Some(drain) = &mut self.drain {
            drain.cursor = cursor;
        }
    }
}
