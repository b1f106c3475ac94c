//! The other nodes of a cluster, as this one knows them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

/// The nodes of a cluster but this one. It is written by whoever reads their leases.
pub struct Others {
    /// It is known who is where. Without that, everything for users goes to all nodes.
    pub has_directory: bool,
    nodes: RwLock<Arc<[NodeView]>>,
    /// Sessions that a user may have.
    sessions_max: AtomicUsize,
    /// What of this node cannot speak to the others at present, as bits.
    down: AtomicU8,
    /// What the store wrote down of who is here may be wrong.
    is_doubtful: AtomicBool,
}

/// A node, as its lease tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    pub name: String,
    /// Another one in each life of the node.
    pub epoch: u64,
    pub connections: usize,
    pub max_connections: usize,
    pub users: usize,
    pub sessions: usize,
    pub is_draining: bool,
    pub ws_url: String,
    pub public_url: Option<String>,
}

impl NodeView {
    /// How many clients may still come.
    pub fn room(&self) -> usize {
        if self.is_draining {
            return 0;
        }
        self.max_connections.saturating_sub(self.connections)
    }
}

/// What of a node speaks to the others.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Store = 1,
    Keeper = 2,
    Bus = 4,
}

/// What a change of one part means for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first part is down.
    Down,
    /// All parts are up again.
    Up,
    /// Nothing new.
    None,
}

impl Others {
    pub fn new(has_directory: bool) -> Others {
        Others {
            has_directory,
            nodes: RwLock::new(Arc::from([])),
            sessions_max: AtomicUsize::new(usize::MAX),
            down: AtomicU8::new(0),
            is_doubtful: AtomicBool::new(false),
        }
    }

    pub fn set(&self, nodes: Vec<NodeView>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes.into();
    }

    pub fn all(&self) -> Arc<[NodeView]> {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes.clone()
    }

    /// Of all nodes together; it may change while the node runs.
    pub fn set_sessions_max(&self, max: usize) {
        self.sessions_max.store(max, Relaxed);
    }

    pub fn sessions_max(&self) -> usize {
        self.sessions_max.load(Relaxed)
    }

    /// Notes that a part is up or down, so that of several that notice the same one tells it.
    pub fn note(&self, part: Part, is_up: bool) -> Turn {
        let bit = part as u8;
        if is_up {
            let before = self.down.fetch_and(!bit, Relaxed);
            let was_last = before == bit;
            return if was_last { Turn::Up } else { Turn::None };
        }
        let before = self.down.fetch_or(bit, Relaxed);
        if before == 0 { Turn::Down } else { Turn::None }
    }

    /// The store has failed: what it was to write down of who is here may be wrong.
    pub fn doubt(&self) {
        self.is_doubtful.store(true, Relaxed);
    }

    /// True once for each doubt.
    pub fn take_doubt(&self) -> bool {
        self.is_doubtful.swap(false, Relaxed)
    }

    /// A node that clients can be told of, each as likely as it has room. None where all that
    /// are known are full, leaving or without a public URL. `random`: any number.
    pub fn with_room(&self, random: u64) -> Option<NodeView> {
        let nodes = self.all();
        let candidates = || nodes.iter().filter(|node| node.public_url.is_some());
        let room: usize = candidates().map(NodeView::room).sum();
        let mut at = (random % room.max(1) as u64) as usize;
        candidates()
            .find(|node| {
                let is_it = at < node.room();
                at = at.saturating_sub(node.room());
                is_it
            })
            .cloned()
    }

    /// Places that are free on all of them.
    pub fn room(&self) -> usize {
        self.all().iter().map(NodeView::room).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, connections: usize, is_draining: bool) -> NodeView {
        NodeView {
            name: name.to_owned(),
            epoch: 1,
            connections,
            max_connections: 10,
            users: 0,
            sessions: 0,
            is_draining,
            ws_url: String::new(),
            public_url: Some(format!("ws://{name}")),
        }
    }

    #[test]
    fn of_parts_that_go_down_together_one_tells_it() {
        let others = Others::new(true);
        assert_eq!(others.note(Part::Bus, true), Turn::None);
        assert_eq!(others.note(Part::Bus, false), Turn::Down);
        assert_eq!(others.note(Part::Store, false), Turn::None);
        assert_eq!(others.note(Part::Bus, true), Turn::None);
        assert_eq!(others.note(Part::Store, true), Turn::Up);
    }

    #[test]
    fn clients_are_sent_where_there_is_room_as_much_as_there_is() {
        let others = Others::new(true);
        assert_eq!(others.with_room(3), None);
        let hidden = NodeView {
            public_url: None,
            ..node("hidden", 0, false)
        };
        let nodes = [
            node("full", 10, false),
            node("nearly", 9, false),
            node("leaving", 0, true),
            hidden,
            node("empty", 0, false),
        ];
        others.set(nodes.to_vec());
        let named = |random| others.with_room(random).map(|node| node.name);
        let counted = |name: &str| {
            let is_it = |random: &u64| named(*random).as_deref() == Some(name);
            (0..110).filter(is_it).count()
        };
        assert_eq!((counted("nearly"), counted("empty")), (10, 100));
        assert_eq!(others.room(), 21);
    }
}
