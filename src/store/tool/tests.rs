//! Stores that have lived a little go out as text and come in again.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use smallvec::SmallVec;

use super::*;
use crate::inbox::records::{Author, Entry, EntryBody, Text};
use crate::inbox::{Accept, Books, InboxRules, Presence, Reach, rows};
use crate::protocol::envelope::MessageId;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "throng-tool-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Nobody;

impl Presence for Nobody {
    fn devices(&self, _: &str) -> SmallVec<[String; 2]> {
        SmallVec::new()
    }
}

const RULES: InboxRules = InboxRules {
    entries_max: 10,
    bytes_max: 1 << 20,
    notices_max: 10,
    devices_max: 2,
    ttl_ms: 1000,
    seen_ms: 1000,
    seen_max: 5,
};

/// Three chats from alice to bob, of which he has two, and one that is due later.
fn lived() -> Folder {
    let folder = Folder::new();
    let mut disk = Disk::open(&folder.0).unwrap();
    let epoch = disk.epoch();
    disk.run(&mut |rows| {
        let mut books = Books {
            rows,
            presence: &Nobody,
            rules: &RULES,
            now_ms: 1,
            epoch,
            rings: &mut Vec::new(),
        };
        for n in 1..4 {
            books.accept(&chat(n))?;
        }
        books.schedule(&chat(9), 77)?;
        books.remember_device("bob", "phone")?;
        let got = Reach::Messages(vec![chat(1).entry.id, chat(2).entry.id]);
        books.acknowledge("bob", "phone", &got).map(drop)
    })
    .unwrap();
    folder
}

fn chat(n: u8) -> Accept {
    let from = Author {
        name: "Alice".to_owned(),
        is_online: true,
    };
    let text = Text {
        message: format!("\"\\u00e9 {n}\""),
        file_type: "0".to_owned(),
    };
    Accept {
        to: "bob".to_owned(),
        sender: "alice".to_owned(),
        msgid: Some(format!("m{n}")),
        entry: Entry {
            id: MessageId([n; 16]).at(1),
            at_ms: 1,
            from: "system".to_owned(),
            request_id: Some("r".to_owned()),
            is_http: false,
            body: EntryBody::Chat { from, text },
        },
    }
}

fn exported(dir: &Path) -> String {
    let (mut out, mut says) = (Vec::new(), Vec::new());
    export(dir, None, &mut out, &mut says).unwrap();
    assert!(says.is_empty());
    String::from_utf8(out).unwrap()
}

fn imported(dir: &Path, text: &str) -> Result<u64, ToolError> {
    import(dir, None, &mut text.as_bytes(), false)
}

#[test]
fn an_import_of_an_export_is_the_same_store() {
    let first = lived();
    let text = exported(&first.0);
    let second = Folder::new();
    let rows = imported(&second.0, &text).unwrap();
    assert_eq!(rows, text.lines().count() as u64 - 2);
    assert_eq!(exported(&second.0), text);
    let epochs = [&first, &second].map(|folder| Disk::open(&folder.0).unwrap().epoch());
    assert_eq!(epochs[0], epochs[1]);
    let mut out = Vec::new();
    check(&second.0, &mut out).unwrap();
    let says = String::from_utf8(out).unwrap();
    assert!(
        says.contains("2 inboxes, 3 entries, 0 groups, 1 delayed"),
        "{says}"
    );
}

#[test]
fn an_export_goes_to_a_new_file_of_the_owner_and_comes_from_it() {
    use std::os::unix::fs::MetadataExt;

    let (store, other) = (lived(), Folder::new());
    let file = store.0.join("export.json");
    let to_file = || export(&store.0, Some(&file), &mut io::sink(), &mut io::sink());
    to_file().unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(matches!(to_file(), Err(ToolError::File(..))), "it is there");
    import(&other.0, Some(&file), &mut io::empty(), false).unwrap();
    assert_eq!(exported(&other.0), fs::read_to_string(&file).unwrap());
}

#[test]
fn where_messages_may_be_missing_every_inbox_gets_another_epoch_and_every_device_is_to_hear_it() {
    let (store, other) = (lived(), Folder::new());
    let text = exported(&store.0);
    import(&other.0, None, &mut text.as_bytes(), true).unwrap();
    let (old, new) = (
        Disk::open(&store.0).unwrap().epoch(),
        Disk::open(&other.0).unwrap().epoch(),
    );
    assert_ne!(old, new);
    let epoch = |epoch: u64| format!("\"epoch\":{epoch}");
    // Nothing else changes. Alice has no device that could be told: the first that comes is.
    let wanted = text
        .replace(&epoch(old), &epoch(new))
        .replace("\"resync\":false", "\"resync\":true")
        .replacen("\"lost\":false", "\"lost\":true", 1);
    assert_eq!(exported(&other.0), wanted);
}

#[test]
fn an_import_is_whole_or_nothing() {
    let text = exported(&lived().0);
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_first().unwrap();
    let (end, rows) = rest.split_last().unwrap();
    let joined = |lines: &[&str]| lines.join("\n");
    let cut = joined(&lines[..lines.len() - 1]);
    let short = joined(&[&[*first], &rows[1..], &[*end]].concat());
    let twice = joined(&[&[*first], &rows[..1], rows, &[*end]].concat());
    let behind = format!("{text}{}\n", rows[0]);
    let spoiled = text.replace("\"owesNotice\":true", "\"owesNotice\":7");
    let newer = text.replace("\"version\":1", "\"version\":2");
    let count = lines.len();
    for (text, line, why) in [
        (cut, count, "cut off"),
        (short, count - 1, "there should be"),
        (twice, 3, "came before"),
        (behind, count + 1, "behind the end"),
        (spoiled, 6, "invalid type"),
        (newer, 1, "version 2"),
        (joined(rest), 1, "begins with"),
        (String::new(), 1, "begins with"),
    ] {
        let folder = Folder::new();
        let error = imported(&folder.0, &text).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        let numbered = error.starts_with(&format!("line {line}: "));
        assert!(numbered || why == "invalid type", "{line}: {error}");
        if folder.0.exists() {
            assert_eq!(exported(&folder.0).lines().count(), 2, "{why}");
        }
    }
}

#[test]
fn an_import_into_a_store_that_is_not_empty_is_refused_and_changes_nothing() {
    let (one, other) = (lived(), lived());
    let (text, before) = (exported(&one.0), exported(&other.0));
    let refused = imported(&other.0, &text);
    assert!(matches!(refused, Err(ToolError::NotEmpty(_))));
    assert_eq!(exported(&other.0), before);
}

#[test]
fn what_is_wrong_is_named_by_its_row_and_the_rest_is_exported() {
    let store = lived();
    let mut disk = Disk::open(&store.0).unwrap();
    disk.run(&mut |rows| {
        rows.put(&rows::entry("bob", 3), b"\x01?")?;
        rows.put(b"?", b"")
    })
    .unwrap();
    drop(disk);
    let mut out = Vec::new();
    let found = check(&store.0, &mut out);
    assert!(matches!(found, Err(ToolError::Unsound(2))), "{found:?}");
    let says = String::from_utf8(out).unwrap();
    assert!(
        says.contains("\nentry bob 3: ") || says.starts_with("entry bob 3: "),
        "{says}"
    );
    assert!(says.contains("no row is called ?"), "{says}");

    let (mut out, mut says) = (Vec::new(), Vec::new());
    let left = export(&store.0, None, &mut out, &mut says);
    assert!(matches!(left, Err(ToolError::Unexported(2))), "{left:?}");
    let says = String::from_utf8(says).unwrap();
    assert!(says.contains("entry bob 3: "), "{says}");
    let other = Folder::new();
    imported(&other.0, &String::from_utf8(out).unwrap()).unwrap();
}
