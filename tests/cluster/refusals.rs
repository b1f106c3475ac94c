//! A Redis that will not do, and a node that must not join: each is told with what to do.

use serde_json::json;

use crate::nodes::{PASSWORD, chat, member};
use crate::server::{Server, free_port};
use crate::support::Setup;
use crate::support::setup::Folder;

/// What a node says that does not start for a fault of Redis.
fn refuses(redis: &Server, words: &[&str]) {
    let says = member(redis).fails_with(1);
    for word in words {
        assert!(says.contains(word), "no {word:?}: {says}");
    }
    assert!(!says.contains(PASSWORD), "{says}");
}

#[test]
fn a_redis_that_drops_keys_is_refused() {
    let redis = Server::start();
    redis.set("maxmemory-policy", "allkeys-lru");
    refuses(&redis, &["allkeys-lru", "Set maxmemory-policy noeviction"]);
    redis.set("maxmemory-policy", "noeviction");
    member(&redis).start().serves();
}

#[test]
fn a_replica_is_refused() {
    let master = Server::start();
    let redis = Server::start();
    redis.command(&["REPLICAOF", "127.0.0.1", &master.port.to_string()]);
    refuses(&redis, &["replica", "Name its master"]);
}

#[test]
fn a_redis_that_is_not_there_is_told() {
    let mut redis = Server::start();
    redis.kill();
    let port = redis.port.to_string();
    refuses(
        &redis,
        &[&port, "cannot reach Redis", "Start it, or correct"],
    );
}

#[test]
fn a_wrong_password_is_told_and_not_repeated() {
    let redis = Server::start();
    let wrong = "not-the-password-of-anybody";
    let says = member(&redis)
        .env("THRONG_REDIS_PASSWORD", wrong)
        .fails_with(1);
    assert!(says.contains("correct the address or the user"), "{says}");
    assert!(!says.contains(wrong), "{says}");
}

#[test]
fn a_user_without_a_right_that_is_needed_is_refused() {
    for missing in ["-xadd", "-publish", "-evalsha", "-pttl"] {
        let redis = Server::start();
        redis.command(&["ACL", "SETUSER", "throng", missing]);
        let says = member(&redis).fails_with(1);
        assert!(says.contains("throng.acl"), "{missing}: {says}");
    }
}

#[test]
fn a_data_directory_with_undelivered_messages_keeps_a_node_out() {
    let redis = Server::start();
    let home = Folder::new();
    let data = home.path("data").display().to_string();
    let node = Setup::new().args(&["--data-dir", &data]).start();
    let mut alice = node.join("alice");
    alice.say(&chat("bob", "hi", "m1"));
    assert_eq!(alice.hear()["type"], 0);
    node.signal("TERM");
    assert_eq!(node.end().0.code(), Some(0));
    let says = member(&redis).args(&["--data-dir", &data]).fails_with(2);
    for word in ["throng store export", "throng store import", &data] {
        assert!(says.contains(word), "no {word:?}: {says}");
    }
    // When they are delivered, it may join.
    let node = Setup::new().args(&["--data-dir", &data]).start();
    let (mut bob, _) = node.join_for(&json!({"userId": "bob"}), "ack=1");
    let id = bob.hear()["messageId"].clone();
    bob.say(&json!({"type": 15, "params": {"msgid": id}}));
    assert_eq!(bob.hear()["type"], 16);
    let (mut alice, _) = node.join_for(&json!({"userId": "alice"}), "ack=1");
    let notice = alice.hear();
    let place = format!("{}:{}", notice["epoch"].as_str().unwrap(), notice["seq"]);
    alice.say(&json!({"type": 15, "params": {"upTo": place}}));
    assert_eq!(alice.hear()["type"], 16);
    node.signal("TERM");
    assert_eq!(node.end().0.code(), Some(0));
    member(&redis).args(&["--data-dir", &data]).start().serves();
}

#[test]
fn another_store_beside_redis_is_a_configuration_that_cannot_be() {
    let redis = Server::start();
    let says = member(&redis).args(&["--store", "disk"]).fails_with(2);
    assert!(
        says.contains("--redis") && says.contains("leave one of them out"),
        "{says}"
    );
    let says = Setup::new().args(&["--store", "redis"]).fails_with(2);
    assert!(says.contains("set redis"), "{says}");
    let url = format!("redis://127.0.0.1:{}/x", free_port());
    let says = Setup::new().args(&["--redis", &url]).fails_with(2);
    assert!(says.contains("redis"), "{says}");
}
