//! Every limit that strikes is counted under its key, and told in the log once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::scope;
use std::time::Instant;

use serde_json::json;

use crate::pressure::fill;
use crate::slow::narrow_join;
use crate::support::client::{dial, request, status};
use crate::support::frame::{encode, whole};
use crate::support::{Client, Event, Node, Opcode, Setup, eventually};

/// How often each limit has struck, of all that there are.
fn strikes(node: &Node) -> BTreeMap<String, u64> {
    let metrics = node.get("/metrics").body;
    let lines = metrics.lines();
    let counts = lines.filter_map(|line| {
        let rest = line.strip_prefix("throng_limit_strikes_total{limit=\"")?;
        let (limit, count) = rest.split_once("\"} ")?;
        Some((limit.to_owned(), count.parse().unwrap()))
    });
    counts.collect()
}

/// Lines of the log about a limit.
fn lines(node: &Node, limit: &str) -> Vec<String> {
    let start = format!("a limit has struck limit=\"{limit}\"");
    let errors = node.errors();
    let lines = errors.lines().filter(|line| line.contains(&start));
    lines.map(str::to_owned).collect()
}

/// Trips a limit twice, and proves that it was counted, and no other, and told once.
fn trips(node: &Node, limit: &str, mut trip: impl FnMut(&Node)) {
    trips_at_once(node, limit, |node| {
        trip(node);
        trip(node);
    });
}

/// The same where both wait for it together.
fn trips_at_once(node: &Node, limit: &str, trip_twice: impl FnOnce(&Node)) {
    let began = Instant::now();
    let before = strikes(node);
    assert_eq!(before.get(limit), Some(&0), "{limit}");
    trip_twice(node);
    eventually(&format!("{limit} strikes twice"), || {
        strikes(node)[limit] >= 2
    });
    let after = strikes(node);
    let is_moved = |key: &&String| after[*key] != before[*key];
    let moved: Vec<&String> = after.keys().filter(is_moved).collect();
    assert_eq!(moved, [limit]);
    eventually(&format!("{limit} is told"), || {
        !lines(node, limit).is_empty()
    });
    // Once in ten seconds, however busy the machine is.
    let lines = lines(node, limit);
    let most = 1 + began.elapsed().as_secs() as usize / 10;
    assert!(lines.len() <= most, "{lines:?}");
}

/// The answer to a request that must not be upgraded.
fn refused(node: &Node, text: &str) -> u16 {
    let mut client = Client::over(dial(node.ws));
    client.write(text.as_bytes());
    let head = client.read_head();
    client.read_to_end();
    status(&head)
}

fn closes(mut client: Client, bytes: &[u8], code: u16) {
    client.write(bytes);
    client.expect_close(code);
}

/// The error in the answer to a command.
fn error(client: &mut Client, message: &serde_json::Value) -> u64 {
    client.say(message);
    client.hear()["params"]["code"].as_u64().unwrap()
}

#[test]
fn every_limit_that_strikes_is_counted_and_told_once() {
    let mut struck = BTreeSet::new();
    scope(|scope| {
        let parts = [
            limits_of_a_request,
            limits_of_a_connection,
            limits_of_a_crowd,
            limits_of_queues,
        ];
        let parts = parts.map(|part| scope.spawn(part));
        struck.extend(limits_of_time());
        for part in parts {
            struck.extend(part.join().unwrap());
        }
    });
    // When this one has struck, nobody is there to be asked.
    struck.extend(the_limit_of_a_drain());
    let all = strikes(&Node::start(&[]));
    let all: BTreeSet<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(struck, all);
}

fn limits_of_a_request() -> Vec<&'static str> {
    let node = Node::start(&["--max-connections", "20", "--reactors", "1"]);
    let long = "x".repeat(9000);
    trips(&node, "request_line_bytes_max", |node| {
        let target = format!("/websocket?q={long}");
        assert_eq!(refused(node, &request(&target, &[])), 414);
    });
    trips(&node, "header_bytes_max", |node| {
        let field = format!("X: {long}");
        assert_eq!(refused(node, &request("/websocket", &[&field])), 431);
    });
    trips(&node, "headers_max", |node| {
        assert_eq!(refused(node, &request("/websocket", &["X: 1"; 65])), 431);
    });
    trips(&node, "metadata_bytes_max", |node| {
        let target = format!("/websocket?q={}", &long[..300]);
        assert_eq!(refused(node, &request(&target, &[])), 400);
    });
    trips(&node, "metadata_pairs_max", |node| {
        let target = "/websocket?a=1&b=1&c=1&d=1&e=1&f=1&g=1&h=1&i=1";
        assert_eq!(refused(node, &request(target, &[])), 400);
    });
    trips(&node, "http_body_bytes_max", |node| {
        let body = json!({"sendToAll": true, "msg": "x".repeat(1 << 20)});
        assert_eq!(node.post("/api/v1/messages", &body).status, 413);
    });
    let clients: Vec<Client> = (0..20).map(|n| node.join(&format!("u{n}"))).collect();
    trips(&node, "max_connections", |node| {
        assert_eq!(node.stranger().closed().code, 1013);
    });
    drop(clients);
    vec![
        "request_line_bytes_max",
        "header_bytes_max",
        "headers_max",
        "metadata_bytes_max",
        "metadata_pairs_max",
        "http_body_bytes_max",
        "max_connections",
    ]
}

fn limits_of_a_connection() -> Vec<&'static str> {
    let node = Setup::new()
        .config(
            "[limits]\nfragments_max = 3\ncontrol_frames_per_sec = 1\nbytes_per_sec = 100000\n\
             user_sessions_max = 2\nname_bytes_max = 8\nwatches_max = 2\ntargets_max = 2\n\
             group_members_max = 2\ngroups_per_user_max = 1\njson_depth_max = 4\n",
        )
        .args(&["--reactors", "1"])
        .start();
    trips(&node, "preauth_bytes_max", |node| {
        closes(node.stranger(), &encode(0x81, &[b' '; 4097])[..20], 1008);
    });
    trips(&node, "message_bytes_max", |node| {
        let head = [0x81, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0];
        closes(node.join("alice"), &head, 1009);
    });
    trips(&node, "fragments_max", |node| {
        let bytes = [encode(0x01, b""), encode(0x00, b"").repeat(3)].concat();
        closes(node.join("alice"), &bytes, 1008);
    });
    trips(&node, "control_frames_per_sec", |node| {
        closes(
            node.join("alice"),
            &whole(Opcode::Ping, b"").repeat(20),
            1008,
        );
    });
    trips(&node, "strikes_max", |node| {
        closes(
            node.join("alice"),
            &whole(Opcode::Text, b"[]").repeat(3),
            1008,
        );
    });
    trips(&node, "frames_per_sec", |node| {
        // As many as fit into the rate of bytes as well.
        let beat = whole(Opcode::Text, br#"{"type":11}"#).repeat(3000);
        closes(node.join("alice"), &beat, 4429);
    });
    trips(&node, "bytes_per_sec", |node| {
        let text = format!("{{\"type\":11}}{}", " ".repeat(60_000));
        let beats = whole(Opcode::Text, text.as_bytes()).repeat(5);
        closes(node.join("alice"), &beats, 4429);
    });
    let mut alice = node.join("alice");
    trips(&node, "json_depth_max", |_| {
        let deep = json!({"to": "alice", "msg": [[[[[1]]]]]});
        assert_eq!(error(&mut alice, &deep), 400);
    });
    let mut alice = node.join("alice");
    trips(&node, "name_bytes_max", |_| {
        let params = json!({"openid": "alice", "userName": "a long name"});
        assert_eq!(
            error(&mut alice, &json!({"type": 7, "params": params})),
            400
        );
    });
    trips(&node, "watches_max", |_| {
        alice.say(&json!({"path": "online", "body": {"watch": ["a", "b", "c"]}}));
        assert_eq!(alice.hear()["statusCode"], 400);
    });
    trips(&node, "targets_max", |_| {
        assert_eq!(error(&mut alice, &json!({"to": "a,b,c", "msg": 1})), 400);
    });
    let group = |id: &str, users: &str| {
        let params = json!({"groupId": id, "userIdList": users});
        json!({"type": 3, "params": params})
    };
    trips(&node, "group_members_max", |_| {
        assert_eq!(error(&mut alice, &group("g", "bob,carl")), 409);
    });
    alice.say(&group("g", ""));
    assert_eq!(alice.hear()["type"], 4);
    trips(&node, "groups_per_user_max", |_| {
        assert_eq!(error(&mut alice, &group("h", "")), 409);
    });
    let mut bobs = vec![node.join("bob"), node.join("bob")];
    trips(&node, "user_sessions_max", |node| {
        bobs.push(node.join("bob"));
    });
    vec![
        "preauth_bytes_max",
        "message_bytes_max",
        "fragments_max",
        "control_frames_per_sec",
        "strikes_max",
        "frames_per_sec",
        "bytes_per_sec",
        "json_depth_max",
        "name_bytes_max",
        "watches_max",
        "targets_max",
        "group_members_max",
        "groups_per_user_max",
        "user_sessions_max",
    ]
}

/// A node with these lines in the table of limits, and one reactor.
fn limited(limits: &str) -> Node {
    Setup::new()
        .args(&["--reactors", "1"])
        .config(&format!("[limits]\n{limits}\n"))
        .start()
}

fn limits_of_a_crowd() -> Vec<&'static str> {
    let node = Node::start(&["--max-connections", "4", "--reactors", "1"]);
    let mut strangers = vec![node.stranger(), node.stranger()];
    trips(&node, "strangers_percent_max", |node| {
        strangers.push(node.stranger());
        strangers.remove(0).expect_close(1008);
    });
    for limit in ["address_connections_max", "address_strangers_max"] {
        let node = limited(&format!("{limit} = 1"));
        let _one = node.stranger();
        trips(&node, limit, |node| {
            assert_eq!(refused(node, &request("/websocket", &[])), 503);
        });
    }
    let limit = "address_handshakes_per_sec";
    let node = limited("address_handshakes_per_sec = 1");
    trips(&node, limit, |node| while node.open("", &[]).is_ok() {});
    let limit = "handshakes_per_sec";
    let node = limited("handshakes_per_sec = 2");
    trips(&node, limit, |node| drop([(); 4].map(|()| dial(node.ws))));
    vec![
        "strangers_percent_max",
        "address_connections_max",
        "address_strangers_max",
        "address_handshakes_per_sec",
        "handshakes_per_sec",
    ]
}

fn limits_of_queues() -> Vec<&'static str> {
    let node = limited("queue_soft_bytes = 1024\nqueue_stalled_secs = 0");
    let mut readers = Vec::new();
    trips(&node, "queue_soft_bytes", |node| {
        let user = format!("u{}", readers.len());
        let mut client = narrow_join(node, &user);
        fill(node, &user, 2000);
        client.say(&json!({"type": 11}));
        readers.push(client);
    });
    let node =
        limited("queue_soft_bytes = 65536\nqueue_hard_bytes = 65536\nqueue_stalled_secs = 0");
    // Pushes until somebody is given up.
    let overfill = |node: &Node, users: &[&str], text: &str| {
        let closed = node.metric("closes_total{code=\"4413\"}");
        eventually("somebody is given up", || {
            for _ in 0..10 {
                node.push(users, &json!(text));
            }
            node.metric("closes_total{code=\"4413\"}") > closed
        });
    };
    trips(&node, "queue_hard_bytes", |node| {
        let _slow = narrow_join(node, "slow");
        overfill(node, &["slow"], &"x".repeat(30_000));
    });
    let bytes = 512 << 10;
    let node = limited(&format!(
        "queue_soft_bytes = {bytes}\nqueue_hard_bytes = {bytes}\nnode_queue_bytes_max = {bytes}\n\
         queue_stalled_secs = 0"
    ));
    trips(&node, "node_queue_bytes_max", |node| {
        // Both grow from about the same on, so that together they are too large before one is.
        let users = ["a", "b"];
        let slow = users.map(|user| {
            let client = narrow_join(node, user);
            fill(node, user, 20_000);
            client
        });
        overfill(node, &users, &"x".repeat(2000));
        drop(slow);
        node.awaits("write_queue_bytes", 0.0);
        node.awaits("sessions", 0.0);
    });
    vec![
        "queue_soft_bytes",
        "queue_hard_bytes",
        "node_queue_bytes_max",
    ]
}

/// Two of a kind come, and go when their time is over.
fn twice<T>(node: &Node, come: impl Fn(&Node) -> T, go: impl Fn(T)) {
    [come(node), come(node)].into_iter().for_each(go);
}

fn limits_of_time() -> Vec<&'static str> {
    type Case = (&'static str, &'static str, fn(&Node));
    let cases: [Case; 6] = [
        ("handshake_secs", "[limits]\nhandshake_secs = 1", |node| {
            twice(
                node,
                |node| {
                    let mut client = Client::over(dial(node.ws));
                    client.write(b"GET /");
                    client
                },
                |mut client| assert_eq!(status(&client.read_head()), 408),
            );
        }),
        ("auth_timeout_secs", "auth_timeout_secs = 1", |node| {
            twice(node, Node::stranger, |mut client| {
                client.expect_close(4401);
            });
        }),
        ("message_secs", "[limits]\nmessage_secs = 1", |node| {
            twice(
                node,
                |node| {
                    let mut client = node.join("alice");
                    client.write(&encode(0x01, b"{"));
                    client
                },
                |mut client| {
                    client.expect_close(1008);
                },
            );
        }),
        ("idle_secs", "idle_secs = 1\nping_secs = 0", |node| {
            twice(
                node,
                |node| node.join("alice"),
                |mut client| {
                    client.expect_close(4408);
                },
            );
        }),
        (
            "queue_stalled_secs",
            "[limits]\nqueue_stalled_secs = 1",
            |node| {
                let users = ["a", "b"];
                let slow = users.map(|user| narrow_join(node, user));
                for user in users {
                    fill(node, user, 1);
                }
                node.awaits("closes_total{code=\"4413\"}", 2.0);
                drop(slow);
            },
        ),
        (
            "http_header_secs",
            "[limits]\nhttp_header_secs = 1",
            |node| {
                twice(
                    node,
                    |node| {
                        let mut client = Client::over(dial(node.api));
                        client.write(b"GET /");
                        client
                    },
                    |mut client| assert_eq!(status(&client.read_head()), 408),
                );
            },
        ),
    ];
    scope(|scope| {
        for (limit, config, trip_twice) in cases {
            scope.spawn(move || {
                let setup = Setup::new().args(&["--reactors", "1"]);
                let node = setup.config(config).start();
                trips_at_once(&node, limit, trip_twice);
            });
        }
    });
    cases.map(|(limit, ..)| limit).to_vec()
}

fn the_limit_of_a_drain() -> Vec<&'static str> {
    let node = Node::start(&["--drain-secs", "0", "--reactors", "1"]);
    let mut alice = node.join("alice");
    node.signal("TERM");
    while matches!(alice.next(), Event::Frame(_)) {}
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0));
    let line = "a limit has struck limit=\"drain_secs\"";
    assert_eq!(errors.matches(line).count(), 1, "{errors}");
    vec!["drain_secs"]
}
