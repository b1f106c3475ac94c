//! Messages that are due later.

use super::Books;
use super::accept::{Accept, Accepted};
use super::records::{Entry, Held, Scheduled, decode, encode};
use super::rows::{self, Broken};
use crate::protocol::envelope::MessageId;

/// When a due message that found no room is tried again.
pub const AGAIN_MS: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    Yes,
    /// It was due already.
    TooLate,
    Unknown,
}

impl Books<'_> {
    /// Accepts a message that its receiver gets at `due_ms`. It has its id from now on, and is
    /// told from others from now on.
    pub fn schedule(&mut self, accept: &Accept, due_ms: u64) -> Result<Accepted, Broken> {
        let Accept {
            to,
            sender,
            msgid,
            entry,
        } = accept;
        if let Some(before) = self.seen_before(to, sender, msgid.as_deref(), &entry.body)? {
            return Ok(before);
        }
        // 0 is the mark of what was due.
        let due_ms = due_ms.max(1);
        let dropped = self.load(to)?.map_or(0, |head| head.dropped);
        self.rows.put(&rows::delay_id(entry.id), &encode(&due_ms))?;
        self.remember(to, sender, msgid.as_deref(), entry, 0, dropped)?;
        let scheduled = Scheduled {
            to: to.clone(),
            sender: sender.clone(),
            msgid: msgid.clone(),
            due_ms,
            entry: Some(entry.clone()),
        };
        self.rows
            .put(&rows::delay(due_ms, entry.id), &encode(&scheduled))?;
        Ok(Accepted::New(entry.id))
    }

    /// Takes back what is not due yet. It may be scheduled again under the same msgid.
    pub fn cancel(&mut self, id: MessageId) -> Result<Cancelled, Broken> {
        let Some(row) = self.rows.get(&rows::delay_id(id))? else {
            return Ok(Cancelled::Unknown);
        };
        let due_ms: u64 = decode("due time", &row)?;
        if due_ms == 0 {
            return Ok(Cancelled::TooLate);
        }
        let key = rows::delay(due_ms, id);
        if let Some(row) = self.rows.get(&key)? {
            let scheduled: Scheduled = decode("scheduled message", &row)?;
            let held = Held {
                seq: 0,
                sender: scheduled.sender,
                msgid: scheduled.msgid,
                owes_notice: false,
            };
            self.forget(&scheduled.to, id, &held)?;
        }
        self.rows.remove(&key)?;
        self.rows.remove(&rows::delay_id(id))?;
        Ok(Cancelled::Yes)
    }

    /// It waits for its time.
    pub(super) fn is_scheduled(&self, id: MessageId) -> Result<bool, Broken> {
        let row = self.rows.get(&rows::delay_id(id))?;
        let due_ms = row.map(|bytes| decode::<u64>("due time", &bytes));
        Ok(due_ms.transpose()?.is_some_and(|due_ms| due_ms > 0))
    }

    /// When the next message is due, Unix milliseconds.
    pub fn next_due(&self) -> Result<Option<u64>, Broken> {
        let (from, mut due) = (rows::all::delays(), None);
        self.rows
            .scan(&from, &rows::end_of(from.clone()), &mut |key, _| {
                due = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
                false
            })?;
        Ok(due.map(u64::from_be_bytes))
    }

    /// Puts what is due into the inboxes, at most `limit`. Where an inbox has no room it waits for
    /// as long as it would have been kept there; then there is a gap, and the receiver hears of it.
    pub fn deliver_due(&mut self, limit: usize) -> Result<usize, Broken> {
        let mut due = Vec::new();
        let to = rows::delay(self.now_ms + 1, MessageId([0; 16]));
        self.rows
            .scan(&rows::all::delays(), &to, &mut |key, bytes| {
                due.push((key.to_vec(), bytes.to_vec()));
                due.len() < limit
            })?;
        for (key, bytes) in &due {
            let id = rows::message_of(key);
            self.rows.remove(key)?;
            let scheduled: Scheduled = decode("scheduled message", bytes)?;
            match &scheduled.entry {
                None => self.rows.remove(&rows::delay_id(id))?,
                Some(entry) if !self.fall_due(&scheduled, entry)? => {
                    let again = self.now_ms + AGAIN_MS;
                    self.rows.put(&rows::delay(again, id), bytes)?;
                    self.rows.put(&rows::delay_id(id), &encode(&again))?;
                }
                Some(_) => {
                    // Who wants to cancel it hears for a while that it is too late.
                    let trace = Scheduled {
                        entry: None,
                        ..scheduled
                    };
                    let until = rows::delay(self.now_ms + self.rules.seen_ms, id);
                    self.rows.put(&until, &encode(&trace))?;
                    self.rows.put(&rows::delay_id(id), &encode(&0_u64))?;
                }
            }
        }
        Ok(due.len())
    }

    /// False: there is no room for it yet.
    fn fall_due(&mut self, scheduled: &Scheduled, entry: &Entry) -> Result<bool, Broken> {
        let uid = &scheduled.to;
        let entry = Entry {
            at_ms: scheduled.due_ms,
            ..entry.clone()
        };
        let mut head = self.open(uid)?;
        let row = encode(&entry);
        if self.make_room(uid, &mut head, row.len())? {
            let seq = self.append(uid, &mut head, &entry, &row)?;
            let key = rows::held(uid, entry.id);
            if let Some(row) = self.rows.get(&key)? {
                let held: Held = decode("held message", &row)?;
                self.rows.put(&key, &encode(&Held { seq, ..held }))?;
            }
        } else if self.now_ms < scheduled.due_ms.saturating_add(self.rules.ttl_ms) {
            return Ok(false);
        } else {
            self.miss(uid, &mut head, None);
        }
        self.save(uid, &mut head)?;
        Ok(true)
    }
}
