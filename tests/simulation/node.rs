//! A node: sessions and a roster as in the rig, and a storekeeper without a thread, who does what
//! the one in `src/store` does.
//!
//! Owns: the queue to the store, whichever that is, and the mailbox of the one reactor, whose mail a chance may
//! delay, repeat and bring out of order.
//! Invariants: answers keep their order; what finds the mailbox full is not forgotten.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use throng::hub::post::Carrier;
use throng::hub::roster::Roster;
use throng::inbox::batch::{Backend, Moment, Scene};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{InboxRules, Presence, Ring};
use throng::parts::key::Key;
use throng::protocol::envelope::MessageId;
use throng::session::auth::Auth;
use throng::session::rules::Origins;
use throng::session::ticket::Ticket;

use crate::rig::Rig;
use crate::rig::feed::Chance;

/// Requests in one batch at most.
const BATCH_MAX: u64 = 12;

pub struct Node {
    pub rig: Rig,
    letters: VecDeque<Letter>,
    mail: VecDeque<Mail>,
    /// Answers that found a full mailbox, and users whose connections should look.
    unanswered: VecDeque<Mail>,
    unrung: BTreeSet<String>,
    /// Mail that waits at most.
    pub mailbox_max: usize,
    is_up: bool,
    epoch: u64,
    born_ms: u64,
}

enum Asker {
    Session(Key, Ticket),
    /// A backend over HTTP, by the number of its call.
    Backend(u64),
}

struct Letter {
    from: Asker,
    request: Request,
}

#[derive(Clone)]
enum Mail {
    Answer(Key, Box<Ticket>, Outcome),
    Ring(Key, Arc<Ring>),
    /// What the store has for the user of a session.
    Head(Key, Option<(u64, u64)>),
}

/// Both clocks, in milliseconds.
#[derive(Clone, Copy)]
pub struct Clocks {
    pub ms: u64,
    pub wall_ms: u64,
}

/// What backends hear: the number of a call, and what came of it, if that is known.
pub type BackendAnswers = Vec<(u64, Option<Outcome>)>;

/// The roster, in an order that no hash decides: each run of a seed is to be the same.
struct Here<'a>(&'a Roster);

impl Presence for Here<'_> {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        let mut devices = self.0.devices(uid);
        devices.sort_unstable();
        devices
    }
}

/// Of inboxes that begin in the `life`-th node.
pub fn epoch(life: u64) -> u64 {
    0xe000 + life
}

impl Node {
    /// The `life`-th node in a world, or in a cluster.
    pub fn new(life: u64, now: Clocks) -> Node {
        let mut rig = Rig::with(|rules| {
            rules.auth = Arc::new(Auth::None);
            rules.origins = Origins::LocalOr(Vec::new());
            rules.echo_path = None;
        });
        rig.now.wall_ms = now.wall_ms;
        rig.desk.store.is_held = true;
        rig.desk.courier.next_id = u128::from(life) << 32;
        Node {
            rig,
            letters: VecDeque::new(),
            mail: VecDeque::new(),
            unanswered: VecDeque::new(),
            unrung: BTreeSet::new(),
            mailbox_max: usize::MAX,
            is_up: true,
            epoch: epoch(life),
            born_ms: now.ms,
        }
    }

    pub fn message_id(&mut self) -> MessageId {
        self.rig.desk.courier.message_id()
    }

    /// A backend asks; false: the queue is full.
    pub fn ask(&mut self, call: u64, request: Request) -> bool {
        self.take_letters();
        let is_taken = !self.rig.desk.store.is_jammed;
        if is_taken {
            let from = Asker::Backend(call);
            self.letters.push_back(Letter { from, request });
        }
        is_taken
    }

    fn take_letters(&mut self) {
        self.rig.desk.say_unbinds();
        let letters = self.rig.desk.store.take_letters();
        self.letters
            .extend(letters.into_iter().map(|(key, request, ticket)| Letter {
                from: Asker::Session(key, ticket),
                request,
            }));
    }

    /// Somebody waits for the store to change a group.
    pub fn is_changing_groups(&mut self) -> bool {
        self.take_letters();
        let mut requests = self.letters.iter().map(|letter| &letter.request);
        requests.any(|request| matches!(request, Request::Group { .. }))
    }

    /// Nothing is on its way between sessions and store.
    pub fn is_idle(&mut self) -> bool {
        self.take_letters();
        self.letters.is_empty()
            && self.mail.is_empty()
            && self.unanswered.is_empty()
            && self.unrung.is_empty()
    }

    /// One batch, if there is anything to do.
    pub fn serve(
        &mut self,
        backend: &mut dyn Backend,
        rules: &InboxRules,
        now: Clocks,
        chance: &mut Chance,
    ) -> BackendAnswers {
        self.take_letters();
        let moment = Moment {
            wall_ms: now.wall_ms,
            since_start: Duration::from_millis(now.ms - self.born_ms),
        };
        let count = self.letters.len().min(1 + chance.below(BATCH_MAX) as usize);
        let letters: Vec<Letter> = self.letters.drain(..count).collect();
        if letters.is_empty() && !backend.patience(moment).is_zero() {
            self.try_again();
            return Vec::new();
        }
        let requests: Vec<&Request> = letters.iter().map(|letter| &letter.request).collect();
        let scene = Scene {
            presence: &Here(&self.rig.desk.post.roster),
            rules,
            epoch: self.epoch,
            now: moment,
        };
        let batch = backend.carry_out(&requests, &scene);
        let mut to_backends = Vec::new();
        for (letter, outcome) in letters.into_iter().zip(batch.outcomes) {
            self.close_replaced(&letter.request, outcome.as_ref());
            match (letter.from, outcome) {
                (Asker::Backend(call), outcome) => to_backends.push((call, outcome)),
                // Whoever has gone does not listen.
                (Asker::Session(..), _) if matches!(letter.request, Request::Unbind { .. }) => {}
                (Asker::Session(key, ticket), Some(outcome)) => {
                    self.post(Mail::Answer(key, Box::new(ticket), outcome));
                }
                (Asker::Session(..), None) => {}
            }
        }
        for ring in batch.rings {
            self.ring(ring);
        }
        self.unrung.extend(batch.to_look);
        if let Some(others) = &self.rig.desk.post.others
            && (batch.is_gap || batch.failure.is_some())
        {
            others.doubt();
        }
        let was_up = std::mem::replace(&mut self.is_up, batch.failure.is_none());
        if self.is_up && !was_up {
            backend.look_for_work();
        }
        self.try_again();
        to_backends
    }

    /// Sessions here that lost their place to one that came.
    fn close_replaced(&mut self, request: &Request, outcome: Option<&Outcome>) {
        if let (Request::Attach(attach), Some(Outcome::Attached(attached))) = (request, outcome) {
            let post = &self.rig.desk.post;
            for key in post.named(&attach.uid, &attached.replaced) {
                self.rig.replace(key);
            }
        }
    }

    fn post(&mut self, mail: Mail) {
        if self.unanswered.is_empty() && self.mail.len() < self.mailbox_max {
            self.mail.push_back(mail);
        } else {
            self.unanswered.push_back(mail);
        }
    }

    /// Everybody who is here hears what the store has for him. What finds no room is lost.
    pub fn compare(&mut self, heads: Vec<(Key, Option<(u64, u64)>)>) {
        let room = self.mailbox_max.saturating_sub(self.mail.len());
        let heads = heads.into_iter().take(room);
        self.mail
            .extend(heads.map(|(key, place)| Mail::Head(key, place)));
    }

    /// These users' connections should look.
    pub fn look(&mut self, uids: impl IntoIterator<Item = String>) {
        self.unrung.extend(uids);
        self.try_again();
    }

    pub fn ring(&mut self, ring: Ring) {
        let uid = ring.uid().to_owned();
        let ring = Arc::new(ring);
        let mut keys = self.rig.desk.post.roster.find(&uid);
        keys.sort_unstable_by_key(|key| key.bits());
        for key in keys {
            if self.mail.len() < self.mailbox_max {
                self.mail.push_back(Mail::Ring(key, ring.clone()));
            } else {
                self.unrung.insert(uid.clone());
            }
        }
    }

    fn try_again(&mut self) {
        while self.mail.len() < self.mailbox_max {
            let Some(mail) = self.unanswered.pop_front() else {
                break;
            };
            self.mail.push_back(mail);
        }
        if self.mail.len() < self.mailbox_max {
            for uid in std::mem::take(&mut self.unrung) {
                self.ring(Ring::Lost { uid });
            }
        }
    }

    /// The reactor reads its next mail; where `is_unruly`, rings may come early, late or twice.
    /// False if there is none.
    pub fn read_mail(&mut self, is_unruly: bool, chance: &mut Chance) -> bool {
        let mut at = 0;
        if is_unruly && chance.below(3) == 0 {
            at = chance.below(self.mail.len() as u64) as usize;
            if !matches!(self.mail.get(at), Some(Mail::Ring(..))) {
                at = 0;
            }
        }
        let Some(mail) = self.mail.remove(at) else {
            return false;
        };
        if is_unruly && matches!(mail, Mail::Ring(..)) && chance.below(8) == 0 {
            let later = chance.below(self.mail.len() as u64 + 1) as usize;
            self.mail.insert(later, mail.clone());
        }
        match mail {
            Mail::Answer(key, ticket, outcome) => self.rig.answer(key, *ticket, outcome),
            Mail::Ring(key, ring) => self.rig.ring(key, &ring),
            Mail::Head(key, place) => self.rig.compare(key, place),
        }
        true
    }
}
