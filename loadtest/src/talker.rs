//! One user who chats: what is not confirmed yet, what the application has seen, and how it
//! comes back. Pure.
//!
//! Owns: what outlives a connection. A good client keeps its cursor, repeats what nobody has
//! confirmed under the same msgid, and gives each message to its application once.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use throng_history::{Link, Place};

use crate::frame::Keys;
use crate::message::ChatMark;

/// The one device of each user.
pub const DEVICE: &str = "load";
/// Unanswered messages of one user; more wait, and their waiting counts.
const UNDER_WAY_MAX: usize = 32;
/// An answer that has not come by then will not.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Whoever was connected for so long begins again with a short backoff.
const STABLE: Duration = Duration::from_secs(60);

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
    fails: u32,
    dialed_at: Instant,
    /// When the server wants it back, if it said so.
    retry: Option<Duration>,
    /// The server has said that coming back is of no use.
    must_stop: bool,
    comes_back: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    mark: ChatMark,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    /// Refused for now: to be repeated then.
    Later(Instant),
    UnderWay(Instant),
}

impl Talker {
    pub fn new(uid: String, now: Instant) -> Talker {
        Talker {
            uid,
            connection: 0,
            is_open: false,
            cursor: None,
            seen: HashSet::new(),
            unconfirmed: VecDeque::new(),
            fails: 0,
            dialed_at: now,
            retry: None,
            must_stop: false,
            comes_back: None,
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
        let later = State::Later(now + jitter(BACKOFF_MIN * 2, keys));
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

    /// Another connection begins.
    pub fn begin(&mut self, now: Instant) {
        self.is_open = false;
        self.dialed_at = now;
        (self.retry, self.comes_back) = (None, None);
    }

    pub fn dialed_at(&self) -> Instant {
        self.dialed_at
    }

    /// The server says goodbye, and perhaps when to come back.
    pub fn dismissed(&mut self, code: u16, retry: Option<Duration>) {
        self.must_stop = matches!(code, 1002 | 1003 | 1007..=1009 | 4403 | 4409 | 4410);
        self.retry = retry;
    }

    /// The connection is over: when it comes back is chosen at random, ever later.
    pub fn ended(&mut self, now: Instant, keys: &mut Keys) {
        if self.is_open && now >= self.dialed_at + STABLE {
            self.fails = 0;
        }
        self.is_open = false;
        let longest = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(self.fails.min(6)));
        self.fails += 1;
        let wait = self.retry.unwrap_or_else(|| jitter(longest, keys));
        self.comes_back = (!self.must_stop).then(|| now + wait);
    }

    pub fn is_to_come_back(&self, now: Instant) -> bool {
        self.comes_back.is_some_and(|at| at <= now)
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

/// Any time up to `longest`.
fn jitter(longest: Duration, keys: &mut Keys) -> Duration {
    longest.mul_f64(f64::from(u32::from_ne_bytes(keys.draw())) / f64::from(u32::MAX))
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
        let mut talker = Talker::new("alice".to_owned(), now);
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
        let mut talker = Talker::new("alice".to_owned(), now);
        talker.say(mark(0));
        assert_eq!(talker.next(now), Some(mark(0)));
        assert!(talker.put_off(mark(0), now, &mut Keys::new(1)));
        assert!(!talker.has_due(now));
        assert_eq!(talker.next(now + BACKOFF_MIN * 2), Some(mark(0)));
    }

    #[test]
    fn only_so_many_wait_for_an_answer() {
        let now = Instant::now();
        let mut talker = Talker::new("alice".to_owned(), now);
        (0..100).for_each(|number| talker.say(mark(number)));
        assert_eq!(
            std::iter::from_fn(|| talker.next(now)).count(),
            UNDER_WAY_MAX
        );
        assert_eq!(talker.give_up_answers().len(), 32);
    }

    #[test]
    fn it_comes_back_within_the_backoff_or_when_it_was_told_to_or_never() {
        let now = Instant::now();
        let mut keys = Keys::new(7);
        let mut talker = Talker::new("alice".to_owned(), now);
        for fails in 0..10 {
            talker.ended(now, &mut keys);
            let longest = BACKOFF_MAX.min(BACKOFF_MIN * 2_u32.pow(fails));
            assert!(talker.is_to_come_back(now + longest));
        }
        talker.begin(now);
        talker.dismissed(1012, Some(Duration::from_secs(3)));
        talker.ended(now, &mut keys);
        assert!(!talker.is_to_come_back(now + Duration::from_secs(2)));
        assert!(talker.is_to_come_back(now + Duration::from_secs(3)));
        talker.dismissed(4409, None);
        talker.ended(now, &mut keys);
        assert!(!talker.is_to_come_back(now + Duration::from_secs(3600)));
    }

    #[test]
    fn a_message_and_its_notice_are_different_and_each_is_new_once() {
        let mut talker = Talker::new("alice".to_owned(), Instant::now());
        assert!(talker.is_new("01a1", false) && talker.is_new("01a1", true));
        assert!(!talker.is_new("01a1", false) && !talker.is_new("01a1", true));
    }
}
