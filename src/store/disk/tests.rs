//! A file that is made, written, closed, opened again, and refused where it should be.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

/// A data directory that goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "throng-disk-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    fn open(&self) -> Disk {
        Disk::open(&self.0).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.0.join(STORE_FILE)
    }

    fn refusal(&self) -> OpenError {
        match Disk::open(&self.0) {
            Ok(_) => panic!("it opens"),
            Err(error) => error,
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn put(disk: &mut Disk, rows: &[(&str, &str)]) {
    disk.run(&mut |to| {
        rows.iter()
            .try_for_each(|(key, value)| to.put(key.as_bytes(), value.as_bytes()))
    })
    .unwrap();
}

fn all(disk: &mut Disk) -> Vec<(String, String)> {
    let mut all = Vec::new();
    disk.run(&mut |rows| {
        rows.scan(b"", b"\xff", &mut |key, value| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.push((text(key), text(value)));
            true
        })
    })
    .unwrap();
    all
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    rows.iter().map(own).collect()
}

#[test]
fn what_was_committed_is_there_when_it_is_opened_again_and_the_epoch_stays() {
    let folder = Folder::new();
    let mut disk = folder.open();
    let epoch = disk.epoch();
    put(&mut disk, &[("b", "2"), ("a", "1"), ("c", "")]);
    drop(disk);
    let mut disk = folder.open();
    assert_eq!(all(&mut disk), pairs(&[("a", "1"), ("b", "2"), ("c", "")]));
    assert_eq!(disk.epoch(), epoch);
    disk.set_epoch(epoch + 1).unwrap();
    drop(disk);
    assert_eq!(folder.open().epoch(), epoch + 1);
}

#[test]
fn a_transaction_sees_what_it_wrote_and_leaves_nothing_when_it_fails() {
    let folder = Folder::new();
    let mut disk = folder.open();
    put(&mut disk, &[("a", "1"), ("b", "2")]);
    let broken = Broken("no".to_owned());
    let failed = disk.run(&mut |rows| {
        rows.put(b"a", b"changed")?;
        rows.put(b"c", b"3")?;
        rows.remove(b"b")?;
        assert_eq!(rows.get(b"a")?.as_deref(), Some(&b"changed"[..]));
        assert_eq!(rows.get(b"b")?, None);
        let mut keys = Vec::new();
        rows.scan(b"a", b"d", &mut |key, _| {
            keys.push(key.to_vec());
            true
        })?;
        assert_eq!(keys, [b"a", b"c"]);
        Err(broken.clone())
    });
    assert!(matches!(failed, Err(Failure::NotDone(b)) if b == broken));
    assert_eq!(all(&mut disk), pairs(&[("a", "1"), ("b", "2")]));
    drop(disk);
    let mut disk = folder.open();
    assert_eq!(all(&mut disk), pairs(&[("a", "1"), ("b", "2")]));
}

#[test]
fn a_scan_is_in_order_within_its_bounds_and_ends_when_it_is_told() {
    let folder = Folder::new();
    let mut disk = folder.open();
    put(&mut disk, &[("a", ""), ("b", ""), ("b\0", ""), ("c", "")]);
    disk.run(&mut |rows| {
        let keys = |from: &[u8], to: &[u8], limit: usize| {
            let mut keys = Vec::new();
            rows.scan(from, to, &mut |key, _| {
                keys.push(key.to_vec());
                keys.len() < limit
            })
            .unwrap();
            keys
        };
        assert_eq!(keys(b"b", b"c", 9), [&b"b"[..], b"b\0"]);
        assert_eq!(keys(b"", b"z", 1), [b"a"]);
        assert_eq!(keys(b"c", b"c", 9), Vec::<Vec<u8>>::new());
        assert_eq!(keys(b"c", b"a", 9), Vec::<Vec<u8>>::new());
        Ok(())
    })
    .unwrap();
}

#[test]
fn who_only_reads_writes_nothing() {
    let folder = Folder::new();
    let mut disk = folder.open();
    put(&mut disk, &[("a", "1")]);
    let before = fs::read(folder.file()).unwrap();
    for _ in 0..20 {
        disk.run(&mut |rows| {
            rows.remove(b"nothing")?;
            rows.get(b"a").map(drop)
        })
        .unwrap();
    }
    assert!(fs::read(folder.file()).unwrap() == before);
}

#[test]
fn a_second_opening_is_refused_until_the_first_is_closed() {
    let folder = Folder::new();
    let disk = folder.open();
    let refusal = folder.refusal();
    assert!(matches!(refusal, OpenError::Held(_)));
    let says = refusal.to_string();
    assert!(
        says.contains(&folder.file().display().to_string()),
        "{says}"
    );
    drop(disk);
    folder.open();
}

#[test]
fn the_file_and_the_directory_are_the_owners_alone_and_no_draft_is_left() {
    let folder = Folder::new();
    drop(folder.open());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder.0), mode(&folder.file())), (0o700, 0o600));
    let names: Vec<_> = fs::read_dir(&folder.0)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [STORE_FILE]);
}

#[test]
fn starts_at_once_agree_on_one_store() {
    let folder = Folder::new();
    let opened: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| Disk::open(&folder.0)))
            .collect();
        starts.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let epochs: Vec<_> = opened.iter().flatten().map(Disk::epoch).collect();
    assert!(!epochs.is_empty());
    drop(opened);
    let epoch = folder.open().epoch();
    assert!(epochs.iter().all(|one| *one == epoch), "{epochs:?}");
}

#[test]
fn a_store_that_cannot_be_made_or_opened_says_where_and_what_to_do() {
    let folder = Folder::new();
    fs::write(&folder.0, "a file").unwrap();
    let refusal = folder.refusal();
    assert!(matches!(refusal, OpenError::Directory(..)), "{refusal}");
    assert!(refusal.to_string().contains("--store memory"));
    fs::remove_file(&folder.0).unwrap();
    fs::create_dir_all(folder.file()).unwrap();
    let refusal = folder.refusal();
    assert!(matches!(refusal, OpenError::File(..)), "{refusal}");
    fs::remove_dir(folder.file()).unwrap();
    let missing = Disk::existing(&folder.0, Look::Quick).err().unwrap();
    assert!(matches!(missing, OpenError::Missing(_)), "{missing}");
    assert!(!folder.file().exists());
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    put(&mut folder.open(), &[("a", "1")]);
    let schema = |version: u64| {
        let db = Database::open(folder.file()).unwrap();
        let transaction = db.begin_write().unwrap();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert(META_SCHEMA, version).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    };
    schema(SCHEMA + 1);
    let refusal = folder.refusal();
    assert!(matches!(refusal, OpenError::Newer(..)), "{refusal}");
    assert!(refusal.to_string().contains("its schema is 2"), "{refusal}");
    schema(0);
    assert!(matches!(folder.refusal(), OpenError::Older(..)));
    schema(SCHEMA);
    assert_eq!(all(&mut folder.open()), pairs(&[("a", "1")]));
}

#[test]
fn a_newer_file_format_is_refused_and_no_byte_is_changed() {
    let folder = Folder::new();
    put(&mut folder.open(), &[("a", "1")]);
    let mut bytes = fs::read(folder.file()).unwrap();
    // Where both commit slots of the header say their version.
    (bytes[64], bytes[192]) = (9, 9);
    fs::write(folder.file(), &bytes).unwrap();
    let refusal = folder.refusal();
    assert!(matches!(refusal, OpenError::Newer(..)), "{refusal}");
    assert!(fs::read(folder.file()).unwrap() == bytes);
}

#[test]
fn what_is_no_store_is_refused_and_no_byte_is_changed() {
    let folder = Folder::new();
    put(&mut folder.open(), &[("a", "1")]);
    let whole = fs::read(folder.file()).unwrap();
    for bytes in [
        &b"something else, which is long enough"[..],
        b"x",
        &whole[..200],
    ] {
        fs::write(folder.file(), bytes).unwrap();
        let refusal = folder.refusal();
        assert!(matches!(refusal, OpenError::Damaged(..)), "{refusal}");
        assert!(fs::read(folder.file()).unwrap() == bytes);
    }
}

#[test]
fn after_an_error_it_rests_and_then_opens_the_file_again_and_proves_itself() {
    let folder = Folder::new();
    let mut disk = folder.open();
    put(&mut disk, &[("a", "1")]);
    let commits = disk.meta.commits;
    disk.fail();
    let down = disk.run(&mut |_| panic!("it rests"));
    assert!(matches!(down, Err(Failure::Down(_))));
    // Meanwhile somebody else has it.
    let other = folder.open();
    disk.rests_until = None;
    let down = disk.run(&mut |_| panic!("it cannot be opened"));
    assert!(matches!(down, Err(Failure::Down(_))));
    assert!(disk.rests_until.is_some());
    drop(other);
    disk.rests_until = None;
    assert_eq!(all(&mut disk), pairs(&[("a", "1")]));
    assert_eq!(disk.meta.commits, commits + 1, "it wrote something");
    all(&mut disk);
    assert_eq!(disk.meta.commits, commits + 1, "and then no more");
}

#[test]
fn what_became_of_a_commit_that_failed_is_found_out() {
    let folder = Folder::new();
    let mut disk = folder.open();
    put(&mut disk, &[("a", "1")]);
    let error = || Broken("no".to_owned());
    disk.fail();
    assert!(matches!(disk.settle(error()), Failure::Down(_)));
    // The file has more than was known to be there.
    disk.meta.commits -= 1;
    disk.fail();
    assert!(matches!(disk.settle(error()), Failure::Unknown(_)));
    disk.rests_until = None;
    put(&mut disk, &[("b", "2")]);
    assert_eq!(all(&mut disk), pairs(&[("a", "1"), ("b", "2")]));
    // Nobody can say.
    disk.fail();
    let other = folder.open();
    assert!(matches!(disk.settle(error()), Failure::Unknown(_)));
    drop(other);
}
