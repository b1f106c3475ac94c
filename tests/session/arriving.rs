//! The upgrade: who gets in, and what the others are told.

use super::rig::feed::Feed;
use super::rig::wire::{self, Frame, Heard};
use super::rig::{Peer, Rig};
use super::status;
use throng::session::host::Counted;
use throng::session::rules::Origins;
use throng::session::{Newcomer, Phase};

/// The answer to the upgrade of one who is then bound.
fn bound(rig: &mut Rig, peer: Peer) -> String {
    match &rig.heard(peer)[..] {
        [Heard::Http(101, head), Heard::Text(_)] => head.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_is_taken_from_the_query_the_header_or_the_subprotocol() {
    let mut rig = Rig::new();
    let token = rig.token("rose");
    let encoded = token.replace('.', "%2E").replace('-', "%2d");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let offer = format!("Sec-WebSocket-Protocol: throng, bearer.{token}\r\n");
    for (target, fields) in [
        (format!("/websocket?token={token}"), ""),
        (format!("/websocket?a=b&token={encoded}&token=other"), ""),
        ("/websocket".to_owned(), bearer.as_str()),
        ("/websocket?a=b".to_owned(), offer.as_str()),
    ] {
        let peer = rig.connect_with(&target, fields);
        let head = bound(&mut rig, peer);
        let is_chosen = head.contains("Sec-WebSocket-Protocol: throng\r\n");
        assert_eq!(
            is_chosen,
            fields == offer,
            "the offer is answered, and only it"
        );
        assert!(
            !head.contains(&token),
            "the token comes back in no header field"
        );
    }
    assert_eq!(rig.counts(), (1, 4));
}

#[test]
fn the_first_source_of_a_token_counts() {
    let mut rig = Rig::new();
    let (rose, eve) = (rig.token("rose"), rig.token("eve"));
    let fields = format!("Authorization: Bearer {eve}\r\n");
    let peer = rig.connect_with(&format!("/websocket?token={rose}"), &fields);
    let heard = rig.heard(peer);
    assert_eq!(heard[1].json()["msg"]["userId"], "rose");
    let peer = rig.connect_with("/websocket?token=bad", &fields);
    assert_eq!(
        status(&mut rig, peer),
        401,
        "a bad one is not made good by another"
    );
}

#[test]
fn a_bad_token_is_refused_before_the_upgrade() {
    let mut rig = Rig::new();
    let good = rig.token("rose");
    let expired = rig.token_until("rose", "", rig.now.wall_ms);
    let flipped = good.replace(&good[..1], if good.starts_with('x') { "y" } else { "x" });
    let unsigned = good.split_once('.').unwrap().0;
    for bad in [
        ".",
        "x",
        &expired,
        &flipped,
        unsigned,
        &format!("{unsigned}."),
        "%ff",
    ] {
        let fields = format!("Authorization: Bearer {bad}\r\n");
        let offer = format!("Sec-WebSocket-Protocol: throng, bearer.{bad}\r\n");
        for (target, fields) in [
            (format!("/websocket?token={bad}"), ""),
            ("/websocket".to_owned(), fields.as_str()),
            ("/websocket".to_owned(), offer.as_str()),
        ] {
            let peer = rig.connect_with(&target, fields);
            match &rig.heard(peer)[..] {
                [Heard::Http(401, answer)] => {
                    assert!(bad.len() < 3 || !answer.contains(bad), "it is not repeated");
                }
                other => panic!("{bad}: {other:?}"),
            }
            rig.say_bytes(peer, b"GET /health HTTP/1.1\r\n\r\n");
            assert_eq!(
                rig.heard(peer),
                [],
                "nothing is heard behind a refused upgrade"
            );
        }
    }
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn without_a_token_one_is_upgraded_and_in_no_roster() {
    let mut rig = Rig::new();
    rig.guest();
    assert_eq!(rig.counts(), (0, 0));
}

#[test]
fn an_upgrade_may_come_in_any_pieces_with_frames_behind_it() {
    for feed in Feed::all() {
        let mut rig = Rig::new();
        rig.feed = feed.clone();
        let peer = rig.knock(Newcomer::Admitted);
        let mut bytes =
            wire::head(&format!("/websocket?token={}", rig.token("rose")), "").into_bytes();
        bytes.extend(Frame::text(r#"{"msgType":3}"#).encode(&mut super::rig::feed::Chance(5)));
        rig.say_bytes(peer, &bytes);
        let heard = rig.heard(peer);
        assert_eq!(heard.len(), 3, "{heard:?}, fed {feed:?}");
        // The notice waits for the store, the heartbeat's answer does not.
        let kinds = [1, 2].map(|at| heard[at].json()["msgType"].as_u64());
        assert!(kinds.contains(&Some(0)) && kinds.contains(&Some(4)));
    }
}

#[test]
fn behind_a_proxy_a_request_may_come_in_any_pieces_too() {
    let header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x30\x39\x22\xb8";
    let request = wire::head("/websocket", "");
    let spoken = [&header[..], request.as_bytes()].concat();
    let client = Some([192, 0, 2, 7].into());
    let empty_lines_first = ["\r\n", &*request].concat();
    // An end of a request, and as much of a header.
    let not_http = b"\r\n\r\n(".to_vec();
    for (bytes, proxied, expected) in [
        (spoken, vec![client], 101),
        (empty_lines_first.into_bytes(), vec![], 101),
        (not_http, vec![], 400),
    ] {
        for feed in Feed::all() {
            let mut rig = Rig::new();
            rig.feed = feed.clone();
            let peer = rig.knock(Newcomer::Admitted);
            rig.trust(peer);
            rig.say_bytes(peer, &bytes);
            assert_eq!(status(&mut rig, peer), expected, "fed {feed:?}");
            assert_eq!(rig.desk.proxied, proxied);
        }
    }
}

#[test]
fn every_wrong_request_has_its_status() {
    let good = wire::head("/websocket", "");
    let cases = [
        (good.replace("/websocket", "/other"), 404),
        (good.replace("/websocket", "/websocket/"), 404),
        (good.replace("GET", "POST"), 405),
        (good.replace("Host: h\r\n", ""), 400),
        (good.replace("Upgrade: websocket\r\n", ""), 400),
        (good.replace("Version: 13", "Version: 12"), 426),
        (good.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (good.replace("Host: h", "Host: h\r\nContent-Length: 3"), 400),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\r\n\r\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
    ];
    for (request, expected) in cases {
        for feed in Feed::all() {
            let mut rig = Rig::new();
            rig.feed = feed.clone();
            let peer = rig.knock(Newcomer::Admitted);
            rig.say_bytes(peer, request.as_bytes());
            assert_eq!(
                status(&mut rig, peer),
                expected,
                "{request:?}, fed {feed:?}"
            );
            assert_eq!(rig.phase(peer), Phase::Lingering);
        }
    }
    let mut rig = Rig::new();
    let peer = rig.connect_with("/websocket", "Sec-WebSocket-Version: 8\r\n");
    assert_eq!(status(&mut rig, peer), 426, "two versions are none");
    let peer = rig.knock(Newcomer::Admitted);
    rig.say_bytes(peer, good.replace("Version: 13", "Version: 12").as_bytes());
    let heard = rig.heard(peer);
    assert!(
        matches!(&heard[..], [Heard::Http(426, answer)] if answer.contains("\r\nSec-WebSocket-Version: 13\r\n"))
    );
}

#[test]
fn only_listed_origins_get_in_where_there_is_a_list() {
    let mut rig = Rig::with(|rules| {
        rules.origins = Origins::Listed(vec!["https://app.example.org".to_owned()])
    });
    for (fields, expected) in [
        ("", 101),
        ("Origin: https://app.example.org\r\n", 101),
        ("Origin: https://app.example.org:444\r\n", 403),
        ("Origin: https://evil.example.org\r\n", 403),
        ("Origin: null\r\n", 403),
    ] {
        let peer = rig.connect_with("/websocket", fields);
        assert_eq!(status(&mut rig, peer), expected, "{fields}");
    }
    let mut rig = Rig::new();
    let peer = rig.connect_with("/websocket", "Origin: https://any.example.org\r\n");
    assert_eq!(status(&mut rig, peer), 101, "no list, no limit");
}

/// What a request of these sizes is answered: bytes of the request line without its end, bytes
/// of the header fields with their ends, number of fields.
fn answer_to(line: usize, fields: usize, count: usize, feed: Feed) -> u16 {
    let bare = wire::head("/echo?", "");
    let (first, rest) = bare.split_once("\r\n").unwrap();
    let long = first.replace('?', &format!("?{}", "x".repeat(line - first.len())));
    let small = "X: y\r\n".repeat(count.saturating_sub(6));
    let filler = (fields + 2).saturating_sub(rest.len() + small.len() + "Y: \r\n".len());
    let filler = format!("Y: {}\r\n", "z".repeat(filler));
    let request = format!("{long}\r\n{small}{filler}{rest}");
    let mut rig = Rig::new();
    rig.feed = feed;
    let peer = rig.knock(Newcomer::Admitted);
    rig.say_bytes(peer, request.as_bytes());
    status(&mut rig, peer)
}

#[test]
fn a_request_is_refused_one_byte_past_its_limits_however_it_arrives() {
    for feed in Feed::all() {
        let answer = |line, fields, count| answer_to(line, fields, count, feed.clone());
        for (line, expected) in [(4095, 101), (4096, 101), (4097, 414), (9000, 414)] {
            assert_eq!(
                answer(line, 300, 6),
                expected,
                "a line of {line}, fed {feed:?}"
            );
        }
        for (fields, expected) in [(8191, 101), (8192, 101), (8193, 431), (20_000, 431)] {
            assert_eq!(
                answer(100, fields, 6),
                expected,
                "fields of {fields}, fed {feed:?}"
            );
        }
        for (count, expected) in [(63, 101), (64, 101), (65, 431)] {
            assert_eq!(
                answer(100, 1000, count),
                expected,
                "{count} fields, fed {feed:?}"
            );
        }
        assert_eq!(
            answer(4096, 8192, 64),
            101,
            "all limits at once, fed {feed:?}"
        );
    }
}

#[test]
fn a_request_that_never_ends_is_refused_while_it_grows() {
    for (start, expected) in [("GET /", 414), ("GET / HTTP/1.1\r\nX: ", 431)] {
        let mut rig = Rig::new();
        let peer = rig.knock(Newcomer::Admitted);
        rig.say_bytes(peer, start.as_bytes());
        let mut said = 0;
        while rig.phase(peer) == Phase::Handshake {
            rig.say_bytes(peer, b"a");
            said += 1;
            assert!(said < 9000);
        }
        assert_eq!(status(&mut rig, peer), expected);
    }
}

#[test]
fn a_balancer_may_ask_for_health_where_clients_connect() {
    let ask = |rig: &mut Rig, request: &str| {
        let peer = rig.knock(Newcomer::Admitted);
        rig.say_bytes(peer, request.as_bytes());
        assert_eq!(rig.phase(peer), Phase::Lingering, "it closes");
        status(rig, peer)
    };
    let mut rig = Rig::new();
    assert_eq!(
        ask(&mut rig, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"),
        200
    );
    assert_eq!(ask(&mut rig, "GET /health HTTP/1.0\r\n\r\n"), 200);
    assert_eq!(ask(&mut rig, "POST /health HTTP/1.1\r\n\r\n"), 404);
    rig.desk.is_draining = true;
    assert_eq!(ask(&mut rig, "GET /health HTTP/1.1\r\n\r\n"), 503);
}

#[test]
fn one_more_than_fit_is_told_where_to_go() {
    let mut rig = Rig::new();
    let token = rig.token("rose");
    let peer = rig.knock(Newcomer::Surplus);
    let request = wire::head(&format!("/websocket?token={token}"), "");
    rig.say_bytes(peer, request.as_bytes());
    match &rig.heard(peer)[..] {
        [Heard::Http(101, _), Heard::Close(Some(1013), reason)] => {
            let reason: serde_json::Value = serde_json::from_str(reason).unwrap();
            assert!(reason["retryMs"].is_u64());
            assert_eq!(reason["to"], "wss://ws2.example.org/websocket");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.counts(), (0, 0), "it never was in the roster");
    assert!(rig.desk.counted.contains(&Counted::Farewell));
    let peer = rig.knock(Newcomer::Surplus);
    rig.say_bytes(peer, b"GET /health HTTP/1.1\r\n\r\n");
    assert_eq!(status(&mut rig, peer), 200, "a full node is healthy");
}

#[test]
fn a_node_that_drains_closes_1012_who_is_there_and_who_comes() {
    let mut rig = Rig::new();
    let rose = rig.user("rose");
    let torn = rig.knock(Newcomer::Admitted);
    rig.desk.is_draining = true;
    rig.dismiss(rose, 1012);
    match &rig.heard(rose)[..] {
        [Heard::Close(Some(1012), reason)] => assert!(reason.starts_with("{\"retryMs\":")),
        other => panic!("{other:?}"),
    }
    assert_eq!(rig.counts(), (0, 0));
    let late = rig.connect("/websocket");
    assert!(matches!(
        rig.heard(late)[..],
        [Heard::Http(101, _), Heard::Close(Some(1012), _)]
    ));
    rig.dismiss(torn, 1012);
    assert_eq!(
        status(&mut rig, torn),
        503,
        "before the upgrade there is no close frame"
    );
}

#[test]
fn a_handshake_has_ten_seconds_however_busy_it_looks() {
    let mut rig = Rig::new();
    let silent = rig.knock(Newcomer::Admitted);
    let slow = rig.knock(Newcomer::Admitted);
    for byte in wire::head("/websocket", "").bytes().take(100) {
        rig.say_bytes(slow, &[byte]);
        rig.advance_ticks(1);
    }
    assert_eq!(rig.phase(slow), Phase::Handshake, "not before 10 s");
    rig.advance_ticks(1);
    assert_eq!(status(&mut rig, slow), 408);
    assert!(rig.is_gone(silent));
    assert_eq!(rig.heard(silent), [], "who said nothing hears nothing");
    rig.advance_ticks(11);
    assert!(rig.is_gone(slow));
}
