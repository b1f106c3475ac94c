//! What a store on disk need not promise: other servers, other nodes, groups in steps.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::PubSub;
use throng::inbox::records::{EntryBody, Origin};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{
    Accepted, Attach, Attached, Cursor, GroupAccept, GroupChange, GroupRules, Page, Reach, Ring,
};
use throng::store::redis::{Doorbell, Word};

use crate::server::{PREFIX, Server};
use crate::world::{NODES, RULES, World, author, text_of};

fn attach(world: &mut World, device: &str, cursor: Option<Cursor>) -> Attached {
    let attach = Request::Attach(Box::new(Attach {
        uid: "bob".to_owned(),
        device: device.to_owned(),
        cursor,
        page: 300,
        entry: None,
        sessions_max: 8,
    }));
    match world.ask_redis(&[attach]).outcomes.remove(0) {
        Some(Outcome::Attached(attached)) => *attached,
        other => panic!("{other:?}"),
    }
}

fn send(world: &mut World, msgid: &str) -> Accepted {
    let chat = world.chat("alice", "bob", Some(msgid), "hi");
    match world
        .ask_redis(&[Request::Accept(Box::new(chat))])
        .outcomes
        .remove(0)
    {
        Some(Outcome::Accepted(accepted)) => accepted,
        other => panic!("{other:?}"),
    }
}

fn ack(world: &mut World, seq: u64, epoch: u64) {
    let request = Request::Acknowledge {
        uid: "bob".to_owned(),
        device: "phone".to_owned(),
        reach: Reach::UpTo { epoch, seq },
    };
    world.ask_redis(&[request]);
}

fn seqs(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|(seq, _)| *seq).collect()
}

/// The connection is lost: somebody finds out, and a second later there is another one.
fn reconnect(world: &mut World) {
    world.carry_out(&[]);
    world.rest();
    world.ask_redis(&[]);
}

#[test]
fn another_life_of_the_server_has_another_epoch_and_each_device_hears_once() {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut world = World::new(&server, PREFIX, RULES);
    world.begin_session("bob", "phone", 0);
    for msgid in ["1", "2", "3"] {
        assert!(matches!(send(&mut world, msgid), Accepted::New(_)));
    }
    let before = attach(&mut world, "phone", None);
    assert_eq!(
        (seqs(&before.page), before.page.resync),
        (vec![1, 2, 3], false)
    );
    ack(&mut world, 1, before.epoch);

    server.restart();
    reconnect(&mut world);
    assert!(matches!(send(&mut world, "3"), Accepted::Again(_)));
    assert!(matches!(send(&mut world, "4"), Accepted::New(_)));
    let after = attach(&mut world, "phone", None);
    assert_ne!(after.epoch, before.epoch);
    assert_eq!(seqs(&after.page), [2, 3, 4]);
    assert!(after.page.resync);

    // It has been told, and the next that it passes shows that it knows.
    assert!(matches!(send(&mut world, "5"), Accepted::New(_)));
    ack(&mut world, 5, after.epoch);
    assert!(!attach(&mut world, "phone", None).page.resync);
    assert!(matches!(send(&mut world, "6"), Accepted::New(_)));
    let last = world.look("bob");
    assert_eq!((last.epoch, last.head_seq), (after.epoch, 6));
}

#[test]
fn who_is_connected_hears_of_a_loss_before_anything_new() {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut world = World::new(&server, PREFIX, RULES);
    world.begin_session("bob", "phone", 1);
    send(&mut world, "1");
    server.restart();
    reconnect(&mut world);
    let mut connection = server.admin();
    let mut heard = connection.as_pubsub();
    listen_to(&mut heard);
    send(&mut world, "2");
    let mut losses = 0;
    while next(&mut heard).word
        == Word::Ring(Ring::Lost {
            uid: "bob".to_owned(),
        })
    {
        losses += 1;
    }
    assert!(losses > 0);
}

fn listen_to(heard: &mut PubSub<'_>) {
    heard
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    heard.psubscribe(format!("{PREFIX}node:*")).unwrap();
}

fn next(heard: &mut PubSub<'_>) -> Doorbell {
    let message = heard.get_message().unwrap();
    Doorbell::parse(message.get_payload_bytes()).unwrap()
}

#[test]
fn a_server_that_lost_everything_begins_with_another_epoch() {
    let mut server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    send(&mut world, "1");
    let before = attach(&mut world, "phone", None);
    ack(&mut world, 1, before.epoch);
    for flushed in [true, false] {
        if flushed {
            server.command(&["FLUSHALL"]);
        } else {
            server.restart();
            reconnect(&mut world);
        }
        assert!(matches!(send(&mut world, "1"), Accepted::New(_)));
        let cursor = Cursor {
            epoch: before.epoch,
            seq: 1,
        };
        let after = attach(&mut world, "phone", Some(cursor));
        assert_ne!(after.epoch, before.epoch);
        assert!(after.page.resync);
        assert_eq!(seqs(&after.page), [1]);
    }
}

fn members(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n:04}")).collect()
}

fn make_group(world: &mut World, members: &[String]) {
    let request = Request::Group {
        id: "team".to_owned(),
        by: None,
        change: GroupChange::Create {
            members: members.to_vec(),
        },
        rules: GroupRules {
            per_user_max: 10,
            members_max: 10_000,
            is_open: false,
        },
    };
    let outcome = world.ask_redis(&[request]).outcomes.remove(0);
    assert_eq!(outcome, Some(Outcome::Group(Ok(members.to_vec()))));
}

fn say(world: &mut World, text: &str) -> Request {
    let body = EntryBody::GroupChat {
        from: author("user0000"),
        group: "team".to_owned(),
        text: text_of(text),
    };
    Request::AcceptForGroup(Box::new(GroupAccept {
        group: "team".to_owned(),
        sender: "user0000".to_owned(),
        msgid: Some(text.to_owned()),
        entry: world.entry("user0000", body),
        origin: Some(Origin {
            device: "default".to_owned(),
            connection: 9,
        }),
    }))
}

#[test]
fn what_a_dead_node_has_begun_for_a_group_another_one_finishes_in_order() {
    let server = Server::start();
    let mut dying = World::new(&server, PREFIX, RULES);
    let everybody = members(600);
    make_group(&mut dying, &everybody);
    let requests = ["first", "second"].map(|text| say(&mut dying, text));
    dying.ask_redis(&requests);
    let reached = |world: &mut World| {
        let pages = everybody.iter().map(|uid| world.look(uid));
        pages.map(|page| page.entries.len()).collect::<Vec<_>>()
    };
    let mut living = World::new(&server, PREFIX, RULES);
    living.drain_redis();
    let begun = reached(&mut living);
    assert!(begun.iter().sum::<usize>() < 1_200, "it had no time to die");
    assert!(begun.iter().sum::<usize>() > 0);
    drop(dying);

    living.now_ms += 14_000;
    living.rest();
    living.drain_redis();
    assert_eq!(reached(&mut living), begun, "it may be alive still");
    living.now_ms += 2_000;
    living.rest();
    living.drain_redis();
    for uid in &everybody {
        let page = living.look(uid);
        let texts = page.entries.iter().map(|(_, entry)| match &entry.body {
            EntryBody::GroupChat { text, .. } => text.message.clone(),
            other => panic!("{other:?}"),
        });
        let texts: Vec<_> = texts.collect();
        // The device that it came from has it already.
        let is_sender = uid == "user0000";
        let expected: &[&str] = if is_sender {
            &[]
        } else {
            &["\"first\"", "\"second\""]
        };
        assert_eq!(texts, expected, "{uid}");
    }
    let again = living.ask_redis(&requests).outcomes;
    let is_again = |outcome: &Option<Outcome>| format!("{outcome:?}").contains("Again");
    assert!(again.iter().all(is_again), "{again:?}");
}

#[test]
fn a_message_to_thousands_goes_out_in_steps() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let everybody = members(3_000);
    make_group(&mut world, &everybody);
    let request = say(&mut world, "all");
    world.ask_redis(&[request]);
    world.drain_redis();
    for uid in &everybody[1..] {
        assert_eq!(seqs(&world.look(uid)), [1], "{uid}");
    }
}

#[test]
fn a_group_that_ends_while_much_is_on_its_way_loses_nothing_of_it() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let everybody = members(800);
    make_group(&mut world, &everybody);
    let mut requests = ["first", "second", "third"]
        .map(|text| say(&mut world, text))
        .to_vec();
    requests.push(Request::Group {
        id: "team".to_owned(),
        by: None,
        change: GroupChange::Delete,
        rules: GroupRules {
            per_user_max: 10,
            members_max: 10_000,
            is_open: false,
        },
    });
    world.ask_redis(&requests);
    world.drain_redis();
    // Another one of that name takes over nothing.
    make_group(&mut world, &everybody[..1]);
    world.rest();
    world.drain_redis();
    for uid in &everybody[1..] {
        assert_eq!(seqs(&world.look(uid)), [1, 2, 3], "{uid}");
    }
    let mut left = redis::cmd("KEYS");
    left.arg(format!("{PREFIX}group*"));
    let left: BTreeSet<String> = left.query(&mut server.admin()).unwrap();
    let expected = ["group:{team}", "groups:{user0000}"].map(|key| format!("{PREFIX}{key}"));
    assert_eq!(left, expected.into());
}

#[test]
fn two_nodes_that_accept_one_message_at_once_accept_it_once() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let chat = world.chat("alice", "bob", Some("m"), "hi");
    let results: Vec<Accepted> = std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..4)
            .map(|_| {
                let (server, chat) = (&server, chat.clone());
                scope.spawn(move || {
                    let mut world = World::new(server, PREFIX, RULES);
                    let request = Request::Accept(Box::new(chat));
                    match world.ask_redis(&[request]).outcomes.remove(0) {
                        Some(Outcome::Accepted(accepted)) => accepted,
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        nodes.into_iter().map(|node| node.join().unwrap()).collect()
    });
    let id = chat.entry.id;
    let count = |wanted| results.iter().filter(|one| **one == wanted).count();
    assert_eq!(
        (count(Accepted::New(id)), count(Accepted::Again(id))),
        (1, 3)
    );
    assert_eq!(world.look("bob").entries.len(), 1);
}

#[test]
fn the_end_of_an_old_session_leaves_the_new_one_of_its_name() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let mut users_of = {
        let mut admin = server.admin();
        move |at: usize| -> Vec<String> {
            let mut members = redis::cmd("SMEMBERS");
            let key = format!("{PREFIX}serverclients:{}", NODES[at].0);
            members.arg(key).query(&mut admin).unwrap()
        }
    };
    world.begin_session("bob", "phone", 0);
    world.begin_session("bob", "pad", 0);
    world.begin_session("bob", "phone", 1);
    world.end_session("bob", "phone", 0);
    assert_eq!(
        (users_of(0), users_of(1)),
        (vec!["bob".to_owned()], vec!["bob".to_owned()])
    );
    let mut connection = server.admin();
    let mut heard = world.subscribe(&mut connection);
    send(&mut world, "1");
    assert_eq!(world.listen(&mut heard).len(), 2);
    world.end_session("bob", "pad", 0);
    send(&mut world, "2");
    let bells = world.listen(&mut heard);
    assert_eq!(bells.keys().map(|(at, _)| *at).collect::<Vec<_>>(), [1]);
    assert_eq!((users_of(0), users_of(1)), (vec![], vec!["bob".to_owned()]));
}
