//! What stands in the rows: inboxes, entries, and what is remembered of messages.
//!
//! A record is a format version and then its fields (postcard). Fields are only ever added with a
//! new version. Their names are for exports alone (JSON); the format on disk knows none.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::rows::Broken;
use crate::parts::faults::Mutant;
use crate::protocol::envelope::MessageId;

/// Of all records; part of the format on disk.
pub const VERSION: u8 = 1;

/// One user's inbox without its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// Random; another one where the store may have lost something.
    pub epoch: u64,
    /// The last seq that was given.
    pub seq: u64,
    /// No entry up to this one is kept.
    pub dropped: u64,
    /// Entries were dropped that nobody had passed, and no device was known that could be told.
    pub lost: bool,
    /// Entries kept, notices not counted, and their bytes.
    pub entries: u32,
    pub bytes: u64,
    pub notices: u32,
    pub devices: Vec<Device>,
    /// Names of devices that were known once.
    pub forgotten: Vec<String>,
    /// Such names were left out for want of room: whoever is not known may be one of them.
    pub forgot_names: bool,
    /// When something was last done here, Unix milliseconds.
    pub touched_ms: u64,
}

/// How far a device has got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    pub name: String,
    /// Everything up to here is passed.
    pub low: u64,
    /// Passed entries above that, in order; not the next one.
    pub above: Vec<u64>,
    /// The last entry that may have been sent to it.
    pub offered: u64,
    /// Entries were dropped that it had not passed, or may have been lost, and nothing shows yet
    /// that it knows.
    pub resync: bool,
    /// A page has told it of that. This is the last entry that may have been sent to it before,
    /// or that was there when it lost more: once it passes a later one, it knows.
    pub told: Option<u64>,
}

/// One entry of an inbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    pub id: MessageId,
    /// When it was accepted, Unix milliseconds.
    pub at_ms: u64,
    pub from: String,
    pub request_id: Option<String>,
    /// It came over HTTP.
    pub is_http: bool,
    pub body: EntryBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum EntryBody {
    /// JSON text.
    Raw {
        msg: String,
    },
    Chat {
        from: Author,
        text: Text,
    },
    GroupChat {
        from: Author,
        group: String,
        text: Text,
    },
    /// Type 17: a message of this user reached somebody.
    Delivered {
        msgid: Option<String>,
        message: MessageId,
        to: String,
    },
}

/// Who wrote a chat message, as it was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Author {
    pub name: String,
    pub is_online: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Text {
    /// A JSON string with its quotes.
    pub message: String,
    pub file_type: String,
}

/// That a message of a sender was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seen {
    pub id: MessageId,
    /// Of the body: another body under the same msgid is another message.
    #[serde(with = "digits")]
    pub hash: [u8; 16],
}

/// How much is remembered of one sender to one receiver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pair {
    /// Rows of `Seen`.
    pub count: u32,
    /// Nothing of this sender that may be forgotten is older than this message.
    pub oldest: Option<MessageId>,
}

/// That an inbox holds or held a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Held {
    /// 0: not yet (it is due later), or there was no room when it was due.
    pub seq: u64,
    pub sender: String,
    pub msgid: Option<String>,
    /// A single chat whose sender has not heard that it was delivered.
    pub owes_notice: bool,
}

/// A group of users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// In the order of joining.
    pub members: Vec<String>,
    /// The last message of the group.
    pub seq: u64,
}

/// A message to a group: the point from which on it is accepted, and the work that is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GroupEntry {
    pub entry: Entry,
    pub sender: String,
    pub origin: Option<Origin>,
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    pub device: String,
    /// The connection, by a name that no other has, in this process or a later one.
    pub connection: u64,
}

/// A message that is due later, or, without one, the trace of one that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduled {
    pub to: String,
    pub sender: String,
    pub msgid: Option<String>,
    /// When it was to come first: a receiver without room makes it wait.
    pub due_ms: u64,
    pub entry: Option<Entry>,
}

impl Head {
    pub fn new(epoch: u64) -> Head {
        Head {
            epoch,
            seq: 0,
            dropped: 0,
            lost: false,
            entries: 0,
            bytes: 0,
            notices: 0,
            devices: Vec::new(),
            forgotten: Vec::new(),
            forgot_names: false,
            touched_ms: 0,
        }
    }

    /// Something may have been lost: from now on another epoch counts, and every device is told.
    pub fn begin_epoch(&mut self, epoch: u64) {
        if Mutant::SameEpoch.is_on() {
            return;
        }
        self.epoch = epoch;
        self.lost |= self.devices.is_empty();
        for device in &mut self.devices {
            (device.resync, device.told) = (true, None);
        }
    }

    pub fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == name)
    }

    pub fn device_mut(&mut self, name: &str) -> Option<&mut Device> {
        self.devices.iter_mut().find(|device| device.name == name)
    }

    /// Something behind the first entry that is kept is not kept.
    pub fn has_empty_places(&self) -> bool {
        u64::from(self.entries) + u64::from(self.notices) < self.seq.saturating_sub(self.dropped)
    }

    /// Counts an entry no more.
    pub fn discount(&mut self, entry: &Entry, bytes: usize) {
        if entry.is_notice() {
            self.notices = self.notices.saturating_sub(1);
        } else {
            self.entries = self.entries.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(bytes as u64);
        }
    }

    /// What every known device has passed; nothing where none is known.
    pub fn passed_by_all(&self) -> u64 {
        let lows = self.devices.iter().map(|device| device.low);
        lows.min().unwrap_or(self.dropped).max(self.dropped)
    }
}

impl Device {
    pub fn has_passed(&self, seq: u64) -> bool {
        seq <= self.low || self.above.binary_search(&seq).is_ok()
    }

    /// It misses something, and no page has said so.
    pub fn is_untold(&self) -> bool {
        self.resync && self.told.is_none()
    }

    /// It has got `seq`. What was sent behind the word of a loss shows that this word has come.
    pub fn has_got(&mut self, seq: u64) {
        if self.told.is_some_and(|told| seq > told) {
            (self.resync, self.told) = (false, None);
        }
    }
}

impl Entry {
    /// A type 17: it takes no place and begets nothing.
    pub fn is_notice(&self) -> bool {
        matches!(self.body, EntryBody::Delivered { .. })
    }
}

/// Sixteen bytes in the form of a message id.
mod digits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::protocol::envelope::MessageId;

    pub fn serialize<S: Serializer>(bytes: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        MessageId(*bytes).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        Ok(MessageId::deserialize(from)?.0)
    }
}

pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    let bytes = vec![VERSION];
    postcard::to_extend(record, bytes).expect("records have a form in bytes, and memory grows")
}

/// `what`: the kind of record, for the error.
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Broken> {
    match bytes.split_first() {
        Some((&VERSION, fields)) => {
            postcard::from_bytes(fields).map_err(|error| Broken::row(what, error))
        }
        Some((version, _)) => Err(Broken::row(what, format!("format version {version}"))),
        None => Err(Broken::row(what, "it is empty")),
    }
}
