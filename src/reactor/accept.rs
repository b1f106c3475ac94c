//! Newcomers: who is admitted, who is told where to go, and what happens without descriptors.

use std::io::{self, Write};
use std::net::IpAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Token};

use super::Reactor;
use super::connection::Connection;
use super::listener::Reserve;
use crate::parts::key::Key;
use crate::parts::rate::Rate;
use crate::parts::time::{Now, Tick};
use crate::protocol::limits::Limit;
use crate::protocol::upgrade::Refusal;
use crate::session::{Newcomer, Session};

/// Newcomers taken in a turn.
const ACCEPT_PER_TURN: usize = 128;
/// Connections accepted one after the other that are pinged together.
const NEIGHBOURS: u64 = 64;
/// Connections beyond the cap that hear where to go, at a time.
const FAREWELLS_MAX: usize = 64;
/// Connections beyond the cap that hear 503, and the farewells; more are dropped at once. The
/// cap leaves 256 descriptors of the table to them and to the reactor itself.
const SURPLUS_MAX: usize = 192;
/// How long nobody is accepted when the descriptors are used up, in ticks.
const PAUSE_TICKS: u32 = 1;
/// The want of descriptors is logged once in so many seconds.
const WARN_SECS: u32 = 10;

/// A reactor's listener and what it remembers of it.
pub struct Door {
    pub listener: TcpListener,
    pub reserve: Reserve,
    /// Somebody may be waiting: accept is edge-triggered, so this is remembered.
    pub is_knocked: bool,
    /// No accept before this tick.
    pub paused_until: Tick,
    /// How many may come in a second.
    pub rate: Rate,
    /// Connections that were not admitted and are still here.
    pub surplus: usize,
    pub refuses_surplus: bool,
    /// Last time that the want of descriptors was logged.
    pub warned: Option<Tick>,
}

impl Door {
    /// When somebody who may be waiting is to be looked after, if anybody may.
    pub fn opens_at(&self, now: Tick) -> Option<Tick> {
        self.is_knocked
            .then_some(self.paused_until.max(self.rate.next()).max(now))
    }
}

impl Reactor {
    pub(super) fn accept_newcomers(&mut self, now: Now) {
        if !self.door.is_knocked || now.tick < self.door.paused_until {
            return;
        }
        for _ in 0..ACCEPT_PER_TURN {
            if self.door.rate.next() > now.tick {
                self.strike_nobody(Limit::Handshakes, None, now);
                return;
            }
            match self.door.listener.accept() {
                Ok((stream, peer)) => {
                    self.door.rate.take(now.tick);
                    self.welcome(stream, peer.ip().to_canonical(), now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.door.is_knocked = false;
                    return;
                }
                Err(error) if is_out_of_descriptors(&error) => {
                    return self.out_of_descriptors(&error, now);
                }
                // The newcomer was gone before it was accepted (ECONNABORTED and the like).
                Err(_) => {}
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: IpAddr, now: Now) {
        self.stats.accepted.add(1);
        let is_admitted = self.shared.node.admit();
        if !is_admitted {
            self.strike_nobody(Limit::Connections, Some(peer), now);
        }
        if !is_admitted && self.door.surplus >= SURPLUS_MAX {
            self.stats.count_refusal(503);
            return;
        }
        let newcomer = if is_admitted {
            Newcomer::Admitted
        } else {
            Newcomer::Surplus
        };
        // Those who come together get heartbeats far apart, but for a few neighbours: their slots,
        // timers and sockets lie side by side, and are cheaper to visit in a row.
        let group = self.stats.accepted.get() / NEIGHBOURS;
        let spread = (group as u8).wrapping_mul(157);
        let mut session = Session::new(now.tick, newcomer, spread);
        let is_proxied = self.rules.trusts(peer);
        if is_proxied {
            session.expect_proxy_header();
        }
        let Some(key) = self
            .slots
            .insert(Connection::new(stream, session, self.ring.head()))
        else {
            if is_admitted {
                self.shared.node.leave();
            }
            return;
        };
        self.door.surplus += usize::from(!is_admitted);
        let Some(connection) = self.slots.get_mut(key) else {
            return;
        };
        let token = Token(key.bits() as usize);
        if self
            .poll
            .registry()
            .register(&mut connection.stream, token, Interest::READABLE)
            .is_err()
        {
            return self.with_session(key, now, |session, cx| session.abandon(cx));
        }
        let is_heard =
            is_admitted || (!self.door.refuses_surplus && self.door.surplus <= FAREWELLS_MAX);
        if is_heard {
            self.watch(key, now);
            if is_admitted {
                self.note_stranger(key, now);
                self.meet(key, peer, is_proxied, now);
            }
        } else {
            self.with_session(key, now, |session, cx| {
                session.refuse(Refusal::UNAVAILABLE, cx)
            });
        }
    }

    /// Counts a newcomer for its address, where that matters.
    fn meet(&mut self, key: Key, peer: IpAddr, is_proxied: bool, now: Now) {
        let limits = &self.rules.limits;
        if !is_proxied && !limits.count_addresses() {
            return;
        }
        if let Err(limit) = self.desk.meet(key, peer, is_proxied, now.tick, limits) {
            self.with_session(key, now, |session, cx| {
                session.refuse(Refusal::of_address(limit), cx)
            });
        }
    }

    /// The table is full. The descriptor in reserve lets one newcomer hear so; the others wait
    /// in the queue until the next tick, when some may have left.
    fn out_of_descriptors(&mut self, error: &io::Error, now: Now) {
        self.stats.descriptors_exhausted.add(1);
        self.door.paused_until = now.tick.plus_ticks(PAUSE_TICKS);
        if self.door.reserve.give_up() {
            if let Ok((stream, _)) = self.door.listener.accept() {
                self.stats.accepted.add(1);
                self.stats.count_refusal(503);
                let mut answer = Vec::with_capacity(256);
                Refusal::UNAVAILABLE.write(1, &mut answer);
                // Best effort: an empty socket takes it, and nothing is kept of this peer.
                let _ = (&stream).write(&answer);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
            self.door.reserve.take_back();
        }
        let is_news = self
            .door
            .warned
            .is_none_or(|at| at.plus_secs(WARN_SECS) <= now.tick);
        if is_news {
            self.door.warned = Some(now.tick);
            tracing::warn!(
                %error,
                "no descriptors left to accept with: raise LimitNOFILE or lower max_connections (see sysctl/README.md)"
            );
        }
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
