//! Whom a connection counts for: limits by address, for clients that come themselves and for
//! those behind proxies that are trusted, and for nobody who only says so.
//!
//! The one trusted proxy is 127.0.0.1; the other addresses of the loopback network are clients.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{dial, dial_from, request, reset, status};
use crate::support::http::call;
use crate::support::{Client, Node, Setup, eventually};

const PROXY: &str = "127.0.0.1";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// How a client of an address comes.
type Way = fn(&Node, &str) -> Result<Client, String>;
const WAYS: [Way; 3] = [direct, forwarded, announced];

/// A node that believes the proxy, with lines of the table of limits.
fn node(limits: &str) -> Node {
    Setup::new()
        .config(&format!(
            "trusted_proxies = [\"{PROXY}\"]\n[limits]\n{limits}\n"
        ))
        .start()
}

/// An upgrade from `source`, with bytes in front of the request; the error is the answer that
/// refuses.
fn knock(
    node: &Node,
    source: &str,
    first: &[u8],
    query: &str,
    fields: &[&str],
) -> Result<Client, String> {
    let mut client = Client::over(dial_from(source, node.ws));
    let request = request(&format!("/websocket{query}"), fields);
    client.write(&[first, request.as_bytes()].concat());
    client.expect_upgrade().map(|()| client)
}

fn direct(node: &Node, from: &str) -> Result<Client, String> {
    knock(node, from, b"", "", &[])
}

/// A proxy speaks for the client in a header field.
fn forwarded(node: &Node, from: &str) -> Result<Client, String> {
    let field = format!("X-Forwarded-For: {from}");
    knock(node, PROXY, b"", "", &[&field])
}

/// A balancer speaks for the client in a header of the PROXY protocol.
fn announced(node: &Node, from: &str) -> Result<Client, String> {
    knock(node, PROXY, &header(from), "", &[])
}

/// Version 2, over TCP, for a client of this address.
fn header(from: &str) -> Vec<u8> {
    let (family, mut addresses) = match from.parse().unwrap() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [127, 0, 0, 1]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), [0; 16]].concat()),
    };
    addresses.extend([0x30, 0x39, 0x22, 0xb8]);
    with_length(0x21, family, addresses.len() as u16, &addresses)
}

fn with_length(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
    let fixed = [&[command, family], &length.to_be_bytes()[..]].concat();
    [SIGNATURE, &fixed, rest].concat()
}

/// 503, and when to try again.
#[track_caller]
fn is_refused(answer: Result<Client, String>) {
    let answer = answer.err().expect("it was let in");
    assert_eq!(status(&answer), 503, "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
}

/// Waits for a place to be given back, and takes it.
fn in_time(mut come: impl FnMut() -> Result<Client, String>) -> Client {
    let mut client = None;
    eventually("a place is given back", || {
        client = come().ok();
        client.is_some()
    });
    client.unwrap()
}

#[test]
fn an_address_has_so_many_connections_and_no_more_whichever_way_they_come() {
    let node = node("address_connections_max = 3");
    let mut here = Vec::new();
    for (n, come) in WAYS.into_iter().enumerate() {
        let from = format!("127.0.0.{}", n + 10);
        here.extend((0..3).map(|_| come(&node, &from).unwrap()));
        is_refused(come(&node, &from));
        is_refused(come(&node, &from));
        here.pop().unwrap().leave();
        here.push(in_time(|| come(&node, &from)));
        is_refused(come(&node, &from));
    }
    // One address is one, whichever way its clients came.
    for n in 10..13 {
        for come in WAYS {
            is_refused(come(&node, &format!("127.0.0.{n}")));
        }
    }
    here.extend(WAYS.map(|come| come(&node, "127.0.0.13").unwrap()));
    for come in WAYS {
        is_refused(come(&node, "127.0.0.13"));
    }
    for client in &mut here {
        client.say(&json!({"type": 11}));
        assert_eq!(client.hear()["type"], 12);
    }
    node.awaits("connections", 12.0);
    drop(here);
    node.awaits_emptiness();
}

#[test]
fn an_address_has_so_many_strangers_and_no_more_whichever_way_they_come() {
    let node = node("address_strangers_max = 3");
    let token = node.token("alice");
    for (n, come) in WAYS.into_iter().enumerate() {
        let from = format!("127.0.0.{}", n + 10);
        let mut strangers: Vec<Client> = (0..3).map(|_| come(&node, &from).unwrap()).collect();
        is_refused(come(&node, &from));
        // Who has said who it is is a stranger no more, and stays.
        let mut known = strangers.remove(0);
        known.say(&json!({"path": "connet", "token": token}));
        assert_eq!(known.hear()["msg"]["userId"], "alice");
        assert_eq!(known.hear()["success"], true);
        strangers.push(in_time(|| come(&node, &from)));
        is_refused(come(&node, &from));
        // One who is known takes no stranger's place along.
        known.leave();
        is_refused(come(&node, &from));
        strangers.pop().unwrap().leave();
        strangers.push(in_time(|| come(&node, &from)));
        is_refused(come(&node, &from));
    }
    node.awaits_emptiness();
}

#[test]
fn who_brings_a_token_is_a_stranger_only_until_it_is_read() {
    let node = node("address_strangers_max = 1\nuser_sessions_max = 18");
    let query = format!("?token={}", node.token("alice"));
    let mut known = Vec::new();
    for from in ["127.0.0.10", "127.0.0.11"] {
        let field = format!("X-Forwarded-For: {from}");
        known.extend((0..3).map(|_| knock(&node, from, b"", &query, &[]).unwrap()));
        known.extend((0..3).map(|_| knock(&node, PROXY, b"", &query, &[&field]).unwrap()));
        known.extend((0..3).map(|_| knock(&node, PROXY, &header(from), &query, &[]).unwrap()));
    }
    assert_eq!(node.metric("sessions"), 18.0);
}

#[test]
fn an_address_has_so_many_upgrades_a_second_and_twice_that_at_once() {
    const RATE: usize = 5;
    let node = node(&format!("address_handshakes_per_sec = {RATE}"));
    for (n, come) in WAYS.into_iter().enumerate() {
        let from = format!("127.0.0.{}", n + 10);
        let begun = Instant::now();
        let mut upgrades = 0;
        let refused = loop {
            match come(&node, &from) {
                Ok(client) => drop(client),
                Err(answer) => break Err(answer),
            }
            upgrades += 1;
        };
        is_refused(refused);
        // Exactly the burst, unless the machine is so busy that a second went by.
        let secs = (begun.elapsed() + Duration::from_millis(100)).as_secs() as usize;
        let expected = 2 * RATE..=2 * RATE + RATE * secs;
        assert!(expected.contains(&upgrades), "{upgrades} of {expected:?}");
        let another = format!("127.0.0.{}", n + 20);
        come(&node, &another).unwrap();
        in_time(|| come(&node, &from)).leave();
    }
    node.awaits_emptiness();
}

#[test]
fn a_place_is_given_back_however_a_client_goes() {
    let node = node("address_connections_max = 1");
    const FROM: &str = "127.0.0.10";
    let half = |first: &[u8], rest: &[u8]| {
        let mut client = Client::over(dial(node.ws));
        client.write(&[first, rest].concat());
        client
    };
    let ways_to_go: [&dyn Fn(Client); 4] = [
        &|client| client.leave(),
        &|client| drop(client),
        &|client| client.vanish(),
        &|mut client| {
            client.write(&[0x82, 0x01, 0x00]);
            client.expect_close(1002);
        },
    ];
    for come in WAYS {
        for go in ways_to_go {
            go(in_time(|| come(&node, FROM)));
        }
        // Who is refused for another reason, or never says what it wants, holds no place either.
        in_time(|| come(&node, FROM)).leave();
        let field = format!("X-Forwarded-For: {FROM}");
        for answer in [
            knock(&node, FROM, b"", "?token=bad", &[]),
            knock(&node, PROXY, b"", "?token=bad", &[&field]),
            knock(&node, PROXY, &header(FROM), "?token=bad", &[]),
        ] {
            // Whoever was there before may be on its way out.
            let answer = status(&answer.err().unwrap());
            assert!([401, 503].contains(&answer), "{answer}");
        }
        drop(half(&header(FROM), b"GET /websocket"));
        drop(half(&header(FROM)[..20], b""));
        reset(dial_from(FROM, node.ws));
    }
    in_time(|| direct(&node, FROM)).leave();
    node.awaits_emptiness();
}

#[test]
fn a_peer_that_is_not_trusted_is_not_believed() {
    let node = node("address_connections_max = 2");
    let claim = |n: usize| {
        let field = format!("X-Forwarded-For: 203.0.113.{n}");
        knock(&node, "127.0.0.10", b"", "", &[&field])
    };
    let here = [1, 2].map(|n| claim(n).unwrap());
    is_refused(claim(3));
    is_refused(direct(&node, "127.0.0.10"));
    // Nobody else's places were taken.
    for n in 1..4 {
        let named = format!("203.0.113.{n}");
        drop([(); 2].map(|()| forwarded(&node, &named).unwrap()));
    }
    for first in [header("203.0.113.1"), with_length(0x20, 0, 0, b"")] {
        let answer = knock(&node, "127.0.0.11", &first, "", &[]).err().unwrap();
        assert_eq!(status(&answer), 400, "{answer}");
    }
    drop(here);
    node.awaits_emptiness();
}

#[test]
fn without_a_trusted_proxy_nobody_is_believed() {
    let node = Setup::new()
        .env("THRONG_LIMITS__ADDRESS_CONNECTIONS_MAX", "2")
        .start();
    let here = ["203.0.113.1", "203.0.113.2"].map(|from| forwarded(&node, from).unwrap());
    is_refused(forwarded(&node, "203.0.113.3"));
    drop(here);
    node.awaits("connections", 0.0);
    let answer = announced(&node, "203.0.113.1").err().unwrap();
    assert_eq!(status(&answer), 400, "{answer}");
}

#[test]
fn a_client_behind_a_proxy_cannot_pass_for_another() {
    let node = node("address_connections_max = 2");
    let victim = "X-Forwarded-For: 127.0.0.20";
    let lists: [&[&str]; 6] = [
        &["X-Forwarded-For: 127.0.0.20, 127.0.0.10"],
        &["X-Forwarded-For: 127.0.0.1, 127.0.0.10:4711"],
        &[victim, "X-Forwarded-For: 127.0.0.10"],
        &[victim, "X-Forwarded-For: 127.0.0.10, 127.0.0.1"],
        &[
            victim,
            "X-Forwarded-For: 127.0.0.10",
            "x-forwarded-for: 127.0.0.1",
        ],
        &["X-Forwarded-For: nonsense, 127.0.0.10"],
    ];
    for pair in lists.chunks(2) {
        let come = |fields: &[&str]| knock(&node, PROXY, b"", "", fields);
        let here: Vec<Client> = pair.iter().map(|fields| in_time(|| come(fields))).collect();
        for fields in lists {
            is_refused(come(fields));
        }
        is_refused(direct(&node, "127.0.0.10"));
        drop([(); 2].map(|()| in_time(|| direct(&node, "127.0.0.20"))));
        drop(here);
        node.awaits("connections", 0.0);
    }
    // The proxy itself is whom it names nobody for.
    let unnamed: [&[&str]; 3] = [
        &[],
        &["X-Forwarded-For: nonsense"],
        &["X-Forwarded-For: 127.0.0.1"],
    ];
    let come = |fields: &[&str]| knock(&node, PROXY, b"", "", fields);
    let here = [unnamed[0], unnamed[1]].map(|fields| come(fields).unwrap());
    for fields in unnamed {
        is_refused(come(fields));
    }
    direct(&node, "127.0.0.10").unwrap();
    drop(here);
}

#[test]
fn clients_of_ipv6_count_by_the_first_half_of_their_address() {
    let node = node("address_connections_max = 2");
    for (n, come) in [forwarded, announced].into_iter().enumerate() {
        let from = |host: usize| format!("2001:db8:0:{n}::{host}");
        let here = [1, 2].map(|host| come(&node, &from(host)).unwrap());
        is_refused(come(&node, &from(3)));
        is_refused(forwarded(&node, &format!("[{}]:443", from(4))));
        come(&node, &format!("2001:db8:1:{n}::1")).unwrap();
        drop(here);
    }
    let here = [announced, forwarded].map(|come| come(&node, "::ffff:127.0.0.10").unwrap());
    is_refused(direct(&node, "127.0.0.10"));
    drop(here);
    node.awaits_emptiness();
}

#[test]
fn a_header_of_a_balancer_may_come_a_byte_a_packet() {
    let node = node("address_connections_max = 1");
    let notes = [&[127, 0, 0, 10, 127, 0, 0, 1, 0, 1, 0, 2][..], &[0x04; 508]].concat();
    for first in [
        header("127.0.0.10"),
        with_length(0x21, 0x11, notes.len() as u16, &notes),
    ] {
        let query = format!("?token={}", node.token("alice"));
        let mut client = in_time(|| {
            let mut client = Client::over(dial_from(PROXY, node.ws));
            let request = request(&format!("/websocket{query}"), &[]);
            for byte in [&first, request.as_bytes()].concat() {
                client.write(&[byte]);
            }
            client.expect_upgrade().map(|()| client)
        });
        assert_eq!(client.hear()["msg"]["userId"], "alice");
        is_refused(direct(&node, "127.0.0.10"));
        client.leave();
    }
    node.awaits_emptiness();
}

#[test]
fn a_proxy_behind_a_balancer_speaks_for_its_client() {
    let node = node("address_connections_max = 1");
    let come = |field: &str| knock(&node, PROXY, &header(PROXY), "", &[field]);
    let here = come("X-Forwarded-For: 127.0.0.10").unwrap();
    is_refused(direct(&node, "127.0.0.10"));
    // A client that a balancer names is no proxy, whatever it says.
    let field = "X-Forwarded-For: 203.0.113.1";
    is_refused(knock(&node, PROXY, &header("127.0.0.10"), "", &[field]));
    drop(here);
    node.awaits_emptiness();
}

#[test]
fn a_balancer_may_probe_and_may_not_talk_nonsense() {
    let node = node("address_connections_max = 100");
    let local = with_length(0x20, 0, 0, b"");
    let probe = |first: &[u8]| {
        let mut client = Client::over(dial_from(PROXY, node.ws));
        client.write(&[first, b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        status(&client.read_head())
    };
    assert_eq!([&local[..], &header(PROXY), b""].map(probe), [200; 3]);
    assert_eq!(call(node.ws, "GET", "/health", &[], "").status, 200);
    knock(&node, PROXY, &local, "", &[]).unwrap().leave();
    let addresses = [0; 12];
    for (what, first) in [
        (
            "one byte too long",
            with_length(0x21, 0x11, 521, &addresses),
        ),
        (
            "as long as can be",
            with_length(0x21, 0x11, u16::MAX, &addresses),
        ),
        ("too short", with_length(0x21, 0x11, 11, &addresses[..11])),
        ("version 3", with_length(0x31, 0x11, 12, &addresses)),
        (
            "a command that is none",
            with_length(0x2f, 0x11, 12, &addresses),
        ),
        (
            "a family that is none",
            with_length(0x21, 0x41, 12, &addresses),
        ),
        (
            "twice",
            [header("127.0.0.10"), header("127.0.0.10")].concat(),
        ),
    ] {
        let answer = knock(&node, PROXY, &first, "", &[]).err().expect(what);
        assert_eq!(status(&answer), 400, "{what}: {answer}");
    }
    // Version 1 is text, and as a request it is one of an unknown version of HTTP.
    let text = b"PROXY TCP4 127.0.0.10 127.0.0.1 1 2\r\n";
    let answer = knock(&node, PROXY, text, "", &[]).err().unwrap();
    assert!([400, 505].contains(&status(&answer)), "{answer}");
    node.awaits_emptiness();
    node.serves();
}

#[test]
fn when_more_come_than_may_in_a_second_they_wait_and_all_are_served() {
    const RATE: usize = 20;
    const CROWD: usize = 60;
    let node = Setup::new()
        .config(&format!("[limits]\nhandshakes_per_sec = {RATE}\n"))
        .args(&["--reactors", "2"])
        .start();
    let mut honest = node.join("alice");
    let begun = Instant::now();
    let crowd: Vec<Client> = (0..CROWD)
        .map(|_| {
            let mut client = Client::over(dial(node.ws));
            client.write(request("/websocket", &[]).as_bytes());
            client
        })
        .collect();
    // Who is in already notices nothing.
    assert_eq!(honest.is_heard(), Vec::<Value>::new());
    assert!(node.metric("connections") < CROWD as f64);
    let crowd: Vec<Client> = crowd
        .into_iter()
        .map(|mut client| client.expect_upgrade().map(|()| client).unwrap())
        .collect();
    // Those of the first tenth of a second came at once, the others at their pace.
    let least = Duration::from_millis(((CROWD - RATE) * 1000 / RATE) as u64);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    node.awaits("connections", (CROWD + 1) as f64);
    drop((crowd, honest));
    node.awaits_emptiness();
}
