//! A look at all rows: is each sound, and do they agree with each other?
//!
//! Invariants: nothing is changed, and nothing is kept in memory for each row.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RowName;
use super::records::{Entry, Group, GroupEntry, Head, Held, Pair, Scheduled, Seen};
use super::rows::{self, Broken, Rows};
use super::text::{exact, name_of, nothing};
use crate::protocol::envelope::MessageId;

/// Who sends notices.
const SYSTEM: &str = "system";
/// What the rows of a group's own memory are called instead of a user.
const GROUP: &str = "group:";

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub inboxes: u64,
    pub entries: u64,
    pub groups: u64,
    /// Messages that are due later, or were.
    pub delayed: u64,
}

/// Reads every row; `report` hears what is wrong, with the name of the row.
///
/// Errors: the rows cannot be read.
pub fn check(rows: &dyn Rows, report: &mut dyn FnMut(String)) -> Result<Tally, Broken> {
    let mut check = Check {
        rows,
        report,
        tally: Tally::default(),
        head_of: None,
        pair_of: None,
    };
    walk(rows, &[], rows::all::END, |key, value| {
        check.row(key, value)
    })?;
    Ok(check.tally)
}

struct Check<'a> {
    rows: &'a dyn Rows,
    report: &'a mut dyn FnMut(String),
    tally: Tally,
    /// The inbox that was asked for last: its rows follow each other.
    head_of: Option<(String, Option<Head>)>,
    /// The pair of users that was asked for last.
    pair_of: Option<(String, String)>,
}

impl Check<'_> {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        self.tally.rows += 1;
        let name = match name_of(key) {
            Ok(name) => name,
            Err(broken) => {
                (self.report)(broken.0);
                return Ok(());
            }
        };
        match &name {
            RowName::Head { user } => {
                self.tally.inboxes += 1;
                if let Some(head) = self.record::<Head>(&name, value) {
                    self.head(&name, user, &head)?;
                }
            }
            RowName::Entry { user, .. } => {
                self.tally.entries += 1;
                self.record::<Entry>(&name, value);
                let is_first = self.head_of.as_ref().is_none_or(|(of, _)| of != user);
                if self.head_of(user)?.is_none() && is_first {
                    self.problem(&name, "it belongs to no inbox");
                }
            }
            RowName::Seen {
                user,
                sender,
                msgid,
            } => {
                if let Some(seen) = self.record::<Seen>(&name, value) {
                    self.seen(&name, (user, sender, msgid), seen.id)?;
                }
            }
            RowName::Pair { user, sender } => {
                if let Some(pair) = self.record::<Pair>(&name, value) {
                    self.pair(&name, (user, sender), pair.count)?;
                }
            }
            RowName::Held { user, message_id } => {
                if let Some(held) = self.record::<Held>(&name, value) {
                    self.held(&name, user, *message_id, &held)?;
                }
            }
            RowName::Group { group } => {
                self.tally.groups += 1;
                if let Some(record) = self.record::<Group>(&name, value) {
                    self.group(&name, group, &record)?;
                }
            }
            RowName::Member { user, group } => {
                self.empty(&name, value);
                let record = self.get::<Group>(&rows::group(group))?;
                if !record.is_some_and(|group| group.members.contains(user)) {
                    self.problem(&name, "the group does not know this member");
                }
            }
            RowName::GroupLog { group, number } => {
                self.record::<GroupEntry>(&name, value);
                let record = self.get::<Group>(&rows::group(group))?;
                if record.is_none_or(|group| group.seq < *number) {
                    self.problem(&name, "the group has not got so far, or is not there");
                }
                if self.rows.get(&rows::work(group, *number))?.is_none() {
                    self.problem(&name, "nobody brings it to the members");
                }
            }
            RowName::Work { group, number } => {
                self.empty(&name, value);
                if self.rows.get(&rows::group_log(group, *number))?.is_none() {
                    self.problem(&name, "the message is not there");
                }
            }
            RowName::Delay { due_ms, message_id } => {
                self.tally.delayed += 1;
                if let Some(scheduled) = self.record::<Scheduled>(&name, value) {
                    self.delay(&name, *due_ms, *message_id, &scheduled)?;
                }
            }
            RowName::DelayId { message_id } => {
                if let Some(due_ms) = self.record::<u64>(&name, value)
                    && due_ms != 0
                    && self.rows.get(&rows::delay(due_ms, *message_id))?.is_none()
                {
                    self.problem(&name, "the message is not there");
                }
            }
        }
        Ok(())
    }

    /// An inbox says of its entries what they are.
    fn head(&mut self, name: &RowName, user: &str, head: &Head) -> Result<(), Broken> {
        if head.dropped > head.seq {
            self.problem(name, "it has dropped more than it got");
        }
        let (mut seqs, mut count) = (Vec::new(), (0, 0, 0));
        let mut unreadable = false;
        let (from, to) = (rows::entry(user, 0), rows::end_of_entries(user));
        walk(self.rows, &from, &to, |key, value| {
            seqs.push(rows::number_of(key));
            match exact::<Entry>(value) {
                Err(_) => unreadable = true,
                Ok(entry) if entry.is_notice() => count.2 += 1,
                Ok(_) => {
                    count.0 += 1;
                    count.1 += value.len() as u64;
                }
            }
            Ok(())
        })?;
        let range = head.dropped.saturating_add(1)..=head.seq;
        for seq in seqs.iter().filter(|seq| !range.contains(seq)) {
            let user = user.to_owned();
            let what = format!("the inbox holds {} to {}", range.start(), range.end());
            self.problem(&RowName::Entry { user, seq: *seq }, &what);
        }
        // What an entry that cannot be read was is not known, and it is reported itself.
        if !unreadable && count != (head.entries, head.bytes, head.notices) {
            let what = format!(
                "it counts {} entries of {} bytes and {} notices, and there are {} of {} and {}",
                head.entries, head.bytes, head.notices, count.0, count.1, count.2
            );
            self.problem(name, &what);
        }
        self.gaps(name, user, head, &seqs)?;
        self.devices(name, head);
        Ok(())
    }

    /// The log has no gaps, but for notices that were too many: they are remembered.
    fn gaps(
        &mut self,
        name: &RowName,
        user: &str,
        head: &Head,
        seqs: &[u64],
    ) -> Result<(), Broken> {
        let within = |seq: u64| seq > head.dropped && seq <= head.seq;
        let kept = seqs.iter().filter(|seq| within(**seq)).count() as u64;
        let missing = head.seq.saturating_sub(head.dropped).saturating_sub(kept);
        if missing == 0 {
            return Ok(());
        }
        let mut lost = 0;
        let from = rows::held_of(user);
        let to = rows::end_of(from.clone());
        walk(self.rows, &from, &to, |_, value| {
            if let Ok(held) = exact::<Held>(value)
                && within(held.seq)
                && seqs.binary_search(&held.seq).is_err()
                && held.sender == SYSTEM
                && held.msgid.is_none()
            {
                lost += 1;
            }
            Ok(())
        })?;
        if missing > lost {
            let what = format!("{} entries of its log are not there", missing - lost);
            self.problem(name, &what);
        }
        Ok(())
    }

    fn devices(&mut self, name: &RowName, head: &Head) {
        for (at, device) in head.devices.iter().enumerate() {
            let is_twice = head.devices[..at].iter().any(|d| d.name == device.name);
            let is_sorted = device.above.is_sorted_by(|a, b| a < b);
            let first = device.above.first().copied().unwrap_or(u64::MAX);
            let last = device.above.last().copied().unwrap_or(0);
            let furthest = last.max(device.low).max(device.offered);
            if is_twice || !is_sorted || first <= device.low || furthest > head.seq {
                let what = format!("its device {:?} is not in order", device.name);
                self.problem(name, &what);
            }
        }
    }

    fn seen(
        &mut self,
        name: &RowName,
        (user, sender, msgid): (&str, &str, &str),
        id: MessageId,
    ) -> Result<(), Broken> {
        let held = self.get::<Held>(&rows::held(user, id))?;
        let is_it = |held: Held| held.sender == sender && held.msgid.as_deref() == Some(msgid);
        if !held.is_some_and(is_it) {
            self.problem(name, "the message that it names is not remembered");
        }
        let pair = (user.to_owned(), sender.to_owned());
        if self.pair_of.as_ref() != Some(&pair) {
            if self.rows.get(&rows::pair(user, sender))?.is_none() {
                self.problem(name, "nobody counts it");
            }
            self.pair_of = Some(pair);
        }
        Ok(())
    }

    fn pair(
        &mut self,
        name: &RowName,
        (user, sender): (&str, &str),
        count: u32,
    ) -> Result<(), Broken> {
        let from = rows::seen(user, sender, "");
        let (to, mut there) = (rows::end_of(from.clone()), 0);
        walk(self.rows, &from, &to, |_, _| {
            there += 1;
            Ok(())
        })?;
        if there != count {
            let what = format!("it counts {count} messages, and there are {there}");
            self.problem(name, &what);
        }
        Ok(())
    }

    fn held(
        &mut self,
        name: &RowName,
        user: &str,
        id: MessageId,
        held: &Held,
    ) -> Result<(), Broken> {
        if held.seq == 0 {
            return Ok(());
        }
        if let Some(group) = user.strip_prefix(GROUP) {
            // What a group that has ended remembers outlives it.
            let record = self.get::<Group>(&rows::group(group))?;
            if record.is_some_and(|group| group.seq < held.seq) {
                self.problem(name, "the group has not got so far");
            }
            return Ok(());
        }
        let Some((seq, dropped)) = self.head_of(user)?.map(|head| (head.seq, head.dropped)) else {
            self.problem(name, "it belongs to no inbox");
            return Ok(());
        };
        if held.seq > seq {
            self.problem(name, "the inbox has not got so far");
        }
        if held.seq > dropped
            && let Some(entry) = self.get::<Entry>(&rows::entry(user, held.seq))?
            && entry.id != id
        {
            self.problem(name, "its entry is another message");
        }
        Ok(())
    }

    fn group(&mut self, name: &RowName, group: &str, record: &Group) -> Result<(), Broken> {
        for (at, user) in record.members.iter().enumerate() {
            let is_twice = record.members[..at].contains(user);
            if is_twice || self.rows.get(&rows::member(user, group))?.is_none() {
                let what = format!("its member {user} is there twice, or does not know it");
                self.problem(name, &what);
            }
        }
        Ok(())
    }

    fn delay(
        &mut self,
        name: &RowName,
        due_ms: u64,
        id: MessageId,
        scheduled: &Scheduled,
    ) -> Result<(), Broken> {
        let expected = match &scheduled.entry {
            Some(entry) if entry.id != id => {
                self.problem(name, "it is another message");
                due_ms
            }
            Some(_) => due_ms,
            None => 0,
        };
        if self.get::<u64>(&rows::delay_id(id))? != Some(expected) {
            self.problem(name, "it cannot be found by its id");
        }
        Ok(())
    }

    /// The inbox of a user, none where there is none, or none that can be read.
    fn head_of(&mut self, user: &str) -> Result<Option<&Head>, Broken> {
        if self.head_of.as_ref().is_none_or(|(of, _)| of != user) {
            let head = self.get::<Head>(&rows::head(user))?;
            self.head_of = Some((user.to_owned(), head));
        }
        Ok(self.head_of.as_ref().and_then(|(_, head)| head.as_ref()))
    }

    /// A record of another row; one that is not sound is reported where it stands.
    fn get<T: Serialize + DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Broken> {
        Ok(self.rows.get(key)?.and_then(|value| exact(&value).ok()))
    }

    fn record<T: Serialize + DeserializeOwned>(
        &mut self,
        name: &RowName,
        value: &[u8],
    ) -> Option<T> {
        match exact(value) {
            Ok(record) => Some(record),
            Err(broken) => {
                self.problem(name, &broken.0);
                None
            }
        }
    }

    fn empty(&mut self, name: &RowName, value: &[u8]) {
        if let Err(broken) = nothing(value) {
            self.problem(name, &broken.0);
        }
    }

    fn problem(&mut self, name: &RowName, what: &str) {
        (self.report)(format!("{name}: {what}"));
    }
}

/// Shows the rows of a range until one cannot be looked at.
fn walk(
    rows: &dyn Rows,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    let mut outcome = Ok(());
    rows.scan(from, to, &mut |key, value| {
        outcome = visit(key, value);
        outcome.is_ok()
    })?;
    outcome
}

#[cfg(test)]
mod tests;
