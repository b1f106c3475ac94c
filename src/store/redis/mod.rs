//! The store in Redis: the contract runs inside of it, as scripts, and a batch is one pipeline.
//!
//! Owns: the connection, the rest after a failure, the chores of this node.
//! Invariants: what a request came to is said only by the script that did it; where the answer
//! did not come, nobody is answered, and those whom it may concern look.
//!
//! What is other than with rows on disk:
//! - A push to several is a script for each receiver. If Redis refuses in the midst of it, some
//!   have it, and nobody is answered: who repeats it under its msgid finds out.
//! - Who is connected is what the directory says (`s:` in the hash of a user), on whatever node.
//! - Rings are published to the other nodes where the user is. A batch has those of this node.
//! - Where doorbells are broadcast, there is no directory: nobody knows who is connected. Every
//!   node hears every ring; the inbox of whoever attaches begins then; any known device may be
//!   forgotten, and counts as one that may have been sent what was appended; and an inbox that
//!   nobody has used for 30 days goes, whoever is connected.
//! - The message of a group reaches many members in several steps, and other groups have steps in
//!   between. Groups take turns in the order in which they were written to.
//! - Old entries are looked for at a pace that goes by how long they are kept, not in rounds.
//! - The epoch is a number below 2^52, and another one where the server is not the one under
//!   which an inbox was last touched; then each device is told once that it may miss something.
//! - A number behind which is read counts as 2^53 where it is larger.
//! - Scripts make the names of keys from the prefix and an id, and declare none: one server, with
//!   replicas, not a Redis Cluster. Keys do not expire by themselves: whoever looks for what has
//!   grown old removes inboxes that nobody has used for 30 days.
//! - All nodes go by their own clocks: they should agree within a second.

mod address;
pub mod ask;
mod directory;
mod doorbell;
mod link;
pub mod names;
pub mod scripts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

pub use address::{Address, NoAddress};
pub use ask::Scene as Asking;
pub use directory::{Bound, Cleaned, Placed, bound, cleaned, read_session};
pub use doorbell::{Doorbell, Word};
pub use link::{Answer, Link, LinkError};
use scripts::Script;

use crate::hub::lives::Lives;
use crate::inbox::batch::{Backend, Batch, Failure, Moment, Scene};
use crate::inbox::rows::Broken;
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{GroupChange, Reach};
use crate::parts::faults::Point;

/// The rights of a user that may do what the gateway does, and no more.
pub const ACL: &str = include_str!("throng.acl");

/// How long a server that cannot be reached, or refuses, is left alone.
const REST: Duration = Duration::from_secs(1);
/// How often it is looked for what is due, what grew old, and what others left.
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// Work for a group that nobody has taken up for so long was left by its node.
const ABANDONED_MS: u64 = 15_000;
/// Steps for groups with one batch, and members in each.
const WORK_MAX: usize = 4;
const MEMBERS_MAX: usize = 256;
/// Messages that fall due, inboxes that are looked through, groups that are taken over, in one
/// script: while it runs, nobody else is served.
const DUE_MAX: usize = 64;
const EXPIRE_MAX: usize = 64;
const TAKE_OVER_MAX: usize = 16;

pub struct Redis {
    address: Address,
    prefix: String,
    place: Place,
    /// The node's own, where it may begin another one.
    lives: Option<Arc<Lives>>,
    link: Option<Link>,
    /// It is left alone until then, because of this.
    rest: Option<(Duration, Broken)>,
    /// Groups that have work, as far as this node knows.
    work: VecDeque<String>,
    chores_at: Duration,
    /// When something is due that this node knows of, Unix milliseconds.
    next_due: Option<u64>,
}

/// What was asked beside the requests.
enum Chore {
    Due,
    Expire,
    TakeOver,
    Work(String),
}

impl Redis {
    /// Connects. The server has to be there and fit; later it may go and come back.
    pub fn open(address: Address, prefix: &str, place: Place) -> Result<Redis, LinkError> {
        let link = Link::open(&address, prefix)?;
        Ok(Redis {
            address,
            prefix: prefix.to_owned(),
            place,
            lives: None,
            link: Some(link),
            rest: None,
            work: VecDeque::new(),
            chores_at: Duration::ZERO,
            next_due: None,
        })
    }

    /// As which life of the node it writes is asked each time.
    pub fn in_lives(self, lives: Arc<Lives>) -> Redis {
        Redis {
            lives: Some(lives),
            ..self
        }
    }

    /// The connection, made anew if it was lost and has been left alone for long enough.
    fn link(&mut self, now: Moment) -> Result<&mut Link, Failure> {
        if let Some((until, why)) = &self.rest {
            if now.since_start < *until {
                return Err(Failure::Down(why.clone()));
            }
            self.rest = None;
        }
        if self.link.is_none() {
            match Link::open(&self.address, &self.prefix) {
                Ok(link) => self.link = Some(link),
                Err(error) => {
                    let why = Broken(error.to_string());
                    self.rest = Some((now.since_start + REST, why.clone()));
                    return Err(Failure::Down(why));
                }
            }
        }
        let lost = || Failure::Down(Broken("there is no connection to Redis".to_owned()));
        self.link.as_mut().ok_or_else(lost)
    }

    /// What is to be done beside the requests.
    fn chores(&mut self, requests: &[&Request], now: Moment) -> Vec<Chore> {
        let mut chores = Vec::new();
        let is_time = self.chores_at <= now.since_start;
        if is_time || self.next_due.is_some_and(|due| due <= now.wall_ms) {
            chores.push(Chore::Due);
        }
        if is_time {
            chores.extend([Chore::Expire, Chore::TakeOver]);
            self.chores_at = now.since_start + CHORES_EVERY;
        }
        for request in requests {
            match request {
                Request::AcceptForGroup(accept) => self.add_work(&accept.group),
                Request::Schedule { due_ms, .. } => self.expect(*due_ms),
                _ => {}
            }
        }
        let steps = self.work.len().min(WORK_MAX);
        chores.extend(self.work.drain(..steps).map(Chore::Work));
        chores
    }

    fn add_work(&mut self, group: &str) {
        if !self.work.iter().any(|known| known == group) {
            self.work.push_back(group.to_owned());
        }
    }

    fn expect(&mut self, due_ms: u64) {
        self.next_due = Some(self.next_due.map_or(due_ms, |next| next.min(due_ms)));
    }

    /// What a chore has left over. None: it answers what it never does.
    fn note(&mut self, chore: Chore, answer: Value, now: Moment, batch: &mut Batch) -> Option<()> {
        let answer = hear(answer, batch)?;
        match chore {
            Chore::Due => {
                let [count, next, broken] = ask::list(answer)?;
                note_broken(&broken, batch)?;
                let next = std::str::from_utf8(ask::bytes(&next)?).ok()?;
                let is_cut = ask::number(&count)? as usize == DUE_MAX;
                self.next_due = match next {
                    _ if is_cut => Some(now.wall_ms),
                    "" => None,
                    next => Some(next.parse::<f64>().ok()? as u64),
                };
            }
            Chore::Expire => {
                let [has_more, broken] = ask::list(answer)?;
                note_broken(&broken, batch)?;
                if ask::number(&has_more)? == 1 {
                    self.chores_at = now.since_start;
                }
            }
            Chore::TakeOver => {
                for group in ask::texts(answer)? {
                    self.add_work(&group);
                }
            }
            Chore::Work(group) => {
                let [has_more, broken] = ask::list(answer)?;
                note_broken(&broken, batch)?;
                if ask::number(&has_more)? == 1 {
                    self.add_work(&group);
                }
            }
        }
        Some(())
    }

    /// Nothing of it happened.
    fn refuse(requests: &[&Request], failure: Failure) -> Batch {
        Batch {
            outcomes: requests.iter().map(|_| Some(Outcome::Down)).collect(),
            failure: Some(failure),
            ..Batch::default()
        }
    }
}

/// Whose batches these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The name of this node, one word; empty: it has no entries and no channel.
    pub node: String,
    /// Of this life of it.
    pub epoch: u64,
    /// Every node hears every doorbell, and there is no directory.
    pub is_broadcast: bool,
}

impl Backend for Redis {
    fn carry_out(&mut self, requests: &[&Request], scene: &Scene<'_>) -> Batch {
        let now = scene.now;
        if let Some(lives) = &self.lives {
            self.place.epoch = lives.present();
        }
        let (run, fresh_epoch) = match (
            self.link(now).map(|link| link.run().to_owned()),
            fresh_epoch(),
        ) {
            (Ok(run), Ok(fresh)) => (run, fresh),
            (Err(failure), _) | (_, Err(failure)) => return Redis::refuse(requests, failure),
        };
        let chores = self.chores(requests, now);
        let (prefix, place) = (self.prefix.clone(), self.place.clone());
        let asked = ask::Scene {
            prefix: &prefix,
            run: &run,
            fresh_epoch,
            now_ms: now.wall_ms,
            rules: scene.rules,
            place: &place,
        };
        let (mut commands, mut counts) = (Vec::new(), Vec::new());
        for request in requests {
            let calls = asked.calls(request);
            counts.push(calls.len());
            commands.extend(calls);
        }
        commands.extend(chores.iter().map(|chore| call_of(chore, &asked)));
        let Some(link) = &mut self.link else {
            return Batch::default();
        };
        let (answers, is_alive) = link.ask(&commands);
        if !is_alive {
            self.link = None;
        }
        let mut answers = answers.into_iter();
        let mut batch = Batch::default();
        for (request, count) in requests.iter().zip(counts) {
            settle(request, answers.by_ref().take(count).collect(), &mut batch);
        }
        for (chore, answer) in chores.into_iter().zip(answers) {
            match answer {
                Answer::Value(value) => {
                    if self.note(chore, value, now, &mut batch).is_none() {
                        batch.broken = Some(ask::unread());
                    }
                }
                answer => {
                    batch.is_gap |= matches!(answer, Answer::Failed(_) | Answer::Unknown(_));
                    if let (Chore::Work(group), false) = (&chore, is_failed(&answer)) {
                        self.add_work(group);
                    }
                    answer.tell(&mut batch);
                }
            }
        }
        if let (true, Some(failure)) = (is_alive, &batch.failure) {
            // After that it may be another server that is the master.
            self.link = None;
            let why = Broken(failure.to_string());
            self.rest = Some((now.since_start + REST, why));
        }
        if !self.work.is_empty() {
            Point::FannedOut.pass();
        }
        batch
    }

    fn patience(&self, now: Moment) -> Duration {
        if let Some((until, _)) = &self.rest {
            return until.saturating_sub(now.since_start);
        }
        if !self.work.is_empty() {
            return Duration::ZERO;
        }
        let until_chores = self.chores_at.saturating_sub(now.since_start);
        let until_due = |due: u64| Duration::from_millis(due.saturating_sub(now.wall_ms));
        self.next_due
            .map_or(until_chores, |due| until_chores.min(until_due(due)))
    }

    fn look_for_work(&mut self) {
        self.chores_at = Duration::ZERO;
    }
}

fn call_of(chore: &Chore, scene: &ask::Scene<'_>) -> Cmd {
    match chore {
        Chore::Due => scene.call(Script::Due).with(DUE_MAX),
        Chore::Expire => scene.call(Script::Expire).with(EXPIRE_MAX),
        Chore::TakeOver => {
            let call = scene.call(Script::TakeOver).with(ABANDONED_MS);
            call.with(TAKE_OVER_MAX)
        }
        Chore::Work(group) => {
            let call = scene.call(Script::GroupWork).with(group);
            call.with(MEMBERS_MAX)
        }
    }
    .0
}

/// It would fail again at once.
fn is_failed(answer: &Answer) -> bool {
    matches!(answer, Answer::Failed(_))
}

/// Notes what rings on this node, and returns what else a script has answered.
fn hear(answer: Value, batch: &mut Batch) -> Option<Value> {
    let (answer, doorbells) = ask::open(answer)?;
    for doorbell in doorbells {
        match doorbell.word {
            Word::Ring(ring) => batch.rings.push(ring),
            Word::Presence(change) => batch.presence.push(change),
            // The sessions of this node that have to go are named in the answer.
            Word::Close { .. } => return None,
        }
    }
    Some(answer)
}

fn note_broken(why: &Value, batch: &mut Batch) -> Option<()> {
    let why = String::from_utf8_lossy(ask::bytes(why)?).into_owned();
    if !why.is_empty() {
        batch.broken = Some(Broken(why));
    }
    Some(())
}

/// Says what a request came to, by what was answered to each of its calls.
fn settle(request: &Request, answers: Vec<Answer>, batch: &mut Batch) {
    let is_refused = |answer: &Answer| matches!(answer, Answer::Refused(_) | Answer::NoScript);
    let all_refused = !answers.is_empty() && answers.iter().all(is_refused);
    let mut values = Vec::with_capacity(answers.len());
    let mut is_whole = true;
    for answer in answers {
        match answer {
            Answer::Value(value) if ask::is_scripted(request) => match hear(value, batch) {
                Some(value) => values.push(value),
                None => {
                    is_whole = false;
                    batch.broken = Some(ask::unread());
                }
            },
            Answer::Value(value) => values.push(value),
            answer => {
                is_whole = false;
                answer.tell(batch);
            }
        }
    }
    let result = is_whole.then(|| ask::outcome(request, values));
    batch.outcomes.push(match result {
        Some(Ok(outcome)) => Some(outcome),
        _ if all_refused => Some(Outcome::Down),
        result => {
            if let Some(Err(broken)) = result {
                batch.broken = Some(broken);
            }
            match receivers(request) {
                Some(receivers) => batch.to_look.extend(receivers),
                None => batch.is_gap = true,
            }
            request.is_a_look().then_some(Outcome::Down)
        }
    });
}

/// Who may have got something by a request of which nobody knows. None: it does not name them.
fn receivers(request: &Request) -> Option<Vec<String>> {
    match request {
        Request::Accept(accept) => Some(vec![accept.to.clone()]),
        Request::AcceptAll(accepts) => Some(accepts.iter().map(|one| one.to.clone()).collect()),
        Request::Acknowledge {
            reach: Reach::Silently { .. },
            ..
        } => Some(Vec::new()),
        // The senders of what was got hear of it, and the members of a group that ends.
        Request::Acknowledge { .. } => None,
        Request::Attach(attach) if attach.cursor.is_some() => None,
        Request::Group {
            change: GroupChange::Delete,
            ..
        } => None,
        _ => Some(Vec::new()),
    }
}

impl Answer {
    /// Something was not answered.
    fn tell(self, batch: &mut Batch) {
        match self {
            Answer::Failed(why) => batch.broken = Some(Broken(why)),
            answer => batch.failure = Some(answer.failure()),
        }
    }

    fn failure(self) -> Failure {
        match self {
            Answer::Refused(why) => Failure::Down(Broken(why)),
            Answer::NoScript => Failure::Down(Broken("Redis forgets scripts".to_owned())),
            Answer::Failed(why) => Failure::Unknown(Broken(why)),
            Answer::Unknown(why) => Failure::Unknown(Broken(why)),
            Answer::Value(_) => Failure::Unknown(ask::unread()),
        }
    }
}

/// A random epoch that Lua can count with.
pub fn fresh_epoch() -> Result<u64, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Down(Broken(error.to_string())))?;
    Ok(u64::from_be_bytes(bytes) >> 12)
}
