//! Reading: cursors, pages, and what has been offered before.

use super::*;

fn push_of(rig: &mut Rig, bytes: usize) -> MessageId {
    let push = rig.push("bob", None, &"x".repeat(bytes));
    assert_eq!(rig.accept(&push), Accepted::New(push.entry.id));
    push.entry.id
}

#[test]
fn without_a_cursor_a_device_goes_on_where_it_was() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 1);
    let attached = rig.attach("bob", "phone", None);
    assert_eq!((attached.low, attached.head_seq), (1, 3));
    assert_eq!(seqs(&attached.page), [2, 3]);
}

#[test]
fn a_cursor_at_the_head_finds_nothing_to_read() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    let page = rig.attach("bob", "phone", Some((EPOCH, 3))).page;
    assert_eq!((seqs(&page), page.until, page.head_seq), (vec![], 3, 3));
    assert!(!page.resync);
}

#[test]
fn a_cursor_above_the_head_or_of_another_epoch_is_told_and_moves_nothing() {
    for cursor in [(EPOCH, 3), (EPOCH, u64::MAX), (EPOCH + 1, 1), (0, 0)] {
        for device in ["phone", "tablet", "default"] {
            let mut rig = Rig::new();
            rig.attach("bob", "phone", None);
            rig.send_many("alice", "bob", 2);
            let attached = rig.attach("bob", device, Some(cursor));
            assert!(attached.page.resync, "{cursor:?} {device}");
            assert_eq!((attached.low, seqs(&attached.page)), (0, vec![1, 2]));
            assert_eq!(attached.epoch, EPOCH);
            assert_eq!(rig.find("alice"), None);
        }
    }
}

#[test]
fn a_cursor_for_an_inbox_that_is_gone_is_told() {
    let mut rig = Rig::new();
    let attached = rig.attach("bob", "default", Some((EPOCH + 1, 9)));
    assert!(attached.page.resync && attached.is_known);
    assert_eq!((attached.low, attached.head_seq), (0, 0));
    // That the inbox began is a reason to know this device; it hears of it until it moves.
    assert!(rig.attach("bob", "default", None).page.resync);
    let id = rig.send("alice", "bob");
    rig.ack("bob", "default", &[id]);
    assert!(!rig.attach("bob", "default", Some((EPOCH, 1))).page.resync);
}

#[test]
fn an_unknown_device_with_a_cursor_before_what_is_kept_is_told() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 2);
    let attached = rig.attach("bob", "tablet", Some((EPOCH, 1)));
    assert!(attached.page.resync);
    assert_eq!((attached.low, seqs(&attached.page)), (2, vec![3]));
    let attached = rig.attach("bob", "laptop", Some((EPOCH, 2)));
    assert!(!attached.page.resync, "this one has all that is gone");
    assert_eq!(seqs(&attached.page), [3]);
}

#[test]
fn a_cursor_behind_the_devices_own_position_takes_nothing_back() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.attach("bob", "tablet", None);
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 2);
    let attached = rig.attach("bob", "phone", Some((EPOCH, 1)));
    assert_eq!((attached.low, seqs(&attached.page)), (2, vec![3]));
    assert!(!attached.page.resync);
}

#[test]
fn a_page_holds_300_entries() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 301);
    let page = rig.attach("bob", "phone", None).page;
    assert_eq!(seqs(&page), (1..=300).collect::<Vec<_>>());
    assert_eq!((page.until, page.head_seq), (300, 301));
    let page = rig.pull("bob", "phone", page.until, usize::MAX);
    assert_eq!((seqs(&page), page.until), (vec![301], 301));
    let page = rig.look("bob", 0, usize::MAX);
    assert_eq!(page.entries.len(), 300);
}

#[test]
fn exactly_300_entries_are_one_whole_page() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 300);
    let page = rig.attach("bob", "phone", None).page;
    assert_eq!((page.entries.len(), page.until), (300, 300));
}

#[test]
fn a_page_holds_256_kib_and_one_entry_at_least() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    for _ in 0..5 {
        push_of(&mut rig, 64 << 10);
    }
    push_of(&mut rig, 300 << 10);
    push_of(&mut rig, 1);
    // Four bodies of 64 KiB are more than a page with what is around them.
    let page = rig.attach("bob", "phone", None).page;
    assert_eq!((seqs(&page), page.until), (vec![1, 2, 3], 3));
    let page = rig.pull("bob", "phone", 3, 300);
    assert_eq!((seqs(&page), page.until), (vec![4, 5], 5));
    let page = rig.pull("bob", "phone", 5, 300);
    assert_eq!((seqs(&page), page.until), (vec![6], 6));
    let page = rig.look("bob", 6, 300);
    assert_eq!((seqs(&page), page.until), (vec![7], 7));
}

#[test]
fn a_page_leaves_out_what_the_device_has_passed_and_says_how_far_it_has_looked() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.attach("bob", "tablet", None);
    let sent = rig.send_many("alice", "bob", 10);
    rig.ack("bob", "phone", &sent[1..9]);
    let page = rig.pull("bob", "phone", 0, 4);
    assert_eq!((seqs(&page), page.until), (vec![1], 4), "all take a place");
    assert_eq!(page.passed, [2, 3, 4]);
    let page = rig.pull("bob", "phone", 4, 10);
    assert_eq!((seqs(&page), page.until), (vec![10], 10));
    let page = rig.pull("bob", "phone", 10, 10);
    assert_eq!((seqs(&page), page.until), (vec![], 10));
    assert_eq!(seqs(&rig.look("bob", 0, 3)), [1, 2, 3], "a look shows all");
}

#[test]
fn asking_for_nothing_reads_nothing() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 2);
    let page = rig.pull("bob", "phone", 0, 0);
    assert_eq!((seqs(&page), page.until, page.head_seq), (vec![], 0, 2));
    let page = rig.look("bob", 1, 0);
    assert_eq!((seqs(&page), page.until), (vec![], 1));
}

#[test]
fn reading_behind_the_head_or_behind_everything_finds_nothing() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 2);
    for after in [2, 3, u64::MAX] {
        assert_eq!(seqs(&rig.pull("bob", "phone", after, 10)), NONE);
        assert_eq!(seqs(&rig.look("bob", after, 10)), NONE);
    }
    let nothing = rig.look("nobody", 0, 10);
    assert_eq!((nothing.epoch, nothing.head_seq), (EPOCH, 0));
    let nothing = rig.pull("nobody", "phone", 0, 10);
    assert_eq!((nothing.epoch, nothing.head_seq), (EPOCH, 0));
    assert_eq!(rig.find("nobody"), None);
}

#[test]
fn a_pull_and_a_look_move_nothing() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    for _ in 0..2 {
        assert_eq!(seqs(&rig.pull("bob", "phone", 0, 2)), [1, 2]);
        assert_eq!(seqs(&rig.look("bob", 0, 2)), [1, 2]);
    }
    assert_eq!(rig.attach("bob", "phone", None).low, 0);
    assert_eq!(rig.kept_seqs("bob"), [1, 2, 3]);
    assert_eq!(rig.find("alice"), None);
}

#[test]
fn a_look_writes_nothing() {
    let mut rig = Rig::new();
    rig.send_many("alice", "bob", 3);
    let rows = rig.rows.clone();
    rig.look("bob", 0, 10);
    rig.look("nobody", 0, 10);
    assert_eq!(rig.rows, rows);
}

#[test]
fn what_was_read_before_counts_as_offered() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    let first = rig.attach("bob", "phone", None).page;
    assert_eq!((seqs(&first), first.offered), (vec![1, 2, 3], 0));
    rig.send("alice", "bob");
    let again = rig.attach("bob", "phone", None).page;
    assert_eq!((seqs(&again), again.offered), (vec![1, 2, 3, 4], 3));
}

#[test]
fn what_was_pushed_to_a_connected_device_counts_as_offered() {
    let mut rig = Rig::new();
    rig.connect("bob", "phone");
    rig.attach("bob", "phone", None);
    rig.attach("bob", "tablet", None);
    rig.send_many("alice", "bob", 2);
    rig.disconnect("bob", "phone");
    rig.send("alice", "bob");
    assert_eq!(rig.attach("bob", "phone", None).page.offered, 2);
    assert_eq!(rig.attach("bob", "tablet", None).page.offered, 0);
}

#[test]
fn what_a_connected_device_is_too_far_behind_for_is_not_offered_yet() {
    let mut rig = Rig::new();
    rig.send_many("alice", "bob", 400);
    rig.connect("bob", "phone");
    let first = rig.attach("bob", "phone", None).page;
    assert_eq!((first.until, first.offered), (300, 0));
    rig.send("alice", "bob");
    let second = rig.pull("bob", "phone", 300, 300);
    assert_eq!((second.until, second.offered), (401, 300));
    // Now it has caught up, and is sent what comes.
    rig.send("alice", "bob");
    assert_eq!(rig.pull("bob", "phone", 401, 300).offered, 402);
}
