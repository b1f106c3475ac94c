//! Who is found, who makes room, and what observers hear.

use super::*;

const MULTI: Policy = Policy {
    is_single: false,
    sessions_max: 8,
};
const SINGLE: Policy = Policy {
    is_single: true,
    sessions_max: 8,
};

fn user(uid: &str) -> Identity {
    Identity::new(uid, "").unwrap()
}

fn bind(roster: &Roster, uid: &str, key: Key, since_secs: u32) -> Bound {
    roster.bind(user(uid), key, since_secs, None, MULTI)
}

fn on_device(roster: &Roster, device: &str, key: Key, policy: Policy) -> Bound {
    let extra = Arc::new(Extra {
        device: Some(device.into()),
        metadata: Metadata::default(),
    });
    roster.bind(user("bob"), key, 10, Some(extra), policy)
}

fn key(index: usize) -> Key {
    Key::new(0, index, 0)
}

#[test]
fn sessions_are_found_until_they_are_unbound() {
    let roster = Roster::default();
    let (first, second) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
    bind(&roster, "bob", first, 10);
    bind(&roster, "bob", second, 11);
    bind(&roster, "eve", Key::new(0, 2, 0), 11);
    let mut found = roster.find("bob");
    found.sort();
    assert_eq!(found.as_slice(), [first, second]);
    assert_eq!(roster.counts(), (2, 3));
    roster.unbind("bob", first);
    roster.unbind("bob", first);
    assert_eq!(roster.find("bob").as_slice(), [second]);
    roster.unbind("bob", second);
    assert!(roster.find("bob").is_empty());
    assert_eq!(roster.counts(), (1, 1));
}

#[test]
fn one_that_said_goodbye_is_not_found_but_keeps_its_name() {
    let roster = Roster::default();
    let key = Key::new(0, 1, 0);
    bind(&roster, "bob", key, 10);
    roster.set_online("bob", key, false);
    assert!(roster.find("bob").is_empty());
    assert_eq!(roster.counts(), (0, 0));
    assert_eq!(bind(&roster, "bob", Key::new(0, 2, 0), 10).ordinal, 1);
    assert_eq!(roster.counts(), (1, 1));
    roster.set_online("bob", key, true);
    roster.set_online("bob", key, true);
    assert_eq!(roster.counts(), (1, 2));
    roster.unbind("bob", Key::new(0, 2, 0));
    roster.set_online("bob", key, false);
    roster.unbind("bob", key);
    assert_eq!(roster.counts(), (0, 0));
}

#[test]
fn sessions_of_one_second_get_different_ordinals() {
    let roster = Roster::default();
    let ordinals: Vec<u16> = (0..3)
        .map(|i| bind(&roster, "bob", Key::new(0, i, 0), 10).ordinal)
        .collect();
    assert_eq!(ordinals, [0, 1, 2]);
    roster.unbind("bob", Key::new(0, 1, 0));
    // Never the one of a session that ended: it would be a name for two.
    assert_eq!(bind(&roster, "bob", Key::new(0, 9, 0), 10).ordinal, 3);
    assert_eq!(bind(&roster, "bob", Key::new(0, 10, 0), 11).ordinal, 0);
}

#[test]
fn many_users_survive_the_growth_of_the_tables() {
    let roster = Roster::default();
    for i in 0..20_000 {
        bind(&roster, &format!("user-{i}"), key(i), 1);
    }
    for i in 0..20_000 {
        assert_eq!(
            roster.find(&format!("user-{i}")).as_slice(),
            [Key::new(0, i, 0)]
        );
    }
    for i in 0..20_000 {
        roster.unbind(&format!("user-{i}"), Key::new(0, i, 0));
    }
    assert_eq!(roster.counts(), (0, 0));
}

#[test]
fn a_ninth_session_takes_the_place_of_the_oldest() {
    let roster = Roster::default();
    for i in 0..8 {
        let bound = bind(&roster, "bob", key(i), 10 + i as u32 / 4);
        assert!(bound.replaced.is_empty() && !bound.is_one_too_many);
    }
    for i in 8..12 {
        let bound = bind(&roster, "bob", key(i), 12);
        assert_eq!(bound.replaced.as_slice(), [key(i - 8)]);
        assert!(bound.is_one_too_many);
    }
    assert_eq!(roster.find("bob").len(), 8);
    assert_eq!(roster.counts(), (1, 8));
    roster.unbind("bob", key(0));
    assert_eq!(roster.counts(), (1, 8), "it was out already");
}

#[test]
fn a_device_has_one_session_and_anonymous_ones_stay() {
    let roster = Roster::default();
    bind(&roster, "bob", key(0), 10);
    bind(&roster, "bob", key(1), 10);
    on_device(&roster, "phone", key(2), MULTI);
    on_device(&roster, "tablet", key(3), MULTI);
    let bound = on_device(&roster, "phone", key(4), MULTI);
    assert_eq!(bound.replaced.as_slice(), [key(2)]);
    assert!(!bound.is_one_too_many);
    let mut found = roster.find("bob");
    found.sort();
    assert_eq!(found.as_slice(), [key(0), key(1), key(3), key(4)]);
}

#[test]
fn the_newest_is_the_only_one_where_the_policy_says_so() {
    let roster = Roster::default();
    bind(&roster, "bob", key(0), 10);
    on_device(&roster, "phone", key(1), MULTI);
    let mut replaced = on_device(&roster, "tablet", key(2), SINGLE).replaced;
    replaced.sort();
    assert_eq!(replaced.as_slice(), [key(0), key(1)]);
    assert_eq!(roster.find("bob").as_slice(), [key(2)]);
}

#[test]
fn coming_and_going_are_told_once_each_and_not_where_another_session_stays() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = told.clone();
    let roster = Roster::default().observed_by(Arc::new(move |uid, is_there| {
        ear.lock().unwrap().push((uid.to_owned(), is_there));
    }));
    bind(&roster, "bob", key(0), 10);
    bind(&roster, "bob", key(1), 10);
    roster.set_online("bob", key(0), false);
    on_device(&roster, "phone", key(2), SINGLE);
    roster.unbind("bob", key(1));
    assert_eq!(*told.lock().unwrap(), [("bob".to_owned(), true)]);
    roster.set_online("bob", key(2), false);
    roster.set_online("bob", key(2), true);
    roster.unbind("bob", key(2));
    let states: Vec<bool> = told.lock().unwrap().iter().map(|(_, is)| *is).collect();
    assert_eq!(states, [true, false, true, false]);
}

#[test]
fn a_selector_finds_those_whose_metadata_match() {
    let roster = Roster::default();
    let metadata = [("room", "7"), ("lang", "en")].map(|(k, v)| (k.into(), v.into()));
    let extra = Extra {
        device: None,
        metadata: Metadata::collect(metadata.into_iter(), 8, 256).unwrap(),
    };
    roster.bind(user("bob"), key(0), 10, Some(Arc::new(extra)), MULTI);
    bind(&roster, "bob", key(1), 10);
    let find = |key: &str, value: &str| roster.find_matching("bob", &[(key.into(), value.into())]);
    assert_eq!(find("room", "7").as_slice(), [key(0)]);
    assert!(find("room", "8").is_empty() && find("x", "7").is_empty());
    assert_eq!(roster.sessions("bob").len(), 2);
}
