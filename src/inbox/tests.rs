//! The contract of delivery, sentence by sentence, on rows in memory.
//!
//! The rig keeps time, says who is connected, commits after each request, and looks each time
//! whether the heads agree with the rows.

mod accept;
mod ack;
mod devices;
mod groups;
mod later;
mod limits;
mod model;
mod notices;
mod read;

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::memory::MemoryRows;
use super::records::{Author, Entry, EntryBody, Head, Text, decode};
use super::rows::{Broken, Rows};
use super::*;
use crate::protocol::envelope::MessageId;

const EPOCH: u64 = 77;
/// When all tests begin, Unix milliseconds.
const START: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;
/// No entries.
const NONE: [u64; 0] = [];

const RULES: InboxRules = InboxRules {
    entries_max: 1_000,
    bytes_max: 8 << 20,
    notices_max: 1_000,
    devices_max: 8,
    ttl_ms: 7 * 24 * HOUR,
    seen_ms: 24 * HOUR,
    seen_max: 10_000,
};

#[derive(Default)]
struct Table(BTreeMap<String, Vec<String>>);

impl Presence for Table {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        let devices = self.0.get(uid);
        devices.map_or_else(SmallVec::new, |devices| devices.iter().cloned().collect())
    }
}

struct Rig {
    rows: MemoryRows,
    present: Table,
    rules: InboxRules,
    now_ms: u64,
    epoch: u64,
    /// What rang since it was last asked.
    rings: Vec<Ring>,
    ids: u64,
}

impl Rig {
    fn new() -> Rig {
        Rig::with(RULES)
    }

    fn with(rules: InboxRules) -> Rig {
        Rig {
            rows: MemoryRows::default(),
            present: Table::default(),
            rules,
            now_ms: START,
            epoch: EPOCH,
            rings: Vec::new(),
            ids: 0,
        }
    }

    fn books<T>(&mut self, request: impl FnOnce(&mut Books<'_>) -> Result<T, Broken>) -> T {
        let result = self.open(request).unwrap();
        self.rows.commit();
        self.assert_sound();
        result
    }

    /// Neither committed nor taken back.
    fn open<T>(
        &mut self,
        request: impl FnOnce(&mut Books<'_>) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        request(&mut Books {
            rows: &mut self.rows,
            presence: &self.present,
            rules: &self.rules,
            now_ms: self.now_ms,
            epoch: self.epoch,
            rings: &mut self.rings,
        })
    }

    /// What each head counts is what its rows hold.
    fn assert_sound(&mut self) {
        let uids = self.open(|books| books.users("", usize::MAX)).unwrap();
        for uid in uids {
            let (head, kept) = (self.head(&uid), self.kept(&uid));
            let (notices, entries): (Vec<_>, Vec<_>) =
                kept.iter().partition(|(_, entry, _)| entry.is_notice());
            let bytes: usize = entries.iter().map(|(.., bytes)| bytes).sum();
            assert_eq!(head.entries as usize, entries.len(), "entries of {uid}");
            assert_eq!(head.bytes, bytes as u64, "bytes of {uid}");
            assert_eq!(head.notices as usize, notices.len(), "notices of {uid}");
            for (seq, ..) in &kept {
                assert!(*seq > head.dropped && *seq <= head.seq, "{uid} keeps {seq}");
            }
            for device in &head.devices {
                assert!(device.low <= head.seq, "{device:?} is ahead of {uid}");
                assert!(device.above.is_sorted(), "{device:?}");
                assert!(
                    device.above.iter().all(|&seq| seq > device.low),
                    "{device:?}"
                );
            }
        }
    }

    fn head(&self, uid: &str) -> Head {
        self.find(uid).unwrap()
    }

    fn find(&self, uid: &str) -> Option<Head> {
        let row = self.rows.get(&rows::head(uid)).unwrap();
        row.map(|bytes| decode("inbox", &bytes).unwrap())
    }

    /// Every entry that is kept, whatever the head says.
    fn kept(&mut self, uid: &str) -> Vec<(u64, Entry, usize)> {
        self.open(|books| books.entries(uid, 0, u64::MAX - 1, usize::MAX))
            .unwrap()
    }

    fn kept_seqs(&mut self, uid: &str) -> Vec<u64> {
        self.kept(uid).iter().map(|(seq, ..)| *seq).collect()
    }

    fn connect(&mut self, uid: &str, device: &str) {
        let devices = self.present.0.entry(uid.to_owned()).or_default();
        devices.push(device.to_owned());
    }

    fn disconnect(&mut self, uid: &str, device: &str) {
        let devices = self.present.0.entry(uid.to_owned()).or_default();
        devices.retain(|name| name != device);
    }

    fn take_rings(&mut self) -> Vec<Ring> {
        std::mem::take(&mut self.rings)
    }

    /// Whose loss rang since it was last asked.
    fn take_lost(&mut self) -> Vec<String> {
        let rings = self.take_rings().into_iter();
        let lost = rings.filter(|ring| matches!(ring, Ring::Lost { .. }));
        lost.map(|ring| ring.uid().to_owned()).collect()
    }

    fn next_id(&mut self) -> MessageId {
        self.ids += 1;
        MessageId((self.ids as u128).to_be_bytes()).at(self.now_ms)
    }

    fn entry(&mut self, from: &str, body: EntryBody) -> Entry {
        Entry {
            id: self.next_id(),
            at_ms: self.now_ms,
            from: from.to_owned(),
            request_id: None,
            is_http: false,
            body,
        }
    }

    fn chat(&mut self, from: &str, to: &str, msgid: Option<&str>, text: &str) -> Accept {
        let body = EntryBody::Chat {
            from: author(from),
            text: text_of(text),
        };
        self.accept_of(from, to, msgid, body)
    }

    fn push(&mut self, to: &str, msgid: Option<&str>, text: &str) -> Accept {
        let msg = text.to_owned();
        self.accept_of("system", to, msgid, EntryBody::Raw { msg })
    }

    fn accept_of(&mut self, from: &str, to: &str, msgid: Option<&str>, body: EntryBody) -> Accept {
        Accept {
            to: to.to_owned(),
            sender: from.to_owned(),
            msgid: msgid.map(str::to_owned),
            entry: self.entry(from, body),
        }
    }

    fn accept(&mut self, accept: &Accept) -> Accepted {
        self.books(|books| books.accept(accept))
    }

    /// A chat without a name, or with; it must be new.
    fn send(&mut self, from: &str, to: &str) -> MessageId {
        let accept = self.chat(from, to, None, "hi");
        assert_eq!(self.accept(&accept), Accepted::New(accept.entry.id));
        accept.entry.id
    }

    fn send_many(&mut self, from: &str, to: &str, count: usize) -> Vec<MessageId> {
        (0..count).map(|_| self.send(from, to)).collect()
    }

    fn acknowledge(&mut self, uid: &str, device: &str, reach: Reach) -> Acknowledged {
        self.books(|books| books.acknowledge(uid, device, &reach))
    }

    fn ack(&mut self, uid: &str, device: &str, ids: &[MessageId]) -> Acknowledged {
        self.acknowledge(uid, device, Reach::Messages(ids.to_vec()))
    }

    fn up_to(&mut self, uid: &str, device: &str, seq: u64) -> Acknowledged {
        let epoch = self.epoch;
        self.acknowledge(uid, device, Reach::UpTo { epoch, seq })
    }

    fn pong(&mut self, uid: &str, device: &str, seq: u64) -> Acknowledged {
        self.acknowledge(uid, device, Reach::Silently { seq })
    }

    fn attach(&mut self, uid: &str, device: &str, cursor: Option<(u64, u64)>) -> Attached {
        let attach = Attach {
            entry: None,
            sessions_max: 8,
            uid: uid.to_owned(),
            device: device.to_owned(),
            cursor: cursor.map(|(epoch, seq)| Cursor { epoch, seq }),
            page: 300,
        };
        self.books(|books| books.attach(&attach))
    }

    fn pull(&mut self, uid: &str, device: &str, after: u64, limit: usize) -> Page {
        self.books(|books| books.pull(uid, device, after, limit))
    }

    fn look(&mut self, uid: &str, after: u64, limit: usize) -> Page {
        self.books(|books| books.look(uid, after, limit))
    }

    fn expire(&mut self, uid: &str) -> bool {
        self.books(|books| books.expire(uid))
    }

    /// The messages of which `uid` has been told that they arrived.
    fn delivered_to(&mut self, uid: &str) -> Vec<MessageId> {
        let bodies = self.kept(uid).into_iter().map(|(_, entry, _)| entry.body);
        bodies
            .filter_map(|body| match body {
                EntryBody::Delivered { message, .. } => Some(message),
                _ => None,
            })
            .collect()
    }
}

fn author(name: &str) -> Author {
    Author {
        name: name.to_owned(),
        is_online: true,
    }
}

fn text_of(text: &str) -> Text {
    Text {
        message: format!("{text:?}"),
        file_type: "0".to_owned(),
    }
}

fn seqs(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|(seq, _)| *seq).collect()
}

fn ids(page: &Page) -> Vec<MessageId> {
    page.entries.iter().map(|(_, entry)| entry.id).collect()
}
