//! The chats of one worker's clients: who says what when, what came of it, and how long it took.
//!
//! They chat in pairs or, where the plan has groups, each with its group.
//! Owns: the talkers, in the order of the seats, and one worker's part of the tally. What
//! happens is told to the history before it is sent, and after it is received.
//! Neighbours: a client hands over what it reads; the worker asks whose turn it is.

mod tally;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use throng_history::{Class, Entry, Link, Place, Sent, What};

use crate::chats::Chats;
use crate::client::Desk;
use crate::inbox::{self, Heard};
use crate::message::{self, ChatMark};
use crate::plan::Plan;
use crate::presence::Presence;
use crate::pulse::Latency;
use crate::schedule::Schedule;
use crate::talker::{Arrival, DEVICE, Talker};

pub use tally::ChatTally;

/// The commands that chat messages are.
const TO_USER: u8 = 1;
const TO_GROUP: u8 = 9;
/// Between two looks at all talkers.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whose turn it is, by their places.
#[derive(Debug, Default)]
pub struct Turn {
    /// They have something to say, if they are connected.
    pub speakers: Vec<usize>,
    /// They have waited for an answer long enough.
    pub unanswered: Vec<usize>,
}

pub struct Chat {
    plan: Arc<Plan>,
    shared: Arc<Chats>,
    presence: Arc<Presence>,
    /// Index of the first talker.
    first: u32,
    /// All clients, also those that only listen.
    talkers: Vec<Talker>,
    schedule: Option<Schedule>,
    /// Messages that had come to their end before the schedule began.
    settled_before: u64,
    /// The places of those who speak, and whose turn is next, connected or not.
    speakers: Vec<usize>,
    speaker: usize,
    looked_at: Instant,
    /// Connections so far, of all talkers of this worker.
    connections: u32,
    pub tally: ChatTally,
}

impl Chat {
    pub fn new(
        plan: Arc<Plan>,
        shared: Arc<Chats>,
        presence: Arc<Presence>,
        share: Range<u32>,
    ) -> Chat {
        Chat {
            plan,
            presence,
            first: share.start,
            talkers: Vec::with_capacity(share.len()),
            schedule: None,
            settled_before: 0,
            speakers: Vec::new(),
            speaker: 0,
            looked_at: shared.began,
            connections: 0,
            tally: ChatTally::default(),
            shared,
        }
    }

    /// Has them talk by this schedule from now on.
    pub fn begin(&mut self, schedule: Schedule) {
        self.settled_before = self.tally.noticed + self.tally.given_up;
        self.schedule = Some(schedule);
    }

    /// The next client has a seat.
    pub fn join(&mut self, index: u32) {
        if self.plan.pairs().talks(index) {
            self.speakers.push(self.talkers.len());
        }
        self.talkers.push(Talker::new());
    }

    fn talker(&mut self, index: u32) -> &mut Talker {
        &mut self.talkers[(index - self.first) as usize]
    }

    /// The name of the user, or of the group, that a message is for.
    fn receiver(&self, mark: ChatMark) -> String {
        match &self.plan.groups {
            Some(groups) => groups.id(mark.receiver),
            None => self.plan.uid(mark.receiver),
        }
    }

    fn class(&self) -> Class {
        match self.plan.groups {
            Some(_) => Class::Group,
            None => Class::Single,
        }
    }

    fn sent(&self, index: u32, mark: ChatMark) -> Sent {
        Sent {
            class: self.class(),
            sender: self.plan.uid(index),
            msgid: mark.text(),
            to: self.receiver(mark),
        }
    }

    fn link(&self, index: u32) -> Link {
        let place = (index - self.first) as usize;
        Link {
            user: self.plan.uid(index),
            device: DEVICE.to_owned(),
            connection: self.talkers[place].connection,
        }
    }

    /// Has those speak whose messages are due, and says who has something to do.
    pub fn take_turn(&mut self, now: Instant, desk: &mut Desk) -> Turn {
        let mut turn = Turn::default();
        let settled = self.tally.noticed + self.tally.given_up - self.settled_before;
        while let Some((due_at, count)) = self.schedule.as_mut().and_then(|s| s.next(now, settled))
        {
            if count > 0 {
                let late = now.saturating_duration_since(due_at);
                desk.vitals.took(Latency::Lag, late.as_nanos() as u64);
            }
            for _ in 0..count {
                let Some(&place) = self.speakers.get(self.speaker) else {
                    break;
                };
                self.speaker = (self.speaker + 1) % self.speakers.len();
                let index = self.first + place as u32;
                let receiver = match &self.plan.groups {
                    Some(groups) => groups.of(index),
                    None => self.plan.partner(index),
                };
                self.talkers[place].say(ChatMark {
                    run: self.shared.run,
                    number: self.shared.issue(),
                    due_nanos: self.shared.nanos(due_at),
                    receiver,
                });
                turn.speakers.push(place);
            }
        }
        let is_over = self.schedule.take_if(|schedule| schedule.is_over(now));
        if is_over.is_some() {
            self.shared.falls_silent();
        }
        if now < self.looked_at + LOOK_EVERY {
            return turn;
        }
        self.looked_at = now;
        for (place, talker) in self.talkers.iter().enumerate() {
            if talker.is_unanswered(now) {
                turn.unanswered.push(place);
            } else if talker.has_due(now) {
                turn.speakers.push(place);
            }
        }
        turn
    }

    /// Sends what this talker has to say, as far as it may.
    pub fn speak(&mut self, place: usize, now: Instant, desk: &mut Desk) {
        let index = self.first + place as u32;
        while let Some(mark) = self.talkers[place].next(now) {
            self.tally.attempts += 1;
            let connection = Some(self.talkers[place].connection);
            let sent = self.sent(index, mark);
            desk.text.clear();
            let kind = match self.plan.groups {
                Some(_) => TO_GROUP,
                None => TO_USER,
            };
            message::write_chat(&mut desk.text, kind, &sent.to, mark);
            self.shared.tell(|| What::Send { sent, connection });
            desk.send_text();
        }
    }

    /// Another connection begins: what its request is to say of the inbox. A cursor
    /// acknowledges, so it is told before it is sent.
    pub fn dialed(&mut self, index: u32) -> String {
        self.connections += 1;
        let connection = u64::from(self.first) << 32 | u64::from(self.connections);
        let is_back = self.talker(index).connection != 0;
        self.tally.comebacks += u64::from(is_back);
        let talker = self.talker(index);
        talker.connection = connection;
        let mut query = format!("&device={DEVICE}&ack=1");
        if let Some(place) = talker.cursor().cloned() {
            query += &format!("&cursor={}:{}", place.epoch, place.seq);
            self.shared.tell(|| What::Pass {
                user: self.plan.uid(index),
                device: DEVICE.to_owned(),
                place,
            });
        }
        query
    }

    /// The connected notice has come.
    pub fn opened(&mut self, index: u32) {
        self.talker(index).is_open = true;
        let cursor = self.talker(index).cursor().cloned();
        self.shared.tell(|| What::Open {
            on: self.link(index),
            cursor,
        });
    }

    /// The connection is over, if there was one.
    pub fn ended(&mut self, index: u32) {
        for mark in self.talker(index).give_up_answers() {
            self.tally.unknown += 1;
            let sent = self.sent(index, mark);
            self.shared.tell(|| What::Unknown { sent });
        }
        let talker = self.talker(index);
        if std::mem::take(&mut talker.is_open) {
            let on = self.link(index);
            self.shared.tell(|| What::Close { on });
        }
    }

    /// One text that a client has read. What it says to that stands in `desk.out`.
    pub fn hear(&mut self, text: &[u8], index: u32, desk: &mut Desk) {
        let now = Instant::now();
        match inbox::read(text) {
            Heard::Stored {
                msgid,
                message_id,
                dup,
            } => self.stored(&msgid, message_id, dup, index, now, desk),
            Heard::Refused { msgid, code } => self.refused(&msgid, code, index, now, desk),
            Heard::Message { entry, from, text } => {
                self.message(entry, from, &text, index, now, desk);
            }
            Heard::Delivered { entry, msgid, by } => {
                self.notice(entry, &msgid, by, index, now, desk)
            }
            Heard::Entry { entry } => {
                self.tally.foreign += 1;
                self.receive(index, &entry, true);
            }
            Heard::Answered { message_id, status } => {
                self.tally.answers += 1;
                let on = self.link(index);
                self.shared.tell(|| What::Answered {
                    on,
                    message_id,
                    status,
                });
            }
            Heard::Gap {
                epoch,
                head_seq,
                from,
            } => self.gap(epoch, head_seq, from, index),
            Heard::Other => desk.counts.other += 1,
        }
    }

    fn own(&self, msgid: &str) -> Option<ChatMark> {
        ChatMark::read(msgid).filter(|mark| mark.run == self.shared.run)
    }

    fn took(&self, mark: ChatMark, now: Instant) -> u64 {
        self.shared.nanos(now).saturating_sub(mark.due_nanos)
    }

    /// True if neither end of a pair's connections was interrupted since some time before the
    /// message was due.
    fn is_steady(&self, mark: ChatMark) -> bool {
        let due = self.shared.began + Duration::from_nanos(mark.due_nanos);
        let is_steady = |index| self.presence.is_steady(index, due);
        let is_pair = self.plan.groups.is_none();
        is_pair && is_steady(self.plan.partner(mark.receiver)) && is_steady(mark.receiver)
    }

    fn stored(
        &mut self,
        msgid: &str,
        message_id: String,
        dup: bool,
        index: u32,
        now: Instant,
        desk: &mut Desk,
    ) {
        let Some(mark) = self.own(msgid) else { return };
        let sent = self.sent(index, mark);
        self.shared.tell(|| What::Confirmed {
            sent,
            message_id,
            dup,
        });
        if self.talker(index).settle(mark) {
            self.tally.confirmed += 1;
            self.tally.dups += u64::from(dup);
            let took = self.took(mark, now);
            self.tally.to_stored.saturating_record(took);
            desk.vitals.took(Latency::Stored, took);
            if self.is_steady(mark) {
                self.tally.steady_stored.saturating_record(took);
            }
            self.shared.confirmed.fetch_add(1, Relaxed);
        }
        // Others may have waited for this answer.
        self.speak((index - self.first) as usize, now, desk);
    }

    fn refused(&mut self, msgid: &str, code: u16, index: u32, now: Instant, desk: &mut Desk) {
        let Some(mark) = self.own(msgid) else {
            desk.counts.refusals += 1;
            return;
        };
        *self.tally.refused.entry(code).or_default() += 1;
        let sent = self.sent(index, mark);
        self.shared.tell(|| What::Failed {
            sent,
            definite: true,
            code,
        });
        let may_pass = matches!(code, 429 | 503);
        let talker = self.talker(index);
        if may_pass {
            talker.put_off(mark, now, &mut desk.keys);
        } else if talker.settle(mark) {
            self.tally.given_up += 1;
            self.shared.given_up.fetch_add(1, Relaxed);
        }
    }

    /// An entry came over the wire, and is processed with that. `is_new`: the application had not
    /// seen it. On one connection entries come in their order, and once.
    fn receive(&mut self, index: u32, entry: &Entry, is_new: bool) {
        let on = self.link(index);
        self.pass(index, &entry.place, is_new);
        self.shared.tell(|| What::Receive {
            on,
            entry: entry.clone(),
        });
    }

    fn pass(&mut self, index: u32, place: &Place, is_new: bool) {
        match (self.talker(index).receive(place), is_new) {
            (Arrival::InOrder, _) => {}
            (Arrival::Behind, true) => self.tally.out_of_order += 1,
            (Arrival::Behind, false) => self.tally.doubled += 1,
        }
    }

    fn message(
        &mut self,
        entry: Entry,
        from: String,
        text: &str,
        index: u32,
        now: Instant,
        desk: &mut Desk,
    ) {
        let is_new = self.talker(index).is_new(&entry.message_id, false);
        self.receive(index, &entry, is_new);
        self.tally.repeated += u64::from(!is_new);
        let on = self.link(index);
        match self.own(text) {
            Some(mark) if is_new => {
                match self.is_for(index, &from, mark) {
                    true => self.delivered(mark, now, desk),
                    false => self.tally.misrouted += 1,
                }
                self.shared.tell(|| What::Deliver {
                    on: on.clone(),
                    entry: entry.clone(),
                    sent: Sent {
                        class: self.class(),
                        sender: from,
                        msgid: mark.text(),
                        to: self.receiver(mark),
                    },
                });
            }
            Some(_) => {}
            None => self.tally.foreign += 1,
        }
        self.tally.acks += 1;
        desk.text.clear();
        message::write_ack(&mut desk.text, &entry.message_id);
        self.shared.tell(|| What::Ack {
            on,
            message_id: entry.message_id,
        });
        desk.send_text();
    }

    fn delivered(&mut self, mark: ChatMark, now: Instant, desk: &mut Desk) {
        self.tally.delivered += 1;
        let took = self.took(mark, now);
        self.tally.to_delivered.saturating_record(took);
        desk.vitals.took(Latency::Received, took);
        if self.is_steady(mark) {
            self.tally.steady_delivered.saturating_record(took);
        }
        self.shared.delivered.fetch_add(1, Relaxed);
    }

    /// True if this client is to hear the message. Who sent it to a group does not.
    fn is_for(&self, index: u32, from: &str, mark: ChatMark) -> bool {
        match &self.plan.groups {
            Some(groups) => groups.of(index) == mark.receiver && from != self.plan.uid(index),
            None => index == mark.receiver,
        }
    }

    fn notice(
        &mut self,
        entry: Entry,
        msgid: &str,
        by: String,
        index: u32,
        now: Instant,
        desk: &mut Desk,
    ) {
        let Some(mark) = self.own(msgid) else {
            self.tally.foreign += 1;
            return self.receive(index, &entry, true);
        };
        let is_new = self.talker(index).is_new(&entry.message_id, true);
        if is_new {
            self.tally.noticed += 1;
            let took = self.took(mark, now);
            self.tally.to_noticed.saturating_record(took);
            desk.vitals.took(Latency::Told, took);
            self.shared.noticed.fetch_add(1, Relaxed);
        }
        let on = self.link(index);
        self.pass(index, &entry.place, is_new);
        self.shared.tell(|| What::Notify { on, entry, by });
    }

    /// What lies before it cannot come any more, so it is passed.
    fn gap(&mut self, epoch: String, head_seq: u64, from: u64, index: u32) {
        self.tally.gaps += 1;
        self.talker(index).pass(Place {
            epoch: epoch.clone(),
            seq: from.saturating_sub(1),
        });
        let on = self.link(index);
        self.shared.tell(|| What::Gap {
            on,
            epoch,
            head_seq,
            from,
        });
    }
}
