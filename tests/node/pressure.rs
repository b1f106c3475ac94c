//! Too much in the write queues of a whole node: the largest go, then nothing is taken, and whoever
//! reads notices nothing of either.

use std::io::Write;
use std::thread::scope;

use serde_json::{Value, json};

use crate::slow::{narrow_join, rest_of};
use crate::support::frame::whole;
use crate::support::{Client, Event, Node, Opcode, Setup, eventually};

const BUDGET: usize = 1 << 20;
const CLOSED: &str = "closes_total{code=\"4413\"}";
const STRIKES: &str = "limit_strikes_total{limit=\"node_queue_bytes_max\"}";

/// Nothing but the budget gives a slow reader up: one may queue as much as all of them.
fn node(reactors: &str) -> Node {
    let limits = format!(
        "[limits]\nqueue_hard_bytes = {BUDGET}\nnode_queue_bytes_max = {BUDGET}\n\
         queue_stalled_secs = 0\n"
    );
    Setup::new()
        .args(&["--reactors", reactors])
        .config(&limits)
        .start()
}

/// Pushes to a client that does not read until its queue has grown by so many bytes. Returns how
/// many messages that took.
pub fn fill(node: &Node, user: &str, bytes: usize) -> usize {
    let text = "f".repeat(30_000);
    let before = node.metric("write_queue_bytes");
    let delivered = node.metric("deliveries_total");
    let mut count = 0;
    while node.metric("write_queue_bytes") < before + bytes as f64 {
        assert!(count < 1000, "the kernel takes it all");
        node.push(&[user], &json!({"n": count, "text": text}))
            .content();
        count += 1;
        // The numbers are those of the last turn.
        node.awaits("deliveries_total", delivered + count as f64);
    }
    count
}

/// Reads what a patient client was sent: every message, in order.
fn reads_all(client: &mut Client, count: usize) {
    for n in 0..count {
        assert_eq!(client.hear()["msg"]["n"], n);
    }
    assert_eq!(client.is_heard(), Vec::<Value>::new());
}

#[test]
fn past_the_budget_of_the_node_the_largest_queue_goes_and_the_others_live_on() {
    // The small queues are on the other reactor as well.
    let node = node("2");
    let large = narrow_join(&node, "large");
    let mut small: Vec<(Client, usize)> = (0..6)
        .map(|n| {
            let user = format!("small{n}");
            let client = narrow_join(&node, &user);
            // Together more than what comes on top in the end: the large one stays below its own limit.
            let count = fill(&node, &user, 20_000);
            (client, count)
        })
        .collect();
    let mut honest = node.join("honest");
    fill(&node, "large", BUDGET / 2);
    // Up to the budget nobody is closed.
    let text = "g".repeat(10_000);
    loop {
        let queued = node.metric("write_queue_bytes");
        if queued as usize + text.len() + 500 > BUDGET {
            break;
        }
        assert_eq!((node.metric(CLOSED), node.metric(STRIKES)), (0.0, 0.0));
        node.push(&["large"], &json!({"text": text})).content();
        eventually("it is queued", || node.metric("write_queue_bytes") > queued);
    }
    honest.is_heard();
    assert_eq!((node.metric(CLOSED), node.metric(STRIKES)), (0.0, 0.0));
    // Twice what still had room.
    node.push(&["large"], &json!({"text": [text, text]}))
        .content();
    node.awaits(CLOSED, 1.0);
    assert_eq!(node.metric(STRIKES), 1.0);
    let gone = node.push(&["large"], &json!(1)).json();
    assert_eq!(gone["content"], json!(["large"]));
    honest.is_heard();
    for (client, count) in &mut small {
        reads_all(client, *count);
    }
    assert_eq!(node.metric(CLOSED), 1.0);
    rest_of(large, |_| {});
    drop((small, honest));
    node.awaits_emptiness();
}

#[test]
fn a_surge_past_the_budget_is_refused_and_what_was_taken_is_shed() {
    const SENDERS: usize = 3;
    const SLOW: usize = 4;
    let node = node("1");
    let mut small = narrow_join(&node, "small");
    let small_count = fill(&node, "small", 1);
    let slow: Vec<Client> = (0..SLOW)
        .map(|n| {
            let client = narrow_join(&node, &format!("slow{n}"));
            fill(&node, &format!("slow{n}"), 1);
            client
        })
        .collect();
    let mut honest = node.join("honest");
    let mut senders: Vec<Client> = (0..SENDERS).map(|n| node.join(&format!("u{n}"))).collect();
    let to: Vec<String> = (0..SLOW).map(|n| format!("slow{n}")).collect();
    let message = json!({"to": to, "msg": "s".repeat(55_000), "msgType": 1});
    let bytes = whole(Opcode::Text, message.to_string().as_bytes()).repeat(12);
    // The node finds more than its budget at once when it goes on, and as much again behind it.
    node.signal("STOP");
    let begun: Vec<usize> = senders
        .iter_mut()
        .map(|sender| {
            sender.stream.set_nonblocking(true).unwrap();
            let mut at = 0;
            while at < bytes.len()
                && let Ok(count) = sender.stream.write(&bytes[at..])
            {
                at += count;
            }
            sender.stream.set_nonblocking(false).unwrap();
            at
        })
        .collect();
    node.signal("CONT");
    let send = &|sender: &mut Client, from: usize| {
        sender.write(&bytes[from..]);
        let refused = sender.is_heard();
        let is_busy = |error: &&Value| {
            let params = &error["params"];
            // Those who had been shed by then are not there.
            let is_busy = params["code"] == 503 && params["reason"] == "busy";
            assert!(is_busy || params["code"] == 404, "{error}");
            is_busy
        };
        refused.iter().filter(is_busy).count()
    };
    let busy: usize = scope(|scope| {
        let threads: Vec<_> = senders
            .iter_mut()
            .zip(begun)
            .map(|(sender, from)| scope.spawn(move || send(sender, from)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert!(busy > 0, "everything was taken");
    eventually("there is room again", || {
        node.metric("write_queue_bytes") <= BUDGET as f64
    });
    assert!(node.metric(STRIKES) > node.metric(CLOSED), "both struck");
    let closed = node.metric(CLOSED);
    assert!((1.0..=SLOW as f64).contains(&closed), "{closed}");
    // With room again everything is taken again, and the small queue was spared.
    honest.say(&json!({"to": "u0", "msg": "again"}));
    assert_eq!(senders[0].hear()["msg"], "again");
    reads_all(&mut small, small_count);
    // Of the slow ones each is closed or gets all that it was promised.
    let mut given_up = 0;
    for mut client in slow {
        client.say(&json!({"path": "ping"}));
        loop {
            match client.next() {
                Event::Frame(frame) if frame.opcode == Opcode::Close => {
                    assert_eq!(frame.payload[..2], 4413u16.to_be_bytes());
                    given_up += 1;
                    break;
                }
                Event::Frame(frame) => {
                    let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                    if message["path"] == "ping" {
                        break;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(f64::from(given_up), closed);
    node.serves();
}
