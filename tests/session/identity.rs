//! Who a client is: proving it late, only once, and not for ever.

use super::rig::feed::Feed;
use super::rig::wire::{Frame, Heard};
use super::rig::{NODE, Peer, Rig};
use super::{error_code, joins};
use serde_json::{Value, json};

fn register(openid: &str, status: &str, token: Option<&str>) -> Value {
    json!({"type": 7, "params": {"openid": openid, "userName": "Rose", "loginStatus": status, "token": token}})
}

fn connet(token: &str) -> Value {
    json!({"path": "connet", "token": token, "requestId": "r1"})
}

#[test]
fn the_connected_notice_says_who_one_is() {
    let mut rig = Rig::new();
    let token = rig.token_until("rose", "Rosé", rig.now.wall_ms + 1000);
    let peer = rig.connect(&format!("/websocket?token={token}"));
    let heard = rig.heard(peer);
    let mut notice = heard[1].json();
    let code = notice["msg"]["userCode"].take();
    assert!(code.as_str().unwrap().len() > 64);
    assert!(!token.contains(code.as_str().unwrap()));
    let id = notice["messageId"].take();
    assert_eq!(id.as_str().unwrap().len(), 32);
    let expected = json!({
        "sessionId": format!("{NODE}_rose_20240102022812"), "to": ["rose"],
        "activeTime": rig.now.wall_ms, "from": "system", "messageId": null, "msgType": 0, "trigger": 2,
        "msg": {"userCode": null, "userId": "rose", "userName": "Rosé", "epoch": "e1", "headSeq": 0},
    });
    assert_eq!(notice, expected);
}

#[test]
fn sessions_of_one_user_in_one_second_have_different_names() {
    let mut rig = Rig::new();
    let token = rig.token("rose");
    let name = |rig: &mut Rig| {
        let peer = rig.connect(&format!("/websocket?token={token}"));
        let notice = rig.heard(peer)[1].json();
        (peer, notice["sessionId"].as_str().unwrap().to_owned())
    };
    let base = format!("{NODE}_rose_20240102022812");
    let (first, id) = name(&mut rig);
    assert_eq!(id, base);
    assert_eq!(name(&mut rig).1, format!("{base}_1"));
    assert_eq!(name(&mut rig).1, format!("{base}_2"));
    rig.hang_up(first);
    assert_eq!(
        name(&mut rig).1,
        format!("{base}_3"),
        "no name is used twice while others of that second live"
    );
    rig.advance_secs(1);
    assert_eq!(name(&mut rig).1, format!("{NODE}_rose_20240102022813"));
    assert_eq!(rig.counts(), (1, 4));
}

#[test]
fn a_session_keeps_its_name_for_life() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    rig.advance_secs(30);
    for status in ["1", "0", "1"] {
        rig.say(rose, register("rose", status, None));
        let answer = rig.messages(rose).pop().unwrap();
        assert_eq!(
            answer["params"]["sessionId"],
            format!("{NODE}_rose_20240102022812")
        );
    }
}

#[test]
fn who_stays_unknown_is_closed_after_sixty_seconds_whatever_it_says() {
    let mut rig = Rig::new();
    let (silent, pinging, beating) = (rig.guest(), rig.guest(), rig.guest());
    for _ in 0..60 {
        rig.say_frame(pinging, &Frame::ping(""));
        rig.say(beating, r#"{"type":11}"#);
        rig.advance_secs(1);
    }
    assert_eq!(
        rig.heard(pinging).len(),
        60,
        "open until the very end of it"
    );
    assert_eq!(rig.messages(beating).len(), 60);
    let heard = rig.heard(silent);
    assert!(
        heard.iter().all(|one| matches!(one, Heard::Ping(_))),
        "{heard:?}"
    );
    rig.advance_ticks(2);
    for peer in [silent, pinging, beating] {
        assert_eq!(rig.close_code(peer), Some(4401));
    }
}

#[test]
fn who_becomes_known_in_time_stays() {
    let mut rig = Rig::new();
    let guest = rig.guest();
    rig.advance_secs(59);
    rig.say(guest, connet(&rig.token("rose")));
    assert_eq!(rig.messages(guest).len(), 2);
    rig.advance_secs(50);
    assert_eq!(rig.heard(guest), []);
}

#[test]
fn connet_and_type_7_with_a_token_bind_first_and_answer_then() {
    for feed in Feed::all() {
        let mut rig = Rig::new();
        rig.feed = feed;
        let token = rig.token("rose");
        let (a, b, c) = (rig.guest(), rig.guest(), rig.guest());
        rig.say(a, connet(&token));
        let heard = rig.messages(a);
        assert_eq!(heard[0]["msgType"], 0);
        let answer = json!({"path": "connet", "requestId": "r1", "success": true, "statusCode": 200,
            "content": null, "msg": "操作成功"});
        assert_eq!(heard[1..], [answer]);
        rig.say(b, json!({"path": "connect", "token": token}));
        assert_eq!(rig.messages(b)[1]["path"], "connect");
        rig.say(c, register("rose", "1", Some(&token)));
        let heard = rig.messages(c);
        assert_eq!(heard[0]["msgType"], 0);
        let params = json!({"openid": "rose", "userName": "Rose", "loginStatus": "1",
            "sessionId": format!("{NODE}_rose_20240102022812_2"), "epoch": "e1", "headSeq": 0});
        assert_eq!(
            heard[1..],
            [json!({"type": 8, "status": 200, "params": params})]
        );
        assert_eq!(rig.counts(), (1, 3));
    }
}

#[test]
fn a_bad_token_later_is_an_error_and_the_end() {
    let mut rig = Rig::new();
    for bad in [connet("bad"), register("rose", "1", Some("bad"))] {
        let guest = rig.guest();
        rig.say(guest, bad);
        let heard = rig.heard(guest);
        assert_eq!(error_code(&heard[0].json()), 401);
        assert!(matches!(heard[1], Heard::Close(Some(4401), _)));
    }
}

#[test]
fn before_authentication_the_third_frame_that_needs_it_ends_the_connection() {
    let mut rig = Rig::new();
    let says = [
        json!({"to": "bob", "msg": 1}),
        register("rose", "1", None),
        json!({"path": "order/new", "requestId": "r"}),
    ];
    let guest = rig.guest();
    for (nth, say) in says.iter().enumerate() {
        rig.say(guest, r#"{"type":11}"#);
        rig.say(guest, say);
        let heard = rig.heard(guest);
        assert_eq!(heard[0].json()["type"], 12, "a heartbeat is no fault");
        assert_eq!(error_code(&heard[1].json()), 401);
        assert_eq!(
            matches!(heard.get(2), Some(Heard::Close(Some(1008), _))),
            nth == 2
        );
    }
}

#[test]
fn faults_before_authentication_are_forgiven_after_it() {
    let mut rig = Rig::new();
    let guest = rig.guest();
    rig.say(guest, "{}");
    rig.say(guest, r#"{"to":"bob","msg":1}"#);
    rig.say(guest, connet(&rig.token("rose")));
    assert_eq!(rig.messages(guest).len(), 4);
    rig.say(guest, "{}");
    rig.say(guest, "{}");
    assert_eq!(rig.messages(guest).len(), 2);
}

#[test]
fn openid_must_be_the_tokens_user() {
    let mut rig = Rig::new();
    let (token, guest) = (rig.token("rose"), rig.guest());
    let answer = rig.ask(guest, register("eve", "1", Some(&token)));
    assert_eq!(error_code(&answer), 403);
    let body = json!({"path": "connet", "token": token, "body": {"openid": "eve"}});
    assert_eq!(error_code(&rig.ask(guest, body)), 403);
    assert_eq!(rig.counts(), (0, 0));
    let rose = rig.user("rose");
    for token in [None, Some(token.as_str())] {
        assert_eq!(error_code(&rig.ask(rose, register("eve", "1", token))), 403);
    }
    assert_eq!(rig.ask(rose, register("rose", "1", None))["type"], 8);
}

#[test]
fn a_second_identity_ends_the_connection() {
    let mut rig = Rig::new();
    let eve = rig.token("eve");
    for say in [
        connet(&eve),
        register("eve", "1", Some(&eve)),
        register("rose", "1", Some(&eve)),
    ] {
        let rose = rig.user("rose");
        rig.say(rose, say);
        assert!(matches!(rig.heard(rose)[..], [Heard::Close(Some(1008), _)]));
    }
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn a_user_may_leave_without_hanging_up_and_come_back() {
    let mut rig = Rig::new();
    let (rose, bob) = (rig.user("rose"), rig.user("bob"));
    let answer = rig.ask(rose, register("rose", "0", None));
    assert_eq!(
        (&answer["type"], &answer["params"]["loginStatus"]),
        (&json!(8), &json!("0"))
    );
    assert_eq!(rig.counts(), (1, 1));
    assert_eq!(
        error_code(&rig.ask(bob, r#"{"to":"rose","msg":"hi"}"#)),
        404
    );
    assert_eq!(rig.heard(rose), []);
    rig.advance_secs(65);
    assert_eq!(
        rig.ask_quietly(rose, r#"{"type":11}"#)["type"],
        12,
        "open and authenticated"
    );
    let answer = rig.ask(rose, register("rose", "1", None));
    assert_eq!(
        (&answer["type"], &answer["params"]["headSeq"]),
        (&json!(8), &json!(0)),
        "it was greeted when it came"
    );
    rig.say(bob, r#"{"to":"rose","msg":"hi"}"#);
    assert_eq!(rig.messages(rose)[0]["msg"], "hi");
    assert_eq!(rig.counts(), (2, 2));
}

#[test]
fn type_7_gives_a_name_that_later_answers_carry() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    let answer = rig.ask(rose, register("rose", "1", None));
    assert_eq!(answer["params"]["userName"], "Rose");
    let long = json!({"type": 7, "params": {"openid": "rose", "userName": "n".repeat(65)}});
    assert_eq!(error_code(&rig.ask(rose, long)), 400);
    for status in ["0", "1"] {
        let params = json!({"openid": "rose", "loginStatus": status});
        let answer = rig.ask(rose, json!({"type": 7, "params": params}));
        assert_eq!(answer["params"]["userName"], "Rose");
    }
}

#[test]
fn connet_gives_a_name_as_type_7_does() {
    let mut rig = Rig::new();
    let (rose, guest) = (rig.user("rose"), rig.guest());
    let connet = |token: &str, name: &str| {
        let body = json!({"userName": name});
        json!({"path": "connet", "token": token, "body": body, "requestId": "r"})
    };
    let token = rig.token_until("lily", "Lily", rig.now.wall_ms + 1000);
    rig.say(guest, connet(&token, "Lil"));
    let heard = rig.messages(guest);
    assert_eq!(heard[1]["success"], true);
    assert_eq!(rig.ask(rose, connet("", "Ro"))["statusCode"], 401);
    let token = rig.token("rose");
    assert_eq!(rig.ask(rose, connet(&token, "Rosie"))["success"], true);
    let rename = json!({"path": "connect", "body": {"userName": "Ro"}});
    assert_eq!(
        rig.ask(rose, rename)["success"],
        true,
        "without a token too"
    );
    let group = json!({"type": 3, "params": {"groupId": "g", "userIdList": "lily"}});
    assert_eq!(rig.ask(rose, group)["nameList"], json!(["Ro", "Lil"]));
    let long = connet(&token, &"n".repeat(65));
    assert_eq!(error_code(&rig.ask(rose, long)), 400);
    let late = rig.guest();
    rig.say(late, connet(&token, &"n".repeat(65)));
    let heard = rig.messages(late);
    assert_eq!(heard[0]["msg"]["userId"], "rose", "bound all the same");
    assert_eq!((heard.len(), error_code(&heard[1])), (2, 400));
}

#[test]
fn why_a_token_is_refused_is_told_to_the_log_alone() {
    let mut rig = Rig::new();
    let expired = rig.token_until("rose", "", rig.now.wall_ms);
    let forged = format!("{}A", &rig.token("rose")[..rig.token("rose").len() - 1]);
    for token in [expired.as_str(), &forged, "nonsense"] {
        let peer = rig.connect(&format!("/websocket?token={token}"));
        assert_eq!(super::status(&mut rig, peer), 401);
        let guest = rig.guest();
        let said = connet(token);
        rig.say(guest, said);
        let answer = rig.heard(guest)[0].json();
        assert_eq!(answer["msg"], "the token is refused");
    }
    let rose = rig.user("rose");
    assert_eq!(error_code(&rig.ask(rose, connet(&expired))), 401);
    use throng::session::auth::TokenError::{Expired, Malformed};
    let why = &rig.desk.refused_tokens;
    assert_eq!(why[..2], [Expired, Expired]);
    assert_eq!(why[4..], [Malformed, Malformed, Expired]);
}

#[test]
fn without_tokens_one_is_who_one_says() {
    let mut rig = Rig::without_tokens();
    let asked = rig.connect("/websocket?openid=rose&token=ignored");
    assert_eq!(rig.heard(asked)[1].json()["msg"]["userId"], "rose");
    let says = [
        json!({"path": "connet", "body": {"openid": "rose"}, "token": "ignored"}),
        register("rose", "1", Some("ignored")),
    ];
    for say in says {
        let guest = rig.guest();
        rig.say(guest, say);
        assert_eq!(rig.messages(guest)[0]["msg"]["userId"], "rose");
    }
    assert_eq!(rig.counts(), (1, 3));
    let guest = rig.guest();
    assert_eq!(error_code(&rig.ask(guest, connet("ignored"))), 401);
    assert_eq!(
        error_code(&rig.ask(guest, register("no id", "1", None))),
        400
    );
    let peer = rig.connect("/websocket?openid=no+id");
    assert_eq!(super::status(&mut rig, peer), 400);
    rig.say(asked, register("eve", "1", None));
    assert_eq!(
        rig.close_code(asked),
        Some(1008),
        "a second identity ends it here too"
    );
}

#[test]
fn without_tokens_no_foreign_page_gets_in() {
    let mut rig = Rig::without_tokens();
    for (origin, expected) in [
        ("http://localhost:3000", 101),
        ("https://example.org", 403),
        ("null", 403),
    ] {
        let peer = rig.connect_with("/websocket", &format!("Origin: {origin}\r\n"));
        assert_eq!(super::status(&mut rig, peer), expected, "{origin}");
    }
}

/// A user whose token ends in `secs`.
fn user_for(rig: &mut Rig, secs: u64) -> Peer {
    let token = rig.token_until("rose", "", rig.now.wall_ms + secs * 1000);
    let peer = rig.connect(&format!("/websocket?token={token}"));
    rig.heard(peer);
    peer
}

#[test]
fn a_token_that_ends_on_a_live_connection_ends_it() {
    let mut rig = Rig::new();
    let rose = user_for(&mut rig, 100);
    for _ in 0..9 {
        rig.ask(rose, r#"{"type":11}"#);
        rig.advance_secs(11);
    }
    rig.advance_ticks(9);
    assert_eq!(rig.heard(rose), [], "not before its time");
    rig.advance_ticks(2);
    assert_eq!(rig.close_code(rose), Some(4401));
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn a_long_token_ends_as_a_short_one_does() {
    let mut rig = Rig::with(|rules| rules.limits.ping_secs = 0);
    rig.rules.limits.idle_secs = 0;
    let rose = user_for(&mut rig, 100_000);
    rig.advance_secs(99_999);
    assert_eq!(rig.heard(rose), []);
    rig.advance_secs(2);
    assert_eq!(rig.close_code(rose), Some(4401));
}

#[test]
fn a_newer_token_of_the_same_user_wins_time() {
    let mut rig = Rig::new();
    let rose = user_for(&mut rig, 100);
    let first = rig.token_until("rose", "", rig.now.wall_ms + 200_000);
    let answer = rig.ask(rose, connet(&first));
    assert_eq!(answer["success"], true);
    rig.advance_secs(150);
    let second = rig.token_until("rose", "", rig.now.wall_ms + 150_000);
    rig.say(rose, register("rose", "1", Some(&second)));
    rig.advance_secs(149);
    assert_ne!(rig.close_code(rose), Some(4401));
    rig.advance_secs(2);
    assert_eq!(rig.close_code(rose), Some(4401));
}

#[test]
fn a_wall_clock_that_steps_ends_tokens_and_nothing_else() {
    let mut rig = Rig::new();
    let (short, guest) = (user_for(&mut rig, 1000), rig.guest());
    rig.step_wall_secs(-86_400);
    rig.advance_secs(59);
    assert_eq!(rig.heard(guest), []);
    rig.step_wall_secs(2 * 86_400);
    rig.say(short, r#"{"type":11}"#);
    rig.advance_ticks(1);
    assert_eq!(rig.close_code(short), Some(4401));
    assert_eq!(rig.heard(guest), []);
    rig.advance_secs(2);
    assert_eq!(rig.close_code(guest), Some(4401));
}

#[test]
fn a_user_code_is_each_sessions_own() {
    let mut rig = Rig::new();
    let (_, first) = joins(&mut rig, "rose");
    let (_, second) = joins(&mut rig, "rose");
    let (_, other) = joins(&mut rig, "eve");
    assert!(first != second && second != other && first != other);
}
