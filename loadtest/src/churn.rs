//! Clients that come and go: whose turn it is to come, how long each stays, and what became of it.
//! Pure.
//!
//! Owns: the clients that are away, in the order in which they went; a stage and at most one timer
//! that counts for each; one worker's part of the tally.
//! Invariants: whoever is due and finds all clients busy waits for the next one that is away, and
//! the waiting counts.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::comeback::jitter;
use crate::counts::{Failure, add_each};
use crate::frame::Keys;
use crate::plan::Plan;
use crate::presence::Presence;
use crate::schedule::Schedule;
use crate::tally;
use crate::target::Target;

/// For the server to answer a goodbye, and to end the connection.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(10);

/// How clients come and go.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Each stays for a random time, twice this at most.
    pub stay: Duration,
    /// This share of them ends its connection by a reset, the others by a close frame.
    pub reset_share: f64,
}

/// What became of them. Times are microseconds.
#[derive(Clone, Debug)]
pub struct ChurnTally {
    /// Connections begun.
    pub came: u64,
    /// Those that were due, and never begun.
    pub left_out: u64,
    pub registered: u64,
    /// Goodbyes that the server has answered, and resets.
    pub closed: u64,
    pub reset: u64,
    /// By cause: who did not get in, who was ended by the server, whose goodbye it did not answer.
    pub failed: BTreeMap<String, u64>,
    /// From the time when it was due to the registration.
    pub connects: Histogram<u64>,
    /// From the goodbye to the end of the connection.
    pub goodbyes: Histogram<u64>,
}

impl Default for ChurnTally {
    fn default() -> ChurnTally {
        ChurnTally {
            came: 0,
            left_out: 0,
            registered: 0,
            closed: 0,
            reset: 0,
            failed: BTreeMap::new(),
            connects: tally::outages(),
            goodbyes: tally::outages(),
        }
    }
}

impl ChurnTally {
    pub fn add(&mut self, other: &ChurnTally) -> Result<(), hdrhistogram::AdditionError> {
        self.came += other.came;
        self.left_out += other.left_out;
        self.registered += other.registered;
        self.closed += other.closed;
        self.reset += other.reset;
        add_each(&mut self.failed, &other.failed);
        self.connects.add(&other.connects)?;
        self.goodbyes.add(&other.goodbyes)
    }
}

/// Where a client is, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Away,
    /// Connecting, due at the one time and begun at the other.
    Arriving(Instant, Instant),
    /// Registered, and leaving then.
    Here(Instant),
    /// It has said goodbye, and waits for the server's until then.
    Leaving(Instant),
}

/// What a client is to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    SayGoodbye,
    Reset,
    /// The server has not answered the goodbye.
    GiveUp,
}

pub struct Churn {
    plan: Arc<Plan>,
    presence: Arc<Presence>,
    /// Index of the first client.
    first: u32,
    manners: Manners,
    schedule: Schedule,
    stages: Vec<Stage>,
    away: VecDeque<usize>,
    /// When those were due who could not come yet.
    waiting: VecDeque<Instant>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Those who are neither away nor here.
    under_way: u64,
    keys: Keys,
    pub tally: ChurnTally,
}

impl Churn {
    /// For the clients of a worker, none of whom is connected.
    pub fn new(
        plan: Arc<Plan>,
        presence: Arc<Presence>,
        share: Range<u32>,
        manners: Manners,
        schedule: Schedule,
    ) -> Churn {
        let (first, clients) = (share.start, share.len());
        Churn {
            plan,
            presence,
            first,
            manners,
            schedule,
            stages: vec![Stage::Away; clients],
            away: (0..clients).collect(),
            waiting: VecDeque::new(),
            timers: BinaryHeap::new(),
            under_way: 0,
            keys: Keys::new(u64::from(first) ^ 0x2545_f491),
            tally: ChurnTally::default(),
        }
    }

    /// The next one that is to come now, by its place.
    pub fn next_to_come(&mut self, now: Instant) -> Option<usize> {
        while let Some((due_at, count)) = self.schedule.next(now, 0) {
            self.waiting.extend((0..count).map(|_| due_at));
        }
        let due_at = *self.waiting.front()?;
        let place = self.away.pop_front()?;
        self.waiting.pop_front();
        self.stages[place] = Stage::Arriving(due_at, now);
        self.under_way += 1;
        self.tally.came += 1;
        self.presence.sets_out();
        Some(place)
    }

    /// The next one that has something else to do, by its place. Nobody leaves any more when the
    /// time is over.
    pub fn next_to_move(&mut self, now: Instant) -> Option<(usize, Move)> {
        while let Some(Reverse((at, place))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            match self.stages[place] {
                Stage::Here(until) if until == at && !self.schedule.is_over(now) => {
                    self.target(place).open.fetch_sub(1, Relaxed);
                    let drawn = f64::from(u32::from_ne_bytes(self.keys.draw()));
                    if drawn < self.manners.reset_share * f64::from(u32::MAX) {
                        self.tally.reset += 1;
                        self.goes_away(place);
                        return Some((place, Move::Reset));
                    }
                    self.under_way += 1;
                    self.wait_until(place, now + GOODBYE_PATIENCE, Stage::Leaving);
                    return Some((place, Move::SayGoodbye));
                }
                Stage::Leaving(until) if until == at => return Some((place, Move::GiveUp)),
                _ => {}
            }
        }
        None
    }

    fn wait_until(&mut self, place: usize, until: Instant, stage: fn(Instant) -> Stage) {
        self.stages[place] = stage(until);
        self.timers.push(Reverse((until, place)));
    }

    fn goes_away(&mut self, place: usize) {
        self.stages[place] = Stage::Away;
        self.away.push_back(place);
    }

    fn target(&self, place: usize) -> Arc<Target> {
        let index = self.first + place as u32;
        self.plan.targets.get(self.plan.pairs().target(index))
    }

    fn place(&self, index: u32) -> usize {
        (index - self.first) as usize
    }

    /// True if it has had so much time to arrive.
    pub fn is_overdue(&self, place: usize, patience: Duration, now: Instant) -> bool {
        matches!(self.stages[place], Stage::Arriving(_, began) if now >= began + patience)
    }

    pub fn registered(&mut self, index: u32, now: Instant) {
        let place = self.place(index);
        let Stage::Arriving(due_at, _) = self.stages[place] else {
            return;
        };
        self.under_way -= 1;
        self.tally.registered += 1;
        self.presence.stops_arriving();
        let target = self.target(place);
        target.open.fetch_add(1, Relaxed);
        target.registered.fetch_add(1, Relaxed);
        let took = now.saturating_duration_since(due_at).as_micros() as u64;
        self.tally.connects.saturating_record(took);
        let stay = jitter(self.manners.stay * 2, &mut self.keys);
        self.wait_until(place, now + stay, Stage::Here);
    }

    /// The server has closed the connection: that is no way to go.
    pub fn dismissed(&mut self, index: u32, code: u16) {
        let place = self.place(index);
        self.fails(place, || format!("closed with {code}"));
    }

    /// The connection is over, by this failure if it was one.
    pub fn ended(&mut self, index: u32, failure: Option<Failure>, now: Instant) {
        let place = self.place(index);
        match (self.stages[place], failure) {
            (Stage::Leaving(until), None) => {
                let began = until - GOODBYE_PATIENCE;
                let took = now.saturating_duration_since(began).as_micros() as u64;
                self.tally.goodbyes.saturating_record(took);
                self.tally.closed += 1;
                self.under_way -= 1;
                self.goes_away(place);
            }
            (_, failure) => {
                self.fails(place, || failure.unwrap_or(Failure::Ended).to_string());
            }
        }
    }

    fn fails(&mut self, place: usize, cause: impl FnOnce() -> String) {
        match self.stages[place] {
            Stage::Away => return,
            Stage::Arriving(..) => {
                self.under_way -= 1;
                self.presence.stops_arriving();
            }
            Stage::Here(_) => {
                self.target(place).open.fetch_sub(1, Relaxed);
            }
            Stage::Leaving(_) => self.under_way -= 1,
        }
        *self.tally.failed.entry(cause()).or_default() += 1;
        self.goes_away(place);
    }

    /// Nobody new is due, and nobody is on the way in or out.
    pub fn is_done(&self, now: Instant) -> bool {
        self.schedule.is_over(now) && self.under_way == 0
    }

    /// Everything so far.
    pub fn tally(&self) -> ChurnTally {
        ChurnTally {
            left_out: self.waiting.len() as u64,
            ..self.tally.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Who;
    use crate::schedule::Flow;

    /// Two clients, of whom one is due in each of three seconds.
    fn churn(reset_share: f64) -> (Churn, Instant) {
        let plan = Plan::new("ws://127.0.0.1:1/", Who::Openid, "", 2).unwrap();
        let now = Instant::now();
        let manners = Manners {
            stay: Duration::from_millis(100),
            reset_share,
        };
        let schedule = Schedule::new(now, Duration::from_secs(3), Flow::PerSec(1.0));
        let presence = Arc::new(Presence::new(2));
        (
            Churn::new(Arc::new(plan), presence, 0..2, manners, schedule),
            now,
        )
    }

    #[test]
    fn clients_come_when_they_are_due_stay_a_while_and_leave_by_a_goodbye() {
        let (mut churn, now) = churn(0.0);
        let after = |millis| now + Duration::from_millis(millis);
        assert_eq!(churn.next_to_come(after(500)), None);
        assert_eq!(churn.next_to_come(after(1500)), Some(0));
        churn.registered(0, after(1600));
        assert!(churn.tally.connects.max() >= 500_000, "since it was due");
        assert_eq!(churn.next_to_move(after(1599)), None);
        assert_eq!(churn.next_to_move(after(1800)), Some((0, Move::SayGoodbye)));
        churn.ended(0, None, after(1900));
        assert_eq!((churn.tally.closed, churn.tally.goodbyes.len()), (1, 1));
        // The other one has been away for longer.
        assert_eq!(churn.next_to_come(after(2000)), Some(1));
        churn.ended(1, Some(Failure::Refused(503)), after(2001));
        assert_eq!(churn.tally.failed["upgrade refused with 503"], 1);
        assert!(!churn.is_done(after(2999)));
        assert_eq!(churn.next_to_come(after(3000)), Some(0));
        churn.registered(0, after(3001));
        assert_eq!(churn.next_to_move(after(9000)), None, "the time is over");
        assert!(churn.is_done(after(9000)));
    }

    #[test]
    fn some_leave_by_a_reset_and_a_goodbye_that_nobody_answers_is_a_failure() {
        let (mut churn, now) = churn(1.0);
        let after = |secs| now + Duration::from_secs(secs);
        churn.next_to_come(after(1)).unwrap();
        churn.registered(0, after(1));
        assert_eq!(churn.next_to_move(after(2)), Some((0, Move::Reset)));
        assert_eq!(churn.tally.reset, 1);
        churn.manners.reset_share = 0.0;
        churn.next_to_come(after(2)).unwrap();
        churn.registered(1, after(2));
        let soon = after(2) + Duration::from_millis(300);
        assert_eq!(churn.next_to_move(soon), Some((1, Move::SayGoodbye)));
        let late = soon + GOODBYE_PATIENCE;
        assert_eq!(churn.next_to_move(late), Some((1, Move::GiveUp)));
        churn.ended(1, Some(Failure::NoGoodbye), late);
        assert_eq!(churn.tally.failed["the goodbye was not answered"], 1);
    }

    #[test]
    fn who_finds_nobody_free_waits_and_is_told_of() {
        let (mut churn, now) = churn(0.0);
        let late = now + Duration::from_secs(3);
        assert_eq!(churn.next_to_come(late), Some(0));
        assert_eq!(churn.next_to_come(late), Some(1));
        assert_eq!(churn.next_to_come(late), None);
        assert_eq!((churn.tally().came, churn.tally().left_out), (2, 1));
        churn.dismissed(0, 1013);
        assert_eq!(churn.next_to_come(late), Some(0));
        assert_eq!(churn.tally.failed["closed with 1013"], 1);
    }
}
