//! An inbox that is full: who hears of it, and who is forgotten for it.

use super::*;

fn rules(entries_max: u32) -> InboxRules {
    InboxRules {
        entries_max,
        ..RULES
    }
}

/// Sends what does not fit, and proves that nothing came of it.
fn assert_full(rig: &mut Rig) -> Accept {
    let rows = rig.rows.clone();
    rig.take_rings();
    let msgid = format!("refused {}", rig.ids);
    let refused = rig.chat("alice", "bob", Some(&msgid), "hi");
    assert_eq!(rig.accept(&refused), Accepted::Full);
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.take_rings(), []);
    refused
}

#[test]
fn an_inbox_takes_as_many_entries_as_it_may_and_not_one_more() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 999);
    rig.send("alice", "bob");
    let accept = assert_full(&mut rig);
    rig.ack("bob", "phone", &sent[..1]);
    let accepted = rig.accept(&accept);
    assert_eq!(
        accepted,
        Accepted::New(accept.entry.id),
        "a refusal is not remembered"
    );
    assert_eq!(*rig.kept_seqs("bob").last().unwrap(), 1_001);
    assert_full(&mut rig);
}

#[test]
fn an_inbox_takes_as_many_bytes_as_it_may_and_not_one_more() {
    let probe = Rig::new().push("bob", None, "12345");
    let one = records::encode(&probe.entry).len() as u64;
    for (bytes_max, is_full) in [(2 * one - 1, true), (2 * one, false), (2 * one + 1, false)] {
        let mut rig = Rig::with(InboxRules { bytes_max, ..RULES });
        for may_fail in [false, is_full] {
            let push = rig.push("bob", None, "12345");
            let accepted = rig.accept(&push);
            assert_eq!(accepted == Accepted::Full, may_fail, "{bytes_max}");
        }
        assert_full(&mut rig);
    }
}

#[test]
fn a_full_inbox_still_knows_what_it_has_accepted() {
    let mut rig = Rig::with(rules(1));
    let accept = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&accept);
    assert_full(&mut rig);
    let again = rig.chat("alice", "bob", Some("m1"), "hi");
    assert_eq!(rig.accept(&again), Accepted::Again(accept.entry.id));
}

#[test]
fn what_waits_for_a_user_who_never_came_is_never_dropped() {
    let mut rig = Rig::with(rules(3));
    rig.send_many("alice", "bob", 3);
    assert_full(&mut rig);
    assert_eq!(rig.attach("bob", "phone", None).page.entries.len(), 3);
}

#[test]
fn the_only_device_of_an_absent_user_is_never_forgotten() {
    let mut rig = Rig::with(rules(3));
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    assert_full(&mut rig);
    assert_eq!(rig.head("bob").devices.len(), 1);
}

#[test]
fn an_entry_that_no_device_has_passed_is_never_dropped() {
    let mut rig = Rig::with(rules(3));
    for device in ["phone", "tablet", "laptop"] {
        rig.attach("bob", device, None);
    }
    rig.send_many("alice", "bob", 3);
    assert_full(&mut rig);
    assert_eq!(rig.head("bob").devices.len(), 3, "it would not have helped");
}

#[test]
fn an_absent_device_is_forgotten_where_another_has_passed_what_that_drops() {
    let mut rig = Rig::with(rules(3));
    for device in ["old", "phone"] {
        rig.attach("bob", device, None);
    }
    let sent = rig.send_many("alice", "bob", 3);
    rig.ack("bob", "phone", &sent[..2]);
    rig.send("alice", "bob");
    assert_eq!(rig.kept_seqs("bob"), [3, 4]);
    assert_eq!(rig.head("bob").device("old"), None);
    rig.send("alice", "bob");
    assert_full(&mut rig);
    let back = rig.attach("bob", "old", None);
    assert_eq!((back.page.resync, seqs(&back.page)), (true, vec![3, 4, 5]));
}

#[test]
fn a_connected_device_is_not_forgotten_to_make_room() {
    let mut rig = Rig::with(rules(3));
    rig.connect("bob", "old");
    for device in ["old", "phone"] {
        rig.attach("bob", device, None);
    }
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 3);
    assert_full(&mut rig);
    rig.disconnect("bob", "old");
    rig.send("alice", "bob");
    assert_eq!(rig.kept_seqs("bob"), [4]);
}

#[test]
fn the_furthest_behind_is_forgotten_first_and_no_more_than_it_takes() {
    let mut rig = Rig::with(rules(4));
    for device in ["ahead", "middle", "behind"] {
        rig.attach("bob", device, None);
    }
    rig.send_many("alice", "bob", 4);
    rig.up_to("bob", "ahead", 4);
    rig.up_to("bob", "middle", 2);
    rig.send("alice", "bob");
    let head = rig.head("bob");
    assert!(head.device("behind").is_none() && head.device("middle").is_some());
    assert_eq!(rig.kept_seqs("bob"), [3, 4, 5]);
}

#[test]
fn several_absent_devices_are_forgotten_where_only_that_helps() {
    let mut rig = Rig::with(rules(3));
    for device in ["old", "older", "phone"] {
        rig.attach("bob", device, None);
    }
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 3);
    rig.send("alice", "bob");
    let head = rig.head("bob");
    assert_eq!(head.devices.len(), 1);
    assert_eq!(rig.kept_seqs("bob"), [4]);
    for device in ["old", "older"] {
        assert!(rig.attach("bob", device, None).page.resync);
    }
}

#[test]
fn where_forgetting_frees_too_little_nobody_is_forgotten() {
    let mut rig = Rig::with(InboxRules {
        bytes_max: 10_000,
        ..RULES
    });
    rig.connect("bob", "here");
    for device in ["old", "here"] {
        rig.attach("bob", device, None);
    }
    let small = rig.send("alice", "bob");
    let big = rig.push("bob", None, &"x".repeat(9_000));
    rig.accept(&big);
    rig.ack("bob", "here", &[small]);
    // Without the old device the small one would go: not enough for this.
    let rows = rig.rows.clone();
    let refused = rig.push("bob", None, &"x".repeat(2_000));
    assert_eq!(rig.accept(&refused), Accepted::Full);
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.head("bob").devices.len(), 2);
}

#[test]
fn room_that_only_notices_took_is_no_reason_to_forget() {
    let mut rig = Rig::with(rules(1));
    for device in ["old", "new"] {
        rig.attach("bob", device, None);
    }
    rig.attach("carol", "phone", None);
    let id = rig.send("bob", "carol");
    rig.ack("carol", "phone", &[id]);
    rig.up_to("bob", "new", 1);
    rig.send("alice", "bob");
    assert_full(&mut rig);
    assert_eq!(rig.head("bob").devices.len(), 2);
}

#[test]
fn of_several_targets_the_full_one_alone_is_refused() {
    let mut rig = Rig::with(rules(1));
    rig.send("alice", "bob");
    let accepts = vec![
        rig.chat("alice", "carol", Some("m1"), "hi"),
        rig.chat("alice", "bob", Some("m1"), "hi"),
        rig.chat("alice", "dave", Some("m1"), "hi"),
    ];
    let wanted = [
        Accepted::New(accepts[0].entry.id),
        Accepted::Full,
        Accepted::New(accepts[2].entry.id),
    ];
    let request = service::Request::AcceptAll(accepts);
    let outcome = rig.books(|books| books.serve(&request));
    assert_eq!(outcome, service::Outcome::AllAccepted(wanted.to_vec()));
}

#[test]
fn an_inbox_that_nobody_has_used_for_a_month_is_forgotten_and_its_epoch_does_not_return() {
    const DAY: u64 = 24 * HOUR;
    let mut rig = Rig::new();
    rig.epoch = epoch_at(EPOCH, rig.now_ms);
    let id = rig.send("alice", "bob");
    rig.attach("bob", "phone", None);
    rig.ack("bob", "phone", &[id]);
    let before = rig.attach("bob", "phone", None).epoch;
    // Who comes back now and then is remembered, though nothing is sent.
    for _ in 0..40 {
        rig.now_ms += DAY;
        rig.attach("bob", "phone", None);
        rig.expire("bob");
    }
    assert_eq!(rig.head("bob").devices.len(), 1);
    rig.now_ms += 30 * DAY;
    rig.connect("bob", "phone");
    rig.expire("bob");
    assert_eq!(rig.head("bob").devices.len(), 1, "who is here as well");
    rig.disconnect("bob", "phone");
    rig.expire("bob");
    rig.expire("alice");
    assert_eq!(rig.rows.len(), 0);
    rig.epoch = epoch_at(EPOCH, rig.now_ms);
    let again = rig.attach("bob", "phone", Some((before, 1)));
    assert_ne!(again.epoch, before);
    assert!(again.page.resync);
}
