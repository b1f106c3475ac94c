//! Groups: who may do what, and how a message reaches each member once and in order.

use super::*;
use crate::inbox::records::Origin;

const OPEN: GroupRules = GroupRules {
    per_user_max: 3,
    members_max: 4,
    is_open: true,
};
const CLOSED: GroupRules = GroupRules {
    is_open: false,
    ..OPEN
};

type Changed = Result<Vec<String>, GroupError>;

impl Rig {
    fn change(&mut self, id: &str, by: Option<&str>, change: GroupChange) -> Changed {
        self.change_under(id, by, change, &CLOSED)
    }

    fn change_under(
        &mut self,
        id: &str,
        by: Option<&str>,
        change: GroupChange,
        rules: &GroupRules,
    ) -> Changed {
        self.books(|books| books.change_group(id, by, &change, rules))
    }

    fn create(&mut self, id: &str, members: &[&str]) {
        self.change(
            id,
            None,
            GroupChange::Create {
                members: own(members),
            },
        )
        .unwrap();
    }

    fn say(&mut self, id: &str, sender: &str, msgid: Option<&str>, text: &str) -> GroupAccept {
        let body = EntryBody::GroupChat {
            from: author(sender),
            group: id.to_owned(),
            text: text_of(text),
        };
        GroupAccept {
            group: id.to_owned(),
            sender: sender.to_owned(),
            msgid: msgid.map(str::to_owned),
            entry: self.entry(sender, body),
            origin: None,
        }
    }

    fn accept_said(&mut self, accept: &GroupAccept) -> GroupAccepted {
        self.books(|books| books.accept_for_group(accept))
    }

    /// Something new is said.
    fn tell(&mut self, id: &str, sender: &str) -> MessageId {
        let accept = self.say(id, sender, None, "hello");
        assert_eq!(
            self.accept_said(&accept),
            GroupAccepted::New(accept.entry.id)
        );
        accept.entry.id
    }

    fn work_all(&mut self) -> usize {
        let mut done = 0;
        while self.books(|books| books.work("")).is_some() {
            done += 1;
        }
        done
    }

    fn kept_ids(&mut self, uid: &str) -> Vec<MessageId> {
        self.kept(uid)
            .iter()
            .map(|(_, entry, _)| entry.id)
            .collect()
    }
}

fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn join(names: &[&str]) -> GroupChange {
    GroupChange::Join {
        members: own(names),
    }
}

fn leave(uid: &str) -> GroupChange {
    GroupChange::Leave {
        uid: uid.to_owned(),
    }
}

#[test]
fn a_group_is_made_of_its_creator_and_who_is_named_each_once() {
    let mut rig = Rig::new();
    let members = own(&["bob", "alice", "bob"]);
    let made = rig.change("g", Some("alice"), GroupChange::Create { members });
    assert_eq!(made, Ok(own(&["alice", "bob"])));
    let again = GroupChange::Create { members: vec![] };
    assert_eq!(rig.change("g", Some("eve"), again), Err(GroupError::Exists));
    assert_eq!(
        rig.change("g", None, GroupChange::Look),
        Ok(own(&["alice", "bob"]))
    );
    let look = rig.change("g", Some("eve"), GroupChange::Look);
    assert_eq!(look, Err(GroupError::NotMember));
    let look = rig.change("h", Some("eve"), GroupChange::Look);
    assert_eq!(look, Err(GroupError::NotFound));
}

#[test]
fn ids_that_are_none_and_groups_of_nobody_are_refused() {
    let mut rig = Rig::new();
    let before = rig.rows.clone();
    let nobody = GroupError::BadUser("b:b".to_owned());
    for (id, members, error) in [
        ("a b", &["bob"][..], GroupError::BadId),
        ("", &["bob"], GroupError::BadId),
        ("g", &["b:b"], nobody),
        ("g", &[], GroupError::BadId),
    ] {
        let members = own(members);
        let made = rig.change(id, None, GroupChange::Create { members });
        assert_eq!(made, Err(error), "{id}");
    }
    assert_eq!(rig.rows, before);
}

#[test]
fn members_add_others_and_nobody_else_does_unless_the_group_is_open() {
    let mut rig = Rig::new();
    rig.create("g", &["alice"]);
    assert_eq!(
        rig.change("g", Some("bob"), join(&[])),
        Err(GroupError::NotMember)
    );
    let added = rig.change("g", Some("alice"), join(&["bob"]));
    assert_eq!(added, Ok(own(&["alice", "bob"])));
    let other = rig.change_under("g", Some("carol"), join(&["dave"]), &OPEN);
    assert_eq!(
        other,
        Err(GroupError::NotMember),
        "open to oneself, not to others"
    );
    let joined = rig.change_under("g", Some("carol"), join(&[]), &OPEN);
    assert_eq!(joined, Ok(own(&["alice", "bob", "carol"])));
    let joined = rig.change_under("g", Some("dave"), join(&["dave"]), &OPEN);
    assert_eq!(joined.map(|members| members.len()), Ok(4));
}

#[test]
fn limits_of_groups_hold_for_all_who_are_named_or_nobody_enters() {
    let mut rig = Rig::new();
    rig.create("g", &["a", "b", "c"]);
    let too_many = rig.change("g", None, join(&["d", "e"]));
    assert_eq!(too_many, Err(GroupError::Full));
    assert_eq!(rig.books(|books| books.groups_of("d")), [""; 0]);
    rig.change("g", None, join(&["d", "a"])).unwrap();
    for id in ["h", "i"] {
        rig.create(id, &["d"]);
    }
    let members = own(&["e", "d"]);
    let made = rig.change("j", None, GroupChange::Create { members });
    assert_eq!(made, Err(GroupError::TooMany("d".to_owned())));
    assert_eq!(rig.books(|books| books.groups_of("e")), [""; 0]);
    assert_eq!(rig.books(|books| books.groups_of("d")), ["g", "h", "i"]);
}

#[test]
fn one_leaves_for_oneself_and_with_the_last_the_group_ends() {
    let mut rig = Rig::new();
    let before = rig.rows.clone();
    rig.create("g", &["alice", "bob"]);
    assert_eq!(
        rig.change("g", Some("eve"), leave("eve")),
        Err(GroupError::NotMember)
    );
    assert_eq!(
        rig.change("g", Some("bob"), leave("alice")),
        Err(GroupError::NotMember)
    );
    assert_eq!(
        rig.change("g", Some("bob"), leave("bob")),
        Ok(own(&["alice"]))
    );
    assert_eq!(rig.change("g", None, leave("alice")), Ok(own(&[])));
    assert_eq!(
        rig.change("g", None, leave("alice")),
        Err(GroupError::NotFound)
    );
    assert_eq!(rig.rows, before);
}

#[test]
fn a_group_that_is_deleted_takes_its_memory_with_it_and_leaves_what_was_accepted() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    let said = rig.say("g", "alice", Some("m1"), "bye");
    rig.accept_said(&said);
    let by_a_stranger = rig.change("g", Some("eve"), GroupChange::Delete);
    assert_eq!(by_a_stranger, Err(GroupError::NotMember));
    assert_eq!(
        rig.change("g", None, GroupChange::Delete),
        Ok(own(&["alice", "bob"]))
    );
    assert_eq!(rig.kept_ids("bob"), [said.entry.id]);
    assert_eq!(rig.books(|books| books.groups_of("alice")), [""; 0]);
    assert_eq!(rig.work_all(), 0);
    let late = rig.say("g", "alice", None, "?");
    let refused = GroupAccepted::Refused(GroupError::NotFound);
    assert_eq!(rig.accept_said(&late), refused);
    // Another group under this id begins anew.
    rig.create("g", &["alice", "bob"]);
    let again = rig.say("g", "alice", Some("m1"), "hello again");
    assert_eq!(rig.accept_said(&again), GroupAccepted::New(again.entry.id));
    rig.work_all();
    assert_eq!(rig.kept_ids("bob"), [said.entry.id, again.entry.id]);
}

#[test]
fn groups_are_listed_in_pages() {
    let mut rig = Rig::new();
    let ids = ["a", "a-b", "ab", "b"];
    for id in ids.iter().rev() {
        rig.create(id, &[id]);
    }
    assert_eq!(rig.books(|books| books.groups("", 100)), ids);
    assert_eq!(rig.books(|books| books.groups("", 2)), ids[..2]);
    assert_eq!(rig.books(|books| books.groups("a-b", 2)), ids[2..]);
    assert_eq!(rig.books(|books| books.groups("b", 2)), [""; 0]);
    assert_eq!(rig.books(|books| books.groups("", 0)), [""; 0]);
}

#[test]
fn what_is_said_reaches_every_member_once_and_in_order() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob", "carol"]);
    let mut said = rig.tell("g", "alice");
    let mut all = vec![said];
    for sender in ["bob", "alice", "carol"] {
        said = rig.tell("g", sender);
        all.push(said);
    }
    assert_eq!(rig.find("bob"), None, "accepted, and not yet handed over");
    assert_eq!(rig.work_all(), 4);
    for uid in ["alice", "bob", "carol"] {
        assert_eq!(rig.kept_ids(uid), all, "{uid}");
        assert_eq!(rig.kept_seqs(uid), [1, 2, 3, 4]);
    }
    assert_eq!(rig.work_all(), 0);
}

#[test]
fn only_members_may_speak_and_a_repeat_is_recognised_even_after_leaving() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    let stranger = rig.say("g", "eve", Some("m1"), "hi");
    let refused = GroupAccepted::Refused(GroupError::NotMember);
    assert_eq!(rig.accept_said(&stranger), refused);
    let said = rig.say("g", "alice", Some("m1"), "hi");
    rig.accept_said(&said);
    let other = rig.say("g", "alice", Some("m1"), "ho");
    assert_eq!(rig.accept_said(&other), GroupAccepted::Conflict);
    rig.change("g", None, leave("alice")).unwrap();
    // What was accepted once is never called refused.
    let again = rig.say("g", "alice", Some("m1"), "hi");
    assert_eq!(rig.accept_said(&again), GroupAccepted::Again(said.entry.id));
    let new = rig.say("g", "alice", Some("m2"), "hi");
    assert_eq!(rig.accept_said(&new), refused);
    assert_eq!(rig.work_all(), 1);
    assert_eq!(rig.kept_ids("bob"), [said.entry.id]);
}

#[test]
fn a_group_remembers_so_many_of_each_sender_and_for_24_hours() {
    let mut rig = Rig::with(InboxRules {
        seen_max: 2,
        ..RULES
    });
    rig.create("g", &["alice"]);
    for msgid in ["m0", "m1", "m2"] {
        let said = rig.say("g", "alice", Some(msgid), "hi");
        rig.accept_said(&said);
    }
    let known = rig.say("g", "alice", Some("m1"), "hi");
    assert!(matches!(rig.accept_said(&known), GroupAccepted::Again(_)));
    let forgotten = rig.say("g", "alice", Some("m0"), "hi");
    assert!(matches!(rig.accept_said(&forgotten), GroupAccepted::New(_)));
    rig.now_ms += RULES.seen_ms;
    assert!(rig.books(|books| books.expire_group("g")));
    assert!(!rig.books(|books| books.expire_group("h")));
    let old = rig.say("g", "alice", Some("m2"), "hi");
    assert!(matches!(rig.accept_said(&old), GroupAccepted::New(_)));
}

#[test]
fn work_that_is_repeated_brings_nothing_twice() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob", "carol"]);
    let id = rig.tell("g", "alice");
    let before = rig.rows.clone();
    rig.work_all();
    // A node died when some had it and some had not: its work is found as it was.
    let mut died = before.clone();
    for uid in ["alice", "bob"] {
        for key in [rows::head(uid), rows::entry(uid, 1), rows::held(uid, id)] {
            let row = rig.rows.get(&key).unwrap().unwrap();
            died.put(&key, &row).unwrap();
        }
    }
    died.commit();
    rig.rows = died;
    rig.take_rings();
    assert_eq!(rig.work_all(), 1);
    for uid in ["alice", "bob", "carol"] {
        assert_eq!(rig.kept_ids(uid), [id], "{uid}");
    }
    assert_eq!(rig.take_rings().len(), 1, "only who had it not is rung");
}

#[test]
fn work_that_is_taken_back_is_still_there() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    rig.tell("g", "alice");
    let before = rig.rows.clone();
    rig.open(|books| books.work("")).unwrap();
    rig.rows.roll_back();
    assert_eq!(rig.rows, before);
    assert_eq!(rig.work_all(), 1);
}

#[test]
fn nothing_is_left_of_work_once_it_is_done() {
    let mut rig = Rig::new();
    rig.create("g", &["alice"]);
    rig.attach("alice", "phone", None);
    let before = rig.rows.len();
    for _ in 0..5 {
        rig.tell("g", "alice");
    }
    rig.work_all();
    rig.up_to("alice", "phone", 5);
    rig.now_ms += RULES.seen_ms;
    rig.expire("alice");
    rig.books(|books| books.expire_group("g"));
    assert_eq!(rig.rows.len(), before);
}

#[test]
fn a_member_who_has_no_room_gets_a_gap_and_the_others_the_message() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 2,
        ..RULES
    });
    rig.create("g", &["alice", "bob", "carol"]);
    rig.connect("bob", "phone");
    rig.attach("bob", "phone", None);
    let sent = rig.send_many("dave", "bob", 2);
    rig.take_rings();
    let id = rig.tell("g", "alice");
    assert_eq!(rig.work_all(), 1);
    assert_eq!(rig.take_lost(), ["bob"]);
    assert_eq!(rig.kept_ids("bob"), sent);
    assert_eq!(rig.kept_ids("carol"), [id]);
    let page = rig.pull("bob", "phone", 0, 10);
    assert!(page.resync);
    assert_eq!(page.head_seq, 2, "a gap takes no number");
}

#[test]
fn a_gap_after_one_that_was_told_is_told_when_there_is_room_again() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 1,
        ..RULES
    });
    rig.create("g", &["alice", "bob"]);
    rig.connect("bob", "phone");
    rig.attach("bob", "phone", None);
    let sent = rig.send("dave", "bob");
    rig.tell("g", "alice");
    rig.tell("g", "alice");
    rig.work_all();
    assert_eq!(rig.take_lost(), ["bob"], "one ring before he is told");
    rig.pull("bob", "phone", 0, 10);
    rig.tell("g", "alice");
    rig.work_all();
    assert_eq!(rig.take_lost(), [""; 0], "none for each while he is full");
    rig.ack("bob", "phone", &[sent]);
    assert_eq!(rig.take_lost(), ["bob"]);
    // Not even an entry that comes before the page silences it.
    let next = rig.send("dave", "bob");
    assert!(matches!(
        &rig.take_rings()[..],
        [Ring::Lost { .. }, Ring::Entry { .. }]
    ));
    rig.ack("bob", "phone", &[next]);
    assert!(rig.pull("bob", "phone", 0, 10).resync);
}

#[test]
fn a_gap_for_someone_who_never_came_is_told_to_his_first_device() {
    let mut rig = Rig::with(InboxRules {
        bytes_max: 1,
        ..RULES
    });
    rig.create("g", &["alice", "bob"]);
    rig.tell("g", "alice");
    rig.work_all();
    assert!(rig.attach("bob", "phone", None).page.resync);
}

#[test]
fn the_device_that_spoke_has_passed_its_message_and_its_connection_is_not_rung() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    rig.connect("alice", "phone");
    for device in ["phone", "tablet"] {
        rig.attach("alice", device, None);
    }
    let first = rig.send("dave", "alice");
    rig.take_rings();
    let mut said = rig.say("g", "alice", Some("m1"), "hi");
    said.origin = Some(Origin {
        device: "phone".to_owned(),
        connection: 9,
    });
    rig.accept_said(&said);
    rig.work_all();
    let rings = rig.take_rings();
    let but = |uid: &str| {
        rings.iter().find_map(|ring| match ring {
            Ring::Entry { uid: of, but, .. } if of == uid => Some(*but),
            _ => None,
        })
    };
    assert_eq!((but("alice"), but("bob")), (Some(Some(9)), Some(None)));
    let id = said.entry.id;
    assert_eq!(ids(&rig.attach("alice", "phone", None).page), [first]);
    assert_eq!(ids(&rig.attach("alice", "tablet", None).page), [first, id]);
    assert_eq!(rig.ack("alice", "phone", &[first]).low, 2);
}

/// Alice, on her phone, has a notice that she has not passed.
fn alice_with_a_notice(rules: InboxRules) -> Rig {
    let mut rig = Rig::with(rules);
    rig.create("g", &["alice"]);
    rig.attach("alice", "phone", None);
    rig.attach("bob", "phone", None);
    let chat = rig.send("alice", "bob");
    rig.ack("bob", "phone", &[chat]);
    assert_eq!(rig.delivered_to("alice"), [chat]);
    rig
}

impl Rig {
    fn tell_from_phone(&mut self) {
        let mut said = self.say("g", "alice", None, "hi");
        said.origin = Some(Origin {
            device: "phone".to_owned(),
            connection: 9,
        });
        self.accept_said(&said);
        self.work_all();
    }
}

#[test]
fn what_a_device_says_to_a_group_passes_no_notice_that_has_not_come() {
    let mut rig = alice_with_a_notice(RULES);
    rig.tell_from_phone();
    assert_eq!(seqs(&rig.attach("alice", "phone", None).page), [1]);
    let next = rig.send("dave", "alice");
    assert_eq!(rig.ack("alice", "phone", &[next]).low, 3);
    assert_eq!(rig.kept_seqs("alice"), NONE);
}

#[test]
fn what_a_device_says_to_groups_does_not_fill_its_inbox_behind_a_notice() {
    let mut rig = alice_with_a_notice(InboxRules {
        entries_max: 2,
        ..RULES
    });
    rig.tell_from_phone();
    rig.tell_from_phone();
    let next = rig.send("dave", "alice");
    let page = rig.attach("alice", "phone", None).page;
    assert_eq!(ids(&page), [next]);
    assert!(page.resync, "the notice is gone, and that is said");
}

#[test]
fn a_message_too_large_even_without_the_notices_in_the_way_leaves_all_as_it_was() {
    let mut rig = alice_with_a_notice(InboxRules {
        bytes_max: 200,
        ..RULES
    });
    rig.tell_from_phone();
    rig.tell_from_phone();
    let before = rig.rows.clone();
    let large = rig.push("alice", None, &"x".repeat(300));
    assert_eq!(rig.accept(&large), Accepted::Full);
    assert_eq!(rig.rows, before);
    assert!(!rig.attach("alice", "phone", None).page.resync);
}

#[test]
fn the_message_of_a_sender_with_one_device_does_not_stay_in_his_inbox() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    let mut said = rig.say("g", "alice", None, "hi");
    said.origin = Some(Origin {
        device: "phone".to_owned(),
        connection: 9,
    });
    rig.accept_said(&said);
    rig.work_all();
    assert_eq!(rig.kept_seqs("alice"), NONE);
    assert_eq!(rig.head("alice").seq, 1);
}

#[test]
fn a_sender_whose_own_inbox_is_full_misses_nothing_where_he_wrote_it() {
    let mut rig = Rig::with(InboxRules {
        entries_max: 1,
        ..RULES
    });
    rig.create("g", &["alice"]);
    for device in ["phone", "tablet"] {
        rig.attach("alice", device, None);
    }
    rig.send("dave", "alice");
    let mut said = rig.say("g", "alice", None, "hi");
    said.origin = Some(Origin {
        device: "phone".to_owned(),
        connection: 9,
    });
    rig.accept_said(&said);
    rig.work_all();
    assert!(!rig.attach("alice", "phone", None).page.resync);
    assert!(rig.attach("alice", "tablet", None).page.resync);
}

#[test]
fn group_messages_beget_no_notice() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    rig.attach("bob", "phone", None);
    let id = rig.tell("g", "alice");
    rig.work_all();
    rig.ack("bob", "phone", &[id]);
    assert_eq!(rig.delivered_to("alice"), []);
    assert_eq!(rig.kept_seqs("bob"), NONE);
}

#[test]
fn members_are_those_who_are_in_it_when_it_is_handed_over() {
    let mut rig = Rig::new();
    rig.create("g", &["alice", "bob"]);
    let id = rig.tell("g", "alice");
    rig.change("g", None, leave("bob")).unwrap();
    rig.change("g", None, join(&["carol"])).unwrap();
    rig.work_all();
    assert_eq!(rig.find("bob"), None);
    assert_eq!(rig.kept_ids("carol"), [id]);
}
