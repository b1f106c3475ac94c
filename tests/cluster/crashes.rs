//! Nodes that die, stand still or are restarted while everybody talks.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::Duration;

use throng::parts::faults::Point;

use crate::crowd::CLASSES;
use crate::device::Strings;
use crate::world::{NODES, World};

#[test]
fn nodes_that_are_killed_again_and_again_lose_nothing_and_double_nothing() {
    const KILLS: u64 = 6;
    let mut world = World::begin("cluster-kills");
    for _ in 0..KILLS {
        let seat = world.any_seat();
        sleep(world.random.millis(100, 1200));
        world.kill(seat);
        // The others serve meanwhile.
        world.await_confirmed(50);
        world.revive(seat);
        world.await_confirmed(20);
    }
    let report = world.ends_whole();
    assert_eq!(report.totals.faults, KILLS, "{report}");
}

/// Deaths after a commit at most until one of them has left a message unanswered.
const REPETITION_TRIES: u32 = 20;

#[test]
fn a_node_dies_at_each_point_of_its_work_and_the_others_go_on() {
    const POINTS: [Point; 5] = [
        Point::Taken,
        Point::Committed,
        Point::Answered,
        Point::Rung,
        Point::Sent,
    ];
    let mut world = World::begin("cluster-points");
    let seat = world.any_seat();
    world.kill(seat);
    for point in POINTS {
        let crash = format!("{}:{}", point.name(), 1 + world.random.below(100));
        world.revive_until_it_dies(seat, &crash);
        world.await_confirmed(20);
    }
    // Not every batch accepts something.
    for _ in 0..REPETITION_TRIES {
        if world.repetitions() > 0 {
            break;
        }
        let crash = format!("{}:{}", Point::Committed.name(), 1 + world.random.below(20));
        world.revive_until_it_dies(seat, &crash);
        world.await_confirmed(20);
    }
    world.revive(seat);
    world.await_confirmed(50);
    assert!(world.repetitions() > 0, "nothing was repeated");
    world.ends_whole();
}

#[test]
fn a_node_that_stands_still_for_ten_seconds_goes_on_where_it_was() {
    let mut world = World::begin("cluster-stopped");
    world.await_confirmed(50);
    let seat = world.any_seat();
    world.stop_node(seat, Duration::from_secs(10));
    world.await_confirmed(50);
    world.ends_whole();
}

#[test]
fn all_nodes_are_restarted_one_after_the_other_while_everybody_talks() {
    let mut world = World::begin("cluster-rolling");
    for seat in 0..NODES {
        world.await_confirmed(50);
        world.restart(seat);
        world.cluster.await_each_other();
    }
    world.await_confirmed(50);
    let report = world.ends_whole();
    assert_eq!(report.totals.faults, 0, "{report}");
}

#[test]
fn clients_that_wander_from_node_to_node_miss_nothing_and_get_nothing_twice() {
    let mut world = World::begin("cluster-wanderers");
    for _ in 0..60 {
        world.tear_somebody();
    }
    world.await_confirmed(20);
    let report = world.ends_whole();
    assert!(report.totals.connections > 20, "{report}");
}

#[test]
fn where_everything_is_broadcast_nodes_that_are_killed_lose_nothing_either() {
    let routing = [("THRONG_ROUTING", "broadcast")];
    let mut world = World::with("broadcast-kills", 20, &CLASSES, &routing);
    for _ in 0..3 {
        let seat = world.any_seat();
        world.kill(seat);
        world.cut_the_bus(2);
        world.await_confirmed(50);
        world.revive(seat);
        world.await_confirmed(20);
    }
    world.ends_whole();
}

#[test]
fn receivers_nodes_die_with_bytes_in_the_kernels_buffers() {
    let mut world = World::begin("cluster-buffered");
    for seat in 0..NODES {
        for user in ["bob", "eve"] {
            let deafen = |strings: &Strings| strings.is_deaf.store(true, Relaxed);
            world.strings(user).for_each(deafen);
        }
        // Sent to them, and read by nobody: some of it lies in the kernel.
        world.await_confirmed(100);
        world.kill(seat);
        // Bob loses what lies there, eve reads it when the node is gone.
        world.strings("bob").for_each(Strings::tear);
        for user in ["bob", "eve"] {
            let restore = |strings: &Strings| strings.is_deaf.store(false, Relaxed);
            world.strings(user).for_each(restore);
        }
        world.await_confirmed(20);
        world.revive(seat);
    }
    world.ends_whole();
}
