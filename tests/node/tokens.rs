//! Who a client is: tokens from every source, and none.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::client::status;
use crate::support::setup::{Folder, Setup};
use crate::support::{Client, Node, eventually};

const SECRET: &str = "a secret of the environment, long enough";

fn is(mut client: Client, user: &str, name: &str) {
    let notice = client.hear();
    assert_eq!(notice["msg"]["userId"], user);
    assert_eq!(notice["msg"]["userName"], name);
    client.is_heard();
    client.leave();
}

/// `throng token` with these arguments; it prints one line.
fn printed(setup: &Setup) -> String {
    let output = setup.run();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

#[test]
fn the_demo_token_on_standard_error_opens_the_door() {
    let node = Node::start(&[]);
    eventually("it is told", || node.errors().contains("\ntry: "));
    let errors = node.errors();
    let line = errors.lines().find(|line| line.starts_with("demo token"));
    let token = line.unwrap().rsplit(' ').next().unwrap();
    is(
        node.open(&format!("?token={token}"), &[]).unwrap(),
        "demo",
        "demo",
    );
    let line = errors.lines().find_map(|line| line.strip_prefix("try: "));
    let target = line.unwrap().split_once(&node.ws.to_string()).unwrap().1;
    is(Client::open(node.ws, target, &[]).unwrap(), "demo", "demo");
}

#[test]
fn a_token_of_the_command_line_is_made_with_the_secret_in_the_data_directory() {
    let node = Node::start(&[]);
    let data = node.folder.path("data");
    let secret = std::fs::metadata(data.join("token.secret")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    let data = data.display().to_string();
    let token = printed(&Setup::bare(Folder::new()).args(&[
        "token",
        "--user",
        "alice",
        "--name",
        "Älice Ü",
        "--perm",
        "p/q",
        "--data-dir",
        &data,
    ]));
    is(
        node.open(&format!("?token={token}"), &[]).unwrap(),
        "alice",
        "Älice Ü",
    );
    for bad in [&["--user", "a b"][..], &["--user", "a", "--ttl-secs", "0"]] {
        let setup = Setup::bare(Folder::new()).args(&["token", "--data-dir", &data]);
        setup.args(bad).fails_with(2);
    }
}

#[test]
fn the_command_line_makes_no_secret_and_says_where_it_looked() {
    let folder = Folder::new();
    std::fs::write(folder.path("file"), "").unwrap();
    for data in ["data", "file/data"] {
        let path = folder.path(data).display().to_string();
        let args = ["token", "--user", "alice", "--data-dir", &path];
        let says = Setup::bare(Folder::new()).args(&args).fails_with(2);
        let expected = format!("no token secret in {path}/token.secret: start the node once");
        assert!(says.contains(&expected), "{says}");
        assert!(!folder.path(data).exists(), "it only reads");
    }
    let through = folder.path("file/data").display().to_string();
    let node = Setup::new().args(&["--data-dir", &through]);
    let says = node.fails_with(1);
    assert!(says.contains("Name another with --data-dir"), "{says}");
}

#[test]
fn why_a_token_is_refused_is_in_the_log_for_who_looks_closely() {
    let node = Setup::new().config("log_level = \"debug\"\n").start();
    let other = Setup::new().env("THRONG_TOKEN_SECRET", SECRET).start();
    let foreign = other.token("alice");
    let answer = node.open(&format!("?token={foreign}"), &[]).err().unwrap();
    assert_eq!(status(&answer), 401);
    let mut client = node.stranger();
    client.say(&json!({"path": "connet", "token": "nonsense"}));
    assert_eq!(client.hear()["msg"], "the token is refused");
    client.expect_close(4401);
    for why in [
        "the token's signature does not match",
        "the token is malformed",
    ] {
        eventually("the reason is told", || {
            node.errors()
                .lines()
                .any(|line| line.contains("a token was refused") && line.contains(why))
        });
    }
    let errors = node.errors();
    assert!(errors.contains("peer=127.0.0.1"), "{errors}");
    assert!(!errors.contains(&foreign) && !errors.contains("nonsense"));
}

#[test]
fn a_secret_of_the_environment_serves_node_and_command_line_and_is_not_kept() {
    let node = Setup::new().env("THRONG_TOKEN_SECRET", SECRET).start();
    assert!(!node.folder.path("data/token.secret").exists());
    let token = |secret| {
        let setup = Setup::bare(Folder::new()).args(&["token", "--user", "alice"]);
        printed(&setup.env("THRONG_TOKEN_SECRET", secret))
    };
    let good = token(SECRET);
    is(
        node.open(&format!("?token={good}"), &[]).unwrap(),
        "alice",
        "alice",
    );
    let foreign = token("another secret that is long enough, too");
    let answer = node.open(&format!("?token={foreign}"), &[]).err().unwrap();
    assert_eq!(status(&answer), 401);
}

#[test]
fn the_api_hands_out_tokens_with_an_address_that_is_ready_to_open() {
    let node = Node::start(&[]);
    let order = json!({"userId": "alice", "userName": "Alice", "ttlSecs": 60, "perms": ["x"]});
    let content = node.post("/api/v1/tokens", &order).content();
    assert!(content["expiresAt"].as_u64().unwrap() > 1_700_000_000_000);
    let url = content["url"].as_str().unwrap();
    let (start, target) = url.split_at(5 + node.ws.to_string().len());
    assert_eq!(start, format!("ws://{}", node.ws));
    is(
        Client::open(node.ws, target, &[]).unwrap(),
        "alice",
        "Alice",
    );
    assert_eq!(
        node.post("/api/v1/tokens", &json!({"userId": "a b"}))
            .status,
        400
    );
}

#[test]
fn one_flipped_bit_is_refused_before_the_upgrade() {
    let node = Node::start(&[]);
    let token = node.token("alice");
    for at in [0, token.len() / 2, token.len() - 2] {
        let mut bytes = token.clone().into_bytes();
        // Another letter of the same alphabet, so that only the signature can tell.
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(bytes).unwrap();
        let answer = node.open(&format!("?token={forged}"), &[]).err().unwrap();
        assert_eq!(status(&answer), 401, "{answer}");
        assert!(
            answer.contains("\r\nWWW-Authenticate: Bearer\r\n"),
            "{answer}"
        );
        assert!(!answer.contains(&forged), "{answer}");
    }
    assert_eq!(node.metric("refusals_total{status=\"401\"}"), 3.0);
    node.awaits("open_sockets", 0.0);
}

#[test]
fn a_token_may_come_in_the_authorization_field_or_among_the_subprotocols() {
    let node = Node::start(&[]);
    let (alice, bob) = (node.token("alice"), node.token("bob"));
    let bearer = format!("Authorization: bearer {alice}");
    let client = node.open("", &[&bearer]).unwrap();
    assert!(!client.head.contains("Sec-WebSocket-Protocol"));
    is(client, "alice", "alice");
    let protocols = format!("Sec-WebSocket-Protocol: throng, bearer.{bob}");
    let client = node.open("", &[&protocols]).unwrap();
    let chosen = "\r\nSec-WebSocket-Protocol: throng\r\n";
    assert!(client.head.contains(chosen), "{}", client.head);
    is(client, "bob", "bob");
    // The query comes first, then the field.
    let client = node.open(&format!("?token={bob}"), &[&bearer]).unwrap();
    is(client, "bob", "bob");
    is(
        node.open("", &[&bearer, &protocols]).unwrap(),
        "alice",
        "alice",
    );
    for bad in [
        "Authorization: Bearer x",
        "Sec-WebSocket-Protocol: throng, bearer.x",
    ] {
        assert_eq!(status(&node.open("", &[bad]).err().unwrap()), 401);
    }
}

#[test]
fn a_token_may_come_in_the_first_message() {
    let node = Node::start(&[]);
    let token = node.token("alice");
    let mut client = node.stranger();
    client.say(&json!({"path": "connet", "token": token, "requestId": "r"}));
    assert_eq!(client.hear()["msg"]["userId"], "alice", "first the notice");
    let answer = client.hear();
    assert_eq!(
        (&answer["requestId"], &answer["success"]),
        (&json!("r"), &json!(true))
    );
    let mut client = node.stranger();
    let params = json!({"openid": "alice", "userName": "Al", "loginStatus": "1", "token": token});
    client.say(&json!({"type": 7, "params": params}));
    assert_eq!(client.hear()["msgType"], 0, "first the notice");
    let answer = client.hear();
    assert_eq!(
        (&answer["type"], &answer["status"]),
        (&json!(8), &json!(200))
    );
    assert_eq!(answer["params"]["userName"], "Al");
    let mut client = node.stranger();
    client.say(&json!({"path": "connet", "token": "nonsense"}));
    assert_eq!(client.hear()["statusCode"], 401);
    client.expect_close(4401);
    // Not a word of anything else.
    let mut client = node.stranger();
    for _ in 0..3 {
        client.say(&json!({"to": "alice", "msg": "hi", "msgType": 1}));
        assert_eq!(client.hear()["params"]["code"], 401);
    }
    client.expect_close(1008);
}

#[test]
fn a_connection_keeps_its_user_and_ends_with_its_token() {
    let node = Node::start(&[]);
    let mut client = node.join("alice");
    client.say(&json!({"path": "connet", "token": node.token("bob")}));
    client.expect_close(1008);
    let order = json!({"userId": "alice", "ttlSecs": 1});
    let content = node.post("/api/v1/tokens", &order).content();
    let short = content["wsToken"].as_str().unwrap();
    let mut kept = node.open(&format!("?token={short}"), &[]).unwrap();
    kept.hear();
    kept.say(&json!({"path": "connet", "token": node.token("alice")}));
    assert_eq!(kept.hear()["success"], true);
    let content = node.post("/api/v1/tokens", &order).content();
    let short = content["wsToken"].as_str().unwrap();
    let mut client = node.open(&format!("?token={short}"), &[]).unwrap();
    client.expect_close(4401);
    kept.is_heard();
}

#[test]
fn pages_of_origins_that_are_not_listed_are_refused() {
    let any = Node::start(&[]);
    assert!(any.open("", &["Origin: https://anywhere.example"]).is_ok());
    let config = "allowed_origins = [\"https://app.example\"]\n";
    let node = Setup::new().config(config).start();
    assert!(node.open("", &["Origin: https://app.example"]).is_ok());
    assert!(node.open("", &[]).is_ok(), "no browser");
    for foreign in [
        "Origin: https://app.example.evil",
        "Origin: http://app.example",
        "Origin: https://app.example:8443",
        "Origin: null",
    ] {
        assert_eq!(
            status(&node.open("", &[foreign]).err().unwrap()),
            403,
            "{foreign}"
        );
    }
}

#[test]
fn without_authentication_clients_name_themselves_and_foreign_pages_are_refused() {
    let node = Node::start(&["--auth", "none"]);
    assert!(!node.errors().contains("demo token"));
    is(
        node.open("?openid=alice&token=ignored", &[]).unwrap(),
        "alice",
        "alice",
    );
    is(
        node.open("?openid=bob", &["Origin: http://localhost:3000"])
            .unwrap(),
        "bob",
        "bob",
    );
    let answer = node
        .open("?openid=eve", &["Origin: https://evil.example"])
        .err()
        .unwrap();
    assert_eq!(status(&answer), 403);
    assert_eq!(status(&node.open("?openid=a%20b", &[]).err().unwrap()), 400);
    let mut client = node.stranger();
    client.say(&json!({"type": "7", "params": {"openid": "carl", "loginStatus": "1"}}));
    assert_eq!(client.hear()["msg"]["userId"], "carl");
    assert_eq!(client.hear()["type"], 8);
    client.say(&json!({"path": "connet", "body": {"openid": "dora"}}));
    // PROTOCOL.md: in this mode another openid is a second identity.
    client.expect_close(1008);
}
