//! What all threads share of a run of chats: its clock, its counters and its history.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use throng_history::{Event, What};

pub struct Chats {
    /// Different for each run, so that its messages are known from others that a store kept.
    pub run: u32,
    pub began: Instant,
    scribe: Option<Scribe>,
    issued: AtomicU64,
    pub confirmed: AtomicU64,
    /// Messages that no repetition would get any further.
    pub given_up: AtomicU64,
    pub delivered: AtomicU64,
    pub noticed: AtomicU64,
    /// Threads that have still something to say.
    speaking: AtomicU64,
    /// Deliveries of each message, and whether its sender is told of them.
    copies: u64,
    is_noticed: bool,
}

/// Workers have file tables of their own, in which the file is not: they leave lines here, and
/// whoever made it writes them out. These are whole, so that others may append to the same file.
struct Scribe {
    lines: Mutex<Vec<u8>>,
    file: File,
}

impl Chats {
    /// The history goes to this file, if there is to be one; what it held is gone.
    pub fn new(history: Option<&Path>) -> io::Result<Chats> {
        let scribe = match history {
            Some(path) => {
                File::create(path)?;
                Some(Scribe {
                    lines: Mutex::default(),
                    file: File::options().append(true).open(path)?,
                })
            }
            None => None,
        };
        Ok(Chats::over(scribe))
    }

    fn over(scribe: Option<Scribe>) -> Chats {
        Chats {
            run: run_number(),
            began: Instant::now(),
            scribe,
            issued: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            noticed: AtomicU64::new(0),
            speaking: AtomicU64::new(0),
            copies: 1,
            is_noticed: true,
        }
    }

    /// Each message is for all others of a group of so many, and nobody tells its sender.
    pub fn in_groups_of(size: u32) -> Chats {
        Chats {
            copies: u64::from(size.saturating_sub(1)),
            is_noticed: false,
            ..Chats::over(None)
        }
    }

    pub fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_nanos() as u64
    }

    /// The number of the next message.
    pub fn issue(&self) -> u32 {
        self.issued.fetch_add(1, Relaxed) as u32
    }

    pub fn issued(&self) -> u64 {
        self.issued.load(Relaxed)
    }

    /// So many threads have something to say from now on.
    pub fn begin(&self, threads: usize) {
        self.speaking.store(threads as u64, Relaxed);
    }

    /// A thread has said everything.
    pub fn falls_silent(&self) {
        self.speaking.fetch_sub(1, Release);
    }

    /// Everything was said that was due, and every message was stored, delivered and told of, or
    /// has been given up.
    pub fn are_settled(&self) -> bool {
        if self.speaking.load(Acquire) > 0 {
            return false;
        }
        let confirmed = self.confirmed.load(Relaxed);
        confirmed + self.given_up.load(Relaxed) >= self.issued()
            && self.delivered.load(Relaxed) >= confirmed * self.copies
            && (self.noticed.load(Relaxed) >= confirmed || !self.is_noticed)
    }

    /// Notes one event, if there is a history.
    pub fn tell(&self, what: impl FnOnce() -> What) {
        let Some(scribe) = &self.scribe else { return };
        let what = what();
        let mut lines = scribe.lines();
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = time.map_or(0, |time| time.as_millis() as u64);
        let event = Event { at, what };
        let written = event.write(&mut lines);
        debug_assert!(written.is_ok(), "an event is JSON, and a buffer takes it");
    }

    /// Writes down what was noted. To be called often, and only where the file was opened.
    pub fn flush(&self) -> io::Result<()> {
        let Some(scribe) = &self.scribe else {
            return Ok(());
        };
        let lines = std::mem::take(&mut *scribe.lines());
        (&scribe.file).write_all(&lines)
    }
}

/// Another one for each run.
pub fn run_number() -> u32 {
    let time = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = time.map_or(0, |time| time.as_nanos() as u64);
    (nanos >> 10) as u32 ^ std::process::id().rotate_left(20)
}

impl Scribe {
    fn lines(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
