//! Faults of the world around a node: clocks that step, peers that are gone without a word, a
//! thread that hangs, all clients at once.

use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{SockFilter, SockRef};

use crate::support::client::{dial, reset, status};
use crate::support::frame::encode;
use crate::support::world::{Field, World};
use crate::support::{Client, Node, Setup, eventually};

const DAY_SECS: i64 = 24 * 3600;

/// The node's wall clock, in milliseconds.
fn wall_ms(client: &mut Client) -> i64 {
    client.say(&json!({"msgType": 3}));
    let answer = client.hear();
    assert_eq!(answer["msgType"], 4, "{answer}");
    answer["activeTime"].as_i64().unwrap()
}

#[test]
fn a_wall_clock_that_steps_ends_tokens_and_nothing_else() {
    let world = World::new();
    let node = Setup::new()
        .args(&["--ping-secs", "1", "--idle-secs", "60"])
        .config("[limits]\nhandshake_secs = 2\n")
        .within(&world)
        .start();
    let join_for = |user: &str, secs: i64| {
        let order = json!({"userId": user, "ttlSecs": secs});
        let content = node.post("/api/v1/tokens", &order).content();
        let token = content["wsToken"].as_str().unwrap();
        let mut client = node.open(&format!("?token={token}"), &[]).unwrap();
        assert_eq!(client.hear()["msg"]["userId"], user);
        client
    };
    let mut long = join_for("long", 30 * DAY_SECS);
    let mut short = join_for("short", 3600);
    let mut stranger = node.stranger();
    let mut torn = join_for("torn", 30 * DAY_SECS);
    let message = encode(0x81, br#"{"path":"ping","requestId":"torn"}"#);
    torn.write(&message[..20]);
    let before = wall_ms(&mut long);
    let mut step = |days: i64| {
        world.set(Field::WallSecs, days * DAY_SECS);
        let stepped = wall_ms(&mut long) - before;
        let expected = days * DAY_SECS * 1000;
        assert!(
            (expected..expected + 60_000).contains(&stepped),
            "{stepped}"
        );
        // The clocks of connections go on as if nothing had happened.
        let began = Instant::now();
        let mut cut = Client::over(dial(node.ws));
        cut.write(b"GET /websocket HTTP/1.1\r\n");
        assert_eq!(status(&cut.read_head()), 408);
        let took = began.elapsed();
        assert!(took > Duration::from_secs(1), "{took:?}");
        assert!(took < Duration::from_secs(20), "{took:?}");
        stranger.say(&json!({"type": 11}));
        assert_eq!(stranger.hear()["type"], 12);
        assert_eq!(long.is_heard(), Vec::<Value>::new());
    };
    step(-1);
    short.is_heard();
    step(1);
    // It says nothing: its token ends all the same.
    assert_eq!(short.expect_close(4401), "token expired");
    torn.write(&message[20..]);
    assert_eq!(torn.hear()["requestId"], "torn");
    long.is_heard();
    let codes: f64 = node.metric("closes_total");
    assert_eq!(codes, 1.0, "nobody else was closed");
}

/// Joins `user` again and again until it is on this reactor.
fn join_on(node: &Node, user: &str, reactor: usize) -> Client {
    let name = format!("bound_sockets{{reactor=\"{reactor}\"}}");
    loop {
        let before = node.metric(&name);
        let total = node.metric("bound_sockets");
        let client = node.join(user);
        node.awaits("bound_sockets", total + 1.0);
        if node.metric(&name) > before {
            return client;
        }
        client.leave();
        node.awaits("bound_sockets", total);
    }
}

#[test]
fn a_reactor_that_hangs_is_told_of_and_the_others_serve() {
    let world = World::new();
    let node = Setup::new()
        .args(&["--reactors", "2"])
        .config("watchdog_secs = 1\n")
        .within(&world)
        .start();
    let mut stuck = join_on(&node, "stuck", 0);
    let mut free = join_on(&node, "free", 1);
    world.set(Field::IsStuck, 1);
    let began = Instant::now();
    stuck.say(&json!({"path": "ping", "requestId": "late"}));
    let told = "a reactor is stuck in a turn";
    eventually("the watchdog barks", || {
        assert_eq!(free.is_heard(), Vec::<Value>::new());
        node.errors().contains(told)
    });
    assert!(began.elapsed() >= Duration::from_millis(900));
    assert!(node.metric("turn_running_seconds{reactor=\"0\"}") >= 1.0);
    assert!(node.metric("turn_running_seconds{reactor=\"1\"}") < 1.0);
    // What is meant for its clients waits; what is meant for the others does not.
    node.push(&["stuck", "free"], &json!("waited")).content();
    assert_eq!(free.hear()["msg"], "waited");
    free.say(&json!({"to": "stuck", "msg": "from a friend"}));
    assert_eq!(free.is_heard(), Vec::<Value>::new());
    world.set(Field::IsStuck, 0);
    assert_eq!(stuck.hear()["requestId"], "late");
    assert_eq!(stuck.hear()["msg"], "waited");
    assert_eq!(stuck.hear()["msg"], "from a friend");
    eventually("the watchdog is calm", || {
        node.errors().contains("a stuck reactor goes on")
    });
    assert_eq!(node.errors().matches(told).count(), 1, "told once");
    assert!(node.metric("turn_running_seconds") < 1.0);
    node.serves();
}

/// From now on nothing reaches this end, and no acknowledgement leaves it: what a machine looks
/// like that lost its power.
fn lose_power(client: &Client) {
    // The shortest program of all: let zero bytes pass.
    let drop_all = SockFilter::new(0x06, 0, 0, 0);
    let socket = SockRef::from(&client.stream);
    socket.attach_filter(&[drop_all]).unwrap();
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_given_up_by_the_kernel() {
    let world = World::new();
    world.set(Field::IsHasty, 1);
    // No clock of the node's own can find them.
    let node = Setup::new()
        .args(&["--ping-secs", "0", "--idle-secs", "0"])
        .config("[limits]\nqueue_stalled_secs = 0\n")
        .within(&world)
        .start();
    assert_eq!(world.get(Field::UserTimeoutMs), 30_000);
    assert_eq!(world.get(Field::KeepaliveSecs), 300);
    assert_eq!(world.get(Field::KeepaliveIntervalSecs), 30);
    let mut honest = node.join("honest");
    let owed = node.join("owed");
    let silent = node.join("silent");
    lose_power(&owed);
    lose_power(&silent);
    let began = Instant::now();
    node.push(&["owed"], &json!("into the void")).content();
    assert_eq!(node.metric("sessions"), 3.0, "nobody can know yet");
    eventually("both are found out", || {
        assert_eq!(honest.is_heard(), Vec::<Value>::new());
        sleep(Duration::from_millis(100));
        node.metric("sessions") == 1.0
    });
    assert!(began.elapsed() > Duration::from_secs(1));
    node.awaits("open_sockets", 1.0);
    node.awaits("write_queue_bytes", 0.0);
    assert_eq!(node.metric("closes_total{code=\"1006\"}"), 2.0);
    assert_eq!(node.push(&["owed"], &json!(1)).json()["statusCode"], -501);
    drop((owed, silent));
    node.serves();
}

#[test]
fn all_clients_may_be_cut_and_come_back_at_once() {
    const THREADS: usize = 10;
    const EACH: usize = 50;
    let node = Node::start(&["--auth", "none", "--reactors", "2"]);
    let join = |user: &str| {
        let mut client = node.open(&format!("?openid={user}"), &[]).unwrap();
        assert_eq!(client.hear()["msg"]["userId"], user);
        client
    };
    let mut honest = join("honest");
    let come = |thread: usize| -> Vec<Client> {
        let names = (0..EACH).map(|n| format!("u{thread}-{n}"));
        names.map(|name| join(&name)).collect()
    };
    let mut crowd: Vec<Vec<Client>> = (0..THREADS).map(come).collect();
    for _ in 0..3 {
        node.awaits("sessions", (THREADS * EACH + 1) as f64);
        scope(|scope| {
            let threads: Vec<_> = crowd
                .drain(..)
                .enumerate()
                .map(|(thread, clients)| {
                    scope.spawn(move || {
                        clients.into_iter().for_each(|client| reset(client.stream));
                        come(thread)
                    })
                })
                .collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                let began = Instant::now();
                assert_eq!(honest.is_heard(), Vec::<Value>::new());
                assert!(began.elapsed() < Duration::from_secs(5));
                // Within its rate.
                sleep(Duration::from_millis(5));
            }
            crowd = threads.into_iter().map(|t| t.join().unwrap()).collect();
        });
    }
    let all = (THREADS * EACH + 1) as f64;
    node.awaits("sessions", all);
    node.awaits("open_sockets", all);
    assert_eq!(node.metric("users"), all);
    assert_eq!(node.metric("refusals_total"), 0.0);
    node.send_to_all(&json!("all are back")).content();
    for client in crowd.iter_mut().flatten().chain([&mut honest]) {
        assert_eq!(client.hear()["msg"], "all are back");
    }
    drop((crowd, honest));
    node.awaits_emptiness();
}
