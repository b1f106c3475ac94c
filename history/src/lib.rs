//! What happened between clients and a gateway, and whether the gateway kept its promises.
//!
//! Clients write a history: one [`Event`] a line, as JSON. [`judge`] reads it, however long it
//! is, and gives a [`Report`] of everything that should not have happened, by name. Nothing here
//! knows a socket or how the gateway works: only what it promises.
//!
//! Rooms: `event` is the vocabulary; `check` is the judge, with its own books of messages,
//! devices and faults below it; `report` is what it says.

pub mod check;
pub mod event;
pub mod report;

use std::io::BufRead;

pub use check::Judge;
pub use event::{Class, Entry, Event, Link, Place, Sent, What};
pub use report::{Kind, Report, Violation};

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("cannot read the history: {0}")]
    Read(#[from] std::io::Error),
    #[error("line {line} is no event: {source}")]
    Line {
        line: u64,
        source: serde_json::Error,
    },
}

/// Judges a history as it is read; empty lines are passed over.
pub fn judge(mut lines: impl BufRead) -> Result<Report, HistoryError> {
    let mut judge = Judge::new();
    let (mut text, mut line) = (Vec::new(), 0);
    loop {
        text.clear();
        if lines.read_until(b'\n', &mut text)? == 0 {
            return Ok(judge.finish());
        }
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let event =
            serde_json::from_slice(&text).map_err(|source| HistoryError::Line { line, source })?;
        judge.see(line, &event);
    }
}
