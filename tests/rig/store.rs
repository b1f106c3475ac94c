//! The node's store, in memory: it answers as soon as the call that asked is over, unless a test
//! holds it back.

use smallvec::SmallVec;

use throng::hub::roster::Roster;
use throng::inbox::memory::MemoryRows;
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Books, InboxRules, Presence, Ring};
use throng::parts::key::Key;
use throng::session::ticket::Ticket;

/// Of all inboxes.
pub const EPOCH: u64 = 0xe1;

#[derive(Default)]
pub struct Store {
    rows: MemoryRows,
    letters: Vec<(Key, Request, Ticket)>,
    /// Requests are refused: the queue is full.
    pub is_jammed: bool,
    /// Nothing can be read or written.
    pub is_down: bool,
    /// Requests wait.
    pub is_held: bool,
}

/// What one request came to.
pub struct Served {
    pub to: Key,
    pub ticket: Ticket,
    pub outcome: Outcome,
    pub rings: Vec<Ring>,
}

struct Here<'a>(&'a Roster);

impl Presence for Here<'_> {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        self.0.devices(uid)
    }
}

pub fn rules() -> InboxRules {
    const HOUR_MS: u64 = 3_600_000;
    InboxRules {
        entries_max: 1000,
        bytes_max: 8 << 20,
        notices_max: 1000,
        devices_max: 8,
        ttl_ms: 7 * 24 * HOUR_MS,
        seen_ms: 24 * HOUR_MS,
        seen_max: 10_000,
    }
}

impl Store {
    pub fn ask(&mut self, from: Key, request: Request, ticket: Ticket) -> bool {
        if self.is_jammed {
            return false;
        }
        self.letters.push((from, request, ticket));
        true
    }

    /// Drops what has grown old in one inbox.
    pub fn sweep(&mut self, uid: &str, roster: &Roster, now_ms: u64) {
        self.work(roster, now_ms, |books| books.expire(uid).unwrap());
    }

    /// Works on the rows, and keeps what came of it.
    fn work<T>(
        &mut self,
        roster: &Roster,
        now_ms: u64,
        work: impl FnOnce(&mut Books<'_>) -> T,
    ) -> (T, Vec<Ring>) {
        let mut rings = Vec::new();
        let outcome = work(&mut Books {
            rows: &mut self.rows,
            presence: &Here(roster),
            rules: &rules(),
            now_ms,
            epoch: EPOCH,
            rings: &mut rings,
        });
        self.rows.commit();
        (outcome, rings)
    }

    /// What was asked for, for whoever serves it in its own way.
    pub fn take_letters(&mut self) -> Vec<(Key, Request, Ticket)> {
        std::mem::take(&mut self.letters)
    }

    /// Serves the next request, and with it what is left to do for groups.
    pub fn serve(&mut self, roster: &Roster, now_ms: u64) -> Option<Served> {
        if self.is_held || self.letters.is_empty() {
            return None;
        }
        let (to, request, ticket) = self.letters.remove(0);
        let (outcome, rings) = if self.is_down {
            (Outcome::Down, Vec::new())
        } else {
            self.work(roster, now_ms, |books| {
                let outcome = books.serve(&request).unwrap();
                while books.work("").unwrap().is_some() {}
                books.deliver_due(usize::MAX).unwrap();
                outcome
            })
        };
        Some(Served {
            to,
            ticket,
            outcome,
            rings,
        })
    }
}
