//! What came of the chats of one worker's clients, or of all.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::tally;

/// What came of the chats. Times are nanoseconds since a message was due.
#[derive(Clone, Debug)]
pub struct ChatTally {
    pub attempts: u64,
    pub confirmed: u64,
    /// Of those confirmed: the server had it already.
    pub dups: u64,
    pub refused: BTreeMap<u16, u64>,
    pub given_up: u64,
    pub unknown: u64,
    pub delivered: u64,
    /// Entries that the application had already; of these, so many came twice on one connection.
    pub repeated: u64,
    pub doubled: u64,
    /// New entries behind later ones on one connection.
    pub out_of_order: u64,
    /// Messages that reached somebody else.
    pub misrouted: u64,
    /// Entries of other runs.
    pub foreign: u64,
    pub acks: u64,
    pub answers: u64,
    pub noticed: u64,
    pub gaps: u64,
    pub comebacks: u64,
    pub to_stored: Histogram<u64>,
    pub to_delivered: Histogram<u64>,
    pub to_noticed: Histogram<u64>,
    /// Between clients neither of whom had lost its connection lately.
    pub steady_stored: Histogram<u64>,
    pub steady_delivered: Histogram<u64>,
}

impl Default for ChatTally {
    fn default() -> ChatTally {
        ChatTally {
            attempts: 0,
            confirmed: 0,
            dups: 0,
            refused: BTreeMap::new(),
            given_up: 0,
            unknown: 0,
            delivered: 0,
            repeated: 0,
            doubled: 0,
            out_of_order: 0,
            misrouted: 0,
            foreign: 0,
            acks: 0,
            answers: 0,
            noticed: 0,
            gaps: 0,
            comebacks: 0,
            to_stored: tally::latencies(),
            to_delivered: tally::latencies(),
            to_noticed: tally::latencies(),
            steady_stored: tally::latencies(),
            steady_delivered: tally::latencies(),
        }
    }
}

impl ChatTally {
    /// What a node must not do came to pass: something came twice on one connection, after what
    /// came later, or to somebody else.
    pub fn has_faults(&self) -> bool {
        self.doubled + self.out_of_order + self.misrouted > 0
    }

    pub fn add(&mut self, other: &ChatTally) -> Result<(), hdrhistogram::AdditionError> {
        self.attempts += other.attempts;
        self.confirmed += other.confirmed;
        self.dups += other.dups;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        self.given_up += other.given_up;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
        self.foreign += other.foreign;
        self.acks += other.acks;
        self.answers += other.answers;
        self.noticed += other.noticed;
        self.gaps += other.gaps;
        self.comebacks += other.comebacks;
        self.to_stored.add(&other.to_stored)?;
        self.to_delivered.add(&other.to_delivered)?;
        self.to_noticed.add(&other.to_noticed)?;
        self.steady_stored.add(&other.steady_stored)?;
        self.steady_delivered.add(&other.steady_delivered)
    }
}
