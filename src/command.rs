//! What one thread may ask of a reactor. The one vocabulary between threads.

use std::sync::Arc;

use crate::hub::post::Selector;
use crate::hub::roster::Sessions;
use crate::inbox::records::Entry;
use crate::inbox::service::{Outcome, Request};
use crate::parts::key::Key;
use crate::protocol::away::{Errand, Heard};
use crate::protocol::envelope::Head;
use crate::session::rules::Rules;
use crate::session::ticket::Ticket;

/// Encoded bytes that many share.
pub type Shared = Arc<[u8]>;

/// A question or an order to a reactor, through its mailbox.
pub enum ToReactor {
    /// A message for one session: `tail` is the JSON text behind the receiver's own head (see
    /// `protocol::envelope`).
    Deliver { to: Key, head: Head, tail: Shared },
    /// The same for several.
    DeliverAll {
        to: Box<[Key]>,
        head: Head,
        tail: Shared,
    },
    /// A whole frame (header and payload) for every bound connection.
    Broadcast { frame: Shared },
    /// The same for those whose metadata match.
    Select {
        frame: Shared,
        selector: Arc<Selector>,
    },
    /// What came of a request to the store.
    Answer {
        to: Key,
        ticket: Box<Ticket>,
        outcome: Outcome,
    },
    /// An entry was appended to the inbox of these sessions' user.
    Ring { to: Sessions, rung: Arc<RungOut> },
    /// There may be something to read in the inbox of these sessions' user.
    Look { to: Sessions },
    /// What came of an errand to other nodes.
    Heard {
        to: Key,
        ticket: Box<Ticket>,
        heard: Heard,
    },
    /// What the store says of the inboxes of these connections' users.
    Heads(Box<[InboxHead]>),
    /// The end of one session.
    Close { to: Key, why: Bye },
    /// Other rules from now on.
    Reload { rules: Arc<Rules> },
    /// Close all connections with 1012, paced, and then end.
    Drain { plan: DrainPlan },
}

/// An entry on its way to those who are connected.
#[derive(Debug)]
pub struct RungOut {
    pub epoch: u64,
    pub seq: u64,
    pub entry: Arc<Entry>,
    /// The connection that it came from.
    pub but: Option<Key>,
}

/// Epoch and last entry of an inbox, for a connection of its user; none: there is no inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxHead {
    pub to: Key,
    pub place: Option<(u64, u64)>,
}

/// An errand to other nodes, and who waits for what comes of it.
pub struct Parting {
    pub errand: Errand,
    pub reply: HeardBy,
}

pub enum HeardBy {
    Nobody,
    Session {
        key: Key,
        ticket: Box<Ticket>,
    },
    /// Called on the thread that runs errands: it must be short.
    Call(Box<dyn FnOnce(Heard) + Send>),
}

/// A request to the store, and who waits for what comes of it.
pub struct Letter {
    pub request: Request,
    pub reply: ReplyTo,
}

/// Who waits. An outcome that nobody knows is told to nobody.
pub enum ReplyTo {
    Nobody,
    Session {
        key: Key,
        ticket: Box<Ticket>,
    },
    /// Called on the store's thread: it must be short.
    Call(Box<dyn FnOnce(Outcome) + Send>),
}

/// Why a session is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bye {
    /// A newer session has taken its place.
    Replaced,
    /// The operator wants it gone.
    Kicked,
}

impl Bye {
    pub fn close_code(self) -> u16 {
        match self {
            Bye::Replaced => 4409,
            Bye::Kicked => 4410,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Bye::Replaced => "replaced by a newer session",
            Bye::Kicked => "kicked",
        }
    }
}

/// How a reactor lets its connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Closings a second for the whole node; each reactor takes its share.
    pub per_sec: u32,
    /// When the last one must be gone, in seconds from now.
    pub within_secs: u32,
}
