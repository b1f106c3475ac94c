//! Nodes that are wrong in a chosen way: the judge notices each, so its silence elsewhere means
//! something. Ways to be wrong that no healthy disk and no short run can show are left to the
//! simulation.

use std::sync::atomic::Ordering::Relaxed;

use throng_history::{Class, Kind};

use crate::crashes::DEATHS;
use crate::device::Manner;
use crate::random::seed;
use crate::world::{Plan, World};

/// Runs nodes that are wrong in this way, and die now and then.
fn misbehave(mutant: &'static str, plan: Plan) -> World {
    let env = [("THRONG_MUTANT", mutant)];
    let mut world = plan.begin();
    world.kill();
    for _ in 0..DEATHS {
        let passages = format!("committed:{}", 1 + world.random.below(100));
        world.revive_until_it_dies(&[env[0], ("THRONG_CRASH_AT", &passages)]);
    }
    world.revive(&env);
    world.await_confirmed(20);
    world
}

#[test]
fn a_node_that_answers_before_its_messages_are_durable_is_found_out() {
    let world = misbehave("answers-early", Plan::new("answers-early", seed()));
    // Places are given to other messages.
    world.ends_broken(&[Kind::Lost, Kind::Reordered]);
}

#[test]
fn a_node_that_does_not_know_repetitions_is_found_out() {
    let world = misbehave("no-dedupe", Plan::new("no-dedupe", seed()));
    world.ends_broken(&[Kind::TwoIds, Kind::DuplicateMsgid]);
}

#[test]
fn a_node_that_takes_anybodys_acknowledgement_is_found_out() {
    let world = misbehave("anyones-ack", Plan::new("anyones-ack", seed()));
    world.ends_broken(&[Kind::ForgedAck, Kind::NoticeWithoutAck]);
}

#[test]
fn a_node_that_tells_of_a_delivery_each_time_is_found_out() {
    let world = misbehave("notice-each-time", Plan::new("notice-each-time", seed()));
    world.ends_broken(&[Kind::SecondNotice]);
}

#[test]
fn a_node_that_does_not_hear_cursors_is_found_out() {
    let world = misbehave("no-cursor", Plan::new("no-cursor", seed()));
    world.ends_broken(&[Kind::Repeated]);
}

#[test]
fn a_node_that_takes_for_received_what_it_has_sent_is_found_out() {
    let world = misbehave("sent-is-got", Plan::new("sent-is-got", seed()));
    world.ends_broken(&[Kind::Lost, Kind::Hole]);
}

#[test]
fn a_node_that_drops_what_finds_no_room_is_found_out() {
    const DEVICES: [(&str, &str, Manner); 2] = [
        ("alice", "phone", Manner::Acks),
        ("bob", "phone", Manner::Acks),
    ];
    let world = Plan {
        devices: &DEVICES,
        classes: &[Class::Single],
        config: "[limits]\ninbox_entries_max = 20\n",
        env: &[("THRONG_MUTANT", "silent-trim")],
        ..Plan::new("silent-trim", seed())
    }
    .begin();
    for strings in world.strings("bob") {
        strings.is_away.store(true, Relaxed);
    }
    world.await_confirmed(100);
    for strings in world.strings("bob") {
        strings.is_away.store(false, Relaxed);
    }
    world.ends_broken(&[Kind::Lost, Kind::Hole]);
}
