//! What a session's requests come to: the reactor's side of [`Host`].
//!
//! Owns: the bytes and envelopes that one call into a session brought forth; the reactor takes
//! them when the call is over and the session is no longer borrowed.

use std::ops::Range;
use std::sync::Arc;

use super::Shared;
use crate::parts::key::Key;
use crate::protocol::envelope::{Envelope, MessageId};
use crate::protocol::identity::{self, Identity};
use crate::protocol::outbound;
use crate::session::{Counted, Host, Sent};
use crate::stats::ReactorStats;

/// A surplus or drained client comes back after this long, and up to `RETRY_SPREAD_MS` later.
const RETRY_MS: u32 = 1000;
const RETRY_SPREAD_MS: u64 = 9000;

pub struct Desk {
    shared: Arc<Shared>,
    stats: Arc<ReactorStats>,
    ids: MessageIds,
    /// The connection whose session is running.
    pub key: Key,
    /// Bytes for that connection.
    pub out: Vec<u8>,
    /// Envelopes for connections of this reactor: whose, and where the tail lies in `tails`.
    pub local: Vec<(Key, Range<usize>)>,
    pub tails: Vec<u8>,
    /// It entered the roster in this call.
    pub has_bound: bool,
}

impl Desk {
    pub fn new(shared: Arc<Shared>, stats: Arc<ReactorStats>, ids: MessageIds) -> Desk {
        Desk {
            shared,
            stats,
            ids,
            key: Key::new(0, 0, 0),
            out: Vec::new(),
            local: Vec::new(),
            tails: Vec::new(),
            has_bound: false,
        }
    }

    fn find(&self, target: &str) -> crate::hub::roster::Sessions {
        if target.len() <= identity::ID_BYTES_MAX {
            return self.shared.roster.find(target);
        }
        let Some((key, uid)) = self.shared.codes.read(target) else {
            return Default::default();
        };
        let mut sessions = self.shared.roster.find(&uid);
        sessions.retain(|session| *session == key);
        sessions
    }
}

impl Host for Desk {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn message_id(&mut self) -> MessageId {
        self.ids.next()
    }

    fn bind(&mut self, identity: Identity, since_secs: u32) -> (Identity, u16) {
        let bound = self.shared.roster.bind(identity, self.key, since_secs);
        self.stats.bound.add(1);
        self.has_bound = true;
        (bound.identity, bound.ordinal)
    }

    fn rename(&mut self, identity: &Identity) {
        self.shared.roster.rename(identity, self.key);
    }

    fn set_online(&mut self, identity: &Identity, is_online: bool) {
        self.shared
            .roster
            .set_online(identity.uid(), self.key, is_online);
        self.has_bound |= is_online;
    }

    fn unbind(&mut self, identity: &Identity) {
        self.shared.roster.unbind(identity.uid(), self.key);
        self.stats.bound.set(self.stats.bound.get() - 1);
    }

    fn user_code(&mut self, fingerprint: u64, identity: &Identity) -> String {
        let mut code = String::with_capacity(112);
        self.shared
            .codes
            .write(fingerprint, self.key, identity.uid(), &mut code);
        code
    }

    fn send(&mut self, target: &str, envelope: &Envelope<'_>) -> Sent {
        let sessions = self.find(target);
        if sessions.is_empty() {
            return Sent::NobodyThere;
        }
        let start = self.tails.len();
        envelope.write_tail(&mut self.tails);
        let tail = start..self.tails.len();
        let mut shared: Option<Arc<[u8]>> = None;
        let mut is_refused = false;
        for key in sessions {
            if key.reactor() == self.key.reactor() {
                self.local.push((key, tail.clone()));
            } else {
                let tail = shared.get_or_insert_with(|| Arc::from(&self.tails[tail.clone()]));
                if self.shared.switchboard.deliver(key, tail.clone()).is_err() {
                    self.stats.dropped.add(1);
                    is_refused = true;
                }
            }
        }
        if is_refused {
            Sent::Refused
        } else {
            Sent::ToSomebody
        }
    }

    fn is_draining(&self) -> bool {
        self.shared.node.is_draining()
    }

    fn come_back(&mut self) -> String {
        let retry_ms = RETRY_MS + (self.ids.random() % RETRY_SPREAD_MS) as u32;
        outbound::come_back(retry_ms, self.shared.node.public_url.as_deref())
    }

    fn count(&mut self, event: Counted) {
        match event {
            Counted::Frame => self.stats.frames_in.add(1),
            Counted::Ping => self.stats.pings.add(1),
            Counted::Refusal(status) => self.stats.count_refusal(status),
            Counted::Close(code) => self.stats.count_close(code),
            Counted::Farewell => self.stats.farewells.add(1),
        }
    }
}

/// Message ids that never repeat: a random half of this generator's own, and a count that a
/// bijection scatters.
pub struct MessageIds {
    prefix: u64,
    next: u64,
}

impl MessageIds {
    pub fn new(seed: [u64; 2]) -> MessageIds {
        MessageIds {
            prefix: seed[0],
            next: seed[1],
        }
    }

    pub fn next(&mut self) -> MessageId {
        let mut id = [0; 16];
        let random = self.random();
        id[..8].copy_from_slice(&self.prefix.to_be_bytes());
        id[8..].copy_from_slice(&random.to_be_bytes());
        MessageId(id)
    }

    /// The next value of a sequence that visits every number once (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.next = self.next.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
