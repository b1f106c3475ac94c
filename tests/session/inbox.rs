//! How an inbox reaches the connections of its user.

use super::error_code;
use super::rig::wire::{Frame, Heard};
use super::rig::{Peer, Rig};
use serde_json::{Value, json};
use throng::inbox::Ring;

/// A connection of `uid` with more in its query than the token, and the notice that greets it.
fn come(rig: &mut Rig, uid: &str, query: &str) -> (Peer, Value, Vec<Value>) {
    let peer = rig.connect(&format!("/websocket?token={}{query}", rig.token(uid)));
    let mut heard = messages(rig, peer);
    let notice = heard.remove(0);
    assert_eq!(notice["msgType"], 0, "{notice}");
    (peer, notice, heard)
}

fn chat(rig: &mut Rig, from: Peer, to: &str, text: impl ToString) -> Value {
    let params = json!({"toMessageId": to, "message": text.to_string()});
    let receipt = ask(rig, from, &json!({"type": 1, "params": params}));
    assert_eq!(receipt["type"], 0, "{receipt}");
    receipt["params"]["messageId"].clone()
}

fn register(uid: &str, status: &str) -> Value {
    json!({"type": 7, "params": {"openid": uid, "loginStatus": status}})
}

fn acknowledge(rig: &mut Rig, peer: Peer, id: &Value) -> Vec<Value> {
    rig.say(peer, json!({"type": 15, "params": {"msgid": id}}));
    let mut heard = messages(rig, peer);
    let answer = heard.remove(0);
    assert_eq!(
        (&answer["type"], &answer["params"]["message"]),
        (&json!(16), id)
    );
    assert_eq!(answer["status"], 200, "{answer}");
    heard
}

fn seqs(messages: &[Value]) -> Vec<u64> {
    let seq = |message: &Value| {
        message["seq"]
            .as_u64()
            .unwrap_or_else(|| panic!("{message}"))
    };
    messages.iter().map(seq).collect()
}

/// What was said, without pings.
fn messages(rig: &mut Rig, peer: Peer) -> Vec<Value> {
    listen(rig, peer).0
}

/// Says something that has exactly one answer.
fn ask(rig: &mut Rig, peer: Peer, say: &Value) -> Value {
    rig.say(peer, say);
    let mut heard = messages(rig, peer);
    assert_eq!(heard.len(), 1, "{heard:?}");
    heard.remove(0)
}

/// Messages and the payloads of pings, apart.
fn listen(rig: &mut Rig, peer: Peer) -> (Vec<Value>, Vec<Vec<u8>>) {
    let (mut messages, mut pings) = (Vec::new(), Vec::new());
    for heard in rig.heard(peer) {
        match heard {
            Heard::Http(101, _) => {}
            Heard::Text(_) => messages.push(heard.json()),
            Heard::Ping(payload) => pings.push(payload),
            other => panic!("{other:?}"),
        }
    }
    (messages, pings)
}

#[test]
fn what_is_sent_to_who_is_away_waits_and_comes_once_and_in_order() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let ids: Vec<Value> = (1..=3).map(|n| chat(&mut rig, alice, "bob", n)).collect();
    let (bob, notice, entries) = come(&mut rig, "bob", "&ack=1");
    assert_eq!(
        (&notice["msg"]["epoch"], &notice["msg"]["headSeq"]),
        (&json!("e1"), &json!(3))
    );
    assert_eq!(seqs(&entries), [1, 2, 3]);
    for (entry, id) in entries.iter().zip(&ids) {
        assert_eq!((&entry["messageId"], &entry["epoch"]), (id, &json!("e1")));
        assert!(entry.get("redelivered").is_none(), "{entry}");
    }
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(acknowledge(&mut rig, bob, id), [Value::Null; 0]);
        let delivered = messages(&mut rig, alice);
        assert_eq!(seqs(&delivered), [n as u64 + 1]);
        let msg = &delivered[0]["msg"];
        assert_eq!((&msg["type"], &msg["status"]), (&json!(17), &json!(200)));
        assert_eq!(msg["params"], json!({"messageId": id, "toUser": "bob"}));
    }
    rig.hang_up(bob);
    assert_eq!(come(&mut rig, "bob", "").2, [Value::Null; 0]);
}

#[test]
fn an_acknowledgement_is_answered_as_often_as_it_comes_and_begets_one_17() {
    let mut rig = Rig::new();
    let (alice, bob, eve) = (rig.user("alice"), rig.user("bob"), rig.user("eve"));
    let id = chat(&mut rig, alice, "bob", "hi");
    rig.heard(bob);
    for say in [
        json!({"type": 15, "params": {"from": "client", "msgid": id, "fromUser": "bob", "toUser": "alice"}}),
        json!({"msgType": 2, "messageId": id}),
        json!({"type": 15, "params": {"msgids": [id]}}),
    ] {
        let forged = ask(&mut rig, eve, &say);
        assert_eq!(
            (&forged["type"], &forged["status"]),
            (&json!(16), &json!(404))
        );
    }
    assert_eq!(
        messages(&mut rig, alice),
        [Value::Null; 0],
        "nobody has got it"
    );
    for n in 0..3 {
        for say in [
            json!({"type": 15, "params": {"msgid": id}}),
            json!({"msgType": 2, "messageId": id}),
            json!({"type": 15, "params": {"msgids": [id]}}),
        ] {
            let answer = ask(&mut rig, bob, &say);
            assert_eq!(
                (&answer["type"], &answer["status"]),
                (&json!(16), &json!(200)),
                "{n}"
            );
        }
    }
    let heard = messages(&mut rig, alice);
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["msg"]["params"]["messageId"], id);
}

#[test]
fn a_window_is_64_entries_from_the_oldest_that_is_not_acknowledged() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    let ids: Vec<Value> = (0..140).map(|n| chat(&mut rig, alice, "bob", n)).collect();
    assert_eq!(seqs(&messages(&mut rig, bob)), (1..=64).collect::<Vec<_>>());
    assert_eq!(
        acknowledge(&mut rig, bob, &ids[1]),
        [Value::Null; 0],
        "the oldest stays"
    );
    let next = acknowledge(&mut rig, bob, &ids[0]);
    assert_eq!(seqs(&next), [65, 66]);
    rig.say(bob, json!({"type": 15, "params": {"upTo": "e1:66"}}));
    let heard = messages(&mut rig, bob);
    assert_eq!(heard[0]["status"], 200);
    assert_eq!(seqs(&heard[1..]), (67..=130).collect::<Vec<_>>());
    rig.say(
        bob,
        json!({"path": "message/ack", "body": {"upTo": "e1:130"}, "requestId": "r"}),
    );
    let heard = messages(&mut rig, bob);
    assert_eq!(
        (&heard[0]["path"], &heard[0]["success"]),
        (&json!("message/ack"), &json!(true))
    );
    assert_eq!(seqs(&heard[1..]), (131..=140).collect::<Vec<_>>());
    let delivered = messages(&mut rig, alice);
    assert_eq!(delivered.len(), 130, "each once");
}

#[test]
fn types_17_take_no_place_in_the_window_and_are_never_waited_for() {
    let mut rig = Rig::new();
    let (alice, ..) = come(&mut rig, "alice", "&ack=1");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    for n in 0..100 {
        let id = chat(&mut rig, alice, "bob", n);
        rig.heard(bob);
        acknowledge(&mut rig, bob, &id);
        assert_eq!(seqs(&messages(&mut rig, alice)), [n + 1]);
    }
    let back: Vec<Value> = (0..64).map(|n| chat(&mut rig, bob, "alice", n)).collect();
    assert_eq!(
        seqs(&messages(&mut rig, alice)),
        (101..=164).collect::<Vec<_>>()
    );
    for id in &back {
        acknowledge(&mut rig, alice, id);
    }
    // 17s that nobody acknowledges are no reason to close.
    rig.heard(bob);
    rig.advance_secs(120);
    let ends = rig.heard(bob).into_iter().chain(rig.heard(alice));
    assert!(
        !ends
            .into_iter()
            .any(|heard| matches!(heard, Heard::Close(..)))
    );
}

#[test]
fn who_acknowledges_and_then_does_not_for_90_seconds_is_closed_4431() {
    for query in ["&ack=1", "&cursor=e1:0", ""] {
        let mut rig = Rig::new();
        let alice = rig.user("alice");
        let (bob, ..) = come(&mut rig, "bob", query);
        let first = chat(&mut rig, alice, "bob", "1");
        rig.heard(bob);
        if query.is_empty() {
            // The first acknowledgement says it too.
            acknowledge(&mut rig, bob, &first);
            messages(&mut rig, alice);
            chat(&mut rig, alice, "bob", "2");
        }
        rig.advance_secs(89);
        rig.say(bob, r#"{"type":11}"#);
        assert!(
            !rig.heard(bob)
                .iter()
                .any(|heard| matches!(heard, Heard::Close(..))),
            "{query}"
        );
        rig.advance_secs(2);
        assert_eq!(rig.close_code(bob), Some(4431), "{query}");
    }
}

#[test]
fn a_plain_client_passes_what_was_sent_before_the_ping_that_it_answers() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "");
    for n in 0..100 {
        chat(&mut rig, alice, "bob", n);
    }
    let (entries, pings) = listen(&mut rig, bob);
    assert_eq!(
        seqs(&entries),
        (1..=100).collect::<Vec<_>>(),
        "there is no window"
    );
    assert_eq!(pings.len(), 1, "one is outstanding");
    // What nobody asked for passes nothing.
    rig.say_frame(bob, &Frame::pong("passed 100"));
    rig.say_frame(bob, &Frame::pong(""));
    rig.hang_up(bob);
    let (bob, _, entries) = come(&mut rig, "bob", "");
    assert_eq!(seqs(&entries), (1..=100).collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry["redelivered"] == true));
    let mut asked = 0;
    // The first one went while its greeting was heard.
    rig.say_frame(bob, &Frame::pong("passed 64"));
    for _ in 0..5 {
        rig.advance_secs(1);
        for ping in listen(&mut rig, bob).1 {
            asked += 1;
            rig.say_frame(bob, &Frame::pong(ping));
        }
    }
    assert_eq!(asked, 1, "nothing is left to ask");
    assert_eq!(
        messages(&mut rig, alice),
        [Value::Null; 0],
        "a pong begets no 17"
    );
    rig.hang_up(bob);
    let (_, notice, entries) = come(&mut rig, "bob", "");
    assert_eq!((entries.len(), &notice["msg"]["headSeq"]), (0, &json!(100)));
}

#[test]
fn a_plain_client_is_asked_once_a_second_at_most_however_busy_it_is() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "");
    let mut pings = 0;
    for n in 0..50 {
        chat(&mut rig, alice, "bob", n);
        for payload in listen(&mut rig, bob).1 {
            pings += 1;
            rig.say_frame(bob, &Frame::pong(payload));
        }
        rig.advance_ticks(1);
    }
    let secs = 50 / throng::parts::time::TICKS_PER_SEC as usize;
    assert!((1..=secs + 1).contains(&pings), "{pings} in {secs} s");
}

#[test]
fn a_cursor_acknowledges_everything_up_to_it_and_begets_the_17s() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    for n in 0..5 {
        chat(&mut rig, alice, "bob", n);
    }
    let (bob, _, entries) = come(&mut rig, "bob", "&ack=1");
    assert_eq!(entries.len(), 5);
    rig.hang_up(bob);
    let (bob, _, entries) = come(&mut rig, "bob", "&cursor=e1:3");
    assert_eq!(seqs(&entries), [4, 5]);
    assert!(entries.iter().all(|entry| entry["redelivered"] == true));
    assert_eq!(messages(&mut rig, alice).len(), 3);
    rig.hang_up(bob);
    let (_, _, entries) = come(&mut rig, "bob", "");
    assert_eq!(seqs(&entries), [4, 5], "the node remembers");
}

#[test]
fn a_cursor_may_come_with_connet() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    for n in 0..3 {
        chat(&mut rig, alice, "bob", n);
    }
    let guest = rig.guest();
    let token = rig.token("bob");
    rig.say(
        guest,
        json!({"path": "connet", "token": token, "body": {"cursor": "e1:2"}}),
    );
    let heard = messages(&mut rig, guest);
    assert_eq!(
        (&heard[0]["msgType"], &heard[1]["path"]),
        (&json!(0), &json!("connet"))
    );
    assert_eq!(seqs(&heard[2..]), [3]);
    let bad = rig.guest();
    rig.say(
        bad,
        json!({"path": "connet", "token": token, "body": {"cursor": "nonsense"}}),
    );
    assert_eq!(error_code(&messages(&mut rig, bad)[0]), 400);
    assert!(!rig.is_bound(bad), "nothing of it is done");
    rig.say(bad, json!({"path": "connet", "token": token}));
    assert_eq!(seqs(&messages(&mut rig, bad)[2..]), [3]);
    // On a connection that is bound it says how far its application has got.
    assert_eq!(messages(&mut rig, alice).len(), 2, "17s");
    chat(&mut rig, alice, "bob", "last");
    let connet = |cursor: &str| json!({"path": "connet", "body": {"cursor": cursor}});
    let answers = [guest, bad].map(|peer| {
        rig.say(peer, connet("e1:4"));
        messages(&mut rig, peer)
    });
    for mut heard in answers {
        assert_eq!(heard.pop().unwrap()["success"], true);
        assert_eq!(seqs(&heard), [4]);
    }
    assert_eq!(messages(&mut rig, alice).len(), 2, "and two more");
    assert_eq!(error_code(&ask(&mut rig, guest, &connet("e1"))), 400);
}

#[test]
fn a_cursor_that_does_not_fit_is_told_and_what_there_is_comes_from_where_the_device_was() {
    for cursor in ["e2:1", "e1:99"] {
        let mut rig = Rig::new();
        let alice = rig.user("alice");
        let (bob, ..) = come(&mut rig, "bob", "&ack=1");
        let ids: Vec<Value> = (0..3).map(|n| chat(&mut rig, alice, "bob", n)).collect();
        rig.heard(bob);
        acknowledge(&mut rig, bob, &ids[0]);
        rig.heard(alice);
        rig.hang_up(bob);
        let (bob, _, heard) = come(&mut rig, "bob", &format!("&cursor={cursor}"));
        let notice = &heard[0];
        let resync = json!({"event": "resync", "epoch": "e1", "headSeq": 3, "from": 2});
        assert_eq!(
            (&notice["msgType"], &notice["msg"]),
            (&json!(0), &resync),
            "{cursor}"
        );
        assert_eq!(notice["messageId"].as_str().unwrap().len(), 32);
        assert_eq!(notice["activeTime"], rig.now.wall_ms);
        assert_eq!(seqs(&heard[1..]), [2, 3]);
        assert_eq!(
            messages(&mut rig, alice),
            [Value::Null; 0],
            "it acknowledges nothing"
        );
        let params = json!({"upTo": cursor});
        let answer = ask(&mut rig, bob, &json!({"type": 15, "params": params}));
        assert_eq!(
            (&answer["type"], &answer["status"]),
            (&json!(16), &json!(404))
        );
    }
}

#[test]
fn what_grows_old_is_dropped_and_who_missed_it_is_told_once() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    chat(&mut rig, alice, "bob", "old");
    rig.step_wall_secs(8 * 24 * 3600);
    let alice = rig.user("alice");
    chat(&mut rig, alice, "bob", "new");
    rig.desk
        .store
        .sweep("bob", &rig.desk.post.roster, rig.now.wall_ms);
    let (bob, _, heard) = come(&mut rig, "bob", "&ack=1");
    assert_eq!(heard[0]["msg"]["event"], "resync");
    assert_eq!(heard[0]["msg"]["from"], 2);
    assert_eq!(seqs(&heard[1..]), [2]);
    acknowledge(&mut rig, bob, &heard[1]["messageId"]);
    rig.hang_up(bob);
    assert_eq!(come(&mut rig, "bob", "").2, [Value::Null; 0]);
}

#[test]
fn what_is_dropped_while_it_waits_for_the_window_is_told_to_who_was_told_of_others() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    let chats = |rig: &mut Rig, count: usize| {
        for n in 0..count {
            chat(rig, alice, "bob", n);
        }
        rig.step_wall_secs(10);
    };
    let sweep = |rig: &mut Rig| {
        let now_ms = rig.now.wall_ms + (7 * 24 * 3600 - 15) * 1000;
        rig.desk.store.sweep("bob", &rig.desk.post.roster, now_ms);
    };
    chats(&mut rig, 1);
    rig.step_wall_secs(10);
    sweep(&mut rig);
    chats(&mut rig, 66);
    let heard = messages(&mut rig, bob);
    assert_eq!(seqs(&heard[..1]), [1]);
    assert_eq!(heard[1]["msg"]["event"], "resync");
    assert_eq!(seqs(&heard[2..]), (2..=64).collect::<Vec<_>>());
    // The rest of these are on their way to bob, and no further.
    chats(&mut rig, 3);
    sweep(&mut rig);
    rig.say(bob, json!({"type": 15, "params": {"upTo": "e1:64"}}));
    let heard = messages(&mut rig, bob);
    assert_eq!(heard[0]["type"], 16);
    assert_eq!(heard[1]["msg"]["event"], "resync");
    assert_eq!(heard[1]["msg"]["from"], 68);
    assert_eq!(seqs(&heard[2..]), [68, 69, 70]);
}

#[test]
fn what_is_dropped_after_it_was_sent_is_not_worth_another_word() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    for n in 0..3 {
        chat(&mut rig, alice, "bob", n);
        rig.step_wall_secs(10);
        let old_ms = (7 * 24 * 3600 - 5) * 1000;
        let now_ms = rig.now.wall_ms + old_ms;
        rig.desk.store.sweep("bob", &rig.desk.post.roster, now_ms);
    }
    let heard = messages(&mut rig, bob);
    let words = heard.iter().filter(|one| one["msg"]["event"] == "resync");
    assert_eq!(words.count(), 1, "{heard:?}");
}

#[test]
fn a_pull_shows_what_is_kept_and_moves_nothing() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    for n in 0..150 {
        chat(&mut rig, alice, "bob", n);
    }
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    let pull = |rig: &mut Rig, body: Value| {
        let answer = ask(rig, bob, &json!({"path": "message/pull", "body": body}));
        assert_eq!(answer["success"], true, "{answer}");
        let content = &answer["content"];
        assert_eq!(
            (&content["epoch"], &content["headSeq"]),
            (&json!("e1"), &json!(150))
        );
        seqs(content["entries"].as_array().unwrap())
    };
    for _ in 0..2 {
        assert_eq!(pull(&mut rig, json!({})), (1..=100).collect::<Vec<_>>());
        assert_eq!(
            pull(&mut rig, json!({"after": 140})),
            (141..=150).collect::<Vec<_>>()
        );
        assert_eq!(pull(&mut rig, json!({"after": 3, "limit": 2})), [4, 5]);
        assert_eq!(pull(&mut rig, json!({"after": 0, "limit": 999})).len(), 150);
        assert_eq!(pull(&mut rig, json!({"after": 150})), [0; 0]);
    }
    assert_eq!(messages(&mut rig, alice), [Value::Null; 0]);
}

#[test]
fn each_device_has_a_place_of_its_own_and_those_without_a_name_share_one() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (phone, ..) = come(&mut rig, "bob", "&device=phone&ack=1");
    let (plain, ..) = come(&mut rig, "bob", "&ack=1");
    let (twin, ..) = come(&mut rig, "bob", "&ack=1");
    let id = chat(&mut rig, alice, "bob", "hi");
    for peer in [phone, plain, twin] {
        assert_eq!(seqs(&messages(&mut rig, peer)), [1]);
    }
    acknowledge(&mut rig, twin, &id);
    for peer in [phone, plain, twin] {
        rig.hang_up(peer);
    }
    assert_eq!(seqs(&come(&mut rig, "bob", "&device=phone").2), [1]);
    assert_eq!(
        come(&mut rig, "bob", "").2,
        [Value::Null; 0],
        "its twin has passed it"
    );
    assert_eq!(
        seqs(&come(&mut rig, "bob", "&device=new").2),
        [1],
        "the oldest that is kept"
    );
    assert_eq!(
        messages(&mut rig, alice).len(),
        1,
        "the first acknowledgement makes the 17"
    );
}

#[test]
fn a_window_goes_on_where_it_was_when_a_client_comes_back() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let ids: Vec<Value> = (0..200).map(|n| chat(&mut rig, alice, "bob", n)).collect();
    let (bob, _, entries) = come(&mut rig, "bob", "&ack=1");
    assert_eq!(entries.len(), 64);
    rig.say(
        bob,
        json!({"type": 15, "params": {"msgids": ids[1..64].to_vec()}}),
    );
    assert_eq!(messages(&mut rig, bob).len(), 63, "an answer for each");
    rig.hang_up(bob);
    for _ in 0..2 {
        let (bob, _, entries) = come(&mut rig, "bob", "&ack=1");
        assert_eq!(seqs(&entries), [1], "64 from the oldest on");
        rig.hang_up(bob);
    }
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    let next = acknowledge(&mut rig, bob, &ids[0]);
    assert_eq!(seqs(&next), (65..=128).collect::<Vec<_>>());
}

#[test]
fn who_is_overtaken_by_another_connection_of_its_device_is_told_so() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (fast, ..) = come(&mut rig, "bob", "&ack=1");
    let (slow, ..) = come(&mut rig, "bob", "&ack=1");
    for n in 0..200 {
        chat(&mut rig, alice, "bob", n);
    }
    assert_eq!(
        seqs(&messages(&mut rig, slow)),
        (1..=64).collect::<Vec<_>>()
    );
    for seq in [64, 128, 192, 200] {
        messages(&mut rig, fast);
        rig.say(
            fast,
            json!({"type": 15, "params": {"upTo": format!("e1:{seq}")}}),
        );
    }
    assert_eq!(messages(&mut rig, fast).len(), 1, "no word of a gap");
    rig.say(slow, json!({"type": 15, "params": {"upTo": "e1:64"}}));
    messages(&mut rig, alice);
    chat(&mut rig, alice, "bob", "next");
    let heard = messages(&mut rig, slow);
    assert_eq!(heard[0]["type"], 16);
    let resync = json!({"event": "resync", "epoch": "e1", "headSeq": 200, "from": 201});
    assert_eq!(heard[1]["msg"], resync);
    assert_eq!(seqs(&heard[2..]), [201]);
}

#[test]
fn a_repeated_message_is_the_same_and_another_under_its_msgid_is_409() {
    let mut rig = Rig::new();
    let (alice, bob) = (rig.user("alice"), rig.user("bob"));
    let group = json!({"type": 3, "params": {"groupId": "g", "userIdList": "bob"}});
    ask(&mut rig, alice, &group);
    rig.heard(bob);
    for (kind, to) in [(1, "bob"), (9, "g")] {
        let say = |text: &str| json!({"type": kind, "params": {"toMessageId": to, "message": text, "msgid": "m1"}});
        let first = ask(&mut rig, alice, &say("hi"));
        assert!(first["params"].get("dup").is_none(), "{first}");
        for _ in 0..3 {
            let again = ask(&mut rig, alice, &say("hi"));
            assert_eq!(
                (&again["type"], &again["params"]["dup"]),
                (&json!(0), &json!(true))
            );
            assert_eq!(again["params"]["messageId"], first["params"]["messageId"]);
        }
        let other = ask(&mut rig, alice, &say("ho"));
        assert_eq!(error_code(&other), 409);
        assert_eq!(
            (&other["params"]["reason"], &other["params"]["ref"]),
            (&json!("msgid_reused"), &json!("m1"))
        );
        assert_eq!(listen(&mut rig, bob).0.len(), 1, "once");
    }
    let direct = |msg: &str| json!({"to": ["bob", "carl"], "msg": msg, "msgid": "m2"});
    for is_again in [false, true] {
        rig.say(alice, direct("hi"));
        for (receipt, uid) in messages(&mut rig, alice).iter().zip(["bob", "carl"]) {
            assert_eq!(
                (&receipt["msgType"], &receipt["toUser"]),
                (&json!(2), &json!(uid))
            );
            assert_eq!(
                receipt["params"].get("dup").is_some(),
                is_again,
                "{receipt}"
            );
        }
    }
    rig.say(alice, direct("ho"));
    let errors = messages(&mut rig, alice);
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error_code(error) == 409));
}

#[test]
fn a_senders_own_connection_does_not_get_its_group_message_and_has_no_hole_for_it() {
    let mut rig = Rig::new();
    let (alice, ..) = come(&mut rig, "alice", "&ack=1&device=a");
    let (other, ..) = come(&mut rig, "alice", "&ack=1&device=b");
    let bob = rig.user("bob");
    rig.ask(
        alice,
        json!({"type": 3, "params": {"groupId": "g", "userIdList": "bob"}}),
    );
    rig.heard(other);
    let says = json!({"type": 9, "params": {"toMessageId": "g", "message": "hi"}});
    assert_eq!(ask(&mut rig, alice, &says)["type"], 0);
    assert_eq!(seqs(&messages(&mut rig, other)), [1]);
    messages(&mut rig, bob);
    chat(&mut rig, bob, "alice", "hello");
    assert_eq!(seqs(&messages(&mut rig, alice)), [2]);
    assert_eq!(seqs(&messages(&mut rig, other)), [2]);
}

#[test]
fn a_full_inbox_refuses_the_sender_and_takes_again_when_something_is_acknowledged() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let ids: Vec<Value> = (0..1000)
        .map(|n| {
            rig.advance_ticks(1);
            chat(&mut rig, alice, "bob", n)
        })
        .collect();
    let say = json!({"type": 1, "params": {"toMessageId": "bob", "message": "x", "msgid": "m"}});
    let refused = ask(&mut rig, alice, &say);
    assert_eq!(error_code(&refused), 503);
    assert_eq!(refused["params"]["reason"], "inbox_full");
    let (bob, _, entries) = come(&mut rig, "bob", "&ack=1");
    assert_eq!(entries[0]["messageId"], ids[0], "nothing was dropped");
    acknowledge(&mut rig, bob, &ids[0]);
    rig.heard(alice);
    assert_eq!(ask(&mut rig, alice, &say)["type"], 0);
}

#[test]
fn a_store_that_is_behind_or_down_refuses_and_nothing_of_it_happened() {
    for is_down in [true, false] {
        let mut rig = Rig::new();
        let (alice, bob) = (rig.user("alice"), rig.user("bob"));
        let set = |rig: &mut Rig, bad: bool| match is_down {
            true => rig.desk.store.is_down = bad,
            false => rig.desk.store.is_jammed = bad,
        };
        set(&mut rig, true);
        let reason = if is_down { "store_down" } else { "store_busy" };
        for say in [
            json!({"type": 1, "params": {"toMessageId": "bob", "message": "x", "msgid": "m"}}),
            json!({"to": "bob", "msg": "x", "msgid": "m"}),
            json!({"type": 15, "params": {"msgid": "00000000000000000000000000000001"}}),
            json!({"path": "message/pull", "requestId": "m"}),
            json!({"type": 3, "params": {"groupId": "g"}}),
        ] {
            let error = ask(&mut rig, alice, &say);
            assert_eq!(error_code(&error), 503, "{say}");
            let is_route = error.get("path").is_some();
            let at = if is_route { "content" } else { "params" };
            assert_eq!(error[at]["reason"], reason, "{say}");
        }
        // What needs no store goes on.
        rig.say(alice, r#"{"to":"bob","msg":"live"}"#);
        assert_eq!(messages(&mut rig, bob)[0]["msg"], "live");
        set(&mut rig, false);
        let say =
            json!({"type": 1, "params": {"toMessageId": "bob", "message": "x", "msgid": "m"}});
        let receipt = ask(&mut rig, alice, &say);
        assert!(receipt["params"].get("dup").is_none(), "{receipt}");
        assert_eq!(seqs(&messages(&mut rig, bob)), [1]);
    }
}

#[test]
fn who_comes_while_the_store_is_down_is_greeted_and_gets_its_inbox_when_it_is_back() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    chat(&mut rig, alice, "bob", "hi");
    rig.desk.store.is_down = true;
    let (bob, notice, entries) = come(&mut rig, "bob", "&ack=1");
    assert_eq!((notice["msg"].get("epoch"), entries.len()), (None, 0));
    let answer = rig.ask(
        bob,
        json!({"type": 7, "params": {"openid": "bob", "loginStatus": "1"}}),
    );
    assert_eq!(
        (&answer["type"], answer["params"].get("headSeq")),
        (&json!(8), None)
    );
    rig.advance_secs(5);
    assert_eq!(messages(&mut rig, bob), [Value::Null; 0], "once is enough");
    rig.desk.store.is_down = false;
    rig.advance_secs(2);
    let heard = messages(&mut rig, bob);
    assert_eq!(
        (&heard[0]["msgType"], &heard[0]["msg"]["headSeq"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(seqs(&heard[1..]), [1]);
}

#[test]
fn what_is_answered_late_belongs_to_who_asked_and_order_is_kept() {
    let mut rig = Rig::new();
    let (alice, bob, _) = (rig.user("alice"), rig.user("bob"), rig.user("eve"));
    rig.desk.store.is_held = true;
    for n in 0..5 {
        let params =
            json!({"toMessageId": "bob", "message": n.to_string(), "msgid": format!("m{n}")});
        rig.say(alice, json!({"type": 1, "params": params}));
    }
    assert_eq!(
        (rig.heard(alice), rig.heard(bob)),
        (vec![], vec![]),
        "stored first"
    );
    rig.hang_up(alice);
    rig.desk.store.is_held = false;
    rig.serve_store();
    let (heard, _) = listen(&mut rig, bob);
    let texts: Vec<&Value> = heard
        .iter()
        .map(|entry| &entry["msg"]["params"]["message"])
        .collect();
    assert_eq!(texts, ["0", "1", "2", "3", "4"]);
    let alice = rig.user("alice");
    let params = json!({"toMessageId": "bob", "message": "0", "msgid": "m0"});
    let again = ask(&mut rig, alice, &json!({"type": 1, "params": params}));
    assert_eq!(
        again["params"]["dup"], true,
        "it was stored, though nobody was told"
    );
}

#[test]
fn an_upgrade_waits_for_the_store_and_not_for_long() {
    let mut rig = Rig::new();
    rig.desk.store.is_held = true;
    let target = format!("/websocket?token={}", rig.token("bob"));
    let first = rig.connect(&target);
    assert_eq!(rig.heard(first), []);
    rig.desk.store.is_held = false;
    rig.serve_store();
    assert_eq!(rig.heard(first).len(), 2, "the answer and the notice");
    rig.desk.store.is_held = true;
    let second = rig.connect(&target);
    rig.advance_ticks(2);
    assert!(matches!(rig.heard(second)[..], [Heard::Http(101, _)]));
    assert_eq!(ask(&mut rig, second, &json!({"type": 11}))["type"], 12);
    rig.desk.store.is_held = false;
    rig.serve_store();
    assert_eq!(messages(&mut rig, second)[0]["msg"]["headSeq"], 0);
}

#[test]
fn who_leaves_by_type_7_gets_nothing_until_it_is_back() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    ask(&mut rig, bob, &register("bob", "0"));
    chat(&mut rig, alice, "bob", "hi");
    assert_eq!(messages(&mut rig, bob), [Value::Null; 0]);
    rig.say(bob, register("bob", "1"));
    let heard = messages(&mut rig, bob);
    let types: Vec<&Value> = heard.iter().map(|message| &message["type"]).collect();
    assert!(types.contains(&&json!(8)), "{heard:?}");
    assert_eq!(seqs(&heard[heard.len() - 1..]), [1]);
}

#[test]
fn who_leaves_by_type_7_before_a_store_that_is_down_answers_is_left_in_peace() {
    let mut rig = Rig::new();
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    rig.desk.store.is_held = true;
    for status in ["0", "1", "0"] {
        rig.say(bob, register("bob", status));
    }
    rig.desk.store.is_down = true;
    rig.desk.store.is_held = false;
    rig.serve_store();
    assert_eq!(messages(&mut rig, bob).len(), 3);
    // The rig does not bear that a session is woken again and again.
    rig.advance_secs(5);
    rig.desk.store.is_down = false;
    let alice = rig.user("alice");
    chat(&mut rig, alice, "bob", "hi");
    assert_eq!(messages(&mut rig, bob), [Value::Null; 0]);
    rig.say(bob, register("bob", "1"));
    let heard = messages(&mut rig, bob);
    assert_eq!(seqs(&heard[heard.len() - 1..]), [1]);
}

#[test]
fn who_was_forgotten_while_it_was_gone_by_type_7_gets_again_what_it_has_not_passed() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (phone, ..) = come(&mut rig, "bob", "&ack=1&device=phone");
    let ids: Vec<Value> = (1..=2).map(|n| chat(&mut rig, alice, "bob", n)).collect();
    assert_eq!(seqs(&messages(&mut rig, phone)), [1, 2]);
    acknowledge(&mut rig, phone, &ids[1]);
    ask(&mut rig, phone, &register("bob", "0"));
    for n in 0..8 {
        let (other, ..) = come(&mut rig, "bob", &format!("&ack=1&device=other{n}"));
        rig.hang_up(other);
    }
    rig.say(phone, register("bob", "1"));
    let heard = messages(&mut rig, phone);
    assert_eq!(heard[0]["type"], 8);
    assert_eq!(heard[1]["msg"]["event"], "resync");
    assert_eq!(seqs(&heard[2..]), [1, 2]);
    assert!(heard[2..].iter().all(|entry| entry["redelivered"] == true));
}

#[test]
fn who_comes_back_by_type_7_still_owes_its_acknowledgements() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "&ack=1");
    chat(&mut rig, alice, "bob", "hi");
    assert_eq!(seqs(&messages(&mut rig, bob)), [1]);
    ask(&mut rig, bob, &register("bob", "0"));
    assert_eq!(ask(&mut rig, bob, &register("bob", "1"))["type"], 8);
    rig.advance_secs(89);
    rig.say(bob, r#"{"type":11}"#);
    assert_eq!(messages(&mut rig, bob).len(), 1);
    rig.advance_secs(2);
    assert_eq!(rig.close_code(bob), Some(4431));
}

#[test]
fn a_page_that_was_asked_for_before_the_store_failed_is_read_again_and_wakes_nobody() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let (bob, ..) = come(&mut rig, "bob", "");
    ask(&mut rig, bob, &register("bob", "0"));
    // More than one page.
    for n in 0..310 {
        chat(&mut rig, alice, "bob", n);
    }
    let serve_one = |rig: &mut Rig, is_down: bool| {
        (rig.desk.store.is_held, rig.desk.store.is_down) = (false, is_down);
        let now_ms = rig.now.wall_ms;
        let served = rig.desk.store.serve(&rig.desk.post.roster, now_ms).unwrap();
        (rig.desk.store.is_held, rig.desk.store.is_down) = (true, false);
        rig.answer(served.to, served.ticket, served.outcome);
    };
    rig.desk.store.is_held = true;
    for status in ["1", "0", "1"] {
        rig.say(bob, register("bob", status));
    }
    // The first one's page is behind the second one in the queue.
    serve_one(&mut rig, false);
    serve_one(&mut rig, true);
    serve_one(&mut rig, false);
    rig.desk.store.is_held = false;
    rig.advance_secs(5);
    let heard = messages(&mut rig, bob);
    let entries = heard.iter().filter_map(|message| message["seq"].as_u64());
    assert_eq!(entries.collect::<Vec<_>>(), (1..=310).collect::<Vec<_>>());
}

#[test]
fn a_slow_reader_is_given_no_more_than_its_queue_holds_and_all_of_it_in_the_end() {
    let mut rig = Rig::new();
    let alice = rig.user("alice");
    let large = "x".repeat(40_000);
    for _ in 0..100 {
        chat(&mut rig, alice, "bob", &large);
        rig.advance_secs(1);
    }
    let (bob, _, mut entries) = come(&mut rig, "bob", "");
    for _ in 0..100 {
        rig.advance_secs(1);
        let heard = rig.heard(bob);
        for heard in heard {
            match heard {
                Heard::Ping(payload) => rig.say_frame(bob, &Frame::pong(payload)),
                heard => entries.push(heard.json()),
            }
        }
    }
    assert_eq!(seqs(&entries), (1..=100).collect::<Vec<_>>());
}

/// How a store fails, and recovers.
const BREAKS: [fn(&mut Rig, bool); 2] = [
    |rig, is_broken| rig.desk.store.is_down = is_broken,
    |rig, is_broken| rig.desk.store.is_jammed = is_broken,
];

/// Bob on his phone, who does not say that he acknowledges, or does by a cursor.
fn bob(rig: &mut Rig, cursor: &str) -> Peer {
    let token = rig.token("bob");
    rig.connect(&format!("/websocket?token={token}&device=phone{cursor}"))
}

/// The places of the entries that came.
fn places(heard: &[Heard]) -> Vec<u64> {
    let texts = heard.iter().filter(|one| matches!(one, Heard::Text(_)));
    texts.filter_map(|one| one.json()["seq"].as_u64()).collect()
}

/// Answers a ping that asks how far he has got.
fn answer_ping(rig: &mut Rig, peer: Peer) {
    let heard = rig.heard(peer);
    let payload = heard.iter().find_map(|one| match one {
        Heard::Ping(payload) => Some(payload.clone()),
        _ => None,
    });
    let payload = payload.unwrap_or_else(|| panic!("no ping: {heard:?}"));
    rig.say_frame(peer, &Frame::pong(payload));
}

#[test]
fn a_cursor_is_heard_though_the_store_was_not_there_at_first() {
    for set_broken in BREAKS {
        let mut rig = Rig::new();
        let first = bob(&mut rig, "");
        let alice = rig.user("alice");
        chat(&mut rig, alice, "bob", "one");
        chat(&mut rig, alice, "bob", "two");
        assert_eq!(places(&rig.heard(first)), [1, 2]);
        rig.hang_up(first);
        set_broken(&mut rig, true);
        let again = bob(&mut rig, "&cursor=e1:1");
        assert_eq!(places(&rig.heard(again)), [0; 0]);
        set_broken(&mut rig, false);
        rig.advance_secs(2);
        assert_eq!(places(&rig.heard(again)), [2]);
    }
}

#[test]
fn a_pong_that_the_store_did_not_write_down_is_asked_for_again() {
    for set_broken in BREAKS {
        let mut rig = Rig::new();
        let first = bob(&mut rig, "");
        let alice = rig.user("alice");
        chat(&mut rig, alice, "bob", "one");
        set_broken(&mut rig, true);
        answer_ping(&mut rig, first);
        set_broken(&mut rig, false);
        rig.advance_secs(2);
        answer_ping(&mut rig, first);
        rig.hang_up(first);
        let again = bob(&mut rig, "");
        assert_eq!(places(&rig.heard(again)), [0; 0]);
    }
}

#[test]
fn a_page_that_is_long_in_coming_wakes_nobody_meanwhile() {
    let mut rig = Rig::new();
    let first = bob(&mut rig, "");
    let alice = rig.user("alice");
    chat(&mut rig, alice, "bob", "one");
    answer_ping(&mut rig, first);
    rig.desk.store.is_held = true;
    let key = rig.desk.post.roster.find("bob")[0];
    let uid = "bob".to_owned();
    rig.ring(key, &Ring::Lost { uid });
    // The rig fails where a session is due again and again.
    rig.advance_secs(5);
    rig.desk.store.is_held = false;
    rig.serve_store();
    assert_eq!(places(&rig.heard(first)), [0; 0]);
}
