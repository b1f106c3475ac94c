//! Nodes that die at a chosen point of their program, each case by its name.
//!
//! A case is staged again and again, a different number of passages in; what came of it is judged.

use std::io;

use serde_json::{Value, json};
use throng::parts::faults::Point;
use throng_history::Class;

use crate::crowd::LISTENER;
use crate::device::Manner;
use crate::random::seed;
use crate::support::setup::Folder;
use crate::support::{Node, Setup};
use crate::wire::Wire;
use crate::world::{Plan, World};

/// So many nodes die one after the other in each case.
pub const DEATHS: u32 = 5;

/// Has nodes die at this point, each after another number of passages, up to `most`.
fn die_at(point: Point, most: usize, plan: Plan) -> World {
    let mut world = plan.begin();
    world.kill();
    for _ in 0..DEATHS {
        let crash = format!("{}:{}", point.name(), 1 + world.random.below(most));
        world.revive_until_it_dies(&[("THRONG_CRASH_AT", &crash)]);
    }
    world.revive(&[]);
    world.await_confirmed(50);
    world
}

#[test]
fn a_node_dies_before_it_accepts() {
    die_at(Point::Taken, 100, Plan::new("taken", seed())).ends_clean();
    die_at(Point::Written, 100, Plan::new("written", seed())).ends_clean();
}

#[test]
fn a_node_dies_after_it_accepts_and_before_type_0_and_16() {
    let world = die_at(Point::Committed, 100, Plan::new("committed", seed()));
    assert!(world.repetitions() > 0, "nothing was repeated");
    world.ends_clean();
}

#[test]
fn a_node_dies_after_type_0_and_16_and_before_anybody_hears_the_doorbell_or_a_17() {
    die_at(Point::Answered, 100, Plan::new("answered", seed())).ends_clean();
}

#[test]
fn a_node_dies_when_all_have_heard() {
    die_at(Point::Rung, 100, Plan::new("rung", seed())).ends_clean();
}

#[test]
fn a_node_dies_with_a_part_of_a_turn_on_the_wire() {
    die_at(Point::Sent, 2000, Plan::new("sent", seed())).ends_clean();
}

/// What bob came to see: the id of his message, if it was sent to him, and whether its
/// acknowledgement was answered.
fn acknowledge(node: &Node) -> (Option<String>, bool) {
    let (mut id, mut is_answered) = (None, false);
    let target = "/websocket?openid=bob&device=phone&ack=1";
    let mut talk = || -> io::Result<()> {
        let mut wire = Wire::open(node.ws, target)?;
        let mut is_done = false;
        while !is_done || (id.is_some() && !is_answered) {
            let Some(frame) = wire.hear()? else { continue };
            let heard: Value = serde_json::from_slice(&frame.payload)?;
            if heard["msg"]["userCode"].is_string() {
                // Its answer comes behind what waits for him.
                wire.say(&json!({"path": "ping"}))?;
            }
            if heard["msg"]["type"] == 2 {
                let message_id = heard["messageId"].as_str().unwrap().to_owned();
                wire.say(&json!({"type": 15, "params": {"msgid": message_id}}))?;
                id = Some(message_id);
            }
            is_answered |= heard["type"] == 16;
            is_done |= heard["path"] == "ping";
        }
        Ok(())
    };
    // The node may die whenever it likes.
    let _ = talk();
    (id, is_answered)
}

#[test]
fn an_acknowledgement_is_applied_and_its_16_is_lost() {
    let home = Folder::new();
    let data = home.path("data").display().to_string();
    let start = |crash: &str| {
        let setup = Setup::new().args(&["--auth", "none", "--data-dir", &data]);
        match crash {
            "" => setup.start(),
            crash => setup.env("THRONG_CRASH_AT", crash).start(),
        }
    };
    let join = |node: &Node, user: &str| {
        let query = format!("?openid={user}&device=phone&ack=1");
        let mut client = node.open(&query, &[]).unwrap();
        assert!(client.hear()["msg"]["userCode"].is_string());
        client
    };
    let mut lost = 0;
    for n in 1..=6 {
        let node = start("");
        let sender = format!("alice{n}");
        let params = json!({"toMessageId": "bob", "message": "hi", "fileType": 0, "msgid": "m1"});
        let mut alice = join(&node, &sender);
        alice.say(&json!({"type": 1, "params": params}));
        let message_id = alice.hear()["params"]["messageId"].clone();
        drop(node);

        let node = start(&format!("committed:{n}"));
        let (first, is_answered) = acknowledge(&node);
        drop(node);

        let node = start("");
        let (again, _) = acknowledge(&node);
        assert!(first.is_some() || again.is_some(), "it never came");
        lost += u32::from(first.is_some() && !is_answered && again.is_none());
        // Whoever repeats a 15 gets another 16, and begets nothing.
        let mut bob = join(&node, "bob");
        bob.say(&json!({"type": 15, "params": {"msgid": message_id}}));
        let answer = bob.hear();
        assert_eq!(
            (&answer["type"], &answer["status"]),
            (&json!(16), &json!(200))
        );
        let told = join(&node, &sender).is_heard();
        assert_eq!(told.len(), 1, "one 17: {told:?}");
        assert_eq!(told[0]["msg"]["params"]["messageId"], message_id);
    }
    assert!(
        lost > 0,
        "no acknowledgement was applied without its answer"
    );
}

/// So many messages to a group that not all are handed out with the batch that accepts them. A
/// later process hands out the rest, and its connections are other devices' than the earlier one's.
fn of_groups(name: &'static str) -> Plan {
    const DEVICES: [(&str, &str, Manner); 12] = [
        ("alice", "phone", Manner::Acks),
        ("alice", "desk", Manner::Acks),
        ("alice", "laptop", Manner::Cursors),
        ("alice", LISTENER, Manner::Cursors),
        ("bob", "phone", Manner::Acks),
        ("bob", "desk", Manner::Cursors),
        ("bob", "laptop", Manner::Acks),
        ("bob", LISTENER, Manner::Pongs),
        ("carol", "phone", Manner::Cursors),
        ("carol", "desk", Manner::Acks),
        ("carol", "laptop", Manner::Acks),
        ("carol", LISTENER, Manner::Acks),
    ];
    Plan {
        devices: &DEVICES,
        classes: &[Class::Group],
        pause_ms: 2,
        ..Plan::new(name, seed())
    }
}

#[test]
fn a_group_commits_and_its_node_dies_in_mid_fan_out() {
    die_at(Point::FannedOut, 10, of_groups("fanned-out")).ends_clean();
}
