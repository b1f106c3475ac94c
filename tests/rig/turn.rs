//! What the reactor does around a session: it takes what a call brought forth, writes as much as
//! a socket takes, carries envelopes to the others, closes those whose place was taken, and
//! buries who is over.

use std::io::IoSlice;

use throng::command::Bye;
use throng::hub::post::Selector;
use throng::inbox::Ring;
use throng::inbox::pump::Rung;
use throng::inbox::service::Outcome;
use throng::parts::key::Key;
use throng::protocol::envelope::Head;
use throng::protocol::outbound;
use throng::session::ticket::Ticket;
use throng::session::{Context, Phase, Session};

use super::desk::Desk;
use super::store::Served;
use super::{End, Peer, Rig};

impl Rig {
    pub(super) fn call(
        &mut self,
        peer: Peer,
        call: impl FnOnce(&mut Session, &mut Context<'_, Desk>),
    ) {
        let end = &mut self.ends[peer.0];
        if end.is_gone {
            return;
        }
        let mut cx = Context {
            now: self.now,
            rules: &self.rules,
            host: &mut self.desk,
        };
        cx.host.courier.key = key(peer);
        call(&mut end.session, &mut cx);
        self.settle(peer);
    }

    /// Takes what a call brought forth: bytes, envelopes, a deadline.
    pub(super) fn settle(&mut self, peer: Peer) {
        let out = std::mem::take(&mut self.desk.out);
        if !out.is_empty() {
            self.ends[peer.0].outbox.push(&out);
        }
        for (to, head, tail) in std::mem::take(&mut self.desk.courier.mail) {
            self.deliver(Peer(to.index()), head, &tail);
        }
        for (to, tail) in self.desk.notices() {
            self.deliver(Peer(to.index()), Head::Envelope, &tail);
        }
        for (frame, selector) in std::mem::take(&mut self.desk.courier.broadcasts) {
            self.broadcast(&frame, selector.as_ref());
        }
        self.flush(peer);
        for key in std::mem::take(&mut self.desk.replaced) {
            self.replace(key);
        }
        self.serve_store();
    }

    /// Lets the store do what it was asked, and tells those who are to know.
    pub fn serve_store(&mut self) {
        let now_ms = self.now.wall_ms;
        while let Some(served) = self.desk.store.serve(&self.desk.post.roster, now_ms) {
            let Served {
                to,
                ticket,
                outcome,
                rings,
            } = served;
            self.answer(to, ticket, outcome);
            for ring in rings {
                for key in self.desk.post.roster.find(ring.uid()) {
                    self.ring(key, &ring);
                }
            }
        }
    }

    /// The store's answer to one session.
    pub fn answer(&mut self, to: Key, ticket: Ticket, outcome: Outcome) {
        self.call(Peer(to.index()), |session, cx| {
            session.answered(ticket, outcome, cx);
        });
    }

    /// One session hears of what was appended, or lost.
    pub fn ring(&mut self, key: Key, ring: &Ring) {
        let mark = self.desk.mark(key);
        self.call(Peer(key.index()), |session, cx| match ring {
            Ring::Lost { .. } => session.look(cx),
            Ring::Entry {
                epoch,
                seq,
                entry,
                but,
                ..
            } => {
                let rung = Rung {
                    epoch: *epoch,
                    seq: *seq,
                    entry,
                    is_own: *but == Some(mark),
                };
                session.rung(rung, cx);
            }
        });
    }

    /// One session hears what the store has for its user.
    pub fn compare(&mut self, key: Key, place: Option<(u64, u64)>) {
        self.call(Peer(key.index()), |session, cx| session.compare(place, cx));
    }

    /// One session has lost its place to another one.
    pub fn replace(&mut self, key: Key) {
        let why = Bye::Replaced;
        self.call(Peer(key.index()), |session, cx| {
            session.close(why.close_code(), why.reason(), cx);
        });
    }

    fn broadcast(&mut self, frame: &[u8], selector: Option<&Selector>) {
        let all: Vec<Peer> = match selector {
            Some(selector) => {
                let found = self.desk.selectors.find(selector);
                found.iter().map(|key| Peer(key.index())).collect()
            }
            None => self.peers().collect(),
        };
        for peer in all {
            let end = &mut self.ends[peer.0];
            if end.session.is_online() {
                end.outbox.push(frame);
                self.flush(peer);
            }
        }
    }

    fn deliver(&mut self, to: Peer, head: Head, tail: &[u8]) {
        let End {
            session, outbox, ..
        } = &mut self.ends[to.0];
        if !session.is_online() {
            return;
        }
        if let (Some(id), Some(identity)) = (session.id(&self.rules), session.identity()) {
            outbox.push_with(|out| outbound::delivery(id, identity, head, tail, out));
        }
        self.flush(to);
    }

    /// Writes once, as much as the socket takes.
    pub(super) fn flush(&mut self, peer: Peer) {
        let end = &mut self.ends[peer.0];
        if end.session.is_holding() {
            return self.watch(peer);
        }
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = end.outbox.gather(&mut slices);
        let mut room = match &mut self.takes {
            _ if end.is_stalled => 0,
            Some((chance, most)) => 1 + chance.below(*most) as usize,
            None => usize::MAX,
        };
        let mut written = 0;
        for slice in &slices[..filled] {
            let count = slice.len().min(room);
            end.reader.push(&slice[..count]);
            written += count;
            room -= count;
        }
        end.outbox.advance(written);
        if end.outbox.is_empty() {
            end.outbox.recycle();
            if end.session.phase() == Phase::Leaving {
                end.session.said(self.now.tick);
            }
        }
        self.watch(peer);
    }

    /// Arms the wheel; buries who is over.
    pub(super) fn watch(&mut self, peer: Peer) {
        let end = &mut self.ends[peer.0];
        if end.session.phase() == Phase::Over {
            end.is_gone = true;
            self.wheel.cancel(peer.0);
            self.desk.forget(key(peer));
            return;
        }
        let deadline = end.session.deadline(self.now, &self.rules);
        if deadline < self.wheel.due(peer.0) {
            self.wheel.arm(peer.0, deadline);
        }
    }
}

pub(super) fn key(peer: Peer) -> Key {
    Key::new(0, peer.0, 0)
}
