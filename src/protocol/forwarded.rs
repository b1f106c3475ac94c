//! `X-Forwarded-For`: whom proxies say that they speak for.
//!
//! Each proxy appends the peer that it had. So the list is read from its end, and only as far as
//! those who wrote it are trusted: whatever stands further left, the client may have made up.

use std::net::IpAddr;

/// The client behind `peer`: the first address, from the nearest on, that is not trusted.
///
/// `fields`: the values of all such header fields, in their order. Where all are trusted it is
/// the farthest, and behind an entry that is no address nothing is believed.
pub fn client_of<'a>(
    fields: impl DoubleEndedIterator<Item = &'a str>,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer.to_canonical();
    let mut entries = fields.rev().flat_map(|field| field.rsplit(','));
    while is_trusted(client)
        && let Some(behind) = entries.next().and_then(address)
    {
        client = behind;
    }
    client
}

/// An address as proxies write it: `192.0.2.7`, `192.0.2.7:80`, `2001:db8::7`, `[2001:db8::7]`
/// or `[2001:db8::7]:80`.
fn address(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let ip: IpAddr = match (entry.parse(), entry.strip_prefix('[')) {
        (Ok(ip), _) => ip,
        (_, Some(v6)) => {
            let (host, port) = v6.split_once(']')?;
            let is_end = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            let ip = host.parse().ok().filter(IpAddr::is_ipv6)?;
            is_end.then_some(ip)?
        }
        _ => {
            let (host, port) = entry.split_once(':')?;
            let ip = host.parse().ok().filter(IpAddr::is_ipv4)?;
            is_port(port).then_some(ip)?
        }
    };
    Some(ip.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Whom these fields name, behind a peer in a world that trusts 10.0.0.0/8.
    fn client(peer: &str, fields: &[&str]) -> String {
        let is_trusted = |ip| matches!(ip, IpAddr::V4(ip) if ip.octets()[0] == 10);
        client_of(fields.iter().copied(), ip(peer), is_trusted).to_string()
    }

    #[test]
    fn a_trusted_proxy_names_its_client() {
        assert_eq!(client(PROXY, &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(
            client(PROXY, &["192.0.2.7, 10.0.0.2,10.0.0.3"]),
            "192.0.2.7"
        );
        assert_eq!(client(PROXY, &[]), PROXY);
        assert_eq!(client(PROXY, &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(client("192.0.2.9", &["192.0.2.7"]), "192.0.2.9");
        assert_eq!(client("192.0.2.9", &["10.0.0.2"]), "192.0.2.9");
        assert_eq!(client(PROXY, &["198.51.100.1, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(
            client(PROXY, &["10.0.0.9, 192.0.2.7, 10.0.0.2"]),
            "192.0.2.7"
        );
    }

    #[test]
    fn several_fields_are_one_list() {
        let list = ["198.51.100.1", "192.0.2.7", "10.0.0.3", "10.0.0.2"];
        for cut in 0..=list.len() {
            let (first, second) = list.split_at(cut);
            let fields = [first.join(", "), second.join(",")];
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let fields = match cut {
                0 => &fields[1..],
                4 => &fields[..1],
                _ => &fields,
            };
            assert_eq!(client(PROXY, fields), "192.0.2.7", "{cut}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
        for bad in [
            "",
            " ",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.7:",
            "192.0.2.7:x",
            "192.0.2.7:+1",
            "192.0.2.7:65536",
            "192.0.2.7:1:1",
            "[192.0.2.7]",
            "[2001:db8::7",
            "2001:db8::7]",
            "[2001:db8::7]443",
            "[2001:db8::7]:",
            "[]",
            "fe80::1%eth0",
            "\u{7f}é",
            &"1".repeat(8000),
        ] {
            let list = format!("192.0.2.1, {bad}, 10.0.0.2");
            assert_eq!(client(PROXY, &[&list]), "10.0.0.2", "{bad}");
            assert_eq!(client(PROXY, &["192.0.2.1", bad]), PROXY, "{bad}");
        }
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        for (entry, expected) in [
            ("192.0.2.7:5678", "192.0.2.7"),
            (" 192.0.2.7:0\t", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("2001:db8::7:443", "2001:db8::7:443"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("[::ffff:192.0.2.7]:65535", "192.0.2.7"),
        ] {
            assert_eq!(client(PROXY, &[entry]), expected, "{entry}");
        }
    }

    #[test]
    fn an_ipv4_address_is_itself_however_it_is_written() {
        assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client(PROXY, &["192.0.2.7, ::ffff:10.0.0.2"]), "192.0.2.7");
        assert_eq!(client("::ffff:192.0.2.9", &["192.0.2.7"]), "192.0.2.9");
    }

    #[test]
    fn a_list_of_any_length_is_walked_to_its_client() {
        let long = format!("192.0.2.7{}", ",10.0.0.2".repeat(10_000));
        assert_eq!(client(PROXY, &[&long]), "192.0.2.7");
        assert_eq!(client(PROXY, &vec!["10.0.0.2"; 256]), "10.0.0.2");
    }
}
