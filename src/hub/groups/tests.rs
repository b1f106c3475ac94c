//! What groups promise, one thread at a time; `tests/hub.rs` has several.

use super::*;

const RULES: GroupRules = GroupRules {
    per_user_max: 3,
    members_max: 4,
    is_open: false,
};
const OPEN: GroupRules = GroupRules {
    is_open: true,
    ..RULES
};

fn names(members: &Members) -> Vec<&str> {
    members.iter().map(|uid| &**uid).collect()
}

fn members(groups: &Groups, id: &str) -> String {
    groups
        .members(id)
        .map_or("none".to_owned(), |m| names(&m).join(" "))
}

#[test]
fn a_group_lives_from_its_creator_to_its_last_member() {
    let groups = Groups::default();
    let made = groups.create("g", Some("zoe"), &["bob", "eve"], &RULES);
    assert_eq!(names(&made.unwrap()), ["zoe", "bob", "eve"]);
    assert_eq!(groups.counts(), (1, 3));
    let before = groups.members("g").unwrap();
    assert_eq!(names(&groups.leave("g", "zoe").unwrap()), ["bob", "eve"]);
    assert_eq!(groups.leave("g", "zoe"), Err(GroupError::NotMember));
    assert_eq!(names(&before), ["zoe", "bob", "eve"], "who got it keeps it");
    assert_eq!(members(&groups, "g"), "bob eve");
    groups.leave("g", "eve").unwrap();
    assert!(groups.leave("g", "bob").unwrap().is_empty());
    assert_eq!(groups.leave("g", "bob"), Err(GroupError::NotFound));
    assert_eq!((groups.members("g"), groups.counts()), (None, (0, 0)));
    groups.create("g", None, &["eve"], &RULES).unwrap();
    assert_eq!(members(&groups, "g"), "eve");
}

#[test]
fn an_id_is_taken_once_and_free_again_when_its_group_is_deleted() {
    let groups = Groups::default();
    groups.create("g", Some("bob"), &["eve"], &RULES).unwrap();
    let again = groups.create("g", Some("zoe"), &[], &RULES);
    assert_eq!(again, Err(GroupError::Exists));
    assert!(groups.of_user("zoe").is_empty());
    assert_eq!(names(&groups.delete("g").unwrap()), ["bob", "eve"]);
    assert_eq!(groups.delete("g"), Err(GroupError::NotFound));
    assert!(groups.of_user("bob").is_empty() && groups.of_user("eve").is_empty());
    assert_eq!(groups.counts(), (0, 0));
    groups.create("g", Some("zoe"), &[], &RULES).unwrap();
}

#[test]
fn who_is_named_twice_is_in_it_once() {
    let groups = Groups::default();
    let made = groups.create("g", Some("bob"), &["eve", "bob", "eve"], &RULES);
    assert_eq!(names(&made.unwrap()), ["bob", "eve"]);
    let joined = groups.join("g", None, &["zoe", "eve", "zoe"], &RULES);
    assert_eq!(names(&joined.unwrap()), ["bob", "eve", "zoe"]);
    assert_eq!(groups.counts(), (1, 3));
}

#[test]
fn ids_keep_to_their_alphabet_and_a_group_has_a_member() {
    let groups = Groups::default();
    let bad = Err(GroupError::BadId);
    assert_eq!(groups.create("", Some("bob"), &[], &RULES), bad);
    assert_eq!(groups.create("a b", Some("bob"), &[], &RULES), bad);
    let user = |uid: &str| Err(GroupError::BadUser(uid.to_owned()));
    assert_eq!(groups.create("g", Some(""), &["bob"], &RULES), user(""));
    assert_eq!(
        groups.create("g", None, &["bob", "é"], &RULES),
        user("é"),
        "the group's own id is not to blame"
    );
    assert_eq!(groups.create("g", None, &[], &RULES), bad);
    assert_eq!(groups.counts(), (0, 0));
    groups.create("g", Some("bob"), &[], &OPEN).unwrap();
    assert_eq!(groups.join("g", Some("a b"), &[], &OPEN), user("a b"));
    assert_eq!(groups.join("g", None, &["eve", ""], &OPEN), user(""));
    assert_eq!(members(&groups, "g"), "bob");
}

#[test]
fn a_user_joins_alone_only_where_it_is_open() {
    let groups = Groups::default();
    let join = |by, whom: &[&str], rules| groups.join("g", Some(by), whom, rules).map(drop);
    assert_eq!(join("bob", &[], &OPEN), Err(GroupError::NotFound));
    groups.create("g", Some("bob"), &[], &RULES).unwrap();
    assert_eq!(join("eve", &[], &RULES), Err(GroupError::NotMember));
    assert_eq!(join("eve", &["eve"], &RULES), Err(GroupError::NotMember));
    assert_eq!(join("bob", &[], &RULES), Ok(()));
    assert_eq!(join("bob", &["bob"], &RULES), Ok(()));
    assert_eq!(members(&groups, "g"), "bob");
    assert_eq!(join("eve", &[], &OPEN), Ok(()));
    assert_eq!(join("zoe", &["zoe", "zoe"], &OPEN), Ok(()));
    assert_eq!(members(&groups, "g"), "bob eve zoe");
}

#[test]
fn members_and_the_operator_add_others() {
    let groups = Groups::default();
    groups.create("g", Some("bob"), &[], &OPEN).unwrap();
    let by_a_stranger = groups.join("g", Some("eve"), &["eve", "zoe"], &OPEN);
    assert_eq!(by_a_stranger, Err(GroupError::NotMember));
    assert_eq!(members(&groups, "g"), "bob");
    let by_a_member = groups.join("g", Some("bob"), &["bob", "eve"], &RULES);
    assert_eq!(names(&by_a_member.unwrap()), ["bob", "eve"]);
    let by_the_operator = groups.join("g", None, &["zoe"], &RULES);
    assert_eq!(names(&by_the_operator.unwrap()), ["bob", "eve", "zoe"]);
    groups.join("g", None, &[], &RULES).unwrap();
    assert_eq!(members(&groups, "g"), "bob eve zoe");
}

#[test]
fn a_group_is_full_at_its_limit_and_takes_all_or_nobody() {
    let groups = Groups::default();
    let full = Err(GroupError::Full);
    let four = ["b", "c", "d", "e"];
    assert_eq!(groups.create("g", Some("a"), &four, &RULES), full);
    assert_eq!(groups.counts(), (0, 0));
    groups
        .create("four", Some("a"), &["b", "c", "d"], &RULES)
        .unwrap();
    groups.create("g", Some("a"), &["b", "c"], &RULES).unwrap();
    assert_eq!(groups.join("g", None, &["d", "e"], &RULES), full);
    assert_eq!(members(&groups, "g"), "a b c");
    assert!(groups.of_user("e").is_empty());
    groups.join("g", None, &["a", "d", "b"], &RULES).unwrap();
    assert_eq!(groups.join("g", None, &["e"], &RULES), full);
    groups.join("g", None, &["d", "a"], &RULES).unwrap();
    assert_eq!(members(&groups, "g"), "a b c d");
    groups.leave("g", "a").unwrap();
    groups.join("g", None, &["e"], &RULES).unwrap();
    assert_eq!(members(&groups, "g"), "b c d e");
}

#[test]
fn a_user_is_in_so_many_groups_and_no_more() {
    let groups = Groups::default();
    let too_many = Err(GroupError::TooMany("bob".to_owned()));
    for id in ["g2", "g1"] {
        groups.create(id, Some("bob"), &[], &RULES).unwrap();
    }
    groups.create("g3", Some("eve"), &["bob"], &RULES).unwrap();
    assert_eq!(groups.create("g4", Some("bob"), &[], &RULES), too_many);
    assert_eq!(groups.create("g4", None, &["zoe", "bob"], &RULES), too_many);
    assert_eq!((groups.members("g4"), groups.counts()), (None, (3, 4)));
    assert!(groups.of_user("zoe").is_empty());
    groups.create("g4", Some("zoe"), &[], &RULES).unwrap();
    assert_eq!(groups.join("g4", None, &["eve", "bob"], &RULES), too_many);
    assert_eq!(members(&groups, "g4"), "zoe");
    groups.join("g3", Some("bob"), &[], &RULES).unwrap();
    assert_eq!(groups.of_user("bob"), ["g1", "g2", "g3"]);
    groups.leave("g1", "bob").unwrap();
    groups.join("g4", None, &["bob"], &RULES).unwrap();
    assert_eq!(groups.of_user("bob"), ["g2", "g3", "g4"]);
}

#[test]
fn ids_come_sorted_and_by_pages() {
    let groups = Groups::default();
    for id in ["b", "a", "c", "B"] {
        groups
            .create(id, None, &[&format!("of-{id}")], &RULES)
            .unwrap();
    }
    assert_eq!(groups.ids("", 9), ["B", "a", "b", "c"]);
    assert_eq!(groups.ids("", 2), ["B", "a"]);
    assert_eq!(groups.ids("a", 2), ["b", "c"]);
    assert_eq!(groups.ids("aa", 1), ["b"]);
    assert!(groups.ids("c", 9).is_empty() && groups.ids("", 0).is_empty());
}

#[test]
fn the_text_of_an_id_exists_once() {
    let groups = Groups::default();
    let first = groups.create("g1", Some("bob"), &[], &RULES).unwrap();
    let second = groups.create("g2", None, &["eve", "bob"], &RULES).unwrap();
    assert!(Arc::ptr_eq(&first[0], &second[1]));
    groups.join("g1", None, &["eve"], &RULES).unwrap();
    groups.leave("g1", "bob").unwrap();
    let book = groups.book();
    // The ids, the shard, and the one member's list.
    assert_eq!(Arc::strong_count(book.ids.get("g1").unwrap()), 3);
    let (bob, _) = book.users.get_key_value("bob").unwrap();
    assert!(Arc::ptr_eq(bob, &second[1]));
}

#[test]
fn nothing_stays_behind_when_all_groups_are_gone() {
    let groups = Groups::default();
    for i in 0..1000 {
        let own = format!("user-{i}");
        groups
            .create(&format!("g-{i}"), Some(&own), &[], &RULES)
            .unwrap();
    }
    for i in 0..1000 {
        groups
            .leave(&format!("g-{i}"), &format!("user-{i}"))
            .unwrap();
    }
    assert_eq!(groups.counts(), (0, 0));
    assert!(groups.book().users.is_empty());
    assert!(groups.book().users.capacity() < 100);
    for shard in &groups.shards {
        assert!(shard.read().unwrap().is_empty());
    }
}
