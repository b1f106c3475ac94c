//! Connections that have not said who they are: they hold half of the node's places at most, and
//! the oldest makes room.
//!
//! Owns: their keys in the order of arrival. One that has become known stays in the list until
//! it is at the front, or the list is mostly such, and is then left out.

use std::collections::VecDeque;

use super::Reactor;
use crate::parts::key::Key;
use crate::parts::time::Now;
use crate::protocol::violation::Violation;

/// The list is tidied when it is longer than twice those who are in it for a reason, and this.
const SLACK: usize = 64;

#[derive(Default)]
pub struct Strangers {
    by_age: VecDeque<Key>,
    count: usize,
}

impl Reactor {
    /// A newcomer has been admitted: it is a stranger until it is known.
    pub(super) fn note_stranger(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        connection.is_stranger = true;
        self.shared.node.count_stranger(true);
        self.strangers.count += 1;
        self.strangers.by_age.push_back(key);
        if self.strangers.by_age.len() > 2 * self.strangers.count + SLACK {
            let slots = &self.slots;
            self.strangers.by_age.retain(|&key| {
                slots
                    .get(key)
                    .is_some_and(|connection| connection.is_stranger)
            });
            self.strangers
                .by_age
                .shrink_to(2 * self.strangers.count + SLACK);
        }
        while self.shared.node.has_too_many_strangers()
            && let Some(oldest) = self.strangers.by_age.pop_front()
        {
            if self
                .slots
                .get(oldest)
                .is_some_and(|connection| connection.is_stranger)
            {
                self.with_session(oldest, now, |session, cx| {
                    session.violate(Violation::TooManyStrangers, cx);
                });
            }
        }
    }

    /// After anything has happened to a session: it may be a stranger no longer.
    pub(super) fn check_stranger(&mut self, key: Key) {
        if let Some(connection) = self.slots.get_mut(key)
            && connection.is_stranger
            && !connection.session.is_stranger()
        {
            connection.is_stranger = false;
            self.shared.node.count_stranger(false);
            self.strangers.count -= 1;
        }
    }
}
