//! The judge: reads a history once, line by line, and says which promises were broken.
//!
//! Owns: the books of messages (`ledger`), people (`people`) and faults. They grow with messages,
//! users and connections that are open, not with events.
//! Invariants: whatever a correct gateway and honest clients may do is accepted; where the
//! history leaves it open whether something was wrong (an attempt whose outcome nobody knows, a
//! member who joins while a message is on its way), it was not.

mod faults;
mod ledger;
mod names;
mod orders;
mod people;
mod wire;

use crate::event::{Class, Entry, Event, Link, Place, Sent, What};
use crate::report::{Kind, Report, Totals};
use faults::Faults;
use ledger::{Ledger, Message};
use names::Bits;
use people::{Connection, People};

/// So long after nothing stood in its way any more, everything must have come.
pub const PATIENCE_MS: u64 = 90_000;

#[derive(Default)]
pub struct Judge {
    people: People,
    ledger: Ledger,
    faults: Faults,
    report: Report,
    is_drained: bool,
    /// Where the store lost something last.
    store_lost_line: u64,
}

impl Judge {
    pub fn new() -> Judge {
        Judge::default()
    }

    /// The next event, and the line on which it stands; lines go up.
    pub fn see(&mut self, line: u64, event: &Event) {
        let at = event.at;
        self.totals().events += 1;
        match &event.what {
            What::Group { group, members } => self.change_group(group, members),
            What::Send { sent, connection } => self.send(line, sent, *connection),
            What::Confirmed {
                sent,
                message_id,
                dup,
            } => self.confirm(line, at, sent, message_id, *dup),
            What::Failed { sent, definite, .. } => self.fail(line, sent, *definite),
            What::Unknown { sent } => self.fail(line, sent, false),
            What::Receive { on, entry } => self.receive(line, on, entry),
            What::Deliver { on, entry, sent } => self.deliver(line, at, on, entry, sent),
            What::Ack { on, message_id } => self.ack(line, on, message_id),
            What::Pass { user, place, .. } => {
                let user = self.people.user(user);
                self.people.pass(user, place.seq);
            }
            What::Answered {
                on,
                message_id,
                status,
            } => self.answer(line, at, on, message_id, *status),
            What::Notify { on, entry, by } => self.notice(line, at, on, entry, by),
            What::Gap {
                on,
                epoch,
                head_seq,
                ..
            } => {
                let head = self.people.epochs.number(epoch);
                self.gap(line, on, (head, *head_seq));
            }
            What::Open { on, cursor } => self.open(line, at, on, cursor.as_ref()),
            What::Close { on } => self.close(line, on),
            What::StoreLost {} => self.store_lost_line = line,
            What::FaultStart { fault } => {
                self.totals().faults += 1;
                self.faults.start(fault, at);
            }
            What::FaultStop { fault } => {
                if !self.faults.stop(fault, at) {
                    self.incoherent(line, || format!("{fault} has not begun"));
                }
            }
            What::Heal {} => self.faults.heal(at),
            What::Drained {} => self.drained(),
        }
    }

    /// Everything that the whole history shows.
    pub fn finish(mut self) -> Report {
        let mut left: Vec<u64> = self.people.connections.keys().copied().collect();
        left.sort_unstable();
        for connection in left {
            self.settle_holes(connection);
        }
        if !self.is_drained {
            let text = "nobody says that it was drained, or a fault went on".to_owned();
            self.report.add(Kind::NotDrained, 0, || text);
        }
        for number in 0..self.ledger.messages.len() as u32 {
            self.sum_up(number);
        }
        self.judge_orders();
        self.report
    }

    fn totals(&mut self) -> &mut Totals {
        &mut self.report.totals
    }

    fn incoherent(&mut self, line: u64, text: impl FnOnce() -> String) {
        self.report.add(Kind::Incoherent, line, text);
    }

    fn change_group(&mut self, group: &str, members: &[String]) {
        let group = self.people.group(group);
        let members = members.iter().map(|name| self.people.user(name)).collect();
        self.people.groups[group as usize].change(members);
    }

    fn find(&mut self, sent: &Sent) -> Option<u32> {
        let sender = self.people.user_names.find(&sent.sender)?;
        let to = match sent.class {
            Class::Group => self.people.group_names.find(&sent.to)?,
            Class::Single | Class::Push => self.people.user_names.find(&sent.to)?,
        };
        self.ledger.find(sent.class, sender, to, &sent.msgid)
    }

    fn send(&mut self, line: u64, sent: &Sent, connection: Option<u64>) {
        self.totals().attempts += 1;
        let number = match self.find(sent) {
            Some(number) => number,
            None => self.begin(line, sent, connection),
        };
        self.ledger.messages[number as usize].attempts += 1;
        if sent.class == Class::Group {
            self.people.note_own(connection);
        }
    }

    fn begin(&mut self, line: u64, sent: &Sent, connection: Option<u64>) -> u32 {
        self.totals().messages += 1;
        let sender = self.people.user(&sent.sender);
        let (to, version) = match sent.class {
            Class::Group => {
                let group = self.people.group(&sent.to);
                (group, self.people.groups[group as usize].version())
            }
            Class::Single | Class::Push => (self.people.user(&sent.to), 0),
        };
        let message = Message {
            class: sent.class,
            sender,
            to,
            connection,
            sent_line: line,
            version,
            version_confirmed: version,
            attempts: 0,
            failed: 0,
            unknown: 0,
            confirmed: 0,
            confirmed_line: 0,
            confirmed_ms: 0,
            id: None,
            has_two_ids: false,
            came_refused: false,
            place: None,
            notice: None,
            answered_ms: None,
            delivered: Bits::default(),
            acked: Bits::default(),
            noticed: Bits::default(),
        };
        self.ledger.begin(message, &sent.msgid)
    }

    fn confirm(&mut self, line: u64, at: u64, sent: &Sent, message_id: &str, dup: bool) {
        let Some(number) = self.find(sent) else {
            return self.incoherent(line, || format!("confirmed and never sent: {}", say(sent)));
        };
        self.name(line, number, message_id);
        let message = &mut self.ledger.messages[number as usize];
        if dup && !message.may_be_repeated() {
            let text = || format!("{} was accepted by nobody before", say(sent));
            self.report.add(Kind::FalseRepetition, line, text);
        }
        message.confirmed += 1;
        if message.confirmed == 1 {
            message.confirmed_line = line;
            message.confirmed_ms = at;
            if message.class == Class::Group {
                message.version_confirmed = self.people.groups[message.to as usize].version();
            }
        }
    }

    /// A messageId was seen with a message: each has the other, and no third.
    fn name(&mut self, line: u64, number: u32, message_id: &str) -> u32 {
        let id = self.ledger.id(message_id);
        let (of, has) = (
            self.ledger.ids[id as usize].message,
            self.ledger.messages[number as usize].id,
        );
        if of.is_some_and(|of| of != number) {
            let text = format!("{message_id} is {} too", self.describe(number));
            self.report.add(Kind::SharedId, line, || text);
            return id;
        }
        self.ledger.ids[id as usize].message = Some(number);
        match has {
            None => self.ledger.messages[number as usize].id = Some(id),
            // Told once for each further id.
            Some(first) if first != id && of.is_none() && !self.may_be_forgotten(number) => {
                self.ledger.messages[number as usize].has_two_ids = true;
                let text = format!(
                    "{} is {} and {message_id}",
                    self.describe(number),
                    self.ledger.id_text(has)
                );
                self.report.add(Kind::TwoIds, line, || text);
            }
            Some(_) => {}
        }
        id
    }

    /// The store may know nothing any more of the first attempts to send a message.
    fn may_be_forgotten(&self, number: u32) -> bool {
        self.ledger.messages[number as usize].sent_line < self.store_lost_line
    }

    fn fail(&mut self, line: u64, sent: &Sent, definite: bool) {
        let Some(number) = self.find(sent) else {
            return self.incoherent(line, || format!("failed and never sent: {}", say(sent)));
        };
        let message = &mut self.ledger.messages[number as usize];
        if definite {
            message.failed += 1;
        } else {
            message.unknown += 1;
        }
        if message.failed + message.unknown + message.confirmed > message.attempts {
            self.incoherent(line, || {
                format!("more outcomes than attempts: {}", say(sent))
            });
        }
    }

    /// The seat of a device in a message's audience; none if it is not for that user.
    fn seat(&mut self, number: u32, device: u32) -> Option<u32> {
        let message = &self.ledger.messages[number as usize];
        let found = self.people.devices.get(device as usize)?;
        match message.class {
            Class::Single | Class::Push => (found.user == message.to).then_some(found.seat),
            Class::Group => {
                let group = &mut self.people.groups[message.to as usize];
                group.seat_since(message.version, found.user, device)
            }
        }
    }

    fn deliver(&mut self, line: u64, at: u64, on: &Link, entry: &Entry, sent: &Sent) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.totals().delivered += 1;
        let text = || format!("{} to {}/{}", say(sent), on.user, on.device);
        let Some(number) = self.find(sent) else {
            return self.report.add(Kind::Phantom, line, text);
        };
        let Some(seat) = self.seat(number, device) else {
            return self.report.add(Kind::WrongReceiver, line, text);
        };
        let id = self.name(line, number, &entry.message_id);
        let place = self.people.place(&entry.place);
        self.stands(line, number, device, place);
        let may_be_forgotten = self.may_be_forgotten(number);
        let message = &mut self.ledger.messages[number as usize];
        let is_first = message.delivered.set(seat);
        let is_first_of_id = self.ledger.ids[id as usize].delivered.set(seat);
        if message.is_refused() {
            message.came_refused = true;
            self.report.add(Kind::FailedDelivered, line, text);
        }
        if !is_first_of_id {
            return self.report.add(Kind::DuplicateId, line, text);
        }
        if !is_first && !may_be_forgotten {
            return self.report.add(Kind::DuplicateMsgid, line, text);
        }
        let confirmed_ms = (message.confirmed > 0).then_some(message.confirmed_ms);
        self.be_in_time(line, at, on.connection, confirmed_ms, text);
        if self.is_in_order(line, device, place, text) {
            self.be_in_order_of_group(line, number, device, text);
        }
    }

    /// The application gets what is later in its inbox later. What is not is told.
    fn is_in_order(
        &mut self,
        line: u64,
        device: u32,
        (epoch, seq): (u32, u64),
        text: impl FnOnce() -> String,
    ) -> bool {
        let device = &mut self.people.devices[device as usize];
        match device.delivered {
            Some((of, last)) if of == epoch && seq <= last => {
                if device.out_of_order != Some((epoch, seq)) {
                    let text = || format!("{}, seq {seq} after {last}", text());
                    self.report.add(Kind::Reordered, line, text);
                }
                false
            }
            _ => {
                device.delivered = Some((epoch, seq));
                true
            }
        }
    }

    /// A group's messages come in the order of acceptance as well. They stand at other places in
    /// each inbox, so what has come tells it: whatever was answered before another began.
    fn be_in_order_of_group(
        &mut self,
        line: u64,
        number: u32,
        device: u32,
        text: impl FnOnce() -> String,
    ) {
        let message = &self.ledger.messages[number as usize];
        if message.class != Class::Group {
            return;
        }
        let group = &mut self.people.groups[message.to as usize];
        let latest = group.latest.entry(device).or_default();
        if message.confirmed > 0 && message.confirmed_line < *latest {
            let text = || format!("{}, behind what was accepted after it", text());
            self.report.add(Kind::Reordered, line, text);
        }
        *latest = message.sent_line.max(*latest);
    }

    /// Something was due since `since`, as soon as this connection was open and no fault active.
    fn be_in_time(
        &mut self,
        line: u64,
        at: u64,
        connection: u64,
        since: Option<u64>,
        text: impl FnOnce() -> String,
    ) {
        let opened = self.people.connections.get(&connection);
        let (Some(since), Some(opened)) = (since, opened.map(|c| c.opened_ms)) else {
            return;
        };
        let took = self.faults.longest_quiet(since.max(opened), at);
        if took > PATIENCE_MS {
            let text = || format!("{}, {} s after it was due", text(), took / 1000);
            self.report.add(Kind::Late, line, text);
        }
    }

    fn open(&mut self, line: u64, at: u64, on: &Link, cursor: Option<&Place>) {
        self.totals().connections += 1;
        let device = self.people.device(&on.user, &on.device, line);
        let last = cursor.map(|place| self.people.place(place));
        if let Some((_, seq)) = last {
            let user = self.people.devices[device as usize].user;
            self.people.pass(user, seq);
        }
        self.people.devices[device as usize].links += 1;
        let connection = Connection {
            device,
            opened_ms: at,
            last,
            is_told: false,
            told_head: None,
            holes: Vec::new(),
            acks: 0,
        };
        let before = self.people.connections.insert(on.connection, connection);
        if before.is_some() {
            self.incoherent(line, || format!("{} is open already", on.connection));
        }
    }

    fn close(&mut self, line: u64, on: &Link) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.settle_holes(on.connection);
        self.people.connections.remove(&on.connection);
        self.people.devices[device as usize].links -= 1;
    }

    fn drained(&mut self) {
        self.is_drained = !self.faults.are_active();
        for device in &mut self.people.devices {
            device.is_live = device.links > 0;
        }
    }

    fn linked(&mut self, line: u64, on: &Link) -> Option<u32> {
        let device = self.people.linked(on);
        if device.is_none() {
            self.incoherent(line, || {
                let Link {
                    user,
                    device,
                    connection,
                } = on;
                format!("{connection} is no open connection of {user}/{device}")
            });
        }
        device
    }

    /// A message for whoever reads the report.
    fn describe(&self, number: u32) -> String {
        let message = &self.ledger.messages[number as usize];
        let to = match message.class {
            Class::Group => self.people.group_names.name(message.to),
            Class::Single | Class::Push => self.people.user_names.name(message.to),
        };
        let sender = self.people.user_names.name(message.sender);
        format!("{} from {sender} to {to}", self.ledger.msgid(number))
    }

    /// What the end of the history shows of one message.
    fn sum_up(&mut self, number: u32) {
        let message = &self.ledger.messages[number as usize];
        if message.confirmed > 0 {
            self.report.totals.confirmed += 1;
            self.sum_up_deliveries(number);
            self.sum_up_notices(number);
        } else if message.is_refused() {
            self.report.totals.refused += 1;
            if !message.delivered.is_empty() && !message.came_refused {
                let text = self.describe(number);
                self.report.add(Kind::FailedDelivered, 0, || text);
            }
        } else {
            self.report.totals.unknown += 1;
        }
    }

    /// What was confirmed must have come to all devices that it is owed to.
    fn sum_up_deliveries(&mut self, number: u32) {
        let message = &self.ledger.messages[number as usize];
        let (mut owed, mut excused, mut missing) = (0, 0, Vec::new());
        for receiver in self.receivers(message) {
            for (device, found) in self.people.owed(receiver, message.sent_line) {
                let seat = match message.class {
                    Class::Single | Class::Push => Some(found.seat),
                    Class::Group => self.people.groups[message.to as usize].seat(device),
                };
                owed += 1;
                if seat.is_some_and(|seat| message.delivered.has(seat)) {
                    continue;
                }
                // Who first came after the store had lost it has nothing that it could compare.
                let was_lost = message.sent_line < self.store_lost_line
                    && self.store_lost_line < found.opened_line;
                if found.gap_line > message.sent_line || was_lost {
                    excused += 1;
                } else {
                    missing.push(device);
                }
            }
        }
        let totals = &mut self.report.totals;
        totals.owed += owed;
        totals.excused += excused;
        totals.judged += u64::from(owed > excused);
        totals.lost += missing.len() as u64;
        for device in missing {
            let name = self.people.device_names.name(device);
            let text = format!("{} never came to {name}", self.describe(number));
            self.report.add(Kind::Lost, 0, || text);
        }
    }

    /// Users who must get a message: of a group, those who were in it all the time.
    fn receivers(&self, message: &Message) -> Vec<u32> {
        match message.class {
            Class::Single | Class::Push => vec![message.to],
            Class::Group => {
                let group = &self.people.groups[message.to as usize];
                let mut members =
                    group.members_throughout(message.version, message.version_confirmed);
                members.retain(|member| *member != message.sender);
                members
            }
        }
    }

    /// What was acknowledged for good must have been told to its sender.
    fn sum_up_notices(&mut self, number: u32) {
        let message = &self.ledger.messages[number as usize];
        if message.class != Class::Single || message.answered_ms.is_none() {
            return;
        }
        let owed = self.people.owed(message.sender, message.sent_line);
        let missing = owed
            .filter(|(_, d)| !message.noticed.has(d.seat) && d.gap_line < message.sent_line)
            .map(|(device, _)| device)
            .next();
        if let Some(device) = missing {
            let name = self.people.device_names.name(device);
            let text = format!("{}, at {name}", self.describe(number));
            self.report.add(Kind::LostNotice, 0, || text);
        }
    }
}

fn say_on(on: &Link) -> String {
    format!("{}/{} on {}", on.user, on.device, on.connection)
}

fn say(sent: &Sent) -> String {
    format!("{} from {} to {}", sent.msgid, sent.sender, sent.to)
}
