//! The nodes of one cluster, and the Redis that they share.
//!
//! Owns: the server, a seat for each node (its ports and its data directory, which outlive the
//! process), and the processes. A node that is started again has the name that it had.

use std::process::ExitStatus;

use redis::{FromRedisValue, cmd};
use serde_json::{Value, json};

use crate::server::{PREFIX, Server, free_port};
use crate::support::setup::Folder;
use crate::support::{Client, Node, Setup, eventually};

/// Of the user in the ACL file.
pub const PASSWORD: &str = "change-this";

pub struct Seat {
    listen: String,
    pub api: String,
    home: Folder,
    node: Option<Node>,
}

impl Seat {
    fn new() -> Seat {
        Seat {
            listen: format!("127.0.0.1:{}", free_port()),
            api: format!("127.0.0.1:{}", free_port()),
            home: Folder::new(),
            node: None,
        }
    }

    pub fn public_url(&self) -> String {
        format!("ws://{}/websocket", self.listen)
    }

    pub fn data(&self) -> String {
        self.home.path("data").display().to_string()
    }
}

pub struct Cluster {
    pub redis: Server,
    pub seats: Vec<Seat>,
    /// What all nodes have in their environment.
    env: Vec<(&'static str, &'static str)>,
}

/// A node that comes in as the server's user with few rights.
pub fn member(redis: &Server) -> Setup {
    let url = format!("redis://throng@127.0.0.1:{}", redis.port);
    Setup::new()
        .args(&["--redis", &url, "--reactors", "1"])
        .env("THRONG_REDIS_PASSWORD", PASSWORD)
}

impl Cluster {
    /// So many nodes, all of them up and known to each other.
    pub fn start(count: usize) -> Cluster {
        Cluster::with(count, &[])
    }

    pub fn with(count: usize, env: &[(&'static str, &'static str)]) -> Cluster {
        let mut cluster = Cluster::over(Server::start(), count, env);
        (0..count).for_each(|n| cluster.open(n));
        cluster.await_each_other();
        cluster
    }

    /// Nobody is started yet.
    pub fn over(redis: Server, count: usize, env: &[(&'static str, &'static str)]) -> Cluster {
        Cluster {
            redis,
            seats: (0..count).map(|_| Seat::new()).collect(),
            env: env.to_vec(),
        }
    }

    /// How the node of a seat is started.
    pub fn setup(&self, seat: usize) -> Setup {
        let Seat { listen, api, .. } = &self.seats[seat];
        let (data, url) = (self.seats[seat].data(), self.seats[seat].public_url());
        let setup = member(&self.redis)
            .args(&["--listen", listen, "--api", api, "--data-dir", &data])
            .args(&["--public-url", &url]);
        let env = self.env.iter();
        env.fold(setup, |setup, (name, value)| setup.env(name, value))
    }

    pub fn open(&mut self, seat: usize) {
        let node = self.setup(seat).start();
        self.seat(seat, node);
    }

    /// A node that was started otherwise.
    pub fn seat(&mut self, seat: usize, node: Node) {
        self.seats[seat].node = Some(node);
    }

    pub fn node(&self, seat: usize) -> &Node {
        self.seats[seat].node.as_ref().expect("the node runs")
    }

    pub fn is_running(&mut self, seat: usize) -> bool {
        let node = self.seats[seat].node.as_mut();
        node.is_some_and(Node::is_running)
    }

    /// All that run.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.seats.iter().filter_map(|seat| seat.node.as_ref())
    }

    /// Waits until a node has ended, and returns how, and what it had said.
    pub fn await_end(&mut self, seat: usize) -> (ExitStatus, String) {
        let node = self.seats[seat].node.take().expect("the node runs");
        let (status, _, errors) = node.end();
        (status, errors)
    }

    /// As `kill -9` does.
    pub fn kill(&mut self, seat: usize) {
        self.node(seat).signal("KILL");
        self.bury(seat);
    }

    /// Waits for a node that dies, by itself or not.
    pub fn bury(&mut self, seat: usize) {
        let (status, errors) = self.await_end(seat);
        assert_eq!(status.code(), None, "it ended by itself: {errors}");
    }

    /// Ends a node in order.
    pub fn drain(&mut self, seat: usize) {
        self.node(seat).signal("TERM");
        let (status, errors) = self.await_end(seat);
        assert_eq!(status.code(), Some(0), "{errors}");
    }

    /// Waits until each node that runs knows all the others.
    pub fn await_each_other(&self) {
        let count = self.nodes().count();
        for node in self.nodes() {
            eventually("the nodes know each other", || {
                node.metric("nodes") == count as f64
            });
        }
    }

    /// What Redis answers to somebody who may do everything.
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut asked = cmd(words[0]);
        asked.arg(&words[1..]);
        asked.query(&mut self.redis.admin()).unwrap()
    }

    /// The name of a key.
    pub fn key(name: &str) -> String {
        format!("{PREFIX}{name}")
    }

    /// What is written down of where a user is.
    pub fn sessions_of(&self, user: &str) -> Vec<String> {
        let key = Cluster::key(&format!("client:{{{user}}}"));
        let mut fields: Vec<String> = self.ask(&["HKEYS", &key]);
        fields.retain(|field| field.starts_with("s:"));
        fields
    }
}

/// A client of `user` with more in its query than the token.
pub fn join_with(node: &Node, user: &str, query: &str) -> Client {
    node.join_for(&json!({"userId": user}), query).0
}

/// A chat message.
pub fn chat(to: &str, message: &str, msgid: &str) -> Value {
    let params = json!({"toMessageId": to, "message": message, "fileType": 0, "msgid": msgid});
    json!({"type": 1, "params": params})
}

/// Sends a chat message, and returns the id under which it was stored.
pub fn send(from: &mut Client, to: &str, message: &str, msgid: &str) -> String {
    from.say(&chat(to, message, msgid));
    let receipt = from.hear();
    assert_eq!(receipt["type"], 0, "{receipt}");
    receipt["params"]["messageId"].as_str().unwrap().to_owned()
}

/// The next messages, as texts.
pub fn hears(client: &mut Client, count: usize) -> Vec<String> {
    let text = |heard: Value| {
        heard["msg"]["params"]["message"]
            .as_str()
            .map(str::to_owned)
    };
    (0..count)
        .map(|_| text(client.hear()).expect("a chat message"))
        .collect()
}

pub fn is_silent(client: &mut Client) {
    assert_eq!(client.is_heard(), [Value::Null; 0]);
}
