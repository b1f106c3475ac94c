//! Rows of inboxes, each with the life of the server under which it was last touched.
//!
//! Owns: those marks, in rows beside the heads. Invariant: whoever reads the head of an inbox
//! that was touched under another life finds it with a new epoch, as `head.lua` has it.

use std::cell::RefCell;

use throng::inbox::memory::MemoryRows;
use throng::inbox::records::{Head, decode, encode};
use throng::inbox::rows::{self, Broken, Rows, Visit};

/// Of the rows of lives: no other row begins with it.
const RUN: u8 = b'r';

pub struct Touched<'a> {
    rows: RefCell<&'a mut MemoryRows>,
    run: u64,
    /// The epoch of inboxes of which it is not known what they have lost.
    fresh: u64,
    lost: RefCell<Vec<String>>,
}

impl Touched<'_> {
    pub fn new(rows: &mut MemoryRows, run: u64, fresh: u64) -> Touched<'_> {
        Touched {
            rows: RefCell::new(rows),
            run,
            fresh,
            lost: RefCell::default(),
        }
    }

    /// Users with devices that have not heard yet that something may be lost.
    pub fn into_lost(self) -> Vec<String> {
        self.lost.into_inner()
    }

    fn touch(&self, key: &[u8], row: &[u8]) -> Result<Vec<u8>, Broken> {
        let run = self.run.to_be_bytes();
        let mut rows = self.rows.borrow_mut();
        if rows.get(&run_of(key))?.as_deref() == Some(&run[..]) {
            return Ok(row.to_vec());
        }
        let mut head: Head = decode("inbox", row)?;
        let is_news = head.devices.iter().any(|device| !device.resync);
        head.begin_epoch(self.fresh);
        let row = encode(&head);
        rows.put(key, &row)?;
        rows.put(&run_of(key), &run)?;
        if is_news {
            self.lost
                .borrow_mut()
                .push(rows::first_id_of(key).to_owned());
        }
        Ok(row)
    }
}

fn is_head(key: &[u8]) -> bool {
    key.starts_with(&rows::all::heads())
}

fn run_of(head: &[u8]) -> Vec<u8> {
    [&[RUN], &head[1..]].concat()
}

impl Rows for Touched<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let row = self.rows.borrow().get(key)?;
        match row {
            Some(row) if is_head(key) => self.touch(key, &row).map(Some),
            row => Ok(row),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        let rows = self.rows.get_mut();
        if is_head(key) {
            rows.put(&run_of(key), &self.run.to_be_bytes())?;
        }
        rows.put(key, value)
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Broken> {
        let rows = self.rows.get_mut();
        if is_head(key) {
            rows.remove(&run_of(key))?;
        }
        rows.remove(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken> {
        self.rows.borrow().scan(from, to, visit)
    }
}
