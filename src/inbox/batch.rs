//! Whole batches: many requests and the chores beside them, in one transaction.
//!
//! Owns: what is to be done without being asked for (groups' messages that their members have
//! not got, messages that fall due, inboxes to look through for what has grown old), and the
//! smaller steps that a batch is divided into when it fails.
//! Invariants: of a transaction that was not committed nothing comes out; of one of which nobody
//! knows, only that those whom it may concern should look.

use std::cell::Cell;
use std::time::Duration;

use super::rows::{self, Broken, Rows, Visit};
use super::service::{Outcome, Request};
use super::{Books, InboxRules, Presence, PresenceChange, Ring, epoch_at};
use crate::parts::faults::{Mutant, Point};

/// Messages of groups that are brought to their members with one batch, at most.
const WORK_MAX: usize = 4;
/// Messages that fall due with one batch, at most.
const DUE_MAX: usize = 256;
/// How often old entries are looked for, and in how many inboxes and groups at a time. Where
/// that changes many rows, the rest waits for the next batch.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_IDS: usize = 250;
const SWEEP_CHANGES: usize = 500;

/// Where rows are kept.
pub trait Store: Send {
    /// Runs `work` in one transaction, and commits it if `work` says so.
    fn run(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<(), Failure>;
}

/// Why a transaction was not committed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It is as if it had not been tried.
    #[error("{0}")]
    NotDone(Broken),
    /// The same, and nothing else would be done either at present.
    #[error("{0}")]
    Down(Broken),
    /// Nobody knows whether it is.
    #[error("it is not known whether it was written: {0}")]
    Unknown(Broken),
}

/// Who carries out batches, and does what is to be done without being asked for.
pub trait Backend: Send {
    fn carry_out(&mut self, requests: &[&Request], scene: &Scene<'_>) -> Batch;
    /// How long there is nothing to do without a request.
    fn patience(&self, now: Moment) -> Duration;
    /// The store works again: what an earlier batch left is looked for.
    fn look_for_work(&mut self);
}

/// The contract over rows that this process reads and changes itself.
pub struct OverRows {
    store: Box<dyn Store>,
    batches: Batches,
}

impl OverRows {
    pub fn new(store: Box<dyn Store>) -> OverRows {
        OverRows {
            store,
            batches: Batches::default(),
        }
    }
}

impl Backend for OverRows {
    fn carry_out(&mut self, requests: &[&Request], scene: &Scene<'_>) -> Batch {
        self.batches.carry_out(&mut *self.store, requests, scene)
    }

    fn patience(&self, now: Moment) -> Duration {
        self.batches.patience(now)
    }

    fn look_for_work(&mut self) {
        self.batches.look_for_work();
    }
}

/// What all requests of a batch have in common.
pub struct Scene<'a> {
    pub presence: &'a dyn Presence,
    pub rules: &'a InboxRules,
    /// Of the store: inboxes that begin have one that is made of it.
    pub epoch: u64,
    pub now: Moment,
}

#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Unix milliseconds, by a clock that may step.
    pub wall_ms: u64,
    /// By one that does not.
    pub since_start: Duration,
}

/// What came of a batch.
#[derive(Default)]
pub struct Batch {
    /// In the order of the requests; none where nobody knows, and nobody is told.
    pub outcomes: Vec<Option<Outcome>>,
    pub rings: Vec<Ring>,
    /// Comings and goings of users whom this node watches, on any node.
    pub presence: Vec<PresenceChange>,
    /// Rings may have been lost, and nobody knows whose: whoever is here should look.
    pub is_gap: bool,
    /// Users who may have got something: their connections should look.
    pub to_look: Vec<String>,
    /// The store does not do what it is asked: not known, or down.
    pub failure: Option<Failure>,
    /// Some rows hold what nobody wrote.
    pub broken: Option<Broken>,
}

/// Carries out batches, and keeps the chores.
pub struct Batches {
    /// Groups may have messages that their members have not got.
    has_work: bool,
    /// The group whose message was brought to its members last: the next one comes first.
    worked: String,
    /// When the next message is due, Unix milliseconds.
    next_due: Option<u64>,
    /// Chores rest until then.
    chores_at: Duration,
    next_sweep: Duration,
    /// Where the sweep goes on.
    swept: Swept,
}

/// How far a sweep has come: the users first, then the groups.
#[derive(Clone, Default)]
struct Swept {
    is_at_groups: bool,
    /// The last one, or nobody where it begins.
    id: String,
}

/// What one transaction came to.
#[derive(Default)]
struct Transaction {
    outcomes: Vec<Outcome>,
    rings: Vec<Ring>,
    has_work: bool,
    worked: String,
    next_due: Option<u64>,
    /// How far the sweep came, and whether there is more to do at once.
    swept: Option<(Swept, bool)>,
}

impl Default for Batches {
    fn default() -> Batches {
        Batches {
            // What an earlier life left is found at once.
            has_work: !Mutant::NoWorkItem.is_on(),
            worked: String::new(),
            next_due: Some(0),
            chores_at: Duration::ZERO,
            next_sweep: SWEEP_EVERY,
            swept: Swept::default(),
        }
    }
}

impl Batches {
    /// How long there is nothing to do without a request.
    pub fn patience(&self, now: Moment) -> Duration {
        let until_chores = self.chores_at.saturating_sub(now.since_start);
        let until_due = match self.next_due {
            _ if self.has_work => Duration::ZERO,
            Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(now.wall_ms)),
            None => SWEEP_EVERY,
        };
        let until_sweep = self.next_sweep.saturating_sub(now.since_start);
        until_sweep.min(until_due).max(until_chores)
    }

    /// One transaction for all. Where it fails because of what some row holds, it is done without
    /// chores, and then one for each, so that an inbox that cannot be read harms nobody else.
    pub fn carry_out(
        &mut self,
        store: &mut dyn Store,
        requests: &[&Request],
        scene: &Scene<'_>,
    ) -> Batch {
        let mut batch = Batch::default();
        let with_chores = self.chores_at <= scene.now.since_start;
        if with_chores {
            match self.transact(store, requests, true, scene, &mut batch) {
                Err(Failure::NotDone(broken)) => {
                    batch.broken = Some(broken);
                    self.chores_at = scene.now.since_start + SWEEP_EVERY;
                    if requests.is_empty() {
                        return batch;
                    }
                }
                result => return self.close(batch, requests, result, scene),
            }
        }
        match self.transact(store, requests, false, scene, &mut batch) {
            Err(Failure::NotDone(_)) if requests.len() > 1 => {
                for request in requests {
                    let result = self.transact(store, &[*request], false, scene, &mut batch);
                    batch = self.close(batch, &[*request], result, scene);
                }
                batch
            }
            result => self.close(batch, requests, result, scene),
        }
    }

    /// Says what the requests of a failed transaction came to.
    fn close(
        &mut self,
        mut batch: Batch,
        requests: &[&Request],
        result: Result<(), Failure>,
        scene: &Scene<'_>,
    ) -> Batch {
        let Err(failure) = result else {
            return batch;
        };
        let is_unknown = matches!(failure, Failure::Unknown(_));
        batch.outcomes.extend(requests.iter().map(|request| {
            let is_told = !is_unknown || request.is_a_look() || Mutant::UnknownIsNo.is_on();
            is_told.then_some(Outcome::Down)
        }));
        match failure {
            Failure::NotDone(broken) => batch.broken = Some(broken),
            failure => batch.failure = Some(failure),
        }
        // They would fail again at once.
        self.chores_at = scene.now.since_start + SWEEP_EVERY;
        batch
    }

    /// The store works again, or its rows were written by somebody else: whatever is left to do
    /// is looked for.
    pub fn look_for_work(&mut self) {
        self.has_work |= !Mutant::NoWorkItem.is_on();
        self.next_due = Some(0);
    }

    fn transact(
        &mut self,
        store: &mut dyn Store,
        requests: &[&Request],
        with_chores: bool,
        scene: &Scene<'_>,
        batch: &mut Batch,
    ) -> Result<(), Failure> {
        let now = scene.now;
        let is_due = self.next_due.is_some_and(|due| due <= now.wall_ms);
        let is_to_sweep = with_chores && self.next_sweep <= now.since_start;
        let mut done = Transaction::default();
        let mut sweeping = None;
        let result = store.run(&mut |rows| {
            done = Transaction {
                has_work: self.has_work,
                worked: self.worked.clone(),
                next_due: self.next_due,
                ..Transaction::default()
            };
            let changes = Cell::new(0);
            let mut books = Books {
                rows: &mut Counted {
                    rows,
                    changes: &changes,
                },
                presence: scene.presence,
                rules: scene.rules,
                now_ms: now.wall_ms,
                epoch: epoch_at(scene.epoch, now.wall_ms),
                rings: &mut done.rings,
            };
            if !self.has_work && Mutant::NoWorkItem.is_on() {
                books.clear(&rows::all::work(), &rows::end_of(rows::all::work()))?;
            }
            for request in requests {
                done.outcomes.push(books.serve(request)?);
                done.has_work |= matches!(request, Request::AcceptForGroup(_));
                if let Request::Schedule { due_ms, .. } = request {
                    let next = done.next_due.map_or(*due_ms, |next| next.min(*due_ms));
                    done.next_due = Some(next);
                }
            }
            if with_chores {
                for _ in 0..WORK_MAX {
                    if !done.has_work {
                        break;
                    }
                    match books.work(&done.worked)? {
                        Some(group) => done.worked = group,
                        None => done.has_work = false,
                    }
                }
                if is_due {
                    books.deliver_due(DUE_MAX)?;
                    done.next_due = books.next_due()?;
                }
                if is_to_sweep {
                    done.swept = Some(sweep(&mut books, &self.swept, &changes, &mut sweeping)?);
                }
            }
            if !requests.is_empty() {
                Point::Written.pass();
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                self.note(&done, now);
                if self.has_work {
                    Point::FannedOut.pass();
                }
                batch.outcomes.extend(done.outcomes.into_iter().map(Some));
                batch.rings.append(&mut done.rings);
                Ok(())
            }
            Err(failure) => {
                if Mutant::EarlyNotice.is_on() {
                    batch
                        .rings
                        .extend(done.rings.iter().filter(|ring| ring.is_notice()).cloned());
                }
                match failure {
                    // Whoever got something in it, if it was written, finds it when it looks.
                    Failure::Unknown(_) => {
                        let uids = done.rings.iter().map(|ring| ring.uid().to_owned());
                        batch.to_look.extend(uids);
                    }
                    // An inbox that cannot be read does not end the round.
                    Failure::NotDone(_) => self.swept = sweeping.unwrap_or(self.swept.clone()),
                    Failure::Down(_) => {}
                }
                Err(failure)
            }
        }
    }

    fn note(&mut self, done: &Transaction, now: Moment) {
        self.has_work = done.has_work;
        self.worked.clone_from(&done.worked);
        self.next_due = done.next_due;
        if let Some((swept, is_cut)) = &done.swept {
            self.swept = swept.clone();
            let pause = if *is_cut { Duration::ZERO } else { SWEEP_EVERY };
            self.next_sweep = now.since_start + pause;
        }
    }
}

/// Drops what has grown old behind `from`. `at` is the one that is looked at.
fn sweep(
    books: &mut Books<'_>,
    from: &Swept,
    changes: &Cell<usize>,
    at: &mut Option<Swept>,
) -> Result<(Swept, bool), Broken> {
    let ids = match from.is_at_groups {
        false => books.users(&from.id, SWEEP_IDS)?,
        true => books.groups(&from.id, SWEEP_IDS)?,
    };
    let before = changes.get();
    let is_last = ids.len() < SWEEP_IDS;
    for id in ids {
        if changes.get() - before >= SWEEP_CHANGES {
            return Ok((at.take().unwrap_or_default(), true));
        }
        let is_at_groups = from.is_at_groups;
        *at = Some(Swept {
            is_at_groups,
            id: id.clone(),
        });
        match is_at_groups {
            false => books.expire(&id)?,
            true => books.expire_group(&id)?,
        };
    }
    let last = at.take().filter(|_| !is_last);
    // Behind the last user come the groups, and behind the last of them it begins anew.
    let next = last.unwrap_or(Swept {
        is_at_groups: !from.is_at_groups,
        id: String::new(),
    });
    Ok((next, false))
}

/// Rows, and how many of them were changed.
struct Counted<'a> {
    rows: &'a mut dyn Rows,
    changes: &'a Cell<usize>,
}

impl Rows for Counted<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        self.rows.get(key)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        self.changes.update(|count| count + 1);
        self.rows.put(key, value)
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Broken> {
        self.changes.update(|count| count + 1);
        self.rows.remove(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken> {
        self.rows.scan(from, to, visit)
    }
}
