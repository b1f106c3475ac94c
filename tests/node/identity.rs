//! Whose a connection is, and for how long: policies, devices, newer tokens, identity providers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::sign;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::client::status;
use crate::support::{Client, Node, Setup};

fn connet(token: &str, body: &Value) -> Value {
    json!({"path": "connet", "token": token, "body": body, "requestId": "r"})
}

fn renew(client: &mut Client, token: &str) -> Value {
    client.say(&json!({"path": "token/renew", "body": {"token": token}, "requestId": "r"}));
    client.hear()
}

#[test]
fn the_newest_connection_is_the_only_one_where_the_policy_says_so() {
    let setup = Setup::new().config("session_policy = \"single\"\n");
    let node = setup.args(&["--reactors", "4"]).start();
    let mut alice = node.join("alice");
    let mut old = node.join("bob");
    for n in 0..6 {
        let mut new = if n % 2 == 0 {
            node.join_for(&json!({"userId": "bob"}), "device=tv").0
        } else {
            let mut new = node.stranger();
            new.say(&connet(&node.token("bob"), &json!({})));
            assert_eq!(new.hear()["msgType"], 0);
            assert_eq!(new.hear()["success"], true);
            new
        };
        // From the notice on nothing goes to the one before.
        node.push(&["bob"], &json!(n)).content();
        assert_eq!(new.hear()["msg"], n);
        assert_eq!(old.frame().payload[..2], 4409u16.to_be_bytes());
        old = new;
    }
    alice.is_heard();
    node.awaits("sessions", 2.0);
}

#[test]
fn a_device_may_be_named_in_connet_and_default_is_none() {
    let node = Node::start(&["--reactors", "4"]);
    let bob = json!({"userId": "bob"});
    let (mut phone, _) = node.join_for(&bob, "device=phone");
    let mut others = [(); 2].map(|()| node.join_for(&bob, "device=default").0);
    let token = node.token("bob");
    let mut newer = node.stranger();
    newer.say(&connet(&token, &json!({"device": "a phone"})));
    assert_eq!(newer.hear()["statusCode"], 400);
    newer.say(&connet(&token, &json!({"device": "phone"})));
    assert_eq!(newer.hear()["msg"]["userId"], "bob");
    assert_eq!(newer.hear()["statusCode"], 200);
    phone.expect_close(4409);
    for other in &mut others {
        other.is_heard();
    }
    let content = node.get("/api/v1/users/bob").content();
    let devices: Vec<&Value> = (0..3).map(|n| &content["sessions"][n]["device"]).collect();
    assert_eq!(devices, ["default", "default", "phone"]);
    assert_eq!(status(&node.open("?device=a+b", &[]).err().unwrap()), 400);
}

#[test]
fn connet_gives_a_name_as_type_7_does() {
    let node = Node::start(&[]);
    let token = node.token("alice");
    let mut alice = node.stranger();
    let mut bob = node.join("bob");
    for name in ["Al", "Älice"] {
        alice.say(&connet(&token, &json!({"userName": name})));
        while alice.hear()["success"] != true {}
        let content = node.get("/api/v1/users/alice").content();
        assert_eq!(content["userName"], name);
        alice.say(&json!({"type": 1, "params": {"toMessageId": "bob", "message": "hi"}}));
        let params = bob.hear()["msg"]["params"].clone();
        assert_eq!(params["fromUser"]["userName"], name);
        assert_eq!(alice.hear()["type"], 0);
    }
    alice.say(&connet(&token, &json!({"userName": "n".repeat(65)})));
    assert_eq!(alice.hear()["statusCode"], 400);
    alice.is_heard();
}

#[test]
fn a_newer_token_prolongs_a_connection_and_another_users_ends_it() {
    let node = Node::start(&[]);
    let short = json!({"userId": "alice", "ttlSecs": 2});
    let (mut forgotten, _) = node.join_for(&short, "");
    let (mut kept, _) = node.join_for(&short, "");
    let answer = renew(&mut kept, &node.token("alice"));
    assert_eq!(
        (&answer["path"], &answer["statusCode"]),
        (&json!("token/renew"), &json!(200))
    );
    let in_a_minute = now_secs() + 60;
    let expires_at = answer["content"]["expiresAt"].as_u64().unwrap() / 1000;
    assert!(
        (in_a_minute - 30..in_a_minute + 30).contains(&expires_at),
        "{answer}"
    );
    forgotten.expect_close(4401);
    let answer = renew(&mut kept, "nonsense");
    assert_eq!(answer["statusCode"], 401, "and it stays");
    kept.say(&json!({"path": "token/renew", "requestId": "r"}));
    assert_eq!(kept.hear()["statusCode"], 400);
    kept.is_heard();
    kept.say(&json!({"path": "token/renew", "token": node.token("bob")}));
    kept.expect_close(1008);
}

#[test]
fn a_newer_token_brings_its_own_permissions() {
    let node = Node::start(&[]);
    let shop = |perms: &[&str]| json!({"userId": "shop", "perms": perms});
    let (mut client, _) = node.join_for(&shop(&["order/new", "message/send"]), "");
    let mut bob = node.join("bob");
    for perms in [
        &["message/send"][..],
        &[],
        &["message/sen"],
        &["message/send"],
    ] {
        assert_eq!(
            renew(&mut client, &node.token_for(&shop(perms)))["success"],
            true
        );
        let body = json!({"to": ["bob"], "msg": perms});
        client.say(&json!({"path": "message/send", "body": body}));
        let answer = client.hear();
        if perms.contains(&"message/send") {
            assert_eq!(answer["statusCode"], 200, "{answer}");
            assert_eq!(bob.hear()["msg"], json!(perms));
        } else {
            assert_eq!(answer["statusCode"], 403, "{answer}");
            assert_eq!(answer["content"], json!({"reason": "permission"}));
        }
    }
    client.is_heard();
    assert_eq!(bob.is_heard(), [Value::Null; 0]);
}

#[test]
fn who_has_left_by_type_7_gets_its_chats_when_it_is_back() {
    let node = Node::start(&["--reactors", "4"]);
    let mut alice = node.join("alice");
    let mut bob = node.join("bob");
    let chat = json!({"type": 1, "params": {"toMessageId": "bob", "message": "hi"}});
    for round in 0..3 {
        for status in ["0", "1"] {
            let params = json!({"openid": "bob", "loginStatus": status});
            bob.say(&json!({"type": 7, "params": params}));
            while bob.hear()["type"] != 8 {}
            if status == "0" {
                alice.say(&chat);
                assert_eq!(alice.hear()["type"], 0);
                assert_eq!(bob.is_heard(), [Value::Null; 0]);
            }
        }
        let message = bob.hear();
        assert_eq!(
            (&message["msg"]["type"], &message["seq"]),
            (&json!(2), &json!(round + 1))
        );
        bob.say(&json!({"type": 15, "params": {"msgid": message["messageId"]}}));
        assert_eq!(bob.hear()["type"], 16);
        assert_eq!(alice.hear()["msg"]["type"], 17);
    }
}

fn now_secs() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// An identity provider, and what a node is told of it.
struct Provider {
    algorithm: Algorithm,
    key: EncodingKey,
    /// What verifies its tokens.
    known: &'static str,
}

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../data/jwt/", $name, ".pem"))
    };
}

impl Provider {
    fn hs256(secret: &'static str) -> Provider {
        Provider {
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.as_bytes()),
            known: secret,
        }
    }

    fn rs256(key: &str, known: &'static str) -> Provider {
        Provider {
            algorithm: Algorithm::RS256,
            key: EncodingKey::from_rsa_der(pem::parse(key).unwrap().contents()),
            known,
        }
    }

    fn es256(key: &str, known: &'static str) -> Provider {
        Provider {
            algorithm: Algorithm::ES256,
            key: EncodingKey::from_ec_der(pem::parse(key).unwrap().contents()),
            known,
        }
    }

    /// The provider of now and the one of tomorrow, for each algorithm.
    fn all() -> [[Provider; 2]; 3] {
        [
            [
                Provider::hs256("what we share with the provider!"),
                Provider::hs256("what we will share with them soon"),
            ],
            [
                Provider::rs256(data!("rsa-private"), data!("rsa")),
                Provider::rs256(data!("rsa-next-private"), data!("rsa-next")),
            ],
            [
                Provider::es256(data!("p256-private"), data!("p256")),
                Provider::es256(data!("p256-next-private"), data!("p256-next")),
            ],
        ]
    }

    fn token(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": format!("{:?}", self.algorithm), "typ": "JWT"});
        let text = format!("{}.{}", part(&header), part(claims));
        let signature = sign(text.as_bytes(), &self.key, self.algorithm);
        format!("{text}.{}", signature.unwrap())
    }

    /// A node that knows these keys, and believes what is said to it alone.
    fn node(providers: &[&Provider]) -> Node {
        let setup = Setup::new();
        let path = setup.folder.path("keys");
        let known: Vec<&str> = providers.iter().map(|provider| provider.known).collect();
        fs::write(&path, known.join("\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let config = format!(
            "auth = \"jwt\"\njwt_algorithm = \"{:?}\"\njwt_key_file = \"{}\"\n\
             jwt_issuer = \"https://id.example\"\njwt_audience = \"throng\"\n",
            providers[0].algorithm,
            path.display()
        );
        setup.config(&config).start()
    }
}

/// Good for a minute.
fn claims() -> Value {
    json!({"sub": "rose", "name": "Rosé", "exp": now_secs() + 60, "perms": ["message/send"],
        "iss": "https://id.example", "aud": ["other", "throng"]})
}

fn but(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

#[test]
fn tokens_of_an_identity_provider_open_the_door_whatever_they_are_signed_with() {
    for [now, next] in Provider::all() {
        let node = Provider::node(&[&now, &next]);
        for provider in [&now, &next] {
            let token = provider.token(&claims());
            let mut rose = node.open(&format!("?token={token}"), &[]).unwrap();
            let msg = &rose.hear()["msg"];
            assert_eq!(
                (&msg["userId"], &msg["userName"]),
                (&json!("rose"), &json!("Rosé"))
            );
            let body = json!({"to": ["rose"], "msg": 7});
            rose.say(&json!({"path": "message/send", "body": body}));
            let heard = [rose.hear(), rose.hear()];
            assert!(heard.iter().any(|heard| heard["msg"] == 7), "it may push");
            let bearer = format!("Authorization: Bearer {token}");
            assert!(node.open("", &[&bearer]).is_ok());
            let mut by_word = node.stranger();
            by_word.say(&connet(&token, &json!({})));
            assert_eq!(by_word.hear()["msg"]["userName"], "Rosé");
        }
        let order = json!({"userId": "rose"});
        assert_eq!(
            node.post("/api/v1/tokens", &order).status,
            400,
            "it makes none"
        );
    }
}

#[test]
fn tokens_that_a_provider_did_not_sign_or_that_say_something_else_are_refused() {
    let all = Provider::all();
    for (n, [now, next]) in all.iter().enumerate() {
        let node = Provider::node(&[now]);
        let foreign = &all[(n + 1) % 3][0];
        let mut bad = vec![
            next.token(&claims()),
            foreign.token(&claims()),
            now.token(&but("exp", now_secs() - 5)),
            now.token(&but("nbf", now_secs() + 600)),
            now.token(&but("iss", "https://evil.example")),
            now.token(&but("aud", "other")),
            now.token(&but("sub", "a b")),
        ];
        let good = now.token(&claims());
        let (text, _) = good.rsplit_once('.').unwrap();
        bad.push(format!("{text}."));
        // A public key is no secret: whoever signs with it is nobody.
        let key = EncodingKey::from_secret(now.known.as_bytes());
        if now.algorithm != Algorithm::HS256 {
            let forger = Provider {
                algorithm: Algorithm::HS256,
                key,
                known: "",
            };
            bad.push(forger.token(&claims()));
        }
        for bad in &bad {
            let answer = node.open(&format!("?token={bad}"), &[]).err().unwrap();
            assert_eq!(status(&answer), 401, "{bad}");
        }
        assert!(node.open(&format!("?token={good}"), &[]).is_ok());
    }
}

#[test]
fn a_connection_ends_with_the_token_of_its_provider_unless_there_is_a_newer_one() {
    let [_, _, [provider, _]] = Provider::all();
    let node = Provider::node(&[&provider]);
    let short = provider.token(&but("exp", now_secs() + 3));
    let mut forgotten = node.open(&format!("?token={short}"), &[]).unwrap();
    let mut kept = node.open(&format!("?token={short}"), &[]).unwrap();
    kept.hear();
    let claims = claims();
    let answer = renew(&mut kept, &provider.token(&claims));
    let expires_at = claims["exp"].as_u64().unwrap() * 1000;
    assert_eq!(answer["content"], json!({"expiresAt": expires_at}));
    forgotten.expect_close(4401);
    kept.is_heard();
    let another = provider.token(&but("sub", "eve"));
    kept.say(&json!({"path": "token/renew", "token": another}));
    kept.expect_close(1008);
}
