//! The storekeeper: one thread that serves all requests to the store, in batches.
//!
//! Owns: the store itself, and the one queue to it. A batch is one transaction: the price of its
//! durability is shared by all who wait.
//! Invariants: nobody is answered, and no bell is rung, before the transaction is committed; if
//! it is rolled back, nothing of it happened and everybody hears so; if nobody knows, nobody
//! hears anything. Before it ends, all that was asked for is served, and the store is closed.
//! Neighbours: requests come by letter, answers and entries go by mail to the reactors.

mod disk;
mod memory;
pub mod tool;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use smallvec::SmallVec;

use crate::command::{Letter, ReplyTo, RungOut, ToReactor};
use crate::hub::post::Post;
use crate::inbox::rows::{Broken, Rows, Visit};
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{Books, InboxRules, Presence, Ring};
use crate::mailbox::{Letters, Switchboard};
use crate::parts::key::Key;

pub use disk::{Disk, Look, OpenError, STORE_FILE, new_epoch};
pub use memory::Memory;

/// Requests in one transaction at most: with more, those who came first wait for longer than
/// their share of the disk's time saves.
const BATCH_MAX: usize = 512;
/// Messages of groups that are brought to their members with one batch, at most.
const WORK_MAX: usize = 4;
/// Messages that fall due with one batch, at most.
const DUE_MAX: usize = 256;
/// How often old entries are looked for, and in how many inboxes at a time. Where that changes
/// many rows, the rest waits for the next batch.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
const SWEEP_USERS: usize = 1000;
const SWEEP_CHANGES: usize = 500;
/// How soon a full mailbox is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long the node waits for the storekeeper at its end: a disk may never answer.
const END_PATIENCE: Duration = Duration::from_secs(10);

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

/// What the storekeeper works with.
pub struct Keeper {
    pub store: Box<dyn Store>,
    pub letters: Letters,
    pub post: Arc<Post>,
    pub switchboard: Switchboard,
    pub rules: LiveRules,
    /// Of inboxes that begin now.
    pub epoch: u64,
    /// Whether the store does what it is asked; others look at it.
    pub is_up: Arc<AtomicBool>,
}

/// The rules that the next batch goes by.
#[derive(Clone)]
pub struct LiveRules(Arc<Mutex<InboxRules>>);

impl LiveRules {
    pub fn new(rules: InboxRules) -> LiveRules {
        LiveRules(Arc::new(Mutex::new(rules)))
    }

    pub fn set(&self, rules: InboxRules) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    fn get(&self) -> InboxRules {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, for whoever ends it.
pub struct Storekeeper {
    thread: JoinHandle<()>,
    end: Sender<()>,
}

pub fn spawn(keeper: Keeper) -> io::Result<Storekeeper> {
    let (end, ending) = bounded(1);
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || Work::new(keeper, ending).run())?;
    Ok(Storekeeper { thread, end })
}

impl Storekeeper {
    /// Returns when all that was asked for so far is done and the store is closed. Whoever asks
    /// later finds a full queue.
    pub fn end(self) {
        let deadline = Instant::now() + END_PATIENCE;
        let _ = self.end.send(());
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                tracing::error!(
                    "the store does not come to its end: what was not answered may be lost"
                );
                return;
            }
            sleep(Duration::from_millis(2));
        }
        tracing::info!("the store is closed");
    }
}

struct Work {
    keeper: Keeper,
    /// Says that the end has come.
    ending: Receiver<()>,
    /// Groups may have messages that their members have not got.
    has_work: bool,
    /// When the next message is due, Unix milliseconds.
    next_due: Option<u64>,
    /// Chores rest until then.
    chores_at: Instant,
    /// What was last said to be unreadable.
    broken: Option<Broken>,
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
    swept: Option<Swept>,
}

/// How far a sweep has come.
#[derive(Default)]
struct Swept {
    /// The last user, or nobody behind the last of all.
    uid: String,
    /// There was more to do than one batch should.
    is_cut: bool,
}

impl Work {
    fn new(keeper: Keeper, ending: Receiver<()>) -> Work {
        Work {
            keeper,
            ending,
            // What an earlier life left is found at once.
            has_work: true,
            next_due: Some(0),
            chores_at: Instant::now(),
            broken: None,
            swept: String::new(),
            next_sweep: Instant::now() + SWEEP_EVERY,
            unrung: BTreeSet::new(),
            unanswered: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut letters = Vec::new();
        let mut is_ending = false;
        while !is_ending {
            let Keeper { letters: queue, .. } = &self.keeper;
            select! {
                recv(queue) -> letter => match letter {
                    Ok(letter) => letters.push(letter),
                    Err(_) => is_ending = true,
                },
                recv(self.ending) -> _ => is_ending = true,
                default(self.patience()) => {}
            }
            loop {
                let room = BATCH_MAX - letters.len();
                letters.extend(self.keeper.letters.try_iter().take(room));
                self.serve(std::mem::take(&mut letters));
                self.try_again();
                if !is_ending || self.keeper.letters.is_empty() {
                    break;
                }
            }
        }
    }

    /// How long there is nothing to do without a letter.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let until_chores = self.chores_at.saturating_duration_since(now);
        let until_due = match self.next_due {
            _ if self.has_work => Duration::ZERO,
            Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(now_ms())),
            None => SWEEP_EVERY,
        };
        let until_sweep = self.next_sweep.saturating_duration_since(now);
        let is_behind = !self.unrung.is_empty() || !self.unanswered.is_empty();
        let until_retry = if is_behind { RETRY } else { SWEEP_EVERY };
        until_sweep
            .min(until_due)
            .max(until_chores)
            .min(until_retry)
    }

    /// One transaction for all. Where it fails because of what some row holds, it is done without
    /// chores, and then one for each, so that an inbox that cannot be read harms nobody else.
    fn serve(&mut self, letters: Vec<Letter>) {
        let with_chores = self.chores_at <= Instant::now();
        match self.transact(&letters, with_chores) {
            Ok(batch) => {
                self.deliver(letters, batch);
                self.note_up(None);
            }
            Err(Failure::NotDone(broken)) if with_chores => {
                self.note_broken(broken);
                self.chores_at = Instant::now() + SWEEP_EVERY;
                if !letters.is_empty() {
                    self.serve(letters);
                }
            }
            Err(Failure::NotDone(_)) if letters.len() > 1 => {
                for letter in letters {
                    self.serve_alone(letter);
                }
            }
            Err(failure) => self.fail(letters, failure),
        }
    }

    fn serve_alone(&mut self, letter: Letter) {
        let letters = vec![letter];
        match self.transact(&letters, false) {
            Ok(batch) => self.deliver(letters, batch),
            Err(failure) => self.fail(letters, failure),
        }
    }

    fn fail(&mut self, letters: Vec<Letter>, failure: Failure) {
        let is_unknown = matches!(failure, Failure::Unknown(_));
        for letter in letters {
            if !is_unknown || letter.request.is_a_look() {
                self.answer(letter.reply, Outcome::Down);
            }
        }
        match failure {
            Failure::NotDone(broken) => self.note_broken(broken),
            Failure::Down(_) | Failure::Unknown(_) => self.note_up(Some(&failure)),
        }
        // They would fail again at once.
        self.chores_at = Instant::now() + SWEEP_EVERY;
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
                // What nobody knew to be written may have left some.
                self.has_work = true;
                self.next_due = Some(0);
                tracing::info!("the store works again");
            }
            _ => {}
        }
    }

    /// One line for each row that holds what nobody wrote.
    fn note_broken(&mut self, broken: Broken) {
        if self.broken.as_ref() != Some(&broken) {
            tracing::error!(
                error = %broken,
                "a part of the store cannot be read; throng store check names the rows"
            );
            self.broken = Some(broken);
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
        let (now_ms, rules) = (now_ms(), rules.get());
        let is_due = self.next_due.is_some_and(|due| due <= now_ms);
        let is_to_sweep = with_chores && self.next_sweep <= Instant::now();
        let (has_work, swept) = (self.has_work, &self.swept);
        let mut batch = Batch::default();
        let mut next_due = self.next_due;
        let mut sweeping = None;
        let result = store.run(&mut |rows| {
            batch = Batch::default();
            let changes = Cell::new(0);
            let mut books = Books {
                rows: &mut Counted {
                    rows,
                    changes: &changes,
                },
                presence: &Here(post),
                rules: &rules,
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
                batch.swept = Some(sweep(&mut books, swept, &changes, &mut sweeping)?);
            }
            Ok(())
        });
        match &result {
            // Whoever got something in it, if it was written, finds it when it looks.
            Err(Failure::Unknown(_)) => {
                let uids = batch.rings.iter().map(|ring| ring.uid().to_owned());
                self.unrung.extend(uids);
            }
            // An inbox that cannot be read does not end the round.
            Err(Failure::NotDone(_)) => {
                if let Some(uid) = sweeping {
                    self.swept = uid;
                }
            }
            _ => {}
        }
        result.map(|()| batch)
    }

    fn deliver(&mut self, letters: Vec<Letter>, batch: Batch) {
        self.has_work = batch.has_work;
        self.next_due = batch.next_due;
        if let Some(Swept { uid, is_cut }) = batch.swept {
            self.swept = uid;
            let pause = if is_cut { Duration::ZERO } else { SWEEP_EVERY };
            self.next_sweep = Instant::now() + pause;
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

/// Drops what has grown old in the inboxes behind `behind`. `at` is the one that is looked at.
fn sweep(
    books: &mut Books<'_>,
    behind: &str,
    changes: &Cell<usize>,
    at: &mut Option<String>,
) -> Result<Swept, Broken> {
    let users = books.users(behind, SWEEP_USERS)?;
    let before = changes.get();
    let is_round = users.len() < SWEEP_USERS;
    for uid in users {
        if changes.get() - before >= SWEEP_CHANGES {
            let uid = at.take().unwrap_or_default();
            return Ok(Swept { uid, is_cut: true });
        }
        *at = Some(uid.clone());
        books.expire(&uid)?;
    }
    let last = at.take().filter(|_| !is_round);
    Ok(Swept {
        // Behind the last one it begins anew.
        uid: last.unwrap_or_default(),
        is_cut: false,
    })
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
