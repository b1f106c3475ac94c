//! Messages for those whose metadata match: looked up in the index, and handed out some a turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Reactor;
use crate::command::Shared;
use crate::hub::post::Selector;
use crate::parts::key::Key;
use crate::parts::time::Now;

/// Connections that are given their share in a turn.
const HANDED_PER_TURN: usize = 512;

#[derive(Default)]
pub struct Selections {
    waiting: VecDeque<(Shared, Arc<Selector>)>,
    /// The one at work, and who has not been given it yet.
    current: Option<(Shared, Vec<Key>)>,
}

impl Selections {
    pub fn add(&mut self, frame: Shared, selector: Arc<Selector>) {
        self.waiting.push_back((frame, selector));
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.current.is_none()
    }
}

impl Reactor {
    pub(super) fn hand_out_selections(&mut self, now: Now) {
        for _ in 0..HANDED_PER_TURN {
            let Some((frame, mut keys)) = self.next_selection() else {
                return;
            };
            match keys.pop() {
                Some(key) => {
                    if self.catch_up(key, now) {
                        self.stats.broadcast_deliveries.add(1);
                        let owed = frame.clone();
                        self.owe(key, now, |outbox, _, _| outbox.push_shared(owed, 0));
                    }
                    self.selections.current = Some((frame, keys));
                }
                None => self.inbox.broadcast_done(frame.len()),
            }
        }
    }

    fn next_selection(&mut self) -> Option<(Shared, Vec<Key>)> {
        self.selections.current.take().or_else(|| {
            let (frame, selector) = self.selections.waiting.pop_front()?;
            Some((frame, self.desk.selectors.find(&selector)))
        })
    }
}
