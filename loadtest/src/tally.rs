//! Who has heard what: the tallies of broadcasts and of direct messages.
//!
//! Owns: one worker's part of a series of broadcasts ([`Waves`]); one worker's part of a volley
//! of direct messages ([`Volley`]), whose [`Shared`] half all workers write to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::message::Direct;

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
    listeners: u64,
}

/// What a broadcast is to the client that heard it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    New,
    Repeated,
    Stray,
}

impl Waves {
    pub fn new(first: u32, count: u32, listeners: u64) -> Waves {
        let tallies = vec![Tally::default(); count as usize];
        Waves {
            first,
            tallies,
            outstanding: u64::from(count) * listeners,
            listeners,
        }
    }

    /// `heard_last` is the number of the last broadcast that this client heard.
    pub fn hear(&mut self, wave: u32, heard_last: &mut u32, now: Instant) -> Hearing {
        let at = wave.checked_sub(self.first).map(|at| at as usize);
        let Some(tally) = at.and_then(|at| self.tallies.get_mut(at)) else {
            return Hearing::Stray;
        };
        if wave <= *heard_last {
            return Hearing::Repeated;
        }
        // Those that were skipped are missing for good: the order is kept or it is a fault.
        let next = self.first.max(*heard_last + 1);
        let settled = u64::from(wave - next) + 1;
        self.outstanding = self.outstanding.saturating_sub(settled);
        *heard_last = wave;
        tally.delivered += 1;
        tally.first.get_or_insert(now);
        tally.last = Some(now);
        Hearing::New
    }

    /// A client that was to hear them has gone.
    pub fn lose(&mut self, heard_last: u32) {
        let end = self.first + self.tallies.len() as u32;
        let next = self.first.max(heard_last + 1);
        let lost = u64::from(end.saturating_sub(next));
        self.outstanding = self.outstanding.saturating_sub(lost);
    }

    pub fn is_complete(&self) -> bool {
        self.outstanding == 0
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
    pub messages: u32,
    pub began: Instant,
    issued: AtomicU32,
    settled: AtomicU32,
    /// One bit for each message that was received.
    seen: Box<[AtomicU64]>,
}

impl Shared {
    pub fn new(messages: u32) -> Shared {
        let words = (messages as usize).div_ceil(64);
        Shared {
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
        (number < self.messages).then_some(number)
    }

    pub fn issued(&self) -> u32 {
        self.issued.load(Relaxed).min(self.messages)
    }

    /// True the first time.
    fn see(&self, number: u32) -> Option<bool> {
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

    pub fn hear(&mut self, direct: Direct, now: Instant) -> Hearing {
        match self.shared.see(direct.number) {
            None => Hearing::Stray,
            Some(false) => Hearing::Repeated,
            Some(true) => {
                self.latency.saturating_record(self.took(direct, now));
                self.received += 1;
                self.replace_one();
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
        let (mut one, mut two) = (4, 0);
        for wave in 5..8 {
            assert_eq!(waves.hear(wave, &mut one, now), Hearing::New);
        }
        assert_eq!(waves.hear(5, &mut two, now), Hearing::New);
        assert!(!waves.is_complete());
        waves.lose(two);
        assert!(waves.is_complete());
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
    fn skipped_repeated_and_foreign_broadcasts_are_told_apart() {
        let now = Instant::now();
        let mut waves = Waves::new(1, 3, 1);
        let mut heard = 0;
        assert_eq!(waves.hear(3, &mut heard, now), Hearing::New);
        assert!(waves.is_complete(), "1 and 2 can only come too late");
        assert_eq!(waves.hear(2, &mut heard, now), Hearing::Repeated);
        assert_eq!(waves.hear(3, &mut heard, now), Hearing::Repeated);
        assert_eq!(waves.hear(4, &mut heard, now), Hearing::Stray);
        assert_eq!(waves.hear(0, &mut heard, now), Hearing::Stray);
    }

    #[test]
    fn a_message_counts_once_and_keeps_the_volley_going() {
        let shared = Arc::new(Shared::new(2));
        let mut volley = Volley::new(shared.clone(), 1);
        let first = shared.issue().unwrap();
        volley.due -= 1;
        let direct = Direct {
            number: first,
            sent_nanos: 0,
            receiver: 0,
        };
        assert_eq!(volley.hear(direct, Instant::now()), Hearing::New);
        assert_eq!(volley.hear(direct, Instant::now()), Hearing::Repeated);
        assert_eq!(volley.due, 1);
        assert_eq!(
            volley.hear(
                Direct {
                    number: 2,
                    ..direct
                },
                Instant::now()
            ),
            Hearing::Stray
        );
        assert!(shared.issue().is_some() && shared.issue().is_none());
        volley.lose_one();
        assert!(shared.is_complete());
    }
}
