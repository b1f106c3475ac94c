//! Pushes over the HTTP API at a given rate, whatever becomes of those before.
//!
//! Each lane is a thread with a connection of its own, which waits for one answer at a time. All
//! pushes to one block of users leave by the same lane, so these have an order.
//! Owns: the lanes' threads while they push, and what the API said.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::api::{Answer, Api};
use crate::counts::add_each;
use crate::message::{self, PostMark};
use crate::plan::Plan;
use crate::post::Series;
use crate::tally;

/// How often a lane that waits looks whether it is to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is pushed, where and when.
#[derive(Clone, Debug)]
pub struct Pushing {
    /// One for each lane.
    pub apis: Vec<String>,
    pub key: Option<String>,
    /// Pushes a second, of all lanes together.
    pub rate: f64,
    pub lasts: Duration,
    /// What has not been received by then, after the last push, will not be.
    pub patience: Duration,
    pub to: To,
    /// Bytes of a message.
    pub bytes: usize,
    /// Slow clients read nothing for so long.
    pub stalls_for: Duration,
}

/// Whom a push is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Everybody,
    /// So many users, who are told now or, if it is stored, when they come.
    Users {
        count: u32,
        store: bool,
    },
}

impl Pushing {
    /// Pushes in all.
    pub fn count(&self) -> u32 {
        (self.rate * self.lasts.as_secs_f64()).round().max(1.0) as u32
    }

    pub fn blocks(&self, clients: u32) -> u32 {
        match self.to {
            To::Everybody => 1,
            To::Users { count, .. } => clients.div_ceil(count.max(1)),
        }
    }
}

/// What the API said. Times are nanoseconds since a push was due.
#[derive(Clone, Debug)]
pub struct PushTally {
    /// Pushes with any answer, and those that were accepted for all their users.
    pub answered: u64,
    pub accepted: u64,
    /// Users that pushes were accepted for.
    pub promised: u64,
    /// Users who are not connected, as the API says (-501).
    pub absent: u64,
    /// Pushes that were not accepted, or not for everybody, by what the answer says.
    pub refused: BTreeMap<String, u64>,
    /// Pushes without an answer, by cause: nobody knows what became of them.
    pub unknown: BTreeMap<String, u64>,
    pub to_answer: Histogram<u64>,
}

impl Default for PushTally {
    fn default() -> PushTally {
        PushTally {
            answered: 0,
            accepted: 0,
            promised: 0,
            absent: 0,
            refused: BTreeMap::new(),
            unknown: BTreeMap::new(),
            to_answer: tally::latencies(),
        }
    }
}

impl PushTally {
    pub fn add(&mut self, other: &PushTally) -> Result<(), hdrhistogram::AdditionError> {
        self.answered += other.answered;
        self.accepted += other.accepted;
        self.promised += other.promised;
        self.absent += other.absent;
        add_each(&mut self.refused, &other.refused);
        add_each(&mut self.unknown, &other.unknown);
        self.to_answer.add(&other.to_answer)
    }

    fn hear(&mut self, answer: io::Result<Answer>, users: u64, took: Duration) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                *self.unknown.entry(error.to_string()).or_default() += 1;
                return;
            }
        };
        self.answered += 1;
        self.to_answer.saturating_record(took.as_nanos() as u64);
        let absent = answer.absent();
        self.absent += absent;
        if answer.is_success {
            self.accepted += 1;
            self.promised += users;
        } else {
            self.promised += match absent {
                0 => answer.sent(),
                absent => users.saturating_sub(absent),
            };
            *self.refused.entry(answer.to_string()).or_default() += 1;
        }
    }
}

/// One connection, and the pushes to the blocks that are its own.
pub struct Lane<'a> {
    pub plan: &'a Plan,
    pub pushing: &'a Pushing,
    pub series: &'a Series,
    pub number: u32,
    pub should_stop: &'a AtomicBool,
}

impl Lane<'_> {
    /// Pushes what is due until all of it is pushed, or the time is over by far.
    pub fn run(&self, api: &mut Api) -> PushTally {
        let mut tally = PushTally::default();
        let lanes = self.pushing.apis.len() as u32;
        let blocks = self.pushing.blocks(self.plan.clients as u32);
        let deadline = self.series.began + self.pushing.lasts + self.pushing.patience;
        for push in 0..self.pushing.count() {
            let (block, round) = (push % blocks, push / blocks);
            if block % lanes != self.number {
                continue;
            }
            let due = Duration::from_secs_f64(f64::from(push) / self.pushing.rate);
            let is_over = || self.should_stop.load(Relaxed) || Instant::now() >= deadline;
            if !self.sleep_until(self.series.began + due) || is_over() {
                return tally;
            }
            let (body, users) = self.body(PostMark {
                run: self.series.run,
                block,
                number: self.series.first + round,
                due_nanos: due.as_nanos() as u64,
            });
            let answer = api.post("/api/v1/messages", &body);
            tally.hear(answer, users, self.series.began.elapsed() - due);
        }
        tally
    }

    /// False if it was woken up to stop.
    fn sleep_until(&self, at: Instant) -> bool {
        while !self.should_stop.load(Relaxed) {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
        false
    }

    /// The body of a request, and how many users it is for.
    fn body(&self, mark: PostMark) -> (String, u64) {
        let clients = self.plan.clients as u32;
        let mut body = String::with_capacity(self.pushing.bytes + 256);
        let users = match self.pushing.to {
            To::Everybody => {
                body.push_str("{\"sendToAll\":true");
                u64::from(clients)
            }
            To::Users { count, store } => {
                let first = mark.block * count;
                let users = first..clients.min(first + count);
                let names: Vec<String> = users.map(|index| self.plan.uid(index)).collect();
                body += &format!("{{\"to\":[\"{}\"],\"store\":{store}", names.join("\",\""));
                names.len() as u64
            }
        };
        body.push_str(",\"msg\":");
        message::write_post(&mut body, mark, self.pushing.bytes);
        body.push('}');
        (body, users)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::parse(status, body.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_promised_is_what_the_answers_accept() {
        let mut tally = PushTally::default();
        let mut hear = |answer| tally.hear(answer, 3, Duration::from_millis(1));
        hear(Ok(answer(
            200,
            r#"{"success":true,"statusCode":200,"content":{"a":"1","b":"2","c":"3"}}"#,
        )));
        hear(Ok(answer(
            200,
            r#"{"success":false,"statusCode":-501,"content":["b"],"msg":"nobody"}"#,
        )));
        hear(Ok(answer(
            503,
            r#"{"success":false,"statusCode":503,"content":{"reason":"busy","sent":{"a":"1"},"notSent":["b","c"]}}"#,
        )));
        hear(Err(io::ErrorKind::UnexpectedEof.into()));
        assert_eq!((tally.answered, tally.accepted), (3, 1));
        assert_eq!((tally.promised, tally.absent), (3 + 2 + 1, 1));
        let refused: Vec<&str> = tally.refused.keys().map(String::as_str).collect();
        assert_eq!(refused, ["-501", "503 busy"]);
        assert_eq!(tally.unknown.values().sum::<u64>(), 1);
    }
}
