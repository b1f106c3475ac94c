//! How an inbox reaches one connection: what is sent now, what is read from the store, and what
//! is known to have arrived.
//!
//! Owns: the connection's place in the log. Neighbours: an [`Outlet`] sends frames and asks the
//! store.
//! Invariants: entries are sent in the order of the log, each once, none left out: whoever has
//! the next one in hand sends it, and everything else is read from the log. A connection that
//! has passed everything keeps two numbers and a few flags.

use std::collections::VecDeque;

use super::ack::Acknowledged;
use super::read::{Attached, Cursor, PAGE_ENTRIES, Page};
use super::records::Entry;
use crate::parts::faults::Mutant;
use crate::parts::time::Tick;

/// Entries from the oldest one that is not acknowledged to the newest one that is sent.
const WINDOW: usize = 64;
/// Between two pings that ask a plain client how far it has got, in seconds.
const PING_SECS: u32 = 1;
/// How long an acknowledging client may leave an entry unacknowledged, in seconds.
const ACK_SECS: u32 = 90;
/// When a store that could not be asked is asked again, in seconds.
const ATTACH_SECS: u32 = 1;
/// When a full write queue, or a store that refused, is tried again, in ticks.
const RETRY_TICKS: u32 = 2;
/// What a ping begins with whose answer passes entries.
const PING: &[u8] = b"passed ";

/// What a pump does to the world.
pub trait Outlet {
    /// Sends one entry.
    fn entry(&mut self, epoch: u64, seq: u64, entry: &Entry, is_again: bool);
    /// Tells the client that something may be missing before the entry `from`.
    fn resync(&mut self, epoch: u64, head_seq: u64, from: u64);
    fn ping(&mut self, payload: &[u8]);
    /// The write queue is short enough for more.
    fn has_room(&self) -> bool;
    /// Reads what lies behind `after`, `limit` entries at most; false: the store takes nothing
    /// now.
    fn pull(&mut self, after: u64, limit: usize) -> bool;
    /// Asks the store where this device is; false: it takes nothing now.
    fn attach(&mut self) -> bool;
    /// The device has passed everything up to `seq`; false: the store takes nothing now.
    fn pass(&mut self, seq: u64) -> bool;
}

/// An entry as it is rung out, or read.
#[derive(Clone, Copy, Debug)]
pub struct Rung<'a> {
    pub epoch: u64,
    pub seq: u64,
    pub entry: &'a Entry,
    /// This connection is where it came from.
    pub is_own: bool,
}

#[derive(Debug, Default)]
pub struct Pump {
    epoch: u64,
    /// The entry that is sent next.
    next: u64,
    state: State,
    /// This client acknowledges.
    acks: bool,
    /// The store knows this device.
    is_known: bool,
    /// This client has heard that it misses something.
    is_told: bool,
    /// What this client was told before was of another epoch.
    is_moved: bool,
    /// Only while something is on its way.
    busy: Option<Box<Busy>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Nobody has asked the store yet.
    #[default]
    Idle,
    /// The first page is awaited.
    Attaching,
    Attached,
}

#[derive(Debug, Default)]
struct Busy {
    /// The last entry that is known to exist.
    head: u64,
    /// A page is awaited.
    is_reading: bool,
    /// Something else than a new entry may be there to read.
    is_to_look: bool,
    /// The last entry that existed when this client heard that it misses something. Who has been
    /// sent more than that needs it no longer.
    told_head: u64,
    /// Entries to come that this connection has said itself: they are not sent to it.
    own: Vec<u64>,
    /// When a refused step is tried again.
    retry: Option<Tick>,
    /// Acknowledging clients: from the oldest entry that is not acknowledged on.
    sent: VecDeque<Sent>,
    /// Plain clients: the last entry that was sent, the last one that is written down as passed,
    /// the position that the store is to write down, the one that the outstanding ping names, and
    /// when it was sent.
    last_sent: u64,
    passed: u64,
    passing: Option<u64>,
    pinged: Option<u64>,
    pinged_at: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    seq: u64,
    at: Tick,
    is_passed: bool,
}

impl Pump {
    /// The last entry that exists, as far as this connection knows.
    fn head_seq(&self) -> u64 {
        let head = self.busy.as_ref().map_or(0, |busy| busy.head);
        head.max(self.next.saturating_sub(1))
    }

    /// The device found no inbox, and the store does not know it.
    pub fn is_forgettable(&self) -> bool {
        self.state == State::Attached && !self.is_known
    }

    /// From now on this client is one that acknowledges.
    pub fn start_acknowledging(&mut self) {
        self.acks = true;
        if let Some(busy) = &mut self.busy {
            (busy.pinged, busy.pinged_at) = (None, None);
        }
    }

    /// The store was asked for the first page.
    pub fn attach(&mut self) {
        self.state = State::Attaching;
    }

    /// Nobody has asked the store for the first page, or it will be asked again.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// The first page is awaited.
    pub fn is_attaching(&self) -> bool {
        self.state == State::Attaching
    }

    /// Nothing more is sent, until it is attached again.
    pub fn detach(&mut self) {
        self.state = State::Idle;
        self.busy = None;
    }

    /// The store could not say where this device is. It will be asked again.
    pub fn attach_later(&mut self, now: Tick) {
        self.state = State::Idle;
        let busy = self.busy.get_or_insert_default();
        **busy = Busy {
            retry: Some(now.plus_secs(ATTACH_SECS)),
            ..Busy::default()
        };
    }

    /// The store has said where this device is. Its first page is to follow.
    pub fn begin(&mut self, attached: &Attached, now: Tick) {
        self.state = State::Attached;
        // Who was here before on this connection has what was sent then. Only one that misses
        // something, maybe because the store has forgotten it, gets again what it has not passed.
        let has_all = attached.epoch == self.epoch && !attached.page.resync;
        let sent = if has_all { self.next } else { 0 };
        // A store that has lost everything does not know that this device misses something.
        self.is_moved = self.epoch != 0 && attached.epoch != self.epoch;
        self.epoch = attached.epoch;
        self.next = sent.max(attached.low + 1);
        self.is_known = attached.is_known;
        self.is_told = false;
        let busy = self.busy.get_or_insert_default();
        busy.head = attached.head_seq;
        busy.is_reading = true;
        busy.passed = attached.low;
        busy.last_sent = self.next - 1;
        busy.retry = None;
        busy.sent.clear();
        if self.acks {
            let entries = attached.page.entries.iter();
            let was_sent = entries.filter(|(seq, entry)| *seq < self.next && !entry.is_notice());
            busy.sent
                .extend(was_sent.map(|(seq, _)| Sent::new(*seq, now)));
        }
    }

    /// Epoch and head of the inbox, where they are known.
    pub fn place(&self) -> Option<(u64, u64)> {
        (self.state == State::Attached).then(|| (self.epoch, self.head_seq()))
    }

    /// An entry was appended.
    pub fn ring(&mut self, rung: Rung<'_>, now: Tick, out: &mut impl Outlet) {
        if self.state == State::Idle {
            return;
        }
        self.is_known = true;
        let is_next = self.state == State::Attached
            && rung.epoch == self.epoch
            && (rung.seq == self.next || (rung.seq > self.next && Mutant::DoorbellOnly.is_on()))
            && !self.is_reading();
        if is_next && rung.is_own {
            self.next += 1;
            return;
        }
        if is_next && self.has_room_for(rung.entry) && out.has_room() {
            self.send(rung.seq, rung.entry, false, now, out);
        } else if rung.seq >= self.next || rung.epoch != self.epoch {
            let busy = self.busy.get_or_insert_default();
            busy.head = busy.head.max(rung.seq);
            busy.is_to_look |= rung.epoch != self.epoch;
            if rung.is_own {
                busy.own.push(rung.seq);
            }
        }
        self.go_on(now, out);
    }

    /// There may be something to read.
    pub fn look(&mut self, now: Tick, out: &mut impl Outlet) {
        if self.state == State::Idle {
            return;
        }
        self.is_told = false;
        self.busy.get_or_insert_default().is_to_look = true;
        self.go_on(now, out);
    }

    /// The store has an inbox with this epoch and last entry, or none. Where that is not what is
    /// known here, something was not heard.
    pub fn compare(&mut self, place: Option<(u64, u64)>, now: Tick, out: &mut impl Outlet) {
        let is_news = match place {
            Some((epoch, seq)) => epoch != self.epoch || seq > self.head_seq(),
            None => self.head_seq() > 0,
        };
        if is_news && self.state == State::Attached && !Mutant::NoReconcile.is_on() {
            self.look(now, out);
        }
    }

    /// What was read behind `after`: the last entry that was sent when it was asked for.
    pub fn page(&mut self, page: &Page, after: u64, now: Tick, out: &mut impl Outlet) {
        // What was asked for before it was detached is read anew when it is attached again.
        let is_attached = self.state == State::Attached;
        let Some(busy) = self.busy.as_mut().filter(|_| is_attached) else {
            return;
        };
        busy.is_reading = false;
        busy.head = busy.head.max(page.head_seq);
        if after >= self.next {
            // It was asked for before this connection began anew, further down.
            busy.is_to_look = true;
            return self.go_on(now, out);
        }
        let is_other = page.epoch != self.epoch || std::mem::take(&mut self.is_moved);
        self.epoch = page.epoch;
        if is_other && page.low + 1 < self.next {
            // Numbers may have begun anew: what was sent under them is not what they mean now.
            self.next = page.low + 1;
            self.is_told = true;
            **busy = Busy {
                head: page.head_seq,
                is_to_look: true,
                told_head: page.head_seq,
                last_sent: page.low,
                passed: page.low,
                ..Busy::default()
            };
            out.resync(page.epoch, page.head_seq, self.next);
            return self.go_on(now, out);
        }
        // What was sent before it was lost is not worth another word. What was only about to be is.
        let is_news = !self.is_told
            || page
                .told
                .is_none_or(|told| told >= self.next && told > busy.told_head);
        // Another connection of this device has passed what was to be sent next.
        let is_behind = (self.next..=page.low).any(|seq| !busy.own.contains(&seq));
        if (page.resync && is_news) || is_other || is_behind {
            self.is_told = true;
            busy.told_head = page.head_seq;
            let from = page.entries.first().map_or(page.until + 1, |(seq, _)| *seq);
            out.resync(page.epoch, page.head_seq, from);
        }
        let mut passed = page.passed.iter().copied().peekable();
        for (seq, entry) in &page.entries {
            if *seq < self.next {
                continue;
            }
            while let Some(passed) = passed.next_if(|passed| passed < seq) {
                self.count_passed(passed, now);
            }
            if !self.has_room_for(entry) || !out.has_room() {
                self.next = *seq;
                return self.go_on(now, out);
            }
            self.send(*seq, entry, *seq <= page.offered, now, out);
        }
        passed.for_each(|passed| self.count_passed(passed, now));
        self.next = self.next.max(page.until + 1);
        if let Some(busy) = &mut self.busy {
            busy.own.retain(|&seq| seq >= self.next);
        }
        self.go_on(now, out);
    }

    /// An entry that the device passed on an earlier connection has its place in the window.
    fn count_passed(&mut self, seq: u64, now: Tick) {
        if self.acks
            && seq >= self.next
            && let Some(busy) = &mut self.busy
        {
            let mut sent = Sent::new(seq, now);
            sent.is_passed = true;
            // With nothing before it, it is as if it were not there.
            busy.sent.extend((!busy.sent.is_empty()).then_some(sent));
        }
    }

    /// The application has everything up to its cursor, however it got it. One of another epoch
    /// was heard before the store lost something, and says nothing of what is there now.
    pub fn skip_to(&mut self, cursor: Cursor) {
        if self.state == State::Attached && cursor.epoch == self.epoch {
            self.next = self.next.max(cursor.seq + 1);
        }
    }

    /// The store refused to read.
    pub fn page_failed(&mut self, now: Tick) {
        if let Some(busy) = &mut self.busy {
            busy.is_reading = false;
            busy.is_to_look = true;
            busy.retry = Some(now.plus_ticks(RETRY_TICKS));
        }
    }

    /// The store has written down how far this device has got.
    pub fn acknowledged(&mut self, done: &Acknowledged, now: Tick, out: &mut impl Outlet) {
        if let Some(busy) = &mut self.busy {
            for sent in &mut busy.sent {
                sent.is_passed |=
                    sent.seq <= done.low || done.above.binary_search(&sent.seq).is_ok();
            }
            while busy.sent.front().is_some_and(|sent| sent.is_passed) {
                busy.sent.pop_front();
            }
            busy.passed = busy.passed.max(busy.passing.take().unwrap_or_default());
        }
        self.go_on(now, out);
    }

    pub fn pong(&mut self, payload: &[u8], now: Tick, out: &mut impl Outlet) {
        let Some(busy) = &mut self.busy else {
            return;
        };
        let Some(position) = busy.pinged.filter(|at| ping(*at) == payload) else {
            return;
        };
        // Where the store takes nothing, or does not do it, another ping asks again.
        busy.pinged = None;
        if !self.acks && out.pass(position) {
            busy.passing = Some(position);
        }
        self.go_on(now, out);
    }

    /// The store has not written down what a pong has passed.
    pub fn pass_failed(&mut self, now: Tick, out: &mut impl Outlet) {
        if let Some(busy) = &mut self.busy {
            busy.passing = None;
        }
        self.go_on(now, out);
    }

    /// When [`Pump::expire`] wants to be called next.
    pub fn deadline(&self) -> Tick {
        let Some(busy) = &self.busy else {
            return Tick::NEVER;
        };
        let ack = busy.sent.front().map(|sent| sent.at.plus_secs(ACK_SECS));
        let owes_ping = busy.last_sent > busy.passed || busy.pinged_at.is_some();
        let ping = (!self.acks && busy.may_ping() && owes_ping).then(|| busy.ping_due());
        [ack, ping, busy.retry]
            .into_iter()
            .flatten()
            .fold(Tick::NEVER, Tick::min)
    }

    /// Does what is due. True: this client acknowledges, and has not done so for too long.
    pub fn expire(&mut self, now: Tick, out: &mut impl Outlet) -> bool {
        let Some(busy) = &mut self.busy else {
            return false;
        };
        if let Some(oldest) = busy.sent.front()
            && oldest.at.plus_secs(ACK_SECS) <= now
        {
            return true;
        }
        if busy.retry.is_some_and(|at| at <= now) {
            busy.retry = None;
            if self.state == State::Idle {
                if out.attach() {
                    self.state = State::Attaching;
                } else {
                    self.attach_later(now);
                }
                return false;
            }
        }
        self.go_on(now, out);
        false
    }

    fn is_reading(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.is_reading)
    }

    fn has_room_for(&self, entry: &Entry) -> bool {
        let span = self.busy.as_ref().map_or(0, |busy| busy.sent.len());
        !self.acks || entry.is_notice() || span < WINDOW
    }

    fn send(&mut self, seq: u64, entry: &Entry, is_again: bool, now: Tick, out: &mut impl Outlet) {
        out.entry(self.epoch, seq, entry, is_again);
        self.next = seq + 1;
        let busy = self.busy.get_or_insert_default();
        busy.head = busy.head.max(seq);
        if !self.acks {
            busy.last_sent = seq;
        } else if !entry.is_notice() {
            busy.sent.push_back(Sent::new(seq, now));
        }
    }

    /// Whatever can be done now: the next page, the next ping, or nothing more to keep.
    fn go_on(&mut self, now: Tick, out: &mut impl Outlet) {
        let (acks, next) = (self.acks, self.next);
        let Some(busy) = &mut self.busy else {
            return;
        };
        if self.state != State::Attached {
            return;
        }
        let may_read = !busy.is_reading && busy.retry.is_none();
        if may_read && (busy.head >= next || busy.is_to_look) {
            // No more than may be sent: the rest would be read again.
            let limit = match acks {
                true => WINDOW.saturating_sub(busy.sent.len()),
                false => PAGE_ENTRIES,
            };
            let is_open = limit > 0;
            if is_open && out.has_room() && out.pull(next.saturating_sub(1), limit) {
                busy.is_reading = true;
                busy.is_to_look = false;
            } else if is_open {
                busy.retry = Some(now.plus_ticks(RETRY_TICKS));
            }
        }
        if !acks && busy.may_ping() && busy.ping_due() <= now {
            busy.pinged_at = None;
            if busy.last_sent > busy.passed {
                out.ping(&ping(busy.last_sent));
                busy.pinged = Some(busy.last_sent);
                busy.pinged_at = Some(now);
            }
        }
        let is_waiting = busy.is_reading
            || busy.is_to_look
            || busy.head >= next
            || busy.pinged.is_some()
            || !busy.sent.is_empty()
            || (!acks && busy.last_sent > busy.passed)
            || busy.pinged_at.is_some();
        if !is_waiting {
            self.busy = None;
        }
    }
}

impl Sent {
    fn new(seq: u64, at: Tick) -> Sent {
        Sent {
            seq,
            at,
            is_passed: false,
        }
    }
}

impl Busy {
    fn may_ping(&self) -> bool {
        self.pinged.is_none() && self.passing.is_none()
    }

    fn ping_due(&self) -> Tick {
        self.pinged_at.map_or(Tick(0), |at| at.plus_secs(PING_SECS))
    }
}

/// The payload that names a position.
fn ping(position: u64) -> Vec<u8> {
    let mut payload = PING.to_vec();
    payload.extend_from_slice(itoa::Buffer::new().format(position).as_bytes());
    payload
}
