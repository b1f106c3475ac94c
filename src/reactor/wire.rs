//! What comes from sockets and goes to them.

use std::io::{self, Read, Write};

use mio::{Interest, Token};

use super::connection::Connection;
use super::{POOL_MAX, READ_BYTES, Reactor};
use crate::parts::faults::Point;
use crate::parts::key::Key;
use crate::parts::outbox::Outbox;
use crate::parts::time::{Now, Tick};
use crate::protocol::assembler::Input;
use crate::protocol::frame;
use crate::protocol::limits::Limit;
use crate::protocol::violation::Violation;
use crate::session::rules::Rules;
use crate::session::{Context, Phase, Session};

impl Reactor {
    pub(super) fn read_ready_sockets(&mut self, now: Now) {
        // Those that a full buffer left over, each once more; new leftovers wait for the next turn.
        for key in std::mem::take(&mut self.unfinished) {
            self.read_socket(key, true, now);
        }
    }

    /// Reads once. A short read means that the socket is empty (epoll(7)): no second one is
    /// needed, unless the peer closed its end, which only a read of nothing shows.
    pub(super) fn read_socket(&mut self, key: Key, is_read_closed: bool, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let limits = connection.session.limits(&self.rules);
        if connection.owed() > limits.queue_soft_bytes {
            if !std::mem::replace(&mut connection.is_paused, true) {
                self.desk.courier.note_strike(Limit::QueueSoft);
                // At once, or it would be told of whoever is settled next.
                self.log_strikes(key, now);
            }
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
                    rules: &self.rules,
                    host: &mut self.desk,
                };
                cx.host.courier.key = key;
                cx.host.owed = connection.outbox.as_ref().map_or(0, |outbox| outbox.len());
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

    /// Adds to what a peer is owed. Where it is too much, the socket is asked before the peer is
    /// judged: a burst within one turn is not its fault.
    pub(super) fn owe(
        &mut self,
        key: Key,
        now: Now,
        add: impl FnOnce(&mut Outbox, &Session, &Rules),
    ) {
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
        add(outbox, &connection.session, &self.rules);
        let after = outbox.len();
        self.queued_bytes += after - before;
        let hard = connection.session.limits(&self.rules).queue_hard_bytes;
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(key);
        }
        if after > hard && connection.session.is_established() {
            self.flush(key, now);
        }
    }

    /// Writes the ping in the desk at once, where nothing else is owed. A crowd that is idle is
    /// pinged all the time: its connections are touched once instead of twice, and no outbox.
    pub(super) fn write_ping(&mut self, key: Key) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let is_alone = connection.outbox.is_none()
            && !connection.is_blocked
            && !connection.is_dirty
            && self.ring.due(connection.position).len() == 0;
        if !is_alone {
            return;
        }
        // Whatever else comes of it is found out when the rest is flushed.
        if let Ok(written) = (&connection.stream).write(&self.desk.out) {
            self.desk.out.drain(..written);
            self.stats.bytes_out.add(written as u64);
            self.stats.writes.add(1);
        }
    }

    pub(super) fn mark_dirty(&mut self, key: Key) {
        if let Some(connection) = self.slots.get_mut(key)
            && !std::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Closes a connection that does not read: what it has not begun to receive is dropped, so
    /// that the close frame is the next thing it sees.
    pub(super) fn drop_slow_consumer(&mut self, key: Key, violation: Violation, now: Now) {
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        if let Some(outbox) = &mut connection.outbox {
            let before = outbox.len();
            outbox.drop_unbegun(frame::server_frame_len);
            outbox.moved = now.tick;
            self.queued_bytes -= before - outbox.len();
        }
        self.with_session(key, now, |session, cx| session.violate(violation, cx));
    }

    pub(super) fn flush_dirty(&mut self, now: Now) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(connection) = self.slots.get_mut(key) {
                connection.is_dirty = false;
                if !connection.session.is_holding() {
                    self.flush(key, now);
                }
            }
        }
        // What was marked meanwhile waits for the next turn, which does not sleep.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Writes what a connection is owed, as far as its socket takes it.
    pub(super) fn flush(&mut self, key: Key, now: Now) {
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
        if flushed.bytes > 0 {
            Point::Sent.pass();
        }
        self.stats.bytes_out.add(flushed.bytes as u64);
        self.stats.writes.add(flushed.writes);
        self.stats.broadcast_deliveries.add(flushed.broadcasts);
        if after == 0 {
            self.all_sent(key, now);
        } else {
            let hard = connection.session.limits(&self.rules).queue_hard_bytes;
            if after > hard && connection.session.is_established() {
                self.drop_slow_consumer(key, Violation::SlowConsumer, now);
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
}

/// When a queue that does not move closes its connection.
pub(super) fn stalled_at(connection: &Connection, rules: &Rules) -> Tick {
    let secs = connection.session.limits(rules).queue_stalled_secs;
    match &connection.outbox {
        Some(outbox) if !outbox.is_empty() && secs > 0 && connection.session.is_established() => {
            outbox.moved.plus_secs(secs)
        }
        _ => Tick::NEVER,
    }
}
