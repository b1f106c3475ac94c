//! Type 17: it takes no place, begets nothing, and has a cap of its own.

use super::*;

/// `count` notices in the inbox of alice.
fn with_notices(rig: &mut Rig, count: usize) -> Vec<MessageId> {
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", count);
    rig.up_to("bob", "phone", rig.head("bob").seq);
    sent
}

#[test]
fn notices_take_no_place() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 2,
        bytes_max: 300,
        ..RULES
    });
    for _ in 0..30 {
        with_notices(&mut rig, 1);
    }
    let head = rig.head("alice");
    assert_eq!((head.notices, head.entries, head.bytes), (30, 0, 0));
    rig.send_many("carol", "alice", 2);
    let third = rig.chat("carol", "alice", None, "hi");
    assert_eq!(rig.accept(&third), Accepted::Full);
    with_notices(&mut rig, 1);
    assert_eq!(
        rig.head("alice").notices,
        31,
        "a full inbox takes them still"
    );
}

#[test]
fn notices_are_passed_with_a_later_entry() {
    let mut rig = Rig::new();
    rig.attach("alice", "phone", None);
    with_notices(&mut rig, 2);
    let entry = rig.send("carol", "alice");
    with_notices(&mut rig, 1);
    assert_eq!(rig.kept_seqs("alice"), [1, 2, 3, 4]);
    assert_eq!(rig.ack("alice", "phone", &[entry]).low, 3);
    assert_eq!(rig.kept_seqs("alice"), [4], "one behind it is not passed");
}

#[test]
fn notices_between_do_not_hold_up_what_was_acknowledged_out_of_order() {
    let mut rig = Rig::new();
    rig.attach("alice", "phone", None);
    let first = rig.send("carol", "alice");
    with_notices(&mut rig, 1);
    let third = rig.send("carol", "alice");
    let acknowledged = rig.ack("alice", "phone", &[third]);
    assert_eq!((acknowledged.low, acknowledged.above), (0, vec![2, 3]));
    assert_eq!(rig.ack("alice", "phone", &[first]).low, 3);
}

#[test]
fn notices_are_passed_by_cursor_and_by_up_to_and_by_name() {
    let mut rig = Rig::new();
    rig.attach("alice", "phone", None);
    let sent = with_notices(&mut rig, 4);
    rig.up_to("alice", "phone", 1);
    assert_eq!(rig.kept_seqs("alice"), [2, 3, 4]);
    rig.attach("alice", "phone", Some((EPOCH, 2)));
    assert_eq!(rig.kept_seqs("alice"), [3, 4]);
    let acknowledged = rig.ack("alice", "phone", &[sent[2].of_notice()]);
    assert_eq!((acknowledged.low, acknowledged.unknown.len()), (3, 0));
    rig.pong("alice", "phone", 4);
    assert_eq!(rig.kept_seqs("alice"), NONE);
    assert_eq!(rig.head("alice").seq, 4, "and none begot another");
    assert_eq!(rig.find("system"), None);
}

#[test]
fn at_the_cap_nothing_is_lost() {
    let mut rig = Rig::with(InboxRules {
        notices_max: 10,
        ..RULES
    });
    rig.attach("alice", "phone", None);
    with_notices(&mut rig, 10);
    assert_eq!(rig.kept_seqs("alice"), (1..=10).collect::<Vec<_>>());
    assert!(!rig.attach("alice", "phone", None).page.resync);
    assert_eq!(rig.take_lost(), [""; 0]);
}

#[test]
fn above_the_cap_the_oldest_notice_goes_and_who_has_not_passed_it_is_told() {
    let mut rig = Rig::with(InboxRules {
        notices_max: 10,
        ..RULES
    });
    rig.attach("alice", "phone", None);
    rig.attach("alice", "tablet", None);
    with_notices(&mut rig, 10);
    rig.up_to("alice", "tablet", 1);
    let told = with_notices(&mut rig, 1);
    assert_eq!(rig.kept_seqs("alice"), (2..=11).collect::<Vec<_>>());
    assert_eq!(rig.take_lost(), ["alice"]);
    assert_eq!(rig.delivered_to("alice").last(), told.last());
    assert!(rig.attach("alice", "phone", None).page.resync);
    assert!(
        !rig.attach("alice", "tablet", None).page.resync,
        "it has it"
    );
    // One more that goes is no news to who is to be told anyway.
    with_notices(&mut rig, 1);
    assert_eq!(rig.take_lost(), ["alice"], "but it is to the other");
    with_notices(&mut rig, 1);
    assert_eq!(rig.take_lost(), [""; 0]);
}

#[test]
fn the_cap_drops_notices_and_not_what_stands_before_them() {
    let mut rig = Rig::with(InboxRules {
        notices_max: 2,
        ..RULES
    });
    let entry = rig.send("carol", "alice");
    with_notices(&mut rig, 2);
    rig.send("carol", "alice");
    with_notices(&mut rig, 1);
    assert_eq!(rig.kept_seqs("alice"), [1, 3, 4, 5]);
    // The hole is passed like what was never there.
    rig.attach("alice", "phone", None);
    assert_eq!(rig.ack("alice", "phone", &[entry]).low, 1);
    assert_eq!(rig.up_to("alice", "phone", 4).low, 4);
    assert_eq!(rig.kept_seqs("alice"), [5]);
    let page = rig.pull("alice", "phone", 0, 10);
    assert_eq!((seqs(&page), page.until), (vec![5], 5));
}

#[test]
fn a_thousand_notices_are_kept_by_default() {
    let mut rig = Rig::new();
    for _ in 0..11 {
        with_notices(&mut rig, 91);
    }
    assert_eq!(rig.kept_seqs("alice"), (2..=1_001).collect::<Vec<_>>());
}

#[test]
fn a_notice_rings_in_the_senders_inbox() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let id = rig.send("alice", "bob");
    rig.take_rings();
    rig.ack("bob", "phone", &[id]);
    let rings = rig.take_rings();
    assert!(
        matches!(&rings[..], [Ring::Entry { uid, seq: 1, entry, .. }]
            if uid == "alice" && entry.id == id.of_notice()),
        "{rings:?}"
    );
}

#[test]
fn a_device_that_comes_where_a_notice_is_missing_is_told() {
    let mut rig = Rig::with(InboxRules {
        notices_max: 1,
        ..RULES
    });
    rig.attach("alice", "phone", None);
    rig.send("carol", "alice");
    with_notices(&mut rig, 1);
    assert!(!rig.attach("alice", "tablet", None).page.resync);
    with_notices(&mut rig, 1);
    assert_eq!(rig.kept_seqs("alice"), [1, 3]);
    assert!(rig.attach("alice", "desk", None).page.resync);
}
