//! A message is accepted once, at the end of the receiver's log, and remembered.

use super::*;

#[test]
fn an_accepted_message_is_the_next_entry_and_rings() {
    let mut rig = Rig::new();
    let accept = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&accept), Accepted::New(accept.entry.id));
    let page = rig.attach("bob", "phone", None).page;
    assert_eq!(page.entries, [(1, Arc::new(accept.entry.clone()))]);
    let ring = Ring::Entry {
        uid: "bob".to_owned(),
        epoch: EPOCH,
        seq: 1,
        entry: Arc::new(accept.entry),
        but: None,
    };
    assert_eq!(rig.take_rings(), [ring]);
}

#[test]
fn numbers_are_contiguous_for_each_receiver_and_belong_to_one_epoch() {
    let mut rig = Rig::new();
    for to in ["bob", "carol", "bob", "bob", "carol"] {
        rig.send("alice", to);
        // Another process makes other epochs, but only for what begins.
        rig.epoch += 1;
    }
    assert_eq!(rig.kept_seqs("bob"), [1, 2, 3]);
    assert_eq!(rig.kept_seqs("carol"), [1, 2]);
    assert_eq!(rig.head("bob").epoch, EPOCH);
    assert_eq!(rig.head("carol").epoch, EPOCH + 1);
}

#[test]
fn no_number_is_given_again_after_everything_was_passed_or_has_expired() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let first = rig.send("alice", "bob");
    rig.ack("bob", "phone", &[first]);
    assert_eq!(rig.kept_seqs("bob"), NONE);
    rig.send("alice", "bob");
    rig.now_ms += RULES.ttl_ms;
    rig.expire("bob");
    assert_eq!(rig.kept_seqs("bob"), NONE);
    rig.send("alice", "bob");
    assert_eq!(rig.kept_seqs("bob"), [3]);
    assert_eq!(rig.head("bob").epoch, EPOCH);
}

#[test]
fn a_repeat_gets_the_id_of_the_first_and_appends_and_rings_nothing() {
    let mut rig = Rig::new();
    let first = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&first);
    rig.take_rings();
    let rows = rig.rows.clone();
    // The client repeats it: it comes under a new id, later, with another request id.
    rig.now_ms += 5_000;
    let mut again = rig.chat("alice", "bob", Some("m1"), "hi");
    again.entry.request_id = Some("r2".to_owned());
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.take_rings(), []);
}

#[test]
fn another_body_under_the_same_msgid_is_a_conflict_and_changes_nothing() {
    let mut rig = Rig::new();
    let first = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&first);
    let rows = rig.rows.clone();
    let other_text = rig.chat("alice", "bob", Some("m1"), "ho");
    let mut other_type = rig.chat("alice", "bob", Some("m1"), "hi");
    if let EntryBody::Chat { text, .. } = &mut other_type.entry.body {
        text.file_type = "1".to_owned();
    }
    let body = EntryBody::Raw {
        msg: "\"hi\"".to_owned(),
    };
    let other_kind = rig.accept_of("alice", "bob", Some("m1"), body);
    for other in [other_text, other_type, other_kind] {
        assert_eq!(rig.accept(&other), Accepted::Conflict, "{other:?}");
    }
    assert_eq!(rig.rows, rows);
}

#[test]
fn what_the_server_adds_about_the_author_makes_no_conflict() {
    let mut rig = Rig::new();
    let first = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&first);
    let mut again = rig.chat("alice", "bob", Some("m1"), "hi");
    if let EntryBody::Chat { from, .. } = &mut again.entry.body {
        (from.name, from.is_online) = ("Alice the second".to_owned(), false);
    }
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
}

#[test]
fn a_msgid_belongs_to_one_sender_and_one_receiver() {
    let mut rig = Rig::new();
    for (from, to) in [("alice", "bob"), ("alice", "carol"), ("dave", "bob")] {
        let accept = rig.chat(from, to, Some("m1"), from);
        assert_eq!(rig.accept(&accept), Accepted::New(accept.entry.id));
    }
}

#[test]
fn messages_without_a_msgid_are_never_taken_for_each_other() {
    let mut rig = Rig::new();
    rig.send_many("alice", "bob", 3);
    assert_eq!(rig.kept_seqs("bob"), [1, 2, 3]);
}

#[test]
fn a_message_is_remembered_for_24_hours_after_it_was_passed() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let first = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&first);
    rig.ack("bob", "phone", &[first.entry.id]);
    assert_eq!(rig.kept_seqs("bob"), NONE);
    rig.now_ms += RULES.seen_ms - 1;
    rig.expire("bob");
    rig.send("carol", "bob");
    let again = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
    assert_eq!(rig.ack("bob", "phone", &[first.entry.id]).unknown, []);
    rig.now_ms += 1;
    rig.send("carol", "bob");
    let late = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&late), Accepted::New(late.entry.id));
}

#[test]
fn a_message_is_remembered_as_long_as_its_entry() {
    let mut rig = Rig::new();
    let first = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&first);
    rig.now_ms += RULES.ttl_ms - 1;
    rig.send_many("carol", "bob", 5);
    rig.expire("bob");
    let again = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
    rig.now_ms += 1;
    rig.expire("bob");
    let late = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&late), Accepted::New(late.entry.id));
}

#[test]
fn of_one_sender_and_receiver_at_most_so_many_are_remembered() {
    let mut rig = Rig::with(InboxRules {
        seen_max: 3,
        ..RULES
    });
    rig.attach("bob", "phone", None);
    let other = rig.chat("carol", "bob", Some("m0"), "hi");
    rig.accept(&other);
    let mut sent = Vec::new();
    for msgid in ["m0", "m1", "m2", "m3"] {
        let accept = rig.chat("alice", "bob", Some(msgid), "hi");
        rig.accept(&accept);
        rig.up_to("bob", "phone", rig.head("bob").seq);
        sent.push(accept.entry.id);
    }
    for (at, msgid) in [(1, "m1"), (2, "m2"), (3, "m3")] {
        let again = rig.chat("alice", "bob", Some(msgid), "hi");
        assert_eq!(rig.accept(&again), Accepted::Again(sent[at]));
    }
    let again = rig.chat("carol", "bob", Some("m0"), "hi");
    assert_eq!(rig.accept(&again), Accepted::Again(other.entry.id));
    let forgotten = rig.chat("alice", "bob", Some("m0"), "hi");
    assert_eq!(rig.accept(&forgotten), Accepted::New(forgotten.entry.id));
}

#[test]
fn a_message_that_is_kept_is_remembered_however_many_there_are() {
    let mut rig = Rig::with(InboxRules {
        seen_max: 3,
        ..RULES
    });
    let first = rig.chat("alice", "bob", Some("m0"), "hi");
    rig.accept(&first);
    for n in 1..10 {
        let accept = rig.chat("alice", "bob", Some(&format!("m{n}")), "hi");
        rig.accept(&accept);
    }
    let again = rig.chat("alice", "bob", Some("m0"), "hi");
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
}

#[test]
fn older_messages_of_others_do_not_keep_a_sender_from_his_limit() {
    let mut rig = Rig::with(InboxRules {
        seen_max: 3,
        ..RULES
    });
    rig.attach("bob", "phone", None);
    for n in 0..600 {
        let accept = rig.chat("carol", "bob", None, &format!("{n}"));
        rig.accept(&accept);
        rig.up_to("bob", "phone", rig.head("bob").seq);
    }
    for n in 0..10 {
        let accept = rig.chat("alice", "bob", Some(&format!("m{n}")), "hi");
        rig.accept(&accept);
        rig.up_to("bob", "phone", rig.head("bob").seq);
    }
    let last = rig.chat("alice", "bob", Some("m9"), "hi");
    assert!(matches!(rig.accept(&last), Accepted::Again(_)));
    let old = rig.chat("alice", "bob", Some("m6"), "hi");
    assert_eq!(rig.accept(&old), Accepted::New(old.entry.id));
}

#[test]
fn nothing_is_left_of_messages_once_they_are_passed_and_old() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let before = rig.rows.len();
    for n in 0..20 {
        let accept = rig.push("bob", Some(&format!("m{n}")), "1");
        rig.accept(&accept);
    }
    rig.up_to("bob", "phone", 20);
    rig.now_ms += RULES.seen_ms;
    rig.expire("bob");
    assert_eq!(rig.rows.len(), before);
}

#[test]
fn one_entry_that_nobody_passes_does_not_keep_old_memories_of_others() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let early = rig.push("bob", Some("early"), "1");
    rig.books(|books| books.schedule(&early, START + 48 * HOUR));
    let passed = rig.send("alice", "bob");
    rig.ack("bob", "phone", &[passed]);
    rig.now_ms += RULES.seen_ms;
    rig.expire("bob");
    assert_eq!(rig.ack("bob", "phone", &[passed]).unknown, [passed]);
}

#[test]
fn a_transaction_that_is_taken_back_leaves_no_trace() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let kept = rig.send("alice", "bob");
    let rows = rig.rows.clone();
    let accept = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.open(|books| {
        books.accept(&accept)?;
        books.acknowledge("bob", "phone", &Reach::Messages(vec![kept]))
    })
    .unwrap();
    assert_ne!(rig.rows, rows);
    rig.rows.roll_back();
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.accept(&accept), Accepted::New(accept.entry.id));
    assert_eq!(rig.kept_seqs("bob"), [1, 2]);
}

#[test]
fn a_row_that_nobody_wrote_is_an_error_and_no_answer() {
    let mut rig = Rig::new();
    rig.send("alice", "bob");
    for damaged in [rows::head("bob"), rows::entry("bob", 1)] {
        let before = rig.rows.clone();
        for value in [&b""[..], b"\x09", b"\x01\xff"] {
            rig.rows.put(&damaged, value).unwrap();
            let attach = rig.open(|books| books.look("bob", 0, 10));
            assert!(attach.is_err(), "{value:?}");
        }
        rig.rows.roll_back();
        assert_eq!(rig.rows, before);
    }
}

#[test]
fn who_never_came_has_his_messages_kept_for_the_first_device() {
    let mut rig = Rig::new();
    let sent = rig.send_many("alice", "bob", 3);
    assert_eq!(rig.head("bob").devices, []);
    let attached = rig.attach("bob", "phone", None);
    assert_eq!(ids(&attached.page), sent);
    assert_eq!((attached.low, attached.head_seq), (0, 3));
    assert!(!attached.page.resync && attached.is_known);
}
