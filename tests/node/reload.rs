//! SIGHUP: the configuration is read again, and what may change does, while clients stay.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::client::status;
use crate::support::http::call;
use crate::support::setup::Folder;
use crate::support::{Client, Node, Setup, eventually};

const OLD: &str = "canary-old-0123456789abcdef0123456789";
const NEW: &str = "canary-new-0123456789abcdef0123456789";
const DONE: &str = "the configuration was read again";
const REFUSED: &str = "the configuration is bad and was not taken";

/// A node with one reactor, so that its mail has one order, and with a file.
fn one_reactor(config: &str) -> Setup {
    let config = format!("# of a test\n{config}");
    Setup::new().args(&["--reactors", "1"]).config(&config)
}

fn start(config: &str) -> Node {
    started(one_reactor(config))
}

/// A node whose log of the start has been read: what comes behind it answers a signal.
fn started(setup: Setup) -> Node {
    let node = setup.start();
    eventually("its start", || node.errors().contains("\ntry: ws://"));
    node
}

/// Writes another configuration, and returns what the node says to it.
fn reload(node: &Node, config: &str) -> String {
    fs::write(node.folder.path("throng.toml"), config).unwrap();
    hang_up(node)
}

fn hang_up(node: &Node) -> String {
    let before = node.errors().len();
    node.signal("HUP");
    let said = || node.errors()[before..].to_owned();
    eventually("an answer to SIGHUP", || {
        let said = said();
        (said.contains(DONE) || said.contains(REFUSED)) && said.ends_with('\n')
    });
    said()
}

/// What was pushed now came behind the new rules.
fn await_rules(node: &Node, client: &mut Client, user: &str) {
    assert_eq!(node.push(&[user], &json!({"fence": 1})).status, 200);
    while client.hear()["msg"]["fence"] != 1 {}
}

/// Whether a token opens the door.
fn opens(node: &Node, token: &str) -> bool {
    match node.open(&format!("?token={token}"), &[]) {
        Ok(mut client) => client.hear()["msgType"] == 0,
        Err(answer) => {
            assert_eq!(status(&answer), 401);
            false
        }
    }
}

#[test]
fn a_new_secret_signs_the_old_one_verifies_until_it_is_removed_and_who_is_here_stays() {
    let config = "token_secret_file = \"keys\"\n";
    let setup = one_reactor(config);
    let write = |node: &Folder, keys: &str| fs::write(node.path("keys"), keys).unwrap();
    write(&setup.folder, OLD);
    let node = started(setup);
    let old = node.token("alice");
    let mut alice = node.join("alice");

    write(&node.folder, &format!("{NEW}\n{OLD}\n"));
    let said = hang_up(&node);
    assert!(said.contains("token_secret"), "{said}");
    let new = node.token("alice");
    await_rules(&node, &mut alice, "alice");
    assert!(opens(&node, &old) && opens(&node, &new));

    write(&node.folder, NEW);
    hang_up(&node);
    await_rules(&node, &mut alice, "alice");
    assert!(opens(&node, &new), "the first one signed it");
    assert!(!opens(&node, &old));
    alice.is_heard();
}

#[test]
fn the_secret_in_the_data_directory_is_read_again() {
    let node = start("");
    let old = node.token("alice");
    let mut alice = node.join("alice");
    let path = node.folder.path("data/token.secret");
    fs::write(&path, NEW).unwrap();
    let said = hang_up(&node);
    assert!(said.contains("token_secret"), "{said}");
    await_rules(&node, &mut alice, "alice");
    assert!(!opens(&node, &old));
    node.serves();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let said = hang_up(&node);
    assert!(said.contains("can be read by others"), "{said}");
    node.serves();
}

/// A token as an identity provider would make it, good for years.
fn foreign_token(secret: &str, user: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"sub": user, "name": user, "exp": 4_000_000_000u64});
    let signed = part(&json!({"alg": "HS256", "typ": "JWT"})) + "." + &part(&claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    let signature = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn the_keys_of_an_identity_provider_change() {
    let text = |keys: &str| {
        format!("auth = \"jwt\"\njwt_algorithm = \"HS256\"\njwt_key = \"\"\"{keys}\"\"\"\n")
    };
    let node = one_reactor(&text(OLD)).start();
    let [old, new] = [OLD, NEW].map(|secret| foreign_token(secret, "alice"));
    let mut alice = node.open(&format!("?token={old}"), &[]).unwrap();
    assert_eq!(alice.hear()["msg"]["userId"], "alice");
    assert!(!opens(&node, &new));
    let said = reload(&node, &text(&format!("{NEW}\n{OLD}")));
    assert!(said.contains("jwt_key"), "{said}");
    await_rules(&node, &mut alice, "alice");
    assert!(opens(&node, &old) && opens(&node, &new));
    reload(&node, &text(NEW));
    await_rules(&node, &mut alice, "alice");
    assert!(!opens(&node, &old) && opens(&node, &new));
    let said = reload(&node, &format!("token_secret = \"{OLD}\"\n"));
    assert!(said.contains("keys=\"auth\""), "{said}");
    assert!(opens(&node, &new), "another mode needs a restart");
    assert!(!node.errors().contains("canary"));
}

#[test]
fn limits_change_for_those_who_are_here() {
    let node = start("");
    let mut alice = node.join("alice");
    let long = json!({"type": 11, "x": "x".repeat(9000)});
    alice.say(&long);
    assert_eq!(alice.hear()["type"], 12);
    let said = reload(&node, "[limits]\nmessage_bytes_max = 8192\n");
    assert!(said.contains("limits.message_bytes_max"), "{said}");
    await_rules(&node, &mut alice, "alice");
    alice.say(&long);
    assert_eq!(alice.closed().code, 1009);
    // The API goes by them as well.
    reload(&node, "[limits]\ntargets_max = 1\n");
    assert_eq!(node.push(&["a", "b"], &json!({})).status, 400);
}

#[test]
fn a_clock_that_is_set_forward_is_heard_by_who_says_nothing() {
    let node = start("idle_secs = 0\nping_secs = 0\n");
    let mut alice = node.join("alice");
    reload(&node, "idle_secs = 1\nping_secs = 0\n");
    assert_eq!(alice.closed().code, 4408);
}

#[test]
fn origins_change() {
    let node = start("allowed_origins = [\"https://a.example\"]\n");
    let mut alice = node.join("alice");
    let comes_from = |origin: &str| {
        let token = node.token("bob");
        node.open(&format!("?token={token}"), &[&format!("Origin: {origin}")])
            .map_err(|answer| status(&answer))
            .is_ok()
    };
    assert!(comes_from("https://a.example") && !comes_from("https://b.example"));
    reload(&node, "allowed_origins = [\"https://b.example\"]\n");
    await_rules(&node, &mut alice, "alice");
    assert!(!comes_from("https://a.example") && comes_from("https://b.example"));
}

#[test]
fn the_api_key_changes() {
    let node = start(&format!("api_key = \"{OLD}\"\n"));
    let asks = |key: &str| {
        let field = format!("Authorization: Bearer {key}");
        call(node.api, "GET", "/api/v1/online", &[&field], "").status
    };
    assert_eq!((asks(OLD), asks(NEW)), (200, 401));
    let said = reload(&node, &format!("api_key = \"{NEW}\"\n"));
    assert!(said.contains("api_key"), "{said}");
    assert_eq!((asks(OLD), asks(NEW)), (401, 200));
}

#[test]
fn a_bad_configuration_changes_nothing_and_all_that_is_wrong_is_said_in_one_line() {
    let node = start("[limits]\nmessage_bytes_max = 8192\n");
    let mut alice = node.join("alice");
    let said = reload(
        &node,
        "pth = \"/x\"\nlog_level = \"loud\"\n[limits]\nheaders_max = 0\nmessage_bytes_max = 9000\n",
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("ERROR"), "{said}");
    for problem in ["unknown key pth", "log_level = ", "limits.headers_max = 0"] {
        assert!(said.contains(problem), "{problem} is missing in: {said}");
    }
    let broken = reload(&node, "[limits\nheaders_max = 9\n");
    assert_eq!(broken.lines().count(), 1, "{broken}");
    assert!(broken.contains("line 1"), "{broken}");
    fs::remove_file(node.folder.path("throng.toml")).unwrap();
    assert!(hang_up(&node).contains("cannot read the configuration"));
    node.serves();
    alice.say(&json!({"type": 11, "x": "x".repeat(8500)}));
    assert_eq!(alice.closed().code, 1009);
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let folder = Folder::new();
    let data = folder.path("data").display().to_string();
    let config = "listen = \"127.0.0.1:0\"\napi = \"127.0.0.1:0\"\n";
    let setup = Setup::bare(folder).args(&["--data-dir", &data]);
    let node = started(setup.config(config));
    let said = reload(
        &node,
        "listen = \"127.0.0.1:1\"\napi = \"127.0.0.1:0\"\npath = \"/other\"\nbacklog = 9\n\
         [limits]\nstrikes_max = 9\n",
    );
    let line = |level: &str| said.lines().find(|line| line.contains(level)).unwrap();
    assert!(line("WARN").contains("listen, path, backlog"), "{said}");
    assert!(line("WARN").contains("restart"), "{said}");
    assert!(line("INFO").contains("limits.strikes_max"), "{said}");
    assert!(!line("INFO").contains("listen"), "{said}");
    node.serves();
    let said = reload(&node, config);
    assert!(!said.contains("WARN"), "{said}");
    let said = hang_up(&node);
    assert!(said.contains("nothing"), "{said}");
}

#[test]
fn the_log_speaks_as_loudly_as_it_is_told() {
    let node = start("");
    assert!(!hang_up(&node).contains("DEBUG"));
    assert!(reload(&node, "log_level = \"debug\"\n").contains("DEBUG"));
    assert!(!reload(&node, "log_level = \"info\"\n").contains("DEBUG"));
}

#[test]
fn no_secret_is_told_whatever_becomes_of_it() {
    let text = |key: &str, secret: &str| {
        format!("log_level = \"trace\"\napi_key = \"{key}\"\ntoken_secret = \"{secret}\"\n")
    };
    let node = start(&text(OLD, NEW));
    reload(&node, &text(NEW, OLD));
    reload(&node, &text("canary", "canary"));
    reload(&node, &format!("{}jwt_key = \"canary\"\n", text(OLD, OLD)));
    reload(&node, &format!("{}token_secret = \"canary", text(OLD, OLD)));
    node.signal("TERM");
    let (status, output, errors) = node.end();
    assert_eq!(status.code(), Some(0));
    assert!(errors.contains("api_key, token_secret"), "{errors}");
    assert!(!(output + &errors).contains("canary"), "{errors}");
}

#[test]
fn signals_that_come_thick_and_fast_are_borne() {
    let mut node = start("");
    for _ in 0..20 {
        node.signal("HUP");
    }
    node.serves();
    assert!(node.is_running());
}
