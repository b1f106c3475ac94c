//! Devices pass entries, and senders hear of it.

use super::*;

#[test]
fn an_acknowledged_entry_goes_and_its_sender_is_told_once() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let accept = rig.chat("alice", "bob", Some("m1"), "hi");
    rig.accept(&accept);
    let id = accept.entry.id;
    let first = rig.ack("bob", "phone", &[id]);
    assert_eq!(
        (first.low, first.above.len(), first.unknown.len()),
        (1, 0, 0)
    );
    assert_eq!(rig.kept_seqs("bob"), NONE);
    let again = rig.ack("bob", "phone", &[id, id]);
    assert_eq!(again, first, "a repeat gets the same answer");
    rig.attach("bob", "tablet", None);
    rig.ack("bob", "tablet", &[id]);
    rig.up_to("bob", "tablet", 1);
    let [(1, notice, _)] = &rig.kept("alice")[..] else {
        panic!("{:?}", rig.kept("alice"))
    };
    assert_eq!(notice.id, id.of_notice());
    assert_eq!(notice.from, "system");
    let body = EntryBody::Delivered {
        msgid: Some("m1".to_owned()),
        message: id,
        to: "bob".to_owned(),
    };
    assert_eq!(notice.body, body);
}

#[test]
fn an_ack_of_what_is_not_in_the_own_inbox_does_nothing_and_says_so() {
    let mut rig = Rig::new();
    let id = rig.send("alice", "bob");
    rig.attach("mallory", "phone", None);
    rig.attach("bob", "phone", None);
    rig.take_rings();
    let rows = rig.rows.clone();
    assert_eq!(rig.ack("mallory", "phone", &[id]).unknown, [id]);
    assert_eq!(rig.ack("alice", "phone", &[id]).unknown, [id]);
    let nonsense = MessageId([9; 16]);
    assert_eq!(rig.ack("bob", "phone", &[nonsense]).unknown, [nonsense]);
    assert_eq!(rig.rows, rows);
    assert_eq!(rig.take_rings(), []);
}

#[test]
fn acks_may_come_in_any_order() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 5);
    let above = |acknowledged: Acknowledged| (acknowledged.low, acknowledged.above);
    assert_eq!(above(rig.ack("bob", "phone", &[sent[4]])), (0, vec![5]));
    assert_eq!(above(rig.ack("bob", "phone", &[sent[1]])), (0, vec![2, 5]));
    assert_eq!(
        above(rig.ack("bob", "phone", &[sent[2]])),
        (0, vec![2, 3, 5])
    );
    assert_eq!(rig.kept_seqs("bob").len(), 5, "the first holds them up");
    assert_eq!(above(rig.ack("bob", "phone", &[sent[0]])), (3, vec![5]));
    assert_eq!(rig.kept_seqs("bob"), [4, 5]);
    assert_eq!(above(rig.ack("bob", "phone", &[sent[3]])), (5, vec![]));
    assert_eq!(rig.kept_seqs("bob"), NONE);
    // 17s come in the order of the acks, one for each.
    let told = [4, 1, 2, 0, 3].map(|at| sent[at]);
    assert_eq!(rig.delivered_to("alice"), told);
}

#[test]
fn a_window_of_out_of_order_acks_is_passed_whole_once_the_first_comes() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 64);
    let above = rig.ack("bob", "phone", &sent[1..]).above;
    assert_eq!(above, (2..=64).collect::<Vec<_>>());
    assert_eq!(rig.ack("bob", "phone", &sent[..1]).low, 64);
}

#[test]
fn a_cursor_of_acks_passes_everything_up_to_it_and_begets_all_notices() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 5);
    rig.ack("bob", "phone", &sent[2..3]);
    let acknowledged = rig.up_to("bob", "phone", 4);
    assert_eq!((acknowledged.low, acknowledged.above), (4, vec![]));
    assert_eq!(rig.delivered_to("alice"), [2, 0, 1, 3].map(|at| sent[at]));
    assert_eq!(rig.kept_seqs("bob"), [5]);
    // Backwards it says nothing.
    assert_eq!(rig.up_to("bob", "phone", 2).low, 4);
}

#[test]
fn up_to_an_entry_joins_what_was_passed_above_it() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 5);
    rig.ack("bob", "phone", &sent[3..]);
    assert_eq!(rig.up_to("bob", "phone", 3).low, 5);
}

#[test]
fn a_cursor_of_acks_above_the_head_or_of_another_epoch_passes_nothing() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 2);
    let rows = rig.rows.clone();
    for (epoch, seq) in [(EPOCH, 3), (EPOCH, u64::MAX), (EPOCH + 1, 2)] {
        let reach = Reach::UpTo { epoch, seq };
        assert_eq!(rig.acknowledge("bob", "phone", reach).low, 0);
    }
    assert_eq!(rig.rows, rows);
}

#[test]
fn a_cursor_at_the_upgrade_acknowledges_and_begets_notices() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 3);
    let attached = rig.attach("bob", "phone", Some((EPOCH, 2)));
    assert_eq!(attached.low, 2);
    assert_eq!(ids(&attached.page), sent[2..]);
    assert_eq!(rig.delivered_to("alice"), sent[..2]);
    assert_eq!(rig.kept_seqs("bob"), [3]);
}

#[test]
fn a_pong_passes_without_a_notice() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("alice", "bob", 3);
    assert_eq!(rig.pong("bob", "phone", 2).low, 2);
    assert_eq!(rig.kept_seqs("bob"), [3]);
    assert_eq!(rig.find("alice"), None);
    // One that names a position which was never given passes what there is.
    assert_eq!(rig.pong("bob", "phone", u64::MAX).low, 3);
    assert_eq!(rig.find("alice"), None);
    // Who says it in so many words later still begets the 17.
    rig.ack("bob", "phone", &sent[..1]);
    assert_eq!(rig.delivered_to("alice"), sent[..1]);
}

#[test]
fn another_device_that_acknowledges_what_a_pong_has_passed_begets_the_notice() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.attach("bob", "tablet", None);
    let sent = rig.send_many("alice", "bob", 2);
    rig.pong("bob", "phone", 2);
    rig.up_to("bob", "tablet", 2);
    assert_eq!(rig.delivered_to("alice"), sent);
}

#[test]
fn pushes_beget_no_notice() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let push = rig.push("bob", Some("p1"), "{}");
    rig.accept(&push);
    rig.ack("bob", "phone", &[push.entry.id]);
    assert_eq!(rig.kept_seqs("bob"), NONE);
    assert_eq!(rig.find("system"), None);
}

#[test]
fn an_ack_in_an_inbox_that_is_not_there_is_unknown() {
    let mut rig = Rig::new();
    let id = MessageId([1; 16]);
    assert_eq!(rig.ack("bob", "phone", &[id]).unknown, [id]);
    assert_eq!(rig.up_to("bob", "phone", 1).unknown, []);
    assert_eq!(rig.find("bob"), None);
}

#[test]
fn who_writes_to_himself_gets_message_and_notice_in_one_inbox() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("bob", "bob", 2);
    rig.ack("bob", "phone", &sent[..1]);
    assert_eq!(rig.kept_seqs("bob"), [2, 3]);
    assert_eq!(rig.delivered_to("bob"), sent[..1]);
    rig.up_to("bob", "phone", 3);
    assert_eq!(rig.delivered_to("bob"), sent[1..]);
    let head = rig.head("bob");
    assert_eq!((head.seq, head.entries, head.notices), (4, 0, 1));
    rig.up_to("bob", "phone", 4);
    assert_eq!(rig.head("bob").seq, 4, "a notice begets nothing");
    assert_eq!(rig.kept_seqs("bob"), NONE);
}

#[test]
fn an_entry_that_expired_before_its_ack_came_still_begets_the_notice() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    let first = rig.send("alice", "bob");
    rig.now_ms += RULES.seen_ms;
    rig.send("alice", "bob");
    // The first one leaves the log before its memory goes.
    rig.rules.ttl_ms = RULES.seen_ms;
    rig.rules.seen_ms = 2 * RULES.seen_ms;
    rig.expire("bob");
    assert_eq!(rig.kept_seqs("bob"), [2]);
    let acknowledged = rig.ack("bob", "phone", &[first]);
    assert_eq!((acknowledged.low, acknowledged.unknown.len()), (1, 0));
    assert_eq!(rig.delivered_to("alice"), [first]);
}
