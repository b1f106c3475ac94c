//! What all threads share of a run of chats: its clock, its counters and its history.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use throng_history::{Event, What};

/// So much of a history is kept in memory within one turn of a thread.
const BUFFER_BYTES: usize = 64 << 10;

pub struct Chats {
    /// Different for each run, so that its messages are known from others that a store kept.
    pub run: u32,
    pub began: Instant,
    scribe: Option<Mutex<Scribe>>,
    issued: AtomicU64,
    pub confirmed: AtomicU64,
    /// Messages that no repetition would get any further.
    pub given_up: AtomicU64,
    pub delivered: AtomicU64,
    pub noticed: AtomicU64,
}

/// Writes whole lines, so that others may append to the same file.
struct Scribe {
    file: File,
    lines: Vec<u8>,
    failure: Option<io::Error>,
}

impl Chats {
    /// The history goes to this file, if there is to be one; what it held is gone.
    pub fn new(history: Option<&Path>) -> io::Result<Chats> {
        let scribe = match history {
            Some(path) => {
                File::create(path)?;
                let file = File::options().append(true).open(path)?;
                Some(Mutex::new(Scribe {
                    file,
                    lines: Vec::with_capacity(2 * BUFFER_BYTES),
                    failure: None,
                }))
            }
            None => None,
        };
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let nanos = time.map_or(0, |time| time.as_nanos() as u64);
        Ok(Chats {
            run: (nanos >> 10) as u32 ^ std::process::id().rotate_left(20),
            began: Instant::now(),
            scribe,
            issued: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            noticed: AtomicU64::new(0),
        })
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

    /// Every message was stored, delivered and told of, or has been given up.
    pub fn are_settled(&self) -> bool {
        let confirmed = self.confirmed.load(Relaxed);
        confirmed + self.given_up.load(Relaxed) >= self.issued()
            && self.delivered.load(Relaxed) >= confirmed
            && self.noticed.load(Relaxed) >= confirmed
    }

    /// Writes down one event, if there is a history.
    pub fn tell(&self, what: impl FnOnce() -> What) {
        let Some(scribe) = &self.scribe else { return };
        // What one thread has begun to write, another may finish.
        let mut scribe = scribe.lock().unwrap_or_else(PoisonError::into_inner);
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let at = time.map_or(0, |time| time.as_millis() as u64);
        let what = what();
        if let Err(error) = (Event { at, what }).write(&mut scribe.lines) {
            scribe.failure = Some(error.into());
        }
        if scribe.lines.len() > BUFFER_BYTES {
            scribe.flush();
        }
    }

    /// Writes out what was told, and says whether all of it could be written.
    pub fn flush(&self) -> io::Result<()> {
        let Some(scribe) = &self.scribe else {
            return Ok(());
        };
        let mut scribe = scribe.lock().unwrap_or_else(PoisonError::into_inner);
        scribe.flush();
        scribe.failure.take().map_or(Ok(()), Err)
    }
}

impl Scribe {
    fn flush(&mut self) {
        if let Err(error) = self.file.write_all(&self.lines) {
            self.failure = Some(error);
        }
        self.lines.clear();
    }
}
