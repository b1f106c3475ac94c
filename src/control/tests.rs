//! The API over real sockets, against a node whose mailboxes the test reads itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::command::ToReactor;
use crate::mailbox::{Inbox, mailbox};
use crate::parts::key::Key;
use crate::protocol::identity::Identity;
use crate::session::auth::TokenKeys;

const KEY: &str = "0123456789abcdef0123456789abcdef";

struct Rig {
    control: Control,
    node: Arc<Node>,
    roster: Arc<Roster>,
    stats: Arc<[Arc<ReactorStats>]>,
    inboxes: Vec<Inbox>,
}

/// An answer as it came.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}{}", self.head, self.body))
    }

    /// The HTTP status, after the shape was found to agree with it.
    fn shaped(&self) -> u16 {
        let json = self.json();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            ["content", "msg", "statusCode", "success"],
            "{}",
            self.body
        );
        let success = json["success"].as_bool().unwrap();
        assert_eq!(success, json["statusCode"] == 200, "{}", self.body);
        if json["statusCode"] != -501 {
            assert_eq!(json["statusCode"], self.status, "{}", self.body);
        }
        self.status
    }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(None, Auth::Hmac(TokenKeys::parse(KEY).unwrap()))
    }

    fn with(api_key: Option<&str>, auth: Auth) -> Rig {
        let listen = "127.0.0.1:0".parse().unwrap();
        let (mailboxes, inboxes) = (0..2).map(|_| mailbox().unwrap()).unzip();
        let node = Arc::new(Node::new(
            "10.0.0.7:8084".into(),
            "ws://127.0.0.1:8888/websocket".into(),
            None,
            10,
        ));
        let roster = Arc::new(Roster::default());
        let stats: Arc<[_]> = (0..2).map(|_| Arc::new(ReactorStats::default())).collect();
        let services = Services {
            node: node.clone(),
            roster: roster.clone(),
            switchboard: Switchboard::new(mailboxes),
            stats: stats.clone(),
            auth: Arc::new(auth),
            started: Instant::now(),
        };
        let options = Options::new(listen, api_key.map(str::to_owned));
        let control = serve(bind(listen).unwrap(), options, services).unwrap();
        Rig {
            control,
            node,
            roster,
            stats,
            inboxes,
        }
    }

    fn bind(&self, uid: &str, key: Key) {
        self.roster.bind(Identity::new(uid, "").unwrap(), key, 1);
    }

    fn raw(&self, request: &str) -> Reply {
        exchange(self.control.address(), request)
    }

    fn get(&self, path: &str) -> Reply {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn send(&self, body: &str) -> Reply {
        self.post("/api/v1/messages", body)
    }

    /// The tails that wait in a reactor's mailbox, by key.
    fn mail(&self, reactor: usize) -> Vec<(Key, Value)> {
        std::iter::from_fn(|| self.inboxes[reactor].next())
            .map(|command| match command {
                ToReactor::Deliver { to, tail } => {
                    let text = format!("{{{}", std::str::from_utf8(&tail).unwrap());
                    (to, serde_json::from_str(&text).unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

fn exchange(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_reply(stream)
}

fn read_reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}

#[test]
fn a_message_reaches_every_session_of_those_who_are_here() {
    let rig = Rig::new();
    let (first, second) = (Key::new(0, 1, 0), Key::new(1, 1, 0));
    rig.bind("bob", first);
    rig.bind("bob", second);
    let reply = rig.send(r#"{"to":["bob","bob"],"msg":{ "n" : 1.50 },"store":false,"requestId":"r1","uniqueMsgid":"u"}"#);
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
        r#"{"to":["eve","bob","not an id"],"msg":"hi","store":false,"from":"shop"}"#,
    );
    assert_eq!(reply.status, 200);
    let answer = reply.json();
    assert_eq!(
        (&answer["success"], &answer["statusCode"]),
        (&json!(false), &json!(-501))
    );
    assert_eq!(answer["content"], json!(["eve", "not an id"]));
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
            other => panic!("{other:?}"),
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
        (r#"{"to":["a"],"msg":1,"store":false,"delay":5}"#, "delay"),
        (r#"{"sendToAll":true,"msg":1,"delay":5}"#, "delay"),
        (
            r#"{"sendToAll":true,"msg":1,"selector":{"a":"b"}}"#,
            "selector",
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
    let reply = rig.send(r#"{"to":["a"],"msg":1}"#);
    assert_eq!(reply.shaped(), 503);
    assert_eq!(reply.json()["content"]["reason"], "store_down");
    assert!(rig.mail(0).is_empty() && rig.mail(1).is_empty());
    let exact = format!(r#"{{"to":{:?},"msg":1,"store":false}}"#, vec!["a"; 1000]);
    assert_eq!(rig.send(&exact).json()["statusCode"], -501);
}

#[test]
fn a_full_mailbox_is_said() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    rig.bind("eve", Key::new(1, 1, 0));
    let big = "x".repeat(900 << 10);
    for _ in 0..4 {
        assert_eq!(
            rig.send(&format!(r#"{{"sendToAll":true,"msg":"{big}"}}"#))
                .shaped(),
            200
        );
    }
    let reply = rig.send(&format!(
        r#"{{"sendToAll":true,"msg":"{big}{}"}}"#,
        "x".repeat(120 << 10)
    ));
    assert_eq!(reply.shaped(), 503);
    assert_eq!(reply.json()["content"]["reason"], "mailbox_full");
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
}

#[test]
fn wrong_requests_are_answered_in_the_same_shape() {
    let rig = Rig::new();
    assert_eq!(rig.get("/nothing").shaped(), 404);
    let reply = rig.get("/api/v1/messages");
    assert_eq!(reply.shaped(), 405);
    assert!(reply.head.contains("allow: post"), "{}", reply.head);
    assert!(rig.post("/metrics", "{}").head.contains("allow: get,head"));
    let untyped = "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(rig.raw(untyped).shaped(), 415);
    let exact = format!(r#"{{"userId":"a","x":"{}"}}"#, "x".repeat((1 << 20) - 21));
    assert_eq!(exact.len(), 1 << 20);
    assert_eq!(rig.post("/api/v1/tokens", &exact).shaped(), 200);
    assert_eq!(
        rig.post("/api/v1/tokens", &format!("{exact} ")).shaped(),
        413
    );
    assert_eq!(
        rig.post("/api/v1/tokens", &format!("{exact}{exact}{exact}"))
            .shaped(),
        413
    );
}

#[test]
fn a_length_that_is_given_twice_is_refused() {
    let rig = Rig::new();
    let body = "14\r\n{\"userId\":\"a\"}      \r\n0\r\n\r\n";
    let request = |lengths: &str| {
        rig.raw(&format!(
            "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n{lengths}\r\n\r\n{body}"
        ))
    };
    assert_eq!(request("Transfer-Encoding: chunked").shaped(), 200);
    assert_eq!(
        request("Transfer-Encoding: chunked\r\nContent-Length: 5").shaped(),
        400
    );
    assert_eq!(
        request("CONTENT-LENGTH: 5\r\nTransfer-Encoding: chunked").shaped(),
        400
    );
    assert_eq!(
        request("Content-Length: 5\r\nContent-Length: 6").status,
        400
    );
    assert_eq!(request("Transfer-Encoding: gzip").status, 400);
}

#[test]
fn without_a_key_only_this_machine_is_heard() {
    let rig = Rig::new();
    let ask = |host: &str, path: &str| {
        rig.raw(&format!(
            "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        ))
    };
    assert_eq!(
        ask("Host: 127.0.0.1:8084\r\n", "/api/v1/online").shaped(),
        200
    );
    assert_eq!(ask("Host: [::1]:8084\r\n", "/api/v1/online").shaped(), 200);
    assert_eq!(
        ask("Host: evil.example\r\n", "/api/v1/online").shaped(),
        403
    );
    assert_eq!(
        ask("Host: localhost\r\nHost: evil.example\r\n", "/metrics").shaped(),
        403
    );
    assert_eq!(
        ask("Host: localhost\r\n", "http://evil.example/metrics").shaped(),
        403
    );
    assert_eq!(ask("", "/").shaped(), 403);
    assert_eq!(ask("Host: evil.example\r\n", "/health").shaped(), 200);
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let address = listener.local_addr().unwrap();
    let Rig {
        node,
        roster,
        stats,
        ..
    } = rig;
    let switchboard = Switchboard::new(Vec::new());
    let services = Services {
        node,
        roster,
        switchboard,
        stats,
        auth: Arc::new(Auth::None),
        started: Instant::now(),
    };
    assert!(serve(listener, Options::new(address, None), services).is_err());
}

#[test]
fn with_a_key_everything_but_the_probes_needs_it() {
    let rig = Rig::with(Some(KEY), Auth::None);
    for path in [
        "/",
        "/metrics",
        "/api/v1/online",
        "/api/v1/messages",
        "/nothing",
    ] {
        assert_eq!(rig.get(path).status, 401, "{path}");
    }
    assert_eq!(rig.get("/api/v1/online").shaped(), 401);
    assert_eq!(rig.get("/health").shaped(), 200);
    assert_eq!(rig.get("/ready").shaped(), 200);
    let ask = |key: &str| {
        rig.raw(&format!("GET /api/v1/online HTTP/1.1\r\nHost: far.example\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n"))
    };
    assert_eq!(ask(KEY).shaped(), 200);
    assert_eq!(ask(&KEY[1..]).shaped(), 401);
}

#[test]
fn the_page_lets_nothing_foreign_run() {
    let page = Rig::with(Some(KEY), Auth::None).get("/");
    assert!(
        page.body.contains("<title>Throng</title>") && page.body.contains("setTimeout(refresh")
    );
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'; script-src 'sha256-")
    );
    assert!(page.head.contains("x-content-type-options: nosniff"));
    assert!(!page.body.contains("://"), "nothing comes from elsewhere");
    assert_eq!(Rig::new().get("/").status, 200);
}

#[test]
fn a_draining_node_is_neither_healthy_nor_ready() {
    let rig = Rig::new();
    assert_eq!(
        (rig.get("/health").shaped(), rig.get("/ready").shaped()),
        (200, 200)
    );
    rig.node.start_draining();
    assert_eq!(
        (rig.get("/health").shaped(), rig.get("/ready").shaped()),
        (503, 503)
    );
}

#[test]
fn who_is_online_is_counted() {
    let rig = Rig::new();
    rig.bind("bob", Key::new(0, 1, 0));
    rig.bind("bob", Key::new(0, 2, 0));
    let reply = rig.get("/api/v1/online");
    assert_eq!(reply.shaped(), 200);
    let expected = json!({"onlineNum": 2, "users": 1, "nodes": {"10.0.0.7:8084": 2}});
    assert_eq!(reply.json()["content"], expected);
}

#[test]
fn the_metrics_are_the_reactors_numbers() {
    let rig = Rig::new();
    rig.stats[0].accepted.add(3);
    rig.stats[1].accepted.add(4);
    rig.stats[0].count_close(4401);
    rig.stats[1].count_refusal(499);
    rig.stats[1].count_turn(150);
    rig.stats[1].queued_bytes.set(77);
    rig.node.admit();
    rig.get("/nothing");
    let reply = rig.get("/metrics");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("application/openmetrics-text"));
    for line in [
        "throng_accepted_total 7",
        "throng_closes_total{code=\"4401\"} 1",
        "throng_refusals_total{status=\"other\"} 1",
        "throng_turn_seconds_bucket{le=\"0.00005\",reactor=\"1\"} 0",
        "throng_turn_seconds_bucket{le=\"0.0002\",reactor=\"1\"} 1",
        "throng_turn_seconds_bucket{le=\"+Inf\",reactor=\"1\"} 1",
        "throng_turn_seconds_count{reactor=\"1\"} 1",
        "throng_write_queue_bytes{reactor=\"1\"} 77.0",
        "throng_connections 1",
        "throng_connections_max 10",
        "throng_api_requests_total{status=\"404\"} 1",
        "# TYPE throng_turn_seconds histogram",
        "# UNIT throng_received_bytes bytes",
        "# EOF",
    ] {
        assert!(
            reply.body.lines().any(|l| l == line),
            "{line} is not in\n{}",
            reply.body
        );
    }
}

#[test]
fn a_head_that_does_not_come_is_not_awaited_for_long() {
    let rig = Rig::new();
    let begin = Instant::now();
    let mut torn = TcpStream::connect(rig.control.address()).unwrap();
    torn.write_all(b"GET /health HTTP/1.1\r\nHost: ").unwrap();
    let mut mute = TcpStream::connect(rig.control.address()).unwrap();
    assert_eq!(read_reply(torn).shaped(), 408);
    let mut rest = Vec::new();
    mute.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "who says nothing is told nothing");
    assert!((4..8).contains(&begin.elapsed().as_secs()));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let Rig { control, .. } = Rig::new();
    let address = control.address();
    let mut idle = TcpStream::connect(address).unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    idle.write_all(request).unwrap();
    assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
    let begin = Instant::now();
    control.stop();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0);
}
