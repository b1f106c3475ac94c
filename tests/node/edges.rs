//! Limits to the last one: one below, just at it, one past it; and lengths beyond all of them.

use serde_json::{Value, json};

use crate::support::client::{dial, request, status};
use crate::support::frame::{MASK, encode, whole};
use crate::support::http::call;
use crate::support::{Client, Node, Opcode};

/// What became of something with each of these sizes.
fn three<T>(limit: usize, mut of: impl FnMut(usize) -> T) -> [T; 3] {
    [limit - 1, limit, limit + 1].map(&mut of)
}

/// The code of the answer to a command, 200 where it is no error.
fn code(client: &mut Client, message: &Value) -> u64 {
    client.say(message);
    let answer = client.hear();
    match answer["type"].as_u64() {
        Some(500) => answer["params"]["code"].as_u64().unwrap(),
        _ => 200,
    }
}

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("v{n}")).collect()
}

#[test]
fn a_display_name_has_64_bytes() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let named = |name: &str| json!({"type": 7, "params": {"openid": "alice", "userName": name}});
    let plain = |bytes| named(&"n".repeat(bytes));
    assert_eq!(three(64, |n| code(&mut alice, &plain(n))), [200, 200, 400]);
    // Bytes, not characters: three of them each.
    let chinese = |characters| named(&"名".repeat(characters));
    assert_eq!(
        three(21, |n| code(&mut alice, &chinese(n))),
        [200, 200, 400]
    );
    let user = node.get("/api/v1/users/alice").content();
    assert_eq!(user["userName"], "名".repeat(21));
    let order = |bytes| json!({"userId": "bob", "userName": "n".repeat(bytes)});
    let made = |bytes| node.post("/api/v1/tokens", &order(bytes)).status;
    assert_eq!(three(64, made), [200, 200, 400]);
}

#[test]
fn a_connection_has_8_pairs_of_metadata_and_256_bytes() {
    let node = Node::start(&["--auth", "none"]);
    let upgraded = |query: &str| match node.open(&format!("?openid=alice&{query}"), &[]) {
        Ok(_) => 101,
        Err(answer) => status(&answer),
    };
    let pairs = |count: usize| {
        let pairs: Vec<String> = (0..count).map(|n| format!("k{n}=v")).collect();
        pairs.join("&")
    };
    assert_eq!(three(8, |n| upgraded(&pairs(n))), [101, 101, 400]);
    // Key and value together, as they are once decoded.
    let bytes = |count: usize| format!("k%31={}", "%41".repeat(count - 2));
    assert_eq!(three(256, |n| upgraded(&bytes(n))), [101, 101, 400]);
    let device = |count: usize| format!("device={}", "d".repeat(count));
    assert_eq!(three(64, |n| upgraded(&device(n))), [101, 101, 400]);
}

#[test]
fn a_connection_watches_256_users() {
    let node = Node::start(&[]);
    let mut statuses = three(256, |count| {
        let mut alice = node.join("alice");
        let body = json!({"watch": users(count)});
        alice.say(&json!({"path": "online", "body": body}));
        alice.hear()["statusCode"].clone()
    });
    assert_eq!(statuses, [json!(200), json!(200), json!(400)]);
    // One by one it is the same.
    let mut alice = node.join("alice");
    let mut watch = |user: &str| {
        alice.say(&json!({"path": "online", "body": {"watch": [user]}}));
        alice.hear()["statusCode"].clone()
    };
    for user in users(255) {
        assert_eq!(watch(&user), 200);
    }
    statuses = ["one", "two", "one"].map(&mut watch);
    assert_eq!(statuses, [json!(200), json!(400), json!(200)]);
    assert_eq!(alice.is_heard(), [Value::Null; 0]);
    let _two = node.join("two");
    assert_eq!(alice.is_heard(), [Value::Null; 0], "it is not watched");
    let _one = node.join("one");
    assert_eq!(alice.hear()["msg"]["userId"], "one");
}

#[test]
fn one_message_has_a_thousand_receivers() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let to = |count: usize| {
        let mut to = users(count - 1);
        to.push("alice".to_owned());
        to
    };
    let posted = three(1000, |count| {
        let order = json!({"to": to(count), "msg": count, "store": false});
        node.post("/api/v1/messages", &order).json()["statusCode"].clone()
    });
    assert_eq!(posted, [json!(-501), json!(-501), json!(400)]);
    assert_eq!(
        [alice.hear(), alice.hear()].map(|m| m["msg"].clone()),
        [999, 1000]
    );
    let mut direct = |to: Value| {
        alice.say(&json!({"to": to, "msg": "hi"}));
        let error = alice.hear();
        let message = match error["params"]["code"].as_u64() {
            Some(404) => alice.hear(),
            _ => Value::Null,
        };
        (error["params"]["code"].clone(), message["msg"].clone())
    };
    let reached = (json!(404), json!("hi"));
    let refused = (json!(400), Value::Null);
    let expected = [reached.clone(), reached, refused];
    assert_eq!(three(1000, |n| direct(json!(to(n)))), expected);
    assert_eq!(three(1000, |n| direct(json!(to(n).join(",")))), expected);
    assert_eq!(alice.is_heard(), [Value::Null; 0]);
}

#[test]
fn a_user_is_in_128_groups_and_a_group_has_500_members() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let mut make = |id: String, members: Vec<String>| {
        let params = json!({"groupId": id, "userIdList": members});
        code(&mut alice, &json!({"type": 3, "params": params}))
    };
    // The maker is one of them.
    let sizes = three(500, |n| make(format!("large{n}"), users(n - 1)));
    assert_eq!(sizes, [200, 200, 409]);
    for n in 2..127 {
        assert_eq!(make(format!("g{n}"), Vec::new()), 200, "{n}");
    }
    let last = three(128, |n| make(format!("g{n}"), Vec::new()));
    assert_eq!(last, [200, 409, 409], "two large ones and 126 others");
    // Whoever brings somebody into one too many brings nobody.
    let mut bob = node.join("bob");
    let params = json!({"groupId": "bobs", "userIdList": ["alice", "carl"]});
    assert_eq!(code(&mut bob, &json!({"type": 3, "params": params})), 409);
    assert_eq!(node.get("/api/v1/groups/bobs").status, 404);
    let full = json!({"userIdList": ["one-more"]});
    let added = |group: &str| {
        let path = format!("/api/v1/groups/{group}/members");
        node.post(&path, &full).status
    };
    assert_eq!(
        [added("large499"), added("large499"), added("large500")],
        [200, 200, 409]
    );
    let groups = node.get("/api/v1/groups").content()["groups"].clone();
    assert_eq!(groups.as_array().unwrap().len(), 128);
}

#[test]
fn json_nests_32_deep() {
    let node = Node::start(&[]);
    let mut alice = node.join("alice");
    let nested =
        |depth: usize, what: (&str, &str)| what.0.repeat(depth) + "1" + &what.1.repeat(depth);
    for what in [("[", "]"), ("{\"a\":", "}")] {
        // The message itself is the first level.
        let direct = three(31, |depth| {
            let mut eve = node.join("eve");
            let message = format!(r#"{{"to":"alice","msg":{}}}"#, nested(depth, what));
            eve.send(Opcode::Text, message.as_bytes());
            let refused = eve.is_heard();
            refused.first().map(|error| error["params"]["code"].clone())
        });
        assert_eq!(direct, [None, None, Some(json!(400))]);
        // Over HTTP it is what the clients get that counts.
        let posted = three(32, |depth| {
            let body = format!(r#"{{"to":"alice","msg":{}}}"#, nested(depth, what));
            let json = &["Content-Type: application/json"];
            call(node.api, "POST", "/api/v1/messages", json, &body).status
        });
        assert_eq!(posted, [200, 200, 400]);
        let got = [30, 31, 31, 32].map(|_| alice.hear()["msg"].to_string());
        assert_eq!(got, [30, 31, 31, 32].map(|depth| nested(depth, what)));
    }
    // The deepest that fits into a message, and nothing but opening brackets.
    for text in [
        nested(32_000, ("[", "]")),
        "[".repeat(65_000),
        "{\"a\":".repeat(13_000),
    ] {
        let mut eve = node.join("eve");
        eve.send(Opcode::Text, text.as_bytes());
        assert_eq!(eve.hear()["params"]["code"], 400);
        eve.is_heard();
    }
}

#[test]
fn before_authentication_a_frame_has_4_kib_and_all_together_8() {
    let node = Node::start(&[]);
    let beat = |bytes: usize| {
        let text = r#"{"type":11}"#.to_owned();
        let padding = " ".repeat(bytes - text.len());
        text + &padding
    };
    // Of a frame its payload counts.
    let frames = three(4096, |bytes| {
        let mut stranger = node.stranger();
        stranger.send(Opcode::Text, beat(bytes).as_bytes());
        let frame = stranger.frame();
        frame.opcode == Opcode::Text
    });
    assert_eq!(frames, [true, true, false]);
    // Of all together every byte: six of a short header and a mask, eight of a longer one.
    let sums = three(8192, |bytes| {
        let mut stranger = node.stranger();
        let first = whole(Opcode::Text, beat(4096).as_bytes());
        let second = whole(Opcode::Text, beat(bytes - first.len() - 8).as_bytes());
        assert_eq!(first.len() + second.len(), bytes);
        stranger.write(&first);
        assert_eq!(stranger.hear()["type"], 12);
        stranger.write(&second);
        stranger.frame().opcode == Opcode::Text
    });
    assert_eq!(sums, [true, true, false]);
}

#[test]
fn no_length_that_can_be_written_does_harm() {
    let node = Node::start(&[]);
    let mut honest = node.join("honest");
    let head = |length: &[u8]| [&[0x81][..], length, &MASK].concat();
    let long = |length: u64| {
        let bytes = length.to_be_bytes();
        head(&[&[0xff][..], &bytes].concat())
    };
    for length in [
        65_537,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 5,
        i64::MAX as u64,
    ] {
        let mut client = node.join("eve");
        client.write(&long(length));
        client.expect_close(1009);
        let mut stranger = node.stranger();
        stranger.write(&long(length));
        stranger.expect_close(1008);
        // Behind something that was allowed, as a fragment of it.
        let mut client = node.join("eve");
        let mut rest = long(length);
        rest[0] = 0x80;
        client.write(&[encode(0x01, b"{\"path\":"), rest].concat());
        client.expect_close(1009);
    }
    // The highest bit must not be set, and no length be longer than it needs to be.
    for length in [1 << 63, u64::MAX, u64::MAX - 10, 0, 125, 126, 65_535] {
        for mut client in [node.join("eve"), node.stranger()] {
            client.write(&long(length));
            client.expect_close(1002);
        }
    }
    for length in [0, 1, 125u16] {
        let mut client = node.join("eve");
        let bytes = length.to_be_bytes();
        client.write(&head(&[0xfe, bytes[0], bytes[1]]));
        client.expect_close(1002);
    }
    // Nothing was put aside for any of them.
    assert!(node.metric("allocated_bytes") < 64e6);
    assert_eq!(honest.is_heard(), [Value::Null; 0]);
    // On the API a length is no promise either.
    for length in [
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "1e3",
        "0x10",
        "5, 6",
    ] {
        let mut client = Client::over(dial(node.api));
        let text = format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{}}"
        );
        client.write(text.as_bytes());
        let answer = client.read_head();
        // What no number holds is malformed; for what one just holds hyper has an answer of its own.
        let expected = [400, 413, 431];
        assert!(expected.contains(&status(&answer)), "{length} {answer}");
    }
}

#[test]
fn a_request_of_the_api_whose_length_is_told_twice_is_refused() {
    let node = Node::start(&[]);
    let order = r#"{"userId":"eve"}"#;
    let hidden = format!(
        "POST /api/v1/tokens HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{order}",
        order.len()
    );
    for lengths in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length : 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Transfer-Encoding: gzip, chunked\r\nContent-Length: 4",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
    ] {
        let mut client = Client::over(dial(node.api));
        let first = format!(
            "POST /api/v1/messages HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}"
        );
        client.write(first.as_bytes());
        let answer = client.read_to_end();
        assert_eq!(status(&answer), 400, "{lengths}");
        assert!(!answer.contains("wsToken"), "{lengths} {answer}");
    }
}

#[test]
fn a_head_of_8_kib_and_64_fields_is_taken_by_default() {
    let node = Node::start(&[]);
    let upgraded = |fields: &[&str]| {
        let mut client = Client::over(dial(node.ws));
        client.write(request("/websocket", fields).as_bytes());
        status(&client.read_head())
    };
    // Five are always there.
    let many = |count: usize| upgraded(&vec!["X: 1"; count - 5]);
    assert_eq!(three(64, many), [101, 101, 431]);
    let text = request("/websocket", &[]);
    let usual = text.len() - text.find("\r\n").unwrap();
    let padded = |bytes: usize| upgraded(&[&format!("X:{}", "x".repeat(bytes - usual - 4))]);
    let taken = (8000..8400).find(|&bytes| padded(bytes) == 431).unwrap();
    assert!((8190..8200).contains(&taken), "{taken}");
}
