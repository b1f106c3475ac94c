//! How the crowd is doing, told by its threads while they work.
//!
//! Owns: a slot for each thread, into which that thread alone writes, a few times a second at
//! most, and what was measured since somebody looked last.
//! Invariants: nothing is shared on the way of a message: a thread collects what it measures, and
//! hands it over when that is much, or after some time.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::counts::Counts;
use crate::opening::HostLimit;
use crate::tally;

/// Between two times that a thread tells how it is doing.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// What a thread has measured is handed over when it is so much.
const MEASURED_MAX: usize = 4096;

/// What is measured. All of them are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latency {
    /// From the first packet to the registration.
    Connect,
    /// From the push of a broadcast to one client.
    Broadcast,
    /// From the moment a push was due to one client.
    Pushed,
    /// From one client to another, not stored.
    Unicast,
    /// From the moment a chat was due: confirmed, received, told of.
    Stored,
    Received,
    Told,
    /// How late the client itself began what its schedule asked for.
    Lag,
}

impl Latency {
    pub fn name(self) -> &'static str {
        match self {
            Latency::Connect => "connect",
            Latency::Broadcast => "broadcast",
            Latency::Pushed => "push",
            Latency::Unicast => "unicast",
            Latency::Stored => "stored (0)",
            Latency::Received => "received (2)",
            Latency::Told => "told (17)",
            Latency::Lag => "client's lag",
        }
    }

    /// Each one is a message that has come to somebody.
    pub fn is_message(self) -> bool {
        use Latency::{Broadcast, Pushed, Received, Unicast};
        matches!(self, Broadcast | Pushed | Unicast | Received)
    }
}

pub type Latencies = BTreeMap<Latency, Histogram<u64>>;

/// What a thread, or all of them, have come to.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    pub counts: Counts,
    /// Connections on their way.
    pub arriving: u64,
    /// What of this host stopped it.
    pub limit: Option<HostLimit>,
}

/// All threads at one moment.
pub struct Look {
    pub secs: f64,
    pub beat: Beat,
    /// What was measured since the last look.
    pub lately: Latencies,
}

pub struct Pulse {
    began: Instant,
    /// When the last broadcasts were pushed.
    pushed_nanos: AtomicU64,
    beats: Mutex<Vec<Arc<Mutex<Beat>>>>,
    lately: Mutex<Latencies>,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            began: Instant::now(),
            pushed_nanos: AtomicU64::new(0),
            beats: Mutex::default(),
            lately: Mutex::default(),
        }
    }
}

impl Pulse {
    /// Broadcasts are pushed now; what is heard from now on is measured from here.
    pub fn pushes(&self, now: Instant) {
        self.pushed_nanos.store(self.nanos(now), Relaxed);
    }

    pub fn look(&self) -> Look {
        let mut whole = Beat::default();
        for beat in locked(&self.beats).iter() {
            let beat = locked(beat);
            whole.counts.add(&beat.counts);
            whole.arriving += beat.arriving;
            whole.limit = whole.limit.or(beat.limit);
        }
        Look {
            secs: self.began.elapsed().as_secs_f64(),
            beat: whole,
            lately: take(&mut *locked(&self.lately)),
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_nanos() as u64
    }
}

/// A thread that panicked has left numbers behind that are still numbers.
fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's end of the pulse.
pub struct Vitals {
    pulse: Arc<Pulse>,
    beat: Arc<Mutex<Beat>>,
    measured: Vec<(Latency, u64)>,
    told_at: Option<Instant>,
    has_news: bool,
}

impl Vitals {
    pub fn new(pulse: Arc<Pulse>) -> Vitals {
        let beat = Arc::default();
        locked(&pulse.beats).push(Arc::clone(&beat));
        Vitals {
            pulse,
            beat,
            measured: Vec::new(),
            told_at: None,
            has_news: false,
        }
    }

    pub fn took(&mut self, what: Latency, nanos: u64) {
        self.measured.push((what, nanos));
        if self.measured.len() >= MEASURED_MAX {
            self.hand_over();
        }
    }

    /// A broadcast was heard.
    pub fn heard(&mut self, now: Instant) {
        let pushed = self.pulse.pushed_nanos.load(Relaxed);
        let nanos = self.pulse.nanos(now).saturating_sub(pushed);
        self.took(Latency::Broadcast, nanos);
    }

    /// Something may have changed: tells it, or remembers that it is to be told soon.
    pub fn tell(&mut self, now: Instant, is_last: bool, write: impl FnOnce(&mut Beat)) {
        let is_due = self.told_at.is_none_or(|last| now >= last + TELL_EVERY);
        self.has_news = !(is_due || is_last);
        if !self.has_news {
            self.told_at = Some(now);
            write(&mut locked(&self.beat));
            self.hand_over();
        }
    }

    /// How long the thread may sleep with what it has not told yet.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let last = self.told_at.filter(|_| self.has_news)?;
        Some((last + TELL_EVERY).saturating_duration_since(now))
    }

    fn hand_over(&mut self) {
        if self.measured.is_empty() {
            return;
        }
        let mut lately = locked(&self.pulse.lately);
        for (what, nanos) in self.measured.drain(..) {
            let histogram = lately.entry(what).or_insert_with(tally::latencies);
            histogram.saturating_record(nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up_and_a_look_takes_what_was_measured_since_the_last_one() {
        let pulse = Arc::new(Pulse::default());
        let now = Instant::now();
        let mut threads = [1_u64, 2].map(|open| (open, Vitals::new(pulse.clone())));
        for (open, vitals) in &mut threads {
            vitals.took(Latency::Connect, 1000 * *open);
            vitals.tell(now, false, |beat| beat.counts.open = *open);
        }
        let look = pulse.look();
        assert_eq!(look.beat.counts.open, 3);
        let connects = &look.lately[&Latency::Connect];
        assert_eq!((connects.len(), connects.max() / 100), (2, 20));
        assert!(pulse.look().lately.is_empty());
    }

    #[test]
    fn news_wait_a_while_but_not_forever() {
        let pulse = Arc::new(Pulse::default());
        let now = Instant::now();
        let mut vitals = Vitals::new(pulse.clone());
        vitals.tell(now, false, |beat| beat.arriving = 1);
        assert_eq!(vitals.patience(now), None);
        vitals.tell(now, false, |beat| beat.arriving = 2);
        assert_eq!(pulse.look().beat.arriving, 1);
        assert_eq!(vitals.patience(now), Some(TELL_EVERY));
        vitals.tell(now + TELL_EVERY, false, |beat| beat.arriving = 3);
        assert_eq!(
            (pulse.look().beat.arriving, vitals.patience(now)),
            (3, None)
        );
        vitals.tell(now + TELL_EVERY, true, |beat| beat.arriving = 4);
        assert_eq!(
            pulse.look().beat.arriving,
            4,
            "the last word is not kept back"
        );
    }

    #[test]
    fn much_that_is_measured_is_handed_over_at_once() {
        let pulse = Arc::new(Pulse::default());
        let mut vitals = Vitals::new(pulse.clone());
        (0..MEASURED_MAX).for_each(|_| vitals.took(Latency::Unicast, 1));
        assert_eq!(
            pulse.look().lately[&Latency::Unicast].len(),
            MEASURED_MAX as u64
        );
    }

    #[test]
    fn a_broadcast_is_measured_from_its_push() {
        let pulse = Arc::new(Pulse::default());
        let mut vitals = Vitals::new(pulse.clone());
        let pushed = Instant::now() + Duration::from_secs(1);
        pulse.pushes(pushed);
        vitals.heard(pushed + Duration::from_millis(5));
        vitals.tell(pushed, true, |_| {});
        let took = pulse.look().lately[&Latency::Broadcast].max();
        assert_eq!(took / 100_000, 50);
    }
}
