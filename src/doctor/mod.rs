//! `throng doctor`: what must change on this host so that a node holds a wanted number of
//! connections.
//!
//! Owns: the rules by which a host is judged, and the numbers behind them. It reads, and changes
//! nothing: no file is made, no address taken, no Redis asked.
//! Invariants: a judgement is a function of a [`Host`], a configuration and a wish, so that tests
//! stage hosts.
//! Neighbours: `main` calls [`examine`]; the configuration is the one that the node would have.

mod crowd;
mod descriptors;
mod finding;
mod host;
mod network;
mod report;

use crate::config::{Config, DoctorArgs, Room};
pub use host::{Answers, Host};
pub use report::Report;

/// What is judged: a host, the node that would run on it, and how much it shall hold.
struct Case<'a> {
    host: &'a Host,
    config: &'a Config,
    args: &'a DoctorArgs,
    /// What the node has room for as things stand.
    room: Room,
    connections: u64,
}

/// Judges `host` for the node that `config` describes.
pub fn examine(host: &Host, config: &Config, args: &DoctorArgs) -> Report {
    let room = Room {
        reactors: config.reactors.unwrap_or(host.answers.cores),
        has_private_tables: host.answers.way_to_private_tables.is_some(),
        nofile: host.nofile.1,
    };
    let usual = config.max_connections.unwrap_or(room.usual()).max(1);
    let case = Case {
        host,
        config,
        args,
        room,
        connections: args.connections.unwrap_or(usual as u64),
    };
    let findings = [
        case.descriptors(),
        case.crowd(),
        case.network(),
        case.clock(),
    ];
    Report {
        connections: case.connections,
        reactors: room.reactors,
        container: host.is_container,
        findings: findings.into_iter().flatten().collect(),
    }
}

impl Case<'_> {
    /// Ends of connections on this host: its own, and those of clients that run here.
    fn ends(&self) -> u64 {
        self.connections * if self.args.with_clients { 2 } else { 1 }
    }

    /// The file in which a key of the configuration lasts.
    fn config_file(&self) -> &str {
        self.args.serve.config.as_deref().unwrap_or("throng.toml")
    }
}

#[cfg(test)]
mod tests;
