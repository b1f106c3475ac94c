//! The vocabulary of a history, one event a line:
//! `{"at":1795277705359,"what":{"drained":{}}}`.
//!
//! Two clocks: `at` is for durations only, and the order of the lines is for what came first.
//! So a client writes down what it sends before it sends it, and what it receives afterwards;
//! then a cause stands before its effect, whichever client wrote it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds on a clock that all writers share, Unix time for example.
    pub at: u64,
    pub what: What,
}

impl Event {
    /// The event as a line, its end included.
    pub fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.push(b'\n');
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// From user to user; its sender is told when it was delivered.
    Single,
    Group,
    /// From a backend to a user.
    Push,
}

/// A message as its sender names it. It may be sent several times.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub class: Class,
    pub sender: String,
    pub msgid: String,
    /// The receiver, or the group.
    pub to: String,
}

/// A connection, of this device of this user. Its number is its own for the whole history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub user: String,
    pub device: String,
    pub connection: u64,
}

/// A place in the inbox of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub epoch: String,
    pub seq: u64,
}

/// What came out of an inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub place: Place,
    /// Of the message, also in the notice that it was delivered.
    pub message_id: String,
    #[serde(default)]
    pub redelivered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// From now on these are the members. Who is in it while a message is on its way may get it.
    Group {
        group: String,
        members: Vec<String>,
    },
    /// A message is about to be sent, on this connection if it is over one. Each repetition is
    /// written down as well, and each has one outcome at most.
    Send {
        sent: Sent,
        connection: Option<u64>,
    },
    /// Stored (type 0); `dup` where the gateway said that it had it already.
    Confirmed {
        sent: Sent,
        message_id: String,
        dup: bool,
    },
    /// Refused. A definite refusal promises that this attempt is delivered to nobody.
    Failed {
        sent: Sent,
        definite: bool,
        code: u16,
    },
    /// No answer will come any more.
    Unknown {
        sent: Sent,
    },
    /// An entry other than a notice came over the wire.
    Receive {
        on: Link,
        entry: Entry,
    },
    /// The application got a message. What it was sent as stands in the message itself.
    Deliver {
        on: Link,
        entry: Entry,
        sent: Sent,
    },
    /// An acknowledgement (type 15) is about to be sent.
    Ack {
        on: Link,
        message_id: String,
    },
    /// Everything up to this place is about to be acknowledged, by a cursor or by `upTo`.
    Pass {
        user: String,
        device: String,
        place: Place,
    },
    /// An acknowledgement was answered (type 16).
    Answered {
        on: Link,
        message_id: String,
        status: u16,
    },
    /// The notice (type 17) came that `by` has acknowledged a message.
    Notify {
        on: Link,
        entry: Entry,
        by: String,
    },
    /// The gateway said that something may be missing before the entry `from` (resync).
    Gap {
        on: Link,
        epoch: String,
        head_seq: u64,
        from: u64,
    },
    /// The connection was made, with this cursor.
    Open {
        on: Link,
        cursor: Option<Place>,
    },
    Close {
        on: Link,
    },
    /// The store has lost some of what it had written down. What was sent before may be a new
    /// message to it when it is repeated.
    StoreLost {},
    FaultStart {
        fault: String,
    },
    FaultStop {
        fault: String,
    },
    /// All faults have ended.
    Heal {},
    /// Nobody sends any more, and what was still to come has had its time.
    Drained {},
}
