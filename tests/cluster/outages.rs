//! Redis dies, forgets, stands still, or stops being heard, while everybody talks.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use throng_history::{Class, Kind};

use crate::crowd::CLASSES;
use crate::nodes::{Cluster, chat, hears, is_silent, join_with, send};
use crate::support::{Client, eventually};
use crate::world::World;

#[test]
fn redis_is_killed_and_what_it_had_confirmed_is_there_when_it_is_back() {
    let mut world = World::begin("redis-killed");
    for millis in [0, 500, 2500] {
        world.await_confirmed(100);
        world.kill_redis(Duration::from_millis(millis));
        world.await_confirmed(50);
    }
    // Everybody was told that something might be missing, and nothing is.
    let report = world.ends_whole();
    assert!(report.totals.gaps > 0, "{report}");
}

#[test]
fn redis_loses_everything_and_clients_are_told_and_go_on() {
    // Groups are lost as well, so nobody talks to one.
    let mut world = World::of("redis-emptied", 20, &[Class::Single, Class::Push]);
    for user in ["bob", "eve"] {
        world.await_confirmed(50);
        // What waits for somebody is lost. Whether what has no answer was stored is known before:
        // under the same msgid it would come again.
        world
            .strings(user)
            .for_each(|strings| strings.is_away.store(true, Relaxed));
        world.await_confirmed(50);
        world
            .strings(user)
            .for_each(|strings| strings.is_away.store(false, Relaxed));
        world.fall_silent();
        world.empty_redis();
        world.talk();
        world.await_confirmed(100);
    }
    let report = world.ends_clean();
    assert!(report.totals.gaps > 0, "{report}");
}

#[test]
fn redis_stands_still_for_five_seconds() {
    let mut world = World::begin("redis-stopped");
    world.await_confirmed(100);
    world.stop_redis(Duration::from_secs(5));
    world.await_confirmed(100);
    world.ends_whole();
}

#[test]
fn nodes_that_do_not_hear_each_other_again_and_again_deliver_everything() {
    let mut world = World::begin("bus-cut");
    for _ in 0..3 {
        world.cut_the_bus(10);
        world.await_confirmed(50);
    }
    let report = world.ends_whole();
    assert_eq!(report.totals.faults, 0, "{report}");
}

#[test]
fn nodes_that_are_deaf_for_a_while_deliver_everything_when_they_hear_again() {
    let mut world = World::begin("bus-silent");
    world.await_confirmed(50);
    world.silence_the_bus(Duration::from_secs(10));
    world.await_confirmed(50);
    world.ends_whole();
}

#[test]
fn nodes_that_trust_what_they_hear_are_found_out() {
    let mutant = [("THRONG_MUTANT", "doorbell-only")];
    let mut world = World::with("cluster-doorbell-only", 20, &CLASSES, &mutant);
    world.await_confirmed(50);
    world.cut_the_bus(10);
    world.await_confirmed(50);
    world.ends_broken(&[Kind::Lost, Kind::Hole]);
}

#[test]
fn what_was_only_said_while_nobody_heard_arrives_when_the_bus_is_back() {
    let cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut bob = join_with(cluster.node(1), "bob", "");
    for n in 0..10 {
        let _: u32 = cluster.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        let text = format!("m{n}");
        send(&mut alice, "bob", &text, &text);
        assert_eq!(hears(&mut bob, 1), [text]);
    }
    is_silent(&mut bob);
}

fn ready(cluster: &Cluster, seat: usize) -> (u16, Value) {
    let answer = cluster.node(seat).get("/ready");
    (answer.status, answer.json())
}

/// An error 503, as an envelope or as a type 500.
fn is_refused(client: &mut Client, said: &Value) {
    client.say(said);
    let answer = client.hear();
    assert_eq!(answer["params"]["code"], 503, "{answer}");
    assert_eq!(answer["params"]["reason"], "store_down", "{answer}");
}

#[test]
fn while_redis_is_down_clients_stay_and_what_is_not_stored_flows_on_a_node() {
    let mut cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "ack=1");
    let mut bob = join_with(cluster.node(0), "bob", "");
    let mut carol = join_with(cluster.node(1), "carol", "");
    cluster.redis.kill();
    for seat in 0..2 {
        eventually("the nodes are not ready", || ready(&cluster, seat).0 == 503);
        // Of what is under way when it dies nobody knows what came of it.
        let order = json!({"to": ["nobody"], "msg": {"n": 1}});
        eventually("nothing is stored", || {
            cluster.node(seat).post("/api/v1/messages", &order).status == 503
        });
    }
    is_refused(&mut alice, &chat("bob", "stored", "m1"));
    is_refused(&mut alice, &chat("carol", "stored", "m2"));
    let params = json!({"toMessageId": "team", "message": "hi", "msgid": "g1"});
    is_refused(&mut alice, &json!({"type": 9, "params": params}));
    alice.say(&json!({"to": "bob", "msg": "live", "msgType": 1}));
    assert_eq!(bob.hear()["msg"], "live");
    assert_eq!(cluster.node(0).push(&["bob"], &json!({"n": 2})).status, 200);
    assert_eq!(bob.hear()["msg"]["n"], 2);
    // Whoever comes now is taken, and learns later how his inbox stands.
    let mut dave = join_with(cluster.node(1), "dave", "");
    for client in [&mut alice, &mut bob, &mut carol, &mut dave] {
        is_silent(client);
    }

    cluster.redis.restart();
    for seat in 0..2 {
        eventually("the nodes are ready", || ready(&cluster, seat).0 == 200);
    }
    eventually("chats are stored again", || {
        alice.say(&chat("carol", "after", "m3"));
        let answer = alice.hear();
        answer["type"] == 0
    });
    // The server is another one for all that they know. What was refused never comes.
    let told = [
        (&mut bob, None),
        (&mut carol, Some("after")),
        (&mut dave, None),
    ];
    for (client, text) in told {
        let heard: Vec<Value> = client.is_heard();
        let texts: Vec<&Value> = heard
            .iter()
            .map(|heard| &heard["msg"]["params"]["message"])
            .filter(|text| text.is_string())
            .collect();
        assert!(
            texts
                .iter()
                .all(|heard| text.is_some_and(|text| **heard == text)),
            "{heard:?}"
        );
    }
    eventually("users are found again", || {
        cluster.node(0).push(&["dave"], &json!({"n": 3})).json()["statusCode"] == 200
    });
}

#[test]
fn a_node_ends_in_order_while_redis_is_down() {
    let mut cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "");
    cluster.redis.kill();
    eventually("the node is not ready", || ready(&cluster, 0).0 == 503);
    cluster.node(0).signal("TERM");
    assert_eq!(alice.closed().code, 1012);
    alice.say_goodbye(1012);
    let (status, errors) = cluster.await_end(0);
    assert_eq!(status.code(), Some(0), "{errors}");
    // Its lease could not be given back; it takes its name again all the same.
    cluster.redis.restart();
    cluster.open(0);
    cluster.await_each_other();
}
