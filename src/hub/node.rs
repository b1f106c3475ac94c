//! What all parts of a node know of it: its names, its room, and whether it is leaving.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// One node, as its threads share it. Everything but the counters is fixed at start.
pub struct Node {
    /// `ip:apiPort`, as in session ids and the node table.
    pub name: String,
    /// Where this node's own clients connect: `ws://ADDR:PORT/PATH`.
    pub ws_url: String,
    /// What other clients are told to connect to; none where nothing is known that they could reach.
    pub public_url: Option<String>,
    pub max_connections: usize,
    connections: AtomicUsize,
    strangers: AtomicUsize,
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
            connections: AtomicUsize::new(0),
            strangers: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
        }
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

    /// Those who have not said who they are hold more than half of the places.
    pub fn has_too_many_strangers(&self) -> bool {
        self.strangers.load(Relaxed) > self.max_connections.div_ceil(2)
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
