//! What backends order: messages and tokens.

use super::*;

#[test]
fn a_message_reaches_every_session_of_those_who_are_here() {
    let rig = Rig::new();
    let (first, second) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
    rig.bind("bob", first);
    rig.bind("bob", second);
    let reply = rig.send(
        r#"{"to":["bob","bob"],"msg":{ "n" : 1.50 },"store":false,
            "requestId":"r1","uniqueMsgid":"u"}"#,
    );
    assert_eq!(reply.shaped(), 200);
    let answer = reply.json();
    assert_eq!(answer["msg"], "操作成功");
    let id = answer["content"]["bob"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    for (reactor, key) in [(0, first), (1, second)] {
        let mail = rig.mail(reactor);
        assert_eq!(mail.len(), 1, "one copy, though named twice");
        assert_eq!(mail[0].0, key);
        let envelope = &mail[0].1;
        assert_eq!(envelope["from"], "system");
        assert_eq!(envelope["messageId"], id);
        assert_eq!(envelope["msg"]["n"], 1.5);
        assert_eq!(envelope["msgType"], 1);
        assert_eq!(envelope["requestId"], "r1");
        assert_eq!(envelope["trigger"], 1);
        assert!(envelope["activeTime"].as_u64().unwrap() > 1_600_000_000_000);
    }
}

#[test]
fn those_who_are_not_here_are_named_and_the_others_are_served() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    let reply = rig.post(
        "/rocketmq/mqmessage/message/send",
        r#"{"to":["eve","bob","zoe"],"msg":"hi","store":false,"from":"shop"}"#,
    );
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(
        (&answer["success"], &answer["statusCode"]),
        (&json!(false), &json!(-501))
    );
    assert_eq!(answer["content"], json!(["eve", "zoe"]));
    assert_eq!(answer["msg"], "存在找不到的客户端");
    let mail = rig.mail(0);
    assert_eq!(
        (&mail[0].1["from"], &mail[0].1["msg"]),
        (&json!("shop"), &json!("hi"))
    );
    let request_id = mail[0].1["requestId"].as_str().unwrap();
    assert_eq!((request_id.len(), &request_id[14..15]), (36, "4"));
}

#[test]
fn a_broadcast_is_one_frame_for_all_reactors() {
    let rig = Rig::new();
    let reply = rig.send(r#"{"sendToAll":true,"msg":{"x":1}}"#);
    assert_eq!(reply.shaped(), 200);
    let id = reply.json()["content"]["*"].clone();
    let frames: Vec<_> = rig
        .inboxes
        .iter()
        .map(|inbox| match inbox.next() {
            Some(ToReactor::Broadcast { frame }) => frame,
            _ => panic!("no broadcast"),
        })
        .collect();
    assert!(Arc::ptr_eq(&frames[0], &frames[1]));
    assert_eq!(frames[0][0], 0x81, "a whole text frame");
    let header = if frames[0][1] == 126 { 4 } else { 2 };
    let envelope: Value = serde_json::from_slice(&frames[0][header..]).unwrap();
    assert_eq!(envelope["to"], json!(["*"]));
    assert_eq!(envelope["messageId"], id);
    assert_eq!(envelope.get("sessionId"), None);
}

#[test]
fn orders_that_cannot_be_carried_out_are_refused_with_the_reason() {
    let rig = Rig::new();
    let many = format!(r#"{{"to":{:?},"msg":1,"store":false}}"#, vec!["a"; 1001]);
    let deep = format!(
        r#"{{"sendToAll":true,"msg":{}{}}}"#,
        "[".repeat(33),
        "]".repeat(33)
    );
    let long_id = format!(
        r#"{{"sendToAll":true,"msg":1,"requestId":"{}"}}"#,
        "r".repeat(129)
    );
    for (body, part) in [
        (r#"{"to":["a"],"store":false}"#, "msg is missing"),
        (r#"{"msg":1,"store":false}"#, "to is empty"),
        (r#"{"to":[],"msg":1,"store":false}"#, "to is empty"),
        (r#"{"to":[1],"msg":1,"store":false}"#, "array of user ids"),
        (r#"{"to":{},"msg":1,"store":false}"#, "array of user ids"),
        (r#"{"to":["bob","a b"],"msg":1}"#, r#"to names \"a b\","#),
        (r#"{"to":"","msg":1}"#, r#"to names \"\","#),
        (r#"{"to":["a"],"msg":1,"delay":-1}"#, "0 to 604800"),
        (r#"{"to":["a"],"msg":1,"delay":604801}"#, "0 to 604800"),
        (r#"{"to":["a"],"msg":1,"delay":1.5}"#, "a whole number"),
        (r#"{"to":["a"],"msg":"\ud800"}"#, "surrogate"),
        (r#"{"sendToAll":true,"msg":[1e309]}"#, "double"),
        (r#"["a"]"#, "must be a JSON object"),
        (r#"{"to":["a"],"msg":1,"store":false,"delay":5}"#, "delay"),
        (r#"{"sendToAll":true,"msg":1,"delay":5}"#, "delay"),
        (r#"{"to":["a"],"msg":1,"selector":{"a":"b"}}"#, "selector"),
        (
            r#"{"sendToAll":true,"msg":1,"selector":{"a":1}}"#,
            "strings",
        ),
        (r#"{"sendToAll":true,"msg":1,"from":"a b"}"#, "from"),
        (r#"{"sendToAll":"yes","msg":1}"#, "boolean"),
        (r#"{"sendToAll":true,"msg":1"#, "not as expected"),
        ("[]", "not as expected"),
        ("", "not as expected"),
        (&many, "1001 targets"),
        (&deep, "deeper than 32"),
        (&long_id, "requestId"),
    ] {
        let reply = rig.send(body);
        assert_eq!(reply.shaped(), 400, "{body}");
        assert!(reply.body.contains(part), "{body}: {}", reply.body);
    }
    assert!(rig.mail(0).is_empty() && rig.mail(1).is_empty());
    let exact = format!(r#"{{"to":{:?},"msg":1,"store":false}}"#, vec!["a"; 1000]);
    assert_eq!(rig.send(&exact).json()["statusCode"], -501);
}

#[test]
fn null_is_a_message_like_any_other() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    let reply = rig.send(r#"{"to":"bob","msg": null ,"store":false,"delay":0.0}"#);
    assert_eq!(reply.shaped(), 200);
    let envelope = &rig.mail(0)[0].1;
    assert_eq!(envelope.get("msg"), Some(&Value::Null));
}

#[test]
fn a_message_is_no_larger_than_a_clients_own_may_be() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    let send = |bytes: usize| {
        let msg = "x".repeat(bytes - 2);
        // Space between the tokens is not passed on, and does not count.
        rig.send(&format!(
            r#"{{"to":"bob","msg":  "{msg}"  ,"store":false}}"#
        ))
    };
    assert_eq!(send(64 << 10).shaped(), 200);
    let reply = send((64 << 10) + 1);
    assert_eq!(reply.shaped(), 413);
    assert!(reply.body.contains("65537"), "{}", reply.body);
    assert_eq!(rig.mail(0).len(), 1);
    let metrics = rig.get("/metrics").body;
    let strikes = metrics
        .lines()
        .find(|line| line.contains("\"message_bytes_max\""));
    assert!(
        strikes.is_some_and(|line| line.ends_with(" 1")),
        "{metrics}"
    );
}

#[test]
fn a_full_mailbox_is_said() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    rig.bind("eve", Key::new(1, 1, 0));
    let big = format!(
        r#"{{"sendToAll":true,"msg":"{}"}}"#,
        "x".repeat((64 << 10) - 2)
    );
    for _ in 0..63 {
        assert_eq!(rig.send(&big).shaped(), 200);
    }
    let reply = rig.send(&big);
    assert_eq!(reply.shaped(), 503);
    assert_eq!(reply.json()["content"]["reason"], "busy");
    while rig.inboxes[0].next().is_some() {}
    while rig.inboxes[1].next().is_some() {}
    let to: Vec<String> = (0..1000).map(|n| format!("u{n}")).collect();
    for (n, uid) in to.iter().enumerate() {
        rig.bind(uid, Key::new(0, n + 2, 0));
    }
    let body = format!(r#"{{"to":{to:?},"msg":1,"store":false}}"#);
    for _ in 0..16 {
        assert_eq!(rig.send(&body).shaped(), 200);
    }
    let reply = rig.send(&body);
    assert_eq!(reply.shaped(), 503);
    let content = &reply.json()["content"];
    let count = |name: &str| {
        content[name]
            .as_object()
            .map_or_else(|| content[name].as_array().unwrap().len(), |o| o.len())
    };
    assert_eq!(count("sent") + count("notSent"), 1000);
    assert!(count("notSent") > 0);
    assert_eq!(
        rig.send(r#"{"to":["eve"],"msg":1,"store":false}"#).shaped(),
        200
    );
}

#[test]
fn tokens_are_made_for_clients() {
    let rig = Rig::new();
    let reply = rig.post(
        "/api/v1/tokens",
        r#"{"userId":"bob","userName":"Bob Ü","ttlSecs":60,"perms":["message/send"]}"#,
    );
    assert_eq!(reply.shaped(), 200);
    let content = &reply.json()["content"];
    let token = content["wsToken"].as_str().unwrap();
    assert_eq!(
        content["url"],
        format!("ws://127.0.0.1:8888/websocket?token={token}")
    );
    let claims = TokenKeys::parse(KEY)
        .unwrap()
        .verify(token, now_ms())
        .unwrap();
    assert_eq!(
        (claims.identity.uid(), claims.identity.name()),
        ("bob", "Bob Ü")
    );
    assert_eq!(claims.perms, ["message/send"]);
    assert_eq!(content["expiresAt"], claims.expires_ms);
    assert!((59_000..=60_000).contains(&(claims.expires_ms - now_ms())));
    let many = format!(r#"{{"userId":"b","perms":[{:?}]}}"#, "p".repeat(4000));
    for bad in [
        "{}",
        r#"{"userId":"a b"}"#,
        r#"{"userId":"a","ttlSecs":0}"#,
        r#"{"userId":"a","ttlSecs":315360001}"#,
        r#"{"userId":"a","ttlSecs":-1}"#,
        r#"{"userId":"a","perms":[""]}"#,
        r#"{"userId":"a","perms":["a:b"]}"#,
        r#"{"userId":"a","perms":["a,b"]}"#,
        &many,
    ] {
        assert_eq!(rig.post("/api/v1/tokens", bad).shaped(), 400, "{bad}");
    }
    assert_eq!(
        rig.post("/api/v1/tokens", r#"{"userId":"a","ttlSecs":315360000}"#)
            .shaped(),
        200
    );
    let open = Rig::with(None, Auth::None);
    let reply = open.post("/api/v1/tokens", r#"{"userId":"a"}"#);
    assert_eq!(reply.shaped(), 400);
    assert!(reply.body.contains("none"));
    let keys = JwtKeys::parse(JwtAlgorithm::Hs256, KEY, None, None).unwrap();
    let foreign = Rig::with(None, Auth::Jwt(keys));
    let reply = foreign.post("/api/v1/tokens", r#"{"userId":"a"}"#);
    assert_eq!(reply.shaped(), 400);
    assert!(reply.body.contains("identity provider"));
}
