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
mod desk;
mod drain;
mod listener;
mod start;
mod strangers;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::command::ToReactor;
use crate::hub::code::UserCodes;
use crate::hub::node::Node;
use crate::hub::roster::Roster;
use crate::mailbox::{Inbox, Switchboard};
use crate::parts::key::Key;
use crate::parts::outbox::Outbox;
use crate::parts::ring::Ring;
use crate::parts::slots::Slots;
use crate::parts::time::{Now, TICK_MS, Tick};
use crate::parts::wheel::Wheel;
use crate::protocol::assembler::Input;
use crate::protocol::frame;
use crate::protocol::inbound::Scratch;
use crate::protocol::outbound;
use crate::protocol::violation::Violation;
use crate::session::rules::Rules;
use crate::session::{Context, Phase, Session};
use crate::stats::ReactorStats;
use crate::sys;
use accept::Door;
use connection::Connection;
use desk::Desk;
use drain::Drain;
use strangers::Strangers;

pub use listener::reserve_port;
pub use start::{Options, StartError, Starting, spawn};

/// Commands taken from the mailbox in a turn.
const MAIL_PER_TURN: usize = 1024;
/// Bytes read from a socket in a turn; a message that fits is never copied.
const READ_BYTES: usize = 128 << 10;
/// Entries of the wheel that expire in a turn.
const EXPIRE_PER_TURN: usize = 2048;
/// Outboxes that are kept for the next that needs one.
const POOL_MAX: usize = 128;
/// The two highest tokens name no connection.
const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);

/// What all reactors of a node look at.
pub struct Shared {
    pub rules: Rules,
    pub node: Arc<Node>,
    pub roster: Arc<Roster>,
    pub codes: UserCodes,
    pub switchboard: Switchboard,
    /// The start of the node's ticks.
    pub origin: Instant,
}

impl Shared {
    /// The only look at the clocks.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick: Tick((self.origin.elapsed().as_millis() as u64 / TICK_MS) as u32),
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
    stats: Arc<ReactorStats>,
    slots: Slots<Connection>,
    wheel: Wheel,
    ring: Ring,
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
    queued_bytes: usize,
    has_expired_all: bool,
    drain: Option<Drain>,
}

impl Reactor {
    /// Serves until it is drained. Errors: the poll itself failed.
    pub fn run(mut self) -> io::Result<()> {
        let mut spent = sys::thread_cpu_nanos();
        while !self.is_drained() {
            self.wait()?;
            let since_start = self.shared.origin.elapsed().as_millis();
            self.stats.turn_since_ms.set((since_start as u64).max(1));
            self.turn(self.shared.now());
            self.stats.turn_since_ms.set(0);
            let spent_until_now = sys::thread_cpu_nanos();
            self.stats.count_turn((spent_until_now - spent) / 1000);
            spent = spent_until_now;
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
            || !self.has_expired_all
            || !self.inbox.is_empty();
        if has_leftovers {
            return Some(Duration::ZERO);
        }
        let mut next = self.wheel.next_due();
        let elapsed = self.shared.origin.elapsed();
        let tick = Tick((elapsed.as_millis() as u64 / TICK_MS) as u32);
        if self.drain.is_some() {
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
        self.expire_deadlines(now);
        self.let_go(now);
        self.hand_out_broadcasts(now);
        self.flush_dirty(now);
        self.bury_dead();
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

    fn read_mail(&mut self, now: Now) {
        for _ in 0..MAIL_PER_TURN {
            let Some(command) = self.inbox.next() else {
                break;
            };
            match command {
                ToReactor::Deliver { to, tail } => self.deliver(to, &tail, now),
                ToReactor::Broadcast { frame } => self.ring.push(frame),
                ToReactor::Drain { plan } => self.start_draining(plan, now),
            }
        }
    }

    fn read_ready_sockets(&mut self, now: Now) {
        // Those that a full buffer left over, each once more; new leftovers wait for the next turn.
        for key in std::mem::take(&mut self.unfinished) {
            self.read_socket(key, true, now);
        }
    }

    /// Reads once. A short read means that the socket is empty (epoll(7)): no second one is
    /// needed, unless the peer closed its end, which only a read of nothing shows.
    fn read_socket(&mut self, key: Key, is_read_closed: bool, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let limits = connection.session.limits(&self.shared.rules);
        if connection.owed() > limits.queue_soft_bytes {
            connection.is_paused = true;
            return;
        }
        match connection.stream.read(&mut self.buffer[..READ_BYTES]) {
            Ok(0) => self.hang_up(key, now),
            Ok(count) => {
                self.stats.bytes_in.add(count as u64);
                if count == READ_BYTES || is_read_closed {
                    self.unfinished.push(key);
                }
                let mut input = Input {
                    buffer: &mut self.buffer,
                    at: 0,
                    filled: count,
                };
                let mut cx = Context {
                    now,
                    rules: &self.shared.rules,
                    host: &mut self.desk,
                };
                cx.host.key = key;
                connection
                    .session
                    .receive(&mut input, &mut self.scratch, &mut cx);
                self.settle(key, now);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.unfinished.push(key),
            Err(_) => self.hang_up(key, now),
        }
    }

    /// The peer is gone. Last words that are still owed may reach a half-closed socket.
    fn hang_up(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        if connection.session.phase() == Phase::Leaving && connection.owed() > 0 {
            return;
        }
        self.with_session(key, now, |session, cx| session.abandon(cx));
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
            if stalled_at(connection, &self.shared.rules) <= now.tick {
                self.drop_slow_consumer(key, now);
            }
            self.with_session(key, now, |session, cx| session.expire(cx));
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
            rules: &self.shared.rules,
            host: &mut self.desk,
        };
        cx.host.key = key;
        call(&mut connection.session, &mut cx);
        self.settle(key, now);
    }

    /// Takes what a session brought forth: bytes for its peer, envelopes for others, a deadline.
    fn settle(&mut self, key: Key, now: Now) {
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
        if !self.desk.local.is_empty() {
            let mut local = std::mem::take(&mut self.desk.local);
            let mut tails = std::mem::take(&mut self.desk.tails);
            for (to, tail) in local.drain(..) {
                self.deliver(to, &tails[tail], now);
            }
            tails.clear();
            tails.shrink_to(READ_BYTES);
            (self.desk.local, self.desk.tails) = (local, tails);
        }
        self.desk.tails.clear();
    }

    /// Arms the wheel for whatever is due next here.
    fn watch(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get(key) else {
            return;
        };
        let rules = &self.shared.rules;
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

    /// An envelope for a session of this reactor, if it is still there.
    fn deliver(&mut self, to: Key, tail: &[u8], now: Now) {
        let Some(connection) = self.slots.get_mut(to).filter(|c| c.session.is_online()) else {
            return;
        };
        if connection.position != self.ring.head() {
            // What went to everybody before must not be overtaken.
            let pool = &mut self.pool;
            let mut fresh = || pool.pop().unwrap_or_default();
            let before = connection.owed();
            let count = connection.owe_due(&self.ring, now.tick, &mut fresh);
            self.queued_bytes += connection.owed() - before;
            self.stats.broadcast_deliveries.add(count);
        }
        self.stats.deliveries.add(1);
        self.owe(to, now, |outbox, session, rules| {
            if let Some(id) = session.id(rules) {
                outbox.push_with(|out| outbound::delivery(id, tail, out));
            }
        });
    }

    /// Adds to what a peer is owed. Where it is too much, the socket is asked before the peer is
    /// judged: a burst within one turn is not its fault.
    fn owe(&mut self, key: Key, now: Now, add: impl FnOnce(&mut Outbox, &Session, &Rules)) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let pool = &mut self.pool;
        let outbox = connection
            .outbox
            .get_or_insert_with(|| pool.pop().unwrap_or_default());
        let before = outbox.len();
        if before == 0 {
            outbox.moved = now.tick;
        }
        add(outbox, &connection.session, &self.shared.rules);
        let after = outbox.len();
        self.queued_bytes += after - before;
        let hard = connection
            .session
            .limits(&self.shared.rules)
            .queue_hard_bytes;
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(key);
        }
        if after > hard && connection.session.is_established() {
            self.flush(key, now);
        }
    }

    fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.slots.get_mut(key)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Closes a connection that does not read: what it has not begun to receive is dropped, so
    /// that the close frame is the next thing it sees.
    fn drop_slow_consumer(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        if let Some(outbox) = &mut connection.outbox {
            let before = outbox.len();
            outbox.drop_unbegun(frame::server_frame_len);
            outbox.moved = now.tick;
            self.queued_bytes -= before - outbox.len();
        }
        self.with_session(key, now, |session, cx| {
            session.violate(Violation::SlowConsumer, cx)
        });
    }

    fn flush_dirty(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(connection) = self.slots.get_mut(key) {
                connection.is_dirty = false;
                self.flush(key, now);
            }
        }
        // What was marked meanwhile waits for the next turn, which does not sleep.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Writes what a connection is owed, as far as its socket takes it.
    fn flush(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let before = connection.owed();
        let pool = &mut self.pool;
        let mut fresh = || pool.pop().unwrap_or_default();
        let flushed = connection.flush(&self.ring, now.tick, &mut fresh);
        let after = connection.owed();
        self.queued_bytes = self.queued_bytes + after - before;
        if connection.is_blocked && !connection.is_watched_for_room {
            // Few sockets are ever full. Asking for all from the start would report each new one
            // as writable, an event for nothing.
            let interest = Interest::READABLE | Interest::WRITABLE;
            let token = Token(key.bits() as usize);
            let registry = self.poll.registry();
            let stream = &mut connection.stream;
            connection.is_watched_for_room = registry.reregister(stream, token, interest).is_ok();
        }
        let Ok(flushed) = flushed else {
            return self.hang_up_dead(key, now);
        };
        self.stats.bytes_out.add(flushed.bytes as u64);
        self.stats.writes.add(flushed.writes);
        self.stats.broadcast_deliveries.add(flushed.broadcasts);
        if after == 0 {
            self.all_sent(key, now);
        } else {
            let hard = connection
                .session
                .limits(&self.shared.rules)
                .queue_hard_bytes;
            if after > hard && connection.session.is_established() {
                self.drop_slow_consumer(key, now);
            }
            self.watch(key, now);
        }
    }

    /// Nothing is owed any more.
    fn all_sent(&mut self, key: Key, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        if let Some(mut outbox) = connection.outbox.take()
            && self.pool.len() < POOL_MAX
        {
            outbox.recycle();
            self.pool.push(outbox);
        }
        if std::mem::take(&mut connection.is_paused) {
            self.unfinished.push(key);
        }
        if connection.session.phase() == Phase::Leaving {
            // Our end is shut so that the peer sees the end; what it still sends is read and
            // dropped, or the kernel would answer it with a reset that overtakes the close frame.
            let is_shut = connection.stream.shutdown(std::net::Shutdown::Write);
            connection.session.said(now.tick);
            if is_shut.is_err() {
                return self.hang_up_dead(key, now);
            }
            self.watch(key, now);
        }
    }

    /// A write or a shutdown failed: there is no peer any more.
    fn hang_up_dead(&mut self, key: Key, now: Now) {
        if let Some(connection) = self.slots.get_mut(key)
            && let Some(outbox) = connection.outbox.take()
        {
            self.queued_bytes -= outbox.len();
        }
        self.hang_up(key, now);
    }

    fn bury_dead(&mut self) {
        for key in std::mem::take(&mut self.dead) {
            let Some(connection) = self.slots.remove(key) else {
                continue;
            };
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
    }
}

/// When a queue that does not move closes its connection.
fn stalled_at(connection: &Connection, rules: &Rules) -> Tick {
    let secs = connection.session.limits(rules).queue_stalled_secs;
    match &connection.outbox {
        Some(outbox) if !outbox.is_empty() && secs > 0 && connection.session.is_established() => {
            outbox.moved.plus_secs(secs)
        }
        _ => Tick::NEVER,
    }
}
