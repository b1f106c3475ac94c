//! The configuration: file, environment and flags become one proven value, or a list of all
//! that is wrong with them.
//!
//! Owns: defaults, checks, and the sentences for the operator. Nothing below imports it.
//! Invariants: a `Config` that exists has passed every check; loading changes nothing on disk.
//! Neighbours: `main` loads it, `server` splits it into the options of each part.

mod access;
mod args;
mod bounds;
mod changes;
mod checks;
mod cluster;
mod endpoint;
mod jwt;
mod keys;
mod layers;
mod room;
mod secret;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

pub use args::{Cli, Command, DoctorArgs, ServeArgs, StoreArgs, StoreCommand, TokenArgs};
pub use changes::Changes;
pub use room::{CONNECTIONS_MAX, DESCRIPTORS_KEPT, Room};
pub use secret::{
    SECRET_FILE, SecretFileError, load_or_create_secret, load_secret, replace_secret,
};

use crate::protocol::limits::Limits;
use crate::session::auth::JwtAlgorithm;
use crate::session::rules::{Network, SessionPolicy};
use layers::Layers;

/// Everything a node is told at its start. It holds secrets, so it has no `Debug`.
#[derive(Clone, PartialEq)]
pub struct Config {
    pub listen: SocketAddr,
    /// Path of the WebSocket endpoint.
    pub path: String,
    pub echo_path: Option<String>,
    /// Exact origins of browsers; empty: any.
    pub allowed_origins: Vec<String>,
    /// Who is believed when it says for whom it speaks.
    pub trusted_proxies: Vec<Network>,
    pub overflow: Overflow,
    pub api: SocketAddr,
    pub api_key: Option<String>,
    /// `HOST` or `HOST:PORT`.
    pub advertise: Option<String>,
    pub public_url: Option<String>,
    /// None: as many as the descriptors allow.
    pub max_connections: Option<usize>,
    /// None: one for each core.
    pub reactors: Option<usize>,
    pub auth: AuthMode,
    /// One secret a line, the first signs. None: the one in the data directory.
    pub token_secret: Option<String>,
    /// What `auth` = jwt needs, and with it only.
    pub jwt: Option<JwtConfig>,
    pub session_policy: SessionPolicy,
    /// Anybody may join a group, not only who is invited by a member.
    pub groups_are_open: bool,
    /// Where there is no `redis`.
    pub store: StoreKind,
    /// Messages are kept in it, and shared with other nodes.
    pub redis: Option<RedisConfig>,
    pub data_dir: PathBuf,
    /// 0: connections are cut at once.
    pub drain_secs: u32,
    pub limits: Limits,
    /// Connections that the kernel keeps for us until they are accepted.
    pub backlog: u32,
    pub log_level: tracing::Level,
    pub log_format: LogFormat,
    /// A turn that runs for so long is reported; 0: never.
    pub watchdog_secs: u32,
    /// What is odd but no reason to refuse, for the log.
    pub warnings: Vec<String>,
}

/// What a newcomer beyond `max_connections` meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// An upgrade and a close 1013 that says where to go.
    Farewell,
    /// HTTP 503.
    Refuse,
}

/// Where a node that is alone keeps messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// In a file in the data directory.
    Disk,
    /// Until the node ends.
    Memory,
}

/// The Redis that makes nodes a cluster.
#[derive(Clone, PartialEq)]
pub struct RedisConfig {
    /// An address that is good.
    pub url: String,
    /// In place of the one in the address.
    pub password: Option<String>,
    /// Who proves certificates, in PEM; none: whom the system trusts.
    pub authority: Option<Vec<u8>>,
    /// What all keys and channels begin with.
    pub prefix: String,
    /// It is written down who is on which node; if not, everything goes to all nodes.
    pub has_directory: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    Hmac,
    Jwt,
    None,
}

/// How tokens of an identity provider are checked.
#[derive(Clone, PartialEq)]
pub struct JwtConfig {
    pub algorithm: JwtAlgorithm,
    /// Secrets, one a line, or public keys.
    pub keys: String,
    pub issuer: Option<String>,
    pub audience: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// All that is wrong: each a sentence of what, what it would cause, and the way out.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl std::fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = self.0.len();
        write!(
            f,
            "{count} problem{} in the configuration:",
            if count == 1 { "" } else { "s" }
        )?;
        self.0
            .iter()
            .try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8888),
            path: "/websocket".to_owned(),
            echo_path: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            overflow: Overflow::Farewell,
            api: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8084),
            api_key: None,
            advertise: None,
            public_url: None,
            max_connections: None,
            reactors: None,
            auth: AuthMode::Hmac,
            token_secret: None,
            jwt: None,
            session_policy: SessionPolicy::Multi,
            groups_are_open: false,
            store: StoreKind::Disk,
            redis: None,
            data_dir: PathBuf::from("./throng-data"),
            drain_secs: 25,
            limits: Limits::default(),
            backlog: 4096,
            log_level: tracing::Level::INFO,
            log_format: LogFormat::Text,
            watchdog_secs: 5,
            warnings: Vec::new(),
        }
    }
}

/// What `throng token` needs to know.
pub struct TokenConfig {
    pub auth: AuthMode,
    pub token_secret: Option<String>,
    pub data_dir: PathBuf,
}

impl Config {
    /// From the flags, the environment, and the file that they name, for this host.
    pub fn load(args: &ServeArgs, environment: &Environment) -> Result<Config, ConfigErrors> {
        let layers = Layers::read(args.config.as_deref(), &environment.0, args.given());
        checks::prove(layers, true)
    }

    /// The same for any host: whether there is room for it is not asked.
    pub fn load_for_any_host(
        args: &ServeArgs,
        environment: &Environment,
    ) -> Result<Config, ConfigErrors> {
        let layers = Layers::read(args.config.as_deref(), &environment.0, args.given());
        checks::prove(layers, false)
    }

    /// From the text of a file, as if it lay where we were started, and the environment; for any
    /// host.
    pub fn from_text(text: &str, environment: &Environment) -> Result<Config, ConfigErrors> {
        checks::prove(Layers::of_text(text, &environment.0), false)
    }
}

impl TokenConfig {
    /// Proves only what making a token needs: whoever makes one may lack the API key.
    pub fn load(args: &TokenArgs, environment: &Environment) -> Result<TokenConfig, ConfigErrors> {
        let serve = args.as_serve();
        checks::prove_token(Layers::read(
            args.config.as_deref(),
            &environment.0,
            serve.given(),
        ))
    }
}

/// What `throng store` needs to know: the data directory.
pub fn data_dir(args: &StoreArgs, environment: &Environment) -> Result<PathBuf, ConfigErrors> {
    let serve = args.as_serve();
    checks::prove_data_dir(Layers::read(
        args.config.as_deref(),
        &environment.0,
        serve.given(),
    ))
}

/// The variables that are ours.
#[derive(Default)]
pub struct Environment(pub Vec<(String, String)>);

impl Environment {
    pub fn of_process() -> Environment {
        let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
        let all = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Environment(
            all.filter(|(name, _)| name.starts_with("THRONG_"))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
