//! The storekeeper: one thread that serves all requests to the store, in batches.
//!
//! Owns: the store itself, and the one queue to it. A batch is one transaction: the price of its
//! durability is shared by all who wait.
//! Invariants: nobody is answered, and no bell is rung, before the transaction is committed; if
//! it is rolled back, nothing of it happened and everybody hears so; if nobody knows, nobody
//! hears anything.
//! Neighbours: requests come by letter, answers and entries go by mail to the reactors.

mod memory;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::RecvTimeoutError;
use smallvec::SmallVec;

use crate::command::{Letter, ReplyTo, RungOut, ToReactor};
use crate::hub::post::Post;
use crate::inbox::rows::{Broken, Rows};
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{Books, InboxRules, Presence, Ring};
use crate::mailbox::{Letters, Switchboard};
use crate::parts::key::Key;

pub use memory::Memory;

/// Requests in one transaction at most.
const BATCH_MAX: usize = 1024;
/// Messages of groups that are brought to their members with one batch, at most.
const WORK_MAX: usize = 4;
/// Messages that fall due with one batch, at most.
const DUE_MAX: usize = 256;
/// How often old entries are looked for, and in how many inboxes at a time.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_USERS: usize = 1000;
/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(50);

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
    /// Nobody knows whether it is.
    #[error("it is not known whether it was written: {0}")]
    Unknown(Broken),
}

/// What the storekeeper works with.
pub struct Keeper {
    pub store: Box<dyn Store>,
    pub letters: Letters,
    pub post: Arc<Post>,
    pub switchboard: Switchboard,
    pub rules: InboxRules,
    /// Of inboxes that begin now.
    pub epoch: u64,
    /// Whether the store does what it is asked; others look at it.
    pub is_up: Arc<AtomicBool>,
}

/// Starts the thread. It ends when nobody is left who could write to it.
pub fn spawn(keeper: Keeper) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("store".into())
        .spawn(move || Work::new(keeper).run())
}

struct Work {
    keeper: Keeper,
    /// Groups may have messages that their members have not got.
    has_work: bool,
    /// When the next message is due, Unix milliseconds.
    next_due: Option<u64>,
    /// The user whose inbox was swept last.
    swept: String,
    next_sweep: Instant,
    /// Users whose reactors' mailboxes were full: they are to look for themselves.
    unrung: BTreeSet<String>,
    /// Answers that found a full mailbox.
    unanswered: Vec<(Key, Box<crate::session::ticket::Ticket>, Outcome)>,
}

/// One batch and what came of it.
#[derive(Default)]
struct Batch {
    outcomes: Vec<Outcome>,
    rings: Vec<Ring>,
    has_work: bool,
    next_due: Option<u64>,
    swept: Option<String>,
}

impl Work {
    fn new(keeper: Keeper) -> Work {
        Work {
            keeper,
            // What an earlier life left is found at once.
            has_work: true,
            next_due: Some(0),
            swept: String::new(),
            next_sweep: Instant::now() + SWEEP_EVERY,
            unrung: BTreeSet::new(),
            unanswered: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut letters = Vec::new();
        loop {
            match self.keeper.letters.recv_timeout(self.patience()) {
                Ok(letter) => letters.push(letter),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while letters.len() < BATCH_MAX
                && let Ok(letter) = self.keeper.letters.try_recv()
            {
                letters.push(letter);
            }
            self.serve(std::mem::take(&mut letters));
            self.try_again();
        }
    }

    /// How long there is nothing to do without a letter.
    fn patience(&self) -> Duration {
        if self.has_work {
            return Duration::ZERO;
        }
        let until_sweep = self.next_sweep.saturating_duration_since(Instant::now());
        let until_due = match self.next_due {
            Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(now_ms())),
            None => SWEEP_EVERY,
        };
        let is_behind = !self.unrung.is_empty() || !self.unanswered.is_empty();
        let until_retry = if is_behind { RETRY } else { SWEEP_EVERY };
        until_sweep.min(until_due).min(until_retry)
    }

    /// One transaction for all; where it fails, one for each, so that an inbox that cannot be
    /// read harms nobody else.
    fn serve(&mut self, letters: Vec<Letter>) {
        match self.transact(&letters, true) {
            Ok(batch) => {
                self.note_up(None);
                self.deliver(letters, batch);
            }
            Err(Failure::NotDone(_)) if letters.len() > 1 => {
                for letter in letters {
                    self.serve_alone(letter);
                }
            }
            Err(failure) => self.fail(letters, &failure),
        }
    }

    fn serve_alone(&mut self, letter: Letter) {
        let letters = vec![letter];
        match self.transact(&letters, false) {
            Ok(batch) => self.deliver(letters, batch),
            Err(failure) => self.fail(letters, &failure),
        }
    }

    fn fail(&mut self, letters: Vec<Letter>, failure: &Failure) {
        self.note_up(Some(failure));
        // It would fail again at once.
        self.has_work = false;
        self.next_due = None;
        self.next_sweep = Instant::now() + SWEEP_EVERY;
        for letter in letters {
            let is_known = matches!(failure, Failure::NotDone(_)) || letter.request.is_a_look();
            if is_known {
                self.answer(letter.reply, Outcome::Down);
            }
        }
    }

    /// One line for each time that the store goes down or comes back.
    fn note_up(&mut self, failure: Option<&Failure>) {
        let was_up = self.keeper.is_up.swap(failure.is_none(), Relaxed);
        match failure {
            Some(error) if was_up => tracing::error!(
                %error,
                "the store does not do what it is asked: messages that would have to be stored \
                 are refused until it does"
            ),
            None if !was_up => {
                self.has_work = true;
                self.next_due = Some(0);
                tracing::info!("the store works again");
            }
            _ => {}
        }
    }

    fn transact(&mut self, letters: &[Letter], with_chores: bool) -> Result<Batch, Failure> {
        let Keeper {
            store,
            post,
            rules,
            epoch,
            ..
        } = &mut self.keeper;
        let now_ms = now_ms();
        let is_due = self.next_due.is_some_and(|due| due <= now_ms);
        let is_to_sweep = with_chores && self.next_sweep <= Instant::now();
        let (has_work, swept) = (self.has_work, &self.swept);
        let mut batch = Batch::default();
        let mut next_due = self.next_due;
        store.run(&mut |rows| {
            batch = Batch::default();
            let mut books = Books {
                rows,
                presence: &Here(post),
                rules,
                now_ms,
                epoch: *epoch,
                rings: &mut batch.rings,
            };
            for letter in letters {
                let outcome = books.serve(&letter.request)?;
                batch.has_work |= matches!(letter.request, Request::AcceptForGroup(_));
                if let Request::Schedule { due_ms, .. } = letter.request {
                    next_due = Some(next_due.map_or(due_ms, |next| next.min(due_ms)));
                }
                batch.outcomes.push(outcome);
            }
            if !with_chores {
                batch.has_work |= has_work;
                batch.next_due = next_due;
                return Ok(());
            }
            if has_work || batch.has_work {
                batch.has_work = false;
                for _ in 0..WORK_MAX {
                    batch.has_work = books.work()?;
                    if !batch.has_work {
                        break;
                    }
                }
            }
            if is_due {
                books.deliver_due(DUE_MAX)?;
                next_due = books.next_due()?;
            }
            batch.next_due = next_due;
            if is_to_sweep {
                let users = books.users(swept, SWEEP_USERS)?;
                for uid in &users {
                    books.expire(uid)?;
                }
                // Behind the last one it begins anew.
                let is_round = users.len() < SWEEP_USERS;
                batch.swept = Some(
                    users
                        .last()
                        .filter(|_| !is_round)
                        .cloned()
                        .unwrap_or_default(),
                );
            }
            Ok(())
        })?;
        Ok(batch)
    }

    fn deliver(&mut self, letters: Vec<Letter>, batch: Batch) {
        self.has_work = batch.has_work;
        self.next_due = batch.next_due;
        if let Some(swept) = batch.swept {
            self.swept = swept;
            self.next_sweep = Instant::now() + SWEEP_EVERY;
        }
        for (letter, outcome) in letters.into_iter().zip(batch.outcomes) {
            self.answer(letter.reply, outcome);
        }
        for ring in batch.rings {
            self.ring(ring);
        }
    }

    fn answer(&mut self, reply: ReplyTo, outcome: Outcome) {
        match reply {
            ReplyTo::Nobody => {}
            ReplyTo::Call(call) => call(outcome),
            ReplyTo::Session { key, ticket } => {
                if !self.unanswered.is_empty() {
                    // Behind those that wait: answers keep their order.
                    self.unanswered.push((key, ticket, outcome));
                    return;
                }
                self.mail_answer(key, ticket, outcome);
            }
        }
    }

    fn mail_answer(
        &mut self,
        key: Key,
        ticket: Box<crate::session::ticket::Ticket>,
        outcome: Outcome,
    ) {
        let mail = ToReactor::Answer {
            to: key,
            ticket,
            outcome,
        };
        if let Err(ToReactor::Answer {
            to,
            ticket,
            outcome,
        }) = self.keeper.switchboard.offer(key.reactor(), mail)
        {
            self.unanswered.push((to, ticket, outcome));
        }
    }

    /// Tells the connections of a user. Where that fails they find it when they look: soon.
    fn ring(&mut self, ring: Ring) {
        let uid = ring.uid().to_owned();
        let sessions = self.keeper.post.roster.find(&uid);
        if sessions.is_empty() {
            return;
        }
        let is_told = match ring {
            Ring::Lost { .. } => self.keeper.switchboard.look(&sessions),
            Ring::Entry {
                epoch,
                seq,
                entry,
                but,
                ..
            } => {
                let rung = RungOut {
                    epoch,
                    seq,
                    entry,
                    but: but.map(Key::from_bits),
                };
                self.keeper.switchboard.ring(&sessions, &Arc::new(rung))
            }
        };
        if is_told.is_err() {
            self.unrung.insert(uid);
        }
    }

    fn try_again(&mut self) {
        let mut waiting = std::mem::take(&mut self.unanswered).into_iter();
        for (key, ticket, outcome) in waiting.by_ref() {
            self.mail_answer(key, ticket, outcome);
            if !self.unanswered.is_empty() {
                break;
            }
        }
        self.unanswered.extend(waiting);
        let Keeper {
            post, switchboard, ..
        } = &self.keeper;
        self.unrung
            .retain(|uid| switchboard.look(&post.roster.find(uid)).is_err());
    }
}

/// The roster, as far as the inbox asks.
struct Here<'a>(&'a Post);

impl Presence for Here<'_> {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        self.0.roster.devices(uid)
    }
}

/// Unix time.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
