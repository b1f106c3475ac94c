//! Faults that tests switch on at run time: points at which the process dies, and ways to be
//! wrong that whoever judges a run has to notice. Only a build with the feature `faults` can have
//! any; in all others what stands here is nothing.
//!
//! `THRONG_CRASH_AT=<point>[:<n>]` ends the process, as SIGKILL would, when the point is passed
//! for the n-th time, the first if it does not say. `THRONG_MUTANT=<name>` makes the process be
//! wrong in one way; a thread may choose its own with [`with_mutant`]. What scripts do inside of
//! Redis has no mutants of its own: there the model of it is wrong by which the simulation goes.

/// A point at which a process can die, in the order in which a request passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Requests have left the queue, and nothing is done for them.
    Taken,
    /// The rows of a batch are changed, and not committed.
    Written,
    /// A batch is committed, and nobody has heard of it.
    Committed,
    /// Whoever asked has been answered, and nobody else has heard of it.
    Answered,
    /// All have heard of it who are connected.
    Rung,
    /// A batch is committed in which not all work for groups was done.
    FannedOut,
    /// Bytes were given to a socket.
    Sent,
}

/// A way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// What is answered is not durable yet.
    AnswersEarly,
    /// A repeated message is a new one.
    NoDedupe,
    /// A hole in what arrives is not read from the log.
    DoorbellOnly,
    /// Anybody's acknowledgement counts.
    AnyonesAck,
    /// The sender hears of a delivery that is not written down.
    EarlyNotice,
    /// The sender hears of a delivery with each acknowledgement.
    NoticeEachTime,
    /// A full inbox drops its oldest entry, and nobody hears of it.
    SilentTrim,
    /// What grows old goes, and nobody hears of it.
    SilentExpiry,
    /// That a group's message has not come to its members is only remembered in memory.
    NoWorkItem,
    /// What was sent on a connection counts as having arrived.
    SentIsGot,
    /// A cursor is not heard.
    NoCursor,
    /// What nobody knows to be written is refused.
    UnknownIsNo,
    /// What connections know is not compared with what the store has.
    NoReconcile,
    /// Numbers go on under the old epoch, though the store may have lost something.
    SameEpoch,
    /// In the directory of a cluster: the end of a session takes out whatever its user has.
    AnyUnbind,
    /// In the directory of a cluster: what a dead life of a node wrote down counts.
    DeadCount,
}

impl Point {
    pub const ALL: [Point; 7] = [
        Point::Taken,
        Point::Written,
        Point::Committed,
        Point::Answered,
        Point::Rung,
        Point::FannedOut,
        Point::Sent,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Point::Taken => "taken",
            Point::Written => "written",
            Point::Committed => "committed",
            Point::Answered => "answered",
            Point::Rung => "rung",
            Point::FannedOut => "fanned-out",
            Point::Sent => "sent",
        }
    }

    /// The process ends here if it was told to.
    #[inline(always)]
    pub fn pass(self) {
        #[cfg(feature = "faults")]
        chosen::pass(self);
    }
}

impl Mutant {
    pub const ALL: [Mutant; 16] = [
        Mutant::AnswersEarly,
        Mutant::NoDedupe,
        Mutant::DoorbellOnly,
        Mutant::AnyonesAck,
        Mutant::EarlyNotice,
        Mutant::NoticeEachTime,
        Mutant::SilentTrim,
        Mutant::SilentExpiry,
        Mutant::NoWorkItem,
        Mutant::SentIsGot,
        Mutant::NoCursor,
        Mutant::UnknownIsNo,
        Mutant::NoReconcile,
        Mutant::SameEpoch,
        Mutant::AnyUnbind,
        Mutant::DeadCount,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Mutant::AnswersEarly => "answers-early",
            Mutant::NoDedupe => "no-dedupe",
            Mutant::DoorbellOnly => "doorbell-only",
            Mutant::AnyonesAck => "anyones-ack",
            Mutant::EarlyNotice => "early-notice",
            Mutant::NoticeEachTime => "notice-each-time",
            Mutant::SilentTrim => "silent-trim",
            Mutant::SilentExpiry => "silent-expiry",
            Mutant::NoWorkItem => "no-work-item",
            Mutant::SentIsGot => "sent-is-got",
            Mutant::NoCursor => "no-cursor",
            Mutant::UnknownIsNo => "unknown-is-no",
            Mutant::NoReconcile => "no-reconcile",
            Mutant::SameEpoch => "same-epoch",
            Mutant::AnyUnbind => "any-unbind",
            Mutant::DeadCount => "dead-count",
        }
    }

    /// This thread, or this process, is to be wrong in this way.
    #[inline(always)]
    pub fn is_on(self) -> bool {
        #[cfg(feature = "faults")]
        return chosen::mutant() == Some(self);
        #[cfg(not(feature = "faults"))]
        false
    }
}

/// Runs `work` on this thread with one mutant, or with none.
#[cfg(feature = "faults")]
pub fn with_mutant<T>(mutant: Option<Mutant>, work: impl FnOnce() -> T) -> T {
    chosen::with(mutant, work)
}

#[cfg(feature = "faults")]
mod chosen {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::{Mutant, Point};

    thread_local! {
        /// What this thread has chosen, if it has.
        static OWN: Cell<Option<Option<Mutant>>> = const { Cell::new(None) };
    }

    pub fn with<T>(mutant: Option<Mutant>, work: impl FnOnce() -> T) -> T {
        let before = OWN.replace(Some(mutant));
        let result = work();
        OWN.set(before);
        result
    }

    pub fn mutant() -> Option<Mutant> {
        static OF_PROCESS: OnceLock<Option<Mutant>> = OnceLock::new();
        OWN.get().unwrap_or_else(|| {
            *OF_PROCESS.get_or_init(|| {
                let name = std::env::var("THRONG_MUTANT").ok()?;
                let found = Mutant::ALL.into_iter().find(|one| one.name() == name);
                Some(found.unwrap_or_else(|| panic!("THRONG_MUTANT={name} is no mutant")))
            })
        })
    }

    pub fn pass(point: Point) {
        static CRASH: OnceLock<Option<(Point, u64)>> = OnceLock::new();
        static PASSED: AtomicU64 = AtomicU64::new(0);
        let crash = CRASH.get_or_init(|| Some(parse(&std::env::var("THRONG_CRASH_AT").ok()?)));
        if let Some((at, times)) = crash
            && *at == point
            && PASSED.fetch_add(1, Relaxed) + 1 == *times
        {
            std::process::abort();
        }
    }

    fn parse(text: &str) -> (Point, u64) {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.into_iter().find(|point| point.name() == name);
        match (point, times.parse()) {
            (Some(point), Ok(times)) => (point, times),
            _ => panic!("THRONG_CRASH_AT={text} is not <point>[:<n>]"),
        }
    }
}
