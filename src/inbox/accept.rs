//! A message is accepted: once, at the end of the receiver's log.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::records::{Entry, EntryBody, Head, Held, Pair, Seen, decode, encode};
use super::rows::{self, Broken};
use super::{Books, Ring};
use crate::parts::faults::Mutant;
use crate::protocol::envelope::MessageId;

/// Rows of old messages that are cleared away with each new one, at most.
const TRIM: usize = 4;
/// Rows that are looked at for the oldest message of one sender.
pub const LOOK: usize = 256;

/// A message for one user.
#[derive(Clone, Debug, PartialEq)]
pub struct Accept {
    pub to: String,
    /// Whose `msgid` it is.
    pub sender: String,
    /// The sender's own name for it; none: it is not told from others.
    pub msgid: Option<String>,
    pub entry: Entry,
}

/// What becomes of something that is remembered.
enum Choice {
    Forget,
    Keep,
    /// And keep all behind it.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New(MessageId),
    /// It had been accepted before.
    Again(MessageId),
    /// Another body was accepted under this msgid.
    Conflict,
    /// The receiver's inbox has no room.
    Full,
}

impl Books<'_> {
    pub fn accept(&mut self, accept: &Accept) -> Result<Accepted, Broken> {
        let Accept {
            to,
            sender,
            msgid,
            entry,
        } = accept;
        if let Some(before) = self.seen_before(to, sender, msgid.as_deref(), &entry.body)? {
            return Ok(before);
        }
        let mut head = self.open(to)?;
        let row = encode(entry);
        if !self.make_room(to, &mut head, row.len())? {
            return Ok(Accepted::Full);
        }
        let seq = self.append(to, &mut head, entry, &row)?;
        self.save(to, &mut head)?;
        self.remember(to, sender, msgid.as_deref(), entry, seq, head.dropped)?;
        self.trim_seen(to, head.dropped)?;
        Ok(Accepted::New(entry.id))
    }

    /// What became of this message when it came before.
    pub(super) fn seen_before(
        &self,
        to: &str,
        sender: &str,
        msgid: Option<&str>,
        body: &EntryBody,
    ) -> Result<Option<Accepted>, Broken> {
        let Some(msgid) = msgid.filter(|_| !Mutant::NoDedupe.is_on()) else {
            return Ok(None);
        };
        let Some(row) = self.rows.get(&rows::seen(to, sender, msgid))? else {
            return Ok(None);
        };
        let seen: Seen = decode("remembered message", &row)?;
        Ok(Some(if seen.hash == hash(body) {
            Accepted::Again(seen.id)
        } else {
            Accepted::Conflict
        }))
    }

    /// Forgets devices that are gone where the inbox is full, as many as it takes. False: there is
    /// no room, and nothing has changed.
    pub(super) fn make_room(
        &mut self,
        uid: &str,
        head: &mut Head,
        bytes: usize,
    ) -> Result<bool, Broken> {
        let has_room = |head: &Head| {
            head.entries < self.rules.entries_max
                && head.bytes + bytes as u64 <= self.rules.bytes_max
        };
        if has_room(head) {
            return Ok(true);
        }
        // First on a copy: devices are only given up where that helps.
        let mut without = head.clone();
        let mut freed_to = head.dropped;
        while self.forget_one(uid, &mut without) {
            let until = without.passed_by_all();
            for (_, entry, bytes) in self.entries(uid, freed_to, until, usize::MAX)? {
                without.discount(&entry, bytes);
            }
            freed_to = freed_to.max(until);
            if has_room(&without) {
                head.devices = without.devices;
                head.forgotten = without.forgotten;
                head.forgot_names = without.forgot_names;
                self.drop_passed(uid, head)?;
                return Ok(true);
            }
        }
        if self.lose_notices_in_the_way(uid, head, has_room)? {
            return Ok(true);
        }
        if Mutant::SilentTrim.is_on() {
            for (seq, entry, bytes) in self.entries(uid, head.dropped, head.seq, 1)? {
                self.drop_entry(uid, head, seq, &entry, bytes)?;
                head.dropped = seq;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Puts an entry at the end of a log. The caller saves the head.
    pub(super) fn append(
        &mut self,
        uid: &str,
        head: &mut Head,
        entry: &Entry,
        row: &[u8],
    ) -> Result<u64, Broken> {
        head.seq += 1;
        if entry.is_notice() {
            head.notices += 1;
        } else {
            head.entries += 1;
            head.bytes += row.len() as u64;
        }
        for name in &self.presence.devices(uid) {
            let (seq, dropped) = (head.seq, head.dropped);
            let device = self.know(head, name);
            // One that is behind gets this from a page, later.
            if device.offered.max(device.low).max(dropped) + 1 >= seq {
                device.offered = seq;
            }
        }
        // Before the entry: who misses something hears that first.
        self.ring_untold(uid, head);
        self.rows.put(&rows::entry(uid, head.seq), row)?;
        self.rings.push(Ring::Entry {
            uid: uid.to_owned(),
            epoch: head.epoch,
            seq: head.seq,
            entry: Arc::new(entry.clone()),
            but: None,
        });
        Ok(head.seq)
    }

    /// Remembers a message of the log `to`, which begins behind `dropped`.
    pub(super) fn remember(
        &mut self,
        to: &str,
        sender: &str,
        msgid: Option<&str>,
        entry: &Entry,
        seq: u64,
        dropped: u64,
    ) -> Result<(), Broken> {
        let held = Held {
            seq,
            sender: sender.to_owned(),
            msgid: msgid.map(str::to_owned),
            owes_notice: matches!(entry.body, EntryBody::Chat { .. }),
        };
        self.rows.put(&rows::held(to, entry.id), &encode(&held))?;
        let Some(msgid) = msgid else {
            return Ok(());
        };
        let seen = Seen {
            id: entry.id,
            hash: hash(&entry.body),
        };
        self.rows
            .put(&rows::seen(to, sender, msgid), &encode(&seen))?;
        let mut pair = self.pair(to, sender)?;
        pair.count += 1;
        self.set_pair(to, sender, &pair)?;
        if pair.count > self.rules.seen_max {
            self.forget_oldest(to, sender, dropped, pair)?;
        }
        Ok(())
    }

    /// Forgets the oldest messages of this inbox while they are old and have left the log, which
    /// begins behind `dropped`; a few of them.
    pub(super) fn trim_seen(&mut self, uid: &str, dropped: u64) -> Result<(), Broken> {
        let mut left = TRIM;
        let chosen = self.choose(uid, None, &mut |id, held| {
            if left == 0 || !self.is_old(id) || held.seq > dropped {
                return Choice::Stop;
            }
            left -= 1;
            Choice::Forget
        })?;
        self.forget_all(uid, chosen)
    }

    /// Forgets all messages of this inbox that are old and have left the log.
    pub(super) fn sweep_seen(&mut self, uid: &str, dropped: u64) -> Result<(), Broken> {
        let chosen = self.choose(uid, None, &mut |id, held| match self.is_old(id) {
            false => Choice::Stop,
            true if held.seq > dropped => Choice::Keep,
            true => Choice::Forget,
        })?;
        self.forget_all(uid, chosen)
    }

    /// Forgets the oldest messages of `sender` that have left the log, as many as are too many.
    fn forget_oldest(
        &mut self,
        uid: &str,
        sender: &str,
        dropped: u64,
        mut pair: Pair,
    ) -> Result<(), Broken> {
        let mut left = pair.count - self.rules.seen_max;
        let mut looked = 0;
        let from = pair.oldest;
        let chosen = self.choose(uid, from, &mut |id, held| {
            let is_own = held.sender == sender && held.msgid.is_some();
            if looked == LOOK || left == 0 || (is_own && held.seq > dropped) {
                return Choice::Stop;
            }
            looked += 1;
            pair.oldest = Some(id);
            if !is_own {
                return Choice::Keep;
            }
            left -= 1;
            Choice::Forget
        })?;
        self.forget_all(uid, chosen)?;
        let left = self.pair(uid, sender)?;
        let oldest = pair.oldest;
        self.set_pair(uid, sender, &Pair { oldest, ..left })
    }

    fn is_old(&self, id: MessageId) -> bool {
        id.at_ms().saturating_add(self.rules.seen_ms) <= self.now_ms
    }

    /// Messages of an inbox, from `from` on, or from the oldest, that `choose` says may go.
    fn choose(
        &self,
        uid: &str,
        from: Option<MessageId>,
        choose: &mut dyn FnMut(MessageId, &Held) -> Choice,
    ) -> Result<Vec<(MessageId, Held)>, Broken> {
        let all = rows::held_of(uid);
        let first = from.map_or_else(|| all.clone(), |id| rows::held(uid, id));
        let (mut found, mut broken) = (Vec::new(), None);
        self.rows
            .scan(&first, &rows::end_of(all), &mut |key, bytes| {
                let id = rows::message_of(key);
                let held = match decode::<Held>("held message", bytes) {
                    Ok(held) => held,
                    Err(error) => {
                        broken = Some(error);
                        return false;
                    }
                };
                match choose(id, &held) {
                    Choice::Stop => return false,
                    Choice::Keep => {}
                    Choice::Forget => found.push((id, held)),
                }
                true
            })?;
        broken.map_or(Ok(found), Err)
    }

    /// Forgets these, except what is not due yet.
    fn forget_all(&mut self, uid: &str, chosen: Vec<(MessageId, Held)>) -> Result<(), Broken> {
        for (id, held) in chosen {
            if held.seq != 0 || !self.is_scheduled(id)? {
                self.forget(uid, id, &held)?;
            }
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, uid: &str, id: MessageId, held: &Held) -> Result<(), Broken> {
        self.rows.remove(&rows::held(uid, id))?;
        if let Some(msgid) = &held.msgid {
            self.rows.remove(&rows::seen(uid, &held.sender, msgid))?;
            let mut pair = self.pair(uid, &held.sender)?;
            pair.count = pair.count.saturating_sub(1);
            self.set_pair(uid, &held.sender, &pair)?;
        }
        Ok(())
    }

    fn pair(&self, uid: &str, sender: &str) -> Result<Pair, Broken> {
        let row = self.rows.get(&rows::pair(uid, sender))?;
        let pair = row.map(|bytes| decode("count of messages", &bytes));
        Ok(pair.transpose()?.unwrap_or_default())
    }

    fn set_pair(&mut self, uid: &str, sender: &str, pair: &Pair) -> Result<(), Broken> {
        let key = rows::pair(uid, sender);
        match pair.count {
            0 => self.rows.remove(&key),
            _ => self.rows.put(&key, &encode(pair)),
        }
    }
}

/// Tells bodies apart: what the sender wrote, and nothing that the server added.
pub fn hash(body: &EntryBody) -> [u8; 16] {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    match body {
        EntryBody::Raw { msg } => part(msg),
        EntryBody::Chat { text, .. } | EntryBody::GroupChat { text, .. } => {
            part(&text.message);
            part(&text.file_type);
        }
        EntryBody::Delivered { to, .. } => part(to),
    }
    let digest = hash.finalize();
    digest.first_chunk().copied().unwrap_or_default()
}
