//! A tiny server that drops, repeats, skips, refuses and lies: the crowd counts what it does.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use throng_loadtest::frame::{self, TEXT};
use throng_loadtest::{Crowd, Plan, Who, message};

const PATIENCE: Duration = Duration::from_secs(20);

struct Peer(TcpStream);

impl Peer {
    fn read_some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let length = self.0.read(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn text(&mut self, text: &str) {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, TEXT, text.as_bytes());
        self.0.write_all(&wire).unwrap();
    }

    fn wave(&mut self, number: u32) {
        self.text(&format!("{{\"msg\":{}}}", message::wave(number)));
    }

    fn upgrade(&mut self) {
        self.read_some();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
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

    /// Returns when the client has read everything before it.
    fn ping(&mut self) {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, frame::PING, b"?");
        self.0.write_all(&wire).unwrap();
        assert!(!self.read_some().is_empty());
    }

    fn close(&mut self, code: u16) {
        let mut wire = Vec::new();
        frame::write_plain(&mut wire, frame::CLOSE, &code.to_be_bytes());
        self.0.write_all(&wire).unwrap();
        self.read_some();
    }
}

/// Accepts one connection after the other (the crowd opens them one by one) and gives each to
/// its part; registered ones are handed out.
fn serve(parts: Vec<fn(&mut Peer) -> bool>) -> (String, Receiver<Peer>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/websocket", listener.local_addr().unwrap());
    let (hand_out, peers): (Sender<Peer>, _) = channel();
    std::thread::spawn(move || {
        for part in parts {
            let mut peer = Peer(listener.accept().unwrap().0);
            if part(&mut peer) {
                hand_out.send(peer).unwrap();
            }
        }
    });
    (url, peers)
}

fn crowd(url: &str, clients: usize) -> Crowd {
    let mut plan = Plan::new(url, Who::Openid, "u", clients).unwrap();
    plan.window = 1;
    plan.handshake_patience = Duration::from_secs(1);
    Crowd::gather(plan).unwrap()
}

fn registers(peer: &mut Peer) -> bool {
    peer.register();
    true
}

#[test]
fn failures_on_the_way_in_are_counted_by_their_cause() {
    let (url, _peers) = serve(vec![
        registers,
        |peer| {
            peer.read_some();
            peer.0
                .write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\n\r\n")
                .unwrap();
            false
        },
        |peer| {
            peer.read_some();
            false
        },
        |peer| {
            peer.upgrade();
            peer.close(1013);
            false
        },
        // It stays, and says nothing until the client's patience is over.
        |peer| {
            peer.upgrade();
            peer.read_some();
            false
        },
        |peer| {
            peer.upgrade();
            peer.0.write_all(&[0xff, 0xff]).unwrap();
            peer.read_some();
            false
        },
    ]);
    let mut crowd = crowd(&url, 6);
    let opened = crowd.open(6, PATIENCE).unwrap();
    let counts = crowd.counts().unwrap();
    assert_eq!((opened.open, opened.limit), (1, None));
    assert_eq!((counts.attempted, counts.registered), (6, 1));
    assert_eq!((counts.refused[&503], counts.closes[&1013]), (1, 1));
    for cause in [
        "ended without a close frame",
        "not registered in time",
        "bad frame: reserved bits or opcode",
    ] {
        assert_eq!(counts.errors.get(cause), Some(&1), "{cause}: {counts:?}");
    }
}

#[test]
fn lost_and_repeated_broadcasts_and_lost_listeners_are_seen() {
    let (url, peers) = serve(vec![registers, registers, registers]);
    let mut crowd = crowd(&url, 3);
    assert_eq!(crowd.open(3, PATIENCE).unwrap().open, 3);
    let mut peers: Vec<Peer> = peers.iter().take(3).collect();

    // The first hears both, the second one twice and the other never, the third is closed.
    let heard = crowd.hear(2, Duration::ZERO, |bodies| {
        assert_eq!(bodies, [message::wave(1), message::wave(2)]);
        peers[0].wave(1);
        peers[0].wave(2);
        peers[1].wave(1);
        peers[1].wave(1);
        peers[2].close(4413);
        peers[0].ping();
        peers[1].ping();
        Ok(())
    });
    let heard = heard.unwrap();
    assert_eq!(
        (heard.listeners, heard.expected(), heard.delivered),
        (3, 6, 3)
    );
    assert_eq!(heard.by_wave, [2, 1]);
    assert!(!heard.is_complete());

    // What comes when nobody waits is stray; a ping is answered; an end is an end.
    peers[1].wave(2);
    peers[1].ping();
    drop(peers);
    let mut counts = crowd.counts().unwrap();
    for _ in 0..200 {
        if counts.open == 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        counts = crowd.counts().unwrap();
    }
    assert_eq!((counts.open, counts.registered), (0, 3));
    assert_eq!(
        (counts.broadcasts, counts.repeated, counts.stray),
        (3, 1, 1)
    );
    assert_eq!((counts.closes[&4413], counts.pings_answered), (1, 3));
    assert_eq!(counts.errors["ended without a close frame"], 2);
}

/// Answers every direct message, so that the volley goes on: delivered, then delivered twice,
/// then to the wrong one, then refused.
fn answers(peer: &mut Peer) -> bool {
    peer.register();
    let mut turn = 0;
    while let Ok(length @ 1..) = peer.0.read(&mut [0; 4096]) {
        let _ = length;
        // One message at a time is in flight, so its number is the number of the turn.
        let direct = message::Direct {
            number: turn,
            sent_nanos: 0,
            receiver: u32::from(turn == 2),
        };
        let mut text = String::from("{\"msg\":\"");
        message::write_direct_body(&mut text, direct);
        text.push_str("\",\"msgType\":1}");
        match turn {
            1 => {
                peer.text(&text);
                peer.text(&text);
            }
            3 => peer.text(r#"{"msgType":-1,"resultMsg":"nobody"}"#),
            // Misrouted: the crowd goes on waiting for it, so it is refused, too.
            2 => {
                peer.text(&text);
                peer.text(r#"{"type":500,"status":500,"params":{"code":404}}"#);
            }
            _ => peer.text(&text),
        }
        turn += 1;
    }
    false
}

#[test]
fn direct_messages_count_once_and_only_where_they_belong() {
    let (url, _peers) = serve(vec![answers]);
    let mut crowd = crowd(&url, 1);
    assert_eq!(crowd.open(1, PATIENCE).unwrap().open, 1);
    let talked = crowd.talk(5, 1, PATIENCE).unwrap();
    assert_eq!(
        (talked.sent, talked.received, talked.latency.len()),
        (5, 3, 3)
    );
    let counts = crowd.counts().unwrap();
    assert_eq!(
        (counts.directs, counts.repeated, counts.misrouted),
        (3, 1, 1)
    );
    assert_eq!(counts.refusals, 2);
}
