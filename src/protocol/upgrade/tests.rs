//! Good handshakes, and every fault with its status.

use super::*;

const GOOD: &str = "GET /websocket?token=a%2Bb&x=1 HTTP/1.1\r\nHost: h:8888\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn status(head: &str) -> u16 {
    let limits = Limits::default();
    let end = match head_end(head.as_bytes(), 0, &limits) {
        Ok(end) => end.expect("a whole head"),
        Err(refusal) => return refusal.status,
    };
    let answer = Request::parse(&head.as_bytes()[..end], &limits)
        .and_then(|request| request.origin().and(request.accept_key()));
    answer.map_or_else(|refusal| refusal.status, |_| 101)
}

#[test]
fn a_good_handshake_is_accepted() {
    let request = Request::parse(GOOD.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(
        request.accept_key().unwrap(),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert_eq!(
        (request.path, request.token().as_deref()),
        ("/websocket", Some("a+b"))
    );
    let mut out = Vec::new();
    request.write_accept("KEY", &mut out);
    assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"Accept: KEY\r\n\r\n"));
}

#[test]
fn every_source_of_a_token_is_read_in_its_order() {
    let parse = |head: &str| {
        let request = Request::parse(head.as_bytes(), &Limits::default()).unwrap();
        let mut out = Vec::new();
        request.write_accept("K", &mut out);
        let answers = String::from_utf8(out)
            .unwrap()
            .contains("Protocol: throng\r\n");
        (request.token().map(Cow::into_owned), answers)
    };
    let with = |fields: &str| GOOD.replace("\r\n\r\n", &format!("\r\n{fields}\r\n\r\n"));
    let bare = |fields: &str| with(fields).replace("token=a%2Bb&", "");
    let bearer = "Authorization: bearer B.b";
    let offered = "Sec-WebSocket-Protocol: throng, bearer.C.c";
    assert_eq!(parse(&with(bearer)), (Some("a+b".into()), false));
    assert_eq!(
        parse(&bare(&format!("{bearer}\r\n{offered}"))),
        (Some("B.b".into()), true)
    );
    assert_eq!(parse(&bare(offered)), (Some("C.c".into()), true));
    assert_eq!(parse(&bare("Sec-WebSocket-Protocol: chat")), (None, false));
}

#[test]
fn every_field_of_proxies_is_seen_in_its_order() {
    let seen = |fields: &[u8]| {
        let head = GOOD.strip_suffix("\r\n").unwrap().as_bytes();
        let head = [head, fields, b"\r\n"].concat();
        let request = Request::parse(&head, &Limits::default()).unwrap();
        assert!(request.accept_key().is_ok());
        let seen = request
            .forwarded_for()
            .iter()
            .map(|&field| field.to_owned());
        seen.collect::<Vec<String>>()
    };
    assert_eq!(seen(b""), [""; 0]);
    assert_eq!(
        seen(b"X-Forwarded-For: 1.2.3.4 , ::1 \r\n"),
        ["1.2.3.4 , ::1"]
    );
    let several = b"x-forwarded-for: a\r\nX-Other: b\r\nX-FORWARDED-FOR:\r\nX-Forwarded-For: c\r\n";
    assert_eq!(seen(several), ["a", "", "c"]);
    assert_eq!(
        seen(b"X-Forwarded-For: \xff\r\nX-Forwarded-For: d\r\n"),
        ["", "d"]
    );
}

#[test]
fn every_fault_has_its_status() {
    assert_eq!(status(GOOD), 101);
    let cases = [
        (GOOD.replace("GET", "POST"), 405),
        (GOOD.replace("HTTP/1.1", "HTTP/1.0"), 505),
        (GOOD.replace("HTTP/1.1", "HTTP/2.0"), 505),
        (GOOD.replace("Host: h:8888\r\n", ""), 400),
        (GOOD.replace("Host: h:8888", "Host: h\r\nHost: i"), 400),
        (GOOD.replace("Upgrade: WebSocket\r\n", ""), 400),
        (GOOD.replace("keep-alive, Upgrade", "keep-alive"), 400),
        (GOOD.replace("Version: 13", "Version: 8"), 426),
        (GOOD.replace("Sec-WebSocket-Version: 13\r\n", ""), 426),
        (GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (
            GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=!"),
            400,
        ),
        (
            GOOD.replace("Host: h:8888", "Host: h\r\nContent-Length: 5"),
            400,
        ),
        (
            GOOD.replace("Host: h:8888", "Host: h\r\nTransfer-Encoding: chunked"),
            400,
        ),
        (
            GOOD.replace("Host: h:8888", "Host: h\r\nOrigin: a\r\nOrigin: b"),
            400,
        ),
        (GOOD.replace("Host: h", "Host : h"), 400),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        (GOOD.replace("x=1", &"x".repeat(4097)), 414),
        (
            GOOD.replace("Host: h", &format!("X: {}\r\nHost: h", "x".repeat(8192))),
            431,
        ),
        (
            GOOD.replace("Host: h", &format!("{}Host: h", "X: y\r\n".repeat(60))),
            431,
        ),
    ];
    for (head, expected) in cases {
        assert_eq!(status(&head), expected, "{head}");
    }
    assert_eq!(
        status(&GOOD.replace("Host: h", &format!("{}Host: h", "X: y\r\n".repeat(59)))),
        101
    );
}

#[test]
fn a_head_is_bounded_before_it_ends() {
    let limits = Limits::default();
    let line = |length| [&vec![b'a'; length], &b"\r"[..]].concat();
    assert_eq!(head_end(&line(4096), 0, &limits), Ok(None));
    assert_eq!(head_end(&line(4097), 0, &limits).unwrap_err().status, 414);
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    head.resize(head.len() + 8192, b'a');
    head.extend(b"\r\n");
    assert_eq!(head_end(&head, 0, &limits), Ok(None));
    head.extend(b"\r");
    assert_eq!(head_end(&head, 0, &limits).unwrap_err().status, 431);
}

#[test]
fn a_probe_by_head_gets_no_body() {
    let answer = |method: &str| {
        let head = format!("{method} /health HTTP/1.1\r\nHost: h\r\n\r\n");
        let request = Request::parse(head.as_bytes(), &Limits::default()).unwrap();
        assert!(request.is_health_probe());
        let mut out = Vec::new();
        write_health(&request, false, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert!(answer("GET").ends_with("\r\n\r\nok\n"));
    assert!(answer("HEAD").ends_with("Content-Length: 3\r\n\r\n"));
}

#[test]
fn another_protocol_is_known_by_its_first_byte() {
    let limits = Limits::default();
    assert_eq!(head_end(b"\x16", 0, &limits).unwrap_err().status, 400);
    assert_eq!(head_end(b"\r\nG", 0, &limits), Ok(None));
}

#[test]
fn a_foreign_page_cannot_claim_to_be_local() {
    for local in [
        "http://localhost",
        "https://LOCALHOST:1",
        "http://127.0.0.9:80",
        "http://[::1]:3",
    ] {
        assert!(is_loopback_origin(local), "{local}");
    }
    for foreign in [
        "null",
        "http://localhost.evil.com",
        "http://10.0.0.1",
        "file://",
        "http://127.0.0.1.nip.io",
    ] {
        assert!(!is_loopback_origin(foreign), "{foreign}");
    }
}
