//! The checks of what clients meet: the endpoint's path, origins, proxies, the way to other nodes.

use std::net::IpAddr;

use super::checks::Prover;
use super::{Config, Overflow};
use crate::session::rules::Network;

/// A close reason holds 123 bytes, and the URL must fit in with the rest of it.
const PUBLIC_URL_BYTES_MAX: usize = 90;

impl Prover {
    pub fn endpoint(&mut self, config: &mut Config) {
        self.paths(config);
        config.allowed_origins = self.layers.file.allowed_origins.take().unwrap_or_default();
        for origin in config
            .allowed_origins
            .iter()
            .filter(|origin| !is_origin(origin))
        {
            let way_out = "write it as https://example.com; an empty list allows all";
            let sentence = format!("holds {origin:?}, which no browser sends: {way_out}");
            self.problem("allowed_origins", sentence);
        }
        self.proxies(config);
        if let Some(choice) = self.layers.file.overflow.take() {
            #[rustfmt::skip]
            let choices = [("farewell", Overflow::Farewell), ("refuse", Overflow::Refuse)];
            self.choice("overflow", &choice, &choices, &mut config.overflow);
        }
        if let Some(url) = self.layers.file.public_url.take() {
            if let Err(sentence) = check_public_url(&url) {
                self.problem("public_url", format!("= {url:?} {sentence}"));
            }
            config.public_url = Some(url);
        }
        let backlog = self.layers.file.backlog;
        let why = "newcomers would be refused while a reactor is busy";
        if let Some(count) = self.in_range("backlog", backlog, 1..=i32::MAX as u32, why) {
            config.backlog = count;
        }
    }

    fn proxies(&mut self, config: &mut Config) {
        let entries = self.layers.file.trusted_proxies.take().unwrap_or_default();
        for entry in &entries {
            match parse_network(entry) {
                Ok(network) if network.prefix_len() == 0 => {
                    let name = self.layers.name("trusted_proxies");
                    self.layers.warnings.push(format!(
                        "{name} holds {entry:?}: everybody may claim any address, and limits by \
                         address hold nobody; name the proxies' own networks"
                    ));
                    config.trusted_proxies.push(network);
                }
                Ok(network) => config.trusted_proxies.push(network),
                Err(sentence) => {
                    self.problem("trusted_proxies", format!("holds {entry:?}, {sentence}"));
                }
            }
        }
    }

    fn paths(&mut self, config: &mut Config) {
        if let Some(path) = self.layers.file.path.take() {
            self.path("path", &path);
            config.path = path;
        }
        if let Some(path) = self.layers.file.echo_path.take() {
            self.path("echo_path", &path);
            if path == config.path {
                let why = "is the endpoint's own path, one of them would be dead: choose another";
                self.problem("echo_path", format!("= {path:?} {why}"));
            }
            config.echo_path = Some(path);
        }
    }

    fn path(&mut self, key: &str, path: &str) {
        let reason = if !path.starts_with('/') {
            "does not begin with a slash: no request would match it"
        } else if path == "/health" {
            "is where balancers probe: choose another"
        } else if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains(['?', '#']) {
            "holds characters that no request's path has: choose another"
        } else {
            return;
        };
        self.problem(key, format!("= {path:?} {reason}"));
    }
}

/// A network, or one address. The error goes on behind the entry.
fn parse_network(text: &str) -> Result<Network, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_canonical().into());
    }
    let network: Network = text.parse().map_err(|_| {
        "which is no network, so its proxies would not be believed: write it as 10.0.0.0/8, \
         fd00::/8, or one address"
    })?;
    let written = network.trunc();
    if written == network {
        Ok(network)
    } else {
        Err(format!(
            "whose address goes beyond its prefix, so more would be believed than it seems: \
             write {written}, or one address without a prefix"
        ))
    }
}

/// Browsers send scheme, host and port, and never a slash behind them.
fn is_origin(text: &str) -> bool {
    text == "null"
        || text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', ' '])
        })
}

fn check_public_url(url: &str) -> Result<(), String> {
    let host = ["ws://", "wss://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        return Err("names no host behind ws:// or wss://: nobody could follow it".to_owned());
    }
    if url.len() > PUBLIC_URL_BYTES_MAX {
        let bytes = url.len();
        return Err(format!(
            "has {bytes} bytes, and more than {PUBLIC_URL_BYTES_MAX} do not fit into a close \
             reason with the rest: use a shorter name or path"
        ));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) || url.contains(['"', '\\', '#']) {
        return Err("holds characters that a WebSocket URL cannot have".to_owned());
    }
    Ok(())
}
