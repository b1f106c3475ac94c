//! Who says that it is somebody else: in a token, in a message, on a connection of another user.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::client::status;
use crate::support::{Client, Node, Setup};

const SECRET: &str = "a secret that nobody else has got, 32+";
const NOTHING: [Value; 0] = [];

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn mac(text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// A text and its signature, which is good whatever the text says.
fn signed(text: String) -> String {
    let mac = b64(mac(&text));
    text + "." + &mac
}

fn now_secs() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs()
}

/// The same token with one bit of one of its bytes turned over.
fn flip(token: &str, part: usize, byte: usize) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut bytes = URL_SAFE_NO_PAD.decode(&parts[part]).unwrap();
    let byte = byte.min(bytes.len() - 1);
    bytes[byte] ^= 1;
    parts[part] = b64(bytes);
    parts.join(".")
}

/// Tries a token at every door: before the upgrade, and in a message behind it.
fn is_refused(node: &Node, token: &str) {
    let refusals = node.metric("refusals_total{status=\"401\"}");
    let encoded = token.replace('+', "%2B").replace('=', "%3D");
    for (query, field) in [
        (format!("?token={encoded}"), "X: 1".to_owned()),
        (String::new(), format!("Authorization: Bearer {token}")),
    ] {
        let answer = node.open(&query, &[&field]).err().expect(token);
        assert_eq!(status(&answer), 401, "{token}");
    }
    let expected = refusals + 2.0;
    assert_eq!(node.metric("refusals_total{status=\"401\"}"), expected);
    let mut client = node.stranger();
    client.say(&json!({"path": "connet", "token": token}));
    assert_eq!(client.hear()["statusCode"], 401, "{token}");
    client.expect_close(4401);
    assert_eq!(node.metric("sessions"), 0.0, "{token}");
}

fn is_welcome(node: &Node, token: &str) {
    let mut client = node.open(&format!("?token={token}"), &[]).unwrap();
    assert_eq!(client.hear()["msg"]["userId"], "alice");
    client.leave();
    node.awaits("sessions", 0.0);
}

#[test]
fn a_forged_token_of_an_identity_provider_opens_no_door() {
    let node = Setup::new()
        .args(&["--auth", "jwt"])
        .config(
            "jwt_algorithm = \"HS256\"\njwt_issuer = \"https://id\"\njwt_audience = \"throng\"\n",
        )
        .env("THRONG_JWT_KEY", SECRET)
        .start();
    let exp = now_secs() + 600;
    let good =
        json!({"sub": "alice", "name": "", "exp": exp, "iss": "https://id", "aud": "throng"});
    let token = |header: &Value, claims: &Value| {
        signed(format!(
            "{}.{}",
            b64(header.to_string()),
            b64(claims.to_string())
        ))
    };
    let hs256 = json!({"alg": "HS256", "typ": "JWT"});
    let honest = token(&hs256, &good);
    is_welcome(&node, &honest);
    // Not signed at all, and signed with what the node was not told to take.
    for alg in ["none", "None", "nOnE", ""] {
        let forged = token(&json!({"alg": alg, "typ": "JWT"}), &good);
        is_refused(&node, &forged);
        let (unsigned, _) = forged.rsplit_once('.').unwrap();
        is_refused(&node, &format!("{unsigned}."));
        is_refused(&node, unsigned);
    }
    for header in [
        json!({"alg": "RS256"}),
        json!({"alg": "HS512"}),
        json!({"typ": "JWT"}),
        json!({"alg": ["HS256"]}),
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "typ": "at+jwt"}),
    ] {
        is_refused(&node, &token(&header, &good));
    }
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        token(&hs256, &claims)
    };
    for (key, value) in [
        ("exp", json!(exp.to_string())),
        ("exp", json!(exp as f64 + 0.5)),
        ("exp", json!(-1)),
        ("exp", json!(true)),
        ("exp", Value::Null),
        ("exp", json!(now_secs() - 1)),
        ("nbf", json!(exp)),
        ("nbf", json!("0")),
        ("sub", json!(7)),
        ("sub", json!("")),
        ("sub", json!("al ice")),
        ("sub", json!(["alice"])),
        ("iss", json!("https://id.evil")),
        ("iss", Value::Null),
        ("aud", json!("others")),
        ("aud", json!(["others"])),
    ] {
        is_refused(&node, &with(key, value));
    }
    for part in 0..3 {
        for byte in [0, 9, usize::MAX] {
            is_refused(&node, &flip(&honest, part, byte));
        }
    }
    for forged in [
        format!("{honest}="),
        format!("{honest}.{honest}"),
        honest.replace('.', ".."),
        honest[..honest.len() - 1].to_owned(),
    ] {
        is_refused(&node, &forged);
    }
    is_welcome(&node, &honest);
}

#[test]
fn a_forged_token_of_ours_opens_no_door() {
    let node = Setup::new().env("THRONG_TOKEN_SECRET", SECRET).start();
    let until = (now_secs() + 600) * 1000;
    let token = |text: String| signed(b64(text));
    let honest = token(format!("alice::{until}"));
    is_welcome(&node, &honest);
    // The signature is good; what it stands under is not.
    for text in [
        "alice::never".to_owned(),
        "alice::".to_owned(),
        "alice".to_owned(),
        String::new(),
        format!("alice::-{until}"),
        format!("alice:: {until}"),
        format!("alice::{until}.5"),
        format!("alice::{until}x"),
        format!("alice::0x{until:x}"),
        format!("alice::{until}{until}"),
        format!("alice::{}", (now_secs() - 1) * 1000),
        format!("::{until}"),
        format!("al ice::{until}"),
        format!("al\0ice::{until}"),
        format!("älice::{until}"),
        format!("{}::{until}", "a".repeat(65)),
        format!("alice:{}:{until}", "n".repeat(65)),
        format!("alice:%ff:{until}"),
    ] {
        is_refused(&node, &token(text));
    }
    for part in 0..2 {
        for byte in [0, 7, usize::MAX] {
            is_refused(&node, &flip(&honest, part, byte));
        }
    }
    let (text, mac) = honest.split_once('.').unwrap();
    for forged in [
        text.to_owned(),
        format!("{text}."),
        format!(".{mac}"),
        ".".to_owned(),
        format!("{text}.{}", &mac[..mac.len() - 2]),
        format!("{text}.{mac}AA"),
        format!("{text}.{mac}.{mac}"),
        format!("{text}.{}", b64([0; 32])),
        // The other user's text under this signature.
        format!("{}.{mac}", b64(format!("bob::{until}"))),
    ] {
        is_refused(&node, &forged);
    }
    is_welcome(&node, &honest);
}

/// Claims to be bob, wherever a message has room for that.
fn claim(mut message: Value) -> Value {
    let bob = json!({"openid": "bob", "loginStatus": "1", "userName": "Bob"});
    let lies = [
        ("from", json!("bob")),
        ("fromUser", bob.clone()),
        ("fromUserId", json!("bob")),
        ("userId", json!("bob")),
        ("sender", json!("bob")),
        ("sessionId", json!("127.0.0.1:1_bob_20240102102737")),
        ("trigger", json!(1)),
        ("activeTime", json!(1)),
        ("messageId", json!("0".repeat(32))),
    ];
    for (key, value) in lies {
        for place in ["params", "body"] {
            if let Some(object) = message[place].as_object_mut() {
                object.insert(key.to_owned(), value.clone());
            }
        }
        message[key] = value;
    }
    message
}

#[test]
fn the_sender_is_the_user_of_the_session_whatever_a_message_says() {
    let node = Node::start(&["--reactors", "2"]);
    let order = json!({"userId": "eve", "perms": ["message/send"]});
    let content = node.post("/api/v1/tokens", &order).content();
    let token = content["wsToken"].as_str().unwrap();
    let mut eve = node.open(&format!("?token={token}"), &[]).unwrap();
    eve.hear();
    let mut carl = node.join("carl");
    let mut bob = node.join("bob");
    let is_eves = |envelope: &Value| {
        assert_eq!(envelope["to"], json!(["carl"]), "{envelope}");
        assert_eq!(envelope["trigger"], 2, "{envelope}");
        assert_ne!(envelope["activeTime"], 1, "{envelope}");
        assert_ne!(envelope["messageId"], "0".repeat(32), "{envelope}");
        let session = envelope["sessionId"].as_str().unwrap();
        assert!(session.contains("_carl_"), "{envelope}");
    };
    for message in [
        json!({"to": "carl", "msg": 1}),
        json!({"to": "carl", "msg": 1, "msgType": 1}),
        json!({"path": "message/send", "body": {"to": ["carl"], "msg": 1}}),
    ] {
        eve.say(&claim(message));
        let envelope = carl.hear();
        is_eves(&envelope);
        assert_eq!(envelope["from"], "eve", "{envelope}");
    }
    assert_eq!(eve.hear()["success"], true, "the answer of the route");
    // A group is its maker's.
    let group = json!({"groupId": "team", "userIdList": ["carl"]});
    eve.say(&claim(json!({"type": 3, "params": group})));
    let names = json!(["eve", "carl"]);
    assert_eq!(eve.hear()["nameList"], names);
    assert_eq!(carl.hear()["nameList"], names);
    for (kind, to, heard) in [(1, "carl", 2), (9, "team", 10)] {
        let params = json!({"toMessageId": to, "message": "hi"});
        eve.say(&claim(json!({"type": kind, "params": params})));
        assert_eq!(eve.hear()["type"], 0);
        let envelope = carl.hear();
        is_eves(&envelope);
        assert_eq!(envelope["msg"]["type"], heard, "{envelope}");
        let from = &envelope["msg"]["params"]["fromUser"];
        assert_eq!(
            (&from["openid"], &from["userName"]),
            (&json!("eve"), &json!("eve"))
        );
    }
    // Nothing of all that was bob's.
    assert_eq!(bob.is_heard(), NOTHING);
    let groups = node.get("/api/v1/groups?user=bob").content();
    assert_eq!(groups["groups"], json!([]));
}

#[test]
fn an_acknowledgement_of_what_is_somebody_elses_finds_nothing() {
    let node = Node::start(&["--reactors", "2"]);
    let (mut alice, mut bob) = (node.join("alice"), node.join("bob"));
    let mut eve = node.join("eve");
    let params = json!({"toMessageId": "bob", "message": "hi", "msgid": "m1"});
    alice.say(&json!({"type": 1, "params": params}));
    let message = alice.hear()["params"]["messageId"].clone();
    assert_eq!(bob.hear()["messageId"], message);
    for msgid in [json!("m1"), message.clone()] {
        for ack in [
            json!({"type": 15, "params": {"msgid": msgid}}),
            json!({"msgType": 2, "messageId": msgid}),
        ] {
            let mut ack = claim(ack);
            if ack["msgType"] == 2 {
                ack["messageId"] = msgid.clone();
            }
            eve.say(&ack);
            let answer = eve.hear();
            assert_eq!(
                (&answer["type"], &answer["status"]),
                (&json!(16), &json!(404))
            );
            assert_eq!(answer["params"]["message"], msgid);
        }
    }
    assert_eq!(alice.is_heard(), NOTHING, "nobody has got it yet");
    bob.say(&json!({"type": 15, "params": {"msgid": message}}));
    assert_eq!(bob.hear()["status"], 200);
    assert_eq!(alice.hear()["msg"]["params"]["messageId"], message);
    for client in [&mut alice, &mut bob, &mut eve] {
        assert_eq!(client.is_heard(), NOTHING);
    }
}

#[test]
fn who_has_not_said_who_it_is_is_heard_by_nobody() {
    let node = Node::start(&["--reactors", "2"]);
    let mut bob = node.join("bob");
    bob.say(&json!({"type": 3, "params": {"groupId": "team"}}));
    assert_eq!(bob.hear()["type"], 4);
    let messages = [
        json!({"to": "bob", "msg": 1}),
        json!({"msgType": 2, "msgid": "m"}),
        json!({"type": 1, "params": {"toMessageId": "bob", "message": "hi"}}),
        json!({"type": 9, "params": {"toMessageId": "team", "message": "hi"}}),
        json!({"type": 3, "params": {"groupId": "mine", "userIdList": "bob"}}),
        json!({"type": 14, "params": {"groupId": "team"}}),
        json!({"type": 15, "params": {"msgid": "m"}}),
        json!({"type": 7, "params": {"openid": "bob", "loginStatus": "1"}}),
        json!({"path": "message/send", "body": {"to": ["bob"], "msg": 1}}),
        json!({"path": "group/create", "body": {"groupId": "mine", "userIdList": ["bob"]}}),
        json!({"path": "group/members", "body": {"groupId": "team"}}),
        json!({"path": "online", "body": {"uids": ["bob"], "watch": ["bob"]}}),
        json!({"path": "token/renew", "token": "x"}),
        json!({"path": "connet", "body": {"openid": "bob"}}),
    ];
    for message in messages.chunks(3) {
        let mut stranger = node.stranger();
        for message in message {
            stranger.say(&claim(message.clone()));
            let answer = stranger.hear();
            let code = match message.get("path") {
                Some(_) => &answer["statusCode"],
                None => &answer["params"]["code"],
            };
            assert_eq!(*code, 401, "{message} {answer}");
        }
        // Three are forgiven nobody.
        if message.len() == 3 {
            stranger.expect_close(1008);
        }
    }
    assert_eq!(bob.is_heard(), NOTHING);
    let groups = node.get("/api/v1/groups").content();
    assert_eq!(groups["groups"], json!(["team"]));
    assert_eq!(node.metric("sessions"), 1.0);
}

#[test]
fn a_second_identity_is_closed_1008_by_every_way() {
    let node = Node::start(&[]);
    let bobs = node.token("bob");
    let ways: [Value; 4] = [
        json!({"path": "connet", "token": bobs}),
        json!({"path": "token/renew", "token": bobs}),
        json!({"path": "token/renew", "body": {"token": bobs}}),
        json!({"type": 7, "params": {"openid": "bob", "loginStatus": "1", "token": bobs}}),
    ];
    for message in &ways {
        let mut client: Client = node.join("alice");
        client.say(message);
        client.expect_close(1008);
    }
    // Another name alone is an error, and changes nothing.
    let mut client = node.join("alice");
    client.say(&json!({"type": 7, "params": {"openid": "bob", "loginStatus": "1"}}));
    assert_eq!(client.hear()["params"]["code"], 403);
    client.is_heard();
    assert_eq!(node.push(&["bob"], &json!(1)).json()["statusCode"], -501);
    assert_eq!(node.metric("sessions"), 1.0);
    // Without tokens another name is another identity.
    let node = Node::start(&["--auth", "none"]);
    for message in [
        json!({"path": "connet", "body": {"openid": "bob"}}),
        json!({"type": 7, "params": {"openid": "bob", "loginStatus": "1"}}),
    ] {
        let mut client = node.open("?openid=alice", &[]).unwrap();
        client.hear();
        client.say(&message);
        client.expect_close(1008);
    }
    assert_eq!(node.push(&["bob"], &json!(1)).json()["statusCode"], -501);
}
