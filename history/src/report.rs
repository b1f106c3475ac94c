//! What the judge says.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Of each kind so many violations are described; all are counted.
const DESCRIBED_MAX: u64 = 20;

/// What should not have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A confirmed message never came to a device that it was owed to.
    Lost,
    /// It came, longer than [`crate::check::PATIENCE_MS`] after nothing stood in its way.
    Late,
    /// Delivered though nobody sent it.
    Phantom,
    /// Delivered to somebody it was not for.
    WrongReceiver,
    /// The application got one messageId twice.
    DuplicateId,
    /// The application got one message twice, under two messageIds.
    DuplicateMsgid,
    /// A later one came first.
    Reordered,
    /// The same place of an inbox came again on one connection.
    Repeated,
    /// Places of an inbox were left out, and nobody said so.
    Hole,
    /// One message stands at two places of one inbox.
    TwoPlaces,
    /// One message was given two messageIds.
    TwoIds,
    /// Two messages were given one messageId.
    SharedId,
    /// Delivered though each attempt to send it was definitely refused.
    FailedDelivered,
    /// The first attempt that was not refused is called a repetition.
    FalseRepetition,
    /// A type 16 that no type 15 has asked for.
    AnswerWithoutAck,
    /// The acknowledgement of somebody whose inbox never held the message was accepted.
    ForgedAck,
    /// A type 17 before the receiver had acknowledged.
    NoticeWithoutAck,
    /// A second type 17 for one message and receiver.
    SecondNotice,
    /// A type 17 about something that this user did not send to that receiver.
    ForeignNotice,
    /// An acknowledgement was accepted, and the sender never got a type 17.
    LostNotice,
    /// The history ends before everything had its time, so it proves nothing.
    NotDrained,
    /// The history says what cannot be: whoever wrote it is at fault.
    Incoherent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Lost => "lost",
            Kind::Late => "late",
            Kind::Phantom => "phantom",
            Kind::WrongReceiver => "wrong receiver",
            Kind::DuplicateId => "delivered twice by messageId",
            Kind::DuplicateMsgid => "delivered twice by msgid",
            Kind::Reordered => "reordered",
            Kind::Repeated => "repeated on one connection",
            Kind::Hole => "silent hole",
            Kind::TwoPlaces => "two places for one message",
            Kind::TwoIds => "two ids for one msgid",
            Kind::SharedId => "one id for two messages",
            Kind::FailedDelivered => "refused and delivered",
            Kind::FalseRepetition => "false repetition",
            Kind::AnswerWithoutAck => "16 without 15",
            Kind::ForgedAck => "forged acknowledgement",
            Kind::NoticeWithoutAck => "17 without acknowledgement",
            Kind::SecondNotice => "second 17",
            Kind::ForeignNotice => "foreign 17",
            Kind::LostNotice => "lost 17",
            Kind::NotDrained => "not drained",
            Kind::Incoherent => "incoherent history",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub kind: Kind,
    /// The line of the history at which it showed; 0 if it showed at the end.
    pub line: u64,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}, at the end: {}", self.kind, self.text),
            line => write!(f, "{}, line {line}: {}", self.kind, self.text),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    pub events: u64,
    /// Messages, and attempts to send them.
    pub messages: u64,
    pub attempts: u64,
    pub confirmed: u64,
    /// Messages all of whose attempts were definitely refused.
    pub refused: u64,
    /// Messages of which nobody knows whether they were stored.
    pub unknown: u64,
    /// Confirmed messages that some live device was owed, and how many deliveries that makes.
    pub judged: u64,
    pub owed: u64,
    /// Of what was owed: what did not come, after a gap that was told.
    pub excused: u64,
    pub lost: u64,
    /// What the applications got.
    pub delivered: u64,
    pub received: u64,
    pub redelivered: u64,
    pub acks: u64,
    pub answers: u64,
    /// Acknowledgements that were answered 404.
    pub acks_unknown: u64,
    pub notices: u64,
    pub gaps: u64,
    pub connections: u64,
    pub faults: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub totals: Totals,
    /// How often each kind was seen.
    pub kinds: BTreeMap<Kind, u64>,
    /// The first few of each kind, in the order in which they showed.
    pub violations: Vec<Violation>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.kinds.is_empty()
    }

    pub fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    /// Where nothing was lost: the share that may be lost and this be luck, in one case of
    /// twenty. Messages that a told gap excuses prove nothing, so they are not among `n`.
    pub fn loss_rate_below(&self) -> Option<f64> {
        let n = self.totals.judged;
        (n > 0 && self.totals.lost == 0).then(|| (3.0 / n as f64).min(1.0))
    }

    pub(crate) fn add(&mut self, kind: Kind, line: u64, text: impl FnOnce() -> String) {
        let count = self.kinds.entry(kind).or_default();
        *count += 1;
        if *count <= DESCRIBED_MAX {
            let text = text();
            self.violations.push(Violation { kind, line, text });
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.totals;
        writeln!(
            f,
            "history      {} events, {} connections, {} faults",
            t.events, t.connections, t.faults
        )?;
        writeln!(
            f,
            "messages     {} sent in {} attempts: {} confirmed, {} refused, {} unknown",
            t.messages, t.attempts, t.confirmed, t.refused, t.unknown
        )?;
        writeln!(
            f,
            "deliveries   {} to applications; {} received, {} of them marked redelivered",
            t.delivered, t.received, t.redelivered
        )?;
        writeln!(
            f,
            "acks         {} sent, {} answered ({} as unknown), {} notices",
            t.acks, t.answers, t.acks_unknown, t.notices
        )?;
        writeln!(
            f,
            "owed         {} deliveries of {} messages: {} lost, {} excused by {} told gaps",
            t.owed, t.judged, t.lost, t.excused, t.gaps
        )?;
        match self.loss_rate_below() {
            Some(rate) => writeln!(
                f,
                "loss         0 of {}: below {rate:.2e} at 95 % (rule of three)",
                t.judged
            )?,
            None if t.lost > 0 => writeln!(f, "loss         {} deliveries", t.lost)?,
            None => writeln!(f, "loss         nothing was owed, so nothing is proven")?,
        }
        if self.is_clean() {
            return write!(f, "verdict      every promise was kept");
        }
        write!(f, "verdict      BROKEN")?;
        for (kind, count) in &self.kinds {
            write!(f, "\n{count:>12} {kind}")?;
        }
        for violation in &self.violations {
            write!(f, "\n- {violation}")?;
        }
        let described = self.violations.len() as u64;
        let all: u64 = self.kinds.values().sum();
        if all > described {
            write!(f, "\n- and {} more", all - described)?;
        }
        Ok(())
    }
}
