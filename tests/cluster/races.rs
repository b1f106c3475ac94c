//! Two nodes that do the same thing at the same time, or one after the other's death.

use std::thread::scope;

use serde_json::{Value, json};

use crate::nodes::{Cluster, chat, hears, is_silent, join_with, send};
use crate::server::Server;
use crate::support::{Client, Event, Opcode};

#[test]
fn of_one_message_that_two_nodes_take_at_once_one_is_delivered_and_one_says_dup() {
    let cluster = Cluster::start(3);
    let mut bob = join_with(cluster.node(2), "bob", "");
    let mut alices = [0, 1].map(|n| join_with(cluster.node(n), "alice", &format!("device=d{n}")));
    for n in 0..40 {
        let said = chat("bob", &format!("text {n}"), &format!("m{n}"));
        let say = |alice: &mut Client| {
            alice.say(&said);
            alice.hear()
        };
        let [one, other] = &mut alices;
        let (one, other) = scope(|threads| {
            let one = threads.spawn(|| say(one));
            (say(other), one.join().unwrap())
        });
        for receipt in [&one, &other] {
            assert_eq!(receipt["type"], 0, "{receipt}");
        }
        assert_eq!(one["params"]["messageId"], other["params"]["messageId"]);
        let dups = [&one, &other].map(|receipt| receipt["params"]["dup"] == true);
        assert_ne!(dups[0], dups[1], "{one} {other}");
        let heard = bob.hear();
        assert_eq!(heard["messageId"], one["params"]["messageId"]);
        assert_eq!(heard["seq"], n + 1);
    }
    is_silent(&mut bob);
}

/// What comes until the connection is closed with this code.
fn all_until(client: &mut Client, code: u16) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        match client.next() {
            Event::Frame(frame) if frame.opcode == Opcode::Text => {
                let heard: Value = serde_json::from_slice(&frame.payload).unwrap();
                seqs.extend(heard["seq"].as_u64());
            }
            Event::Frame(frame) if frame.opcode == Opcode::Ping => {
                client.send(Opcode::Pong, &frame.payload);
            }
            Event::Frame(frame) => {
                assert_eq!(
                    (frame.opcode, &frame.payload[..2]),
                    (Opcode::Close, &code.to_be_bytes()[..])
                );
                return seqs;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_device_that_comes_back_elsewhere_while_its_old_node_delivers_gets_each_message_in_order() {
    const EACH: u64 = 50;
    const ROUNDS: u64 = 6;
    let cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut bob = join_with(cluster.node(1), "bob", "device=phone&ack=1");
    let (mut next, mut epoch) = (1, String::new());
    for round in 0..ROUNDS {
        // Those are on their way when he comes back.
        for n in 0..EACH {
            let number = round * EACH + n;
            alice.say(&chat("bob", "hi", &format!("m{number}")));
        }
        let first = bob.hear();
        assert_eq!(first["seq"], next, "{first}");
        epoch.clear();
        epoch.push_str(first["epoch"].as_str().unwrap());
        let query = format!("device=phone&ack=1&cursor={epoch}:{next}");
        let mut new = join_with(cluster.node(round as usize % 2 + 1), "bob", &query);
        // What the old connection still brings is the same, in order.
        let old = all_until(&mut bob, 4409);
        assert!(
            old.iter()
                .copied()
                .eq(next + 1..next + 1 + old.len() as u64),
            "{old:?}"
        );
        // The newer one brings all that is behind the cursor.
        for seq in next + 1..=(round + 1) * EACH {
            let heard = new.hear();
            assert_eq!(heard["seq"], seq, "{heard}");
        }
        next = (round + 1) * EACH + 1;
        let place = format!("{epoch}:{}", next - 1);
        new.say(&json!({"type": 15, "params": {"upTo": place}}));
        assert_eq!(new.hear()["type"], 16);
        for _ in 0..EACH {
            await_receipt(&mut alice);
        }
        bob = new;
    }
}

/// The next type 0; notices on the way are passed over.
fn await_receipt(client: &mut Client) {
    loop {
        let heard = client.hear();
        if heard["type"] == 0 {
            return;
        }
        assert_eq!(heard["msg"]["type"], 17, "{heard}");
    }
}

#[test]
fn a_group_commits_its_node_dies_in_mid_fan_out_and_another_one_finishes() {
    // More than are handed out in one step.
    const MEMBERS: usize = 400;
    let mut cluster = Cluster::over(Server::start(), 3, &[]);
    for n in 0..3 {
        let setup = cluster.setup(n);
        let node = match n {
            0 => setup.env("THRONG_CRASH_AT", "fanned-out").start(),
            _ => setup.start(),
        };
        cluster.seat(n, node);
    }
    cluster.await_each_other();
    let mut last = join_with(cluster.node(1), "last", "");
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut members: Vec<String> = (0..MEMBERS).map(|n| format!("m{n}")).collect();
    members.push("last".to_owned());
    let params = json!({"groupId": "team", "userIdList": members});
    alice.say(&json!({"type": 3, "params": params}));
    assert_eq!(alice.hear()["type"], 4);
    assert_eq!(last.hear()["type"], 4);
    let said = json!({"toMessageId": "team", "message": "hi", "msgid": "g1"});
    let said = json!({"type": 9, "params": said});
    alice.say(&said);
    cluster.bury(0);
    // Its work counts as abandoned after a while.
    assert_eq!(hears(&mut last, 1), ["hi"]);
    let mut alice = join_with(cluster.node(2), "alice", "device=other");
    alice.say(&said);
    let receipt = alice.hear();
    assert_eq!(receipt["params"]["dup"], true, "{receipt}");
    for n in [0, MEMBERS - 1] {
        let mut member = join_with(cluster.node(1), &format!("m{n}"), "");
        assert_eq!(member.hear()["messageId"], receipt["params"]["messageId"]);
        is_silent(&mut member);
    }
    is_silent(&mut last);
}

#[test]
fn a_node_that_is_killed_leaves_no_users_behind_and_may_come_back_at_once() {
    let mut cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let bob = join_with(cluster.node(1), "bob", "device=phone");
    send(&mut alice, "bob", "one", "m1");
    cluster.kill(1);
    drop(bob);
    cluster.open(1);
    // What the earlier life wrote down counts for nothing.
    let answer = cluster.node(0).push(&["bob"], &json!({}));
    assert_eq!(answer.json()["statusCode"], -501);
    let mut bob = join_with(cluster.node(1), "bob", "device=phone");
    assert_eq!(hears(&mut bob, 1), ["one"]);
    send(&mut alice, "bob", "two", "m2");
    assert_eq!(hears(&mut bob, 1), ["two"]);
    assert_eq!(cluster.node(0).push(&["bob"], &json!({"n": 1})).status, 200);
    assert_eq!(bob.hear()["msg"]["n"], 1);
}
