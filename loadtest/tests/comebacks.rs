//! Clients that lose their connection, over tiny servers that close, refuse and fall silent: they
//! come back where and when they were told to, and the report says what happened.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use throng_loadtest::frame::{self, CLOSE, TEXT};
use throng_loadtest::{Crowd, Plan, Weathered, Who, message};

/// Nothing here takes so long, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

struct Peer(TcpStream);

impl Peer {
    fn read_some(&mut self) -> usize {
        self.0.read(&mut [0; 4096]).unwrap_or(0)
    }

    fn text(&mut self, text: &str) {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, TEXT, text.as_bytes());
        self.0.write_all(&wire).unwrap();
    }

    fn upgrade(&mut self) {
        self.read_some();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            message::ACCEPT
        );
        self.0.write_all(answer.as_bytes()).unwrap();
    }

    fn register(&mut self) {
        self.upgrade();
        self.text(r#"{"msgType":0,"msg":{}}"#);
        self.read_some();
        self.text(r#"{"type":8,"status":200,"params":{}}"#);
    }

    /// The close frame and, when the client has answered it, the end.
    fn close(mut self, code: u16, reason: &str) {
        self.say_goodbye(code, reason);
        self.read_some();
    }

    fn say_goodbye(&mut self, code: u16, reason: &str) {
        let mut wire = Vec::new();
        let body = [&code.to_be_bytes(), reason.as_bytes()].concat();
        frame::write_plain(&mut wire, CLOSE, &body);
        self.0.write_all(&wire).unwrap();
    }

    fn refuse(mut self, head: &str) {
        self.read_some();
        self.0
            .write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes())
            .unwrap();
    }
}

/// A node that hands out its newcomers.
struct Node {
    url: String,
    newcomers: Receiver<Peer>,
}

impl Node {
    fn new() -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/websocket", listener.local_addr().unwrap());
        let (hand_out, newcomers): (Sender<Peer>, _) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Those who come when the test is over find nobody.
                let _ = hand_out.send(Peer(stream.unwrap()));
            }
        });
        Node { url, newcomers }
    }

    fn newcomer(&self) -> Peer {
        self.newcomers.recv_timeout(PATIENCE).unwrap()
    }

    fn registers(&self) -> Peer {
        let mut peer = self.newcomer();
        peer.register();
        settle(&mut peer);
        peer
    }

    fn register(&self, count: usize) -> Vec<Peer> {
        (0..count).map(|_| self.registers()).collect()
    }

    fn goodbye(&self, retry_ms: u64) -> String {
        format!("{{\"retryMs\":{retry_ms},\"to\":\"{}\"}}", self.url)
    }
}

fn crowd(nodes: &[&Node], clients: usize) -> Crowd {
    let urls: Vec<&str> = nodes.iter().map(|node| node.url.as_str()).collect();
    let mut plan = Plan::over(&urls, Who::Openid, "u", clients).unwrap();
    plan.comes_back = true;
    Crowd::gather(plan).unwrap()
}

/// Holds the crowd until this part is played. The peers that it returns stay connected so long.
fn play<T>(crowd: &mut Crowd, part: impl FnOnce() -> T) -> (Weathered, T) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| crowd.weather(PATIENCE, &is_over).unwrap());
        let end = Ends(&is_over);
        let played = part();
        drop(end);
        (held.join().unwrap(), played)
    })
}

fn weather(nodes: &[&Node], clients: usize, part: impl FnOnce() -> Vec<Peer>) -> Weathered {
    play(&mut crowd(nodes, clients), part).0
}

/// Also where the part fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Returns when the client has read what it was sent.
fn settle(peer: &mut Peer) {
    let mut wire = Vec::new();
    frame::write_plain(&mut wire, frame::PING, b"?");
    peer.0.write_all(&wire).unwrap();
    assert!(peer.read_some() > 0);
}

#[test]
fn clients_begin_spread_over_the_targets_and_go_where_they_are_sent() {
    let (first, second, third) = (Node::new(), Node::new(), Node::new());
    let weathered = weather(&[&first, &second], 4, || {
        let mut there = second.register(2);
        // The third one was not named at the beginning.
        for (peer, code) in first.register(2).into_iter().zip([1012, 1013]) {
            peer.close(code, &third.goodbye(1));
            there.push(third.registers());
        }
        there
    });
    let returned = weathered.returned;
    let registered: Vec<u64> = returned.by_target.iter().map(|target| target.2).collect();
    assert_eq!(registered, [2, 2, 2]);
    assert_eq!(returned.by_target[2].0, third.url);
    let tally = &returned.tally;
    assert_eq!((tally.sent_on, tally.sent_nowhere), (2, 0));
    let lost = |cause| tally.lost[cause];
    assert_eq!((lost("closed with 1012"), lost("closed with 1013")), (1, 1));
    assert_eq!((tally.outages.len(), tally.failed.len()), (2, 0));
    assert_eq!((returned.open, tally.out), (4, 0));
}

#[test]
fn nobody_comes_back_before_it_was_told_to() {
    const RETRY_MS: u64 = 1200;
    let node = Node::new();
    let weathered = weather(&[&node], 3, || {
        for peer in node.register(3) {
            peer.close(1012, &node.goodbye(RETRY_MS));
        }
        node.register(3)
    });
    let outages = &weathered.returned.tally.outages;
    assert_eq!(outages.len(), 3);
    // The histogram has three digits.
    assert!(outages.min() >= RETRY_MS * 999, "{} us", outages.min());
}

#[test]
fn who_was_told_goodbye_comes_back_though_the_connection_does_not_end() {
    let node = Node::new();
    let weathered = weather(&[&node], 1, || {
        let mut old = node.registers();
        old.say_goodbye(1013, &node.goodbye(10));
        let new = node.registers();
        // It is the client that ends the old one.
        while old.read_some() > 0 {}
        vec![new]
    });
    assert_eq!(weathered.returned.tally.lost["closed with 1013"], 1);
    assert_eq!(weathered.returned.tally.outages.len(), 1);
}

#[test]
fn a_refusal_is_followed_to_another_node_and_not_before_the_time_that_it_names() {
    let (first, second) = (Node::new(), Node::new());
    let weathered = weather(&[&first, &second], 2, || {
        let newcomer = first.newcomer();
        let began = Instant::now();
        newcomer.refuse("503 Busy\r\nRetry-After: 1");
        let peers = second.register(2);
        assert!(began.elapsed() >= Duration::from_secs(1));
        peers
    });
    let tally = &weathered.returned.tally;
    assert_eq!(tally.failed["upgrade refused with 503"], 1);
    assert_eq!((tally.reconnects, tally.outages.len()), (1, 0));
    assert_eq!(weathered.returned.by_target[1].2, 2);
}

#[test]
fn who_only_follows_hints_goes_where_it_is_sent_and_stays_away_once_it_was_there() {
    let (first, second) = (Node::new(), Node::new());
    let urls = [first.url.as_str()];
    let mut plan = Plan::over(&urls, Who::Openid, "u", 3).unwrap();
    plan.follows_hints = true;
    let mut crowd = Crowd::gather(plan).unwrap();
    let (opened, peers) = std::thread::scope(|scope| {
        let opening = scope.spawn(|| crowd.open(3, PATIENCE).unwrap());
        let mut sent_on = first.newcomer();
        sent_on.upgrade();
        sent_on.close(1013, &second.goodbye(1));
        first.newcomer().refuse("503 Busy\r\nRetry-After: 1");
        first.newcomer().refuse("404 Not Found");
        let peers = [second.registers(), first.registers()];
        (opening.join().unwrap(), peers)
    });
    assert_eq!((opened.open, opened.followed), (2, 2));
    for peer in peers {
        peer.close(1012, &second.goodbye(1));
    }
    let late = second.newcomers.recv_timeout(Duration::from_secs(1));
    assert!(late.is_err(), "somebody came back");
}

#[test]
fn who_fails_again_and_again_tries_ever_more_rarely() {
    const TRIED: Duration = Duration::from_secs(4);
    let node = Node::new();
    let weathered = weather(&[&node], 20, || {
        let began = Instant::now();
        while began.elapsed() < TRIED {
            drop(node.newcomers.recv_timeout(Duration::from_millis(10)));
        }
        Vec::new()
    });
    // With bounds of 0.5, 1, 2, 4 s and so on a client tries some four times; without a bound that
    // doubles it would be sixteen times, and without a backoff thousands of times.
    let tally = &weathered.returned.tally;
    let tries = tally.reconnects;
    assert!((20..20 * 10).contains(&tries), "{tries} attempts");
    assert!(tally.lost.is_empty() && tally.outages.is_empty());
    assert_eq!((weathered.all_open, weathered.returned.open), (None, 0));
}

#[test]
fn who_is_sent_away_for_good_stays_away() {
    let node = Node::new();
    let weathered = weather(&[&node], 4, || {
        for code in [4403, 4409, 4410] {
            node.registers().close(code, &node.goodbye(1));
        }
        // The fourth one is no such case, and is the only one that comes back.
        node.registers().close(4413, "");
        let back = node.registers();
        let late = node.newcomers.recv_timeout(Duration::from_secs(2));
        assert!(late.is_err(), "somebody came back");
        vec![back]
    });
    let tally = &weathered.returned.tally;
    let stopped: Vec<&str> = tally.stopped.keys().map(String::as_str).collect();
    assert_eq!(
        stopped,
        ["closed with 4403", "closed with 4409", "closed with 4410"]
    );
    assert_eq!((tally.reconnects, tally.outages.len()), (1, 1));
    assert_eq!((tally.lost.values().sum::<u64>(), tally.out), (4, 0));
}

#[test]
fn the_death_of_a_node_is_seen_over_time_and_its_clients_find_another() {
    let (first, second) = (Node::new(), Node::new());
    let mut crowd = crowd(&[&first, &second], 6);
    let arrive = || (first.register(3), second.register(3));
    let (before, (dying, mut living)) = play(&mut crowd, arrive);
    assert_eq!(before.returned.open, 6);
    drop(dying);
    let (weathered, _living) = play(&mut crowd, || {
        living.extend(second.register(3));
        living
    });
    let returned = &weathered.returned;
    assert_eq!((returned.open, returned.tally.out), (6, 0));
    let [(name, open, registered), second] = &returned.by_target[..] else {
        panic!("two targets: {returned:?}");
    };
    assert_eq!((name, *open, *registered), (&first.url, 0, 3));
    assert_eq!((second.1, second.2), (6, 6));
    assert_eq!(returned.tally.worst.len(), 3);
    assert!((1..=6).contains(&returned.arriving_max));
    let saw = |by_target: [u64; 2]| returned.over_time.iter().any(|s| s.by_target == by_target);
    assert!(saw([3, 3]) && saw([0, 6]), "{:?}", returned.over_time);
}

/// Runs until it gets a signal, as an operator would have it.
#[test]
fn the_program_says_what_happened_when_it_is_interrupted() {
    let node = Node::new();
    let mut program = Command::new(env!("CARGO_BIN_EXE_throng-loadtest"))
        .args(["storm", "--openid", "--json", "--secs", "600"])
        .args(["--connections", "3", "--url", &node.url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peers = node.register(3);
    peers.pop().unwrap().close(1012, &node.goodbye(1));
    peers.push(node.registers());
    let pid = program.id().to_string();
    let interrupt = Command::new("kill").args(["-INT", &pid]).status();
    assert!(interrupt.unwrap().success());
    let mut text = String::new();
    let mut out = program.stdout.take().unwrap();
    out.read_to_string(&mut text).unwrap();
    assert!(program.wait().unwrap().success(), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let returns = &report["returns"];
    assert_eq!(
        (&returns["open"], &report["complete"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(returns["lost"], json!({ "closed with 1012": 1 }));
    assert_eq!(returns["outage"]["count"], 1);
    assert_eq!(returns["targets"][0]["registered"], 4);
}
