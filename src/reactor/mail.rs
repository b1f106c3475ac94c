//! What comes through the mailbox: messages for sessions, and orders for the reactor.

use super::Reactor;
use crate::command::{Bye, ReplyTo, RungOut, ToReactor};
use crate::inbox::pump::Rung;
use crate::inbox::service::Outcome;
use crate::parts::key::Key;
use crate::parts::time::Now;
use crate::protocol::envelope::Head;
use crate::protocol::outbound;

/// Messages that the mail of a turn brings at most, each receiver counted.
const MAIL_PER_TURN: usize = 1024;

impl Reactor {
    pub(super) fn read_mail(&mut self, now: Now) {
        let mut left = MAIL_PER_TURN;
        while left > 0 {
            let Some(command) = self.inbox.next() else {
                break;
            };
            left -= 1;
            match command {
                ToReactor::Deliver { to, head, tail } => self.deliver(to, head, &tail, now),
                ToReactor::DeliverAll { to, head, tail } => {
                    left = left.saturating_sub(to.len());
                    for key in to {
                        self.deliver(key, head, &tail, now);
                    }
                }
                ToReactor::Broadcast { frame } => self.ring.push(frame),
                ToReactor::Select { frame, selector } => self.selections.add(frame, selector),
                ToReactor::Answer {
                    to,
                    ticket,
                    outcome,
                } => self.with_session(to, now, |session, cx| {
                    session.answered(*ticket, outcome, cx);
                }),
                ToReactor::Heard { to, ticket, heard } => {
                    self.with_session(to, now, |session, cx| {
                        session.heard(*ticket, heard, cx);
                    })
                }
                ToReactor::Heads(heads) => {
                    left = left.saturating_sub(heads.len());
                    for head in heads {
                        self.with_session(head.to, now, |session, cx| {
                            session.compare(head.place, cx);
                        });
                    }
                }
                ToReactor::Ring { to, rung } => {
                    left = left.saturating_sub(to.len());
                    for key in to {
                        self.ring_at(key, &rung, now);
                    }
                }
                ToReactor::Look { to } => {
                    for key in to {
                        self.with_session(key, now, |session, cx| session.look(cx));
                    }
                }
                ToReactor::Close { to, why } => self.close(to, why, now),
                ToReactor::Reload { rules } => self.take_rules(rules, now),
                ToReactor::Drain { plan } => self.start_draining(plan, now),
            }
        }
    }

    /// Hands over what the store is asked. Where others have taken its room meanwhile, it is as if
    /// the store had refused.
    pub(super) fn post_letters(&mut self, now: Now) {
        let mut letters = std::mem::take(&mut self.desk.letters);
        for letter in letters.drain(..) {
            if let Err(ReplyTo::Session { key, ticket }) = self.shared.store.send(letter) {
                self.with_session(key, now, |session, cx| {
                    session.answered(*ticket, Outcome::Down, cx);
                });
            }
        }
        // Whoever was refused may have asked again.
        letters.append(&mut self.desk.letters);
        self.desk.letters = letters;
    }

    /// An entry of a user's inbox, for one of his sessions.
    fn ring_at(&mut self, key: Key, rung: &RungOut, now: Now) {
        // Broadcasts that came before it go out before it.
        if !self.catch_up(key, now) {
            return;
        }
        let rung = Rung {
            epoch: rung.epoch,
            seq: rung.seq,
            entry: &rung.entry,
            is_own: rung.but == Some(key),
        };
        self.with_session(key, now, |session, cx| session.rung(rung, cx));
    }

    fn close(&mut self, key: Key, why: Bye, now: Now) {
        self.with_session(key, now, |session, cx| {
            session.close(why.close_code(), why.reason(), cx);
        });
    }

    /// A message for a session of this reactor, if it is still there.
    pub(super) fn deliver(&mut self, to: Key, head: Head, tail: &[u8], now: Now) {
        if !self.catch_up(to, now) {
            return;
        }
        self.stats.deliveries.add(1);
        self.owe(to, now, |outbox, session, rules| {
            if let (Some(id), Some(identity)) = (session.id(rules), session.identity()) {
                outbox.push_with(|out| outbound::delivery(id, identity, head, tail, out));
            }
        });
        if self.shared.traces.is_active() {
            self.trace_delivery(to, tail, now);
        }
    }

    /// What went to everybody before must not be overtaken: it is owed from now on. False if
    /// the session is not online.
    pub(super) fn catch_up(&mut self, key: Key, now: Now) -> bool {
        let connection = self.slots.get_mut(key);
        let Some(connection) = connection.filter(|c| c.session.is_online()) else {
            return false;
        };
        if connection.position != self.ring.head() {
            let pool = &mut self.pool;
            let mut fresh = || pool.pop().unwrap_or_default();
            let before = connection.owed();
            let count = connection.owe_due(&self.ring, now.tick, &mut fresh);
            self.queued_bytes += connection.owed() - before;
            self.stats.broadcast_deliveries.add(count);
        }
        true
    }

    fn trace_delivery(&self, to: Key, tail: &[u8], now: Now) {
        let connection = self.slots.get(to);
        let Some(session) = connection.and_then(|c| c.session.id(&self.rules)) else {
            return;
        };
        let name = session.to_string();
        let detail = || match outbound::message_id_in(tail) {
            Some(id) => format!("message {id}, {} bytes", tail.len()),
            None => format!("{} bytes", tail.len()),
        };
        let traces = &self.shared.traces;
        traces.note(session.uid, now.wall_ms, &name, "delivered", detail);
    }
}
