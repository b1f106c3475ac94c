//! Clients that do not read, beside others that do.

use std::net::{SocketAddr, TcpStream};
use std::thread::scope;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::client::{self, prepare};
use crate::support::{Client, Event, Node, Opcode, Setup};

/// A connection that takes a few KiB and then nothing until somebody reads.
fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before it connects: the window that is offered then never grows beyond it.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    prepare(&stream);
    stream
}

pub fn narrow_join(node: &Node, user: &str) -> Client {
    let token = node.token(user);
    let mut client = Client::over(narrow(node.ws));
    let target = format!("/websocket?token={token}");
    client.write(client::request(&target, &[]).as_bytes());
    client.expect_upgrade().unwrap();
    assert_eq!(client.hear()["msgType"], 0);
    client
}

/// Everything that the slow one still gets: whole messages in order, and then the close.
pub fn rest_of(mut slow: Client, mut read: impl FnMut(Value)) {
    loop {
        let frame = slow.frame();
        if frame.opcode == Opcode::Close {
            assert_eq!(frame.payload[..2], 4413u16.to_be_bytes());
            break;
        }
        assert!(frame.is_final);
        read(serde_json::from_slice(&frame.payload).unwrap());
    }
    assert_eq!(slow.next(), Event::End);
}

#[test]
fn a_slow_reader_of_broadcasts_is_closed_4413_and_nobody_else_notices() {
    const POSTS_MAX: usize = 400;
    let node = Node::start(&["--reactors", "2"]);
    let slow = narrow_join(&node, "slow");
    let mut others: Vec<Client> = (0..10).map(|n| node.join(&format!("u{n}"))).collect();
    let text = "x".repeat(60_000);
    let mut posts = 0;
    // They read all the time, as the sender goes on until the slow one has been given up.
    scope(|scope| {
        let readers: Vec<_> = others
            .iter_mut()
            .map(|client| {
                scope.spawn(|| {
                    let mut next = 0;
                    loop {
                        let message = client.hear();
                        if message["msg"]["end"] == true {
                            return next;
                        }
                        assert_eq!(message["msg"]["n"], next);
                        assert_eq!(message["msg"]["text"].as_str().unwrap().len(), 60_000);
                        next += 1;
                    }
                })
            })
            .collect();
        while node.metric("closes_total{code=\"4413\"}") == 0.0 {
            assert!(posts < POSTS_MAX, "the slow reader is kept forever");
            node.send_to_all(&json!({"n": posts, "text": text}))
                .content();
            posts += 1;
        }
        node.send_to_all(&json!({"end": true})).content();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), posts);
        }
    });
    assert!(posts * text.len() > 1 << 20, "a queue of 1 MiB is allowed");
    assert_eq!(node.metric("sessions"), 10.0, "it is offline at once");
    let mut count = 0;
    rest_of(slow, |message| {
        assert_eq!(message["msg"]["n"], count);
        count += 1;
    });
    assert!(
        count < posts,
        "what it had not begun to receive was dropped"
    );
    for other in &mut others {
        other.is_heard();
    }
    node.awaits("write_queue_bytes", 0.0);
    node.awaits("open_sockets", 10.0);
}

#[test]
fn a_slow_reader_of_its_own_messages_is_closed_4413() {
    let node = Node::start(&[]);
    let slow = narrow_join(&node, "slow");
    let text = "y".repeat(60_000);
    let mut posts = 0;
    while node.metric("closes_total{code=\"4413\"}") == 0.0 {
        assert!(posts < 400, "the slow reader is kept forever");
        let order = json!({"to": ["slow"], "msg": {"n": posts, "text": text}, "store": false});
        node.post("/api/v1/messages", &order);
        posts += 1;
    }
    let mut count = 0;
    rest_of(slow, |message| {
        assert_eq!(message["msg"]["n"], count);
        count += 1;
    });
    node.awaits_emptiness();
}

#[test]
fn a_burst_alone_is_no_reason_to_give_up_who_reads() {
    const SENDERS: usize = 20;
    let node = Node::start(&["--reactors", "1"]);
    let mut reader = node.join("reader");
    let mut senders: Vec<Client> = (0..SENDERS).map(|n| node.join(&format!("u{n}"))).collect();
    let text = "b".repeat(60_000);
    // The node finds all of it at once when it goes on: more than a queue may hold.
    node.signal("STOP");
    for sender in &mut senders {
        sender.say(&json!({"to": "reader", "msg": text, "msgType": 1}));
    }
    node.signal("CONT");
    for _ in 0..SENDERS {
        assert_eq!(reader.hear()["msg"].as_str().unwrap().len(), text.len());
    }
    reader.is_heard();
}

#[test]
fn who_never_reads_again_is_dropped_in_the_end() {
    let node = Node::start(&[]);
    let slow = narrow_join(&node, "slow");
    let gone = narrow_join(&node, "gone");
    let text = "v".repeat(60_000);
    let mut posts = 0;
    while node.metric("closes_total{code=\"4413\"}") < 2.0 {
        assert!(posts < 400, "slow readers are kept forever");
        node.send_to_all(&json!({"n": posts, "text": text}))
            .content();
        posts += 1;
    }
    // One leaves while its last words are waiting, the other one just stays.
    assert_eq!(node.metric("open_sockets"), 2.0);
    gone.vanish();
    node.awaits("open_sockets", 1.0);
    node.awaits_emptiness();
    drop(slow);
}

#[test]
fn a_queue_that_does_not_move_is_given_up_after_its_time() {
    let config = "[limits]\nqueue_hard_bytes = 67108864\nqueue_stalled_secs = 1\n";
    let node = Setup::new().config(config).start();
    let slow = narrow_join(&node, "slow");
    let mut good = node.join("good");
    let text = "z".repeat(60_000);
    let mut posts = 0;
    // What is only passing through a queue is gone at the second look.
    let is_stuck = || {
        let is_queued = || node.metric("write_queue_bytes") > 0.0;
        is_queued() && {
            std::thread::sleep(std::time::Duration::from_millis(200));
            is_queued()
        }
    };
    while !is_stuck() {
        node.push(&["slow", "good"], &json!({"n": posts, "text": text}))
            .content();
        assert_eq!(good.hear()["msg"]["n"], posts);
        posts += 1;
        assert!(posts < 400, "the kernel takes it all");
    }
    node.awaits("closes_total{code=\"4413\"}", 1.0);
    let mut count = 0;
    rest_of(slow, |message| {
        assert_eq!(message["msg"]["n"], count);
        count += 1;
    });
    good.is_heard();
    good.leave();
    node.awaits_emptiness();
}

#[test]
fn who_never_reads_its_answers_is_not_read_from_any_more() {
    // A large ceiling and no rates, so that only the pause can stop it.
    let config = "[limits]\nframes_per_sec = 0\nbytes_per_sec = 0\nqueue_hard_bytes = 67108864\n\
                  queue_stalled_secs = 2\n";
    let node = Setup::new().config(config).start();
    let mut greedy = narrow_join(&node, "greedy");
    let text = "w".repeat(50_000);
    let message = json!({"to": "greedy", "msg": text, "msgType": 1});
    let bytes = crate::support::frame::whole(Opcode::Text, message.to_string().as_bytes());
    greedy.stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut worst = 0.0f64;
    while node.metric("closes_total{code=\"4413\"}") == 0.0 {
        while let Ok(count) =
            std::io::Write::write(&mut greedy.stream, &bytes[sent % bytes.len()..])
        {
            sent += count;
            if sent > 256 << 20 {
                panic!("it is read from without end");
            }
        }
        worst = worst.max(node.metric("write_queue_bytes"));
    }
    // The soft limit, and what one read brought on top of it.
    assert!(worst < 1_000_000.0, "{worst} bytes were queued");
    node.serves();
}
