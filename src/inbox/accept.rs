//! A message is accepted: once, at the end of the receiver's log.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::records::{Entry, EntryBody, Head, Held, Seen, decode, encode};
use super::rows::{self, Broken};
use super::{Books, Ring};
use crate::protocol::envelope::MessageId;

/// Rows of old messages that are cleared away with each new one, at most.
pub(super) const TRIM: usize = 4;
/// Rows that are looked at for the oldest message of one sender.
const LOOK: usize = 256;

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
        self.remember(to, sender, msgid.as_deref(), entry, seq)?;
        self.trim_seen(to, head.dropped, TRIM)?;
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
        let Some(msgid) = msgid else {
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

    /// Forgets devices that are gone where the inbox is full. False: there is no room.
    pub(super) fn make_room(
        &mut self,
        uid: &str,
        head: &mut Head,
        bytes: usize,
    ) -> Result<bool, Broken> {
        loop {
            let is_full = head.entries >= self.rules.entries_max
                || head.bytes + bytes as u64 > self.rules.bytes_max;
            if !is_full {
                return Ok(true);
            }
            // A device is only given up where that helps: others have passed more than it has.
            let before = head.clone();
            if !self.forget_one(uid, head) || head.passed_by_all() <= head.dropped {
                *head = before;
                return Ok(false);
            }
            self.drop_passed(uid, head)?;
        }
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
        let present = self.presence.devices(uid);
        for name in &present {
            let seq = head.seq;
            self.know(head, name).offered = seq;
        }
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

    pub(super) fn remember(
        &mut self,
        to: &str,
        sender: &str,
        msgid: Option<&str>,
        entry: &Entry,
        seq: u64,
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
        let count = self.pair(to, sender)? + 1;
        self.set_pair(to, sender, count)?;
        if count > self.rules.seen_max {
            self.forget_oldest(to, sender)?;
        }
        Ok(())
    }

    /// Forgets messages of this inbox that are old, and have left the log, which begins behind
    /// `dropped`; `limit` of them.
    pub(super) fn trim_seen(
        &mut self,
        uid: &str,
        dropped: u64,
        limit: usize,
    ) -> Result<(), Broken> {
        let is_done = |id: MessageId, held: &Held| {
            id.at_ms().saturating_add(self.rules.seen_ms) <= self.now_ms && held.seq <= dropped
        };
        for (id, held) in self.held(uid, limit, |id, held| is_done(id, held).then_some(true))? {
            self.forget(uid, id, &held)?;
        }
        Ok(())
    }

    /// Forgets the oldest message of `sender` that has left the log.
    fn forget_oldest(&mut self, uid: &str, sender: &str) -> Result<(), Broken> {
        let dropped = self.load(uid)?.map_or(0, |head| head.dropped);
        let mut looked = 0;
        let found = self.held(uid, 1, |_, held| {
            looked += 1;
            let is_it = held.sender == sender && held.msgid.is_some() && held.seq <= dropped;
            (looked <= LOOK).then_some(is_it)
        })?;
        for (id, held) in found {
            self.forget(uid, id, &held)?;
        }
        Ok(())
    }

    /// The oldest messages of an inbox that `choose` says true of, until it says nothing.
    fn held(
        &self,
        uid: &str,
        limit: usize,
        mut choose: impl FnMut(MessageId, &Held) -> Option<bool>,
    ) -> Result<Vec<(MessageId, Held)>, Broken> {
        let from = rows::held_of(uid);
        let (mut found, mut broken) = (Vec::new(), None);
        self.rows
            .scan(&from, &rows::end_of(from.clone()), &mut |key, bytes| {
                let id = rows::message_of(key);
                match decode::<Held>("held message", bytes) {
                    Err(error) => broken = Some(error),
                    Ok(held) => match choose(id, &held) {
                        None => return false,
                        Some(false) => {}
                        Some(true) => found.push((id, held)),
                    },
                }
                broken.is_none() && found.len() < limit
            })?;
        broken.map_or(Ok(found), Err)
    }

    pub(super) fn forget(&mut self, uid: &str, id: MessageId, held: &Held) -> Result<(), Broken> {
        self.rows.remove(&rows::held(uid, id))?;
        if let Some(msgid) = &held.msgid {
            self.rows.remove(&rows::seen(uid, &held.sender, msgid))?;
            let count = self.pair(uid, &held.sender)?.saturating_sub(1);
            self.set_pair(uid, &held.sender, count)?;
        }
        Ok(())
    }

    fn pair(&self, uid: &str, sender: &str) -> Result<u32, Broken> {
        let row = self.rows.get(&rows::pair(uid, sender))?;
        let count = row.map(|bytes| decode("count of messages", &bytes));
        Ok(count.transpose()?.unwrap_or(0))
    }

    fn set_pair(&mut self, uid: &str, sender: &str, count: u32) -> Result<(), Broken> {
        let key = rows::pair(uid, sender);
        match count {
            0 => self.rows.remove(&key),
            count => self.rows.put(&key, &encode(&count)),
        }
    }
}

/// Tells bodies apart: what the sender wrote, and nothing that the server added.
fn hash(body: &EntryBody) -> [u8; 16] {
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
