//! What proxies say of a client: a header of the PROXY protocol is read the same however much of
//! it and behind it has come, and `X-Forwarded-For` names whom a plain reading of it names.
//!
//! Input: the first bytes of a connection; its lines are the fields as well.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use throng::protocol::forwarded::client_of;
use throng::protocol::proxy::{self, Beginning, HEADER_BYTES_MAX};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fuzz_target!(|data: &[u8]| {
    header(data);
    let text = String::from_utf8_lossy(data);
    let fields: Vec<&str> = text.lines().collect();
    forwarded(&fields);
});

fn header(bytes: &[u8]) {
    let answer = proxy::header(bytes);
    if let Ok(Beginning::Header(header)) = answer {
        assert!((16..=HEADER_BYTES_MAX.min(bytes.len())).contains(&header.bytes));
        let (whole, _) = bytes.split_at(header.bytes);
        assert_eq!(proxy::header(whole), answer);
        assert_eq!(
            proxy::header(&whole[..whole.len() - 1]),
            Ok(Beginning::Torn)
        );
    }
    // Torn up to some length, and from there on always the same.
    let mut before = Ok(Beginning::Torn);
    for end in 0..=bytes.len().min(HEADER_BYTES_MAX + 1) {
        let so_far = proxy::header(&bytes[..end]);
        assert!(before == so_far || before == Ok(Beginning::Torn));
        before = so_far;
    }
    assert_eq!(before, answer);
    assert!(answer != Ok(Beginning::Torn) || bytes.len() < HEADER_BYTES_MAX);
    if answer != Ok(Beginning::Torn) {
        assert_eq!(proxy::header(&[bytes, b"\0GET /"].concat()), answer);
    }
}

fn forwarded(fields: &[&str]) {
    let named = |fields: &[&str]| client_of(fields.iter().copied(), PEER, is_trusted);
    let client = named(fields);
    assert_eq!(client, expected(fields));
    assert_eq!(client_of(fields.iter().copied(), PEER, |_| false), PEER);
    let one = fields.join(",");
    if !fields.is_empty() {
        assert_eq!(named(&[&one]), client, "several fields are one list");
    }
    if !is_trusted(client) {
        let forged = format!("198.51.100.1, {one}");
        assert_eq!(named(&[&forged]), client, "a client names nobody else");
    }
}

/// Half of the world, the peer with it.
fn is_trusted(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() % 2 == 1,
        IpAddr::V6(ip) => ip.to_bits() % 2 == 1,
    }
}

/// The whole list read first, and by the standard library.
fn expected(fields: &[&str]) -> IpAddr {
    let entries = fields.iter().flat_map(|field| field.split(','));
    let read = |entry: &str| {
        let entry = entry.trim();
        let bare = entry.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
        let ip = entry
            .parse()
            .or_else(|_| entry.parse().map(|socket: SocketAddr| socket.ip()))
            .ok()
            .or_else(|| bare?.parse().ok().filter(IpAddr::is_ipv6))?;
        // A zone means something on one machine only.
        (!entry.contains('%')).then(|| ip.to_canonical())
    };
    let path: Vec<Option<IpAddr>> = entries.map(read).chain([Some(PEER)]).collect();
    let mut known = path.iter().rev().map_while(|ip| *ip);
    let farthest = known.clone().last();
    known
        .find(|ip| !is_trusted(*ip))
        .or(farthest)
        .unwrap_or(PEER)
}
