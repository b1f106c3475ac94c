//! Who has heard which push, and how long after it was due: one worker's part.
//!
//! Users stand in blocks of one size, and a push is for all users of a block. The pushes to a block
//! are numbered without gaps. Some clients may be slow ones, who do not read for a while.
//! Owns: the tally of this worker; what all workers add to is in the [`Series`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::counts::add_each;
use crate::message::PostMark;
use crate::order::{Order, Turn};
use crate::plan::Plan;
use crate::tally::{self, Hearing};

/// What all threads know of a series of pushes.
pub struct Series {
    pub run: u32,
    pub began: Instant,
    /// Users of a block.
    pub block: u32,
    /// The number of the first push to a block, and where there is one block that of the last one.
    pub first: u32,
    pub last: u32,
    /// Slow clients read nothing until then.
    pub stalls_for: Duration,
    /// Deliveries to those who are not slow.
    delivered: AtomicU64,
    /// Slow ones that have heard the last push, or have gone.
    slow_done: AtomicU64,
}

impl Series {
    pub fn new(run: u32, block: u32, first: u32, last: u32, stalls_for: Duration) -> Series {
        Series {
            run,
            began: Instant::now(),
            block: block.max(1),
            first,
            last,
            stalls_for,
            delivered: AtomicU64::new(0),
            slow_done: AtomicU64::new(0),
        }
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    pub fn slow_done(&self) -> u64 {
        self.slow_done.load(Relaxed)
    }
}

/// What was heard. Times are nanoseconds since a push was due.
#[derive(Clone, Debug)]
pub struct PostTally {
    /// Clients that were connected at the beginning, slow ones not included.
    pub listeners: u64,
    pub to_heard: Histogram<u64>,
    /// Of those listeners, who has gone, by cause.
    pub gone: BTreeMap<String, u64>,
    /// The same of those who are slow.
    pub slow: u64,
    pub to_slow: Histogram<u64>,
    pub slow_gone: BTreeMap<String, u64>,
    /// Slow clients that are there and have heard the last push.
    pub caught_up: u64,
}

impl Default for PostTally {
    fn default() -> PostTally {
        PostTally {
            listeners: 0,
            to_heard: tally::latencies(),
            gone: BTreeMap::new(),
            slow: 0,
            to_slow: tally::latencies(),
            slow_gone: BTreeMap::new(),
            caught_up: 0,
        }
    }
}

impl PostTally {
    pub fn add(&mut self, other: &PostTally) -> Result<(), hdrhistogram::AdditionError> {
        self.listeners += other.listeners;
        add_each(&mut self.gone, &other.gone);
        self.slow += other.slow;
        add_each(&mut self.slow_gone, &other.slow_gone);
        self.caught_up += other.caught_up;
        self.to_heard.add(&other.to_heard)?;
        self.to_slow.add(&other.to_slow)
    }
}

pub struct Posts {
    plan: Arc<Plan>,
    series: Arc<Series>,
    /// Slow clients do not read before that.
    stalls_until: Option<Instant>,
    pub tally: PostTally,
}

impl Posts {
    /// `connected` are the clients that are there now.
    pub fn new(
        plan: Arc<Plan>,
        series: Arc<Series>,
        connected: impl Iterator<Item = u32>,
    ) -> Posts {
        let mut tally = PostTally::default();
        for index in connected {
            match plan.is_slow(index) {
                true => tally.slow += 1,
                false => tally.listeners += 1,
            }
        }
        let stalls = !series.stalls_for.is_zero();
        Posts {
            stalls_until: stalls.then(|| series.began + series.stalls_for),
            plan,
            series,
            tally,
        }
    }

    /// True for a client that is not to read now.
    pub fn is_stalled(&self, index: u32) -> bool {
        self.stalls_until.is_some() && self.plan.is_slow(index)
    }

    /// How long the slow ones are still not to read.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let until = self.stalls_until?;
        Some(until.saturating_duration_since(now))
    }

    /// True once: when the slow ones are to read again.
    pub fn ends_stall(&mut self, now: Instant) -> bool {
        self.stalls_until.take_if(|until| *until <= now).is_some()
    }

    /// `order` is what this client has heard before.
    pub fn hear(&mut self, mark: PostMark, index: u32, order: &mut Order, now: Instant) -> Hearing {
        let series = &self.series;
        if mark.run != series.run || mark.number < series.first {
            return Hearing::Stray;
        }
        if mark.block != index / series.block {
            return Hearing::Misrouted;
        }
        let hearing = match order.hear(mark.number) {
            Turn::Next => Hearing::New,
            Turn::Late => Hearing::Late,
            Turn::Again => return Hearing::Repeated,
        };
        let took = self.took(mark, now);
        let series = &self.series;
        if self.plan.is_slow(index) {
            self.tally.to_slow.saturating_record(took);
            let is_last = mark.number == series.last;
            series.slow_done.fetch_add(u64::from(is_last), Relaxed);
        } else {
            self.tally.to_heard.saturating_record(took);
            series.delivered.fetch_add(1, Relaxed);
        }
        hearing
    }

    /// How long ago it was due, in nanoseconds.
    pub fn took(&self, mark: PostMark, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.series.began);
        (since.as_nanos() as u64).saturating_sub(mark.due_nanos)
    }

    /// True if the client heard the last push of all.
    pub fn is_caught_up(&self, index: u32, heard_last: u32) -> bool {
        self.plan.is_slow(index) && heard_last >= self.series.last
    }

    /// A client has gone that was to hear.
    pub fn lose(&mut self, index: u32, heard_last: u32, cause: impl FnOnce() -> String) {
        let is_slow = self.plan.is_slow(index);
        if is_slow && !self.is_caught_up(index, heard_last) {
            self.series.slow_done.fetch_add(1, Relaxed);
        }
        let gone = match is_slow {
            true => &mut self.tally.slow_gone,
            false => &mut self.tally.gone,
        };
        *gone.entry(cause()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Who;

    const RUN: u32 = 7;

    fn posts(slow_share: f64, block: u32) -> Posts {
        let mut plan = Plan::new("ws://127.0.0.1:1/", Who::Openid, "", 4).unwrap();
        plan.slow_share = slow_share;
        let series = Series::new(RUN, block, 1, 3, Duration::from_secs(5));
        Posts::new(Arc::new(plan), Arc::new(series), 0..4)
    }

    fn mark(block: u32, number: u32) -> PostMark {
        PostMark {
            run: RUN,
            block,
            number,
            due_nanos: 0,
        }
    }

    #[test]
    fn what_is_missing_repeated_late_misrouted_or_of_another_run_is_told_apart() {
        let mut posts = posts(0.0, 2);
        let mut order = Order::default();
        let mut hear = |mark| posts.hear(mark, 3, &mut order, Instant::now());
        assert_eq!(hear(mark(1, 1)), Hearing::New);
        assert_eq!(hear(mark(1, 1)), Hearing::Repeated);
        assert_eq!(hear(mark(1, 3)), Hearing::New);
        assert_eq!(hear(mark(1, 2)), Hearing::Late);
        assert_eq!(hear(mark(0, 3)), Hearing::Misrouted);
        let foreign = PostMark {
            run: RUN + 1,
            ..mark(1, 4)
        };
        assert_eq!(hear(foreign), Hearing::Stray);
        assert_eq!(
            (posts.tally.to_heard.len(), posts.series.delivered()),
            (3, 3)
        );
    }

    #[test]
    fn the_slow_ones_stall_once_and_are_counted_apart() {
        let mut posts = posts(0.5, 4);
        assert_eq!((posts.tally.listeners, posts.tally.slow), (2, 2));
        let slow: Vec<u32> = (0..4).filter(|index| posts.is_stalled(*index)).collect();
        assert_eq!(slow, [1, 3]);
        let now = posts.series.began;
        assert!(!posts.ends_stall(now));
        let later = now + Duration::from_secs(5);
        assert!(posts.ends_stall(later) && !posts.ends_stall(later));
        assert!(!posts.is_stalled(1));

        let mut order = Order::default();
        posts.hear(mark(0, 3), 1, &mut order, later);
        assert!(posts.is_caught_up(1, order.last()));
        posts.lose(3, 0, || "closed with 4413".to_owned());
        assert_eq!(posts.series.slow_done(), 2);
        assert_eq!(posts.tally.slow_gone["closed with 4413"], 1);
        assert!(posts.tally.to_slow.max() >= 4_900_000_000);
    }
}
