//! The chats of one worker's clients: who says what when, what came of it, and how long it took.
//!
//! Owns: the talkers, in the order of the seats, and one worker's part of the tally. What
//! happens is told to the history before it is sent, and after it is received.
//! Neighbours: a client hands over what it reads; the worker asks whose turn it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use throng_history::{Class, Entry, Place, Sent, What};

use crate::chats::Chats;
use crate::client::Desk;
use crate::inbox::{self, Heard};
use crate::message::{self, ChatMark};
use crate::plan::Plan;
use crate::presence::Presence;
use crate::pulse::Latency;
use crate::talker::{DEVICE, Talker};
use crate::tally;

/// Messages are due at the beginning of such a slice of time.
pub const SLICE: Duration = Duration::from_millis(1);
/// Between two looks at all talkers.
pub const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How much is said.
#[derive(Clone, Copy, Debug)]
pub enum Flow {
    /// So many a second, whatever becomes of those before.
    PerSec(f64),
    /// Another one when the sender has been told that one has arrived: so many are on their way.
    InFlight(u32),
}

impl Flow {
    /// The part of one worker, which has so many of all who talk.
    pub fn part(self, talkers: u32, of: u32) -> Flow {
        let share = f64::from(talkers) / f64::from(of.max(1));
        match self {
            Flow::PerSec(rate) => Flow::PerSec(rate * share),
            Flow::InFlight(count) => Flow::InFlight((f64::from(count) * share).ceil() as u32),
        }
    }
}

/// What is said from when to when; for one worker, its part of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub from: Instant,
    pub slices: u64,
    pub flow: Flow,
    slice: u64,
    said: u64,
}

impl Schedule {
    pub fn new(from: Instant, lasts: Duration, flow: Flow) -> Schedule {
        Schedule {
            from,
            slices: (lasts.as_nanos() / SLICE.as_nanos()) as u64,
            flow,
            slice: 0,
            said: 0,
        }
    }

    /// How many messages are due, and since when. `settled`: so many of those said so far have
    /// come to their end.
    fn next(&mut self, now: Instant, settled: u64) -> Option<(Instant, u64)> {
        match self.flow {
            Flow::PerSec(rate) => self.next_slice(now, rate),
            Flow::InFlight(max) => {
                let due = (settled + u64::from(max)).saturating_sub(self.said);
                let is_over = now >= self.from + SLICE.mul_f64(self.slices as f64);
                self.said += due;
                (due > 0 && !is_over).then_some((now, due))
            }
        }
    }

    /// The next slice that has begun: its time, and what is due in it. A slice that is late keeps
    /// its time.
    fn next_slice(&mut self, now: Instant, per_sec: f64) -> Option<(Instant, u64)> {
        let begins = self.from + SLICE.mul_f64(self.slice as f64);
        if self.slice >= self.slices || begins > now {
            return None;
        }
        self.slice += 1;
        let whole = self.slice as f64 * SLICE.as_secs_f64() * per_sec;
        let due = (whole as u64).saturating_sub(self.said);
        self.said += due;
        Some((begins, due))
    }
}

/// What came of the chats. Times are nanoseconds since a message was due.
#[derive(Clone, Debug)]
pub struct ChatTally {
    pub attempts: u64,
    pub confirmed: u64,
    /// Of those confirmed: the server had it already.
    pub dups: u64,
    pub refused: BTreeMap<u16, u64>,
    pub given_up: u64,
    pub unknown: u64,
    pub delivered: u64,
    /// Entries that the application had already, and those of other runs.
    pub repeated: u64,
    pub foreign: u64,
    pub acks: u64,
    pub answers: u64,
    pub noticed: u64,
    pub gaps: u64,
    pub comebacks: u64,
    pub to_stored: Histogram<u64>,
    pub to_delivered: Histogram<u64>,
    pub to_noticed: Histogram<u64>,
    /// Between clients neither of whom had lost its connection lately.
    pub steady_stored: Histogram<u64>,
    pub steady_delivered: Histogram<u64>,
}

impl Default for ChatTally {
    fn default() -> ChatTally {
        ChatTally {
            attempts: 0,
            confirmed: 0,
            dups: 0,
            refused: BTreeMap::new(),
            given_up: 0,
            unknown: 0,
            delivered: 0,
            repeated: 0,
            foreign: 0,
            acks: 0,
            answers: 0,
            noticed: 0,
            gaps: 0,
            comebacks: 0,
            to_stored: tally::latencies(),
            to_delivered: tally::latencies(),
            to_noticed: tally::latencies(),
            steady_stored: tally::latencies(),
            steady_delivered: tally::latencies(),
        }
    }
}

impl ChatTally {
    pub fn add(&mut self, other: &ChatTally) -> Result<(), hdrhistogram::AdditionError> {
        self.attempts += other.attempts;
        self.confirmed += other.confirmed;
        self.dups += other.dups;
        for (code, count) in &other.refused {
            *self.refused.entry(*code).or_default() += count;
        }
        self.given_up += other.given_up;
        self.unknown += other.unknown;
        self.delivered += other.delivered;
        self.repeated += other.repeated;
        self.foreign += other.foreign;
        self.acks += other.acks;
        self.answers += other.answers;
        self.noticed += other.noticed;
        self.gaps += other.gaps;
        self.comebacks += other.comebacks;
        self.to_stored.add(&other.to_stored)?;
        self.to_delivered.add(&other.to_delivered)?;
        self.to_noticed.add(&other.to_noticed)?;
        self.steady_stored.add(&other.steady_stored)?;
        self.steady_delivered.add(&other.steady_delivered)
    }
}

/// Whose turn it is, by their places.
#[derive(Debug, Default)]
pub struct Turn {
    /// They have something to say, if they are connected.
    pub speakers: Vec<usize>,
    /// They have waited for an answer long enough.
    pub unanswered: Vec<usize>,
}

pub struct Chat {
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
    pub fn new(shared: Arc<Chats>, presence: Arc<Presence>, first: u32) -> Chat {
        Chat {
            presence,
            first,
            talkers: Vec::new(),
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
    pub fn join(&mut self, index: u32, plan: &Plan) {
        if plan.pairs().talks(index) {
            self.speakers.push(self.talkers.len());
        }
        self.talkers.push(Talker::new(plan.uid(index)));
    }

    fn talker(&mut self, index: u32) -> &mut Talker {
        &mut self.talkers[(index - self.first) as usize]
    }

    fn sent(&self, index: u32, mark: ChatMark, to: &str) -> Sent {
        Sent {
            class: Class::Single,
            sender: self.talkers[(index - self.first) as usize].uid.clone(),
            msgid: mark.text(),
            to: to.to_owned(),
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
                self.talkers[place].say(ChatMark {
                    run: self.shared.run,
                    number: self.shared.issue(),
                    due_nanos: self.shared.nanos(due_at),
                    receiver: desk.plan.partner(self.first + place as u32),
                });
                turn.speakers.push(place);
            }
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
            let to = desk.plan.uid(mark.receiver);
            let connection = Some(self.talkers[place].connection);
            let sent = self.sent(index, mark, &to);
            self.shared.tell(|| What::Send { sent, connection });
            desk.text.clear();
            message::write_chat(&mut desk.text, &to, mark);
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
        let shared = self.shared.clone();
        let talker = self.talker(index);
        talker.connection = connection;
        let mut query = format!("&device={DEVICE}&ack=1");
        if let Some(place) = talker.cursor.clone() {
            query += &format!("&cursor={}:{}", place.epoch, place.seq);
            shared.tell(|| What::Pass {
                user: talker.uid.clone(),
                device: DEVICE.to_owned(),
                place,
            });
        }
        query
    }

    /// The connected notice has come.
    pub fn opened(&mut self, index: u32) {
        let shared = self.shared.clone();
        let talker = self.talker(index);
        talker.is_open = true;
        let (on, cursor) = (talker.link(), talker.cursor.clone());
        shared.tell(|| What::Open { on, cursor });
    }

    /// The connection is over, if there was one.
    pub fn ended(&mut self, index: u32, desk: &mut Desk) {
        let shared = self.shared.clone();
        for mark in self.talker(index).give_up_answers() {
            self.tally.unknown += 1;
            let sent = self.sent(index, mark, &desk.plan.uid(mark.receiver));
            shared.tell(|| What::Unknown { sent });
        }
        let talker = self.talker(index);
        if talker.is_open {
            talker.is_open = false;
            let on = talker.link();
            shared.tell(|| What::Close { on });
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
                self.receive(index, &entry);
            }
            Heard::Answered { message_id, status } => {
                self.tally.answers += 1;
                let on = self.talker(index).link();
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

    /// True if neither end's connection was interrupted since some time before it was due.
    fn is_steady(&self, mark: ChatMark, plan: &Plan) -> bool {
        let due = self.shared.began + Duration::from_nanos(mark.due_nanos);
        let sender = plan.partner(mark.receiver);
        let is_steady = |index| self.presence.is_steady(index, due);
        is_steady(sender) && is_steady(mark.receiver)
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
        let sent = self.sent(index, mark, &desk.plan.uid(mark.receiver));
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
            if self.is_steady(mark, &desk.plan) {
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
        let sent = self.sent(index, mark, &desk.plan.uid(mark.receiver));
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

    /// An entry came over the wire, and is processed with that.
    fn receive(&mut self, index: u32, entry: &Entry) {
        let shared = self.shared.clone();
        let talker = self.talker(index);
        talker.cursor = Some(entry.place.clone());
        shared.tell(|| What::Receive {
            on: talker.link(),
            entry: entry.clone(),
        });
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
        self.receive(index, &entry);
        let is_new = self.talker(index).is_new(&entry.message_id, false);
        self.tally.repeated += u64::from(!is_new);
        let on = self.talker(index).link();
        match self.own(text) {
            Some(mark) if is_new => {
                self.tally.delivered += 1;
                let took = self.took(mark, now);
                self.tally.to_delivered.saturating_record(took);
                desk.vitals.took(Latency::Received, took);
                if self.is_steady(mark, &desk.plan) {
                    self.tally.steady_delivered.saturating_record(took);
                }
                self.shared.delivered.fetch_add(1, Relaxed);
                desk.counts.misrouted += u64::from(mark.receiver != index);
                self.shared.tell(|| What::Deliver {
                    on: on.clone(),
                    entry: entry.clone(),
                    sent: Sent {
                        class: Class::Single,
                        sender: from,
                        msgid: mark.text(),
                        to: desk.plan.uid(mark.receiver),
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
            return self.receive(index, &entry);
        };
        if self.talker(index).is_new(&entry.message_id, true) {
            self.tally.noticed += 1;
            let took = self.took(mark, now);
            self.tally.to_noticed.saturating_record(took);
            desk.vitals.took(Latency::Told, took);
            self.shared.noticed.fetch_add(1, Relaxed);
        }
        let shared = self.shared.clone();
        let talker = self.talker(index);
        talker.cursor = Some(entry.place.clone());
        let on = talker.link();
        shared.tell(|| What::Notify { on, entry, by });
    }

    /// What lies before it cannot come any more, so it is passed.
    fn gap(&mut self, epoch: String, head_seq: u64, from: u64, index: u32) {
        self.tally.gaps += 1;
        let shared = self.shared.clone();
        let talker = self.talker(index);
        talker.cursor = Some(Place {
            epoch: epoch.clone(),
            seq: from.saturating_sub(1),
        });
        let on = talker.link();
        shared.tell(|| What::Gap {
            on,
            epoch,
            head_seq,
            from,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_keeps_its_rate_and_its_times_however_late_it_is_asked() {
        let from = Instant::now();
        let mut schedule = Schedule::new(from, Duration::from_secs(2), Flow::PerSec(1500.0));
        assert_eq!(schedule.next(from, 0), Some((from, 1)));
        assert_eq!(schedule.next(from, 0), None);
        let late = from + Duration::from_secs(10);
        let slices: Vec<_> = std::iter::from_fn(|| schedule.next(late, 0)).collect();
        assert_eq!(slices[0], (from + SLICE, 2));
        assert_eq!(slices.iter().map(|(_, due)| due).sum::<u64>() + 1, 3000);
        assert_eq!(slices.len(), 1999);
        let last = slices[1998].0;
        assert!(last > from + SLICE * 1998 && last < from + SLICE * 2000);
    }

    #[test]
    fn where_so_many_are_in_flight_another_one_leaves_when_one_has_arrived() {
        let from = Instant::now();
        let lasts = Duration::from_secs(2);
        let mut schedule = Schedule::new(from, lasts, Flow::InFlight(10).part(1, 2));
        assert_eq!(schedule.next(from, 0), Some((from, 5)));
        assert_eq!(schedule.next(from, 0), None);
        let later = from + lasts / 2;
        assert_eq!(schedule.next(later, 3), Some((later, 3)));
        assert_eq!(schedule.next(later, 3), None);
        assert_eq!(schedule.next(from + lasts, 8), None);
    }
}
