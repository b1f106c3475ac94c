//! Rows that the contract has written, whole and spoiled.

use smallvec::SmallVec;

use super::*;
use crate::inbox::memory::MemoryRows;
use crate::inbox::records::{Author, EntryBody, Text, encode};
use crate::inbox::{
    Accept, Accepted, Books, GroupAccept, GroupChange, GroupRules, InboxRules, Presence, Reach,
};

struct Nobody;

impl Presence for Nobody {
    fn devices(&self, _: &str) -> SmallVec<[String; 2]> {
        SmallVec::new()
    }
}

const RULES: InboxRules = InboxRules {
    entries_max: 10,
    bytes_max: 1 << 20,
    notices_max: 2,
    devices_max: 2,
    ttl_ms: 1000,
    seen_ms: 1000,
    seen_max: 5,
};

fn books<T>(rows: &mut MemoryRows, now_ms: u64, with: impl FnOnce(&mut Books<'_>) -> T) -> T {
    with(&mut Books {
        rows,
        presence: &Nobody,
        rules: &RULES,
        now_ms,
        epoch: 5,
        rings: &mut Vec::new(),
    })
}

fn id(n: u8) -> MessageId {
    MessageId([n; 16]).at(1)
}

fn chat(to: &str, from: &str, n: u8) -> Accept {
    let text = Text {
        message: format!("\"{n}\""),
        file_type: "0".to_owned(),
    };
    let author = Author {
        name: from.to_owned(),
        is_online: true,
    };
    Accept {
        to: to.to_owned(),
        sender: from.to_owned(),
        msgid: Some(format!("m{n}")),
        entry: Entry {
            id: id(n),
            at_ms: 1,
            from: SYSTEM.to_owned(),
            request_id: None,
            is_http: false,
            body: EntryBody::Chat { from: author, text },
        },
    }
}

/// Chats that were acknowledged and others, more notices than are kept, a group with work to
/// do, and messages that are due later.
fn lived() -> MemoryRows {
    let mut rows = MemoryRows::default();
    books(&mut rows, 1, |books| {
        for n in 1..8 {
            let accepted = books.accept(&chat("bob", "alice", n)).unwrap();
            assert_eq!(accepted, Accepted::New(id(n)));
        }
        books.remember_device("bob", "phone").unwrap();
        let got = Reach::Messages((1..6).chain([7]).map(id).collect());
        books.acknowledge("bob", "phone", &got).unwrap();
        let rules = GroupRules {
            per_user_max: 3,
            members_max: 3,
            is_open: false,
        };
        let make = GroupChange::Create {
            members: vec!["bob".to_owned()],
        };
        books
            .change_group("team", Some("alice"), &make, &rules)
            .unwrap()
            .unwrap();
        for n in 20..22 {
            let Accept {
                sender,
                msgid,
                entry,
                ..
            } = chat("team", "alice", n);
            let (group, origin) = ("team".to_owned(), None);
            let accept = GroupAccept {
                group,
                sender,
                msgid,
                entry,
                origin,
            };
            books.accept_for_group(&accept).unwrap();
            if n == 20 {
                assert!(books.work("").unwrap().is_some());
            }
        }
        books.schedule(&chat("carl", "alice", 30), 90).unwrap();
        books.schedule(&chat("carl", "alice", 31), 1).unwrap();
        assert_eq!(books.deliver_due(9).unwrap(), 1);
    });
    rows.commit();
    rows
}

fn problems(rows: &MemoryRows) -> Vec<String> {
    let mut problems = Vec::new();
    check(rows, &mut |problem| problems.push(problem)).unwrap();
    problems
}

#[test]
fn what_the_contract_leaves_behind_is_sound() {
    let rows = lived();
    assert_eq!(problems(&rows), Vec::<String>::new());
    let tally = check(&rows, &mut |_| ()).unwrap();
    assert_eq!(tally.rows, rows.len() as u64);
    // Bob has the sixth, the seventh and the group's, alice two notices and the group's.
    let counts = (tally.inboxes, tally.entries, tally.groups, tally.delayed);
    assert_eq!(counts, (3, 7, 1, 2));
}

#[test]
fn it_is_sound_when_everything_has_grown_old() {
    let mut rows = lived();
    books(&mut rows, 9000, |books| {
        while books.work("").unwrap().is_some() {}
        books.deliver_due(9).unwrap();
        for uid in ["alice", "bob", "carl"] {
            assert!(books.expire(uid).unwrap());
        }
    });
    assert_eq!(problems(&rows), Vec::<String>::new());
}

#[test]
fn each_row_that_is_missing_or_spoiled_is_reported_with_its_name() {
    let sound = lived();
    let mut keys = Vec::new();
    sound
        .scan(&[], rows::all::END, &mut |key, value| {
            keys.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    for (key, value) in keys {
        let name = RowName::parse(&key).unwrap();
        let mut rows = sound.clone();
        rows.put(&key, &[&value[..], b"x"].concat()).unwrap();
        let found = problems(&rows);
        assert!(
            found.iter().any(|p| p.starts_with(&format!("{name}: "))),
            "{name}: {found:?}"
        );

        let mut rows = sound.clone();
        rows.remove(&key).unwrap();
        let may_go = match &name {
            // Without a msgid of its own nobody asks for it, but for a notice that is lost.
            RowName::Held { user, .. } => {
                let held: Held = exact(&value).unwrap();
                let entry = rows.get(&rows::entry(user, held.seq)).unwrap();
                held.msgid.is_none() && entry.is_some()
            }
            // The trace of a message that was due.
            RowName::Delay { due_ms, .. } => *due_ms == 1 + RULES.seen_ms,
            _ => false,
        };
        assert_eq!(problems(&rows).is_empty(), may_go, "{name} removed");
    }
}

#[test]
fn wrong_counts_and_foreign_rows_are_reported() {
    let mut rows = lived();
    let key = rows::head("bob");
    let mut head: Head = exact(&rows.get(&key).unwrap().unwrap()).unwrap();
    head.bytes += 1;
    head.devices[0].low = 99;
    rows.put(&key, &encode(&head)).unwrap();
    rows.put(b"?what", b"").unwrap();
    rows.put(
        &rows::entry("dora", 1),
        &encode(&chat("dora", "x", 1).entry),
    )
    .unwrap();
    let found = problems(&rows);
    for start in [
        "the store holds no sound name: no row is called ?what",
        "entry dora 1: it belongs to no inbox",
        "head bob: it counts 3 entries",
        "head bob: its device \"phone\" is not in order",
    ] {
        let is_there = found.iter().any(|problem| problem.starts_with(start));
        assert!(is_there, "{start}: {found:?}");
    }
    assert_eq!(found.len(), 4, "{found:?}");
}
