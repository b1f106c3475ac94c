//! What all parts of a node know of it: its names, its room, and whether it is leaving.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::parts::key::Key;

/// Above its budget by this part, the node takes nothing more for others.
const OVERDRAFT_DIVISOR: usize = 8;

/// One node, as its threads share it. Everything but the counters is fixed at start.
pub struct Node {
    /// `ip:apiPort`, as in session ids and the node table.
    pub name: String,
    /// Where this node's own clients connect: `ws://ADDR:PORT/PATH`.
    pub ws_url: String,
    /// What other clients are told to connect to; none where nothing is known that they could reach.
    pub public_url: Option<String>,
    pub max_connections: usize,
    /// Different for each process: keys begin anew with each, and what is stored outlives it.
    life: u64,
    connections: AtomicUsize,
    strangers: AtomicUsize,
    /// Places in percent that strangers may hold.
    strangers_percent_max: AtomicUsize,
    /// Bytes in all write queues, and how many there may be.
    queued: AtomicUsize,
    queued_max: AtomicUsize,
    draining: AtomicBool,
}

impl Node {
    pub fn new(
        name: String,
        ws_url: String,
        public_url: Option<String>,
        max_connections: usize,
    ) -> Node {
        Node {
            name,
            ws_url,
            public_url,
            max_connections,
            life: RandomState::new().build_hasher().finish(),
            connections: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            strangers_percent_max: AtomicUsize::new(50),
            queued: AtomicUsize::new(0),
            queued_max: AtomicUsize::new(usize::MAX),
            draining: AtomicBool::new(false),
        }
    }

    /// What a connection is called in rows that may outlive this process.
    pub fn mark(&self, connection: Key) -> u64 {
        connection.bits() ^ self.life
    }

    /// The connection that is called so. In another process it was that of nobody who is here.
    pub fn marked(&self, mark: u64) -> Key {
        Key::from_bits(mark ^ self.life)
    }

    /// Takes one of the node's places; false if all are taken.
    pub fn admit(&self) -> bool {
        let is_admitted = self.connections.fetch_add(1, Relaxed) < self.max_connections;
        if !is_admitted {
            self.connections.fetch_sub(1, Relaxed);
        }
        is_admitted
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Places taken: sockets that were admitted, authenticated or not.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// One more, or one less, of those admitted has not said who it is.
    pub fn count_stranger(&self, is_one_more: bool) {
        if is_one_more {
            self.strangers.fetch_add(1, Relaxed);
        } else {
            self.strangers.fetch_sub(1, Relaxed);
        }
    }

    /// Connections that have not said who they are.
    pub fn strangers(&self) -> usize {
        self.strangers.load(Relaxed)
    }

    /// They hold more than their part of the places.
    pub fn has_too_many_strangers(&self) -> bool {
        let percent = self.strangers_percent_max.load(Relaxed);
        self.strangers.load(Relaxed) > (self.max_connections * percent).div_ceil(100)
    }

    /// The limits of the whole node; they may change while it runs.
    pub fn set_limits(&self, strangers_percent_max: u32, queued_max: usize) {
        let percent = strangers_percent_max as usize;
        self.strangers_percent_max.store(percent, Relaxed);
        self.queued_max.store(queued_max, Relaxed);
    }

    /// A reactor's write queues have grown or shrunk.
    pub fn note_queued(&self, before: usize, after: usize) {
        if after > before {
            self.queued.fetch_add(after - before, Relaxed);
        } else if after < before {
            self.queued.fetch_sub(before - after, Relaxed);
        }
    }

    /// Bytes in all write queues.
    pub fn queued(&self) -> usize {
        self.queued.load(Relaxed)
    }

    pub fn queued_max(&self) -> usize {
        self.queued_max.load(Relaxed)
    }

    /// The largest write queues are to be shed.
    pub fn is_over_budget(&self) -> bool {
        self.queued() > self.queued_max()
    }

    /// Shedding was not enough: nothing more is taken for others.
    pub fn is_out_of_room(&self) -> bool {
        let max = self.queued_max();
        self.queued() > max.saturating_add(max / OVERDRAFT_DIVISOR)
    }

    pub fn start_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_admitted_than_the_cap() {
        let node = Node::new("n".into(), "ws://x".into(), None, 2);
        assert!(node.admit() && node.admit() && !node.admit());
        node.leave();
        assert!(node.admit() && !node.admit());
        assert_eq!(node.connections(), 2);
    }

    #[test]
    fn a_connection_is_known_by_its_mark_in_the_same_process_only() {
        let [before, after] = [1, 2].map(|max| Node::new("n".into(), "ws://x".into(), None, max));
        let key = Key::new(3, 7, 0);
        assert_eq!(before.marked(before.mark(key)), key);
        assert_ne!(after.marked(before.mark(key)), key);
    }

    #[test]
    fn queues_past_the_budget_are_shed_and_then_nothing_is_taken() {
        let node = Node::new("n".into(), "ws://x".into(), None, 1);
        node.set_limits(50, 800);
        let state = |queued: usize| {
            node.note_queued(node.queued(), queued);
            (node.is_over_budget(), node.is_out_of_room())
        };
        assert_eq!(state(800), (false, false));
        assert_eq!(state(801), (true, false));
        assert_eq!(state(900), (true, false));
        assert_eq!(state(901), (true, true));
        assert_eq!(state(0), (false, false));
    }

    #[test]
    fn strangers_hold_half_of_the_places_at_most() {
        let node = Node::new("n".into(), "ws://x".into(), None, 3);
        node.count_stranger(true);
        node.count_stranger(true);
        assert!(!node.has_too_many_strangers());
        node.count_stranger(true);
        assert!(node.has_too_many_strangers());
        node.count_stranger(false);
        assert!(!node.has_too_many_strangers());
    }
}
