//! The API over real sockets, against a node whose mailboxes the test reads itself.

mod orders;
mod places;
mod wire;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::command::ToReactor;
use crate::hub::code::UserCodes;
use crate::hub::roster::{Policy, Roster};
use crate::hub::watches::Watches;
use crate::inbox::memory::MemoryRows;
use crate::inbox::{Books, InboxRules, Presence};
use crate::mailbox::{Inbox, mailbox, store_box};
use crate::parts::key::Key;
use crate::protocol::identity::Identity;
use crate::protocol::limits::Limits;
use crate::session::auth::{Auth, JwtAlgorithm, JwtKeys, TokenKeys};
use crate::session::rules::{Origins, SessionPolicy};

const KEY: &str = "0123456789abcdef0123456789abcdef";

struct Rig {
    control: Control,
    node: Arc<Node>,
    post: Arc<Post>,
    stats: Arc<[Arc<ReactorStats>]>,
    inboxes: Vec<Inbox>,
}

/// An answer as it came.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}{}", self.head, self.body))
    }

    /// The HTTP status, after the shape was found to agree with it.
    fn shaped(&self) -> u16 {
        let json = self.json();
        let names: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            ["content", "msg", "statusCode", "success"],
            "{}",
            self.body
        );
        let success = json["success"].as_bool().unwrap();
        assert_eq!(success, json["statusCode"] == 200, "{}", self.body);
        if json["statusCode"] != -501 {
            assert_eq!(json["statusCode"], self.status, "{}", self.body);
        }
        self.status
    }
}

/// The usual limits, with this key and these keys of tokens.
fn live(api_key: Option<&str>, auth: Auth) -> Live {
    let limits = Limits::default();
    let rules = Rules {
        echo_limits: limits.echo(),
        limits,
        path: "/websocket".to_owned(),
        echo_path: None,
        origins: Origins::Any,
        trusted_proxies: Vec::new(),
        auth: Arc::new(auth),
        session_policy: SessionPolicy::Multi,
        groups_are_open: false,
        node_name: "10.0.0.7:8084".to_owned(),
    };
    Live {
        rules: Arc::new(rules),
        api_key: api_key.map(str::to_owned),
    }
}

/// Nobody is connected.
struct Nobody;

impl Presence for Nobody {
    fn devices(&self, _: &str) -> smallvec::SmallVec<[String; 2]> {
        smallvec::SmallVec::new()
    }
}

/// A store in memory, served as long as somebody can write to it.
fn store() -> StoreBox {
    let (sender, letters) = store_box();
    std::thread::spawn(move || {
        let mut rows = MemoryRows::default();
        let rules = InboxRules {
            entries_max: 1000,
            bytes_max: 8 << 20,
            notices_max: 1000,
            devices_max: 8,
            ttl_ms: 1 << 40,
            seen_ms: 1 << 40,
            seen_max: 1000,
        };
        for letter in letters {
            let mut books = Books {
                rows: &mut rows,
                presence: &Nobody,
                rules: &rules,
                now_ms: now_ms(),
                epoch: 7,
                rings: &mut Vec::new(),
            };
            let outcome = books.serve(&letter.request).unwrap();
            if let ReplyTo::Call(call) = letter.reply {
                call(outcome);
            }
        }
    });
    sender
}

impl Rig {
    fn new() -> Rig {
        Rig::with(None, Auth::Hmac(TokenKeys::parse(KEY).unwrap()))
    }

    fn with(api_key: Option<&str>, auth: Auth) -> Rig {
        let listen = "127.0.0.1:0".parse().unwrap();
        let (mailboxes, inboxes) = (0..2).map(|_| mailbox().unwrap()).unzip();
        let node = Arc::new(Node::new(
            "10.0.0.7:8084".into(),
            "ws://127.0.0.1:8888/websocket".into(),
            None,
            10,
        ));
        let post = Arc::new(Post {
            roster: Roster::default(),
            watches: Arc::new(Watches::default()),
            codes: UserCodes::new(&[7; 32]),
            node: node.clone(),
            others: None,
        });
        let stats: Arc<[_]> = (0..2).map(|_| Arc::new(ReactorStats::default())).collect();
        let services = Services {
            node: node.clone(),
            post: post.clone(),
            traces: Arc::default(),
            switchboard: Switchboard::new(mailboxes),
            store: store(),
            away: AwayBox::default(),
            cluster: Arc::default(),
            store_stats: Arc::default(),
            stats: stats.clone(),
            drain: crossbeam_channel::bounded(1).0,
            started: Instant::now(),
            seed: [1, 2],
        };
        let control = serve(bind(listen).unwrap(), live(api_key, auth), services).unwrap();
        Rig {
            control,
            node,
            post,
            stats,
            inboxes,
        }
    }

    fn bind(&self, uid: &str, key: Key) {
        let policy = Policy {
            is_single: false,
            sessions_max: 8,
        };
        let identity = Identity::new(uid, "").unwrap();
        self.post.roster.bind(identity, key, 1, None, policy);
    }

    fn raw(&self, request: &str) -> Reply {
        exchange(self.control.address(), request)
    }

    fn get(&self, path: &str) -> Reply {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
    }

    fn post(&self, path: &str, body: &str) -> Reply {
        let length = body.len();
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json; charset=utf-8\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn send(&self, body: &str) -> Reply {
        self.post("/api/v1/messages", body)
    }

    /// The tails that wait in a reactor's mailbox, by key.
    fn mail(&self, reactor: usize) -> Vec<(Key, Value)> {
        std::iter::from_fn(|| self.inboxes[reactor].next())
            .flat_map(|command| {
                let (to, tail): (Vec<Key>, _) = match command {
                    ToReactor::Deliver { to, tail, .. } => (vec![to], tail),
                    ToReactor::DeliverAll { to, tail, .. } => (to.into(), tail),
                    _ => panic!("no message for a session"),
                };
                let text = format!("{{{}", std::str::from_utf8(&tail).unwrap());
                let envelope: Value = serde_json::from_str(&text).unwrap();
                to.into_iter().map(move |key| (key, envelope.clone()))
            })
            .collect()
    }
}

fn exchange(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    read_reply(stream)
}

fn read_reply(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply {
        status,
        head: head.to_lowercase(),
        body: body.to_owned(),
    }
}
