//! What clients and backends do every day, each of them on another node.

use serde_json::{Value, json};

use crate::nodes::{Cluster, hears, is_silent, join_with, send};
use crate::support::setup::Folder;
use crate::support::{Client, Setup, eventually};

#[test]
fn a_chat_has_all_its_six_packets_across_nodes() {
    let cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut bob = join_with(cluster.node(1), "bob", "ack=1");
    let id = send(&mut alice, "bob", "hi", "m1");
    let envelope = bob.hear();
    assert_eq!(envelope["messageId"], *id);
    assert_eq!(envelope["msg"]["type"], 2, "{envelope}");
    assert_eq!(envelope["msg"]["params"]["message"], "hi");
    bob.say(&json!({"type": 15, "params": {"from": "client", "msgid": id}}));
    let accepted = bob.hear();
    assert_eq!(
        (&accepted["type"], &accepted["status"]),
        (&json!(16), &json!(200))
    );
    let notice = alice.hear()["msg"].clone();
    assert_eq!(notice["type"], 17, "{notice}");
    let params = json!({"msgid": "m1", "messageId": id, "toUser": "bob"});
    assert_eq!(notice["params"], params);
    // Who repeats an acknowledgement is answered again, and begets nothing.
    bob.say(&json!({"type": 15, "params": {"from": "client", "msgid": id}}));
    assert_eq!(bob.hear()["type"], 16);
    is_silent(&mut alice);
    is_silent(&mut bob);
}

#[test]
fn what_is_sent_to_who_is_away_waits_for_him_on_whatever_node() {
    let cluster = Cluster::start(2);
    let mut alice = join_with(cluster.node(0), "alice", "");
    for n in 0..5 {
        send(&mut alice, "bob", &format!("m{n}"), &format!("m{n}"));
    }
    let mut bob = join_with(cluster.node(1), "bob", "device=phone&ack=1");
    assert_eq!(hears(&mut bob, 5), ["m0", "m1", "m2", "m3", "m4"]);
    send(&mut alice, "bob", "m5", "m5");
    let last = bob.hear();
    assert_eq!(last["seq"], 6);
    bob.say(&json!({"type": 15, "params": {"msgid": last["messageId"]}}));
    assert_eq!(bob.hear()["type"], 16);
    drop(bob);
    // On the other node he goes on where he was: that one has passed nothing but the last.
    let cursor = format!("device=phone&cursor={}:4", last["epoch"].as_str().unwrap());
    let mut bob = join_with(cluster.node(0), "bob", &cursor);
    assert_eq!(hears(&mut bob, 1), ["m4"]);
    is_silent(&mut bob);
}

#[test]
fn a_group_has_members_on_all_nodes_and_begets_no_type_17() {
    let cluster = Cluster::start(3);
    let named = |n: usize, user: &str, name: &str| {
        let order = json!({"userId": user, "userName": name});
        cluster.node(n).join_for(&order, "ack=1").0
    };
    let mut members = [
        named(0, "alice", "Alice"),
        named(1, "bob", "Bob"),
        named(2, "carol", "Carol"),
    ];
    let params = json!({"groupId": "team", "userIdList": "bob,carol,dave"});
    members[0].say(&json!({"type": 3, "params": params}));
    for member in &mut members {
        let result = member.hear();
        assert_eq!(
            (&result["type"], &result["groupId"]),
            (&json!(4), &json!("team"))
        );
        let names = json!(["Alice", "Bob", "Carol", "dave"]);
        assert_eq!(result["nameList"], names);
    }
    let says = json!({"toMessageId": "team", "message": "all", "fileType": 0, "msgid": "g1"});
    members[1].say(&json!({"type": 9, "params": says}));
    let receipt = members[1].hear();
    assert_eq!(receipt["type"], 0, "{receipt}");
    for n in [0, 2] {
        let heard = members[n].hear();
        assert_eq!(heard["msg"]["type"], 10, "{heard}");
        assert_eq!(heard["messageId"], receipt["params"]["messageId"]);
        assert_eq!(heard["msg"]["params"]["fromUser"]["userName"], "Bob");
        members[n].say(&json!({"type": 15, "params": {"msgid": heard["messageId"]}}));
        assert_eq!(members[n].hear()["type"], 16);
    }
    members.iter_mut().for_each(is_silent);
    // Who was away gets it later, and who is told of a change is everybody, wherever.
    let mut dave = named(2, "dave", "Dave");
    assert_eq!(hears(&mut dave, 1), ["all"]);
    dave.say(&json!({"type": 14, "params": {"groupId": "team", "leave": true}}));
    for member in &mut members {
        let names = json!(["Alice", "Bob", "Carol"]);
        assert_eq!(member.hear()["nameList"], names);
    }
}

#[test]
fn a_push_over_http_reaches_users_elsewhere_stored_and_live() {
    let cluster = Cluster::start(3);
    let mut bob = join_with(cluster.node(1), "bob", "");
    let mut carol = join_with(cluster.node(2), "carol", "");
    let order = json!({"to": ["bob", "carol", "dave"], "msg": {"n": 1}, "uniqueMsgid": "u1"});
    let first = cluster.node(0).post("/api/v1/messages", &order).content();
    let again = cluster.node(2).post("/api/v1/messages", &order).content();
    assert_eq!(first["bob"], again["bob"], "{first} {again}");
    for (client, user) in [(&mut bob, "bob"), (&mut carol, "carol")] {
        let heard = client.hear();
        assert_eq!((&heard["msg"]["n"], &heard["seq"]), (&json!(1), &json!(1)));
        assert_eq!(heard["messageId"], first[user]);
        assert_eq!(
            (&heard["from"], &heard["trigger"]),
            (&json!("system"), &json!(1))
        );
    }
    assert_eq!(
        cluster
            .node(0)
            .push(&["bob", "carol"], &json!({"n": 2}))
            .status,
        200
    );
    for client in [&mut bob, &mut carol] {
        let heard = client.hear();
        assert_eq!(
            (&heard["msg"]["n"], &heard["seq"]),
            (&json!(2), &Value::Null)
        );
    }
    let answer = cluster
        .node(0)
        .push(&["nobody", "bob", "dave"], &json!({"n": 3}));
    let answer = answer.json();
    assert_eq!(
        (&answer["statusCode"], &answer["content"]),
        (&json!(-501), &json!(["nobody", "dave"]))
    );
    assert_eq!(bob.hear()["msg"]["n"], 3);
    is_silent(&mut bob);
    is_silent(&mut carol);
    // What was stored for him, and not what was live.
    let mut dave = join_with(cluster.node(1), "dave", "");
    assert_eq!(dave.hear()["msg"]["n"], 1);
    is_silent(&mut dave);
}

#[test]
fn a_message_to_everybody_reaches_each_client_of_each_node_once() {
    let cluster = Cluster::start(3);
    let mut english: Vec<Client> = (0..3)
        .map(|n| join_with(cluster.node(n), &format!("e{n}"), "lang=en"))
        .collect();
    let mut french: Vec<Client> = (0..3)
        .map(|n| join_with(cluster.node(n), &format!("f{n}"), "lang=fr"))
        .collect();
    assert_eq!(cluster.node(1).send_to_all(&json!({"n": 1})).status, 200);
    for client in english.iter_mut().chain(&mut french) {
        let heard = client.hear();
        assert_eq!(
            (&heard["msg"]["n"], &heard["to"]),
            (&json!(1), &json!(["*"]))
        );
    }
    let order = json!({"sendToAll": true, "msg": {"n": 2}, "selector": {"lang": "en"}});
    assert_eq!(cluster.node(2).post("/api/v1/messages", &order).status, 200);
    for client in &mut english {
        assert_eq!(client.hear()["msg"]["n"], 2);
    }
    let order =
        json!({"to": ["e0", "f0"], "msg": {"n": 3}, "store": false, "selector": {"lang": "en"}});
    cluster.node(2).post("/api/v1/messages", &order);
    assert_eq!(english[0].hear()["msg"]["n"], 3);
    english.iter_mut().chain(&mut french).for_each(is_silent);
}

#[test]
fn a_direct_frame_finds_a_user_or_one_session_of_his_elsewhere() {
    let cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let order = json!({"userId": "bob"});
    let (mut one, greeting) = cluster.node(1).join_for(&order, "");
    let (mut other, _) = cluster.node(2).join_for(&order, "");
    alice.say(&json!({"to": "bob", "msg": "live", "msgType": 1, "requestId": "r1"}));
    for client in [&mut one, &mut other] {
        let heard = client.hear();
        assert_eq!(
            (&heard["msg"], &heard["from"]),
            (&json!("live"), &json!("alice"))
        );
        assert_eq!(
            (&heard["requestId"], &heard["trigger"]),
            (&json!("r1"), &json!(2))
        );
        assert_eq!(heard["to"], json!(["bob"]));
    }
    let code = greeting["msg"]["userCode"].as_str().unwrap();
    alice.say(&json!({"to": code, "msg": "only you", "msgType": 1}));
    assert_eq!(one.hear()["msg"], "only you");
    alice.say(&json!({"to": "nobody", "msg": "live", "msgType": 1, "requestId": "r2"}));
    let error = alice.hear();
    assert_eq!(
        (&error["msgType"], &error["params"]["ref"]),
        (&json!(-1), &json!("r2"))
    );
    drop(one);
    eventually("the session is gone", || {
        cluster.sessions_of("bob").len() == 1
    });
    alice.say(&json!({"to": code, "msg": "only you", "msgType": 1}));
    assert_eq!(alice.hear()["msgType"], -1);
    is_silent(&mut alice);
    is_silent(&mut other);
}

#[test]
fn a_token_of_one_node_opens_the_doors_of_all() {
    let cluster = Cluster::start(3);
    let token = cluster.node(0).token("alice");
    for n in 0..3 {
        let query = format!("?token={token}&device=d{n}");
        let mut client = cluster.node(n).open(&query, &[]).expect("a good token");
        assert_eq!(client.hear()["msg"]["userId"], "alice");
    }
    // Also one that the command line makes, in the data directory of whatever node.
    let made = Setup::bare(Folder::new())
        .args(&[
            "token",
            "--user",
            "bob",
            "--data-dir",
            &cluster.seats[2].data(),
        ])
        .run();
    let token = String::from_utf8(made.stdout).unwrap();
    let query = format!("?token={}", token.trim());
    assert!(cluster.node(0).open(&query, &[]).is_ok());
}

#[test]
fn where_everything_is_broadcast_messages_arrive_and_nothing_is_written_down() {
    let cluster = Cluster::with(3, &[("THRONG_ROUTING", "broadcast")]);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut bob = join_with(cluster.node(1), "bob", "device=phone&ack=1");
    let mut carol = join_with(cluster.node(2), "carol", "");
    let id = send(&mut alice, "bob", "hi", "m1");
    assert_eq!(hears(&mut bob, 1), ["hi"]);
    bob.say(&json!({"type": 15, "params": {"msgid": id}}));
    assert_eq!(bob.hear()["type"], 16);
    assert_eq!(alice.hear()["msg"]["type"], 17);
    let content = cluster.node(0).push(&["bob", "carol"], &json!({"n": 1}));
    assert_eq!(content.status, 200);
    assert_eq!(bob.hear()["msg"]["n"], 1);
    assert_eq!(carol.hear()["msg"]["n"], 1);
    assert_eq!(cluster.node(2).send_to_all(&json!({"n": 2})).status, 200);
    for client in [&mut alice, &mut bob, &mut carol] {
        assert_eq!(client.hear()["msg"]["n"], 2);
    }
    carol.say(&json!({"to": "bob", "msg": "live", "msgType": 1}));
    assert_eq!(bob.hear()["msg"], "live");
    for user in ["alice", "bob", "carol"] {
        assert_eq!(cluster.sessions_of(user), Vec::<String>::new(), "{user}");
    }
}
