//! Chats, groups, devices and presence between real clients.

use serde_json::{Value, json};

use crate::support::{Client, Node};

/// A client of `user` with more in its query than the token.
fn join_with(node: &Node, user: &str, query: &str) -> Client {
    node.join_for(&json!({"userId": user}), query).0
}

fn chat(to: &str, message: &str) -> Value {
    let params = json!({"toMessageId": to, "message": message, "fileType": 0, "msgid": "m1"});
    json!({"type": 1, "params": params})
}

#[test]
fn a_chat_is_accepted_and_reaches_all_devices_of_the_receiver() {
    let node = Node::start(&["--reactors", "4"]);
    let mut alice = node.join("alice");
    let mut phone = join_with(&node, "bob", "device=phone");
    let mut tablet = join_with(&node, "bob", "device=tablet");
    alice.say(&chat("bob", "hi \"bob\""));
    let receipt = alice.hear();
    assert_eq!(
        (&receipt["type"], &receipt["status"]),
        (&json!(0), &json!(200))
    );
    assert_eq!(receipt["params"]["message"], "hi \"bob\"");
    assert_eq!(receipt["params"]["msgid"], "m1");
    for client in [&mut phone, &mut tablet] {
        let envelope = client.hear();
        let msg = &envelope["msg"];
        assert_eq!(
            (&msg["type"], &msg["status"], &envelope["msgType"]),
            (&json!(2), &json!(200), &json!(1))
        );
        assert_eq!(envelope["messageId"], receipt["params"]["messageId"]);
        assert_eq!(msg["params"]["message"], "hi \"bob\"");
        assert_eq!(msg["params"]["fileType"], "0");
        let user = |uid: &str| json!({"openid": uid, "loginStatus": "1", "userName": uid});
        assert_eq!(msg["params"]["toUser"], user("bob"));
        assert_eq!(msg["params"]["fromUser"], user("alice"));
    }
    // Whoever is not here gets it later.
    alice.say(&chat("nobody", "hi"));
    assert_eq!(alice.hear()["type"], 0);
    let late = node.join("nobody").hear();
    assert_eq!(late["msg"]["params"]["message"], "hi");
    assert_eq!(late["seq"], 1);
}

#[test]
fn a_group_talks_across_reactors_and_only_members_are_heard() {
    let node = Node::start(&["--reactors", "4"]);
    let names: Vec<String> = (0..8).map(|n| format!("u{n}")).collect();
    let mut members: Vec<Client> = names.iter().map(|name| node.join(name)).collect();
    let mut eve = node.join("eve");
    members[0]
        .say(&json!({"type": 3, "params": {"groupId": "g", "userIdList": names[1..].join(",")}}));
    for member in &mut members {
        let result = member.hear();
        assert_eq!(
            (&result["type"], &result["groupId"], &result["nameList"]),
            (&json!(4), &json!("g"), &json!(names))
        );
    }
    let says = json!({"type": 9, "params": {"toMessageId": "g", "message": "hi", "fileType": "1"}});
    members[3].say(&says);
    assert_eq!(members[3].hear()["type"], 0);
    for (n, member) in members.iter_mut().enumerate() {
        if n == 3 {
            assert_eq!(member.is_heard(), [Value::Null; 0]);
            continue;
        }
        let msg = &member.hear()["msg"];
        assert_eq!((&msg["type"], &msg["status"]), (&json!(10), &json!(200)));
        let params = &msg["params"];
        assert_eq!(params["fromUser"]["openid"], "u3");
        assert_eq!(
            (&params["groupId"], &params["message"], &params["fileType"]),
            (&json!("g"), &json!("hi"), &json!("1"))
        );
    }
    eve.say(&says);
    let error = eve.hear();
    assert_eq!(
        (&error["params"]["code"], &error["params"]["reason"]),
        (&json!(403), &json!("not_member"))
    );
    eve.say(&json!({"type": 3, "params": {"groupId": "g"}}));
    assert_eq!(eve.hear()["params"]["code"], 409);
    eve.say(&json!({"type": 14, "params": {"groupId": "g"}}));
    assert_eq!(eve.hear()["params"]["code"], 403);
    members[7].say(&json!({"type": 14, "params": {"groupId": "g", "leave": true}}));
    for member in &mut members {
        assert_eq!(member.hear()["nameList"], json!(names[..7]));
    }
}

#[test]
fn a_direct_frame_with_a_msgid_has_a_receipt_for_each_receiver() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let _others = [node.join("bob"), node.join("carl")];
    alice.say(&json!({"to": "bob,carl,dora", "msg": "hi", "msgType": 1, "msgid": "m7"}));
    for uid in ["bob", "carl", "dora"] {
        let receipt = alice.hear();
        assert_eq!(
            (
                &receipt["msgType"],
                &receipt["toUser"],
                &receipt["params"]["msgid"]
            ),
            (&json!(2), &json!(uid), &json!("m7"))
        );
    }
    assert_eq!(alice.is_heard(), [Value::Null; 0]);
}

#[test]
fn a_user_code_takes_no_msgid() {
    let node = Node::start(&[]);
    let (mut bob, notice) = node.join_for(&json!({"userId": "bob"}), "");
    let mut alice = node.join("alice");
    let code = &notice["msg"]["userCode"];
    alice.say(&json!({"to": code, "msg": "hi", "msgType": 1, "msgid": "m1"}));
    let error = alice.hear();
    assert_eq!(
        (
            &error["msgType"],
            &error["params"]["code"],
            &error["params"]["ref"]
        ),
        (&json!(-1), &json!(400), &json!("m1"))
    );
    alice.is_heard();
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
}

#[test]
fn a_second_connection_of_a_device_replaces_the_first() {
    let node = Node::start(&["--reactors", "4"]);
    let mut first = join_with(&node, "bob", "device=phone");
    let mut other = node.join("bob");
    let _second = join_with(&node, "bob", "device=phone");
    first.expect_close(4409);
    other.is_heard();
    node.awaits("sessions", 2.0);
}

#[test]
fn the_ninth_session_of_a_user_closes_the_oldest() {
    let node = Node::start(&["--reactors", "4"]);
    let mut clients: Vec<Client> = (0..9).map(|_| node.join("bob")).collect();
    clients[0].expect_close(4409);
    for client in &mut clients[1..] {
        client.is_heard();
    }
    node.awaits("sessions", 8.0);
}

#[test]
fn a_watcher_hears_who_comes_and_goes() {
    let node = Node::start(&["--reactors", "4"]);
    let mut alice = node.join("alice");
    alice.say(&json!({"path": "online", "body": {"watch": ["bob"]}, "requestId": "r"}));
    let answer = alice.hear();
    assert_eq!(answer["content"]["online"], json!({"bob": false}));
    for _ in 0..3 {
        let bob = node.join("bob");
        let second = node.join("bob");
        let told = |notice: Value| {
            assert_eq!(notice["msgType"], 0);
            notice["msg"].clone()
        };
        let state = |online: bool| json!({"event": "online", "userId": "bob", "online": online});
        assert_eq!(told(alice.hear()), state(true));
        bob.leave();
        second.leave();
        assert_eq!(told(alice.hear()), state(false));
    }
    assert_eq!(alice.is_heard(), [Value::Null; 0]);
}

#[test]
fn who_looks_away_hears_no_more_and_too_many_are_not_watched() {
    let node = Node::start(&["--reactors", "4"]);
    let mut alice = node.join("alice");
    let mut ask = |body: Value| {
        alice.say(&json!({"path": "online", "body": body, "requestId": "r"}));
        alice.hear()
    };
    let both = json!({"bob": false, "carl": false});
    assert_eq!(ask(json!({"watch": "bob,carl"}))["content"]["online"], both);
    assert_eq!(ask(json!({"unwatch": "bob"}))["content"]["onlineNum"], 1);
    // With carl it would be one more than there may be.
    let many: Vec<String> = (0..256).map(|n| format!("u{n}")).collect();
    assert_eq!(ask(json!({"watch": many}))["statusCode"], 400);
    assert_eq!(ask(json!({"watch": many[1..]}))["statusCode"], 200);
    let others = ["bob", "u0", "carl"].map(|user| node.join(user));
    let notice = alice.hear()["msg"].clone();
    assert_eq!(
        notice,
        json!({"event": "online", "userId": "carl", "online": true})
    );
    assert_eq!(alice.is_heard(), [Value::Null; 0]);
    drop(others);
}

#[test]
fn a_selector_reaches_those_whose_metadata_match() {
    let node = Node::start(&["--reactors", "4"]);
    let mut english: Vec<Client> = (0..6)
        .map(|n| join_with(&node, &format!("e{n}"), "lang=en&room=7"))
        .collect();
    let mut other = join_with(&node, "f", "lang=fr&room=7");
    let push = json!({"sendToAll": true, "msg": {"n": 1}, "selector": {"lang": "en", "room": "7"}});
    assert_eq!(node.post("/api/v1/messages", &push).status, 200);
    for client in &mut english {
        assert_eq!(client.hear()["to"], json!(["*"]));
    }
    let push = json!({"to": ["e1", "f"], "msg": 2, "store": false, "selector": {"lang": "en"}});
    let answer = node.post("/api/v1/messages", &push).json();
    assert_eq!(
        (&answer["statusCode"], &answer["content"]),
        (&json!(-501), &json!(["f"]))
    );
    assert_eq!(english[1].hear()["msg"], 2);
    assert_eq!(other.is_heard(), [Value::Null; 0]);
}

#[test]
fn a_push_by_a_client_needs_the_permission() {
    let node = Node::start(&[]);
    let order = json!({"userId": "shop", "perms": ["message/send"]});
    let token = node.post("/api/v1/tokens", &order).content();
    let token = token["wsToken"].as_str().unwrap();
    let mut shop = node.open(&format!("?token={token}"), &[]).unwrap();
    shop.hear();
    let mut bob = node.join("bob");
    let push =
        json!({"path": "message/send", "requestId": "r", "body": {"to": ["bob"], "msg": {"a": 1}}});
    shop.say(&push);
    assert_eq!(shop.hear()["statusCode"], 200);
    let envelope = bob.hear();
    assert_eq!(
        (
            &envelope["from"],
            &envelope["trigger"],
            &envelope["requestId"]
        ),
        (&json!("shop"), &json!(2), &json!("r"))
    );
    bob.say(&push);
    let refused = bob.hear();
    assert_eq!(
        (&refused["statusCode"], &refused["path"]),
        (&json!(403), &json!("message/send"))
    );
}
