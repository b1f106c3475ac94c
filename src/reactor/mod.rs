//! A reactor: one thread, one poll, one slab of connections, and nothing shared but the roster.
//!
//! Owns: its listener, its connections and everything that they need, its file table.
//! Invariants: a turn is bounded in every part, and what is left over keeps the next wait from
//! sleeping; what a connection is owed is written once a turn; slots are freed last, so that an
//! event of this turn never meets a new owner.
//! Neighbours: other threads reach it through its mailbox only.

mod accept;
mod broadcast;
mod connection;
mod courier;
mod desk;
mod drain;
mod listener;
mod mail;
mod reload;
mod select;
mod shed;
mod start;
mod strangers;
mod wire;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Events, Poll, Token};

use crate::hub::addresses::Addresses;
use crate::hub::node::Node;
use crate::hub::post::Post;
use crate::hub::traces::Traces;
use crate::mailbox::{AwayBox, Inbox, StoreBox, Switchboard};
use crate::parts::gate::Gate;
use crate::parts::key::Key;
use crate::parts::outbox::Outbox;
use crate::parts::ring::Ring;
use crate::parts::slots::Slots;
use crate::parts::time::{Now, TICK_MS, Tick};
use crate::parts::turns::Turns;
use crate::parts::wheel::Wheel;
use crate::protocol::identity::Identity;
use crate::protocol::inbound::Scratch;
use crate::protocol::limits::Limit;
use crate::protocol::violation::Violation;
use crate::session::rules::Rules;
use crate::session::{Context, Phase, Session};
use crate::stats::ReactorStats;
use crate::sys;
use accept::Door;
use connection::Connection;
use desk::Desk;
use drain::Drain;
use reload::Sweep;
use select::Selections;
use shed::Shedding;
use strangers::Strangers;
use wire::stalled_at;

pub use listener::reserve_port;
pub use start::{Options, StartError, Starting, spawn};

/// Bytes read from a socket in a turn; a message that fits is never copied.
const READ_BYTES: usize = 128 << 10;
/// Entries of the wheel that expire in a turn.
const EXPIRE_PER_TURN: usize = 2048;
/// A ping without payload, as it goes over the wire (RFC 6455, section 5.2).
const PING: [u8; 2] = [0x89, 0];
/// Outboxes that are kept for the next that needs one.
const POOL_MAX: usize = 128;
/// The two highest tokens name no connection.
const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);

/// What all reactors of a node look at.
pub struct Shared {
    pub node: Arc<Node>,
    pub post: Arc<Post>,
    pub traces: Arc<Traces>,
    pub addresses: Arc<Addresses>,
    pub switchboard: Switchboard,
    pub store: StoreBox,
    pub away: AwayBox,
    /// The start of the node's ticks.
    pub origin: Instant,
}

impl Shared {
    pub fn now(&self) -> Now {
        self.now_at(self.origin.elapsed())
    }

    /// So long after the origin. The only look at the wall clock.
    fn now_at(&self, elapsed: Duration) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick: Tick((elapsed.as_millis() as u64 / TICK_MS) as u32),
            wall_ms: wall.as_millis() as u64,
        }
    }
}

pub struct Reactor {
    poll: Poll,
    events: Events,
    door: Door,
    inbox: Inbox,
    shared: Arc<Shared>,
    rules: Arc<Rules>,
    stats: Arc<ReactorStats>,
    slots: Slots<Connection>,
    wheel: Wheel,
    ring: Ring,
    selections: Selections,
    desk: Desk,
    scratch: Scratch,
    buffer: Box<[u8]>,
    #[expect(
        clippy::vec_box,
        reason = "the box itself moves to the connection and back"
    )]
    pool: Vec<Box<Outbox>>,
    /// Connections that may have more to read than a turn takes.
    unfinished: Vec<Key>,
    /// Connections that are owed something new.
    dirty: Vec<Key>,
    /// Connections whose session is over.
    dead: Vec<Key>,
    strangers: Strangers,
    /// Bytes in write queues, and what of them the node knows.
    queued_bytes: usize,
    reported_bytes: usize,
    shedding: Option<Shedding>,
    gate: Gate<{ Limit::ALL.len() }>,
    has_expired_all: bool,
    /// Connections whose deadlines are to be looked at again, by new rules.
    sweep: Option<Sweep>,
    drain: Option<Drain>,
}

impl Reactor {
    /// Serves until it is drained. Errors: the poll itself failed.
    pub fn run(mut self) -> io::Result<()> {
        let mut turns = Turns::new(sys::thread_cpu_nanos());
        while !self.is_drained() {
            self.wait()?;
            let began = self.shared.origin.elapsed();
            self.stats
                .turn_since_ms
                .set((began.as_millis() as u64).max(1));
            self.turn(self.shared.now_at(began));
            self.stats.turn_since_ms.set(0);
            let wall = self.shared.origin.elapsed() - began;
            self.stats
                .count_turn(turns.end(wall, sys::thread_cpu_nanos));
        }
        if !self.slots.is_empty() {
            self.strike_nobody(Limit::Drain, None, self.shared.now());
        }
        Ok(())
    }

    /// Sleeps until there is I/O, mail or a deadline; not at all where work was left over.
    fn wait(&mut self) -> io::Result<()> {
        let sleep = self.sleep();
        match self.poll.poll(&mut self.events, sleep) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn sleep(&self) -> Option<Duration> {
        let has_leftovers = !self.unfinished.is_empty()
            || !self.dirty.is_empty()
            || !self.ring.is_empty()
            || !self.selections.is_empty()
            || self.shedding.as_ref().is_some_and(Shedding::is_working)
            || !self.has_expired_all
            || self.sweep.is_some()
            || !self.desk.letters.is_empty()
            || !self.inbox.is_empty();
        if has_leftovers {
            return Some(Duration::ZERO);
        }
        let mut next = self.wheel.next_due();
        let elapsed = self.shared.origin.elapsed();
        let tick = Tick((elapsed.as_millis() as u64 / TICK_MS) as u32);
        let is_shedding = self.shedding.is_some();
        if self.drain.is_some() || is_shedding || !self.desk.byes.is_empty() {
            next = Some(
                next.map_or(tick, |due| due.min(tick))
                    .max(tick)
                    .plus_ticks(1),
            );
        }
        if let Some(at) = self.door.opens_at(tick) {
            next = Some(next.map_or(at, |due| due.min(at)));
        }
        let due = Duration::from_millis(u64::from(next?.0) * TICK_MS);
        // Rounded up: the poll counts in milliseconds, and waking early finds nothing due.
        Some(due.saturating_sub(elapsed) + Duration::from_millis(1))
    }

    fn turn(&mut self, now: Now) {
        self.note_events(now);
        self.read_mail(now);
        self.accept_newcomers(now);
        self.read_ready_sockets(now);
        self.look_at_clocks(now);
        self.expire_deadlines(now);
        self.let_go(now);
        self.post_letters(now);
        self.desk.say_byes();
        self.desk.say_unbinds();
        self.hand_out_broadcasts(now);
        self.hand_out_selections(now);
        self.shed_largest(now);
        self.flush_dirty(now);
        self.bury_dead();
        self.post_letters(now);
    }

    fn note_events(&mut self, now: Now) {
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                LISTENER => self.door.is_knocked = true,
                BELL => {}
                Token(bits) => self.note_socket(Key::from_bits(bits as u64), event, now),
            }
        }
        self.events = events;
        // Before the mail is read: who writes from now on rings again.
        self.inbox.open();
    }

    fn note_socket(&mut self, key: Key, event: &Event, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        if event.is_writable() && connection.is_blocked {
            connection.is_blocked = false;
            self.mark_dirty(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read_socket(key, event.is_read_closed(), now);
        }
    }

    fn expire_deadlines(&mut self, now: Now) {
        self.has_expired_all = false;
        for _ in 0..EXPIRE_PER_TURN {
            let Some(index) = self.wheel.pop_due(now.tick) else {
                self.has_expired_all = true;
                break;
            };
            let Some((key, connection)) = self.slots.at(index) else {
                continue;
            };
            let was_holding = connection.session.is_holding();
            if stalled_at(connection, &self.rules) <= now.tick {
                self.drop_slow_consumer(key, Violation::Stalled, now);
            }
            self.with_session(key, now, |session, cx| session.expire(cx));
            if was_holding {
                self.mark_dirty(key);
            }
        }
    }

    /// Calls into a session and takes what comes of it.
    fn with_session(
        &mut self,
        key: Key,
        now: Now,
        call: impl FnOnce(&mut Session, &mut Context<'_, Desk>),
    ) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let mut cx = Context {
            now,
            rules: &self.rules,
            host: &mut self.desk,
        };
        cx.host.courier.key = key;
        cx.host.owed = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
        call(&mut connection.session, &mut cx);
        self.settle(key, now);
    }

    /// Takes what a session brought forth: bytes for its peer, envelopes for others, a deadline.
    fn settle(&mut self, key: Key, now: Now) {
        if self.desk.out == PING {
            self.write_ping(key);
        }
        if !self.desk.out.is_empty() {
            let out = std::mem::take(&mut self.desk.out);
            self.owe(key, now, |outbox, _, _| outbox.push(&out));
            self.desk.out = out;
            self.desk.out.clear();
            // A large answer is rare; its buffer is not kept.
            self.desk.out.shrink_to(READ_BYTES);
        }
        if std::mem::take(&mut self.desk.has_bound)
            && let Some(connection) = self.slots.get_mut(key)
        {
            connection.position = self.ring.head();
        }
        self.check_stranger(key);
        self.watch(key, now);
        if !self.desk.courier.struck.is_empty() {
            self.log_strikes(key, now);
        }
        if let Some(why) = self.desk.refused_token.take() {
            let peer = || self.peer(key).map(tracing::field::display);
            tracing::debug!(peer = peer(), %why, "a token was refused");
        }
        if !self.desk.courier.local.is_empty() {
            let mut local = std::mem::take(&mut self.desk.courier.local);
            let mut tails = std::mem::take(&mut self.desk.courier.tails);
            for (to, head, tail) in local.drain(..) {
                self.deliver(to, head, &tails[tail], now);
            }
            tails.clear();
            tails.shrink_to(READ_BYTES);
            let courier = &mut self.desk.courier;
            (courier.local, courier.tails) = (local, tails);
        }
        self.desk.courier.tails.clear();
    }

    /// One line for each kind of limit once in a while: whom it struck, and how often it did
    /// meanwhile.
    fn log_strikes(&mut self, key: Key, now: Now) {
        let gone = self.desk.struck_user.take();
        for limit in std::mem::take(&mut self.desk.courier.struck) {
            let Some(withheld) = self.gate.pass(limit as usize, now.tick) else {
                continue;
            };
            let peer = self.peer(key);
            let present = self.slots.get(key).and_then(|c| c.session.identity());
            warn_of(limit, peer, present.or(gone.as_ref()), withheld);
        }
    }

    /// The same where there is no session.
    fn strike_nobody(&mut self, limit: Limit, peer: Option<IpAddr>, now: Now) {
        self.stats.strikes.count(limit);
        if let Some(withheld) = self.gate.pass(limit as usize, now.tick) {
            warn_of(limit, peer, None, withheld);
        }
    }

    /// The address of a connection's client, as far as it is known.
    fn peer(&self, key: Key) -> Option<IpAddr> {
        let socket = || Some(self.slots.get(key)?.stream.peer_addr().ok()?.ip());
        self.desk.client_ip(key).or_else(socket)
    }

    /// Arms the wheel for whatever is due next here.
    fn watch(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get(key) else {
            return;
        };
        let rules = &self.rules;
        if connection.session.phase() == Phase::Over {
            self.dead.push(key);
            return;
        }
        let deadline = connection
            .session
            .deadline(now, rules)
            .min(stalled_at(connection, rules));
        // Traffic only moves a deadline back: the entry that comes due early is armed again.
        if deadline < self.wheel.due(key.index()) {
            self.wheel.arm(key.index(), deadline);
        }
    }

    fn bury_dead(&mut self) {
        for key in std::mem::take(&mut self.dead) {
            let Some(connection) = self.slots.remove(key) else {
                continue;
            };
            self.desk.forget(key);
            self.wheel.cancel(key.index());
            self.queued_bytes -= connection.owed();
            if connection.session.is_surplus() {
                self.door.surplus -= 1;
            } else {
                self.shared.node.leave();
            }
        }
        self.stats.open.set(self.slots.len() as u64);
        self.stats.timers.set(self.wheel.len() as u64);
        self.stats.queued_bytes.set(self.queued_bytes as u64);
        self.report_queues();
    }
}

fn warn_of(limit: Limit, peer: Option<IpAddr>, user: Option<&Identity>, withheld: u64) {
    tracing::warn!(
        limit = limit.key(),
        peer = peer.map(tracing::field::display),
        user = user.map(|identity| tracing::field::display(identity.uid().to_owned())),
        withheld,
        "a limit has struck"
    );
}
