//! What happened, told to the judge as it happens, and kept for whoever wants to read it.

use std::collections::BTreeMap;

use throng_history::{Event, Judge, Report, Sent, What};

/// The receiver of a message that names several: whoever gets it.
pub const SEVERAL: &str = "*";

#[derive(Default)]
pub struct Book {
    judge: Judge,
    line: u64,
    /// Milliseconds since the world began.
    pub ms: u64,
    /// The whole trace, if it is kept.
    trace: Option<Vec<String>>,
    /// Pushes that were scheduled: who sent them hears at once, and the judge when they stand in
    /// the inbox, because their place there is none that their acceptance gave them.
    scheduled: BTreeMap<String, What>,
    pub counts: Counts,
}

/// What the judge does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub crashes: u64,
    pub cuts: u64,
    pub mute: u64,
    pub group_deliveries: u64,
    pub push_deliveries: u64,
    pub cancelled: u64,
    pub inbox_full: u64,
    pub conflicts: u64,
    pub epochs: u64,
    /// Of clusters: a connection was closed because another one took its place.
    pub replaced: u64,
    /// Lives that a process began anew, because its lease had run out.
    pub lives: u64,
    /// Restarts of Redis with everything, and with a part or nothing of it.
    pub restarts: u64,
    pub rollbacks: u64,
    /// Ways to be cut off from the bus, and nodes that were stopped for a while.
    pub gaps: u64,
    pub stops: u64,
}

impl Book {
    pub fn new(keeps_trace: bool) -> Book {
        Book {
            trace: keeps_trace.then(Vec::new),
            ..Book::default()
        }
    }

    pub fn write(&mut self, what: What) {
        let scheduled = match &what {
            What::Deliver { sent, .. } => self.scheduled.remove(&name(sent)),
            _ => None,
        };
        self.line += 1;
        let event = Event { at: self.ms, what };
        let line = self.line;
        self.note(|| format!("{line} {event:?}"));
        self.judge.see(self.line, &event);
        if let Some(confirmed) = scheduled {
            self.write(confirmed);
        }
    }

    /// Something for the reader of the trace alone.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let ms = self.ms;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{ms:>8} {}", text()));
        }
    }

    /// A push was accepted for a later time.
    pub fn confirm_later(&mut self, sent: &Sent, message_id: String, dup: bool) {
        let what = What::Confirmed {
            sent: sent.clone(),
            message_id,
            dup,
        };
        self.scheduled.insert(name(sent), what);
    }

    /// It was taken back. False if it has come already.
    pub fn take_back(&mut self, sent: &Sent) -> bool {
        self.scheduled.remove(&name(sent)).is_some()
    }

    pub fn finish(mut self) -> (Report, Counts, Vec<String>) {
        for (_, confirmed) in std::mem::take(&mut self.scheduled) {
            self.write(confirmed);
        }
        self.write(What::Drained {});
        (
            self.judge.finish(),
            self.counts,
            self.trace.unwrap_or_default(),
        )
    }
}

/// A message as text, which it carries as well, so that whoever gets it knows what it was.
pub fn name(sent: &Sent) -> String {
    let class = match sent.class {
        throng_history::Class::Single => "single",
        throng_history::Class::Group => "group",
        throng_history::Class::Push => "push",
    };
    format!("{class} {} {} {}", sent.sender, sent.to, sent.msgid)
}

/// What a message says that it is; whatever stands behind that only makes its body another one.
pub fn parse(text: &str) -> Option<Sent> {
    let mut words = text.split(' ');
    let class = match words.next()? {
        "single" => throng_history::Class::Single,
        "group" => throng_history::Class::Group,
        "push" => throng_history::Class::Push,
        _ => return None,
    };
    let mut word = || words.next().map(str::to_owned);
    Some(Sent {
        class,
        sender: word()?,
        to: word()?,
        msgid: word()?,
    })
}
