//! The checks: from what was set to what is proven.
//!
//! Owns: the order of the checks, their tools, and the rules for the node itself.
//! Invariants: all rules are tried, whatever failed before; a value that fails does not make
//! another one fail.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::layers::{Layer, Layers};
use super::room::CONNECTIONS_MAX;
use super::{Config, ConfigErrors, LogFormat, TokenConfig};
use crate::parts::key::Key;

/// Longer times are taken for milliseconds.
const SECS_MAX: u32 = 7 * 24 * 3600;

/// `is_for_this_host`: it must fit here as well.
pub fn prove(layers: Layers, is_for_this_host: bool) -> Result<Config, ConfigErrors> {
    let mut prover = Prover { layers };
    let mut config = Config::default();
    prover.node(&mut config);
    prover.logs(&mut config);
    prover.endpoint(&mut config);
    prover.api(&mut config);
    prover.who_may_come(&mut config);
    prover.users(&mut config);
    prover.limits(&mut config);
    prover.ports(&config);
    if is_for_this_host {
        prover.room(&config);
    }
    config.warnings = std::mem::take(&mut prover.layers.warnings);
    prover.end(config)
}

pub fn prove_token(layers: Layers) -> Result<TokenConfig, ConfigErrors> {
    let mut prover = Prover { layers };
    let mut config = Config::default();
    prover.data_dir(&mut config);
    prover.auth_mode(&mut config);
    prover.token_secret(&mut config);
    let (auth, token_secret, data_dir) = (config.auth, config.token_secret, config.data_dir);
    #[rustfmt::skip]
    let config = TokenConfig { auth, token_secret, data_dir };
    prover.end(config)
}

pub fn prove_data_dir(layers: Layers) -> Result<PathBuf, ConfigErrors> {
    let mut prover = Prover { layers };
    let mut config = Config::default();
    prover.data_dir(&mut config);
    prover.end(config.data_dir)
}

/// Takes the values out of the layers and collects what is wrong with them.
pub struct Prover {
    pub layers: Layers,
}

/// Tools.
impl Prover {
    fn end<T>(self, value: T) -> Result<T, ConfigErrors> {
        match self.layers.problems {
            problems if problems.is_empty() => Ok(value),
            problems => Err(ConfigErrors(problems)),
        }
    }

    /// `sentence` goes on behind the key's name.
    pub fn problem(&mut self, key: &str, sentence: impl std::fmt::Display) {
        let name = self.layers.name(key);
        self.layers.problems.push(format!("{name} {sentence}"));
    }

    /// The named one of a few choices.
    pub fn choice<T: Copy>(&mut self, key: &str, text: &str, choices: &[(&str, T)], to: &mut T) {
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            *to = *value;
        } else {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let names = names.join(", ");
            self.problem(key, format!("= {text:?} is not one of: {names}"));
        }
    }

    /// The value if it is in range; `why` says what it would cause otherwise, and the way out.
    pub fn in_range<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        range: RangeInclusive<T>,
        why: &str,
    ) -> Option<T>
    where
        T: PartialOrd + std::fmt::Display,
    {
        let value = value?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        let sentence = format!("= {value} is not within {low} to {high}: {why}");
        self.problem(key, sentence);
        None
    }

    /// A time in seconds: `least` to a week.
    pub fn secs(&mut self, key: &str, value: Option<u32>, least: u32, to: &mut u32) {
        let why = match least {
            0 => "it counts seconds, and 0 turns it off",
            _ => "it counts seconds, and cannot be turned off",
        };
        if let Some(value) = self.in_range(key, value, least..=SECS_MAX, why) {
            *to = value;
        }
    }

    pub fn address(&mut self, key: &str, text: Option<String>, to: &mut SocketAddr) {
        let Some(text) = text else { return };
        match text.parse() {
            Ok(address) => *to = address,
            Err(_) => {
                let example = "as in 127.0.0.1:8084 or [::1]:8084";
                self.problem(key, format!("= {text:?} is not ADDR:PORT, {example}"));
            }
        }
    }

    /// Relative paths in the file begin at the file's folder, others where we were started.
    pub fn path_of(&self, key: &str, path: &str) -> PathBuf {
        match self.layers.origin(key) {
            Layer::File => self.layers.folder.join(path),
            _ => Path::new(path).to_owned(),
        }
    }
}

pub fn unbuilt(value: &str, instead: &str) -> String {
    format!("= {value:?} is not built into this version: use {instead:?}, or leave it out")
}

/// The node itself.
impl Prover {
    fn node(&mut self, config: &mut Config) {
        self.data_dir(config);
        self.store(config);
        let reactors = self.layers.file.reactors;
        let why = "each is a thread; leave it out for one per core";
        config.reactors = self.in_range("reactors", reactors, 1..=Key::REACTORS_MAX, why);
        let max = self.layers.file.max_connections;
        let why = "nobody could connect, or nothing could hold them; leave it out for what fits";
        config.max_connections = self.in_range("max_connections", max, 1..=CONNECTIONS_MAX, why);
        if let Some(name) = self.layers.file.advertise.take() {
            if !is_host_and_port(&name) {
                let why = "others could not find this node";
                let sentence = format!("= {name:?} is not HOST or HOST:PORT: {why}");
                self.problem("advertise", sentence);
            }
            config.advertise = Some(name);
        }
        let (drain, watchdog) = (self.layers.file.drain_secs, self.layers.file.watchdog_secs);
        self.secs("drain_secs", drain, 0, &mut config.drain_secs);
        self.secs("watchdog_secs", watchdog, 0, &mut config.watchdog_secs);
    }

    fn data_dir(&mut self, config: &mut Config) {
        match self.layers.file.data_dir.take().as_deref() {
            None => {}
            Some("") => self.problem("data_dir", "is empty: leave it out for ./throng-data"),
            Some(dir) => config.data_dir = self.path_of("data_dir", dir),
        }
    }

    fn logs(&mut self, config: &mut Config) {
        if let Some(level) = self.layers.file.log_level.take() {
            let levels = [
                ("error", tracing::Level::ERROR),
                ("warn", tracing::Level::WARN),
                ("info", tracing::Level::INFO),
                ("debug", tracing::Level::DEBUG),
                ("trace", tracing::Level::TRACE),
            ];
            self.choice("log_level", &level, &levels, &mut config.log_level);
        }
        if let Some(format) = self.layers.file.log_format.take() {
            let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
            self.choice("log_format", &format, &formats, &mut config.log_format);
        }
    }
}

fn is_host_and_port(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(host, port)| {
            host.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_of_host = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    (1..=253).contains(&host.len()) && host.bytes().all(is_of_host) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}
