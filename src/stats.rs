//! What a node counts. Each reactor writes its own numbers, anyone reads them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::protocol::limits::Limit;

/// A number with one writer: adding is a load and a store, no locked instruction.
#[derive(Default, Debug)]
#[repr(transparent)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Close codes that are counted apart; any other is counted as the last.
pub const CLOSE_CODES: [u16; 20] = [
    1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4401, 4403, 4408, 4409, 4410,
    4413, 4429, 4431, 0,
];

/// HTTP statuses of refused upgrades that are counted apart; any other is counted as the last.
pub const REFUSALS: [u16; 11] = [400, 401, 403, 404, 408, 414, 426, 431, 503, 505, 0];

/// Codes of errors that do not end a connection; any other is counted as the last.
pub const ERRORS: [u16; 9] = [400, 401, 403, 404, 409, 413, 429, 503, 0];

/// Upper bounds of the turn histogram, in microseconds of thread CPU time; one more for the rest.
pub const TURN_MICROS: [u64; 8] = [50, 200, 1000, 5000, 10_000, 20_000, 50_000, 100_000];

/// The storekeeper's numbers.
#[derive(Default, Debug)]
pub struct StoreStats {
    /// Gauge: 1 while the store does what it is asked.
    pub up: Count,
    pub requests: Count,
    pub batches: Count,
    /// Time spent in transactions, the disk's among it.
    pub micros: Count,
    /// Gauge: requests that waited when the last batch was taken.
    pub waiting: Count,
}

/// What a node counts of its cluster. The bus reader writes the words and the gaps, the keeper
/// all else.
#[derive(Default, Debug)]
pub struct ClusterStats {
    /// Gauge: 1 while the node has its lease and can speak to the others.
    pub up: Count,
    /// Gauge: 1 while the node hears itself on the bus.
    pub hears: Count,
    /// Words heard.
    pub words_in: Count,
    /// Times that something may have been said unheard.
    pub gaps: Count,
    /// Words for sessions that a full mailbox refused.
    pub dropped: Count,
    /// Gauge: 1 until the table of the nodes is read anew.
    pub nodes_changed: Count,
    /// Words published.
    pub words_out: Count,
    /// Errands done, and those that could not be.
    pub errands: Count,
    pub errands_lost: Count,
    /// Sessions whose inboxes were compared with what they know.
    pub compared: Count,
    /// Sessions that were written down anew.
    pub rebound: Count,
    /// Gauge: nodes that are alive, this one among them.
    pub nodes: Count,
}

impl ClusterStats {
    /// The node can speak to the others, and hears them.
    pub fn is_whole(&self) -> bool {
        self.up.get() == 1 && self.hears.get() == 1
    }
}

/// One reactor's numbers. Gauges say so; all others only grow.
#[derive(Default, Debug)]
pub struct ReactorStats {
    /// Sockets accepted.
    pub accepted: Count,
    /// Gauge: sockets held, farewells and closing ones included.
    pub open: Count,
    /// Gauge: bound to a user.
    pub bound: Count,
    pub refusals: [Count; REFUSALS.len()],
    /// Closings by code; 1006 are those that ended without a close frame.
    pub closes: [Count; CLOSE_CODES.len()],
    /// Errors that did not end a connection, by code.
    pub errors: [Count; ERRORS.len()],
    /// Limits that struck.
    pub strikes: Strikes,
    /// Newcomers beyond the cap that were told where to go.
    pub farewells: Count,
    /// Frames and bytes read from clients, after the upgrade.
    pub frames_in: Count,
    pub bytes_in: Count,
    /// Bytes written to clients.
    pub bytes_out: Count,
    /// Writes to sockets that carried them.
    pub writes: Count,
    /// Envelopes handed to a session (direct frames and pushes).
    pub deliveries: Count,
    /// Broadcast frames handed to a session.
    pub broadcast_deliveries: Count,
    pub pings: Count,
    /// Gauge: bytes in write queues.
    pub queued_bytes: Count,
    /// Times that the descriptor table was full.
    pub descriptors_exhausted: Count,
    /// Messages for a session that a full mailbox or write queue refused.
    pub dropped: Count,
    pub turns: Count,
    pub turn_micros: Count,
    pub turn_histogram: [Count; TURN_MICROS.len() + 1],
    pub turn_worst_micros: Count,
    /// Gauge: milliseconds of the node's clock when the running turn began, 0 while it sleeps.
    pub turn_since_ms: Count,
    /// Gauge: entries in the timing wheel.
    pub timers: Count,
}

/// How often each limit struck; one writer.
#[derive(Debug)]
pub struct Strikes([Count; Limit::ALL.len()]);

impl Default for Strikes {
    fn default() -> Strikes {
        Strikes(std::array::from_fn(|_| Count::default()))
    }
}

impl Strikes {
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].add(1);
    }

    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].get()
    }
}

impl ReactorStats {
    pub fn count_error(&self, code: u16) {
        count_in(&ERRORS, &self.errors, code);
    }

    pub fn count_close(&self, code: u16) {
        count_in(&CLOSE_CODES, &self.closes, code);
    }

    pub fn count_refusal(&self, status: u16) {
        count_in(&REFUSALS, &self.refusals, status);
    }

    /// CPU time of a turn, without the wait before it.
    pub fn count_turn(&self, micros: u64) {
        let bucket = TURN_MICROS.iter().position(|&top| micros <= top);
        self.turn_histogram[bucket.unwrap_or(TURN_MICROS.len())].add(1);
        self.turns.add(1);
        self.turn_micros.add(micros);
        self.turn_worst_micros
            .set(self.turn_worst_micros.get().max(micros));
    }
}

fn count_in(names: &[u16], counts: &[Count], name: u16) {
    let at = names
        .iter()
        .position(|&n| n == name)
        .unwrap_or(names.len() - 1);
    counts[at].add(1);
}
