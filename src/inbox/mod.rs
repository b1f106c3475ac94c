//! The contract of delivery: what a store does when a message is accepted, acknowledged, read or
//! grown old. Pure: rows, values and a time in, rows and values out.
//!
//! Everything that a user must get is an entry in that user's inbox, a log with contiguous
//! numbers. Who is connected gets entries pushed, and nobody depends on it: the log is the truth.
//!
//! Owns: the meaning of all rows. Neighbours: a store lends its transaction; whoever serves
//! requests commits it, and only then tells what came of it.
//! Invariants: within an epoch no seq is given twice; an entry stays until every known device
//! has passed it, or it has grown old, and whoever misses it then is told.

mod accept;
mod ack;
pub mod batch;
pub mod check;
mod groups;
mod later;
pub mod memory;
mod name;
pub mod pump;
mod read;
pub mod records;
pub mod rows;
pub mod service;
#[cfg(test)]
mod tests;
pub mod text;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::parts::faults::Mutant;

pub use accept::{Accept, Accepted, LOOK, hash};
pub use ack::{Acknowledged, Reach};
pub use groups::{GroupAccept, GroupAccepted, GroupChange, GroupError, GroupRules};
pub use later::{AGAIN_MS, Cancelled};
pub use name::RowName;
pub use read::{Attach, Attached, Cursor, DirectoryEntry, PAGE_BYTES, PAGE_ENTRIES, Page};
use records::{Device, Entry, Head, decode, encode};
use rows::{Broken, Rows};

/// How much is kept for whom; part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxRules {
    pub entries_max: u32,
    pub bytes_max: u64,
    pub notices_max: u32,
    pub devices_max: usize,
    /// How long entries are kept, and how long a message id is remembered at least.
    pub ttl_ms: u64,
    pub seen_ms: u64,
    /// Messages that are remembered of one sender to one receiver.
    pub seen_max: u32,
}

/// An inbox that is empty, and of which nobody has wanted anything for so long, is forgotten with
/// the devices that it knew.
pub const IDLE_MS: u64 = 30 * DAY_MS;
pub const DAY_MS: u64 = 24 * 3_600_000;

/// The epoch of inboxes that begin now: another one than that of any inbox that was forgotten.
pub fn epoch_at(of_store: u64, now_ms: u64) -> u64 {
    of_store.wrapping_add(now_ms / IDLE_MS)
}

/// Who is connected.
pub trait Presence {
    /// The names of the devices on which a user is connected.
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]>;
}

/// Something that connected clients should hear of, once the transaction is committed.
#[derive(Clone, Debug, PartialEq)]
pub enum Ring {
    /// An entry was appended.
    Entry {
        uid: String,
        epoch: u64,
        seq: u64,
        entry: Arc<Entry>,
        /// The connection that it came from: it has it already.
        but: Option<u64>,
    },
    /// Entries of this user were dropped before they had been passed.
    Lost { uid: String },
}

/// A user came to a first session on any node, or went from the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceChange {
    pub uid: String,
    pub is_online: bool,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// Takes a seq and the row of its entry; false: enough.
type Look<'a> = dyn FnMut(u64, &[u8]) -> Result<bool, Broken> + 'a;

/// All inboxes within one transaction.
pub struct Books<'a> {
    pub rows: &'a mut dyn Rows,
    pub presence: &'a dyn Presence,
    pub rules: &'a InboxRules,
    /// Unix milliseconds.
    pub now_ms: u64,
    /// Of inboxes that begin now.
    pub epoch: u64,
    pub rings: &'a mut Vec<Ring>,
}

impl Books<'_> {
    fn load(&self, uid: &str) -> Result<Option<Head>, Broken> {
        let row = self.rows.get(&rows::head(uid))?;
        row.map(|bytes| decode("inbox", &bytes)).transpose()
    }

    /// The inbox of a user, begun if it is not there: devices that are connected are known to it.
    fn open(&mut self, uid: &str) -> Result<Head, Broken> {
        if let Some(head) = self.load(uid)? {
            return Ok(head);
        }
        let mut head = Head::new(self.epoch);
        for name in self.presence.devices(uid) {
            self.know(&mut head, &name);
        }
        Ok(head)
    }

    fn save(&mut self, uid: &str, head: &mut Head) -> Result<(), Broken> {
        head.touched_ms = self.now_ms;
        self.rows.put(&rows::head(uid), &encode(head))
    }

    /// A device as the inbox knows it from now on. One that was forgotten, or may have been, is
    /// told that it may have missed something; it begins, like a new one, with the oldest entry.
    /// So is one that finds places empty, because a notice too many went from between.
    fn know<'h>(&self, head: &'h mut Head, name: &str) -> &'h mut Device {
        let at = match head.devices.iter().position(|device| device.name == name) {
            Some(at) => at,
            None => {
                let was_known = head.forgotten.iter().position(|known| known == name);
                let mut device = Device {
                    name: name.to_owned(),
                    low: head.dropped,
                    resync: was_known.is_some()
                        || head.forgot_names
                        || head.lost
                        || head.has_empty_places(),
                    ..Device::default()
                };
                if let Some(at) = was_known {
                    head.forgotten.remove(at);
                    // What is kept may have been sent to it before it was forgotten.
                    device.offered = head.seq;
                }
                head.lost = false;
                head.devices.push(device);
                head.devices.len() - 1
            }
        };
        &mut head.devices[at]
    }

    /// Forgets one device that is not connected, the furthest behind first. False if there is
    /// none that may go: the last one never goes.
    fn forget_one(&self, uid: &str, head: &mut Head) -> bool {
        if head.devices.len() < 2 {
            return false;
        }
        let connected = self.presence.devices(uid);
        let candidates = head.devices.iter().enumerate();
        let furthest = candidates
            .filter(|(_, device)| !connected.contains(&device.name))
            .min_by_key(|(_, device)| device.low)
            .map(|(at, _)| at);
        let Some(at) = furthest else {
            return false;
        };
        let device = head.devices.remove(at);
        head.forgotten.push(device.name);
        if head.forgotten.len() > self.rules.devices_max {
            head.forgotten.remove(0);
            head.forgot_names = true;
        }
        true
    }

    /// Drops what every known device has passed.
    fn drop_passed(&mut self, uid: &str, head: &mut Head) -> Result<(), Broken> {
        let until = head.passed_by_all();
        if until > head.dropped {
            for (seq, entry, bytes) in self.entries(uid, head.dropped, until, usize::MAX)? {
                self.drop_entry(uid, head, seq, &entry, bytes)?;
            }
            head.dropped = until;
        }
        Ok(())
    }

    fn drop_entry(
        &mut self,
        uid: &str,
        head: &mut Head,
        seq: u64,
        entry: &Entry,
        bytes: usize,
    ) -> Result<(), Broken> {
        head.discount(entry, bytes);
        self.rows.remove(&rows::entry(uid, seq))
    }

    /// Drops an entry that some have not passed: they are told, unless they are to be told anyway.
    fn lose_entry(
        &mut self,
        uid: &str,
        head: &mut Head,
        seq: u64,
        entry: &Entry,
        bytes: usize,
    ) -> Result<(), Broken> {
        if Mutant::SilentExpiry.is_on() {
            return self.drop_entry(uid, head, seq, entry, bytes);
        }
        head.lost |= head.devices.is_empty();
        let mut is_news = false;
        for device in &mut head.devices {
            if !device.has_passed(seq) {
                is_news |= !device.resync;
                device.resync = true;
                // What was sent is not worth another word, but the old one is not enough either.
                let told = device.told.filter(|_| seq <= device.offered);
                device.told = told.map(|_| head.seq);
            }
        }
        self.ring_lost(uid, is_news);
        self.drop_entry(uid, head, seq, entry, bytes)
    }

    /// Something never came into an inbox: every device is told, except one that has it. Who was
    /// told of an earlier loss is told again, but only when there is room: see `ring_untold`.
    fn miss(&mut self, uid: &str, head: &mut Head, but: Option<&str>) {
        head.lost |= head.devices.is_empty();
        let mut is_news = false;
        for device in &mut head.devices {
            if Some(device.name.as_str()) != but {
                is_news |= !device.resync;
                device.resync = true;
                device.told = None;
            }
        }
        self.ring_lost(uid, is_news);
    }

    /// Rings where a connected device has not been told yet that it misses something.
    fn ring_untold(&mut self, uid: &str, head: &Head) {
        let mut untold = head.devices.iter().filter(|device| device.is_untold());
        if let Some(first) = untold.next() {
            let present = self.presence.devices(uid);
            let is_here = |device: &Device| present.contains(&device.name);
            self.ring_lost(uid, is_here(first) || untold.any(is_here));
        }
    }

    fn ring_lost(&mut self, uid: &str, is_news: bool) {
        if is_news {
            let uid = uid.to_owned();
            self.rings.push(Ring::Lost { uid });
        }
    }

    /// Entries behind `after` up to and with `until`, at most `limit`, with their sizes.
    fn entries(
        &self,
        uid: &str,
        after: u64,
        until: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Entry, usize)>, Broken> {
        let mut found = Vec::new();
        self.visit(uid, after, until, &mut |seq, bytes| {
            found.push((seq, decode("entry", bytes)?, bytes.len()));
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    /// Shows the rows of entries behind `after` up to and with `until`, in order, until `look`
    /// says false.
    fn visit(&self, uid: &str, after: u64, until: u64, look: &mut Look<'_>) -> Result<(), Broken> {
        let from = rows::entry(uid, after.saturating_add(1));
        let to = rows::entry(uid, until.saturating_add(1));
        let mut result = Ok(true);
        self.rows.scan(&from, &to, &mut |key, bytes| {
            result = look(rows::number_of(key), bytes);
            result == Ok(true)
        })?;
        result.map(|_| ())
    }

    /// Removes the rows of `from..to`.
    fn clear(&mut self, from: &[u8], to: &[u8]) -> Result<(), Broken> {
        let mut keys = Vec::new();
        self.rows.scan(from, to, &mut |key, _| {
            keys.push(key.to_vec());
            true
        })?;
        keys.iter().try_for_each(|key| self.rows.remove(key))
    }

    /// The ids that keys of `from..to` begin with, at most `limit`.
    fn ids(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<String>, Broken> {
        let mut ids = Vec::new();
        self.rows.scan(from, to, &mut |key, _| {
            let is_wanted = ids.len() < limit;
            if is_wanted {
                ids.push(rows::first_id_of(key).to_owned());
            }
            is_wanted
        })?;
        Ok(ids)
    }

    /// Nothing is kept for this user, and nobody has wanted anything for long.
    fn is_idle(&self, uid: &str, head: &Head) -> bool {
        head.entries == 0
            && head.notices == 0
            && head.touched_ms.saturating_add(IDLE_MS) <= self.now_ms
            && self.presence.devices(uid).is_empty()
    }

    /// Drops what has grown old, in one inbox; false if it is not there.
    pub fn expire(&mut self, uid: &str) -> Result<bool, Broken> {
        const BATCH: usize = 256;
        let Some(mut head) = self.load(uid)? else {
            return Ok(false);
        };
        let before = head.clone();
        loop {
            let mut old = Vec::new();
            self.visit(uid, head.dropped, head.seq, &mut |seq, bytes| {
                let entry: Entry = decode("entry", bytes)?;
                let is_old = entry.at_ms.saturating_add(self.rules.ttl_ms) <= self.now_ms;
                if is_old {
                    old.push((seq, entry, bytes.len()));
                }
                Ok(is_old && old.len() < BATCH)
            })?;
            let count = old.len();
            for (seq, entry, bytes) in old {
                self.lose_entry(uid, &mut head, seq, &entry, bytes)?;
                head.dropped = seq;
            }
            if count < BATCH {
                break;
            }
        }
        // What has gone may be all that held up a device that had passed what follows.
        for device in before
            .devices
            .iter()
            .filter(|device| !device.above.is_empty())
        {
            self.advance(uid, &mut head, &device.name, 0)?;
        }
        self.drop_passed(uid, &mut head)?;
        self.sweep_seen(uid, head.dropped)?;
        if self.is_idle(uid, &head) {
            self.rows.remove(&rows::head(uid))?;
        } else if head != before {
            self.save(uid, &mut head)?;
        }
        Ok(true)
    }

    /// Users that have an inbox, behind `after`, at most `limit`.
    pub fn users(&self, after: &str, limit: usize) -> Result<Vec<String>, Broken> {
        let from = match after {
            "" => rows::all::heads(),
            uid => rows::end_of(rows::head(uid)),
        };
        self.ids(&from, &rows::end_of(rows::all::heads()), limit)
    }
}
