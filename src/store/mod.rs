//! The storekeeper: one thread that serves all requests to the store, in batches.
//!
//! Owns: the store itself, and the one queue to it. A batch is one transaction, or one pipeline to
//! Redis: the price of its durability is shared by all who wait.
//! Invariants: nobody is answered, and no bell is rung, before the transaction is committed; if
//! it is rolled back, nothing of it happened and everybody hears so; if nobody knows, nobody
//! hears anything. Before it ends, all that was asked for is served, and the store is closed.
//! Neighbours: requests come by letter, answers and entries go by mail to the reactors.

mod bells;
mod disk;
mod memory;
pub mod redis;
pub mod tool;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::RecvTimeoutError;
use smallvec::SmallVec;

use crate::command::{Bye, Letter, ReplyTo, ToReactor};
use crate::hub::others::{Part, Turn};
use crate::hub::post::Post;
use crate::hub::roster::OnPresence;
use crate::inbox::batch::{Backend, Failure, Moment, Scene};
use crate::inbox::rows::Broken;
use crate::inbox::service::{Outcome, Request};
use crate::inbox::{InboxRules, Presence};
use crate::mailbox::{Letters, StoreBox, Switchboard};
use crate::parts::faults::Point;
use crate::parts::key::Key;
use crate::session::ticket::Ticket;
use crate::stats::StoreStats;

pub use bells::{Bells, RETRY};
pub use disk::{Disk, Look, OpenError, STORE_FILE, new_epoch};
pub use memory::Memory;

/// Requests in one transaction at most: with more, those who came first wait for longer than
/// their share of the disk's time saves.
const BATCH_MAX: usize = 512;
/// How long the node waits for the storekeeper at its end: a disk may never answer.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// What the storekeeper works with.
pub struct Keeper {
    pub backend: Box<dyn Backend>,
    pub letters: Letters,
    pub post: Arc<Post>,
    pub switchboard: Switchboard,
    pub rules: LiveRules,
    /// Tells watchers.
    pub tell_presence: OnPresence,
    /// Of inboxes that begin now.
    pub epoch: u64,
    /// Others look at them.
    pub stats: Arc<StoreStats>,
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

    pub fn get(&self) -> InboxRules {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread, for whoever ends it.
pub struct Storekeeper {
    thread: JoinHandle<()>,
    store: StoreBox,
    is_ending: Arc<AtomicBool>,
}

/// `store` is the way to this keeper.
pub fn spawn(keeper: Keeper, store: StoreBox) -> io::Result<Storekeeper> {
    let is_ending = Arc::new(AtomicBool::new(false));
    let work = Work::new(keeper, is_ending.clone());
    let thread = std::thread::Builder::new()
        .name("store".into())
        .spawn(move || work.run())?;
    Ok(Storekeeper {
        thread,
        store,
        is_ending,
    })
}

impl Storekeeper {
    /// Returns when all that was asked for so far is done and the store is closed. Whoever asks
    /// later finds a full queue.
    pub fn end(self) {
        let deadline = Instant::now() + END_PATIENCE;
        self.is_ending.store(true, Relaxed);
        // A letter that asks for nothing wakes it. One that finds no room is not needed.
        let _ = self.store.send(Letter {
            request: Request::GroupsOf { uid: String::new() },
            reply: ReplyTo::Nobody,
        });
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
    /// The end has come.
    is_ending: Arc<AtomicBool>,
    started: Instant,
    /// What was last said to be unreadable.
    broken: Option<Broken>,
    bells: Bells,
    /// Answers that found a full mailbox.
    unanswered: Vec<(Key, Box<Ticket>, Outcome)>,
    /// Sessions that have lost their place to another one, and could not be told.
    byes: Vec<(Key, Bye)>,
}

impl Work {
    fn new(keeper: Keeper, is_ending: Arc<AtomicBool>) -> Work {
        keeper.stats.up.set(1);
        let bells = Bells::new(keeper.post.clone(), keeper.switchboard.clone());
        Work {
            bells,
            keeper,
            is_ending,
            started: Instant::now(),
            broken: None,
            unanswered: Vec::new(),
            byes: Vec::new(),
        }
    }

    fn run(mut self) {
        let mut letters = Vec::new();
        let mut is_ending = false;
        while !is_ending {
            match self.keeper.letters.recv_timeout(self.patience()) {
                Ok(letter) => letters.push(letter),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => is_ending = true,
            }
            is_ending |= self.is_ending.load(Relaxed);
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
        let is_behind =
            self.bells.is_behind() || !self.unanswered.is_empty() || !self.byes.is_empty();
        let patience = self.keeper.backend.patience(self.now());
        if is_behind {
            patience.min(RETRY)
        } else {
            patience
        }
    }

    fn now(&self) -> Moment {
        Moment {
            wall_ms: wall_ms(),
            since_start: self.started.elapsed(),
        }
    }

    fn serve(&mut self, letters: Vec<Letter>) {
        if !letters.is_empty() {
            Point::Taken.pass();
        }
        let requests: Vec<_> = letters.iter().map(|letter| &letter.request).collect();
        let scene = Scene {
            presence: &Here(&self.keeper.post),
            rules: &self.keeper.rules.get(),
            epoch: self.keeper.epoch,
            now: self.now(),
        };
        let batch = self.keeper.backend.carry_out(&requests, &scene);
        let stats = &self.keeper.stats;
        if !letters.is_empty() {
            stats.requests.add(letters.len() as u64);
            stats.batches.add(1);
            stats.waiting.set(self.keeper.letters.len() as u64);
        }
        let took = self.started.elapsed() - scene.now.since_start;
        stats.micros.add(took.as_micros() as u64);
        if !letters.is_empty() {
            Point::Committed.pass();
        }
        let is_rung = !batch.rings.is_empty();
        for (letter, outcome) in letters.into_iter().zip(batch.outcomes) {
            if let Some(outcome) = outcome {
                self.note_replaced(&letter.request, &outcome);
                self.answer(letter.reply, outcome);
            }
        }
        if is_rung {
            Point::Answered.pass();
        }
        for ring in batch.rings {
            self.bells.ring(ring);
        }
        if is_rung {
            Point::Rung.pass();
        }
        self.bells.look(batch.to_look);
        for change in batch.presence {
            (self.keeper.tell_presence)(&change.uid, change.is_online);
        }
        if let Some(others) = &self.keeper.post.others
            && (batch.is_gap || batch.failure.is_some())
        {
            others.doubt();
        }
        self.note_up(batch.failure.as_ref());
        if let Some(broken) = batch.broken {
            self.note_broken(broken);
        }
    }

    /// One line for each time that the store goes down or comes back; in a cluster, where all
    /// parts go down with Redis, one for all of them.
    fn note_up(&mut self, failure: Option<&Failure>) {
        let stats = &self.keeper.stats;
        let was_up = stats.up.get() == 1;
        let is_up = failure.is_none();
        stats.up.set(u64::from(is_up));
        if was_up == is_up {
            return;
        }
        if is_up {
            // What nobody knew to be written may have left some.
            self.keeper.backend.look_for_work();
        }
        let others = self.keeper.post.others.as_ref();
        let turn = match others {
            Some(others) => others.note(Part::Store, is_up),
            None if is_up => Turn::Up,
            None => Turn::Down,
        };
        match (turn, failure) {
            (Turn::Down, Some(error)) => tracing::error!(
                %error,
                "the store does not do what it is asked: messages that would have to be stored \
                 are refused until it does"
            ),
            (Turn::Up, _) => tracing::info!("the store works again"),
            _ => tracing::debug!(is_up, "the store"),
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

    /// Sessions of this node that lost their place to one that came have to go, also where that
    /// one has gone meanwhile and hears nothing.
    fn note_replaced(&mut self, request: &Request, outcome: &Outcome) {
        if let (Request::Attach(attach), Outcome::Attached(attached)) = (request, outcome)
            && !attached.replaced.is_empty()
        {
            let going = self.keeper.post.named(&attach.uid, &attached.replaced);
            self.byes
                .extend(going.into_iter().map(|key| (key, Bye::Replaced)));
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

    fn mail_answer(&mut self, key: Key, ticket: Box<Ticket>, outcome: Outcome) {
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

    fn try_again(&mut self) {
        let mut waiting = std::mem::take(&mut self.unanswered).into_iter();
        for (key, ticket, outcome) in waiting.by_ref() {
            self.mail_answer(key, ticket, outcome);
            if !self.unanswered.is_empty() {
                break;
            }
        }
        self.unanswered.extend(waiting);
        self.keeper.switchboard.close_all(&mut self.byes);
        self.bells.try_again();
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
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
