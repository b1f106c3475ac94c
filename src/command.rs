//! What one thread may ask of a reactor. The one vocabulary between threads.

use std::sync::Arc;

use crate::parts::key::Key;

/// Encoded bytes that many share.
pub type Shared = Arc<[u8]>;

/// A question or an order to a reactor, through its mailbox.
#[derive(Debug)]
pub enum ToReactor {
    /// An envelope for one session: `tail` is the JSON text behind the receiver's own head
    /// (see `protocol::envelope`).
    Deliver { to: Key, tail: Shared },
    /// A whole frame (header and payload) for every bound connection.
    Broadcast { frame: Shared },
    /// Close all connections with 1012, paced, and then end.
    Drain { plan: DrainPlan },
}

/// How a reactor lets its connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Closings a second for the whole node; each reactor takes its share.
    pub per_sec: u32,
    /// When the last one must be gone, in seconds from now.
    pub within_secs: u32,
}
