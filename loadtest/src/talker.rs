//! One user who chats: what is not confirmed yet, and what the application has seen. Pure.
//!
//! Owns: what outlives a connection. A good client keeps its cursor, repeats what nobody has
//! confirmed under the same msgid, and gives each message to its application once.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use throng_history::{Link, Place};

use crate::comeback::jitter;
use crate::frame::Keys;
use crate::message::ChatMark;

/// The one device of each user.
pub const DEVICE: &str = "load";
/// Unanswered messages of one user; more wait, and their waiting counts.
const UNDER_WAY_MAX: usize = 32;
/// An answer that has not come by then will not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// What was refused is repeated within that time.
const PUT_OFF: Duration = Duration::from_secs(1);

pub struct Talker {
    pub uid: String,
    /// The number of its connection, the first included.
    pub connection: u64,
    /// The connected notice has come.
    pub is_open: bool,
    /// The last entry that the application has processed.
    pub cursor: Option<Place>,
    /// Messages that the application has, and notices of messages.
    seen: HashSet<(u128, bool)>,
    unconfirmed: VecDeque<Sending>,
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    mark: ChatMark,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Refused, and to be repeated then.
    Later(Instant),
    UnderWay(Instant),
}

impl Talker {
    pub fn new(uid: String) -> Talker {
        Talker {
            uid,
            connection: 0,
            is_open: false,
            cursor: None,
            seen: HashSet::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    pub fn link(&self) -> Link {
        Link {
            user: self.uid.clone(),
            device: DEVICE.to_owned(),
            connection: self.connection,
        }
    }

    /// A message that is to be sent as soon as that is possible.
    pub fn say(&mut self, mark: ChatMark) {
        let state = State::Waiting;
        self.unconfirmed.push_back(Sending { mark, state });
    }

    /// The next message that may be sent now; it is under way then.
    pub fn next(&mut self, now: Instant) -> Option<ChatMark> {
        let is_under_way = |sending: &&Sending| matches!(sending.state, State::UnderWay(_));
        if self.unconfirmed.iter().filter(is_under_way).count() >= UNDER_WAY_MAX {
            return None;
        }
        let sending = self.unconfirmed.iter_mut().find(|s| s.is_due(now))?;
        sending.state = State::UnderWay(now);
        Some(sending.mark)
    }

    pub fn has_due(&self, now: Instant) -> bool {
        self.unconfirmed.iter().any(|sending| sending.is_due(now))
    }

    /// Stored, or refused for good. False if nobody waits for it any more.
    pub fn settle(&mut self, mark: ChatMark) -> bool {
        let mut sendings = self.unconfirmed.iter();
        let at = sendings.position(|s| s.mark == mark);
        at.and_then(|at| self.unconfirmed.remove(at)).is_some()
    }

    /// Refused, and perhaps not the next time. False if nobody waits for it.
    pub fn put_off(&mut self, mark: ChatMark, now: Instant, keys: &mut Keys) -> bool {
        let mut sendings = self.unconfirmed.iter_mut();
        let found = sendings.find(|s| s.mark == mark);
        let later = State::Later(now + jitter(PUT_OFF, keys));
        found.map(|sending| sending.state = later).is_some()
    }

    /// Some answer has not come in time: this connection is of no use any more.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        self.unconfirmed.iter().any(|sending| match sending.state {
            State::UnderWay(since) => now >= since + ANSWER_PATIENCE,
            State::Waiting | State::Later(_) => false,
        })
    }

    /// The answers that would still have come will not.
    pub fn give_up_answers(&mut self) -> Vec<ChatMark> {
        let mut unknown = Vec::new();
        for sending in &mut self.unconfirmed {
            if matches!(sending.state, State::UnderWay(_)) {
                sending.state = State::Waiting;
                unknown.push(sending.mark);
            }
        }
        unknown
    }

    /// True if the application has not seen this message, or notice, before.
    pub fn is_new(&mut self, message_id: &str, is_notice: bool) -> bool {
        let id = u128::from_str_radix(message_id, 16).unwrap_or(0);
        self.seen.insert((id, is_notice))
    }
}

impl Sending {
    fn is_due(&self, now: Instant) -> bool {
        match self.state {
            State::Waiting => true,
            State::Later(at) => at <= now,
            State::UnderWay(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u32) -> ChatMark {
        ChatMark {
            run: 1,
            number,
            due_nanos: 0,
            receiver: 0,
        }
    }

    #[test]
    fn what_is_not_confirmed_is_repeated_in_its_order_and_what_is_confirmed_is_not() {
        let now = Instant::now();
        let mut talker = Talker::new("alice".to_owned());
        (0..4).for_each(|number| talker.say(mark(number)));
        let sent: Vec<_> = std::iter::from_fn(|| talker.next(now)).collect();
        assert_eq!(sent, [mark(0), mark(1), mark(2), mark(3)]);
        assert!(talker.settle(mark(1)) && !talker.settle(mark(1)));
        assert!(!talker.is_unanswered(now));
        assert!(talker.is_unanswered(now + ANSWER_PATIENCE));
        assert_eq!(talker.give_up_answers(), [mark(0), mark(2), mark(3)]);
        assert_eq!(talker.next(now), Some(mark(0)));
    }

    #[test]
    fn what_is_refused_for_now_is_repeated_after_a_while() {
        let now = Instant::now();
        let mut talker = Talker::new("alice".to_owned());
        talker.say(mark(0));
        assert_eq!(talker.next(now), Some(mark(0)));
        assert!(talker.put_off(mark(0), now, &mut Keys::new(1)));
        assert!(!talker.has_due(now));
        assert_eq!(talker.next(now + PUT_OFF), Some(mark(0)));
    }

    #[test]
    fn only_so_many_wait_for_an_answer() {
        let now = Instant::now();
        let mut talker = Talker::new("alice".to_owned());
        (0..100).for_each(|number| talker.say(mark(number)));
        assert_eq!(
            std::iter::from_fn(|| talker.next(now)).count(),
            UNDER_WAY_MAX
        );
        assert_eq!(talker.give_up_answers().len(), 32);
    }

    #[test]
    fn a_message_and_its_notice_are_different_and_each_is_new_once() {
        let mut talker = Talker::new("alice".to_owned());
        assert!(talker.is_new("01a1", false) && talker.is_new("01a1", true));
        assert!(!talker.is_new("01a1", false) && !talker.is_new("01a1", true));
    }
}
