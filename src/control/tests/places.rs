//! Users, sessions, groups and nodes as operators see and change them.

use super::*;
use crate::command::Bye;
use crate::hub::roster::Extra;
use crate::hub::traces::TRACES_MAX;
use crate::mailbox::MAIL_MAX;
use crate::protocol::metadata::Metadata;
use crossbeam_channel::Receiver;

/// 00:00:01 of the first day of Unix time, at which the rig binds.
const SECOND: &str = "19700101000001";

impl Rig {
    fn delete(&self, path: &str) -> super::Reply {
        self.raw(&format!(
            "DELETE {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    /// Who is to be closed, by the mailbox of a reactor; what else waits there is passed over.
    fn kicked(&self, reactor: usize) -> Vec<Key> {
        std::iter::from_fn(|| self.inboxes[reactor].next())
            .filter_map(|command| match command {
                ToReactor::Close { to, why } => {
                    assert_eq!(why, Bye::Kicked);
                    Some(to)
                }
                _ => None,
            })
            .collect()
    }

    /// The frames of groups that wait in a reactor's mailbox, with those who get them.
    fn group_mail(&self, reactor: usize) -> Vec<(Vec<Key>, Value)> {
        std::iter::from_fn(|| self.inboxes[reactor].next())
            .map(|command| match command {
                ToReactor::Deliver { to, tail, .. } => (vec![to], tail),
                ToReactor::DeliverAll { to, tail, .. } => (to.into(), tail),
                _ => panic!("no message for a session"),
            })
            .map(|(to, tail)| (to, serde_json::from_slice(&tail).unwrap()))
            .collect()
    }

    /// Another API for the same node, with the other end of its wishes to drain.
    fn drainable() -> (Rig, Receiver<u32>) {
        let mut rig = Rig::new();
        let (drain, drains) = crossbeam_channel::bounded(1);
        let services = Services {
            node: rig.node.clone(),
            post: rig.post.clone(),
            traces: Arc::default(),
            switchboard: Switchboard::new(Vec::new()),
            store: store(),
            away: AwayBox::default(),
            cluster: Arc::default(),
            store_stats: Arc::default(),
            stats: rig.stats.clone(),
            drain,
            started: Instant::now(),
            seed: [1, 2],
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let auth = Auth::Hmac(TokenKeys::parse(KEY).unwrap());
        rig.control = serve(bind(listen).unwrap(), live(None, auth), services).unwrap();
        (rig, drains)
    }
}

fn session(uid: &str, suffix: &str) -> String {
    format!("10.0.0.7:8084_{uid}_{SECOND}{suffix}")
}

#[test]
fn a_user_is_shown_with_all_sessions() {
    let rig = Rig::new();
    rig.bind("a_b", Key::new(0, 1, 0));
    let pairs = [("room".into(), "x y".into())];
    let extra = Extra {
        device: Some("tv".into()),
        metadata: Metadata::collect(pairs.into_iter(), 8, 100).unwrap(),
    };
    let policy = Policy {
        is_single: false,
        sessions_max: 8,
    };
    let named = Identity::new("a_b", "Ann Ü").unwrap();
    let second = Key::new(1, 1, 0);
    let roster = &rig.post.roster;
    roster.bind(named, second, 1, Some(Arc::new(extra)), policy);
    let reply = rig.get("/api/v1/users/a_b");
    assert_eq!(reply.shaped(), 200);
    let first = json!({"node": "10.0.0.7:8084", "sessionId": session("a_b", ""), "device": "default", "since": 1000,
        "online": true, "metadata": {}});
    let tv = |is_online: bool| {
        json!({"node": "10.0.0.7:8084", "sessionId": session("a_b", "_1"), "device": "tv", "since": 1000,
            "online": is_online, "metadata": {"room": "x y"}})
    };
    assert_eq!(
        reply.json()["content"],
        json!({"userId": "a_b", "userName": "Ann Ü", "online": true, "sessions": [first, tv(true)]})
    );
    roster.set_online("a_b", second, false);
    let content = &rig.get("/api/v1/users/a%5Fb").json()["content"];
    assert_eq!(content["userName"], "a_b", "by the one that is online");
    assert_eq!(content["sessions"], json!([first, tv(false)]));
    roster.unbind("a_b", Key::new(0, 1, 0));
    let content = &rig.get("/api/v1/users/a_b").json()["content"];
    assert_eq!(content["online"], false);
    assert_eq!(content["sessions"], json!([tv(false)]));
    let reply = rig.get("/api/v1/users/eve");
    assert_eq!(reply.shaped(), 200);
    assert_eq!(
        reply.json()["content"],
        json!({"userId": "eve", "userName": "eve", "online": false, "sessions": []})
    );
    let long = format!("/api/v1/users/{}", "u".repeat(65));
    for bad in ["/api/v1/users/a%20b", "/api/v1/users/%FF", &long] {
        assert_eq!(rig.get(bad).shaped(), 400, "{bad}");
    }
}

#[test]
fn all_sessions_of_a_user_are_closed() {
    let rig = Rig::new();
    let keys = [Key::new(0, 1, 0), Key::new(1, 1, 0)];
    for key in keys {
        rig.bind("bob", key);
    }
    rig.bind("eve", Key::new(0, 2, 0));
    let reply = rig.delete("/api/v1/users/bob/sessions");
    assert_eq!(reply.shaped(), 200);
    assert_eq!(
        reply.json()["content"],
        json!({"closed": [session("bob", ""), session("bob", "_1")]})
    );
    assert_eq!([rig.kicked(0), rig.kicked(1)], keys.map(|key| vec![key]));
    let reply = rig.delete("/api/v1/users/nobody/sessions");
    assert_eq!(reply.shaped(), 200);
    assert_eq!(reply.json()["content"], json!({"closed": []}));
    assert_eq!(rig.delete("/api/v1/users/a%20b/sessions").shaped(), 400);
    assert_eq!(rig.get("/api/v1/users/bob/sessions").shaped(), 405);
}

#[test]
fn a_full_mailbox_spares_no_session_of_another_reactor() {
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox().unwrap()).unzip();
    let switchboard = Switchboard::new(mailboxes);
    let mut rig = Rig::new();
    let services = Services {
        node: rig.node.clone(),
        post: rig.post.clone(),
        traces: Arc::default(),
        switchboard: switchboard.clone(),
        store: store(),
        away: AwayBox::default(),
        cluster: Arc::default(),
        store_stats: Arc::default(),
        stats: rig.stats.clone(),
        drain: crossbeam_channel::bounded(1).0,
        started: Instant::now(),
        seed: [1, 2],
    };
    let listen = "127.0.0.1:0".parse().unwrap();
    rig.control = serve(bind(listen).unwrap(), live(None, Auth::None), services).unwrap();
    rig.inboxes = inboxes;
    let (near, far) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
    rig.bind("bob", near);
    rig.bind("bob", far);
    for _ in 0..MAIL_MAX {
        switchboard.close(Key::new(0, 9, 0), Bye::Kicked).unwrap();
    }
    let reply = rig.delete("/api/v1/users/bob/sessions");
    assert_eq!(reply.shaped(), 503);
    assert_eq!(
        reply.json()["content"],
        json!({"reason": "busy", "closed": [session("bob", "_1")]})
    );
    assert_eq!(rig.kicked(1), [far]);
    let one = format!("/api/v1/sessions/{}", session("bob", ""));
    let reply = rig.delete(&one);
    assert_eq!(reply.shaped(), 503);
    assert_eq!(
        reply.json()["content"],
        json!({"reason": "busy", "closed": []})
    );
    assert_eq!(rig.kicked(0).len(), MAIL_MAX);
    assert_eq!(rig.delete(&one).shaped(), 200);
}

#[test]
fn one_session_is_closed_by_its_id() {
    let rig = Rig::new();
    let keys = [Key::new(0, 1, 0), Key::new(0, 2, 0)];
    for key in keys {
        rig.bind("a_b", key);
    }
    let second = session("a_b", "_1");
    let reply = rig.delete(&format!("/api/v1/sessions/{second}"));
    assert_eq!(reply.shaped(), 200);
    assert_eq!(reply.json()["content"], json!({"closed": [second]}));
    assert_eq!(rig.kicked(0), [keys[1]]);
    for absent in [
        session("a_b", "_2"),
        session("a_b", "_01"),
        session("b", ""),
        session("a_b", "").replace("10.0.0.7", "10.0.0.8"),
        session("a_b", "").replace("0001", "0002"),
        "10.0.0.7:8084".to_owned(),
        "a_b".to_owned(),
    ] {
        let reply = rig.delete(&format!("/api/v1/sessions/{absent}"));
        assert_eq!(reply.shaped(), 404, "{absent}");
    }
    assert_eq!(rig.delete("/api/v1/sessions/%FF").shaped(), 400);
    assert!(rig.kicked(0).is_empty());
}

#[test]
fn groups_are_made_shown_changed_and_ended() {
    let rig = Rig::new();
    let (bob, eve) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
    rig.bind("bob", bob);
    rig.bind("eve", eve);
    let content = |reply: super::Reply| {
        assert_eq!(reply.shaped(), 200, "{}", reply.body);
        reply.json()["content"].clone()
    };
    let view =
        |members: &[&str]| json!({"groupId": "g@1", "nameList": members, "userIdList": members});
    let made = rig.post(
        "/api/v1/groups",
        r#"{"groupId":"g@1","userIdList":["bob","ann","bob"]}"#,
    );
    assert_eq!(content(made), view(&["bob", "ann"]));
    let mail = rig.group_mail(0);
    assert_eq!((mail.len(), &mail[0].0), (1, &vec![bob]));
    assert!(mail[0].1.to_string().contains("g@1"), "{}", mail[0].1);
    let added = rig.post(
        "/api/v1/groups/g@1/members",
        r#"{"userIdList":" eve, ann,"}"#,
    );
    assert_eq!(content(added), view(&["bob", "ann", "eve"]));
    let (near, far) = (rig.group_mail(0), rig.group_mail(1));
    assert_eq!((&near[0].0, &far[0].0), (&vec![bob], &vec![eve]));
    let shown = rig.get("/api/v1/groups/g%401");
    assert_eq!(content(shown), view(&["bob", "ann", "eve"]));
    let taken = rig.delete("/api/v1/groups/g@1/members/eve");
    assert_eq!(content(taken), view(&["bob", "ann"]));
    assert_eq!((rig.group_mail(0).len(), rig.group_mail(1).len()), (1, 0));
    let reply = rig.delete("/api/v1/groups/g@1/members/eve");
    assert_eq!(reply.shaped(), 403);
    assert_eq!(reply.json()["content"]["reason"], "not_member");
    assert_eq!(content(rig.delete("/api/v1/groups/g@1")), view(&[]));
    assert_eq!(rig.group_mail(0).len(), 1, "its members hear of the end");
    for gone in ["/api/v1/groups/g@1", "/api/v1/groups/g@1/members/bob"] {
        assert_eq!(rig.delete(gone).shaped(), 404);
    }
    assert_eq!(rig.get("/api/v1/groups/g@1").shaped(), 404);
    let late = rig.post("/api/v1/groups/g@1/members", r#"{"userIdList":"bob"}"#);
    assert_eq!(late.shaped(), 404);
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let rig = Rig::new();
    let make = |body: &str| rig.post("/api/v1/groups", body);
    assert_eq!(make(r#"{"groupId":"g","userIdList":"bob"}"#).shaped(), 200);
    let again = make(r#"{"groupId":"g","userIdList":"bob"}"#);
    assert_eq!(again.shaped(), 409);
    assert_eq!(again.json()["content"]["reason"], "group_exists");
    for (body, part) in [
        ("", "not as expected"),
        ("{}", "groupId"),
        (r#"{"groupId":1,"userIdList":"a"}"#, "not as expected"),
        (r#"{"groupId":"a b","userIdList":"a"}"#, "a group id"),
        (r#"{"groupId":"h"}"#, "userIdList"),
        (r#"{"groupId":"h","userIdList":[]}"#, "nobody"),
        (r#"{"groupId":"h","userIdList":" ,"}"#, "nobody"),
        (r#"{"groupId":"h","userIdList":7}"#, "an array of user ids"),
        (
            r#"{"groupId":"h","userIdList":[7]}"#,
            "an array of user ids",
        ),
        (r#"{"groupId":"h","userIdList":["a b"]}"#, "no user id"),
        (r#"{"groupId":"h","userIdList":["a b"]}"#, r#"\"a b\""#),
    ] {
        let reply = make(body);
        assert_eq!(reply.shaped(), 400, "{body}");
        assert!(reply.body.contains(part), "{body}: {}", reply.body);
    }
    for bad in ["{}", r#"{"userIdList":[]}"#, r#"{"userIdList":["a b"]}"#] {
        let reply = rig.post("/api/v1/groups/g/members", bad);
        assert_eq!(reply.shaped(), 400, "{bad}");
    }
    let bad = "/api/v1/groups/g/members/a%20b";
    assert_eq!(rig.delete(bad).shaped(), 400);
    assert_eq!(rig.post("/api/v1/groups/g", "{}").shaped(), 405);
}

#[test]
fn groups_are_listed_by_user_and_page_by_page() {
    let rig = Rig::new();
    for n in 0..1002 {
        let body = format!(r#"{{"groupId":"g{n:04}","userIdList":["u{}"]}}"#, n / 100);
        assert_eq!(rig.post("/api/v1/groups", &body).shaped(), 200);
    }
    let body = r#"{"groupId":"z@1","userIdList":["bob"]}"#;
    assert_eq!(rig.post("/api/v1/groups", body).shaped(), 200);
    let content = |path: &str| {
        let reply = rig.get(path);
        assert_eq!(reply.shaped(), 200, "{path}");
        reply.json()["content"].clone()
    };
    let first = content("/api/v1/groups");
    let ids = first["groups"].as_array().unwrap();
    assert_eq!((ids.len(), &ids[999]), (1000, &json!("g0999")));
    assert_eq!(
        content("/api/v1/groups?after=g0999"),
        json!({"groups": ["g1000", "g1001", "z@1"]})
    );
    assert_eq!(content("/api/v1/groups?after=z%401"), json!({"groups": []}));
    assert_eq!(
        content("/api/v1/groups?x=1&user=bob&user=ann"),
        json!({"groups": ["z@1"]})
    );
    assert_eq!(content("/api/v1/groups?user=eve"), json!({"groups": []}));
    for bad in ["user=", "user", "user=a%20b"] {
        let path = format!("/api/v1/groups?{bad}");
        assert_eq!(rig.get(&path).shaped(), 400, "{bad}");
    }
}

#[test]
fn it_is_said_who_of_those_named_is_online() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    let reply = rig.get("/api/v1/online?uids=bob,eve%2Ca%20b,");
    assert_eq!(reply.shaped(), 200);
    assert_eq!(
        reply.json()["content"],
        json!({"online": {"bob": true, "eve": false, "a b": false}})
    );
    for path in ["/api/v1/online", "/api/v1/online?uids="] {
        let content = &rig.get(path).json()["content"];
        assert_eq!(
            (&content["onlineNum"], &content["users"]),
            (&json!(1), &json!(1))
        );
    }
    let many = format!("/api/v1/online?uids={}", "a,".repeat(1001));
    assert_eq!(rig.get(&many).shaped(), 400);
}

#[test]
fn the_node_is_listed_and_named_as_long_as_it_has_room() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    rig.bind("bob", Key::new(0, 2, 0));
    for _ in 0..3 {
        assert!(rig.node.admit());
    }
    let reply = rig.get("/api/v1/nodes");
    assert_eq!(reply.shaped(), 200);
    let mut content = reply.json()["content"].clone();
    assert!(content[0]["uptimeSecs"].as_u64().unwrap() < 60);
    content[0]["uptimeSecs"] = json!(0);
    assert_eq!(
        content,
        json!([{"node": "10.0.0.7:8084", "url": null, "wsUrl": "ws://127.0.0.1:8888/websocket",
            "connections": 3, "maxConnections": 10, "users": 1, "sessions": 2, "draining": false,
            "uptimeSecs": 0, "version": env!("CARGO_PKG_VERSION")}])
    );
    let least = || rig.get("/api/v1/nodes/least-loaded");
    assert_eq!(least().shaped(), 200);
    assert_eq!(
        least().json()["content"],
        json!({"node": "10.0.0.7:8084", "url": "ws://127.0.0.1:8888/websocket", "room": 7})
    );
    for _ in 0..7 {
        assert!(rig.node.admit());
    }
    assert_eq!(least().shaped(), 503);
    assert_eq!(least().json()["content"], json!({"reason": "full"}));
    rig.node.leave();
    assert_eq!(least().json()["content"]["room"], 1);
    rig.node.start_draining();
    assert_eq!(least().shaped(), 503);
    assert_eq!(least().json()["content"], json!({"reason": "draining"}));
    assert_eq!(
        rig.get("/api/v1/nodes").json()["content"][0]["draining"],
        true
    );
}

#[test]
fn a_drain_is_started_once_and_tells_how_far_it_is() {
    let (rig, drains) = Rig::drainable();
    for _ in 0..3 {
        assert!(rig.node.admit());
    }
    let content = |reply: super::Reply| {
        assert_eq!(reply.shaped(), 200, "{}", reply.body);
        reply.json()["content"].clone()
    };
    let idle = json!({"draining": false, "connections": 3, "rate": null});
    assert_eq!(content(rig.get("/api/v1/drain")), idle);
    for bad in [
        r#"{"rate":0}"#,
        r#"{"rate":1000001}"#,
        r#"{"rate":-1}"#,
        r#"{"rate":"9"}"#,
        "[7",
    ] {
        assert_eq!(rig.post("/api/v1/drain", bad).shaped(), 400, "{bad}");
    }
    let untyped = "POST /api/v1/drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Content-Length: 0\r\n\r\n";
    assert_eq!(rig.raw(untyped).shaped(), 415, "any page could send it");
    assert_eq!(rig.delete("/api/v1/drain").shaped(), 405);
    assert!(drains.try_recv().is_err());
    let under_way = json!({"draining": true, "connections": 3, "rate": 1_000_000});
    let started = rig.post("/api/v1/drain", r#"{"rate":1000000}"#);
    assert_eq!(content(started), under_way);
    assert_eq!(drains.try_recv(), Ok(1_000_000));
    rig.node.leave();
    let further = json!({"draining": true, "connections": 2, "rate": 1_000_000});
    assert_eq!(content(rig.post("/api/v1/drain", r#"{"rate":5}"#)), further);
    assert_eq!(content(rig.get("/api/v1/drain")), further);
    assert!(drains.try_recv().is_err());
}

#[test]
fn a_drain_without_a_rate_has_the_usual_one() {
    let (rig, drains) = Rig::drainable();
    assert_eq!(rig.post("/api/v1/drain", "").json()["content"]["rate"], 500);
    assert_eq!(drains.try_recv(), Ok(500));
    let (rig, drains) = Rig::drainable();
    rig.node.start_draining();
    let reply = rig.post("/api/v1/drain", "{}");
    assert_eq!(
        reply.json()["content"],
        json!({"draining": true, "connections": 0, "rate": null}),
        "a signal was first"
    );
    assert!(drains.try_recv().is_err());
    let (rig, drains) = Rig::drainable();
    drop(drains);
    for _ in 0..2 {
        assert_eq!(rig.post("/api/v1/drain", "{}").shaped(), 503);
    }
}

#[test]
fn a_user_is_traced_for_a_while() {
    let rig = Rig::new();
    let path = "/api/v1/users/bob/trace";
    assert_eq!(rig.get(path).shaped(), 404);
    assert_eq!(rig.delete(path).shaped(), 404);
    let before = now_ms();
    let reply = rig.post(path, "");
    assert_eq!(reply.shaped(), 200);
    let trace = &reply.json()["content"];
    assert_eq!(
        (&trace["userId"], &trace["isRunning"]),
        (&json!("bob"), &json!(true))
    );
    assert_eq!(trace["events"], json!([]));
    let until = trace["until"].as_u64().unwrap();
    assert!((before + 60_000..=now_ms() + 60_000).contains(&until));
    let reply = rig.post(path, r#"{"secs":600}"#);
    assert!(reply.json()["content"]["until"].as_u64().unwrap() >= before + 600_000);
    assert_eq!(rig.get(path).json()["content"]["isRunning"], true);
    let reply = rig.delete(path);
    assert_eq!(reply.shaped(), 200);
    assert_eq!(reply.json()["content"]["isRunning"], false);
    assert_eq!(rig.get(path).json()["content"]["isRunning"], false);
    assert_eq!(rig.delete(path).shaped(), 404, "it has ended");
    for bad in [r#"{"secs":0}"#, r#"{"secs":601}"#, r#"{"secs":-1}"#, "[7"] {
        assert_eq!(rig.post(path, bad).shaped(), 400, "{bad}");
    }
    let bad = "/api/v1/users/a%20b/trace";
    assert_eq!(rig.post(bad, "{}").shaped(), 400);
    assert_eq!(
        (rig.get(bad).shaped(), rig.delete(bad).shaped()),
        (400, 400)
    );
    for n in 0..TRACES_MAX {
        let reply = rig.post(&format!("/api/v1/users/u{n}/trace"), "{}");
        assert_eq!(reply.shaped(), 200);
    }
    let reply = rig.post("/api/v1/users/late/trace", "{}");
    assert_eq!(reply.shaped(), 409);
    assert_eq!(reply.json()["content"]["reason"], "too_many_traces");
}
