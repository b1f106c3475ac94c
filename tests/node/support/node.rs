//! A running node: its process, what it says, and short ways to do what most tests do.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Client;
use super::http::{self, Answer};
use super::setup::{Folder, Setup};
use super::{PATIENCE, eventually};

pub struct Node {
    child: Child,
    pub ws: SocketAddr,
    pub api: SocketAddr,
    /// The whole line by which it told that it is ready.
    pub ready: String,
    pub folder: Folder,
    errors: Arc<Mutex<String>>,
    output: JoinHandle<String>,
    log: Option<JoinHandle<()>>,
}

impl Node {
    /// With default options and these flags.
    pub fn start(args: &[&str]) -> Node {
        Setup::new().args(args).start()
    }

    /// What it says on standard error if it never gets ready.
    pub(super) fn new(mut child: Child, folder: Folder) -> Result<Node, String> {
        let errors = Arc::new(Mutex::new(String::new()));
        let log = child
            .stderr
            .take()
            .map(|stderr| collect(stderr, errors.clone()));
        let (output, first) = read_lines(child.stdout.take().unwrap());
        let Ok(ready) = first.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            if let Some(log) = log {
                log.join().unwrap();
            }
            return Err(errors.lock().unwrap().clone());
        };
        let word = |name: &str| {
            let word = ready.split(' ').find_map(|word| word.strip_prefix(name));
            word.unwrap_or_else(|| panic!("{ready}")).to_owned()
        };
        let host = |url: String| {
            let host = url.split("//").nth(1).unwrap().split('/').next().unwrap();
            host.parse::<SocketAddr>().unwrap()
        };
        Ok(Node {
            child,
            ws: host(word("ws=")),
            api: host(word("api=")),
            ready,
            folder,
            errors,
            output,
            log,
        })
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, as `TERM`.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &line]).status().unwrap();
        assert!(status.success(), "{line}");
    }

    /// Waits for its end. Returns the status, all of standard output and all of standard error.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it goes on: {}", self.errors());
            sleep(Duration::from_millis(5));
        };
        let output = std::mem::replace(&mut self.output, spawn(String::new));
        let output = output.join().unwrap();
        if let Some(log) = self.log.take() {
            log.join().unwrap();
        }
        (status, output, self.errors())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// What backends and operators do.
impl Node {
    pub fn get(&self, path: &str) -> Answer {
        http::call(self.api, "GET", path, &[], "")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        http::call(self.api, "POST", path, &[], &body.to_string())
    }

    pub fn delete(&self, path: &str) -> Answer {
        http::call(self.api, "DELETE", path, &[], "")
    }

    /// A token that lives for a minute.
    pub fn token(&self, user: &str) -> String {
        self.token_for(&json!({"userId": user, "ttlSecs": 60}))
    }

    /// A push to whoever of `users` is connected.
    pub fn push(&self, users: &[&str], msg: &Value) -> Answer {
        let order = json!({"to": users, "msg": msg, "store": false});
        self.post("/api/v1/messages", &order)
    }

    pub fn send_to_all(&self, msg: &Value) -> Answer {
        self.post("/api/v1/messages", &json!({"sendToAll": true, "msg": msg}))
    }

    /// The sum of a metric over its labels; `name` may hold labels to choose one.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200);
        let name = format!("throng_{name}");
        let values = answer.body.lines().filter_map(|line| {
            let rest = line.strip_prefix(&name)?;
            let value = rest
                .starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next());
            value?.unwrap().parse::<f64>().ok()
        });
        let values: Vec<f64> = values.collect();
        assert!(!values.is_empty(), "no metric {name} in {}", answer.body);
        values.iter().sum()
    }

    /// Waits until a metric has this value.
    pub fn awaits(&self, name: &str, value: f64) {
        let mut last = f64::NAN;
        let what = format!("{name} = {value}");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.metric(name);
            if last == value {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("it never came to this: {what}; it is {last}");
    }

    /// Waits until nobody is connected and nothing is kept of anybody.
    pub fn awaits_emptiness(&self) {
        for name in [
            "connections",
            "sessions",
            "users",
            "open_sockets",
            "bound_sockets",
        ] {
            self.awaits(name, 0.0);
        }
        self.awaits("write_queue_bytes", 0.0);
        eventually("nobody online", || {
            self.get("/api/v1/online").content()["onlineNum"] == 0
        });
    }
}

/// What clients do.
impl Node {
    /// Upgrades at the node's endpoint with a query; the error is the answer that refuses.
    pub fn open(&self, query: &str, fields: &[&str]) -> Result<Client, String> {
        Client::open(self.ws, &format!("/websocket{query}"), fields)
    }

    /// A client that the node does not know yet.
    pub fn stranger(&self) -> Client {
        self.open("", &[]).unwrap()
    }

    /// A client of `user` that has been greeted.
    pub fn join(&self, user: &str) -> Client {
        let order = json!({"userId": user, "ttlSecs": 60});
        self.join_for(&order, "").0
    }

    /// A token as it is asked for from the API.
    pub fn token_for(&self, order: &Value) -> String {
        let content = self.post("/api/v1/tokens", order).content();
        content["wsToken"].as_str().unwrap().to_owned()
    }

    /// A client with such a token and with more in its query, and what it was greeted with.
    pub fn join_for(&self, order: &Value, query: &str) -> (Client, Value) {
        let token = self.token_for(order);
        let client = self.open(&format!("?token={token}&{query}"), &[]);
        let mut client = client.expect("an upgrade");
        let notice = client.hear();
        assert_eq!(notice["msg"]["userId"], order["userId"], "{notice}");
        (client, notice)
    }

    /// Proves that it serves a newcomer.
    pub fn serves(&self) {
        let mut client = self.join("newcomer");
        assert_eq!(client.is_heard(), Vec::<Value>::new());
        client.leave();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, as it should in many tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(mut from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> JoinHandle<()> {
    spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let text = String::from_utf8_lossy(&chunk[..count]);
            to.lock().unwrap().push_str(&text);
        }
    })
}

/// All of it when it ends, and the first line as soon as it is there.
fn read_lines(from: impl Read + Send + 'static) -> (JoinHandle<String>, Receiver<String>) {
    let (sender, first) = channel();
    let thread = spawn(move || {
        let mut all = String::new();
        let mut lines = BufReader::new(from);
        while let Ok(1..) = lines.read_line(&mut all) {
            let _ = sender.send(all.trim_end().to_owned());
        }
        all
    });
    (thread, first)
}
