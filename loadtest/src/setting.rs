//! What was run, where, and with what. A part of the program, not of the library.

use serde::Serialize;

use crate::args::Common;

#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    pub command: String,
    pub targets: Vec<String>,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
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
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let memory = read("/proc/meminfo");
        let total = memory.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let total = total.and_then(|text| text.split_whitespace().next()?.parse().ok());
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .map(|a| without_secrets(&a))
            .collect();
        Setting {
            command: format!("throng-loadtest {}", arguments.join(" ")),
            targets: common.url.iter().map(|url| without_secrets(url)).collect(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: total.unwrap_or(0) * 1024,
            kernel: kernel(&read("/proc/sys/kernel/osrelease")),
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

    /// One line.
    pub fn machine(&self) -> String {
        let gibibytes = self.memory_bytes as f64 / f64::from(1 << 30);
        format!("{} cores, {gibibytes:.0} GiB, {}", self.cores, self.kernel)
    }
}

/// The version, without what a distributor has made of its name.
fn kernel(release: &str) -> String {
    let version = release.trim().split('-').next().unwrap_or_default();
    format!("Linux {version}")
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
    fn a_kernel_has_its_number_and_a_loopback_address_is_near() {
        assert_eq!(kernel("6.18.44-cloud-amd64\n"), "Linux 6.18.44");
        assert!(is_near("ws://127.0.0.1:8888/") && is_near("ws://localhost/"));
        assert!(!is_near("ws://192.0.2.1:8888/"));
    }
}
