//! Who is heard, in what shape answers come, and how connections end.

use super::*;

#[test]
fn wrong_requests_are_answered_in_the_same_shape() {
    let rig = Rig::new();
    assert_eq!(rig.get("/nothing").shaped(), 404);
    let reply = rig.get("/api/v1/messages");
    assert_eq!(reply.shaped(), 405);
    assert!(reply.head.contains("allow: post"), "{}", reply.head);
    assert!(rig.post("/metrics", "{}").head.contains("allow: get,head"));
    let untyped = "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                   Content-Length: 2\r\n\r\n{}";
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
            "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\n{lengths}\r\n\r\n{body}"
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
        node, post, stats, ..
    } = rig;
    let services = Services {
        node,
        post,
        traces: Arc::default(),
        switchboard: Switchboard::new(Vec::new()),
        store: store(),
        away: AwayBox::default(),
        cluster: Arc::default(),
        store_stats: Arc::default(),
        stats,
        drain: crossbeam_channel::bounded(1).0,
        started: Instant::now(),
        seed: [1, 2],
    };
    assert!(!address.ip().is_loopback());
    assert!(serve(listener, live(None, Auth::None), services).is_err());
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
        rig.raw(&format!(
            "GET /api/v1/online HTTP/1.1\r\nHost: far.example\r\nConnection: close\r\n\
             Authorization: Bearer {key}\r\n\r\n"
        ))
    };
    assert_eq!(ask(KEY).shaped(), 200);
    assert_eq!(ask(&KEY[1..]).shaped(), 401);
}

#[test]
fn another_key_and_other_limits_hold_from_the_next_request_on() {
    let rig = Rig::with(Some(KEY), Auth::None);
    let ask = |key: &str, body: &str| {
        let length = body.len();
        let reply = rig.raw(&format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ));
        reply.shaped()
    };
    let body = r#"{"sendToAll":true,"msg":{"x":[1]}}"#;
    assert_eq!(ask(KEY, body), 200);
    let other = "f".repeat(32);
    let with = |change: &dyn Fn(&mut Limits)| {
        let mut new = live(Some(&other), Auth::None);
        change(&mut Arc::get_mut(&mut new.rules).unwrap().limits);
        rig.control.reload(new);
    };
    with(&|_| {});
    assert_eq!((ask(KEY, body), ask(&other, body)), (401, 200));
    with(&|limits| limits.json_depth_max = 1);
    assert_eq!(ask(&other, body), 400);
    with(&|limits| limits.http_body_bytes_max = body.len() - 1);
    assert_eq!(ask(&other, body), 413);
    with(&|limits| limits.http_body_bytes_max = body.len());
    assert_eq!(ask(&other, body), 200);
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
fn a_full_node_is_healthy_and_not_ready() {
    let rig = Rig::new();
    assert!((0..10).all(|_| rig.node.admit()));
    let reply = rig.get("/ready");
    assert_eq!(reply.shaped(), 503);
    assert_eq!(reply.json()["content"]["reason"], "full");
    assert_eq!(rig.get("/health").shaped(), 200);
    rig.node.leave();
    assert_eq!(rig.get("/ready").shaped(), 200);
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
