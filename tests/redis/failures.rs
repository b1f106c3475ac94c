//! Redis refuses, hangs, goes away: every request has its defined outcome, and nothing hammers.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use throng::inbox::batch::Failure;
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Accepted, GroupAccept, GroupChange, GroupRules, Reach};
use throng::store::redis::{Address, LinkError, Redis};

use crate::server::{PREFIX, Server, free_port};
use crate::world::{RULES, World, place};

fn accept(world: &mut World, msgid: &str) -> Request {
    Request::Accept(Box::new(world.chat("alice", "bob", Some(msgid), "hi")))
}

fn look() -> Request {
    Request::Look {
        uid: "bob".to_owned(),
        after: 0,
        limit: 300,
    }
}

fn entries(world: &mut World) -> usize {
    match world.ask_redis(&[look()]).outcomes.remove(0) {
        Some(Outcome::Page(page)) => page.entries.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_redis_refuses_did_not_happen_and_is_taken_when_it_takes_again() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    server.set("maxmemory", "1");
    refuses(&server, &mut world, "OOM", |server| {
        server.set("maxmemory", "0")
    });
    server.command(&["ACL", "SETUSER", "throng", "-evalsha"]);
    refuses(&server, &mut world, "NOPERM", |server| {
        server.command(&["ACL", "SETUSER", "throng", "+evalsha"]);
    });
    let nobody = free_port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &nobody]);
    refuses(&server, &mut world, "READONLY", |server| {
        server.command(&["REPLICAOF", "NO", "ONE"]);
    });
}

#[test]
fn a_disk_that_does_not_take_a_snapshot_refuses_messages() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    // Where the snapshot should be is a directory.
    std::fs::create_dir_all(server.dir.join("dump.rdb/x")).unwrap();
    server.set("save", "100000 1");
    server.command(&["BGSAVE"]);
    server.until("rdb_last_bgsave_status:err");
    refuses(&server, &mut world, "MISCONF", |server| {
        server.set("save", "")
    });
}

/// It is refused, nothing of it happened, and after `mend` it is taken.
fn refuses(server: &Server, world: &mut World, code: &str, mend: impl FnOnce(&Server)) {
    let request = accept(world, code);
    let batch = world.carry_out(from_ref(&request));
    assert_eq!(
        batch.outcomes,
        [Some(Outcome::Down)],
        "{code}: {:?}",
        batch.failure
    );
    let Some(Failure::Down(why)) = &batch.failure else {
        panic!("{:?}", batch.failure);
    };
    assert!(why.0.contains(code), "{why}");
    mend(server);
    // It is left alone for a while, whatever it would say.
    let batch = world.carry_out(from_ref(&request));
    assert_eq!(batch.outcomes, [Some(Outcome::Down)], "{code}");
    assert!(matches!(batch.failure, Some(Failure::Down(_))));
    world.rest();
    let before = entries(world);
    let outcomes = world.ask_redis(&[request]).outcomes;
    assert!(
        matches!(outcomes[..], [Some(Outcome::Accepted(Accepted::New(_)))]),
        "{code}: {outcomes:?}"
    );
    assert_eq!(entries(world), before + 1);
}

#[test]
fn scripts_that_the_server_has_forgotten_are_brought_again() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let first = accept(&mut world, "1");
    world.ask_redis(&[first]);
    server.command(&["SCRIPT", "FLUSH"]);
    let requests = ["2", "3", "4"].map(|msgid| accept(&mut world, msgid));
    let outcomes = world.ask_redis(&requests).outcomes;
    let is_new =
        |outcome: &Option<Outcome>| matches!(outcome, Some(Outcome::Accepted(Accepted::New(_))));
    assert!(outcomes.iter().all(is_new), "{outcomes:?}");
    assert_eq!(entries(&mut world), 4);
}

#[test]
fn an_inbox_that_cannot_be_read_harms_nobody_else() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let spoiled = world.chat("alice", "carol", None, "hi");
    let sound = accept(&mut world, "1");
    world.ask_redis(&[Request::Accept(Box::new(spoiled.clone())), sound]);
    server.command(&["HSET", "throng:client:{carol}", "state", "9"]);
    let also_sound = accept(&mut world, "2");
    let batch = world.carry_out(&[Request::Accept(Box::new(spoiled)), also_sound]);
    assert_eq!(batch.outcomes[0], None);
    assert!(matches!(
        batch.outcomes[1],
        Some(Outcome::Accepted(Accepted::New(_)))
    ));
    assert!(batch.broken.unwrap().0.contains("format version 9"));
    // Old entries of others go all the same.
    world.now_ms += RULES.ttl_ms;
    world.rest();
    let batch = world.carry_out(&[]);
    assert!(batch.broken.unwrap().0.contains("carol"));
    assert_eq!(entries(&mut world), 0);
}

#[test]
fn an_inbox_that_cannot_be_read_holds_up_neither_a_group_nor_what_is_due() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let members = ["bob", "carol", "dave"].map(str::to_owned).to_vec();
    let create = Request::Group {
        id: "team".to_owned(),
        by: None,
        change: GroupChange::Create { members },
        rules: GroupRules {
            per_user_max: 9,
            members_max: 9,
            is_open: false,
        },
    };
    world.ask_redis(&[create]);
    let say = Request::AcceptForGroup(Box::new(GroupAccept {
        group: "team".to_owned(),
        sender: "dave".to_owned(),
        msgid: None,
        entry: world.chat("dave", "team", None, "hi").entry,
        origin: None,
    }));
    // Carol's comes before Bob's.
    let later = Request::Schedule {
        due_ms: world.now_ms + 1,
        accepts: ["carol", "bob"]
            .map(|to| world.chat("alice", to, None, "later"))
            .to_vec(),
    };
    world.ask_redis(&[later]);
    let spoil = "HSET throng:client:{carol} state 9";
    server.command(&spoil.split(' ').collect::<Vec<_>>());
    let batch = world.carry_out(&[say]);
    assert!(batch.broken.unwrap().0.contains("carol"));
    world.now_ms += 1;
    world.rest();
    let batch = world.carry_out(&[]);
    assert!(batch.broken.unwrap().0.contains("carol"));
    assert_eq!(entries(&mut world), 2);
}

#[test]
fn what_fails_within_a_script_is_answered_to_nobody_and_the_receiver_looks() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    let got = world.chat("alice", "bob", None, "hi");
    world.ask_redis(&[Request::Accept(Box::new(got.clone()))]);
    server.command(&["ACL", "SETUSER", "throng", "-xadd"]);
    let request = accept(&mut world, "1");
    let batch = world.carry_out(&[request, look()]);
    assert_eq!(batch.outcomes[0], None);
    assert!(matches!(batch.outcomes[1], Some(Outcome::Page(_))));
    assert_eq!(batch.to_look, ["bob"]);
    assert!(batch.broken.is_some() && !batch.is_gap);
    // Who sent what was got is not named: everybody looks.
    let acknowledge = Request::Acknowledge {
        uid: "bob".to_owned(),
        device: "phone".to_owned(),
        reach: Reach::Messages(vec![got.entry.id]),
    };
    let batch = world.carry_out(&[acknowledge]);
    assert_eq!(batch.outcomes, [None]);
    assert!(batch.is_gap);
}

#[test]
fn a_server_that_hangs_leaves_nobody_with_a_wrong_answer() {
    let server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    server.signal("STOP");
    let request = accept(&mut world, "1");
    let batch = world.carry_out(&[request.clone(), look()]);
    assert_eq!(batch.outcomes, [None, Some(Outcome::Down)]);
    assert_eq!(batch.to_look, ["bob"]);
    assert!(matches!(batch.failure, Some(Failure::Unknown(_))));
    // Nobody can connect now.
    let batch = world.carry_out(&[look()]);
    assert!(matches!(batch.failure, Some(Failure::Down(_))));
    server.signal("CONT");
    world.rest();
    let outcomes = world.ask_redis(&[request]).outcomes;
    assert!(
        matches!(outcomes[..], [Some(Outcome::Accepted(_))]),
        "{outcomes:?}"
    );
    assert_eq!(entries(&mut world), 1);
}

#[test]
fn a_server_that_is_gone_is_not_hammered_and_used_when_it_is_back() {
    let mut server = Server::start();
    let mut world = World::new(&server, PREFIX, RULES);
    server.kill();
    let request = accept(&mut world, "1");
    let batch = world.carry_out(from_ref(&request));
    assert!(batch.failure.is_some());
    let knocks = Knocks::count(server.port);
    for _ in 0..100 {
        let batch = world.carry_out(from_ref(&request));
        assert_eq!(batch.outcomes, [Some(Outcome::Down)]);
        assert!(matches!(batch.failure, Some(Failure::Down(_))));
    }
    assert!(knocks.end() <= 1);
    server.restart();
    world.rest();
    let outcomes = world.ask_redis(&[request]).outcomes;
    assert!(matches!(
        outcomes[..],
        [Some(Outcome::Accepted(Accepted::New(_)))]
    ));
}

/// Counts who connects, and hangs up.
struct Knocks {
    count: Arc<AtomicU32>,
    is_over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Knocks {
    fn count(port: u16) -> Knocks {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (count, is_over) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, over) = (count.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok(_) => _ = counted.fetch_add(1, Ordering::Relaxed),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Knocks {
            count,
            is_over,
            thread,
        }
    }

    fn end(self) -> u32 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.count.load(Ordering::Relaxed)
    }
}

fn refusal(address: &str) -> LinkError {
    let address = Address::parse(address).unwrap();
    let Err(error) = Redis::open(address, PREFIX, place(0)) else {
        panic!("it is taken");
    };
    error
}

#[test]
fn a_server_that_will_not_do_is_refused_with_what_to_change() {
    let server = Server::start();
    let says = |url: &str, word: &str| {
        let error = refusal(url).to_string();
        assert!(error.contains(word), "{error}");
        assert!(!error.contains("change-this"), "{error}");
    };
    server.set("maxmemory-policy", "allkeys-lru");
    says(&server.url(), "noeviction");
    server.set("maxmemory-policy", "noeviction");
    let nobody = free_port();
    server.command(&["REPLICAOF", "127.0.0.1", &nobody.to_string()]);
    says(&server.url(), "replica");
    server.command(&["REPLICAOF", "NO", "ONE"]);
    says(&format!("redis://127.0.0.1:{nobody}"), "cannot reach");
    let wrong = server.url().replace("change-this", "wrong");
    says(&wrong, "cannot reach");
    server.command(&["ACL", "SETUSER", "throng", "-zcard"]);
    says(&server.url(), "throng.acl");
    server.command(&["ACL", "SETUSER", "throng", "+zcard", "-info"]);
    says(&server.url(), "throng.acl");
}
