//! Messages that are due later.

use super::*;

const DUE: u64 = START + 10_000;

impl Rig {
    fn schedule(&mut self, accept: &Accept, due_ms: u64) -> Accepted {
        self.books(|books| books.schedule(accept, due_ms))
    }

    fn cancel(&mut self, id: MessageId) -> Cancelled {
        self.books(|books| books.cancel(id))
    }

    fn deliver_due(&mut self) -> usize {
        self.books(|books| books.deliver_due(100))
    }

    fn next_due(&mut self) -> Option<u64> {
        self.books(|books| books.next_due())
    }
}

#[test]
fn a_scheduled_message_comes_when_it_is_due_and_under_the_id_that_was_given() {
    let mut rig = Rig::new();
    assert_eq!(rig.next_due(), None);
    let accept = rig.push("bob", Some("m1"), "1");
    assert_eq!(rig.schedule(&accept, DUE), Accepted::New(accept.entry.id));
    assert_eq!(rig.next_due(), Some(DUE));
    rig.now_ms = DUE - 1;
    assert_eq!(rig.deliver_due(), 0);
    assert_eq!(rig.find("bob"), None);
    rig.now_ms = DUE;
    assert_eq!(rig.deliver_due(), 1);
    let [(1, entry, _)] = &rig.kept("bob")[..] else {
        panic!("it did not come")
    };
    assert_eq!((entry.id, entry.at_ms), (accept.entry.id, DUE));
    assert_eq!(rig.deliver_due(), 0);
    assert_eq!(rig.take_rings().len(), 1);
}

#[test]
fn messages_come_in_the_order_in_which_they_are_due_a_few_at_a_time() {
    let mut rig = Rig::new();
    for late in [5, 1, 4, 2, 3] {
        let accept = rig.push("bob", None, &late.to_string());
        rig.schedule(&accept, START + late);
    }
    rig.now_ms += 4;
    assert_eq!(rig.books(|books| books.deliver_due(3)), 3);
    assert_eq!(rig.books(|books| books.deliver_due(3)), 1);
    let texts: Vec<_> = rig
        .kept("bob")
        .into_iter()
        .map(|(_, e, _)| e.body)
        .collect();
    let wanted = ["1", "2", "3", "4"].map(|msg| EntryBody::Raw {
        msg: msg.to_owned(),
    });
    assert_eq!(texts, wanted);
}

#[test]
fn scheduling_dedupes_like_accepting_before_and_after_it_is_due() {
    let mut rig = Rig::new();
    let first = rig.push("bob", Some("m1"), "1");
    rig.schedule(&first, DUE);
    let again = rig.push("bob", Some("m1"), "1");
    let other = rig.push("bob", Some("m1"), "2");
    for due in [false, true] {
        if due {
            rig.now_ms = DUE;
            rig.deliver_due();
        }
        assert_eq!(
            rig.schedule(&again, DUE + 5),
            Accepted::Again(first.entry.id)
        );
        assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
        assert_eq!(rig.schedule(&other, DUE), Accepted::Conflict);
        assert_eq!(rig.accept(&other), Accepted::Conflict);
    }
    rig.now_ms = DUE + 5;
    rig.deliver_due();
    assert_eq!(rig.kept_seqs("bob"), [1]);
}

#[test]
fn what_is_due_in_days_is_remembered_until_then_and_as_long_as_its_entry() {
    let mut rig = Rig::with(InboxRules {
        seen_max: 2,
        ..RULES
    });
    rig.attach("bob", "phone", None);
    let first = rig.push("bob", Some("m1"), "1");
    let due = START + 5 * 24 * HOUR;
    rig.schedule(&first, due);
    rig.now_ms += 2 * 24 * HOUR;
    for n in 0..5 {
        let other = rig.push("bob", Some(&format!("o{n}")), "1");
        rig.accept(&other);
    }
    rig.up_to("bob", "phone", 5);
    let other = rig.push("bob", Some("o5"), "1");
    rig.accept(&other);
    rig.expire("bob");
    let again = rig.push("bob", Some("m1"), "1");
    assert_eq!(rig.schedule(&again, due), Accepted::Again(first.entry.id));
    rig.now_ms = due;
    rig.deliver_due();
    assert_eq!(rig.accept(&again), Accepted::Again(first.entry.id));
    assert_eq!(rig.ack("bob", "phone", &[first.entry.id]).unknown, []);
}

#[test]
fn what_is_not_due_cannot_be_acknowledged() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let chat = rig.chat("alice", "bob", Some("m1"), "hi");
    let id = chat.entry.id;
    rig.schedule(&chat, DUE);
    assert_eq!(rig.ack("bob", "phone", &[id]).unknown, [id]);
    assert_eq!(rig.find("alice"), None);
    rig.now_ms = DUE;
    rig.deliver_due();
    assert_eq!(rig.ack("bob", "phone", &[id]).unknown, []);
    assert_eq!(rig.delivered_to("alice"), [id]);
}

#[test]
fn what_is_cancelled_never_comes_and_may_be_scheduled_again() {
    let mut rig = Rig::new();
    let before = rig.rows.clone();
    let first = rig.push("bob", Some("m1"), "1");
    rig.schedule(&first, DUE);
    assert_eq!(rig.cancel(first.entry.id), Cancelled::Yes);
    assert_eq!(rig.rows, before);
    assert_eq!(rig.cancel(first.entry.id), Cancelled::Unknown);
    let second = rig.push("bob", Some("m1"), "2");
    assert_eq!(rig.schedule(&second, DUE), Accepted::New(second.entry.id));
    rig.now_ms = DUE;
    assert_eq!(rig.deliver_due(), 1);
    assert_eq!(rig.kept("bob")[0].1.id, second.entry.id);
}

#[test]
fn what_was_due_cannot_be_cancelled_and_that_is_known_for_a_while() {
    let mut rig = Rig::new();
    let first = rig.push("bob", Some("m1"), "1");
    rig.schedule(&first, DUE);
    rig.now_ms = DUE;
    rig.deliver_due();
    assert_eq!(rig.cancel(first.entry.id), Cancelled::TooLate);
    rig.now_ms += RULES.seen_ms;
    rig.deliver_due();
    assert_eq!(rig.cancel(first.entry.id), Cancelled::Unknown);
    assert_eq!(rig.kept_seqs("bob"), [1], "it came once");
    assert_eq!(rig.next_due(), None);
    assert_eq!(rig.cancel(MessageId([3; 16])), Cancelled::Unknown);
}

#[test]
fn what_is_due_at_once_or_was_due_long_ago_comes_too() {
    let mut rig = Rig::new();
    let first = rig.push("bob", Some("m1"), "1");
    rig.schedule(&first, 0);
    assert_eq!(rig.deliver_due(), 1);
    assert_eq!(rig.kept_seqs("bob"), [1]);
}

#[test]
fn a_due_message_waits_for_room_and_at_last_leaves_a_gap_that_is_told() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 1,
        ..RULES
    });
    rig.connect("bob", "phone");
    rig.attach("bob", "phone", None);
    let accept = rig.push("bob", Some("m1"), "1");
    rig.schedule(&accept, DUE);
    let first = rig.push("bob", None, "0");
    rig.accept(&first);
    rig.take_rings();
    rig.now_ms = DUE;
    assert_eq!(rig.deliver_due(), 1);
    assert_eq!(rig.deliver_due(), 0, "it rests for a while");
    assert!(rig.take_rings().is_empty(), "nothing is lost yet");
    rig.now_ms = DUE + RULES.ttl_ms;
    assert_eq!(rig.deliver_due(), 1);
    assert_eq!(rig.take_lost(), ["bob"]);
    assert_eq!(rig.kept_seqs("bob"), [1]);
    assert!(rig.pull("bob", "phone", 0, 10).resync);
    let id = accept.entry.id;
    assert_eq!(rig.ack("bob", "phone", &[id]).unknown, [id]);
    assert_eq!(rig.cancel(id), Cancelled::TooLate);
    // And its memory does not stay for ever.
    rig.up_to("bob", "phone", 1);
    rig.now_ms += RULES.seen_ms;
    rig.deliver_due();
    rig.expire("bob");
    assert_eq!(rig.rows.len(), 1, "the head alone is left");
}

#[test]
fn a_due_message_that_waited_for_room_comes_when_there_is_some_and_can_be_cancelled_until_then() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 1,
        ..RULES
    });
    let (late, dropped) = (rig.push("bob", None, "1"), rig.push("bob", None, "2"));
    rig.schedule(&late, DUE);
    rig.schedule(&dropped, DUE + 1);
    let first = rig.push("bob", None, "0");
    rig.accept(&first);
    rig.now_ms = DUE + 1;
    assert_eq!(rig.deliver_due(), 2);
    assert_eq!(rig.cancel(dropped.entry.id), Cancelled::Yes);
    rig.ack("bob", "phone", &[first.entry.id]);
    rig.now_ms += 10_000;
    assert_eq!(rig.deliver_due(), 1);
    assert_eq!(rig.kept_seqs("bob"), [2]);
    assert_eq!(rig.cancel(late.entry.id), Cancelled::TooLate);
}
