//! A storekeeper's way to Redis: a batch is one pipeline, which may break at any place.
//!
//! Owns: under which life of the server the connection was made, and the chores of one node. A
//! model of `src/store/redis/mod.rs`, which has threads and sockets: what an answer, or none,
//! comes to is said here as there.

use std::collections::VecDeque;
use std::time::Duration;

use throng::inbox::Accepted;
use throng::inbox::batch::{Backend, Batch, Failure, Moment, Scene};
use throng::inbox::rows::Broken;
use throng::inbox::service::{Outcome, Request};
use throng::store::redis::Word;

use super::redis::{Caller, Redis};
use crate::disk::Weather;
use crate::rig::feed::Chance;

/// How long a server that cannot be reached, or refuses, is left alone.
const REST: Duration = Duration::from_secs(1);
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// Steps for groups with one batch.
const WORK_MAX: usize = 4;

#[derive(Default)]
pub struct Link {
    /// The life of the server to which it leads; none: it is broken.
    run: Option<u64>,
    rest_until: Duration,
    /// Groups that have work, as far as this node knows.
    work: VecDeque<String>,
    chores_at: Duration,
    next_due: Option<u64>,
}

/// A link while it is used.
pub struct Line<'a> {
    pub link: &'a mut Link,
    pub redis: &'a mut Redis,
    pub node: &'a str,
    pub epoch: u64,
    pub chance: &'a mut Chance,
    /// The node dies while it waits for the answers.
    pub is_dying: bool,
}

/// One script of a pipeline.
#[derive(Clone)]
enum Call {
    /// The request by its number; of a push to several, one of them.
    Request(usize, Request),
    Due,
    Expire,
    TakeOver,
    Work(String),
}

enum Answer {
    Value(Option<Outcome>),
    Refused,
    Unknown,
}

/// How far a pipeline comes.
struct Fate {
    executed: usize,
    answered: usize,
    /// What is not answered was refused, and not done.
    is_refused: bool,
}

impl Backend for Line<'_> {
    fn carry_out(&mut self, requests: &[&Request], scene: &Scene<'_>) -> Batch {
        let now = scene.now;
        if let Err(failure) = self.open(now) {
            return Batch {
                outcomes: requests.iter().map(|_| Some(Outcome::Down)).collect(),
                failure: Some(failure),
                ..Batch::default()
            };
        }
        let calls = self.calls(requests, now);
        let fate = self.fate(calls.len());
        let mut batch = Batch::default();
        let mut of_each: Vec<Vec<Answer>> = requests.iter().map(|_| Vec::new()).collect();
        for (at, call) in calls.into_iter().enumerate() {
            let is_answered = at < fate.answered;
            let outcome = match at < fate.executed {
                true => self.execute(&call, is_answered, scene, &mut batch),
                false => None,
            };
            let answer = match is_answered {
                true => Answer::Value(outcome),
                false if fate.is_refused => Answer::Refused,
                false => Answer::Unknown,
            };
            match (call, answer) {
                (Call::Request(of, _), answer) => of_each[of].push(answer),
                (_, Answer::Value(_)) => {}
                (_, answer) => {
                    batch.is_gap |= matches!(answer, Answer::Unknown);
                    batch.failure = Some(answer.failure());
                }
            }
        }
        for (request, answers) in requests.iter().zip(of_each) {
            settle(request, answers, &mut batch);
        }
        if batch.failure.is_some() {
            self.link.run = None;
            if fate.is_refused {
                self.link.rest_until = now.since_start + REST;
            }
        }
        batch
    }

    fn patience(&self, now: Moment) -> Duration {
        let link = &self.link;
        if now.since_start < link.rest_until {
            return link.rest_until - now.since_start;
        }
        if !link.work.is_empty() {
            return Duration::ZERO;
        }
        let until_chores = link.chores_at.saturating_sub(now.since_start);
        let until_due = |due: u64| Duration::from_millis(due.saturating_sub(now.wall_ms));
        link.next_due
            .map_or(until_chores, |due| until_chores.min(until_due(due)))
    }

    fn look_for_work(&mut self) {
        self.link.chores_at = Duration::ZERO;
    }
}

impl Line<'_> {
    /// The connection, made anew if it was lost and has been left alone for long enough.
    fn open(&mut self, now: Moment) -> Result<(), Failure> {
        if self.link.run.is_some() {
            return Ok(());
        }
        if now.since_start < self.link.rest_until {
            return Err(down());
        }
        if self.redis.is_down {
            self.link.rest_until = now.since_start + REST;
            return Err(down());
        }
        self.link.run = Some(self.redis.run);
        Ok(())
    }

    fn calls(&mut self, requests: &[&Request], now: Moment) -> Vec<Call> {
        let mut calls = Vec::new();
        let link = &mut self.link;
        let is_time = link.chores_at <= now.since_start;
        let is_due = link.next_due.is_some_and(|due| due <= now.wall_ms);
        for (at, request) in requests.iter().enumerate() {
            match request {
                Request::AcceptAll(accepts) => calls.extend(
                    accepts
                        .iter()
                        .map(|accept| Call::Request(at, Request::Accept(Box::new(accept.clone())))),
                ),
                Request::AcceptForGroup(accept) => {
                    if !link.work.contains(&accept.group) {
                        link.work.push_back(accept.group.clone());
                    }
                    calls.push(Call::Request(at, (*request).clone()));
                }
                request => {
                    if let Request::Schedule { due_ms, .. } = request {
                        let next = link.next_due.map_or(*due_ms, |next| next.min(*due_ms));
                        link.next_due = Some(next);
                    }
                    calls.push(Call::Request(at, (*request).clone()));
                }
            }
        }
        if is_time || is_due {
            link.next_due = None;
            calls.push(Call::Due);
        }
        if is_time {
            calls.extend([Call::Expire, Call::TakeOver]);
            link.chores_at = now.since_start + CHORES_EVERY;
        }
        let steps = link.work.len().min(WORK_MAX);
        calls.extend(link.work.drain(..steps).map(Call::Work));
        calls
    }

    /// How far it comes, as the weather has it.
    fn fate(&mut self, count: usize) -> Fate {
        let is_cut = self.redis.is_down || self.link.run != Some(self.redis.run);
        let all = Fate {
            executed: count,
            answered: count,
            is_refused: false,
        };
        let some = |chance: &mut Chance| chance.below(count as u64 + 1) as usize;
        if is_cut {
            return Fate {
                executed: 0,
                answered: 0,
                is_refused: false,
            };
        }
        if self.is_dying {
            let executed = some(self.chance);
            return Fate {
                executed,
                answered: 0,
                is_refused: false,
            };
        }
        match self.redis.weather {
            Weather::Fine => all,
            Weather::Rough => match self.chance.below(12) {
                0 => {
                    let done = some(self.chance);
                    Fate {
                        executed: done,
                        answered: done,
                        is_refused: done < count,
                    }
                }
                1 | 2 => {
                    let executed = some(self.chance);
                    let answered = self.chance.below(executed as u64 + 1) as usize;
                    Fate {
                        executed,
                        answered,
                        is_refused: false,
                    }
                }
                _ => all,
            },
            Weather::Down => Fate {
                executed: 0,
                answered: 0,
                is_refused: true,
            },
        }
    }

    /// Runs one script. What rings on this node is heard in the answer.
    fn execute(
        &mut self,
        call: &Call,
        is_answered: bool,
        scene: &Scene<'_>,
        batch: &mut Batch,
    ) -> Option<Outcome> {
        let by = Caller {
            node: self.node,
            epoch: self.epoch,
            rules: scene.rules,
            wall_ms: scene.now.wall_ms,
        };
        let redis = &mut *self.redis;
        let (outcome, own) = match call {
            Call::Request(_, request) => {
                let (outcome, own) = redis.serve(by, request);
                (Some(outcome), own)
            }
            Call::Due => (None, redis.deliver_due(by)),
            Call::Expire => (None, redis.expire(by)),
            Call::TakeOver => {
                let groups = redis.take_over();
                if is_answered {
                    self.link.work.extend(groups);
                }
                (None, Vec::new())
            }
            Call::Work(group) => {
                let (has_more, own) = redis.work(by, group);
                if is_answered && has_more {
                    self.link.work.push_back(group.clone());
                }
                (None, own)
            }
        };
        if is_answered {
            batch
                .rings
                .extend(own.into_iter().filter_map(|word| match word {
                    Word::Ring(ring) => Some(ring),
                    Word::Close { .. } | Word::Presence(_) => None,
                }));
        }
        outcome
    }
}

fn down() -> Failure {
    Failure::Down(Broken("there is no connection to Redis".to_owned()))
}

impl Answer {
    fn failure(&self) -> Failure {
        match self {
            Answer::Refused => Failure::Down(Broken("OOM".to_owned())),
            _ => Failure::Unknown(Broken("the connection broke".to_owned())),
        }
    }
}

/// Says what a request came to, by what was answered to each of its calls.
fn settle(request: &Request, answers: Vec<Answer>, batch: &mut Batch) {
    let is_refused = |answer: &Answer| matches!(answer, Answer::Refused);
    let all_refused = !answers.is_empty() && answers.iter().all(is_refused);
    let mut values = Vec::new();
    let mut is_whole = true;
    for answer in answers {
        match answer {
            Answer::Value(value) => values.extend(value),
            answer => {
                is_whole = false;
                batch.failure = Some(answer.failure());
            }
        }
    }
    batch.outcomes.push(if is_whole {
        Some(joined(request, values))
    } else if all_refused {
        Some(Outcome::Down)
    } else {
        match receivers(request) {
            Some(receivers) => batch.to_look.extend(receivers),
            None => batch.is_gap = true,
        }
        request.is_a_look().then_some(Outcome::Down)
    });
}

fn joined(request: &Request, mut values: Vec<Outcome>) -> Outcome {
    if !matches!(request, Request::AcceptAll(_)) {
        return values.remove(0);
    }
    let accepted = |value: Outcome| match value {
        Outcome::Accepted(accepted) => accepted,
        _ => Accepted::Full,
    };
    Outcome::AllAccepted(values.into_iter().map(accepted).collect())
}

/// Who may have got something by a request of which nobody knows. None: it does not name them.
fn receivers(request: &Request) -> Option<Vec<String>> {
    match request {
        Request::Accept(accept) => Some(vec![accept.to.clone()]),
        Request::AcceptAll(accepts) => Some(accepts.iter().map(|one| one.to.clone()).collect()),
        Request::Acknowledge { .. } | Request::Group { .. } => None,
        Request::Attach(attach) if attach.cursor.is_some() => None,
        _ => Some(Vec::new()),
    }
}
