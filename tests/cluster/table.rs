//! Nodes among themselves: who is there, who has room, whose name it is, and how one leaves.

use serde_json::{Value, json};

use crate::nodes::{Cluster, Seat, is_silent, join_with, member};
use crate::server::Server;
use crate::support::{Client, Node, eventually};

fn least_loaded(node: &Node) -> Value {
    node.get("/api/v1/nodes/least-loaded").content()
}

#[test]
fn new_clients_are_sent_where_there_is_most_room() {
    let mut cluster = Cluster::start(3);
    let _here = [0, 0, 1].map(|n| join_with(cluster.node(n), "bob", ""));
    let Seat { api, .. } = &cluster.seats[2];
    for n in 0..3 {
        eventually("the emptiest node is known", || {
            least_loaded(cluster.node(n))["node"] == **api
        });
        let chosen = least_loaded(cluster.node(n));
        assert_eq!(chosen["url"], cluster.seats[2].public_url());
    }
    // Whoever dies is in the table no more.
    cluster.kill(2);
    let next = cluster.seats[1].api.clone();
    eventually("the dead node is forgotten", || {
        least_loaded(cluster.node(0))["node"] == *next
    });
    let nodes = cluster.node(0).get("/api/v1/nodes").content();
    assert_eq!(nodes.as_array().unwrap().len(), 2, "{nodes}");
}

#[test]
fn who_finds_a_node_full_is_told_of_one_with_room() {
    let mut cluster = Cluster::over(Server::start(), 2, &[]);
    for (n, max) in [(0, "2"), (1, "5")] {
        let node = cluster.setup(n).args(&["--max-connections", max]).start();
        cluster.seat(n, node);
    }
    cluster.await_each_other();
    let clients = ["a", "b"].map(|user| join_with(cluster.node(0), user, ""));
    let mut late = cluster.node(0).stranger();
    let reason: Value = serde_json::from_str(&late.closed().reason).unwrap();
    assert_eq!(reason["to"], cluster.seats[1].public_url(), "{reason}");
    assert!(reason["retryMs"].is_u64());
    drop(clients);
}

#[test]
fn a_node_that_is_stopped_sends_its_clients_elsewhere_and_leaves_nothing_behind() {
    let mut cluster = Cluster::start(3);
    let mut clients: Vec<Client> = (0..8)
        .map(|n| join_with(cluster.node(1), &format!("u{n}"), ""))
        .collect();
    let mut watcher = join_with(cluster.node(0), "alice", "");
    watcher.say(&json!({"path": "online", "body": {"watch": "u0"}}));
    watcher.hear();
    cluster.node(1).signal("TERM");
    let elsewhere = [0, 2].map(|n| cluster.seats[n].public_url());
    for client in &mut clients {
        let closed = client.closed();
        assert_eq!(closed.code, 1012);
        let reason: Value = serde_json::from_str(&closed.reason).unwrap();
        let to = reason["to"].as_str().unwrap_or_default().to_owned();
        assert!(elsewhere.contains(&to), "{reason}");
        client.say_goodbye(1012);
    }
    let (status, errors) = cluster.await_end(1);
    assert_eq!(status.code(), Some(0), "{errors}");
    let told = watcher.hear()["msg"].clone();
    assert_eq!(
        told,
        json!({"event": "online", "userId": "u0", "online": false})
    );
    let lease = Cluster::key(&format!("lease:{}", cluster.seats[1].api));
    assert_eq!(cluster.ask::<u32>(&["EXISTS", &lease]), 0);
    for n in 0..8 {
        let user = format!("u{n}");
        assert_eq!(cluster.sessions_of(&user), Vec::<String>::new());
    }
    for n in [0, 2] {
        eventually("the others know", || cluster.node(n).metric("nodes") == 2.0);
    }
    let registry = Cluster::key("websocket_server");
    eventually("it is struck from the registry", || {
        cluster.ask::<Vec<String>>(&["HKEYS", &registry]).len() == 2
    });
    // It may come back under its name at once.
    cluster.open(1);
    cluster.await_each_other();
    is_silent(&mut join_with(cluster.node(1), "u0", ""));
}

#[test]
fn a_name_belongs_to_one_node_for_as_long_as_that_lives() {
    let mut cluster = Cluster::start(1);
    let name = cluster.seats[0].api.clone();
    let second = || member(&cluster.redis).args(&["--advertise", &name]);
    let says = second().fails_with(1);
    assert!(
        says.contains(&name) && says.contains("--advertise"),
        "{says}"
    );
    cluster.node(0).serves();
    let second = second();
    cluster.kill(0);
    let node = second.start();
    assert!(
        node.ready.ends_with(&format!("node={name}")),
        "{}",
        node.ready
    );
    node.serves();
}

#[test]
fn a_node_whose_name_was_taken_while_it_stood_still_lets_its_clients_go() {
    let mut cluster = Cluster::start(2);
    let name = cluster.seats[0].api.clone();
    let mut alice = join_with(cluster.node(0), "alice", "device=phone");
    cluster.node(0).signal("STOP");
    let second = member(&cluster.redis).args(&["--advertise", &name]).start();
    let mut bob = join_with(&second, "bob", "");
    cluster.node(0).signal("CONT");
    assert_eq!(alice.closed().code, 1012);
    alice.say_goodbye(1012);
    let (status, errors) = cluster.await_end(0);
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("has taken this node's name"), "{errors}");
    // Nothing of the newer one was harmed by that.
    let answer = cluster.node(1).push(&["bob"], &json!({"n": 1}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(bob.hear()["msg"]["n"], 1);
    let lease = Cluster::key(&format!("lease:{name}"));
    assert_eq!(cluster.ask::<u32>(&["EXISTS", &lease]), 1);
}
