//! Cases of DELIVERY that need no fault in the node's program, each by its name.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use crate::device::{Manner, Strings};
use crate::random::seed;
use crate::support::eventually;
use crate::world::Plan;

#[test]
fn a_receivers_node_dies_with_bytes_in_the_kernels_buffer() {
    let mut world = Plan::new("buffered", seed()).begin();
    for _ in 0..3 {
        for strings in world.strings("bob").chain(world.strings("eve")) {
            strings.is_deaf.store(true, Relaxed);
        }
        // Sent to them, and read by nobody: some of it lies in the kernel.
        world.await_confirmed(100);
        world.kill();
        // Bob loses what lies there, eve reads it when the node is gone.
        world.strings("bob").for_each(Strings::tear);
        for strings in world.strings("bob").chain(world.strings("eve")) {
            strings.is_deaf.store(false, Relaxed);
        }
        world.revive(&[]);
        world.await_confirmed(20);
    }
    world.ends_clean();
}

#[test]
fn an_inbox_is_full() {
    const DEVICES: [(&str, &str, Manner); 3] = [
        ("alice", "phone", Manner::Acks),
        ("bob", "phone", Manner::Acks),
        ("carol", "phone", Manner::Cursors),
    ];
    let mut world = Plan {
        devices: &DEVICES,
        config: "[limits]\ninbox_entries_max = 40\n",
        ..Plan::new("full", seed())
    }
    .begin();
    for strings in world.strings("bob") {
        strings.is_away.store(true, Relaxed);
    }
    eventually("bob's inbox is full", || world.refusals("inbox_full") > 20);
    world.kill();
    world.revive(&[]);
    for strings in world.strings("bob") {
        strings.is_away.store(false, Relaxed);
    }
    world.await_confirmed(50);
    let report = world.ends_clean();
    // Of a group whose message finds no room in an inbox, only its owner hears.
    assert!(report.totals.gaps > 0, "{report}");
}

/// Where the roots stand in the two commit slots of a store's file, and the byte that names the
/// valid slot.
const ROOTS: [u64; 2] = [72, 200];
const GOD_BYTE: u64 = 9;

#[test]
fn the_stores_file_has_a_torn_tail() {
    let mut world = Plan::new("torn-tail", seed()).begin();
    for _ in 0..3 {
        world.await_confirmed(100);
        world.kill();
        let path = world.data().join("store.redb");
        // A commit that was under way: the file has grown by pages that belong to nothing, and of
        // the slot that was to name them a part is written.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&[0x5a; 5 * 4096]).unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut god = [0];
        file.read_exact_at(&mut god, GOD_BYTE).unwrap();
        let torn = ROOTS[usize::from(god[0] & 1 == 0)];
        file.write_all_at(&[0x5a; 40], torn).unwrap();
        world.revive(&[]);
    }
    world.await_confirmed(20);
    let report = world.ends_clean();
    assert!(report.totals.faults == 3, "{report}");
}
