//! Who has heard what: the tallies of broadcasts and of direct messages.
//!
//! Owns: one worker's part of a series of broadcasts ([`Waves`]); one worker's part of a volley
//! of direct messages ([`Volley`]), whose [`Shared`] half all workers write to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::message::Direct;
use crate::order::{Order, Turn};

/// What was overtaken by a later broadcast is waited for so long.
const LATE_PATIENCE: Duration = Duration::from_secs(1);

/// One broadcast, as one worker's clients hear it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub delivered: u64,
    pub first: Option<Instant>,
    pub last: Option<Instant>,
}

/// A series of broadcasts that all of a worker's clients are to hear.
pub struct Waves {
    first: u32,
    tallies: Vec<Tally>,
    /// Deliveries that have neither come nor become impossible. A client that registers only
    /// now may hear more than was asked for, so it is never taken below zero.
    outstanding: u64,
    /// Of those, so many were overtaken by a later one, the last of them then.
    overtaken: u64,
    overtaken_at: Option<Instant>,
    listeners: u64,
}

/// What a message is to the client that heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    New,
    /// New, and after a later one.
    Late,
    Repeated,
    Stray,
    Misrouted,
}

impl Hearing {
    /// This client had not heard it before.
    pub fn is_first(self) -> bool {
        matches!(self, Hearing::New | Hearing::Late)
    }
}

impl Waves {
    pub fn new(first: u32, count: u32, listeners: u64) -> Waves {
        let tallies = vec![Tally::default(); count as usize];
        Waves {
            first,
            tallies,
            outstanding: u64::from(count) * listeners,
            overtaken: 0,
            overtaken_at: None,
            listeners,
        }
    }

    /// `order` is what this client has heard before.
    pub fn hear(&mut self, wave: u32, order: &mut Order, now: Instant) -> Hearing {
        let at = wave.checked_sub(self.first).map(|at| at as usize);
        let Some(tally) = at.and_then(|at| self.tallies.get_mut(at)) else {
            return Hearing::Stray;
        };
        let next = self.first.max(order.last() + 1);
        let hearing = match order.hear(wave) {
            Turn::Next => Hearing::New,
            Turn::Late => Hearing::Late,
            Turn::Again => return Hearing::Repeated,
        };
        if hearing == Hearing::Late {
            self.overtaken = self.overtaken.saturating_sub(1);
        } else if wave > next {
            self.overtaken += u64::from(wave - next);
            self.overtaken_at = Some(now);
        }
        self.outstanding = self.outstanding.saturating_sub(1);
        tally.delivered += 1;
        tally.first.get_or_insert(now);
        tally.last = Some(now);
        hearing
    }

    /// A client that was to hear them has gone.
    pub fn lose(&mut self, order: &Order) {
        let end = self.first + self.tallies.len() as u32;
        let next = self.first.max(order.last() + 1);
        let lost = u64::from(end.saturating_sub(next));
        self.outstanding = self.outstanding.saturating_sub(lost);
    }

    /// All have come, but for those that were overtaken too long ago to come at all.
    pub fn is_complete(&self, now: Instant) -> bool {
        let are_late = |at: Instant| now >= at + LATE_PATIENCE;
        self.outstanding == 0
            || (self.outstanding <= self.overtaken && self.overtaken_at.is_some_and(are_late))
    }

    /// How long it may take until it is complete though nothing more is heard.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let at = self.overtaken_at.filter(|_| self.overtaken > 0)?;
        Some((at + LATE_PATIENCE).saturating_duration_since(now))
    }

    pub fn listeners(&self) -> u64 {
        self.listeners
    }

    pub fn into_tallies(self) -> Vec<Tally> {
        self.tallies
    }
}

/// What all workers know of a volley of direct messages.
pub struct Shared {
    /// The number of the first one; those of earlier volleys are below it.
    first: u32,
    pub messages: u32,
    pub began: Instant,
    issued: AtomicU32,
    settled: AtomicU32,
    /// One bit for each message that was received.
    seen: Box<[AtomicU64]>,
}

impl Shared {
    pub fn new(first: u32, messages: u32) -> Shared {
        let words = (messages as usize).div_ceil(64);
        Shared {
            first,
            messages,
            began: Instant::now(),
            issued: AtomicU32::new(0),
            settled: AtomicU32::new(0),
            seen: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The number of the next message; none if all are sent.
    pub fn issue(&self) -> Option<u32> {
        let number = self.issued.fetch_add(1, Relaxed);
        (number < self.messages).then(|| self.first.wrapping_add(number))
    }

    pub fn issued(&self) -> u32 {
        self.issued.load(Relaxed).min(self.messages)
    }

    /// True the first time.
    fn see(&self, number: u32) -> Option<bool> {
        let number = number.wrapping_sub(self.first);
        let word = self
            .seen
            .get(number as usize / 64)
            .filter(|_| number < self.messages)?;
        let bit = 1 << (number % 64);
        Some(word.fetch_or(bit, Relaxed) & bit == 0)
    }

    fn settle(&self) {
        self.settled.fetch_add(1, Relaxed);
    }

    pub fn is_complete(&self) -> bool {
        self.settled.load(Relaxed) >= self.messages
    }
}

/// One worker's part of a volley: each message that it hears is answered by sending another,
/// so that as many stay in flight as were sent at first.
pub struct Volley {
    pub shared: Arc<Shared>,
    /// Messages that this worker may send now.
    pub due: u32,
    pub latency: Histogram<u64>,
    pub received: u64,
}

impl Volley {
    pub fn new(shared: Arc<Shared>, in_flight: u32) -> Volley {
        Volley {
            shared,
            due: in_flight,
            latency: latencies(),
            received: 0,
        }
    }

    /// A sender's messages come in the order of their numbers: the one receiver expects none
    /// before `next`.
    pub fn hear(&mut self, direct: Direct, next: &mut u32, now: Instant) -> Hearing {
        match self.shared.see(direct.number) {
            None => Hearing::Stray,
            Some(false) => Hearing::Repeated,
            Some(true) => {
                self.latency.saturating_record(self.took(direct, now));
                self.received += 1;
                self.replace_one();
                if direct.number < *next {
                    return Hearing::Late;
                }
                *next = direct.number.saturating_add(1);
                Hearing::New
            }
        }
    }

    /// How long it was under way, in nanoseconds.
    pub fn took(&self, direct: Direct, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.shared.began);
        (since.as_nanos() as u64).saturating_sub(direct.sent_nanos)
    }

    /// One message will never arrive: it was refused, or could not be sent.
    pub fn lose_one(&mut self) {
        self.replace_one();
    }

    fn replace_one(&mut self) {
        self.shared.settle();
        self.due += 1;
    }
}

/// Nanoseconds, up to ten minutes.
pub fn latencies() -> Histogram<u64> {
    histogram(Duration::from_secs(600).as_nanos())
}

/// Microseconds, up to a day.
pub fn outages() -> Histogram<u64> {
    histogram(Duration::from_secs(24 * 3600).as_micros())
}

fn histogram(longest: u128) -> Histogram<u64> {
    Histogram::new_with_max(longest as u64, 3).expect("three digits up to a day are a valid range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_complete_when_every_listener_heard_all_or_left() {
        let now = Instant::now();
        let mut waves = Waves::new(5, 3, 2);
        let (mut one, mut two) = (Order::default(), Order::default());
        one.hear(4);
        for wave in 5..8 {
            assert_eq!(waves.hear(wave, &mut one, now), Hearing::New);
        }
        assert_eq!(waves.hear(5, &mut two, now), Hearing::New);
        assert!(!waves.is_complete(now));
        waves.lose(&two);
        assert!(waves.is_complete(now));
        assert_eq!(
            waves
                .into_tallies()
                .iter()
                .map(|t| t.delivered)
                .collect::<Vec<_>>(),
            [2, 1, 1]
        );
    }

    #[test]
    fn late_repeated_and_foreign_broadcasts_are_told_apart() {
        let now = Instant::now();
        let mut waves = Waves::new(1, 3, 1);
        let mut heard = Order::default();
        assert_eq!(waves.hear(3, &mut heard, now), Hearing::New);
        assert_eq!(waves.hear(2, &mut heard, now), Hearing::Late);
        assert_eq!(waves.hear(2, &mut heard, now), Hearing::Repeated);
        assert_eq!(waves.hear(3, &mut heard, now), Hearing::Repeated);
        assert_eq!(waves.hear(4, &mut heard, now), Hearing::Stray);
        assert_eq!(waves.hear(0, &mut heard, now), Hearing::Stray);
    }

    #[test]
    fn what_was_overtaken_is_waited_for_but_not_for_ever() {
        let now = Instant::now();
        let mut waves = Waves::new(1, 2, 1);
        let mut heard = Order::default();
        waves.hear(2, &mut heard, now);
        assert!(!waves.is_complete(now));
        assert_eq!(waves.patience(now), Some(LATE_PATIENCE));
        assert!(waves.is_complete(now + LATE_PATIENCE));
        waves.hear(1, &mut heard, now);
        assert!(waves.is_complete(now));
    }

    #[test]
    fn a_message_counts_once_and_keeps_the_volley_going() {
        let shared = Arc::new(Shared::new(0, 2));
        let mut volley = Volley::new(shared.clone(), 1);
        let first = shared.issue().unwrap();
        volley.due -= 1;
        let direct = Direct {
            number: first,
            sent_nanos: 0,
            receiver: 0,
        };
        let (mut next, now) = (0, Instant::now());
        assert_eq!(volley.hear(direct, &mut next, now), Hearing::New);
        assert_eq!(volley.hear(direct, &mut next, now), Hearing::Repeated);
        assert_eq!(volley.due, 1);
        assert_eq!(
            volley.hear(
                Direct {
                    number: 2,
                    ..direct
                },
                &mut next,
                now
            ),
            Hearing::Stray
        );
        assert!(shared.issue().is_some() && shared.issue().is_none());
        volley.lose_one();
        assert!(shared.is_complete());
    }

    #[test]
    fn a_message_after_a_later_one_of_its_sender_is_late() {
        let shared = Arc::new(Shared::new(10, 2));
        let mut volley = Volley::new(shared.clone(), 2);
        let (mut next, now) = (7, Instant::now());
        let numbers = [shared.issue().unwrap(), shared.issue().unwrap()];
        let direct = |number| Direct {
            number,
            sent_nanos: 0,
            receiver: 0,
        };
        assert_eq!(
            volley.hear(direct(numbers[1]), &mut next, now),
            Hearing::New
        );
        assert_eq!(
            volley.hear(direct(numbers[0]), &mut next, now),
            Hearing::Late
        );
        assert_eq!(volley.received, 2);
    }
}
