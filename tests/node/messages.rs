//! Who gets what: direct frames, pushes over HTTP, messages to everybody.

use std::thread::scope;

use serde_json::{Value, json};

use crate::support::{Client, Node};

const MESSAGES: &str = "/api/v1/messages";
const ALIAS: &str = "/rocketmq/mqmessage/message/send";

/// How many reactors hold connections.
fn reactors_in_use(node: &Node) -> usize {
    let metrics = node.get("/metrics").body;
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("throng_bound_sockets{"));
    lines
        .filter(|line| !line.ends_with(" 0.0") && !line.ends_with(" 0"))
        .count()
}

#[test]
fn users_on_different_reactors_talk_to_each_other() {
    const USERS: usize = 24;
    let node = Node::start(&["--reactors", "4"]);
    let mut clients: Vec<Client> = (0..USERS).map(|n| node.join(&format!("u{n}"))).collect();
    assert!(reactors_in_use(&node) > 1);
    for (n, client) in clients.iter_mut().enumerate() {
        let to: Vec<String> = (0..USERS).map(|n| format!("u{n}")).collect();
        client.say(&json!({"to": to, "msg": {"by": n}, "msgType": 1, "requestId": "r"}));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let mut senders = Vec::new();
        for _ in 0..USERS {
            let message = client.hear();
            assert_eq!(message["to"], json!([format!("u{n}")]));
            assert_eq!(
                (&message["msgType"], &message["trigger"]),
                (&json!(1), &json!(2))
            );
            assert_eq!(message["requestId"], "r");
            let by = message["msg"]["by"].as_u64().unwrap();
            assert_eq!(message["from"], format!("u{by}"));
            assert_eq!(message["messageId"].as_str().unwrap().len(), 32);
            senders.push(by);
        }
        senders.sort_unstable();
        assert!(senders.into_iter().eq(0..USERS as u64));
        assert_eq!(client.is_heard(), Vec::<Value>::new());
    }
    assert_eq!(node.metric("deliveries_total"), (USERS * USERS) as f64);
}

#[test]
fn a_sender_is_who_it_is_and_hears_who_was_not_there() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let mut bob = node.join("bob");
    alice.say(
        &json!({"from": "eve", "fromUser": "eve", "to": "bob,carl", "msg": "hi", "requestId": "q"}),
    );
    let message = bob.hear();
    assert_eq!(
        (&message["from"], &message["msg"]),
        (&json!("alice"), &json!("hi"))
    );
    let error = alice.hear();
    assert_eq!(
        (&error["msgType"], &error["params"]["code"]),
        (&json!(-1), &json!(404))
    );
    assert_eq!(error["params"]["ref"], "q");
    assert!(
        error["resultMsg"].as_str().unwrap().ends_with("carl"),
        "{error}"
    );
}

#[test]
fn a_receiver_that_is_named_many_times_gets_it_once() {
    let node = Node::start(&["--reactors", "2"]);
    let mut alice = node.join("alice");
    let mut bob = node.join("bob");
    // A thousand times 50 KB would be more than anybody's queue.
    let text = "d".repeat(50_000);
    alice.say(&json!({"to": vec!["bob"; 1000], "msg": text, "msgType": 1}));
    assert!(bob.hear()["msg"] == text);
    alice.say(&json!({"to": "bob,bob", "msg": "twice", "msgType": 1}));
    assert!(bob.hear()["msg"] == "twice");
    assert!(bob.is_heard().is_empty());
}

#[test]
fn a_user_code_reaches_one_connection_and_ends_with_it() {
    let node = Node::start(&["--reactors", "3"]);
    let token = node.token("bob");
    let mut bobs = Vec::new();
    for _ in 0..6 {
        let mut client = node.open(&format!("?token={token}"), &[]).unwrap();
        let code = client.hear()["msg"]["userCode"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(code.len() > 64 && !code.contains(&token));
        bobs.push((client, code));
    }
    let mut alice = node.join("alice");
    let (mut chosen, code) = bobs.remove(3);
    alice.say(&json!({"to": code, "msg": "you", "msgType": 1}));
    assert_eq!(chosen.hear()["msg"], "you");
    for (other, _) in &mut bobs {
        assert_eq!(other.is_heard(), Vec::<Value>::new());
    }
    chosen.leave();
    alice.say(&json!({"to": code, "msg": "you", "msgType": 1}));
    assert_eq!(alice.hear()["params"]["code"], 404);
}

#[test]
fn a_push_reaches_all_connections_of_a_user() {
    let node = Node::start(&["--reactors", "4"]);
    let mut bobs: Vec<Client> = (0..6).map(|_| node.join("bob")).collect();
    let mut alice = node.join("alice");
    let content = node
        .push(&["bob", "alice", "bob"], &json!({"n": [1, {"k": "é"}]}))
        .content();
    let mut names = Vec::new();
    for (user, client) in bobs
        .iter_mut()
        .map(|c| ("bob", c))
        .chain([("alice", &mut alice)])
    {
        let message = client.hear();
        assert_eq!(message["msg"], json!({"n": [1, {"k": "é"}]}));
        assert_eq!(message["messageId"], content[user]);
        assert_eq!(
            (&message["from"], &message["trigger"]),
            (&json!("system"), &json!(1))
        );
        assert_eq!(message["to"], json!([user]));
        assert!(message["requestId"].is_string());
        names.push(message["sessionId"].as_str().unwrap().to_owned());
        assert_eq!(client.is_heard(), Vec::<Value>::new());
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 7, "each connection has a name of its own");
}

#[test]
fn unknown_receivers_are_named_and_the_others_reached() {
    let node = Node::start(&[]);
    let mut bob = node.join("bob");
    for path in [MESSAGES, ALIAS] {
        let order = json!({"to": ["carl", "bob", "dora"], "msg": {"a": 1}, "store": false,
            "requestId": "mine", "from": "shop"});
        let answer = node.post(path, &order);
        let says = answer.json();
        assert_eq!((answer.status, &says["statusCode"]), (200, &json!(-501)));
        assert_eq!(
            (&says["success"], &says["content"]),
            (&json!(false), &json!(["carl", "dora"]))
        );
        assert_eq!(says["msg"], "存在找不到的客户端");
        let message = bob.hear();
        assert_eq!(
            (&message["requestId"], &message["from"]),
            (&json!("mine"), &json!("shop"))
        );
    }
}

#[test]
fn what_is_pushed_waits_for_its_receiver_and_what_is_due_later_for_its_time() {
    let node = Node::start(&[]);
    let push = |extra: Value| {
        let mut push = json!({"to": ["alice"], "msg": {"n": 1}, "uniqueMsgid": "u1"});
        let extra = extra.as_object().unwrap().clone();
        push.as_object_mut().unwrap().extend(extra);
        let answer = node.post(MESSAGES, &push);
        (answer.status, answer.json())
    };
    let (status, first) = push(json!({}));
    assert_eq!((status, &first["success"]), (200, &json!(true)));
    let id = &first["content"]["alice"];
    assert_eq!(
        push(json!({"store": true})).1["content"]["alice"],
        *id,
        "again"
    );
    let (status, answer) = push(json!({"msg": {"n": 2}}));
    assert_eq!(
        (status, &answer["content"]["reason"]),
        (409, &json!("msgid_reused"))
    );
    let (_, later) = push(json!({"uniqueMsgid": "u2", "delay": 1}));
    let (_, never) = push(json!({"uniqueMsgid": "u3", "delay": 2}));
    let path = format!("{MESSAGES}/{}", never["content"]["alice"].as_str().unwrap());
    assert_eq!(node.delete(&path).status, 200);
    let mut alice = node.join("alice");
    for (seq, id) in [(1, id), (2, &later["content"]["alice"])] {
        let message = alice.hear();
        assert_eq!((&message["seq"], &message["messageId"]), (&json!(seq), id));
        assert_eq!(
            (&message["msgType"], &message["trigger"]),
            (&json!(1), &json!(1))
        );
    }
    let path = format!("{MESSAGES}/{}", later["content"]["alice"].as_str().unwrap());
    assert_eq!(node.delete(&path).status, 409, "it was due already");
    assert_eq!(node.delete(&format!("{MESSAGES}/{:032x}", 7)).status, 404);
}

#[test]
fn a_message_to_everybody_reaches_everybody_who_is_known() {
    let node = Node::start(&["--reactors", "4"]);
    let mut clients: Vec<Client> = (0..40)
        .map(|n| node.join(&format!("u{}", n % 30)))
        .collect();
    let mut stranger = node.stranger();
    let content = node.send_to_all(&json!({"n": 1})).content();
    for client in &mut clients {
        let message = client.hear();
        assert_eq!(
            (&message["to"], &message["msg"]["n"]),
            (&json!(["*"]), &json!(1))
        );
        assert_eq!(message["messageId"], content["*"]);
        assert!(message.get("sessionId").is_none());
    }
    node.awaits("broadcast_deliveries_total", 40.0);
    stranger.say(&json!({"type": 11}));
    assert_eq!(stranger.hear()["type"], 12, "a stranger hears nothing else");
}

#[test]
fn eight_at_once_reach_everybody_once_and_in_order() {
    const POSTERS: usize = 8;
    const EACH: usize = 10;
    let node = Node::start(&["--reactors", "4"]);
    let mut clients: Vec<Client> = (0..40).map(|n| node.join(&format!("u{n}"))).collect();
    scope(|scope| {
        for poster in 0..POSTERS {
            let node = &node;
            scope.spawn(move || {
                for n in 0..EACH {
                    node.send_to_all(&json!({"poster": poster, "n": n}))
                        .content();
                }
            });
        }
    });
    for client in &mut clients {
        let mut next = [0; POSTERS];
        for _ in 0..POSTERS * EACH {
            let message = client.hear();
            let poster = message["msg"]["poster"].as_u64().unwrap() as usize;
            assert_eq!(message["msg"]["n"], next[poster]);
            next[poster] += 1;
        }
        assert_eq!(client.is_heard(), Vec::<Value>::new(), "each came once");
    }
}

#[test]
fn a_push_does_not_overtake_what_was_sent_to_everybody_before() {
    let node = Node::start(&["--reactors", "2"]);
    let mut clients: Vec<Client> = (0..10).map(|n| node.join(&format!("u{n}"))).collect();
    let names: Vec<String> = (0..10).map(|n| format!("u{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for n in 0..100 {
        node.send_to_all(&json!({"n": 2 * n})).content();
        node.push(&names, &json!({"n": 2 * n + 1})).content();
    }
    for client in &mut clients {
        for n in 0..200 {
            assert_eq!(client.hear()["msg"]["n"], n);
        }
    }
}

#[test]
fn counts_go_back_to_zero_however_clients_leave() {
    let node = Node::start(&["--reactors", "2"]);
    let clients: Vec<Client> = (0..30).map(|n| node.join(&format!("u{}", n / 3))).collect();
    let content = node.get("/api/v1/online").content();
    assert_eq!(
        (&content["onlineNum"], &content["users"]),
        (&json!(30), &json!(10))
    );
    assert_eq!(content["nodes"][node.api.to_string()], 30);
    for name in ["connections", "sessions", "open_sockets", "bound_sockets"] {
        assert_eq!(node.metric(name), 30.0, "{name}");
    }
    for (n, client) in clients.into_iter().enumerate() {
        match n % 3 {
            0 => client.leave(),
            1 => client.vanish(),
            _ => drop(client),
        }
    }
    node.awaits_emptiness();
    let answer = node.push(&["u1"], &json!({})).json();
    assert_eq!(answer["statusCode"], -501);
    assert_eq!(node.metric("closes_total{code=\"1006\"}"), 20.0);
    assert_eq!(node.metric("closes_total{code=\"1000\"}"), 10.0);
}

#[test]
fn who_says_goodbye_by_type_7_is_not_found_until_it_comes_back() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let register =
        |status: &str| json!({"type": 7, "params": {"openid": "alice", "loginStatus": status}});
    alice.say(&register("0"));
    assert_eq!(alice.hear()["params"]["loginStatus"], "0");
    assert_eq!(node.push(&["alice"], &json!({})).json()["statusCode"], -501);
    node.send_to_all(&json!({"n": 1})).content();
    assert_eq!(alice.is_heard(), Vec::<Value>::new());
    alice.say(&register("1"));
    assert_eq!(alice.hear()["type"], 8);
    node.push(&["alice"], &json!({"n": 2})).content();
    assert_eq!(alice.hear()["msg"]["n"], 2);
    node.send_to_all(&json!({"n": 3})).content();
    assert_eq!(alice.hear()["msg"]["n"], 3);
}
