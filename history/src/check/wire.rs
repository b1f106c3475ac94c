//! What came over the wire: places in an inbox, acknowledgements, their answers and notices.

use super::people::Hole;
use super::{Judge, say_on};
use crate::event::{Class, Entry, Link};
use crate::report::Kind;

impl Judge {
    pub(super) fn receive(&mut self, line: u64, on: &Link, entry: &Entry) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        let place = self.come(line, device, on, entry);
        if let Some(number) = self.ledger.message_of(&entry.message_id) {
            self.stands(line, number, device, place);
        }
    }

    /// An entry of this place came: the next one, unless there was a word about what is missing.
    fn come(&mut self, line: u64, number: u32, on: &Link, entry: &Entry) -> (u32, u64) {
        self.report.totals.received += 1;
        self.report.totals.redelivered += u64::from(entry.redelivered);
        let place @ (epoch, seq) = self.people.place(&entry.place);
        let device = &mut self.people.devices[number as usize];
        let Some(connection) = self.people.connections.get_mut(&on.connection) else {
            return place;
        };
        let last = connection.last.filter(|_| !connection.is_told);
        let expected = match last {
            Some((of, last)) => (of == epoch).then_some(last + 1),
            // Without a cursor it goes on where the device was, at the latest.
            None if !connection.is_told => device.seen(epoch).max().map(|last| last + 1),
            None => None,
        };
        let is_new = device.seen(epoch).insert(seq);
        connection.is_told = false;
        if last.is_some_and(|(of, _)| of != epoch) {
            let text = || format!("{}: epoch {} begins", say_on(on), entry.place.epoch);
            self.report.add(Kind::Hole, line, text);
        }
        if let Some(until) = expected
            && seq < until
            && last.is_some()
        {
            let kind = if is_new {
                device.out_of_order = Some(place);
                Kind::Reordered
            } else {
                Kind::Repeated
            };
            let text = || format!("{}: seq {seq} after {}", say_on(on), until - 1);
            self.report.add(kind, line, text);
            return place;
        }
        connection.last = Some(place);
        let told = connection.told_head.filter(|(of, _)| *of == epoch);
        let excused = told.map_or(0, |(_, head)| head);
        if let Some(from) = expected.map(|from| from.max(excused + 1))
            && from < seq
        {
            connection.holes.push(Hole {
                epoch,
                from,
                until: seq,
                line,
            });
        }
        place
    }

    /// What has not come on a connection by its end is missing, unless the device had it before,
    /// or sent it to a group itself.
    pub(super) fn settle_holes(&mut self, connection: u64) {
        let Some(found) = self.people.connections.get_mut(&connection) else {
            return;
        };
        let (holes, number) = (std::mem::take(&mut found.holes), found.device);
        let device = &mut self.people.devices[number as usize];
        for hole in holes {
            let (count, first) = device.seen(hole.epoch).missing(hole.from, hole.until);
            if count <= device.own_places {
                device.own_places -= count;
                // The same places are missing on the next connection too.
                device.seen(hole.epoch).fill(hole.from, hole.until);
                continue;
            }
            let name = self.people.device_names.name(number);
            let Hole { until, line, .. } = hole;
            let text = || format!("{name}: {count} left out before {until}, first {first}");
            self.report.add(Kind::Hole, line, text);
        }
    }

    pub(super) fn gap(&mut self, line: u64, on: &Link, head: (u32, u64)) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.report.totals.gaps += 1;
        self.people.devices[device as usize].gap_line = line;
        if let Some(connection) = self.people.connections.get_mut(&on.connection) {
            connection.is_told = true;
            connection.told_head = Some(head);
            connection.holes.clear();
        }
    }

    /// A message stands at one place of its receiver's inbox. Another epoch may count anew.
    pub(super) fn stands(&mut self, line: u64, number: u32, device: u32, place: (u32, u64)) {
        let message = &mut self.ledger.messages[number as usize];
        let is_its = self.people.devices[device as usize].user == message.to;
        if message.class == Class::Group || !is_its {
            return;
        }
        let before = message.place.replace(place);
        // Where it has two names, that is what is wrong with it.
        let is_one = !message.has_two_ids;
        if let Some((epoch, seq)) = before.filter(|(of, seq)| *of == place.0 && *seq != place.1)
            && is_one
        {
            let text = format!(
                "{} at {seq} and {} of {}",
                self.describe(number),
                place.1,
                self.people.epochs.name(epoch)
            );
            self.report.add(Kind::TwoPlaces, line, || text);
        }
    }

    pub(super) fn ack(&mut self, line: u64, on: &Link, message_id: &str) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.report.totals.acks += 1;
        if let Some(connection) = self.people.connections.get_mut(&on.connection) {
            connection.acks += 1;
        }
        let Some(number) = self.ledger.message_of(message_id) else {
            let id = self.ledger.id(message_id);
            self.ledger.ids[id as usize].is_acked_early = true;
            return;
        };
        if let Some(seat) = self.seat(number, device) {
            self.ledger.messages[number as usize].acked.set(seat);
        }
    }

    pub(super) fn answer(&mut self, line: u64, at: u64, on: &Link, id: &str, status: u16) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.report.totals.answers += 1;
        self.report.totals.acks_unknown += u64::from(status != 200);
        let text = || format!("{} about {id}", say_on(on));
        let connection = self.people.connections.get_mut(&on.connection);
        match connection.filter(|connection| connection.acks > 0) {
            Some(connection) => connection.acks -= 1,
            None => return self.report.add(Kind::AnswerWithoutAck, line, text),
        }
        // A message of another history may lie in the inbox: nothing is known of it.
        let Some(number) = self.ledger.message_of(id).filter(|_| status == 200) else {
            return;
        };
        let Some(seat) = self.seat(number, device) else {
            return self.report.add(Kind::ForgedAck, line, text);
        };
        let number_of_id = self.ledger.id(id);
        let is_acked_early = self.ledger.ids[number_of_id as usize].is_acked_early;
        let message = &mut self.ledger.messages[number as usize];
        if message.acked.has(seat) {
            message.answered_ms.get_or_insert(at);
        } else if !is_acked_early {
            self.report.add(Kind::AnswerWithoutAck, line, text);
        }
    }

    pub(super) fn notice(&mut self, line: u64, at: u64, on: &Link, entry: &Entry, by: &str) {
        let Some(device) = self.linked(line, on) else {
            return;
        };
        self.report.totals.notices += 1;
        let place = self.come(line, device, on, entry);
        let text = || format!("{}: {} by {by}", say_on(on), entry.message_id);
        let by = self.people.user(by);
        let found = &self.people.devices[device as usize];
        let known = self.ledger.message_of(&entry.message_id);
        let Some(message) = known
            .map(|number| &mut self.ledger.messages[number as usize])
            .filter(|m| m.class == Class::Single && m.sender == found.user && m.to == by)
        else {
            return self.report.add(Kind::ForeignNotice, line, text);
        };
        let has_acked = !message.acked.is_empty()
            || message
                .place
                .is_some_and(|(_, seq)| self.people.users[by as usize].passed >= seq);
        match message.notice {
            // A store that has lost something may tell again; it says so by its epoch.
            Some((epoch, seq)) if epoch == place.0 && seq != place.1 => {
                self.report.add(Kind::SecondNotice, line, text);
            }
            None if !has_acked => self.report.add(Kind::NoticeWithoutAck, line, text),
            _ => {}
        }
        message.notice = Some(place);
        let is_first = message.noticed.set(found.seat);
        let answered_ms = message.answered_ms.filter(|_| is_first);
        self.be_in_time(line, at, on.connection, answered_ms, text);
    }
}
