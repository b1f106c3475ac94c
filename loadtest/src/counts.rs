//! What happened to the clients, counted by name.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::frame::BadFrame;

/// How a connection failed, other than by a close frame of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The upgrade was answered with this status.
    Refused(u16),
    BadUpgrade,
    BadFrame(BadFrame),
    /// The server answered the registration with an error.
    NotRegistered,
    /// The server's end came without a close frame.
    Ended,
    /// No type 8 answer in time.
    HandshakeTimeout,
    /// A chat message was not answered in time.
    Unanswered,
    /// The client's own close frame was not answered in time.
    NoGoodbye,
    /// The server reads so slowly that a small frame found no room.
    SendBlocked,
    /// This error of the operating system.
    Os(i32),
}

impl From<BadFrame> for Failure {
    fn from(bad: BadFrame) -> Failure {
        Failure::BadFrame(bad)
    }
}

impl From<&std::io::Error> for Failure {
    fn from(error: &std::io::Error) -> Failure {
        Failure::Os(error.raw_os_error().unwrap_or(0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(status) => write!(f, "upgrade refused with {status}"),
            Failure::BadUpgrade => write!(f, "malformed answer to the upgrade"),
            Failure::BadFrame(bad) => write!(f, "bad frame: {bad}"),
            Failure::NotRegistered => write!(f, "registration refused"),
            Failure::Ended => write!(f, "ended without a close frame"),
            Failure::HandshakeTimeout => write!(f, "not registered in time"),
            Failure::Unanswered => write!(f, "a message was not answered"),
            Failure::NoGoodbye => write!(f, "the goodbye was not answered"),
            Failure::SendBlocked => write!(f, "the server does not read"),
            Failure::Os(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Only `open` ever shrinks. Counts of several threads add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// TCP connections begun.
    pub attempted: u64,
    /// Got as far as the type 8 answer.
    pub registered: u64,
    /// Registered, and still there.
    pub open: u64,
    /// Upgrades refused, by HTTP status.
    pub refused: BTreeMap<u16, u64>,
    /// Close frames received, by code; 1005 is one without a code.
    pub closes: BTreeMap<u16, u64>,
    /// Connections that failed otherwise, by cause.
    pub errors: BTreeMap<String, u64>,
    /// Frames and bytes received, the upgrade's answer included in the bytes.
    pub frames: u64,
    pub bytes: u64,
    pub pings_answered: u64,
    /// Broadcasts of the crowd heard for the first time.
    pub broadcasts: u64,
    /// Direct messages of the crowd heard for the first time, by the one they were for.
    pub directs: u64,
    /// Pushes of the crowd heard for the first time, by those they were for.
    pub pushes: u64,
    /// Of all these: heard after a later one.
    pub out_of_order: u64,
    /// Messages heard again.
    pub repeated: u64,
    /// Messages that reached somebody else.
    pub misrouted: u64,
    /// Messages of the crowd that nobody waited for (any more).
    pub stray: u64,
    /// Error frames.
    pub refusals: u64,
    /// Texts of any other kind, after the registration.
    pub other: u64,
}

impl Counts {
    /// What a node must not do came to pass: a message came twice, after a later one, or to
    /// somebody else.
    pub fn has_faults(&self) -> bool {
        self.repeated + self.out_of_order + self.misrouted > 0
    }

    pub fn fail(&mut self, failure: Failure) {
        match failure {
            Failure::Refused(status) => *self.refused.entry(status).or_default() += 1,
            other => *self.errors.entry(other.to_string()).or_default() += 1,
        }
    }

    pub fn add(&mut self, other: &Counts) {
        self.attempted += other.attempted;
        self.registered += other.registered;
        self.open += other.open;
        add_each(&mut self.refused, &other.refused);
        add_each(&mut self.closes, &other.closes);
        add_each(&mut self.errors, &other.errors);
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.pings_answered += other.pings_answered;
        self.broadcasts += other.broadcasts;
        self.directs += other.directs;
        self.pushes += other.pushes;
        self.out_of_order += other.out_of_order;
        self.repeated += other.repeated;
        self.misrouted += other.misrouted;
        self.stray += other.stray;
        self.refusals += other.refusals;
        self.other += other.other;
    }
}

pub(crate) fn add_each<K: Ord + Clone>(sum: &mut BTreeMap<K, u64>, other: &BTreeMap<K, u64>) {
    for (key, count) in other {
        *sum.entry(key.clone()).or_default() += count;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connections  {} attempted, {} registered, {} open",
            self.attempted, self.registered, self.open
        )?;
        for (status, count) in &self.refused {
            writeln!(f, "refused      {count} with HTTP {status}")?;
        }
        for (code, count) in &self.closes {
            writeln!(f, "closed       {count} with code {code}")?;
        }
        for (cause, count) in &self.errors {
            writeln!(f, "failed       {count}: {cause}")?;
        }
        write!(
            f,
            "received     {} frames, {} bytes; {} pings answered, {} broadcasts, {} direct messages, {} pushes",
            self.frames,
            self.bytes,
            self.pings_answered,
            self.broadcasts,
            self.directs,
            self.pushes
        )?;
        for (count, what) in [
            (self.repeated, "repeated"),
            (self.out_of_order, "out of order"),
            (self.misrouted, "misrouted"),
            (self.stray, "waited for by nobody"),
            (self.refusals, "error frames"),
            (self.other, "other texts"),
        ] {
            if count > 0 {
                write!(f, "\nunexpected   {count} {what}")?;
            }
        }
        Ok(())
    }
}
