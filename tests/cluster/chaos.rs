//! Long runs, for `make chaos` alone: a node that is away until its lease has lapsed, and faults of
//! all kinds in any order, for an hour or for THRONG_CHAOS_SECS.

use std::time::{Duration, Instant};

use crate::crowd::CLASSES;
use crate::nodes::{Cluster, hears, join_with, send};
use crate::support::eventually;
use crate::world::World;

#[test]
#[ignore = "long: make chaos"]
fn a_node_that_stands_still_until_its_lease_lapses_comes_back_with_everybody() {
    let cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut bob = join_with(cluster.node(1), "bob", "");
    send(&mut alice, "bob", "before", "m1");
    assert_eq!(hears(&mut bob, 1), ["before"]);
    cluster.node(1).signal("STOP");
    eventually("the others know", || cluster.node(0).metric("nodes") == 2.0);
    eventually("they clean up", || cluster.sessions_of("bob").is_empty());
    send(&mut alice, "bob", "meanwhile", "m2");
    std::thread::sleep(Duration::from_secs(30));
    cluster.node(1).signal("CONT");
    assert_eq!(hears(&mut bob, 1), ["meanwhile"]);
    cluster.await_each_other();
    eventually("he is found again", || {
        cluster.sessions_of("bob").len() == 1
    });
    send(&mut alice, "bob", "after", "m3");
    assert_eq!(hears(&mut bob, 1), ["after"]);
}

#[test]
#[ignore = "long: make chaos"]
fn a_node_stands_still_for_seventy_seconds_while_everybody_talks() {
    let mut world = World::of("cluster-lapsed", 100, &CLASSES);
    world.await_confirmed(50);
    let seat = world.any_seat();
    world.stop_node(seat, Duration::from_secs(70));
    world.await_confirmed(100);
    world.ends_whole();
}

#[test]
#[ignore = "long: make chaos"]
fn whatever_breaks_in_whatever_order_nothing_is_lost_and_nothing_comes_twice() {
    let secs = std::env::var("THRONG_CHAOS_SECS");
    let secs = secs.map_or(3600, |text| {
        text.parse().expect("THRONG_CHAOS_SECS is a number")
    });
    let end = Instant::now() + Duration::from_secs(secs);
    let mut world = World::of("chaos", 400, &CLASSES);
    while Instant::now() < end {
        let seat = world.any_seat();
        match world.random.below(9) {
            0 => {
                world.kill(seat);
                world.await_confirmed(5);
                world.revive(seat);
            }
            1 => world.restart(seat),
            2 => {
                let during = Duration::from_secs(1 + world.random.below(20) as u64);
                world.stop_node(seat, during);
            }
            3 => {
                let during = world.random.millis(0, 6000);
                world.kill_redis(during);
            }
            4 => {
                let during = world.random.millis(100, 8000);
                world.stop_redis(during);
            }
            5 => world.cut_the_bus(10),
            6 => {
                let during = world.random.millis(100, 20_000);
                world.silence_the_bus(during);
            }
            7 => {
                // One that dies while another one stands still.
                world.kill(seat);
                world.stop_node((seat + 1) % 3, Duration::from_secs(4));
                world.revive(seat);
            }
            _ => (0..10).for_each(|_| world.tear_somebody()),
        }
        world.await_confirmed(20);
    }
    world.ends_whole();
}
