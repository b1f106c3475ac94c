//! What was run, where, and with what. A part of the program, not of the library.

use serde::Serialize;
use throng_loadtest::host::Machine;

use crate::args::Common;

#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub command: String,
    pub targets: Vec<String>,
    #[serde(flatten)]
    pub machine: Machine,
    pub version: &'static str,
    pub began: String,
    pub connections: u64,
    /// The server shares this host's CPUs and its kernel.
    pub is_same_host: bool,
    /// Some server's process is watched.
    pub has_servers: bool,
}

impl Setting {
    pub fn of(common: &Common) -> Setting {
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .map(|a| without_secrets(&a))
            .collect();
        Setting {
            command: format!("throng-loadtest {}", arguments.join(" ")),
            targets: common.url.iter().map(|url| without_secrets(url)).collect(),
            machine: Machine::read(),
            version: env!("CARGO_PKG_VERSION"),
            began: jiff::Timestamp::now()
                .strftime("%Y-%m-%d %H:%M UTC")
                .to_string(),
            connections: u64::from(common.connections),
            is_same_host: !common.server_pid.is_empty()
                || common.url.iter().any(|url| is_near(url)),
            has_servers: !common.server_pid.is_empty(),
        }
    }
}

/// An argument as it may be shown: of a URL neither who asks nor the query, where tokens are.
pub fn without_secrets(argument: &str) -> String {
    let Some((scheme, rest)) = argument.split_once("://") else {
        return argument.to_owned();
    };
    let (place, more) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], "?…"),
        None => (rest, ""),
    };
    let (authority, path) = match place.find('/') {
        Some(at) => place.split_at(at),
        None => (place, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}{more}")
}

fn is_near(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"]
        .iter()
        .any(|host| rest.starts_with(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_the_command_line_is_shown() {
        for (argument, shown) in [
            ("--secs", "--secs"),
            ("ws://a:1/websocket", "ws://a:1/websocket"),
            ("--url=ws://a:1/w?token=s3cret&b=c", "--url=ws://a:1/w?…"),
            ("http://me:s3cret@a:1/?s3cret", "http://a:1/?…"),
            ("ws://a?s3cret@b/c", "ws://a?…"),
        ] {
            assert_eq!(without_secrets(argument), shown);
        }
    }

    #[test]
    fn a_loopback_address_is_near() {
        assert!(is_near("ws://127.0.0.1:8888/") && is_near("ws://localhost/"));
        assert!(!is_near("ws://192.0.2.1:8888/"));
    }
}
