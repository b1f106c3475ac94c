//! What an operator does with a store while no node runs on it: check it, export it as lines of
//! JSON, import such lines.
//!
//! Invariants: checking and exporting change nothing; an import is whole or leaves nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Disk, Failure, Look, OpenError, new_epoch};
use crate::inbox::RowName;
use crate::inbox::batch::Store;
use crate::inbox::check::{self, Tally};
use crate::inbox::records::{Head, decode, encode};
use crate::inbox::rows::{Broken, Rows, all};
use crate::inbox::text::{from_line, to_line};

/// The version of what an export looks like.
const EXPORT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store cannot be read or written, and nothing was changed: {0}")]
    Store(#[from] Failure),
    #[error("cannot use {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the store has {0} problems")]
    Unsound(u64),
    #[error("{0} rows could not be exported; the others were")]
    Unexported(u64),
    #[error("the store {0} is not empty, and nothing was imported: name a new directory")]
    NotEmpty(PathBuf),
    #[error("line {0}: {1}. Nothing was imported")]
    Line(u64, String),
}

/// The lines around the rows of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", deny_unknown_fields)]
enum Frame {
    /// The first.
    Store { version: u32, epoch: u64 },
    /// The last: without it the export was cut off.
    End { rows: u64 },
}

/// Entries and delayed messages that the store in `data_dir` still has for somebody.
pub fn waiting(data_dir: &Path) -> Result<u64, ToolError> {
    let mut disk = Disk::existing(data_dir, Look::Quick)?;
    let mut tally = Tally::default();
    disk.run(&mut |rows| {
        tally = check::check(rows, &mut |_| {})?;
        Ok(())
    })?;
    Ok(tally.entries + tally.delayed)
}

/// Reads all of the store; what is wrong with it goes to `out`, a line each, and then what there
/// is.
pub fn check(data_dir: &Path, out: &mut dyn Write) -> Result<(), ToolError> {
    let mut disk = Disk::existing(data_dir, Look::Whole)?;
    let (mut problems, mut written, mut tally) = (0, Ok(()), Tally::default());
    disk.run(&mut |rows| {
        tally = check::check(rows, &mut |problem| {
            problems += 1;
            if written.is_ok() {
                written = writeln!(out, "{problem}");
            }
        })?;
        Ok(())
    })?;
    written?;
    let Tally {
        rows,
        inboxes,
        entries,
        groups,
        delayed,
    } = tally;
    writeln!(
        out,
        "{rows} rows: {inboxes} inboxes, {entries} entries, {groups} groups, {delayed} delayed \
         messages"
    )?;
    match problems {
        0 => Ok(()),
        problems => Err(ToolError::Unsound(problems)),
    }
}

/// Writes all rows to `file`, which must not be there, or to `out`. What cannot be read is left
/// out, and named in `says`.
pub fn export(
    data_dir: &Path,
    file: Option<&Path>,
    out: &mut dyn Write,
    says: &mut dyn Write,
) -> Result<(), ToolError> {
    let mut disk = Disk::existing(data_dir, Look::Quick)?;
    let Some(path) = file else {
        return export_to(&mut disk, &mut BufWriter::new(out), says);
    };
    let unusable = |error| ToolError::File(path.to_owned(), error);
    // It holds what users wrote to each other.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(unusable)?;
    let outcome = export_to(&mut disk, &mut BufWriter::new(&file), says);
    file.sync_all().map_err(unusable)?;
    outcome
}

fn export_to(disk: &mut Disk, out: &mut dyn Write, says: &mut dyn Write) -> Result<(), ToolError> {
    let (mut written, mut count, mut left) = (Ok(()), 0, 0);
    frame(
        out,
        &Frame::Store {
            version: EXPORT,
            epoch: disk.epoch(),
        },
    )?;
    disk.run(&mut |rows| {
        rows.scan(&[], all::END, &mut |key, value| {
            written = match to_line(key, value) {
                Ok(line) => {
                    count += 1;
                    writeln!(out, "{line}")
                }
                Err(broken) => {
                    left += 1;
                    let name = RowName::parse(key).map(|name| name.to_string());
                    let name = name.unwrap_or_else(|| key.escape_ascii().to_string());
                    writeln!(says, "{name}: {broken}")
                }
            };
            written.is_ok()
        })
    })?;
    written?;
    frame(out, &Frame::End { rows: count })?;
    out.flush()?;
    match left {
        0 => Ok(()),
        left => Err(ToolError::Unexported(left)),
    }
}

fn frame(out: &mut dyn Write, frame: &Frame) -> Result<(), ToolError> {
    let line = serde_json::to_string(frame).map_err(io::Error::from)?;
    Ok(writeln!(out, "{line}")?)
}

/// Reads the rows of an export from `file`, or from `input`, into a store that is made, or is
/// empty. `may_miss_some`: the node went on after the export, so that every inbox gets another
/// epoch, and devices are told that they may have missed something. Returns the number of rows.
pub fn import(
    data_dir: &Path,
    file: Option<&Path>,
    input: &mut dyn BufRead,
    may_miss_some: bool,
) -> Result<u64, ToolError> {
    let Some(path) = file else {
        return import_from(data_dir, input, may_miss_some);
    };
    let file = File::open(path).map_err(|error| ToolError::File(path.to_owned(), error))?;
    import_from(data_dir, &mut BufReader::new(file), may_miss_some)
}

fn import_from(
    data_dir: &Path,
    input: &mut dyn BufRead,
    may_miss_some: bool,
) -> Result<u64, ToolError> {
    let mut lines = Lines { input, number: 0 };
    let epoch = match lines.next()? {
        Some(Frame::Store { version, epoch }) if version == EXPORT => epoch,
        Some(Frame::Store { version, .. }) => {
            let what = format!("the export has version {version}, and {EXPORT} is known here");
            return Err(lines.wrong(what));
        }
        _ => return Err(lines.wrong("an export begins with the kind store")),
    };
    let mut disk = Disk::open(data_dir)?;
    let epoch = if may_miss_some {
        new_epoch().map_err(OpenError::Random)?
    } else {
        epoch
    };
    let mut is_empty = true;
    disk.run(&mut |rows| {
        rows.scan(&[], all::END, &mut |_, _| {
            is_empty = false;
            false
        })
    })?;
    if !is_empty {
        return Err(ToolError::NotEmpty(disk.path().to_owned()));
    }
    disk.set_epoch(epoch)?;
    let mut filled = Ok(0);
    let outcome = disk.run(&mut |rows| {
        filled = fill(rows, &mut lines, may_miss_some.then_some(epoch));
        match &filled {
            Ok(_) => Ok(()),
            // Nothing of it is to be kept.
            Err(error) => Err(Broken(error.to_string())),
        }
    });
    let count = filled?;
    outcome?;
    Ok(count)
}

/// Puts all lines into `rows`, and inboxes with `epoch`, if one is given.
fn fill(rows: &mut dyn Rows, lines: &mut Lines<'_>, epoch: Option<u64>) -> Result<u64, ToolError> {
    let broken = |error| ToolError::Store(Failure::NotDone(error));
    let mut count = 0;
    loop {
        let Some(line) = lines.line()? else {
            return Err(lines.wrong("the export was cut off before its end"));
        };
        if let Ok(Frame::End { rows }) = serde_json::from_str(&line) {
            if rows != count {
                return Err(lines.wrong(format!("there should be {rows} rows, not {count}")));
            }
            return match lines.line()? {
                None => Ok(count),
                Some(_) => Err(lines.wrong("it stands behind the end of the export")),
            };
        }
        let (key, mut value) = from_line(&line).map_err(|what| lines.wrong(what))?;
        if rows.get(&key).map_err(broken)?.is_some() {
            return Err(lines.wrong("this row came before"));
        }
        if let (Some(epoch), Some(RowName::Head { .. })) = (epoch, RowName::parse(&key)) {
            let mut head: Head = decode("inbox", &value).map_err(broken)?;
            head.begin_epoch(epoch);
            value = encode(&head);
        }
        rows.put(&key, &value).map_err(broken)?;
        count += 1;
    }
}

struct Lines<'a> {
    input: &'a mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    fn line(&mut self) -> Result<Option<String>, ToolError> {
        let mut line = String::new();
        self.number += 1;
        match self.input.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) => Err(self.wrong(error)),
        }
    }

    fn next(&mut self) -> Result<Option<Frame>, ToolError> {
        let line = self.line()?;
        Ok(line.and_then(|line| serde_json::from_str(&line).ok()))
    }

    fn wrong(&self, what: impl std::fmt::Display) -> ToolError {
        ToolError::Line(self.number, what.to_string())
    }
}

#[cfg(test)]
mod tests;
