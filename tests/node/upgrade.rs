//! The opening handshake over real sockets: every refusal, and what stands around a request.

use serde_json::json;

use crate::support::client::{dial, request, status};
use crate::support::http::call;
use crate::support::{Client, Node, Setup};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Sends a request as it is and returns the whole answer.
fn answer(node: &Node, text: &str) -> String {
    let mut client = Client::over(dial(node.ws));
    client.write(text.as_bytes());
    client.read_head() + &client.read_to_end()
}

fn answers_in(text: &str) -> usize {
    text.lines()
        .filter(|line| line.starts_with("HTTP/1.1 ") && line.as_bytes()[9].is_ascii_digit())
        .count()
}

#[test]
fn every_refusal_has_its_status_and_closes() {
    let node = Node::start(&[]);
    let good = request("/websocket", &[]);
    let long = "x".repeat(4096);
    let fields: Vec<String> = (0..70).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = fields.iter().map(String::as_str).collect();
    for (expected, text) in [
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, good.replace("Host: node.test\r\n", "")),
        (400, request("/websocket", &["Host: twice"])),
        (400, request("/websocket", &["Content-Length: 5"]) + "hello"),
        (
            400,
            request("/websocket", &["Transfer-Encoding: chunked"]) + "0\r\n\r\n",
        ),
        (400, good.replace("Upgrade: websocket\r\n", "")),
        (400, good.replace(KEY, "")),
        (
            400,
            good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
        ),
        (
            400,
            request("/websocket", &["Origin: http://a", "Origin: http://b"]),
        ),
        (401, request("/websocket?token=bad", &[])),
        (404, request("/elsewhere", &[])),
        (405, good.replace("GET", "POST")),
        (414, request(&format!("/websocket?token={long}"), &[])),
        (426, good.replace("Version: 13", "Version: 8")),
        (431, request("/websocket", &many)),
        (431, request("/websocket", &[&format!("X: {long}{long}")])),
        (505, good.replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        let answer = answer(&node, &text);
        assert_eq!(status(&answer), expected, "{text} {answer}");
        assert!(answer.contains("\r\nConnection: close"), "{answer}");
        assert_eq!(answers_in(&answer), 1, "{answer}");
    }
    let versions = answer(&node, &good.replace("Version: 13", "Version: 8"));
    assert!(
        versions.contains("\r\nSec-WebSocket-Version: 13\r\n"),
        "{versions}"
    );
    node.awaits_emptiness();
    node.serves();
}

#[test]
fn nothing_behind_a_refused_request_is_answered() {
    let node = Node::start(&[]);
    let bad = request("/elsewhere", &[]);
    let smuggled = request(&format!("/websocket?token={}", node.token("eve")), &[]);
    let probe = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    for (first, second) in [
        (bad.as_str(), smuggled.as_str()),
        (bad.as_str(), probe),
        (probe, smuggled.as_str()),
        // A body that is a request of its own.
        (&request("/websocket", &["Content-Length: 44"]), probe),
    ] {
        let answer = answer(&node, &format!("{first}{second}"));
        assert_eq!(answers_in(&answer), 1, "{answer}");
        assert_ne!(status(&answer), 101);
    }
    assert_eq!(node.metric("sessions"), 0.0);
    // The same in two pieces: the second comes when the answer is there.
    let mut client = Client::over(dial(node.ws));
    client.write(bad.as_bytes());
    assert_eq!(status(&client.read_head()), 404);
    client.write(smuggled.as_bytes());
    assert!(!client.read_to_end().contains("HTTP/1.1"));
}

#[test]
fn a_frame_may_come_with_the_request_in_one_packet() {
    let node = Node::start(&[]);
    let target = format!("/websocket?token={}", node.token("alice"));
    let mut bytes = request(&target, &[]).into_bytes();
    let ping = br#"{"path":"ping","requestId":"first"}"#;
    bytes.extend(crate::support::frame::encode(0x81, ping));
    let mut client = Client::over(dial(node.ws));
    client.write(&bytes);
    client.expect_upgrade().unwrap();
    // The notice waits for the store, the answer does not.
    let heard = [client.hear(), client.hear()];
    assert!(heard.iter().any(|message| message["msgType"] == 0));
    assert!(heard.iter().any(|message| message["requestId"] == "first"));
    client.leave();
}

#[test]
fn a_request_may_come_a_byte_a_packet() {
    let node = Node::start(&[]);
    let target = format!("/websocket?token={}", node.token("alice"));
    let padding = format!("X-Padding: {}", "p".repeat(6000));
    let mut client = Client::over(dial(node.ws));
    for byte in request(&target, &[&padding]).bytes() {
        client.write(&[byte]);
    }
    client.expect_upgrade().unwrap();
    assert_eq!(client.hear()["msg"]["userId"], "alice");
    client.leave();
}

#[test]
fn limits_of_the_head_hold_to_the_byte() {
    let config = "[limits]\nrequest_line_bytes_max = 200\nheaders_max = 12\n";
    let node = Setup::new().config(config).start();
    // Method, two spaces and version are part of the line.
    let line = |bytes: usize| {
        let query = "q".repeat(bytes - "GET /websocket? HTTP/1.1".len());
        request(&format!("/websocket?{query}"), &[])
    };
    let upgraded = |text: &str| {
        let mut client = Client::over(dial(node.ws));
        client.write(text.as_bytes());
        status(&client.read_head())
    };
    assert_eq!([199, 200, 201].map(|n| upgraded(&line(n))), [101, 101, 414]);
    // Five fields are always there.
    let fields = |count: usize| request("/websocket", &vec!["X: 1"; count - 5]);
    assert_eq!([11, 12, 13].map(|n| upgraded(&fields(n))), [101, 101, 431]);
}

#[test]
fn a_balancer_may_probe_the_port_of_the_clients() {
    let node = Node::start(&[]);
    for _ in 0..3 {
        let answer = call(node.ws, "GET", "/health", &[], "");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    }
    node.awaits_emptiness();
}

#[test]
fn extensions_are_declined_and_the_one_subprotocol_is_chosen_wherever_it_is_offered() {
    let node = Node::start(&[]);
    let query = format!("?token={}", node.token("alice"));
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    for (offer, is_chosen) in [("chat, throng", true), ("chat", false)] {
        let protocols = format!("Sec-WebSocket-Protocol: {offer}");
        let mut client = node.open(&query, &[deflate, &protocols]).unwrap();
        let head = client.head.to_ascii_lowercase();
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        let chosen = head.contains("\r\nsec-websocket-protocol: throng\r\n");
        assert_eq!(chosen, is_chosen, "{head}");
        assert_eq!(client.hear()["msg"]["userId"], "alice");
    }
}

#[test]
fn the_rest_of_the_query_is_metadata_up_to_a_limit() {
    let node = Node::start(&[]);
    let token = node.token("alice");
    let open = |rest: &str| node.open(&format!("?token={token}&{rest}"), &[]);
    let query = "os=i%20os&device=tv&cursor=e1:1&ack=1&openid=eve&=x&os=linux&app=";
    let mut client = open(query).unwrap();
    client.hear();
    let content = node.get("/api/v1/users/alice").content();
    let session = &content["sessions"][0];
    assert_eq!(session["metadata"], json!({"os": "i os", "app": ""}));
    assert_eq!(session["device"], "tv");
    let pairs = |count: usize| (0..count).map(|n| format!("k{n}=v&")).collect::<String>();
    let bytes = |count: usize| format!("k={}", "v".repeat(count - 1));
    for good in [pairs(8), bytes(256)] {
        assert!(open(&good).is_ok(), "{good}");
    }
    for bad in [
        pairs(9),
        bytes(257),
        "device=".to_owned(),
        "device=a%2Fb".to_owned(),
        "cursor=7".to_owned(),
        "cursor=x:7".to_owned(),
    ] {
        let answer = open(&bad).err().expect(&bad);
        assert_eq!(status(&answer), 400, "{bad}");
    }
}
