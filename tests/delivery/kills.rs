//! Whatever dies, and whenever: everybody talks without a pause meanwhile.

use std::thread::sleep;
use std::time::Duration;

use crate::device::Strings;
use crate::random::seed;
use crate::support::eventually;
use crate::world::{DEVICES, Plan};

#[test]
fn a_node_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    const KILLS: u32 = 10;
    let mut world = Plan::new("kills", seed()).begin();
    for _ in 0..KILLS {
        sleep(world.random.millis(100, 1800));
        world.kill();
        world.revive(&[]);
        // Some progress between two kills, however slow the machine is.
        world.await_confirmed(20);
    }
    let report = world.ends_clean();
    assert!(report.totals.faults == u64::from(KILLS), "{report}");
}

#[test]
fn clients_that_are_torn_off_again_and_again_miss_nothing_and_get_nothing_twice() {
    let mut world = Plan::new("torn-clients", seed()).begin();
    for _ in 0..60 {
        sleep(world.random.millis(20, 150));
        let number = world.random.below(DEVICES.len());
        let device = world.all_strings().nth(number).unwrap();
        device.tear();
        eventually("the connection is torn", || device.is_torn());
    }
    world.await_confirmed(20);
    let report = world.ends_clean();
    assert!(report.totals.connections > 20, "{report}");
}

#[test]
fn a_node_that_stands_still_for_a_while_goes_on_where_it_was() {
    let mut world = Plan::new("stopped", seed()).begin();
    for secs in [1, 3] {
        world.await_confirmed(50);
        world.begin_fault("the node is stopped");
        world.node().signal("STOP");
        sleep(Duration::from_secs(secs));
        // Some of the clients give it up meanwhile.
        world.strings("alice").for_each(Strings::tear);
        world.node().signal("CONT");
        world.end_fault("the node is stopped");
    }
    world.await_confirmed(50);
    world.ends_clean();
}
