//! What bound clients say to each other and to the node.

use super::rig::feed::Feed;
use super::rig::wire::Frame;
use super::rig::{NODE, Rig};
use super::{error_code, joins};
use serde_json::json;

#[test]
fn a_direct_frame_reaches_every_session_of_a_user() {
    for feed in Feed::all() {
        let mut rig = Rig::new();
        let (alice, first, second) = (rig.user("alice"), rig.user("bob"), rig.user("bob"));
        rig.feed = feed;
        rig.say(
            alice,
            r#"{"from":"mallory","to":"bob","msg":{"a":[1.50,"é"]},"msgType":1,"requestId":"r1"}"#,
        );
        assert_eq!(rig.heard(alice), [], "no receipt");
        for (bob, suffix) in [(first, ""), (second, "_1")] {
            let mut push = rig.messages(bob).remove(0);
            assert_eq!(push["messageId"].take().as_str().unwrap().len(), 32);
            let expected = json!({
                "sessionId": format!("{NODE}_bob_20240102022812{suffix}"), "to": ["bob"],
                "activeTime": rig.now.wall_ms, "from": "alice", "messageId": null,
                "msg": {"a": [1.50, "é"]}, "msgType": 1, "requestId": "r1", "trigger": 2,
            });
            assert_eq!(push, expected, "the sender is the session's user");
        }
    }
}

#[test]
fn receivers_may_be_a_text_a_list_with_commas_or_an_array() {
    for to in [r#""bob,eve""#, r#"" bob , eve ,""#, r#"["bob","eve"]"#] {
        let mut rig = Rig::new();
        let (alice, bob, eve) = (rig.user("alice"), rig.user("bob"), rig.user("eve"));
        rig.say(alice, format!(r#"{{"to":{to},"msg":null}}"#));
        for (peer, uid) in [(bob, "bob"), (eve, "eve")] {
            let messages = rig.messages(peer);
            assert_eq!(messages.len(), 1, "{to}");
            assert_eq!(messages[0]["to"], json!([uid]));
        }
    }
}

#[test]
fn a_user_code_reaches_that_session_only() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let ((first, code), (second, _)) = (joins(&mut rig, "bob"), joins(&mut rig, "bob"));
    let frame = json!({"to": code, "msg": "only you"});
    rig.say(alice, &frame);
    assert_eq!(rig.messages(first)[0]["msg"], "only you");
    assert_eq!((rig.heard(second), rig.heard(alice)), (vec![], vec![]));
    rig.hang_up(first);
    assert_eq!(
        error_code(&rig.ask(alice, &frame)),
        404,
        "it ends with its connection"
    );
    let forged = format!("{}A", &code[..code.len() - 1]);
    assert_eq!(
        error_code(&rig.ask(alice, json!({"to": forged, "msg": 1}))),
        404
    );
}

#[test]
fn one_may_write_to_oneself() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    assert_eq!(rig.ask(alice, r#"{"to":"alice","msg":1}"#)["from"], "alice");
}

#[test]
fn who_is_not_there_is_named_and_the_others_are_reached() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    let answer = rig.ask(
        alice,
        r#"{"to":["ann","bob","cid"],"msg":1,"requestId":"r7"}"#,
    );
    assert_eq!(answer["msgType"], -1);
    assert_eq!(answer["resultMsg"], "nobody is there: ann,cid");
    assert_eq!(
        (&answer["params"]["code"], &answer["params"]["ref"]),
        (&json!(404), &json!("r7"))
    );
    assert_eq!(rig.messages(bob).len(), 1);
}

#[test]
fn a_way_that_is_full_is_an_error() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    rig.desk.courier.is_jammed = true;
    assert_eq!(error_code(&rig.ask(alice, r#"{"to":"bob","msg":1}"#)), 503);
    assert_eq!(rig.heard(bob), []);
}

#[test]
fn one_message_has_a_thousand_receivers_at_most() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let to = |count: usize| json!({"to": vec!["alice"; count], "msg": 1});
    rig.say(alice, to(1000));
    assert_eq!(rig.messages(alice).len(), 1, "named often, meant once");
    assert_eq!(error_code(&rig.ask(alice, to(1001))), 400);
}

#[test]
fn a_session_has_no_inbox_so_a_user_code_takes_no_msgid() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, code) = joins(&mut rig, "bob");
    for to in [json!(code), json!(["bob", code]), json!("no id")] {
        for _ in 0..3 {
            let answer = rig.ask(alice, json!({"to": to, "msg": "hi", "msgid": "m1"}));
            assert_eq!(answer["msgType"], -1);
            assert_eq!(
                (error_code(&answer), &answer["params"]["ref"]),
                (400, &json!("m1"))
            );
        }
    }
    assert_eq!(rig.heard(bob), []);
    assert_eq!(
        rig.ask(alice, r#"{"type":11}"#)["type"],
        12,
        "it is an error, no fault"
    );
}

#[test]
fn what_is_not_served_is_404_in_its_family() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    for say in [
        r#"{"path":"group/other"}"#,
        r#"{"path":"order/new","body":5}"#,
    ] {
        assert_eq!(error_code(&rig.ask(alice, say)), 404, "{say}");
    }
}

#[test]
fn a_heartbeat_is_answered_in_the_form_it_has() {
    let mut rig = Rig::new();
    let (alice, guest) = (rig.user("alice"), rig.guest());
    let date = "Tue Jan 02 02:28:12 UTC 2024";
    let now = rig.now.wall_ms;
    for peer in [alice, guest] {
        let mut params = json!({"date": date});
        let mut direct = json!({"activeTime": now, "from": "system", "msgType": 4, "trigger": 2});
        if peer == alice {
            // Who has an inbox hears how far it goes.
            params["headSeq"] = 0.into();
            direct["headSeq"] = 0.into();
        }
        let command = json!({"type": 12, "status": 200, "params": params});
        let mut named = direct.clone();
        named["requestId"] = "r".into();
        let route = json!({"path": "ping", "requestId": "r", "success": true, "statusCode": 200,
            "content": "pong", "msg": "操作成功"});
        for (say, answer) in [
            (r#"{"type":11}"#, &command),
            (r#"{"type":"11","params":{}}"#, &command),
            (r#"{"type":11,"params":null,"x":[1]}"#, &command),
            (r#"{"msgType":3}"#, &direct),
            (r#"{"msgType":"3","from":"me","to":null}"#, &direct),
            (r#"{"msgType":3,"requestId":"r"}"#, &named),
            (r#"{"path":"ping","requestId":"r"}"#, &route),
        ] {
            assert_eq!(&rig.ask(peer, say), answer, "{say}");
        }
    }
}

#[test]
fn a_field_that_is_null_is_a_field_that_is_not_there() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    rig.say(alice, r#"{"path":null,"type":null,"to":"bob","msg":"hi","msgType":null,"msgid":null,"requestId":null}"#);
    assert_eq!(rig.messages(bob)[0]["msg"], "hi");
    assert_eq!(rig.heard(alice), []);
    let register =
        r#"{"type":7,"params":{"openid":null,"userName":null,"loginStatus":null,"token":null}}"#;
    assert_eq!(rig.ask(alice, register)["type"], 8);
}

#[test]
fn the_third_malformed_frame_ends_the_connection() {
    let malformed = [
        "",
        "hello",
        "[]",
        "{}",
        "7",
        r#"{"type":11"#,
        r#"{"type":11}}"#,
        r#"{"type":99}"#,
        r#"{"type":true}"#,
        r#"{"type":11.5}"#,
        r#"{"msgType":9}"#,
        r#"{"to":"bob"}"#,
        r#"{"msgType":1,"to":"bob"}"#,
        r#"{"msgType":1,"msg":"hi"}"#,
        r#"{"to":"","msg":"hi"}"#,
        r#"{"to":[],"msg":"hi"}"#,
        r#"{"to":[7],"msg":"hi"}"#,
        r#"{"to":{"a":1},"msg":"hi"}"#,
        r#"{"type":7,"params":{"openid":5}}"#,
        r#"{"type":7,"params":{"loginStatus":"2"}}"#,
        r#"{"path":"connet","token":true}"#,
    ];
    for say in malformed {
        let mut rig = Rig::new();
        let alice = rig.user("alice");
        for _ in 0..2 {
            assert_eq!(error_code(&rig.ask(alice, say)), 400, "{say}");
            assert_eq!(rig.ask(alice, r#"{"type":11}"#)["type"], 12);
        }
        rig.say(alice, say);
        let heard = rig.heard(alice);
        assert_eq!(heard.len(), 2, "{say}");
        assert_eq!(error_code(&heard[0].json()), 400);
        assert_eq!(rig.counts(), (0, 0), "{say}");
        assert!(
            matches!(heard[1], super::Heard::Close(Some(1008), _)),
            "{say}"
        );
    }
}

#[test]
fn json_may_be_nested_as_deep_as_the_limit() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"type":11,"x":{open}{close}}}"#)
    };
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    for depth in [31, 32] {
        assert_eq!(rig.ask(alice, nested(depth))["type"], 12);
    }
    assert_eq!(error_code(&rig.ask(alice, nested(33))), 400);
}

#[test]
fn nothing_reaches_who_has_left_or_is_leaving() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    rig.say_frame(bob, &super::rig::wire::Frame::close(1000, ""));
    rig.heard(bob);
    assert_eq!(error_code(&rig.ask(alice, r#"{"to":"bob","msg":1}"#)), 404);
    rig.hang_up(bob);
    assert_eq!(rig.heard(bob), []);
    assert_eq!(rig.counts(), (1, 1));
}

#[test]
fn a_trace_shows_the_clients_own_close() {
    let mut rig = Rig::new();
    let (rose, bob) = (rig.user("rose"), rig.user("bob"));
    rig.desk.is_tracing = true;
    rig.say_frame(rose, &Frame::close(1000, "bye"));
    rig.say_frame(bob, &Frame::close(4000, ""));
    let closed = |detail: &str| ("closed", detail.to_owned());
    let expected = [closed("1000 by the client"), closed("4000 by the client")];
    assert_eq!(rig.desk.traced, expected);
}

#[test]
fn a_bad_user_of_a_group_is_blamed_and_not_the_group() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    let params = json!({"groupId": "g", "userIdList": ["bob", "a b"]});
    let says = [
        json!({"type": 3, "params": params}),
        json!({"type": 14, "params": params}),
        json!({"path": "group/create", "body": params}),
        json!({"path": "group/join", "body": params}),
    ];
    for say in says {
        let error = rig.ask(rose, &say);
        assert_eq!(error_code(&error), 400);
        let text = error.to_string();
        assert!(text.contains(r#"userIdList names \"a b\","#), "{text}");
    }
}
