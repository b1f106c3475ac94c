//! The store on disk: one file, in which rows outlive the process and the power.
//!
//! Owns: the file and the lock on it, our version of its format, the epoch of inboxes that begin
//! now.
//! Invariants: what was committed was written through to the disk; what was not leaves nothing
//! behind; after an error nothing is written until the file has been opened again, because only
//! then is it known what it holds.

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    Table, TableDefinition, TableError,
};

use crate::inbox::batch::{Failure, Store};
use crate::inbox::rows::{Broken, Rows, Visit};
use crate::parts::faults::Mutant;

/// Its name in the data directory.
pub const STORE_FILE: &str = "store.redb";

/// The version of what stands in the tables; records have one of their own.
const SCHEMA: u64 = 1;
/// The names of rows carry their kind.
const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");
/// What is known of the store itself.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_SCHEMA: &str = "schema";
const META_EPOCH: &str = "epoch";
/// Counts commits, so that it can be found out whether the last one was done.
const META_COMMITS: &str = "commits";

/// Pages kept in memory: more is not faster for inboxes, which are read once.
const CACHE_BYTES: usize = 24 << 20;
/// After an error the disk has so long before it is asked again: one that is full, or gone, would
/// fail again at once, and each attempt holds up everybody who waits.
const REST: Duration = Duration::from_secs(1);

/// Why there is no store, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "cannot make the data directory {0}: {1}. Name another with --data-dir, or keep messages \
         in memory only with --store memory"
    )]
    Directory(PathBuf, io::Error),
    #[error(
        "cannot open the store {0}: {1}. Make it and its directory writable for the server's \
         user, or name another directory with --data-dir"
    )]
    File(PathBuf, io::Error),
    #[error(
        "the store {0} is in use by another process: a data directory belongs to one node. Stop \
         that node, or name another directory with --data-dir"
    )]
    Held(PathBuf),
    #[error("there is no store {0}: name the directory of a node with --data-dir")]
    Missing(PathBuf),
    #[error(
        "the store {0} was written by a newer version and was left as it is ({1}). Start that \
         version, or name another directory with --data-dir"
    )]
    Newer(PathBuf, String),
    #[error(
        "the store {0} is in a format that this version does not read any more, and was left as \
         it is ({1}). Export it with the version that wrote it, and import it into a new one"
    )]
    Older(PathBuf, String),
    #[error(
        "the store {0} is damaged and was left as it is ({1}). Put a backup in its place, or move \
         it away: the node then begins a new one, without what was kept"
    )]
    Damaged(PathBuf, String),
    #[error("cannot read or write the store {0}: {1}")]
    Failed(PathBuf, String),
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// How thoroughly a store is looked at when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is trusted if it was closed, or mended by what it says of itself: some milliseconds.
    Quick,
    /// Every page is read and its checksum proven.
    Whole,
}

pub struct Disk {
    path: PathBuf,
    /// None after an error.
    db: Option<Database>,
    meta: Meta,
    /// It failed the last time: the next transaction has to write something to prove itself.
    is_in_doubt: bool,
    /// It is left alone until then.
    rests_until: Option<Instant>,
}

/// What the store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Meta {
    epoch: u64,
    commits: u64,
}

impl Disk {
    /// The store in `data_dir`; it (and the directory) is made where there is none.
    pub fn open(data_dir: &Path) -> Result<Disk, OpenError> {
        let path = data_dir.join(STORE_FILE);
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(data_dir)
                .map_err(|error| OpenError::Directory(data_dir.to_owned(), error))?;
            create(data_dir, &path)?;
            // The directory may be new itself. Whoever may not read the one above it did not
            // make it.
            if let Ok(above) = File::open(data_dir.join("..")) {
                let _ = above.sync_all();
            }
        }
        Disk::existing(data_dir, Look::Quick)
    }

    /// The store in `data_dir`, which is there.
    pub fn existing(data_dir: &Path, look: Look) -> Result<Disk, OpenError> {
        let path = data_dir.join(STORE_FILE);
        let (db, meta) = load(&path, look)?;
        Ok(Disk {
            path,
            db: Some(db),
            meta,
            is_in_doubt: false,
            rests_until: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of inboxes that begin now: the same for the life of the store.
    pub fn epoch(&self) -> u64 {
        self.meta.epoch
    }

    /// Takes the epoch of another store.
    pub fn set_epoch(&mut self, epoch: u64) -> Result<(), Failure> {
        self.transact(Some(epoch), &mut |_| Ok(()))?;
        self.meta.epoch = epoch;
        Ok(())
    }

    fn transact(
        &mut self,
        epoch: Option<u64>,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<(), Failure> {
        let is_forced = self.is_in_doubt || epoch.is_some();
        let (db, meta) = self.opened()?;
        let order = Order {
            commits: meta.commits + 1,
            epoch,
            is_forced,
        };
        match order.carry_out(db, work) {
            Ok(is_written) => {
                if is_written {
                    self.meta.commits = order.commits;
                }
                self.is_in_doubt = false;
                Ok(())
            }
            Err(Trouble::Work(broken)) => Err(Failure::NotDone(broken)),
            Err(Trouble::Before(broken)) => {
                self.fail();
                Err(Failure::Down(broken))
            }
            Err(Trouble::Commit(broken)) => {
                self.fail();
                Err(self.settle(broken))
            }
        }
    }

    fn opened(&mut self) -> Result<(&Database, Meta), Failure> {
        if let Some(until) = self.rests_until {
            if Instant::now() < until {
                return Err(Failure::Down(Broken("it failed a moment ago".to_owned())));
            }
            self.rests_until = None;
        }
        let (db, meta) = match self.db.take() {
            Some(db) => (db, self.meta),
            None => load(&self.path, Look::Quick).map_err(|error| {
                self.rests_until = Some(Instant::now() + REST);
                Failure::Down(Broken(error.to_string()))
            })?,
        };
        self.meta = meta;
        Ok((self.db.insert(db), meta))
    }

    /// After an error in the file nothing is known of it, and nothing can be written to it,
    /// until it is opened again.
    fn fail(&mut self) {
        self.db = None;
        self.is_in_doubt = true;
        self.rests_until = Some(Instant::now() + REST);
    }

    /// Finds out what became of a commit that failed. Where the file does not have it, it never
    /// will: the step that would have made it valid came last, and was not taken. Where the file
    /// has it, that step may still be lost with the power, so nobody can promise anything.
    fn settle(&mut self, broken: Broken) -> Failure {
        match load(&self.path, Look::Quick) {
            Ok((db, meta)) => {
                let is_there = meta.commits != self.meta.commits;
                (self.db, self.meta) = (Some(db), meta);
                if is_there {
                    Failure::Unknown(broken)
                } else {
                    Failure::Down(broken)
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the store cannot be opened again yet");
                Failure::Unknown(broken)
            }
        }
    }
}

impl Store for Disk {
    fn run(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<(), Failure> {
        self.transact(None, work)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(db) = self.db.take()
            && let Err(error) = db.close()
        {
            // All that was acknowledged is in it; the next start mends the rest.
            tracing::warn!(%error, "the store was not closed in order");
        }
    }
}

/// One transaction.
struct Order {
    /// The number that it has if it is written.
    commits: u64,
    epoch: Option<u64>,
    /// It is written even where nothing has changed.
    is_forced: bool,
}

/// Why a transaction was not carried out.
enum Trouble {
    /// Whoever worked in it says so.
    Work(Broken),
    /// The file cannot be read or written. Nothing was committed.
    Before(Broken),
    /// It was to be committed.
    Commit(Broken),
}

impl Order {
    /// True if something was written. What only reads costs no write, however often it is done.
    fn carry_out(
        &self,
        db: &Database,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<bool, Trouble> {
        let mut transaction = db.begin_write().map_err(before)?;
        // The free pages are written down with each commit: the file opens in milliseconds
        // after a crash, however large it is.
        transaction.set_quick_repair(true);
        if Mutant::AnswersEarly.is_on() {
            transaction
                .set_durability(Durability::None)
                .map_err(before)?;
        }
        let mut rows = TableRows {
            table: transaction.open_table(ROWS).map_err(before)?,
            is_changed: false,
            failure: RefCell::default(),
        };
        let outcome = work(&mut rows);
        let (is_changed, failure) = (rows.is_changed, rows.failure.take());
        drop(rows);
        if let Some(failure) = failure {
            // It would fail in the same way.
            let _ = transaction.abort();
            return Err(Trouble::Before(Broken(failure)));
        }
        if outcome.is_err() || !(is_changed || self.is_forced) {
            transaction.abort().map_err(before)?;
            return outcome.map(|()| false).map_err(Trouble::Work);
        }
        {
            let mut meta = transaction.open_table(META).map_err(before)?;
            meta.insert(META_COMMITS, self.commits).map_err(before)?;
            if let Some(epoch) = self.epoch {
                meta.insert(META_EPOCH, epoch).map_err(before)?;
            }
        }
        transaction
            .commit()
            .map_err(|error| Trouble::Commit(Broken(error.to_string())))?;
        Ok(true)
    }
}

fn before(error: impl std::fmt::Display) -> Trouble {
    Trouble::Before(Broken(error.to_string()))
}

/// The rows within a transaction.
struct TableRows<'t> {
    table: Table<'t, &'static [u8], &'static [u8]>,
    is_changed: bool,
    /// The file cannot be read or written, as opposed to one row of it.
    failure: RefCell<Option<String>>,
}

impl TableRows<'_> {
    fn broken(&self, error: &StorageError) -> Broken {
        let text = error.to_string();
        // A damaged page harms those whose rows stand on it.
        let is_of_a_row = matches!(
            error,
            StorageError::Corrupted(_) | StorageError::ValueTooLarge(_)
        );
        if !is_of_a_row {
            *self.failure.borrow_mut() = Some(text.clone());
        }
        Broken(text)
    }
}

impl Rows for TableRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
        let value = self.table.get(key).map_err(|error| self.broken(&error))?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        self.is_changed = true;
        let result = self.table.insert(key, value).map(drop);
        result.map_err(|error| self.broken(&error))
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Broken> {
        let result = self.table.remove(key).map(|before| before.is_some());
        self.is_changed |= result.map_err(|error| self.broken(&error))?;
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        let range = self.table.range::<&[u8]>(from..to);
        for row in range.map_err(|error| self.broken(&error))? {
            let (key, value) = row.map_err(|error| self.broken(&error))?;
            if !visit(key.value(), value.value()) {
                break;
            }
        }
        Ok(())
    }
}

/// Makes a store under another name first: it is either absent or whole. Of two starts that make
/// it at once, one wins, and the other finds it in use.
fn create(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let epoch = new_epoch().map_err(OpenError::Random)?;
    // A name of its own: in containers that share a directory, all processes have one id.
    let draft = dir.join(format!(".{STORE_FILE}.{epoch:08x}"));
    let made = fill(&draft, epoch, path).and_then(|()| {
        // A link, unlike a rename, fails where the name is taken.
        let linked = fs::hard_link(&draft, path);
        let synced = linked.and_then(|()| File::open(dir)?.sync_all());
        match synced {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(OpenError::File(path.to_owned(), error))
            }
            _ => Ok(()),
        }
    });
    let _ = fs::remove_file(&draft);
    made
}

/// Begins a store in the file `draft`, which will be `path`.
fn fill(draft: &Path, epoch: u64, path: &Path) -> Result<(), OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(draft)
        .map_err(|error| OpenError::File(path.to_owned(), error))?;
    let db = database(file, path, Look::Quick)?;
    let mut transaction = db.begin_write().map_err(|e| failed(path, e))?;
    transaction.set_quick_repair(true);
    {
        let mut meta = transaction.open_table(META).map_err(|e| failed(path, e))?;
        for (key, value) in [
            (META_SCHEMA, SCHEMA),
            (META_EPOCH, epoch),
            (META_COMMITS, 0),
        ] {
            meta.insert(key, value).map_err(|e| failed(path, e))?;
        }
        transaction.open_table(ROWS).map_err(|e| failed(path, e))?;
    }
    transaction.commit().map_err(|e| failed(path, e))?;
    db.close().map_err(|e| failed(path, e))
}

/// For inboxes whose rows were never there, or may not be all there.
pub fn new_epoch() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes).into())
}

fn load(path: &Path, look: Look) -> Result<(Database, Meta), OpenError> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        _ => OpenError::File(path.to_owned(), error),
    })?;
    let length = file.metadata().map(|file| file.len());
    if length.map_err(|error| OpenError::File(path.to_owned(), error))? == 0 {
        // The library would begin a new one in it.
        return Err(OpenError::Damaged(
            path.to_owned(),
            "it is empty".to_owned(),
        ));
    }
    let db = database(file, path, look)?;
    let meta = meta(&db, path)?;
    Ok((db, meta))
}

fn database(file: File, path: &Path, look: Look) -> Result<Database, OpenError> {
    let backend = FileBackend::new(file).map_err(|error| of_open(path, error))?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(look == Look::Whole)
        .create_with_backend(backend)
        .map_err(|error| of_open(path, error))
}

fn meta(db: &Database, path: &Path) -> Result<Meta, OpenError> {
    let transaction = db.begin_read().map_err(|e| failed(path, e))?;
    let table = transaction.open_table(META).map_err(|error| match error {
        TableError::Storage(error) => of_storage(path, error),
        other => OpenError::Damaged(path.to_owned(), other.to_string()),
    })?;
    let number = |key: &str| {
        let value = table.get(key).map_err(|error| of_storage(path, error))?;
        let value = value.map(|value| value.value());
        value.ok_or_else(|| OpenError::Damaged(path.to_owned(), format!("it has no {key}")))
    };
    let schema = number(META_SCHEMA)?;
    let what = || format!("its schema is {schema}, and {SCHEMA} is known here");
    match schema {
        SCHEMA => Ok(Meta {
            epoch: number(META_EPOCH)?,
            commits: number(META_COMMITS)?,
        }),
        ..SCHEMA => Err(OpenError::Older(path.to_owned(), what())),
        _ => Err(OpenError::Newer(path.to_owned(), what())),
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> OpenError {
    OpenError::Failed(path.to_owned(), error.to_string())
}

fn of_open(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Held(path.to_owned())
        }
        DatabaseError::UpgradeRequired(_) => OpenError::Older(path.to_owned(), error.to_string()),
        DatabaseError::Storage(error) => of_storage(path, error),
        other => failed(path, other),
    }
}

fn of_storage(path: &Path, error: StorageError) -> OpenError {
    match error {
        // The library has no other word for it.
        StorageError::Corrupted(what) if what.starts_with("Expected file format version") => {
            OpenError::Newer(path.to_owned(), what)
        }
        StorageError::Corrupted(what) => OpenError::Damaged(path.to_owned(), what),
        StorageError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            OpenError::Damaged(path.to_owned(), error.to_string())
        }
        other => failed(path, other),
    }
}

#[cfg(test)]
mod tests;
