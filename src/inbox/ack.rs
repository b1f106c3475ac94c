//! A device has got entries: it passes them, and the senders of single chats hear of it.

use super::records::{Entry, EntryBody, Head, Held, decode, encode};
use super::rows::{self, Broken};
use super::{Books, Ring};
use crate::parts::faults::Mutant;
use crate::protocol::envelope::MessageId;

/// How a device says what it has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// These messages.
    Messages(Vec<MessageId>),
    /// Everything up to this entry of this epoch.
    UpTo { epoch: u64, seq: u64 },
    /// A pong says so: nobody hears of it.
    Silently { seq: u64 },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of the messages that were named, those that this inbox never held, as far as it remembers.
    pub unknown: Vec<MessageId>,
    /// The cursor that was named is one of this log; true where none was.
    pub fits: bool,
    /// Everything up to here the device has passed.
    pub low: u64,
    /// Entries above that, passed out of order.
    pub above: Vec<u64>,
}

impl Books<'_> {
    /// A device of `uid` has got what `reach` says.
    pub fn acknowledge(
        &mut self,
        uid: &str,
        device: &str,
        reach: &Reach,
    ) -> Result<Acknowledged, Broken> {
        let Some(mut head) = self.load(uid)? else {
            let unknown = match reach {
                Reach::Messages(ids) => ids.clone(),
                _ => Vec::new(),
            };
            return Ok(Acknowledged {
                unknown,
                fits: !matches!(reach, Reach::UpTo { .. }),
                low: 0,
                above: Vec::new(),
            });
        };
        let before = head.clone();
        self.know(&mut head, device);
        let (mut unknown, mut fits) = (Vec::new(), true);
        match reach {
            Reach::Messages(ids) => {
                let mut got = 0;
                for &id in ids {
                    match self.pass_message(uid, &mut head, device, id)? {
                        Some(seq) => got = got.max(seq),
                        None => unknown.push(id),
                    }
                }
                self.advance(uid, &mut head, device, got)?;
            }
            Reach::UpTo { epoch, seq } if *epoch == head.epoch && *seq <= head.seq => {
                self.pass_up_to(uid, &mut head, device, *seq, true)?;
            }
            Reach::Silently { seq } => {
                let seq = (*seq).min(head.seq);
                self.pass_up_to(uid, &mut head, device, seq, false)?;
            }
            // A cursor from elsewhere says nothing of this log.
            Reach::UpTo { .. } => fits = false,
        }
        let moved = self.know(&mut head, device);
        let (low, above) = (moved.low, moved.above.clone());
        self.drop_passed(uid, &mut head)?;
        if head.dropped > before.dropped {
            self.ring_untold(uid, &head);
        }
        if head != before {
            self.save(uid, &mut head)?;
        }
        Ok(Acknowledged {
            unknown,
            fits,
            low,
            above,
        })
    }

    /// Its place; none if the inbox never held this message.
    fn pass_message(
        &mut self,
        uid: &str,
        head: &mut Head,
        device: &str,
        id: MessageId,
    ) -> Result<Option<u64>, Broken> {
        let Some(row) = self.rows.get(&rows::held(uid, id))? else {
            return match Mutant::AnyonesAck.is_on() {
                true => self.pass_for_others(device, id),
                false => Ok(None),
            };
        };
        let held: Held = decode("held message", &row)?;
        if held.seq == 0 {
            return Ok(None);
        }
        let known = self.know(head, device);
        known.has_got(held.seq);
        if !known.has_passed(held.seq) {
            let at = known.above.partition_point(|&seq| seq < held.seq);
            known.above.insert(at, held.seq);
        }
        let seq = held.seq;
        self.notify(uid, head, id, held)?;
        Ok(Some(seq))
    }

    /// The mutant's way: whoever holds the message has got it, whoever says so.
    fn pass_for_others(&mut self, device: &str, id: MessageId) -> Result<Option<u64>, Broken> {
        for uid in self.users("", usize::MAX)? {
            if self.rows.get(&rows::held(&uid, id))?.is_some() {
                self.acknowledge(&uid, device, &Reach::Messages(vec![id]))?;
                return Ok(Some(0));
            }
        }
        Ok(None)
    }

    /// Passes everything up to `seq`.
    pub(super) fn pass_up_to(
        &mut self,
        uid: &str,
        head: &mut Head,
        device: &str,
        seq: u64,
        begets: bool,
    ) -> Result<(), Broken> {
        let known = self.know(head, device);
        known.has_got(seq);
        let low = known.low;
        if seq <= low {
            return Ok(());
        }
        if begets {
            for (_, entry, _) in self.entries(uid, low.max(head.dropped), seq, usize::MAX)? {
                self.notify_of(uid, head, &entry)?;
            }
        }
        let known = self.know(head, device);
        known.low = seq;
        known.above.retain(|&above| above > seq);
        self.advance(uid, head, device, seq)
    }

    /// Moves the mark of a device over everything that it has passed, and where nothing is kept,
    /// nothing holds it up. `got` is the last one that it has just named: notices before it are
    /// passed with it. What a device says to a group itself shows nothing of that kind.
    pub(super) fn advance(
        &mut self,
        uid: &str,
        head: &mut Head,
        device: &str,
        got: u64,
    ) -> Result<(), Broken> {
        let known = self.know(head, device);
        let Some(&last) = known.above.last() else {
            return Ok(());
        };
        let (low, mut above) = (known.low, known.above.clone());
        let gone = above.partition_point(|&seq| seq <= head.dropped);
        let mut to = above[..gone].last().map_or(low, |&gone| gone.max(low));
        let (mut is_whole, mut notices) = (true, Vec::new());
        self.visit(uid, low.max(head.dropped), last, &mut |seq, bytes| {
            let is_passed = above.binary_search(&seq).is_ok();
            let is_notice = !is_passed && seq < got && decode::<Entry>("entry", bytes)?.is_notice();
            if is_notice {
                notices.push(seq);
            }
            is_whole &= is_passed || is_notice;
            if is_whole {
                to = seq;
            }
            Ok(is_whole || seq < got)
        })?;
        above.append(&mut notices);
        above.sort_unstable();
        above.retain(|&seq| seq > to);
        let known = self.know(head, device);
        (known.low, known.above) = (to, above);
        Ok(())
    }

    fn notify_of(&mut self, uid: &str, head: &mut Head, entry: &Entry) -> Result<(), Broken> {
        if !matches!(entry.body, EntryBody::Chat { .. }) {
            return Ok(());
        }
        let Some(row) = self.rows.get(&rows::held(uid, entry.id))? else {
            return Ok(());
        };
        self.notify(uid, head, entry.id, decode("held message", &row)?)
    }

    /// Tells the sender of a single chat, once, that `uid`, whose inbox `head` is, has got it.
    fn notify(
        &mut self,
        uid: &str,
        head: &mut Head,
        id: MessageId,
        mut held: Held,
    ) -> Result<(), Broken> {
        if !held.owes_notice {
            return Ok(());
        }
        held.owes_notice = Mutant::NoticeEachTime.is_on();
        self.rows.put(&rows::held(uid, id), &encode(&held))?;
        let notice = Entry {
            id: id.of_notice(),
            at_ms: self.now_ms,
            from: "system".to_owned(),
            request_id: None,
            is_http: false,
            body: EntryBody::Delivered {
                msgid: held.msgid,
                message: id,
                to: uid.to_owned(),
            },
        };
        if held.sender == uid {
            // Who writes to himself has one inbox, and it is open.
            return self.append_notice(uid, head, &notice);
        }
        let mut senders = self.open(&held.sender)?;
        self.append_notice(&held.sender, &mut senders, &notice)?;
        self.save(&held.sender, &mut senders)
    }

    fn append_notice(&mut self, uid: &str, head: &mut Head, notice: &Entry) -> Result<(), Broken> {
        let seq = self.append(uid, head, notice, &encode(notice))?;
        let held = Held {
            seq,
            sender: notice.from.clone(),
            msgid: None,
            owes_notice: false,
        };
        self.rows.put(&rows::held(uid, notice.id), &encode(&held))?;
        if head.notices > self.rules.notices_max {
            self.lose_oldest_notice(uid, head)?;
        }
        self.trim_seen(uid, head.dropped)
    }

    /// Drops notices that alone hold up messages which all devices have passed: a device that
    /// only speaks to groups never names what would show that the notices came. Whoever had not
    /// passed them is told. False: it is not enough for `has_room`, and nothing has changed.
    pub(super) fn lose_notices_in_the_way(
        &mut self,
        uid: &str,
        head: &mut Head,
        has_room: impl Fn(&Head) -> bool,
    ) -> Result<bool, Broken> {
        let (mut passed, mut until) = (Vec::new(), head.dropped);
        self.visit(uid, head.dropped, head.seq, &mut |seq, bytes| {
            let entry: Entry = decode("entry", bytes)?;
            let is_passed = head.devices.iter().all(|device| device.has_passed(seq));
            let goes_on = entry.is_notice() || (is_passed && !head.devices.is_empty());
            if goes_on {
                if !entry.is_notice() {
                    until = seq;
                }
                passed.push((seq, entry, bytes.len()));
            }
            Ok(goes_on)
        })?;
        passed.retain(|(seq, ..)| *seq <= until);
        let mut without = head.clone();
        for (_, entry, bytes) in &passed {
            without.discount(entry, *bytes);
        }
        if !has_room(&without) {
            return Ok(false);
        }
        for (seq, entry, bytes) in &passed {
            self.lose_entry(uid, head, *seq, entry, *bytes)?;
        }
        head.dropped = until;
        Ok(true)
    }

    fn lose_oldest_notice(&mut self, uid: &str, head: &mut Head) -> Result<(), Broken> {
        let mut oldest = None;
        self.visit(uid, head.dropped, head.seq, &mut |seq, bytes| {
            let entry: Entry = decode("entry", bytes)?;
            if entry.is_notice() {
                oldest = Some((seq, entry, bytes.len()));
            }
            Ok(oldest.is_none())
        })?;
        match oldest {
            Some((seq, entry, bytes)) => self.lose_entry(uid, head, seq, &entry, bytes),
            None => Ok(()),
        }
    }
}

/// A ring that only says that there is something to read.
impl Ring {
    pub fn uid(&self) -> &str {
        match self {
            Ring::Entry { uid, .. } | Ring::Lost { uid } => uid,
        }
    }

    /// It says that a message was delivered.
    pub fn is_notice(&self) -> bool {
        matches!(self, Ring::Entry { entry, .. } if entry.is_notice())
    }
}
