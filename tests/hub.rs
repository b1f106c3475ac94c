//! What the shared parts of the hub promise to threads that use them at once.

#![allow(clippy::unwrap_used)]

use std::sync::Barrier;
use std::thread;

use throng::hub::groups::{GroupError, GroupRules, Groups};
use throng::hub::watches::Watches;
use throng::parts::key::Key;

const THREADS: usize = 8;
const RULES: GroupRules = GroupRules {
    per_user_max: 1000,
    members_max: 1000,
    is_open: true,
};

/// Runs `work` in all threads at once and returns what each came to.
fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let run = |number| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(number)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(run).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

#[test]
fn of_those_who_create_one_group_at_once_one_wins() {
    let groups = Groups::default();
    for round in 0..200 {
        let id = format!("g-{round}");
        let made = at_once(|number| groups.create(&id, Some(&format!("u-{number}")), &[], &RULES));
        let winners: Vec<_> = made.iter().flatten().collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(groups.members(&id).as_ref(), Some(winners[0]));
        let lost = made.iter().filter(|it| **it == Err(GroupError::Exists));
        assert_eq!(lost.count(), THREADS - 1);
    }
    assert_eq!(groups.counts(), (200, 200));
}

#[test]
fn the_last_place_of_a_group_is_given_once() {
    let groups = Groups::default();
    let rules = GroupRules {
        members_max: 2,
        ..RULES
    };
    for round in 0..200 {
        let id = format!("g-{round}");
        groups.create(&id, Some("owner"), &[], &rules).unwrap();
        let joined = at_once(|number| groups.join(&id, Some(&format!("u-{number}")), &[], &rules));
        assert_eq!(joined.iter().flatten().count(), 1);
        assert_eq!(groups.members(&id).unwrap().len(), 2);
    }
}

#[test]
fn whoever_comes_and_goes_a_group_and_its_users_agree() {
    let groups = Groups::default();
    at_once(|number| {
        let uid = format!("u-{number}");
        for i in 0..2000 {
            let id = format!("g-{}", i % 3);
            if groups.create(&id, Some(&uid), &[], &RULES).is_err() {
                let _ = groups.join(&id, Some(&uid), &[], &RULES);
            }
            let _ = groups.members(&id);
            if i % 5 != 0 {
                let _ = groups.leave(&id, &uid);
            }
            if i % 97 == 0 {
                let _ = groups.delete(&id);
            }
        }
    });
    let mut of_users = 0;
    for number in 0..THREADS {
        let uid = format!("u-{number}");
        for id in groups.of_user(&uid) {
            let members = groups.members(&id).unwrap();
            assert_eq!(members.iter().filter(|it| ***it == *uid).count(), 1);
            of_users += 1;
        }
    }
    let ids = groups.ids("", 100);
    let in_groups: usize = ids.iter().map(|id| groups.members(id).unwrap().len()).sum();
    assert_eq!((ids.len(), of_users), groups.counts());
    assert_eq!(in_groups, of_users);
}

#[test]
fn watches_come_and_go_in_all_threads_and_none_stays_behind() {
    let watches = Watches::default();
    at_once(|number| {
        for i in 0..2000 {
            let key = Key::new(number, i % 50, 0);
            let users = [format!("u-{}", i % 7), format!("u-{}", i % 11)];
            let users = [users[0].as_str(), users[1].as_str()];
            watches.watch(key, &users, 100).unwrap();
            assert!(watches.watchers(users[0]).contains(&key));
            watches.unwatch(key, &users[..1]);
            assert!(!watches.watchers(users[0]).contains(&key));
            if i % 3 == 0 {
                watches.forget(key);
            }
        }
        for i in 0..50 {
            watches.forget(Key::new(number, i, 0));
        }
    });
    assert_eq!(watches.len(), 0);
    for i in 0..11 {
        assert!(watches.watchers(&format!("u-{i}")).is_empty());
    }
}
