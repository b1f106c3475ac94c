//! Sessions that nodes know of together: who is here, who hears of it, and who has to go.

use serde_json::{Value, json};

use crate::nodes::{Cluster, hears, is_silent, join_with, send};
use crate::support::{Client, eventually};

fn online(user: &str, is_online: bool) -> Value {
    json!({"event": "online", "userId": user, "online": is_online})
}

/// How many sessions the node of a seat shows of a user.
fn shown(cluster: &Cluster, seat: usize, user: &str) -> usize {
    let path = format!("/api/v1/users/{user}");
    let content = cluster.node(seat).get(&path).content();
    content["sessions"].as_array().unwrap().len()
}

#[test]
fn a_watcher_hears_who_comes_and_goes_on_other_nodes() {
    let cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    alice.say(&json!({"path": "online", "body": {"watch": "bob,carol"}, "requestId": "r"}));
    let answer = alice.hear();
    let nobody = json!({"bob": false, "carol": false});
    assert_eq!(answer["content"]["online"], nobody, "{answer}");
    let first = join_with(cluster.node(1), "bob", "");
    assert_eq!(alice.hear()["msg"], online("bob", true));
    let second = join_with(cluster.node(2), "bob", "");
    drop(first);
    eventually("one session is gone", || shown(&cluster, 0, "bob") == 1);
    let other = join_with(cluster.node(2), "carol", "");
    // Nothing before that: he stayed, on another node.
    assert_eq!(alice.hear()["msg"], online("carol", true));
    drop(second);
    assert_eq!(alice.hear()["msg"], online("bob", false));
    alice.say(&json!({"path": "online", "body": {"uids": ["bob", "carol"]}}));
    let answer = alice.hear();
    let both = json!({"bob": false, "carol": true});
    assert_eq!(answer["content"]["online"], both, "{answer}");
    drop(other);
    assert_eq!(alice.hear()["msg"], online("carol", false));
}

#[test]
fn a_watcher_hears_that_users_are_gone_whose_node_was_killed() {
    let mut cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    alice.say(&json!({"path": "online", "body": {"watch": "bob,carol"}}));
    alice.hear();
    let _bob = join_with(cluster.node(1), "bob", "");
    assert_eq!(alice.hear()["msg"], online("bob", true));
    let _carol = [1, 2].map(|n| join_with(cluster.node(n), "carol", ""));
    assert_eq!(alice.hear()["msg"], online("carol", true));
    cluster.kill(1);
    // Its lease has to run out before; she is still on another node.
    assert_eq!(alice.hear()["msg"], online("bob", false));
    is_silent(&mut alice);
}

#[test]
fn everybody_is_counted_and_shown_wherever_he_is() {
    let cluster = Cluster::start(3);
    let clients: Vec<Client> = (0..3)
        .flat_map(|n| ["alice".to_owned(), format!("u{n}")].map(|user| (n, user)))
        .map(|(n, user)| join_with(cluster.node(n), &user, ""))
        .collect();
    for seat in 0..3 {
        assert_eq!(shown(&cluster, seat, "alice"), 3);
        eventually("all are counted", || {
            let content = cluster.node(seat).get("/api/v1/nodes").content();
            let nodes = content.as_array().unwrap();
            nodes.len() == 3 && nodes.iter().all(|node| node["connections"] == 2)
        });
        let path = "/api/v1/online?uids=alice,u0,u1,u2,nobody";
        let content = cluster.node(seat).get(path).content();
        for user in ["alice", "u0", "u1", "u2"] {
            assert_eq!(content["online"][user], true, "{content}");
        }
        assert_eq!(content["online"]["nobody"], false, "{content}");
    }
    let sessions = cluster.node(0).get("/api/v1/users/alice").content();
    let named = sessions["sessions"].as_array().unwrap().iter();
    let mut names: Vec<&str> = named.map(|s| s["sessionId"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut nodes: Vec<String> = cluster.seats.iter().map(|s| s.api.clone()).collect();
    nodes.sort_unstable();
    for (name, node) in names.iter().zip(nodes) {
        assert!(name.starts_with(&format!("{node}_alice_")), "{names:?}");
    }
    drop(clients);
}

#[test]
fn a_backend_ends_sessions_on_any_node() {
    let cluster = Cluster::start(3);
    let mut bobs = [1, 2].map(|n| join_with(cluster.node(n), "bob", ""));
    let mut carol = join_with(cluster.node(1), "carol", "");
    assert_eq!(
        cluster.node(0).delete("/api/v1/users/bob/sessions").status,
        200
    );
    for client in &mut bobs {
        client.expect_close(4410);
    }
    is_silent(&mut carol);
    let shown = cluster.node(2).get("/api/v1/users/carol").content();
    let id = shown["sessions"][0]["sessionId"].as_str().unwrap();
    let path = format!("/api/v1/sessions/{id}");
    assert_eq!(cluster.node(0).delete(&path).status, 200);
    carol.expect_close(4410);
    eventually("nobody is left", || cluster.sessions_of("carol").is_empty());
    assert_eq!(cluster.node(0).delete(&path).status, 404);
}

#[test]
fn the_ninth_session_closes_the_oldest_wherever_it_is() {
    let cluster = Cluster::start(3);
    let mut clients: Vec<Client> = (0..9)
        .map(|n| join_with(cluster.node(n % 3), "erin", ""))
        .collect();
    clients.remove(0).expect_close(4409);
    for client in &mut clients {
        is_silent(client);
    }
    assert_eq!(shown(&cluster, 1, "erin"), 8);
}

#[test]
fn a_device_has_one_connection_and_it_may_be_on_another_node() {
    let cluster = Cluster::start(3);
    let mut alice = join_with(cluster.node(0), "alice", "");
    let mut old = join_with(cluster.node(0), "bob", "device=phone&ack=1");
    for n in [1, 2, 0] {
        let message = format!("on {n}");
        let mut new = join_with(cluster.node(n), "bob", "device=phone&ack=1");
        old.expect_close(4409);
        let id = send(&mut alice, "bob", &message, &message);
        assert_eq!(hears(&mut new, 1), [message]);
        new.say(&json!({"type": 15, "params": {"msgid": id}}));
        assert_eq!(new.hear()["type"], 16);
        assert_eq!(alice.hear()["msg"]["type"], 17);
        old = new;
    }
    assert_eq!(shown(&cluster, 1, "bob"), 1);
}

#[test]
fn where_the_policy_is_single_the_newest_is_the_only_one_of_all_nodes() {
    let cluster = Cluster::with(3, &[("THRONG_SESSION_POLICY", "single")]);
    let mut old = join_with(cluster.node(0), "bob", "device=a");
    for n in [1, 2, 2, 0] {
        let new = join_with(cluster.node(n), "bob", &format!("device=d{n}"));
        old.expect_close(4409);
        old = new;
    }
    is_silent(&mut old);
    assert_eq!(shown(&cluster, 1, "bob"), 1);
}
