//! Several devices of one user: who is known, who is forgotten, and who is told.

use super::*;

#[test]
fn an_entry_stays_until_every_known_device_has_passed_it() {
    let mut rig = Rig::new();
    for device in ["phone", "tablet", "laptop"] {
        rig.attach("bob", device, None);
    }
    let sent = rig.send_many("alice", "bob", 2);
    rig.ack("bob", "phone", &sent);
    rig.pong("bob", "laptop", 2);
    assert_eq!(rig.kept_seqs("bob"), [1, 2]);
    assert_eq!(ids(&rig.attach("bob", "tablet", None).page), sent);
    rig.ack("bob", "tablet", &sent[..1]);
    assert_eq!(rig.kept_seqs("bob"), [2]);
    rig.up_to("bob", "tablet", 2);
    assert_eq!(rig.kept_seqs("bob"), NONE);
}

#[test]
fn each_device_goes_on_from_its_own_position() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.attach("bob", "tablet", None);
    let sent = rig.send_many("alice", "bob", 4);
    rig.up_to("bob", "phone", 3);
    rig.ack("bob", "tablet", &sent[1..3]);
    let phone = rig.attach("bob", "phone", None);
    assert_eq!((phone.low, seqs(&phone.page)), (3, vec![4]));
    let tablet = rig.attach("bob", "tablet", None);
    assert_eq!((tablet.low, seqs(&tablet.page)), (0, vec![1, 4]));
    assert!(!phone.page.resync && !tablet.page.resync);
}

#[test]
fn a_new_device_begins_with_the_oldest_entry_and_misses_nothing() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 3);
    rig.up_to("bob", "phone", 2);
    let new = rig.attach("bob", "tablet", None);
    assert_eq!((new.low, seqs(&new.page)), (2, vec![3]));
    assert!(!new.page.resync && new.is_known);
    assert_eq!(new.page.offered, 0);
}

#[test]
fn who_is_connected_is_known_to_an_inbox_that_begins() {
    let mut rig = Rig::new();
    let nothing = rig.attach("bob", "default", None);
    assert!(!nothing.is_known, "an anonymous one is not written down");
    assert_eq!((nothing.epoch, nothing.head_seq), (EPOCH, 0));
    assert_eq!(rig.find("bob"), None);
    rig.connect("bob", "default");
    let id = rig.send("alice", "bob");
    rig.attach("bob", "tablet", None);
    rig.ack("bob", "tablet", &[id]);
    assert_eq!(rig.kept_seqs("bob"), [1], "the other one has not passed it");
    rig.ack("bob", "default", &[id]);
    assert_eq!(rig.kept_seqs("bob"), NONE);
}

#[test]
fn a_device_that_found_no_inbox_can_be_written_down_later() {
    let mut rig = Rig::new();
    rig.attach("bob", "default", Some((EPOCH, 0)));
    assert_eq!(rig.find("bob"), None);
    for _ in 0..2 {
        rig.books(|books| books.remember_device("bob", "default"));
    }
    assert_eq!(rig.head("bob").devices.len(), 1);
    assert!(
        rig.attach("bob", "phone", None).is_known,
        "one with a name is"
    );
    let id = rig.send("alice", "bob");
    rig.ack("bob", "phone", &[id]);
    assert_eq!(rig.kept_seqs("bob"), [1]);
}

#[test]
fn eight_devices_are_known_and_a_ninth_makes_the_furthest_behind_be_forgotten() {
    let mut rig = Rig::new();
    for n in 0..8_u64 {
        rig.attach("bob", &format!("d{n}"), None);
    }
    rig.send_many("alice", "bob", 10);
    for n in 0..8_u64 {
        // d3 is furthest behind.
        rig.up_to("bob", &format!("d{n}"), if n == 3 { 1 } else { 5 + n % 3 });
    }
    assert_eq!(rig.head("bob").devices.len(), 8);
    assert!(!rig.attach("bob", "d3", None).page.resync);
    let ninth = rig.attach("bob", "d8", None);
    assert_eq!((ninth.low, ninth.page.resync), (1, false));
    let head = rig.head("bob");
    assert_eq!(head.devices.len(), 8);
    assert_eq!(head.device("d3"), None);
    assert_eq!(rig.kept_seqs("bob")[0], 2, "the ninth has passed nothing");
}

#[test]
fn a_forgotten_device_is_told_on_its_return_whatever_its_cursor_says() {
    for cursor in [None, Some((EPOCH, 2))] {
        let mut rig = Rig::new();
        for n in 0..9 {
            rig.attach("bob", &format!("d{n}"), None);
        }
        assert_eq!(rig.head("bob").device("d0"), None);
        rig.send_many("alice", "bob", 2);
        let back = rig.attach("bob", "d0", cursor);
        assert!(back.page.resync);
        assert_eq!(back.low, cursor.map_or(0, |(_, seq)| seq));
        assert_eq!(rig.head("bob").devices.len(), 8);
    }
}

#[test]
fn a_device_that_was_forgotten_long_ago_is_told_too() {
    let mut rig = Rig::new();
    rig.attach("bob", "first", None);
    for n in 0..40 {
        rig.attach("bob", &format!("d{n}"), None);
    }
    let head = rig.head("bob");
    assert_eq!((head.devices.len(), head.forgotten.len()), (8, 8));
    assert!(rig.attach("bob", "first", None).page.resync);
}

#[test]
fn what_may_have_been_sent_before_a_device_was_forgotten_is_marked_so() {
    let mut rig = Rig::new();
    rig.connect("bob", "d0");
    rig.attach("bob", "d0", None);
    rig.send_many("alice", "bob", 3);
    rig.disconnect("bob", "d0");
    for n in 1..9 {
        rig.attach("bob", &format!("d{n}"), None);
    }
    let back = rig.attach("bob", "d0", None);
    assert_eq!((seqs(&back.page), back.page.offered), (vec![1, 2, 3], 3));
}

#[test]
fn a_connected_device_is_not_forgotten_for_a_newcomer() {
    let mut rig = Rig::new();
    for n in 0..8 {
        rig.connect("bob", &format!("d{n}"));
        rig.attach("bob", &format!("d{n}"), None);
    }
    rig.disconnect("bob", "d7");
    rig.send("alice", "bob");
    rig.up_to("bob", "d7", 1);
    rig.attach("bob", "d8", None);
    let head = rig.head("bob");
    assert_eq!(head.device("d7"), None, "though others are behind it");
    assert_eq!(head.devices.len(), 8);
}

#[test]
fn what_expires_unpassed_is_told_to_each_device_that_missed_it() {
    let mut rig = Rig::new();
    for device in ["phone", "tablet", "laptop"] {
        rig.attach("bob", device, None);
    }
    let old = rig.send_many("alice", "bob", 2);
    rig.up_to("bob", "phone", 2);
    rig.ack("bob", "laptop", &old[1..]);
    rig.now_ms += RULES.ttl_ms - 1;
    rig.send("alice", "bob");
    rig.take_rings();
    assert!(rig.expire("bob"));
    assert_eq!(rig.kept_seqs("bob"), [1, 2, 3], "not a moment too early");
    rig.now_ms += 1;
    rig.expire("bob");
    assert_eq!(rig.kept_seqs("bob"), [3]);
    assert_eq!(rig.take_lost(), ["bob"], "one ring for all of it");
    for (device, is_missed) in [("phone", false), ("tablet", true), ("laptop", true)] {
        let attached = rig.attach("bob", device, None);
        assert_eq!(attached.page.resync, is_missed, "{device}");
        assert_eq!(seqs(&attached.page), [3], "{device}");
    }
}

#[test]
fn who_was_told_and_passes_a_later_entry_is_not_told_again() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send("alice", "bob");
    rig.now_ms += RULES.ttl_ms;
    rig.expire("bob");
    // As long as nothing shows that the word has come, it is repeated.
    assert!(rig.attach("bob", "phone", None).page.resync);
    assert!(rig.attach("bob", "phone", None).page.resync);
    let next = rig.send("alice", "bob");
    rig.ack("bob", "phone", &[next]);
    assert!(!rig.attach("bob", "phone", None).page.resync);
    assert!(!rig.pull("bob", "phone", 0, 10).resync);
}

#[test]
fn a_cursor_behind_the_loss_shows_that_the_word_has_come() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send("alice", "bob");
    rig.now_ms += RULES.ttl_ms;
    rig.expire("bob");
    let told = rig.attach("bob", "phone", None);
    assert!(told.page.resync);
    let back = rig.attach("bob", "phone", Some((told.epoch, told.head_seq)));
    assert!(!back.page.resync);
}

#[test]
fn an_ack_of_what_was_sent_before_the_word_of_a_loss_does_not_silence_it() {
    let mut rig = Rig::with(InboxRules {
        notices_max: 1,
        ..RULES
    });
    rig.connect("alice", "phone");
    rig.attach("alice", "phone", None);
    let early = rig.send("carol", "alice");
    rig.attach("bob", "phone", None);
    rig.send_many("alice", "bob", 2);
    rig.up_to("bob", "phone", 2);
    // An ack was on its way when the notice was dropped: first unread, then after the page.
    rig.ack("alice", "phone", &[early]);
    assert!(rig.pull("alice", "phone", 0, 10).resync);
    rig.up_to("alice", "phone", 2);
    assert!(rig.attach("alice", "phone", None).page.resync);
    // This one was sent behind it.
    let late = rig.send("carol", "alice");
    rig.ack("alice", "phone", &[late]);
    assert!(!rig.attach("alice", "phone", None).page.resync);
}

#[test]
fn what_expires_where_nobody_is_known_is_told_to_the_first_who_comes() {
    let mut rig = Rig::new();
    rig.send("alice", "bob");
    rig.now_ms += RULES.ttl_ms;
    rig.expire("bob");
    assert_eq!(rig.take_lost(), [""; 0], "nobody hears a ring");
    rig.send("alice", "bob");
    let first = rig.attach("bob", "phone", None);
    assert_eq!((first.page.resync, seqs(&first.page)), (true, vec![2]));
    assert!(!rig.attach("bob", "tablet", None).page.resync);
}

#[test]
fn what_expires_sets_free_what_a_device_has_passed_behind_it() {
    let mut rig = Rig::new();
    rig.attach("bob", "phone", None);
    rig.send("alice", "bob");
    rig.now_ms += 1;
    let later = rig.send_many("alice", "bob", 3);
    rig.ack("bob", "phone", &later);
    rig.now_ms += RULES.ttl_ms - 1;
    rig.expire("bob");
    assert_eq!(rig.kept_seqs("bob"), NONE);
    assert_eq!(rig.attach("bob", "phone", None).low, 4);
}

#[test]
fn expiry_goes_through_an_inbox_of_any_length() {
    let mut rig = Rig::new();
    rig.send_many("alice", "bob", 600);
    rig.now_ms += RULES.ttl_ms - 1;
    rig.send("alice", "bob");
    rig.now_ms += 1;
    rig.expire("bob");
    assert_eq!(rig.kept_seqs("bob"), [601]);
    assert!(!rig.expire("nobody"));
}

#[test]
fn whoever_has_an_inbox_is_listed_in_pages() {
    let mut rig = Rig::new();
    let users = ["a", "a-b", "a.b", "ab", "b", "b@c", "carol"];
    for uid in users.iter().rev() {
        rig.send("system", uid);
    }
    assert_eq!(rig.books(|books| books.users("", 100)), users);
    let mut read: Vec<String> = Vec::new();
    loop {
        let after = read.last().cloned().unwrap_or_default();
        let page = rig.books(|books| books.users(&after, 2));
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        read.extend(page);
    }
    assert_eq!(read, users);
    assert_eq!(rig.books(|books| books.users("aa", 1)), ["ab"]);
    assert_eq!(rig.books(|books| books.users("", 0)), [""; 0]);
}
