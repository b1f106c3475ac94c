//! What operators do over HTTP to clients that are connected: closing, draining, tracing, groups.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, Node, Setup, eventually};

/// A client of `user`, and the id of its session.
fn join(node: &Node, user: &str) -> (Client, String) {
    let (client, notice) = node.join_for(&json!({"userId": user}), "");
    (client, notice["sessionId"].as_str().unwrap().to_owned())
}

#[test]
fn one_session_is_closed_and_the_others_of_the_user_live_on() {
    let node = Node::start(&["--reactors", "4"]);
    let mut bob = node.join("bob");
    let mut alices: Vec<_> = (0..5).map(|_| join(&node, "alice")).collect();
    let (mut chosen, session) = alices.remove(2);
    let path = format!("/api/v1/sessions/{session}");
    let closed = node.delete(&path).content();
    assert_eq!(closed, json!({"closed": [session]}));
    chosen.expect_close(4410);
    node.awaits("sessions", 5.0);
    assert_eq!(node.delete(&path).status, 404, "it is not here any more");
    node.push(&["alice"], &json!(1)).content();
    for (client, _) in &mut alices {
        assert_eq!(client.hear()["msg"], 1);
    }
    let closed = node.delete("/api/v1/users/alice/sessions").content();
    let sessions: Vec<&String> = alices.iter().map(|(_, session)| session).collect();
    assert_eq!(closed, json!({"closed": sessions}), "the oldest first");
    for (client, _) in &mut alices {
        client.expect_close(4410);
    }
    node.awaits("sessions", 1.0);
    bob.is_heard();
    let alice = node.get("/api/v1/users/alice").content();
    assert_eq!(
        (&alice["online"], &alice["sessions"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(node.metric("closes_total{code=\"4410\"}"), 5.0);
    node.serves();
}

#[test]
fn who_said_goodbye_by_type_7_is_closed_with_the_others() {
    let node = Node::start(&[]);
    let mut away = node.join("alice");
    away.say(&json!({"type": 7, "params": {"openid": "alice", "loginStatus": "0"}}));
    assert_eq!(away.hear()["type"], 8);
    let closed = node.delete("/api/v1/users/alice/sessions").content();
    assert_eq!(closed["closed"].as_array().unwrap().len(), 1);
    away.expect_close(4410);
}

#[test]
fn a_drain_at_a_rate_takes_its_time_and_a_signal_hurries_it() {
    const CLIENTS: usize = 40;
    let node = Node::start(&["--reactors", "2"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|n| node.join(&format!("u{n}"))).collect();
    let began = Instant::now();
    let content = node.post("/api/v1/drain", &json!({"rate": 1})).content();
    assert_eq!(
        (&content["draining"], &content["rate"]),
        (&json!(true), &json!(1))
    );
    eventually("it has begun", || node.get("/ready").status == 503);
    let refusal = node.get("/api/v1/nodes/least-loaded");
    assert_eq!(
        (refusal.status, &refusal.json()["content"]["reason"]),
        (503, &json!("draining"))
    );
    // The first wish counts.
    let content = node
        .post("/api/v1/drain", &json!({"rate": 1_000_000}))
        .content();
    assert_eq!(content["rate"], 1);
    eventually("some have gone", || {
        node.metric("closes_total{code=\"1012\"}") >= 4.0
    });
    let took = began.elapsed();
    let left = node.get("/api/v1/drain").content()["connections"].as_u64();
    let most = CLIENTS as u64 - 4 - took.as_secs();
    assert!(
        left.unwrap() >= most / 2,
        "{left:?} are left after {took:?}"
    );
    // Without the signal it would go on for the better part of a minute.
    node.signal("TERM");
    for client in &mut clients {
        assert_eq!(client.closed().code, 1012);
    }
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_drain_over_http_ends_the_node_with_status_0_and_nobody_is_cut_off() {
    // However unevenly the reactors have taken them.
    let node = Node::start(&["--reactors", "3"]);
    let clients: Vec<Client> = (0..9).map(|n| node.join(&format!("u{n}"))).collect();
    for bad in [
        json!({"rate": 0}),
        json!({"rate": "fast"}),
        json!({"rate": 1_000_001}),
    ] {
        assert_eq!(node.post("/api/v1/drain", &bad).status, 400);
    }
    assert_eq!(node.get("/api/v1/drain").content()["draining"], false);
    node.post("/api/v1/drain", &json!({"rate": 5})).content();
    for mut client in clients {
        let closed = client.closed();
        let reason: Value = serde_json::from_str(&closed.reason).unwrap();
        assert_eq!(closed.code, 1012);
        assert!(reason["retryMs"].is_u64(), "{reason}");
        client.say_goodbye(1012);
        assert_eq!(client.read_to_end(), "");
    }
    let (status, _, errors) = node.end();
    assert_eq!(status.code(), Some(0), "{errors}");
}

const TRACE: &str = "/api/v1/users/alice/trace";

fn events(node: &Node) -> Vec<Value> {
    let content = node.get(TRACE).content();
    content["events"].as_array().unwrap().clone()
}

#[test]
fn a_trace_tells_what_happens_to_one_user_and_no_text_and_no_token() {
    let node = Node::start(&["--reactors", "4"]);
    let mut bob = node.join("bob");
    let (mut alice, session) = join(&node, "alice");
    assert_eq!(node.get(TRACE).status, 404);
    let begun = node.post(TRACE, &json!({"secs": 600})).content();
    assert_eq!(
        (&begun["isRunning"], &begun["events"]),
        (&json!(true), &json!([]))
    );
    let token = node.token("alice");
    for to in ["bob", "no user"] {
        let params = json!({"toMessageId": to, "message": "a canary sings"});
        alice.say(&json!({"type": 1, "params": params}));
    }
    alice.say(&json!({"path": "token/renew", "body": {"token": token}}));
    bob.say(&json!({"to": "alice", "msg": "a canary sings", "msgType": 1}));
    node.push(&["alice"], &json!("a canary sings")).content();
    let mut second = node.open(&format!("?token={token}"), &[]).unwrap();
    let code = second.hear()["msg"]["userCode"]
        .as_str()
        .unwrap()
        .to_owned();
    bob.say(&json!({"to": code, "msg": "a canary sings", "msgType": 1}));
    while second.hear()["msg"] != "a canary sings" {}
    second.say(&json!({"path": "connet", "token": "canary.token"}));
    while second.hear()["statusCode"] != 401 {}
    second.leave();
    let is_seen = |what: &str, detail: &str| {
        let told = |event: &Value| {
            event["what"] == what && event["detail"].as_str().unwrap().starts_with(detail)
        };
        events(&node).iter().any(told)
    };
    for (what, detail) in [
        ("bound", ""),
        ("message", "chat, "),
        ("message", "renew the token, "),
        ("delivered", "message "),
        ("error", "400 "),
        ("error", "401 "),
        ("closed", "1000 by the client"),
    ] {
        eventually(&format!("{what} {detail}"), || is_seen(what, detail));
    }
    let ended = node.delete(TRACE).content();
    assert_eq!(ended["isRunning"], false);
    let told = ended.to_string();
    assert!(told.contains(&session), "{told}");
    for secret in [&token, &code, "canary", "sings"] {
        assert!(!told.contains(secret), "{told}");
    }
    // From now on nothing is noted, and what was can still be read.
    alice.say(&json!({"type": 11}));
    while alice.hear()["type"] != 12 {}
    assert_eq!(node.get(TRACE).content(), ended);
    assert_eq!(node.delete(TRACE).status, 404);
    assert_eq!(node.get("/api/v1/users/bob/trace").status, 404);
}

#[test]
fn a_trace_ends_by_itself_and_sixteen_run_at_a_time() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    for bad in [json!({"secs": 0}), json!({"secs": 601})] {
        assert_eq!(node.post(TRACE, &bad).status, 400);
    }
    node.post(TRACE, &json!({"secs": 1})).content();
    eventually("its time is over", || {
        node.get(TRACE).content()["isRunning"] == false
    });
    let seen = events(&node).len();
    alice.is_heard();
    assert_eq!(events(&node).len(), seen);
    assert_eq!(node.delete(TRACE).status, 404);
    let trace = |n: usize| node.post(&format!("/api/v1/users/u{n}/trace"), &json!({}));
    for n in 0..16 {
        trace(n).content();
    }
    assert_eq!(node.get(TRACE).status, 404, "it had to make room");
    let refused = trace(16);
    assert_eq!(
        (refused.status, &refused.json()["content"]["reason"]),
        (409, &json!("too_many_traces"))
    );
    trace(3).content();
}

#[test]
fn members_hear_of_what_an_operator_does_to_their_group() {
    let node = Node::start(&["--reactors", "4"]);
    let names = ["ann", "bob", "carl", "dora"];
    let mut clients = names.map(|name| node.join(name));
    let group = json!({"groupId": "g", "userIdList": names[..3]});
    let content = node.post("/api/v1/groups", &group).content();
    assert_eq!(content["userIdList"], json!(names[..3]));
    assert_eq!(node.post("/api/v1/groups", &group).status, 409);
    let mut hears = |those: &[usize], list: &[&str]| {
        for &n in those {
            let told = clients[n].hear();
            assert_eq!((&told["type"], &told["groupId"]), (&json!(4), &json!("g")));
            assert_eq!(told["nameList"], json!(list), "{}", names[n]);
        }
    };
    hears(&[0, 1, 2], &names[..3]);
    let more = json!({"userIdList": "dora"});
    node.post("/api/v1/groups/g/members", &more).content();
    hears(&[0, 1, 2, 3], &names);
    let left = node.delete("/api/v1/groups/g/members/bob").content();
    assert_eq!(left["userIdList"], json!(["ann", "carl", "dora"]));
    hears(&[0, 2, 3], &["ann", "carl", "dora"]);
    let answer = node.delete("/api/v1/groups/g/members/bob");
    assert_eq!(
        (answer.status, &answer.json()["content"]["reason"]),
        (403, &json!("not_member"))
    );
    node.delete("/api/v1/groups/g").content();
    hears(&[0, 2, 3], &[]);
    for answer in [
        node.get("/api/v1/groups/g"),
        node.delete("/api/v1/groups/g"),
        node.post("/api/v1/groups/g/members", &more),
    ] {
        assert_eq!(answer.status, 404, "{}", answer.body);
    }
    clients[0].say(&json!({"type": 9, "params": {"toMessageId": "g", "message": "hi"}}));
    while clients[0].hear()["params"]["code"] != 404 {}
}

#[test]
fn where_groups_are_open_a_user_may_join_alone() {
    let setup = Setup::new().config("group_join = \"open\"\n");
    let node = setup.args(&["--reactors", "4"]).start();
    let mut ann = node.join("ann");
    let mut bob = node.join("bob");
    ann.say(&json!({"type": 3, "params": {"groupId": "g"}}));
    assert_eq!(ann.hear()["nameList"], json!(["ann"]));
    let says = json!({"type": 9, "params": {"toMessageId": "g", "message": "hi"}});
    bob.say(&says);
    assert_eq!(bob.hear()["params"]["reason"], "not_member");
    bob.say(&json!({"type": 14, "params": {"groupId": "g"}}));
    for client in [&mut bob, &mut ann] {
        assert_eq!(client.hear()["nameList"], json!(["ann", "bob"]));
    }
    bob.say(&says);
    assert_eq!(bob.hear()["type"], 0);
    assert_eq!(ann.hear()["msg"]["type"], 10);
}

#[test]
fn a_selector_goes_only_with_what_is_not_kept() {
    let node = Node::start(&[]);
    let _alice = node.join("alice");
    let pairs =
        |count: usize| -> Value { (0..count).map(|n| (format!("k{n}"), json!("v"))).collect() };
    for (bad, why) in [
        (
            json!({"to": ["alice"], "selector": {"os": "ios"}}),
            "it would be kept",
        ),
        (
            json!({"to": ["alice"], "store": true, "selector": {"os": "ios"}}),
            "it is to be kept",
        ),
        (json!({"sendToAll": true, "selector": {"os": 7}}), "no text"),
        (json!({"sendToAll": true, "selector": pairs(9)}), "too many"),
        (json!({"sendToAll": true, "delay": 5}), "nothing is stored"),
    ] {
        let mut push = json!({"msg": 1});
        push.as_object_mut()
            .unwrap()
            .extend(bad.as_object().unwrap().clone());
        let answer = node.post("/api/v1/messages", &push);
        assert_eq!(answer.status, 400, "{why}: {}", answer.body);
    }
    let good = json!({"sendToAll": true, "selector": pairs(8), "msg": 1});
    node.post("/api/v1/messages", &good).content();
}
