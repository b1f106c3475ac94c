//! The comebacks of one worker's clients: where each goes next and when, and what became of it.
//!
//! Owns: a [`Comeback`] for each seat, the timers, and one worker's part of the tally.
//! Invariants: a client has one timer; one that is overtaken by events is passed over when it
//! comes due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::comeback::{Comeback, Ended, Goodbye};
use crate::counts::{Failure, add_each};
use crate::frame::Keys;
use crate::plan::Plan;
use crate::presence::Presence;
use crate::tally;
use crate::target::Target;

/// What became of the connections. Times are microseconds.
#[derive(Clone, Debug)]
pub struct ReturnTally {
    /// Registered connections that ended, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Attempts to connect that led to none, by cause.
    pub failed: BTreeMap<String, u64>,
    /// Clients that will not come back, by cause.
    pub stopped: BTreeMap<String, u64>,
    /// Connections that were begun after the first one of a client.
    pub reconnects: u64,
    /// Goodbyes that said where to go, and those that said what is no such place.
    pub sent_on: u64,
    pub sent_nowhere: u64,
    /// From the first packet to the registration.
    pub connects: Histogram<u64>,
    /// From the loss of a connection to the next registration.
    pub outages: Histogram<u64>,
    /// The longest outage of each client that had one, those that go on included.
    pub worst: Histogram<u64>,
    /// Outages that go on.
    pub out: u64,
}

impl Default for ReturnTally {
    fn default() -> ReturnTally {
        ReturnTally {
            lost: BTreeMap::new(),
            failed: BTreeMap::new(),
            stopped: BTreeMap::new(),
            reconnects: 0,
            sent_on: 0,
            sent_nowhere: 0,
            connects: tally::outages(),
            outages: tally::outages(),
            worst: tally::outages(),
            out: 0,
        }
    }
}

impl ReturnTally {
    pub fn add(&mut self, other: &ReturnTally) -> Result<(), hdrhistogram::AdditionError> {
        add_each(&mut self.lost, &other.lost);
        add_each(&mut self.failed, &other.failed);
        add_each(&mut self.stopped, &other.stopped);
        self.reconnects += other.reconnects;
        self.sent_on += other.sent_on;
        self.sent_nowhere += other.sent_nowhere;
        self.out += other.out;
        self.connects.add(&other.connects)?;
        self.outages.add(&other.outages)?;
        self.worst.add(&other.worst)
    }
}

pub struct Returns {
    plan: Arc<Plan>,
    presence: Arc<Presence>,
    /// Index of the first client.
    first: u32,
    comebacks: Vec<Comeback>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    keys: Keys,
    tally: ReturnTally,
}

impl Returns {
    pub fn new(plan: Arc<Plan>, presence: Arc<Presence>, share: Range<u32>) -> Returns {
        let first = share.start;
        Returns {
            plan,
            presence,
            first,
            comebacks: Vec::with_capacity(share.len()),
            timers: BinaryHeap::new(),
            keys: Keys::new(u64::from(first) ^ 0x5bd1_e995),
            tally: ReturnTally::default(),
        }
    }

    /// The next client has a seat, and connects.
    pub fn join(&mut self, now: Instant) {
        let index = self.first + self.comebacks.len() as u32;
        let mut comeback = Comeback::new(self.plan.pairs().target(index));
        comeback.begin(now);
        self.comebacks.push(comeback);
        self.presence.sets_out();
    }

    /// The client connects again.
    pub fn begin(&mut self, index: u32, now: Instant) {
        self.comeback(index).begin(now);
        self.tally.reconnects += 1;
        self.presence.sets_out();
    }

    pub fn target(&self, index: u32) -> Option<Arc<Target>> {
        let comeback = self.comebacks.get((index - self.first) as usize)?;
        Some(self.plan.targets.get(comeback.target))
    }

    pub fn is_overdue(&self, place: usize, patience: Duration, now: Instant) -> bool {
        self.comebacks[place].is_overdue(patience, now)
    }

    pub fn registered(&mut self, index: u32, now: Instant) {
        let arrival = self.comeback(index).registered(now);
        let number = self.comeback(index).target;
        let target = self.plan.targets.get(number);
        target.open.fetch_add(1, Relaxed);
        target.registered.fetch_add(1, Relaxed);
        self.presence.stops_arriving();
        self.tally.connects.saturating_record(micros(arrival.took));
        if let Some(outage) = arrival.outage {
            self.presence.is_back(index, now);
            self.tally.outages.saturating_record(micros(outage));
        }
    }

    /// The server has closed the connection. That it is over is nothing new then.
    pub fn dismissed(&mut self, index: u32, code: u16, reason: &[u8], now: Instant) {
        let goodbye = Goodbye::of_close(code, reason);
        self.over(index, &goodbye, || format!("closed with {code}"), now);
    }

    /// The upgrade was refused; the server may have said when to come back.
    pub fn refused(&mut self, index: u32, status: u16, retry_secs: Option<u32>, now: Instant) {
        let goodbye = Goodbye {
            wait: retry_secs.map(|secs| Duration::from_secs(secs.into())),
            ..Goodbye::default()
        };
        let cause = || Failure::Refused(status).to_string();
        self.over(index, &goodbye, cause, now);
    }

    /// The connection is over, by this failure or because the server ended it.
    pub fn ended(&mut self, index: u32, failure: Option<Failure>, now: Instant) {
        let cause = || failure.unwrap_or(Failure::Ended).to_string();
        self.over(index, &Goodbye::default(), cause, now);
    }

    fn over(
        &mut self,
        index: u32,
        goodbye: &Goodbye,
        cause: impl FnOnce() -> String,
        now: Instant,
    ) {
        let place = (index - self.first) as usize;
        let comeback = &mut self.comebacks[place];
        let is_always_back = self.plan.comes_back || self.plan.chats.is_some();
        let must_stop = goodbye.must_stop || !(is_always_back || comeback.follows(goodbye));
        let ended = comeback.ended(
            &Goodbye {
                must_stop,
                ..goodbye.clone()
            },
            now,
            &mut self.keys,
        );
        let causes = match ended {
            Ended::Nothing => return,
            Ended::Lost => &mut self.tally.lost,
            Ended::Failed => &mut self.tally.failed,
        };
        let cause = cause();
        *causes.entry(cause.clone()).or_default() += 1;
        if ended == Ended::Lost {
            self.plan
                .targets
                .get(comeback.target)
                .open
                .fetch_sub(1, Relaxed);
            self.presence.is_interrupted(index);
        } else {
            self.presence.stops_arriving();
        }
        let Some(at) = comeback.comes_back_at() else {
            *self.tally.stopped.entry(cause).or_default() += 1;
            self.presence.stops();
            return;
        };
        self.timers.push(Reverse((at, place)));
        let draw = u32::from_ne_bytes(self.keys.draw());
        let named = goodbye.to.as_ref().map(|to| self.plan.targets.learn(to));
        self.tally.sent_on += u64::from(matches!(named, Some(Some(_))));
        self.tally.sent_nowhere += u64::from(matches!(named, Some(None)));
        let another = || self.plan.targets.another(comeback.target, draw);
        comeback.target = named.flatten().unwrap_or_else(another);
    }

    /// The next client that is to connect now, by its place.
    pub fn next(&mut self, now: Instant) -> Option<usize> {
        while let Some(Reverse((at, place))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            if self.comebacks[place].comes_back_at() == Some(at) {
                return Some(place);
            }
        }
        None
    }

    /// Somebody has been told to come back, and is to do so.
    pub fn awaits(&self) -> bool {
        self.plan.follows_hints && !self.timers.is_empty()
    }

    /// How long the worker may sleep.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let Reverse((at, _)) = self.timers.peek()?;
        Some(at.saturating_duration_since(now))
    }

    /// Everything so far.
    pub fn tally(&self, now: Instant) -> ReturnTally {
        let mut tally = self.tally.clone();
        for comeback in &self.comebacks {
            tally.out += u64::from(comeback.is_out_for(now).is_some());
            if let Some(worst) = comeback.worst(now) {
                tally.worst.saturating_record(micros(worst));
            }
        }
        tally
    }

    fn comeback(&mut self, index: u32) -> &mut Comeback {
        &mut self.comebacks[(index - self.first) as usize]
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Who;

    fn returns() -> Returns {
        let urls = ["ws://127.0.0.1:1/", "ws://127.0.0.1:2/"];
        let mut plan = Plan::over(&urls, Who::Openid, "u", 2).unwrap();
        plan.comes_back = true;
        let mut returns = Returns::new(Arc::new(plan), Arc::new(Presence::new(2)), 0..2);
        let now = Instant::now();
        for index in 0..2 {
            returns.join(now);
            returns.registered(index, now);
        }
        returns
    }

    #[test]
    fn a_client_goes_where_it_was_sent_and_else_to_another_target() {
        let mut returns = returns();
        let now = Instant::now();
        let to = |returns: &Returns| returns.target(0).unwrap().url.clone();
        assert_eq!(to(&returns), "ws://127.0.0.1:1/");
        returns.dismissed(0, 1012, br#"{"retryMs":0,"to":"ws://127.0.0.1:7/"}"#, now);
        assert_eq!(to(&returns), "ws://127.0.0.1:7/");
        assert_eq!(returns.next(now), Some(0));
        returns.begin(0, now);
        returns.refused(0, 503, Some(5), now);
        assert_eq!(returns.next(now + Duration::from_millis(4999)), None);
        assert_eq!(returns.next(now + Duration::from_secs(5)), Some(0));
        returns.begin(0, now);
        returns.registered(0, now);
        let at = to(&returns);
        returns.dismissed(0, 1013, br#"{"retryMs":0,"to":"wss://127.0.0.1:7/"}"#, now);
        assert_ne!(to(&returns), at);
        let tally = returns.tally(now);
        assert_eq!(
            (tally.sent_on, tally.sent_nowhere, tally.reconnects),
            (1, 1, 2)
        );
        let causes: Vec<_> = tally.lost.keys().chain(tally.failed.keys()).collect();
        assert_eq!(
            causes,
            [
                "closed with 1012",
                "closed with 1013",
                "upgrade refused with 503"
            ]
        );
    }

    #[test]
    fn who_ends_twice_has_one_timer_and_who_must_stop_has_none() {
        let mut returns = returns();
        let now = Instant::now();
        returns.dismissed(0, 1012, br#"{"retryMs":9}"#, now);
        returns.ended(0, None, now);
        returns.dismissed(1, 4409, b"", now);
        let later = now + Duration::from_secs(60);
        assert_eq!((returns.next(later), returns.next(later)), (Some(0), None));
        let tally = returns.tally(later);
        assert_eq!(tally.stopped["closed with 4409"], 1);
        assert_eq!((tally.out, tally.worst.len()), (1, 1));
        assert!(tally.worst.max() >= 60_000_000);
    }
}
