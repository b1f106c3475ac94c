//! The checks: from what was set to what is proven.
//!
//! Owns: every rule that a value or two together must keep, with its sentence.
//! Invariants: all rules are tried, whatever failed before; a value that fails counts as its
//! default for the others.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::layers::{Layer, Layers};
use super::{AuthMode, Config, ConfigErrors, LogFormat, Overflow, TokenConfig};
use crate::parts::key::Key;
use crate::protocol::limits::Limits;
use crate::session::auth::TokenKeys;

/// A close reason holds 123 bytes, and the URL must fit in with the rest of it.
const PUBLIC_URL_BYTES_MAX: usize = 90;
const API_KEY_CHARS_MIN: usize = 32;
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Parsers go no deeper.
const JSON_DEPTH_MAX: usize = 128;
/// Longer times are taken for milliseconds.
const SECS_MAX: u32 = 7 * 24 * 3600;

pub fn prove(layers: Layers) -> Result<Config, ConfigErrors> {
    let mut prover = Prover { layers };
    let mut config = Config::default();
    prover.node(&mut config);
    prover.endpoint(&mut config);
    prover.api(&mut config);
    prover.who_may_come(&mut config);
    prover.limits(&mut config);
    prover.addresses(&config);
    config.warnings = std::mem::take(&mut prover.layers.warnings);
    prover.end(config)
}

pub fn prove_token(layers: Layers) -> Result<TokenConfig, ConfigErrors> {
    let mut prover = Prover { layers };
    let mut config = Config::default();
    prover.data_dir(&mut config);
    prover.auth(&mut config);
    let Config {
        auth,
        token_secret,
        data_dir,
        ..
    } = config;
    prover.end(TokenConfig {
        auth,
        token_secret,
        data_dir,
    })
}

struct Prover {
    layers: Layers,
}

impl Prover {
    fn end<T>(self, value: T) -> Result<T, ConfigErrors> {
        let problems = self.layers.problems;
        if problems.is_empty() {
            Ok(value)
        } else {
            Err(ConfigErrors(problems))
        }
    }

    fn problem(&mut self, key: &str, sentence: impl std::fmt::Display) {
        let name = self.layers.name(key);
        self.layers.problems.push(format!("{name} {sentence}"));
    }

    /// The named one of a few choices.
    fn choice<T: Copy>(
        &mut self,
        key: &str,
        text: Option<String>,
        choices: &[(&str, T)],
        to: &mut T,
    ) {
        let Some(text) = text else { return };
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *to = *value,
            None => {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                self.problem(
                    key,
                    format!("= {text:?} is not one of: {}", names.join(", ")),
                );
            }
        }
    }

    fn in_range<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        range: RangeInclusive<T>,
        or: &str,
    ) -> Option<T>
    where
        T: PartialOrd + std::fmt::Display,
    {
        let value = value?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (range.start(), range.end());
        self.problem(
            key,
            format!("= {value} is not within {low} to {high}: {or}"),
        );
        None
    }

    fn node(&mut self, config: &mut Config) {
        self.data_dir(config);
        let store = self.layers.file.store.take();
        match store.as_deref() {
            None | Some("memory") => {}
            Some(store @ ("disk" | "redis")) => self.problem("store", unbuilt(store, "memory")),
            Some(other) => self.problem("store", format!("= {other:?} is not one of: memory")),
        }
        let reactors = self.layers.file.reactors.take();
        let why = "each is a thread; leave it out for one per core";
        config.reactors = self.in_range("reactors", reactors, 1..=Key::REACTORS_MAX, why);
        let top = Key::REACTORS_MAX * Key::SLOTS_MAX;
        let max = self.layers.file.max_connections.take();
        let why = "nobody could connect, or nothing could hold them; leave it out for what fits";
        config.max_connections = self.in_range("max_connections", max, 1..=top, why);
        let text = self.layers.file.advertise.take();
        config.advertise = text.filter(|text| {
            let is_good = is_host_and_port(text);
            if !is_good {
                self.problem(
                    "advertise",
                    format!("= {text:?} is not HOST or HOST:PORT: others could not find this node"),
                );
            }
            is_good
        });
        self.secs(
            "drain_secs",
            self.layers.file.drain_secs,
            0,
            &mut config.drain_secs,
        );
        self.secs(
            "watchdog_secs",
            self.layers.file.watchdog_secs,
            0,
            &mut config.watchdog_secs,
        );
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ];
        let text = self.layers.file.log_level.take();
        self.choice("log_level", text, &levels, &mut config.log_level);
        let text = self.layers.file.log_format.take();
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        self.choice("log_format", text, &formats, &mut config.log_format);
    }

    fn data_dir(&mut self, config: &mut Config) {
        let Some(dir) = self.layers.file.data_dir.take() else {
            return;
        };
        if dir.is_empty() {
            return self.problem(
                "data_dir",
                "is empty: name a directory, or leave it out for ./throng-data",
            );
        }
        config.data_dir = self.path_of("data_dir", &dir);
    }

    fn endpoint(&mut self, config: &mut Config) {
        if let Some(path) = self.layers.file.path.take()
            && self.is_good_path("path", &path)
        {
            config.path = path;
        }
        if let Some(path) = self.layers.file.echo_path.take()
            && self.is_good_path("echo_path", &path)
        {
            if path == config.path {
                self.problem(
                    "echo_path",
                    format!(
                        "= {path:?} is also the path of the endpoint, which would be dead: choose \
                        another"
                    ),
                );
            }
            config.echo_path = Some(path);
        }
        for origin in self.layers.file.allowed_origins.take().unwrap_or_default() {
            // Browsers send scheme, host and port, and never a slash behind them.
            let is_origin = origin.split_once("://").is_some_and(|(scheme, host)| {
                !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '*', ' '])
            });
            if !is_origin && origin != "null" {
                self.problem(
                    "allowed_origins",
                    format!(
                        "holds {origin:?}, which no browser sends: write it as \
                        https://example.com, an empty list allows all"
                    ),
                );
            }
            config.allowed_origins.push(origin);
        }
        let text = self.layers.file.overflow.take();
        let choices = [
            ("farewell", Overflow::Farewell),
            ("refuse", Overflow::Refuse),
        ];
        self.choice("overflow", text, &choices, &mut config.overflow);
        if let Some(url) = self.layers.file.public_url.take() {
            if let Err(sentence) = check_public_url(&url) {
                self.problem("public_url", format!("= {url:?} {sentence}"));
            }
            config.public_url = Some(url);
        }
        let why =
            "newcomers would be refused while a reactor is busy, or the kernel refuses the number";
        let backlog = self.layers.file.backlog;
        if let Some(n) = self.in_range("backlog", backlog, 1..=i32::MAX as u32, why) {
            config.backlog = n;
        }
    }

    fn is_good_path(&mut self, key: &str, path: &str) -> bool {
        let reason = if !path.starts_with('/') {
            "does not begin with a slash: no request would match it"
        } else if path == "/health" {
            "is where balancers probe: choose another"
        } else if !path.bytes().all(|b| b.is_ascii_graphic()) || path.contains(['?', '#']) {
            "holds characters that no request's path has"
        } else {
            return true;
        };
        self.problem(key, format!("= {path:?} {reason}"));
        false
    }

    fn api(&mut self, config: &mut Config) {
        if let Some(addr) = self.address("api") {
            config.api = addr;
        }
        if let Some(key) = self.secret("api_key", "api_key_file") {
            let key = key.trim();
            let length = key.chars().count();
            if length < API_KEY_CHARS_MIN {
                self.problem(
                    "api_key",
                    format!(
                        "has {length} characters and could be guessed: {API_KEY_CHARS_MIN} or \
                        more are needed, as from `openssl rand -hex 32`"
                    ),
                );
            } else if !key.bytes().all(|b| b.is_ascii_graphic()) {
                self.problem(
                    "api_key",
                    "holds characters that an HTTP header cannot carry: use letters and digits",
                );
            }
            config.api_key = Some(key.to_owned());
        } else if !config.api.ip().is_loopback() && !self.was_set("api_key_file") {
            let api = config.api;
            self.problem(
                "api",
                format!(
                    "= {api} without an API key would let everybody who \
                    reaches it send to all clients: set THRONG_API_KEY or api_key_file, \
                    or listen on 127.0.0.1"
                ),
            );
        }
    }

    fn who_may_come(&mut self, config: &mut Config) {
        self.auth(config);
        let anywhere = self.layers.file.auth_none_anywhere.unwrap_or(false);
        if config.auth == AuthMode::None {
            config.listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        if let Some(addr) = self.address("listen") {
            config.listen = addr;
        }
        if config.auth == AuthMode::None && !anywhere && !config.listen.ip().is_loopback() {
            let listen = config.listen;
            self.problem(
                "listen",
                format!(
                    "= {listen} with auth = \"none\" would let anybody \
                    be anyone: listen on 127.0.0.1, use auth = \"hmac\", or set \
                    auth_none_anywhere = true (THRONG_AUTH_NONE_ANYWHERE) if that is meant"
                ),
            );
        }
    }

    fn auth(&mut self, config: &mut Config) {
        let text = self.layers.file.auth.take();
        match text.as_deref() {
            Some(mode @ ("jwt" | "http" | "redis")) => self.problem("auth", unbuilt(mode, "hmac")),
            _ => {
                let choices = [("hmac", AuthMode::Hmac), ("none", AuthMode::None)];
                self.choice("auth", text, &choices, &mut config.auth);
            }
        }
        config.token_secret = self.secret("token_secret", "token_secret_file");
        if let Some(Err(error)) = config.token_secret.as_deref().map(TokenKeys::parse) {
            self.problem(
                "token_secret",
                format!(
                    "cannot sign: {error}. Make one with `openssl rand -hex 32`, or leave it out \
                    and the node makes its own"
                ),
            );
        }
    }

    fn limits(&mut self, config: &mut Config) {
        let limits = &mut config.limits;
        self.layers
            .file
            .limits
            .take()
            .unwrap_or_default()
            .apply(limits);
        self.secs(
            "auth_timeout_secs",
            self.layers.file.auth_timeout_secs,
            1,
            &mut limits.auth_timeout_secs,
        );
        self.secs(
            "ping_secs",
            self.layers.file.ping_secs,
            0,
            &mut limits.ping_secs,
        );
        self.secs(
            "idle_secs",
            self.layers.file.idle_secs,
            0,
            &mut limits.idle_secs,
        );
        let (ping, idle) = (limits.ping_secs, limits.idle_secs);
        if ping >= idle && ping != 0 && idle != 0 {
            let idle_name = self.layers.name("idle_secs");
            self.problem(
                "ping_secs",
                format!(
                    "= {ping} must be below {idle_name} = {idle}, or every quiet client is dropped"
                ),
            );
        }
        self.bounds(limits);
        self.order(limits);
    }

    /// A time in seconds: `least` to a week.
    fn secs(&mut self, key: &str, value: Option<u32>, least: u32, to: &mut u32) {
        let why = if least == 0 {
            "these are seconds, 0 turns it off"
        } else {
            "these are seconds"
        };
        if let Some(value) = self.in_range(key, value, least..=SECS_MAX, why) {
            *to = value;
        }
    }

    fn bounds(&mut self, limits: &Limits) {
        let no_one = "at 0 nobody could connect or speak, and far beyond the default one \
                client could hold the node";
        let mib = 1 << 20;
        for (key, value, range) in [
            (
                "request_line_bytes_max",
                limits.request_line_bytes_max,
                64..=mib,
            ),
            ("header_bytes_max", limits.header_bytes_max, 256..=mib),
            ("headers_max", limits.headers_max, 8..=1024),
            (
                "preauth_frame_bytes_max",
                limits.preauth_frame_bytes_max,
                1..=MESSAGE_BYTES_MAX,
            ),
            (
                "preauth_bytes_max",
                limits.preauth_bytes_max,
                1..=MESSAGE_BYTES_MAX,
            ),
            (
                "message_bytes_max",
                limits.message_bytes_max,
                1..=MESSAGE_BYTES_MAX,
            ),
            (
                "fragments_max",
                limits.fragments_max as usize,
                1..=u32::MAX as usize,
            ),
            ("strikes_max", usize::from(limits.strikes_max), 1..=255),
            ("json_depth_max", limits.json_depth_max, 1..=JSON_DEPTH_MAX),
            ("queue_soft_bytes", limits.queue_soft_bytes, 1..=1 << 30),
            ("queue_hard_bytes", limits.queue_hard_bytes, 1..=1 << 30),
        ] {
            self.in_range(&format!("limits.{key}"), Some(value), range, no_one);
        }
        for (key, value, least) in [
            ("limits.handshake_secs", limits.handshake_secs, 1),
            ("limits.close_secs", limits.close_secs, 1),
            ("limits.message_secs", limits.message_secs, 0),
            ("limits.queue_stalled_secs", limits.queue_stalled_secs, 0),
        ] {
            self.secs(key, Some(value), least, &mut 0);
        }
    }

    fn order(&mut self, limits: &Limits) {
        for (lower, low, upper, high, or) in [
            (
                "queue_soft_bytes",
                limits.queue_soft_bytes,
                "queue_hard_bytes",
                limits.queue_hard_bytes,
                "a slow reader would be closed before we stop reading from it",
            ),
            (
                "preauth_frame_bytes_max",
                limits.preauth_frame_bytes_max,
                "preauth_bytes_max",
                limits.preauth_bytes_max,
                "one allowed frame would already be too much",
            ),
            (
                "preauth_bytes_max",
                limits.preauth_bytes_max,
                "message_bytes_max",
                limits.message_bytes_max,
                "strangers could send more than friends",
            ),
            (
                "message_bytes_max",
                limits.message_bytes_max,
                "queue_hard_bytes",
                limits.queue_hard_bytes,
                "the largest message would close every receiver that is not instantly reading",
            ),
        ] {
            if low > high {
                let upper = self.layers.name(&format!("limits.{upper}"));
                self.problem(
                    &format!("limits.{lower}"),
                    format!("= {low} must not be above {upper} = {high}, or {or}"),
                );
            }
        }
    }

    fn addresses(&mut self, config: &Config) {
        let (listen, api) = (config.listen, config.api);
        let overlap =
            listen.ip() == api.ip() || listen.ip().is_unspecified() || api.ip().is_unspecified();
        if listen.port() == api.port() && listen.port() != 0 && overlap {
            let listen_name = self.layers.name("listen");
            self.problem(
                "api",
                format!(
                    "= {api} and {listen_name} = {listen} would take the \
                    same port: give one of them another"
                ),
            );
        }
    }

    fn address(&mut self, key: &str) -> Option<SocketAddr> {
        let file = &mut self.layers.file;
        let text = if key == "api" {
            file.api.take()
        } else {
            file.listen.take()
        }?;
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(
                key,
                format!("= {text:?} is not ADDR:PORT, as in 127.0.0.1:8084 or [::1]:8084"),
            );
        }
        address
    }

    fn was_set(&self, key: &str) -> bool {
        self.layers.origin(key) != Layer::Default
    }

    /// A secret's text, given as such or as a file's path; of both, the later layer wins.
    fn secret(&mut self, key: &str, file_key: &str) -> Option<String> {
        let file = &mut self.layers.file;
        let (text, path) = match key {
            "api_key" => (file.api_key.take(), file.api_key_file.take()),
            _ => (file.token_secret.take(), file.token_secret_file.take()),
        };
        let (text_from, path_from) = (self.layers.origin(key), self.layers.origin(file_key));
        let path = match (text, path) {
            (text, None) => return text,
            (Some(text), Some(_)) if text_from > path_from => return Some(text),
            (Some(_), Some(_)) if text_from == path_from => {
                self.problem(
                    key,
                    format!("and {} are both set: keep one", self.layers.name(file_key)),
                );
                return None;
            }
            (_, Some(path)) => path,
        };
        let full = self.path_of(file_key, &path);
        match std::fs::read_to_string(&full) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problem(
                    file_key,
                    format!(
                        "= {path:?} cannot be read ({error}): name a file that the server's user \
                        may read"
                    ),
                );
                None
            }
        }
    }

    /// Relative paths in the file begin at the file's folder, others where we were started.
    fn path_of(&self, key: &str, path: &str) -> std::path::PathBuf {
        match self.layers.origin(key) {
            Layer::File => self.layers.folder.join(path),
            _ => Path::new(path).to_owned(),
        }
    }
}

fn unbuilt(value: &str, instead: &str) -> String {
    format!("= {value:?} is not built into this version: use {instead:?}, or leave it out")
}

fn check_public_url(url: &str) -> Result<(), String> {
    let host = url
        .strip_prefix("ws://")
        .or_else(|| url.strip_prefix("wss://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
        return Err(
            "does not name a host behind ws:// or wss://: clients could not follow it".to_owned(),
        );
    }
    if url.len() > PUBLIC_URL_BYTES_MAX {
        let bytes = url.len();
        return Err(format!(
            "has {bytes} bytes: more than {PUBLIC_URL_BYTES_MAX} do not fit into a close \
                    reason with the rest"
        ));
    }
    if !url.bytes().all(|b| b.is_ascii_graphic()) || url.contains(['"', '\\', '#']) {
        return Err("holds characters that a WebSocket URL cannot have".to_owned());
    }
    Ok(())
}

fn is_host_and_port(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(host, port)| {
            host.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
        });
    }
    let (host, port) = text
        .split_once(':')
        .map_or((text, None), |(host, port)| (host, Some(port)));
    (1..=253).contains(&host.len())
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}
