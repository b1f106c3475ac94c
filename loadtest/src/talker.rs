//! One user who chats: what is not confirmed yet, and what the application has seen. Pure.
//!
//! Owns: what outlives a connection. A good client keeps its cursor, repeats what nobody has
//! confirmed under the same msgid, and gives each message to its application once.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use throng_history::Place;

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

#[derive(Default)]
pub struct Talker {
    /// The number of its connection, the first included.
    pub connection: u64,
    /// The connected notice has come.
    pub is_open: bool,
    /// Made with the first message: many only listen, and most of them hear nothing.
    book: Option<Box<Book>>,
}

const _: () = assert!(size_of::<Talker>() <= 24);

#[derive(Default)]
struct Book {
    /// The last entry that the application has processed, and on which connection it came.
    cursor: Option<Place>,
    cursor_on: u64,
    /// Messages that the application has, and notices of messages.
    seen: HashSet<(u128, bool)>,
    unconfirmed: VecDeque<Sending>,
}

/// How an entry came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    InOrder,
    /// It, or one that stands behind it, came before on the same connection.
    Behind,
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
    pub fn new() -> Talker {
        Talker::default()
    }

    fn book(&mut self) -> &mut Book {
        self.book.get_or_insert_default()
    }

    fn unconfirmed(&self) -> impl Iterator<Item = &Sending> {
        self.book.iter().flat_map(|book| &book.unconfirmed)
    }

    /// The last entry that the application has processed.
    pub fn cursor(&self) -> Option<&Place> {
        self.book.as_ref()?.cursor.as_ref()
    }

    /// An entry came. Where it came after a later one, the cursor stays.
    pub fn receive(&mut self, place: &Place) -> Arrival {
        let on = self.connection;
        let book = self.book();
        let is_behind = |last: &Place| last.epoch == place.epoch && place.seq <= last.seq;
        if book.cursor_on == on && book.cursor.as_ref().is_some_and(is_behind) {
            return Arrival::Behind;
        }
        (book.cursor, book.cursor_on) = (Some(place.clone()), on);
        Arrival::InOrder
    }

    /// What lies up to there does not come any more.
    pub fn pass(&mut self, place: Place) {
        let on = self.connection;
        let book = self.book();
        (book.cursor, book.cursor_on) = (Some(place), on);
    }

    /// A message that is to be sent as soon as that is possible.
    pub fn say(&mut self, mark: ChatMark) {
        let state = State::Waiting;
        self.book().unconfirmed.push_back(Sending { mark, state });
    }

    /// The next message that may be sent now; it is under way then.
    pub fn next(&mut self, now: Instant) -> Option<ChatMark> {
        let is_under_way = |sending: &&Sending| matches!(sending.state, State::UnderWay(_));
        if self.unconfirmed().filter(is_under_way).count() >= UNDER_WAY_MAX {
            return None;
        }
        let unconfirmed = &mut self.book.as_mut()?.unconfirmed;
        let sending = unconfirmed.iter_mut().find(|s| s.is_due(now))?;
        sending.state = State::UnderWay(now);
        Some(sending.mark)
    }

    pub fn has_due(&self, now: Instant) -> bool {
        self.unconfirmed().any(|sending| sending.is_due(now))
    }

    /// Stored, or refused for good. False if nobody waits for it any more.
    pub fn settle(&mut self, mark: ChatMark) -> bool {
        let at = self.unconfirmed().position(|s| s.mark == mark);
        let unconfirmed = &mut self.book().unconfirmed;
        at.and_then(|at| unconfirmed.remove(at)).is_some()
    }

    /// Refused, and perhaps not the next time. False if nobody waits for it.
    pub fn put_off(&mut self, mark: ChatMark, now: Instant, keys: &mut Keys) -> bool {
        let mut sendings = self.book().unconfirmed.iter_mut();
        let found = sendings.find(|s| s.mark == mark);
        let later = State::Later(now + jitter(PUT_OFF, keys));
        found.map(|sending| sending.state = later).is_some()
    }

    /// Some answer has not come in time: this connection is of no use any more.
    pub fn is_unanswered(&self, now: Instant) -> bool {
        self.unconfirmed().any(|sending| match sending.state {
            State::UnderWay(since) => now >= since + ANSWER_PATIENCE,
            State::Waiting | State::Later(_) => false,
        })
    }

    /// The answers that would still have come will not.
    pub fn give_up_answers(&mut self) -> Vec<ChatMark> {
        let mut unknown = Vec::new();
        let book = self.book.as_mut();
        for sending in book.into_iter().flat_map(|book| &mut book.unconfirmed) {
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
        self.book().seen.insert((id, is_notice))
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
        let mut talker = Talker::new();
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
        let mut talker = Talker::new();
        talker.say(mark(0));
        assert_eq!(talker.next(now), Some(mark(0)));
        assert!(talker.put_off(mark(0), now, &mut Keys::new(1)));
        assert!(!talker.has_due(now));
        assert_eq!(talker.next(now + PUT_OFF), Some(mark(0)));
    }

    #[test]
    fn only_so_many_wait_for_an_answer() {
        let now = Instant::now();
        let mut talker = Talker::new();
        (0..100).for_each(|number| talker.say(mark(number)));
        assert_eq!(
            std::iter::from_fn(|| talker.next(now)).count(),
            UNDER_WAY_MAX
        );
        assert_eq!(talker.give_up_answers().len(), 32);
    }

    #[test]
    fn a_message_and_its_notice_are_different_and_each_is_new_once() {
        let mut talker = Talker::new();
        assert!(talker.is_new("01a1", false) && talker.is_new("01a1", true));
        assert!(!talker.is_new("01a1", false) && !talker.is_new("01a1", true));
    }

    #[test]
    fn on_one_connection_entries_come_in_their_order_and_on_the_next_one_perhaps_again() {
        let place = |seq| Place {
            epoch: "e".to_owned(),
            seq,
        };
        let mut talker = Talker::new();
        talker.connection = 1;
        let mut receive = |seq| talker.receive(&place(seq));
        assert_eq!(receive(1), Arrival::InOrder);
        assert_eq!(receive(3), Arrival::InOrder);
        assert_eq!((receive(2), receive(3)), (Arrival::Behind, Arrival::Behind));
        assert_eq!(talker.cursor(), Some(&place(3)));
        talker.connection = 2;
        assert_eq!(talker.receive(&place(3)), Arrival::InOrder);
        assert_eq!(talker.receive(&place(3)), Arrival::Behind);
    }
}
