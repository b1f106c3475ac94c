//! What the shared parts of the hub promise to threads that use them at once.

#![allow(clippy::unwrap_used)]

use std::sync::Barrier;
use std::thread;

use throng::hub::watches::Watches;
use throng::parts::key::Key;

const THREADS: usize = 8;

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
