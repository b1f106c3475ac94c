//! An inbox is read: by a connection that begins, by one that has caught up too little, and by
//! who only looks.

use std::sync::Arc;

use super::records::{Entry, Head, decode};
use super::rows::Broken;
use super::{Books, DAY_MS};
use crate::parts::faults::Mutant;
pub use crate::protocol::away::DirectoryEntry;
use crate::protocol::metadata::ANONYMOUS;

/// Entries and bytes of a page at most.
pub const PAGE_ENTRIES: usize = 300;
pub const PAGE_BYTES: usize = 256 << 10;

/// Up to where an application has processed its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: u64,
    pub seq: u64,
}

impl Cursor {
    /// From `<epoch>:<seq>`, hex and decimal; none if it is something else.
    pub fn parse(text: &str) -> Option<Cursor> {
        let (epoch, seq) = text.split_once(':')?;
        let is_plain = |text: &str| !text.starts_with('+');
        if !is_plain(epoch) || !is_plain(seq) {
            return None;
        }
        Some(Cursor {
            epoch: u64::from_str_radix(epoch, 16).ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

/// A connection that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub uid: String,
    pub device: String,
    pub cursor: Option<Cursor>,
    /// The first page of what it has not got is read with it, `page` entries at most.
    pub page: usize,
    /// How others find it, where several nodes share a store.
    pub entry: Option<Box<DirectoryEntry>>,
    /// Sessions that the user may have with this one.
    pub sessions_max: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Attached {
    pub epoch: u64,
    pub head_seq: u64,
    /// Everything up to here the device has passed.
    pub low: u64,
    pub page: Page,
    /// The inbox knows this device. An anonymous one that finds nothing is not written down.
    pub is_known: bool,
    /// Names of the user's sessions on this node that lost their place in the directory to this
    /// one.
    pub replaced: Vec<String>,
}

/// Entries that a device has not passed, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub entries: Vec<(u64, Arc<Entry>)>,
    /// Entries between them that the device has passed already: they take a place in a window.
    pub passed: Vec<u64>,
    /// There is nothing else for the device up to here.
    pub until: u64,
    /// Everything up to here the device has passed, on whatever connection.
    pub low: u64,
    /// The last entry of the inbox.
    pub head_seq: u64,
    pub epoch: u64,
    /// Entries up to here may have been sent before.
    pub offered: u64,
    /// Something was lost that the device had not passed, and nothing shows that it knows. A
    /// connection tells it once, and again when it hears of another loss.
    pub resync: bool,
    /// None: no page has told of the latest loss. Otherwise this one or an earlier entry may be
    /// lost since; who has been sent everything up to it, or was told behind it, misses nothing.
    pub told: Option<u64>,
}

impl Books<'_> {
    /// The device begins where its cursor says, or where it was; one that nobody knows begins
    /// with the oldest entry.
    pub fn attach(&mut self, attach: &Attach) -> Result<Attached, Broken> {
        let Attach {
            uid,
            device,
            cursor,
            page,
            ..
        } = attach;
        let found = self.load(uid)?;
        let says_nothing = match (&found, cursor) {
            (None, None) => device == ANONYMOUS,
            (None, Some(cursor)) => {
                device == ANONYMOUS && cursor.epoch == self.epoch && cursor.seq == 0
            }
            (Some(_), _) => false,
        };
        if says_nothing {
            return Ok(Attached::to_nothing(self.epoch));
        }
        let before = found.clone();
        let mut head = found.unwrap_or_else(|| Head::new(self.epoch));
        let was_known = head.device(device).is_some();
        self.know(&mut head, device);
        self.keep_few(uid, &mut head, device);
        if let Some(cursor) = cursor
            && !Mutant::NoCursor.is_on()
        {
            self.go_to(uid, &mut head, device, *cursor, was_known)?;
        }
        let page = self.page_of(uid, &mut head, device, 0, *page)?;
        self.drop_passed(uid, &mut head)?;
        let low = self.know(&mut head, device).low;
        let is_stale = head.touched_ms.saturating_add(DAY_MS) <= self.now_ms;
        if is_stale || before.as_ref() != Some(&head) {
            self.save(uid, &mut head)?;
        }
        Ok(Attached {
            epoch: head.epoch,
            head_seq: head.seq,
            low,
            page,
            is_known: true,
            replaced: Vec::new(),
        })
    }

    /// What a device has not passed behind `after`, `limit` entries at most.
    pub fn pull(
        &mut self,
        uid: &str,
        device: &str,
        after: u64,
        limit: usize,
    ) -> Result<Page, Broken> {
        let Some(mut head) = self.load(uid)? else {
            return Ok(Page {
                epoch: self.epoch,
                ..Page::default()
            });
        };
        let before = head.clone();
        let page = self.page_of(uid, &mut head, device, after, limit)?;
        if head != before {
            self.save(uid, &mut head)?;
        }
        Ok(page)
    }

    /// Entries behind `after`, whoever has passed them. Nothing moves.
    pub fn look(&self, uid: &str, after: u64, limit: usize) -> Result<Page, Broken> {
        let Some(head) = self.load(uid)? else {
            return Ok(Page {
                epoch: self.epoch,
                ..Page::default()
            });
        };
        self.read(uid, &head, after, limit, |_| false)
    }

    /// Writes down a device that has been here and found no inbox.
    pub fn remember_device(&mut self, uid: &str, device: &str) -> Result<(), Broken> {
        let mut head = match self.load(uid)? {
            Some(head) => head,
            None => Head::new(self.epoch),
        };
        if head.device(device).is_some() {
            return Ok(());
        }
        self.know(&mut head, device);
        self.keep_few(uid, &mut head, device);
        self.save(uid, &mut head)
    }

    /// A device too many: one that is not here is forgotten, but not `device`.
    fn keep_few(&mut self, uid: &str, head: &mut Head, device: &str) {
        while head.devices.len() > self.rules.devices_max {
            let newest = head.devices.iter().position(|known| known.name == device);
            let newest = newest.map(|at| head.devices.remove(at));
            let is_forgotten = self.forget_one(uid, head);
            head.devices.extend(newest);
            if !is_forgotten {
                return;
            }
        }
    }

    /// Moves a device to its cursor. One that does not fit this log says that something is
    /// missing, on one side or the other.
    fn go_to(
        &mut self,
        uid: &str,
        head: &mut Head,
        device: &str,
        cursor: Cursor,
        was_known: bool,
    ) -> Result<(), Broken> {
        let fits = cursor.epoch == head.epoch && cursor.seq <= head.seq;
        if fits && (was_known || cursor.seq >= head.dropped) {
            return self.pass_up_to(uid, head, device, cursor.seq, true);
        }
        self.know(head, device).resync = true;
        Ok(())
    }

    fn page_of(
        &mut self,
        uid: &str,
        head: &mut Head,
        device: &str,
        after: u64,
        limit: usize,
    ) -> Result<Page, Broken> {
        let known = self.know(head, device).clone();
        let after = after.max(known.low).max(head.dropped);
        let after = match Mutant::SentIsGot.is_on() {
            true => after.max(known.offered),
            false => after,
        };
        let mut page = self.read(uid, head, after, limit, |seq| known.has_passed(seq))?;
        (page.offered, page.low) = (known.offered, known.low);
        (page.resync, page.told) = (known.resync, known.told);
        let device = self.know(head, device);
        if known.is_untold() {
            device.told = Some(known.offered.max(known.low));
        }
        device.offered = known.offered.max(page.until.min(page.head_seq));
        Ok(page)
    }

    /// Entries behind `after` without those to `skip`: as many as were asked for and a page holds,
    /// one at least.
    fn read(
        &self,
        uid: &str,
        head: &Head,
        after: u64,
        limit: usize,
        skip: impl Fn(u64) -> bool,
    ) -> Result<Page, Broken> {
        let limit = limit.min(PAGE_ENTRIES);
        let mut bytes_left = PAGE_BYTES;
        let mut is_whole = true;
        let mut page = Page {
            until: after,
            head_seq: head.seq,
            epoch: head.epoch,
            ..Page::default()
        };
        self.visit(uid, after, head.seq, &mut |seq, bytes| {
            let has_place = page.entries.len() + page.passed.len() < limit;
            if skip(seq) {
                if !decode::<Entry>("entry", bytes)?.is_notice() {
                    is_whole = has_place;
                    page.passed.extend(is_whole.then_some(seq));
                }
                if !is_whole {
                    return Ok(false);
                }
            } else {
                let fits = bytes.len() <= bytes_left || page.entries.is_empty();
                is_whole = fits && has_place;
                if !is_whole {
                    return Ok(false);
                }
                bytes_left = bytes_left.saturating_sub(bytes.len());
                page.entries.push((seq, Arc::new(decode("entry", bytes)?)));
            }
            page.until = seq;
            Ok(true)
        })?;
        if is_whole {
            page.until = page.until.max(head.seq);
        }
        Ok(page)
    }
}

impl Attached {
    fn to_nothing(epoch: u64) -> Attached {
        Attached {
            epoch,
            head_seq: 0,
            low: 0,
            page: Page {
                epoch,
                ..Page::default()
            },
            is_known: false,
            replaced: Vec::new(),
        }
    }
}
