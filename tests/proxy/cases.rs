//! What clients, and nodes, notice of nginx between them.

use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use throng_loadtest::{Chats, Crowd, Flow, Plan, Who};

use crate::front::{Front, SECRET, Wishes, named, path};
use crate::support::client::status;
use crate::support::http::call;
use crate::support::setup::Folder;
use crate::support::talk::{Kind, Talk};
use crate::support::{Event, Opcode, eventually};

#[test]
fn a_crowd_chats_through_it_and_each_node_has_its_share() {
    const CLIENTS: usize = 400;
    let front = Front::start(Wishes::default());
    let folder = Folder::new();
    let history = folder.path("chat.history");
    let url = format!("ws://{}/websocket", front.doors.plain);
    let mut plan = Plan::new(&url, Who::signed(SECRET).unwrap(), "chat-", CLIENTS).unwrap();
    plan.chats = Some(Arc::new(Chats::new(Some(&history)).unwrap()));
    let mut crowd = Crowd::gather(plan).unwrap();
    let opened = crowd.open(CLIENTS, Duration::from_secs(60)).unwrap();
    assert_eq!(opened.open, CLIENTS as u64, "{}", front.nginx.errors());
    // The least connections: neither may have many more than the other.
    let spread = front.spread();
    let fewest = spread[0].min(spread[1]);
    assert!(fewest > CLIENTS as f64 * 0.4, "{spread:?}");
    let patience = Duration::from_secs(60);
    let chatted = crowd.chat(Flow::PerSec(300.0), Duration::from_secs(2), patience);
    let chatted = chatted.unwrap();
    assert!(chatted.is_settled && chatted.issued > 0);
    assert_eq!(chatted.tally.comebacks, 0, "{}", front.nginx.errors());
    let file = std::fs::File::open(&history).unwrap();
    let report = throng_history::judge(BufReader::new(file)).unwrap();
    assert!(report.is_clean(), "{report}");
    crowd.leave().unwrap();
    eventually("both nodes are empty", || front.spread() == [0.0; 2]);
}

#[test]
fn a_client_counts_by_its_own_address_and_cannot_pass_for_another() {
    let front = Front::start(Wishes {
        limits: "address_connections_max = 2",
        ..Wishes::default()
    });
    // The fewest connections are always at the other node: two and two.
    let claim = ["X-Forwarded-For: 127.0.0.21"];
    let fields: [&[&str]; 4] = [&[], &claim, &[], &claim];
    let here = fields.map(|fields| front.come("127.0.0.20", fields).unwrap());
    assert_eq!(front.spread(), [2.0; 2]);
    for fields in fields {
        let refused = front.come("127.0.0.20", fields).err().unwrap();
        assert_eq!(status(&refused), 503, "{refused}");
    }
    // Nobody else has lost anything by it, whom it named least of all.
    let others = ["127.0.0.21", "127.0.0.22"];
    let others = others.map(|from| [(); 2].map(|()| front.come(from, &[]).unwrap()));
    drop((here, others));
    eventually("both nodes are empty", || front.spread() == [0.0; 2]);
}

#[test]
fn pings_carry_a_silent_client_past_the_read_timeout() {
    const READ_TIMEOUT_SECS: u32 = 5;
    let front = Front::start(Wishes {
        args: &["--ping-secs", "1"],
        read_timeout_secs: Some(READ_TIMEOUT_SECS),
        ..Wishes::default()
    });
    let mut client = front.join("alice", "/websocket");
    // A ping a second at the most.
    for _ in 0..READ_TIMEOUT_SECS + 2 {
        let ping = client.frame();
        assert_eq!(ping.opcode, Opcode::Ping);
        client.send(Opcode::Pong, &ping.payload);
    }
    assert_eq!(client.is_heard(), Vec::<Value>::new());
}

#[test]
fn without_pings_a_silent_client_is_cut_off_without_a_word() {
    let front = Front::start(Wishes {
        args: &["--ping-secs", "60"],
        read_timeout_secs: Some(1),
        ..Wishes::default()
    });
    let mut client = front.join("alice", "/websocket");
    assert_eq!(client.next(), Event::End, "a close frame would tell why");
    eventually("both nodes are empty", || front.spread() == [0.0; 2]);
}

#[test]
fn clients_that_others_wrote_talk_over_tls() {
    let front = Front::start(Wishes::default());
    let url = format!("wss://{}/websocket", front.doors.tls);
    let certificate = front.nginx.certificate.as_path();
    let trust = [
        ("SSL_CERT_FILE", certificate),
        ("NODE_EXTRA_CA_CERTS", certificate),
    ];
    let bearer = |user| format!("bearer.{}", front.cluster.node(0).token(user));
    let join = |kind, user| {
        let client = Talk::within(&trust, kind, &url, &["throng", &bearer(user)]);
        assert_eq!(client.line(), "open throng");
        assert_eq!(client.hear()["msg"]["userId"], user);
        client
    };
    let mut alice = join(Kind::Python, "alice");
    let mut bob = join(Kind::NodeJs, "bob");
    assert_eq!(front.spread(), [1.0; 2]);
    alice.say(&json!({"to": "bob", "msg": "hi bob é"}).to_string());
    assert_eq!(bob.hear()["msg"], "hi bob é");
    // More than a buffer of TLS or of nginx holds.
    let long = "x".repeat(60_000);
    bob.say(&json!({"to": "alice", "msg": long}).to_string());
    assert_eq!(alice.hear()["msg"], long);
    for mut client in [alice, bob] {
        client.say("quit");
        assert_eq!(client.line(), "close 1000");
        assert_eq!(client.status(), Some(0));
    }
}

#[test]
fn whom_a_node_sends_away_at_its_end_finds_the_other_by_its_name() {
    let mut front = Front::start(Wishes::default());
    let users = ["u0", "u1", "u2", "u3", "u4", "u5"];
    let mut clients = users.map(|user| front.join(user, &path(0)));
    assert_eq!(front.spread(), [6.0, 0.0], "a name is that of one node");
    front.cluster.node(0).signal("TERM");
    for client in &mut clients {
        let closed = client.closed();
        assert_eq!(closed.code, 1012);
        let reason: Value = serde_json::from_str(&closed.reason).unwrap();
        assert_eq!(reason["to"], named(front.doors, 1), "{reason}");
        client.say_goodbye(1012);
    }
    let back = users.map(|user| front.join(user, &path(1)));
    let (status, errors) = front.cluster.await_end(0);
    assert_eq!(status.code(), Some(0), "{errors}");
    front.cluster.node(1).awaits("connections", 6.0);
    // Nobody is sent to the one that is gone, not even by its name.
    let mut late = ["/websocket", "/websocket", &path(0)].map(|path| front.join("bob", path));
    assert!(late.iter_mut().all(|client| client.is_heard().is_empty()));
    drop(back);
}

#[test]
fn nothing_but_the_clients_endpoint_is_for_the_net() {
    let front = Front::start(Wishes::default());
    for path in ["/health", "/metrics", "/api/v1/online", "/websocket/x"] {
        let answer = call(front.doors.plain, "GET", path, &[], "");
        assert_eq!(answer.status, 404, "{path}");
    }
    // No upgrade was asked for, and the node says so.
    let answer = call(front.doors.plain, "GET", "/websocket", &[], "");
    let says = answer.body.contains("Upgrade is missing");
    assert!(answer.status == 400 && says, "{answer:?}");
}
