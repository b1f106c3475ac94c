//! The PROXY protocol, version 2: what a balancer says of a client, in front of the client's own
//! bytes.
//!
//! Owns: the layout of the header. Whether the peer may send one is the caller's to know.
//! Invariants: a prefix of a header is torn, never absent; what follows a header changes nothing;
//! a header that is too long is refused by its first bytes. Version 1, which is text, is no
//! header here.

use std::net::IpAddr;

/// Bytes of a header at most: addresses of any family, and room for a few notes about them.
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + 520;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, and the length of the rest.
const FIXED_BYTES: usize = 16;
const VERSION: u8 = 2;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const STREAM: u8 = 1;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// What has come so far may become a header.
    Torn,
    /// No header, and none will come: the first bytes are the client's own.
    Client,
    Header(Header),
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it takes; the client's own begin behind them.
    pub bytes: usize,
    /// The client, IPv4 as such. None where the balancer speaks for itself, as in its probes, or
    /// for a client without an internet address.
    pub source: Option<IpAddr>,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Another version, or a command, family or transport that version 2 does not have.
    Unknown,
    /// Over [`HEADER_BYTES_MAX`].
    TooLong,
    /// No room for the addresses that it announces.
    TooShort,
}

/// Reads the header that `bytes` begins with, if it has arrived.
pub fn header(bytes: &[u8]) -> Result<Beginning, BadHeader> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
        let seen = bytes.len().min(SIGNATURE.len());
        return Ok(match bytes[..seen] == SIGNATURE[..seen] {
            true => Beginning::Torn,
            false => Beginning::Client,
        });
    };
    let Some(&[what, whose, high, low]) = fixed.strip_prefix(SIGNATURE) else {
        return Ok(Beginning::Client);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(BadHeader::TooLong);
    }
    let (version, command) = (what >> 4, what & 15);
    let (family, transport) = (whose >> 4, whose & 15);
    // What a balancer says on its own behalf counts for nothing, its addresses included.
    let addresses = match (version, command, family, transport) {
        (VERSION, LOCAL, _, _) | (VERSION, PROXY, 0, 0..=2) => 0,
        (VERSION, PROXY, 1, 0..=2) => 2 * (4 + 2),
        (VERSION, PROXY, 2, 0..=2) => 2 * (16 + 2),
        (VERSION, PROXY, 3, 0..=2) => 2 * 108,
        _ => return Err(BadHeader::Unknown),
    };
    if length < addresses {
        return Err(BadHeader::TooShort);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Beginning::Torn);
    };
    let source = match (command, family, transport) {
        (PROXY, 1, STREAM) => body.first_chunk::<4>().copied().map(IpAddr::from),
        (PROXY, 2, STREAM) => body.first_chunk::<16>().copied().map(IpAddr::from),
        _ => None,
    };
    Ok(Beginning::Header(Header {
        bytes: FIXED_BYTES + length,
        source: source.map(|ip| ip.to_canonical()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header with this second half of the fixed part and this behind it.
    fn write(what: u8, whose: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[what, whose], &length, body].concat()
    }

    /// Two addresses and two ports.
    fn v4() -> Vec<u8> {
        vec![192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80]
    }

    fn v6(source: &str) -> Vec<u8> {
        let IpAddr::V6(source) = source.parse().unwrap() else {
            panic!("{source}");
        };
        [&source.octets()[..], &[0; 16], &[0x30, 0x39, 0, 80]].concat()
    }

    fn source(bytes: &[u8]) -> Option<String> {
        match header(bytes) {
            Ok(Beginning::Header(header)) => {
                assert_eq!(header.bytes, bytes.len());
                header.source.map(|ip| ip.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_header_names_the_client() {
        let cases = [
            (v4(), 0x11, Some("192.0.2.7")),
            (v6("2001:db8::7"), 0x21, Some("2001:db8::7")),
            (v6("::ffff:192.0.2.7"), 0x21, Some("192.0.2.7")),
            (vec![b'/'; 216], 0x31, None),
            (v4(), 0x12, None),
            (v6("2001:db8::7"), 0x22, None),
            (Vec::new(), 0x00, None),
            (v4(), 0x00, None),
        ];
        for (body, whose, expected) in cases {
            let bytes = write(0x21, whose, &body);
            assert_eq!(source(&bytes).as_deref(), expected, "{whose:#x}");
        }
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_names_nobody() {
        // Even where what it says of addresses would be refused otherwise.
        for (whose, body) in [
            (0x00, Vec::new()),
            (0x11, v4()),
            (0x11, vec![1]),
            (0xff, v4()),
        ] {
            assert_eq!(source(&write(0x20, whose, &body)), None);
        }
    }

    #[test]
    fn notes_behind_the_addresses_are_passed_over() {
        let notes = [&v4()[..], &[0x02, 0, 4], b"host", &[0xff, 0xff, 0xff]].concat();
        assert_eq!(source(&write(0x21, 0x11, &notes)).unwrap(), "192.0.2.7");
    }

    #[test]
    fn every_prefix_of_a_header_is_torn_and_what_follows_it_changes_nothing() {
        let long = [&v4()[..], &[0; 508]].concat();
        for bytes in [
            write(0x21, 0x11, &v4()),
            write(0x21, 0x21, &v6("2001:db8::7")),
            write(0x20, 0x00, &[]),
            write(0x21, 0x11, &long),
        ] {
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]), Ok(Beginning::Torn), "{cut}");
            }
            let whole = header(&bytes);
            for next in [&b"GET / HTTP/1.1\r\n"[..], SIGNATURE, &[0xff; 600]] {
                assert_eq!(header(&[&bytes, next].concat()), whole);
            }
        }
    }

    #[test]
    fn a_client_is_known_by_the_first_byte_that_is_its_own() {
        for bytes in [
            &b"GET /websocket HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"\r\nGET / HTTP/1.1\r\n\r\n",
            b"\r\n\r\n\0\r\nQUIT\r",
            b"\x16\x03\x01",
        ] {
            let common = bytes.iter().zip(SIGNATURE).take_while(|(a, b)| a == b);
            let common = common.count();
            for cut in 0..=bytes.len() {
                let expected = match cut <= common {
                    true => Beginning::Torn,
                    false => Beginning::Client,
                };
                assert_eq!(header(&bytes[..cut]), Ok(expected), "{cut}");
            }
        }
        let mut off_by_one_byte = write(0x21, 0x11, &v4());
        for at in 0..SIGNATURE.len() {
            off_by_one_byte[at] ^= 1;
            assert_eq!(header(&off_by_one_byte), Ok(Beginning::Client), "{at}");
            off_by_one_byte[at] ^= 1;
        }
    }

    #[test]
    fn a_header_is_refused_one_byte_past_its_limit_before_it_arrives() {
        let with = |length: u16| {
            let [high, low] = length.to_be_bytes();
            let fixed = [&SIGNATURE[..], &[0x21, 0x11, high, low]].concat();
            header(&fixed)
        };
        assert_eq!(HEADER_BYTES_MAX, 536);
        assert_eq!([519, 520].map(with), [Ok(Beginning::Torn); 2]);
        assert_eq!(
            [521, 0x8000, u16::MAX].map(with),
            [Err(BadHeader::TooLong); 3]
        );
    }

    #[test]
    fn addresses_that_do_not_fit_are_refused() {
        for (whose, least) in [(0x11, 12), (0x12, 12), (0x21, 36), (0x31, 216)] {
            let of = |length: usize| header(&write(0x21, whose, &vec![0; length]));
            assert_eq!([0, least - 1].map(of), [Err(BadHeader::TooShort); 2]);
            assert!(of(least).is_ok() && of(least + 1).is_ok());
        }
    }

    #[test]
    fn what_version_2_does_not_have_is_refused() {
        for (what, whose) in [
            (0x11, 0x11),
            (0x31, 0x11),
            (0x01, 0x11),
            (0x22, 0x11),
            (0x2f, 0x11),
            (0x21, 0x41),
            (0x21, 0xf1),
            (0x21, 0x13),
            (0x21, 0x2f),
        ] {
            let bytes = write(what, whose, &[0; 216]);
            assert_eq!(
                header(&bytes),
                Err(BadHeader::Unknown),
                "{what:#x} {whose:#x}"
            );
        }
    }
}
