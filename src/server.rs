//! One node, from a proven configuration to its last connection: wires the threads together,
//! waits for signals, watches the reactors, drains.
//!
//! Owns: the order of the start. Reactors come first, while nothing but the standard streams
//! and the mailboxes' bells is open (see `reactor/start.rs`); everything else after them.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use crossbeam_channel::{Receiver, bounded, select, tick, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command::{DrainPlan, ToReactor};
use crate::config::{AuthMode, Config, Overflow, SecretFileError, load_or_create_secret};
use crate::control;
use crate::hub::code::UserCodes;
use crate::hub::node::Node;
use crate::hub::roster::Roster;
use crate::mailbox::{Inbox, Mailbox, Switchboard, mailbox};
use crate::parts::key::Key;
use crate::protocol::identity::Identity;
use crate::reactor::{self, Shared, StartError, Starting};
use crate::session::auth::{Auth, SecretError, TokenKeys};
use crate::session::rules::{Origins, Rules};
use crate::stats::ReactorStats;
use crate::sys;

/// Descriptors of each table that connections leave to everything else.
const DESCRIPTORS_KEPT: u64 = 256;
/// A node that drains closes this part of its connections a second, or `DRAIN_MIN_PER_SEC`.
const DRAIN_PART_PER_SEC: usize = 20;
const DRAIN_MIN_PER_SEC: usize = 500;
/// The demo token lives for a day.
const DEMO_TOKEN_MS: u64 = 24 * 3600 * 1000;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(
        "max_connections = {wanted} does not fit: {reactors} reactors hold {fits} with {nofile} descriptors each. \
         Use --reactors {needed}, or raise nofile (see sysctl/README.md)"
    )]
    TooManyConnections {
        wanted: usize,
        reactors: usize,
        fits: usize,
        nofile: u64,
        needed: usize,
    },
    #[error(
        "max_connections = {wanted} does not fit: this host does not let threads have file tables \
         of their own, and {nofile} descriptors hold {fits}. Raise nofile (see sysctl/README.md)"
    )]
    TooManyForOneTable {
        wanted: usize,
        fits: usize,
        nofile: u64,
    },
    #[error(
        "{nofile} file descriptors are too few: at least {needed} are needed (see sysctl/README.md)"
    )]
    TooFewDescriptors { nofile: u64, needed: u64 },
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error(transparent)]
    Reactor(#[from] StartError),
    #[error("a reactor failed: {0}")]
    ReactorFailed(io::Error),
    #[error("a reactor ended by itself")]
    ReactorEnded,
    #[error("stopped by a second signal before everybody had left")]
    StoppedTwice,
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

impl ServeError {
    /// 2 where the configuration is to be mended, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::TooManyConnections { .. }
            | ServeError::TooManyForOneTable { .. }
            | ServeError::Secret(_) => 2,
            _ => 1,
        }
    }
}

/// Runs a node until it has drained.
pub fn run(config: Config) -> Result<(), ServeError> {
    let plan = Plan::new(&config)?;
    let secret = match (&config.token_secret, config.auth) {
        (Some(secret), _) => Some(secret.clone()),
        (None, AuthMode::Hmac) => Some(load_or_create_secret(&config.data_dir)?),
        (None, AuthMode::None) => None,
    };
    let (auth, codes) = identities(config.auth, secret.as_deref())?;

    let stats: Vec<Arc<ReactorStats>> = (0..plan.reactors).map(|_| Arc::default()).collect();
    let (mailboxes, inboxes) = mailboxes(plan.reactors)?;
    let (starting, listen) = start_reactors(&config, &plan, inboxes, &stats)?;

    let api = control::bind(config.api).map_err(|source| ServeError::Listen {
        addr: config.api,
        source,
    })?;
    let api_addr = api.local_addr()?;
    let ws_url = format!("ws://{}{}", reachable(listen), config.path);
    let is_local = listen.ip().is_loopback();
    let public_url = config
        .public_url
        .clone()
        .or_else(|| is_local.then(|| ws_url.clone()));
    let name = node_name(config.advertise.as_deref(), api_addr);
    let node = Arc::new(Node::new(name, ws_url, public_url, plan.max_connections));
    let roster = Arc::new(Roster::for_sessions(plan.max_connections));
    let switchboard = Switchboard::new(mailboxes);
    let origin = Instant::now();
    let shared = Arc::new(Shared {
        rules: Rules {
            echo_limits: config.limits.echo(),
            limits: config.limits.clone(),
            path: config.path.clone(),
            echo_path: config.echo_path.clone(),
            origins: origins(&config),
            auth: auth.clone(),
            node_name: node.name.clone(),
        },
        node: node.clone(),
        roster: roster.clone(),
        codes,
        switchboard: switchboard.clone(),
        origin,
    });
    let ended = watch_ends(
        starting
            .into_iter()
            .map(|one| one.go(shared.clone()))
            .collect(),
    );
    let services = control::Services {
        node: node.clone(),
        roster,
        switchboard: switchboard.clone(),
        stats: stats.clone().into(),
        auth: auth.clone(),
        started: origin,
    };
    let options = control::Options {
        json_depth_max: config.limits.json_depth_max,
        ..control::Options::new(config.api, config.api_key.clone())
    };
    let control = control::serve(api, options, services)?;
    let signals = signals()?;
    tracing::info!(
        reactors = plan.reactors,
        max_connections = plan.max_connections,
        private_file_tables = plan.has_private_tables,
        "the node is up"
    );
    announce(&node, api_addr, &auth);

    let watch = Watch {
        stats: &stats,
        origin,
        limit_secs: config.watchdog_secs,
    };
    let outcome = serve_until_drained(&config, &node, &switchboard, &signals, &ended, &watch);
    control.stop();
    outcome
}

/// How many threads and connections the host allows.
struct Plan {
    reactors: usize,
    max_connections: usize,
    has_private_tables: bool,
    /// Descriptors that each table is grown for.
    descriptors: u64,
}

impl Plan {
    fn new(config: &Config) -> Result<Plan, ServeError> {
        let nofile = sys::raise_descriptor_limit()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let reactors = config.reactors.unwrap_or(cores).clamp(1, Key::REACTORS_MAX);
        let has_private_tables = sys::private_file_tables_work();
        let usable = nofile.saturating_sub(DESCRIPTORS_KEPT);
        if usable == 0 {
            return Err(ServeError::TooFewDescriptors {
                nofile,
                needed: DESCRIPTORS_KEPT + 1,
            });
        }
        let of_a_table = usize::try_from(usable)
            .unwrap_or(usize::MAX)
            .min(Key::SLOTS_MAX);
        let tables = if has_private_tables { reactors } else { 1 };
        let fits = of_a_table.saturating_mul(tables);
        let max_connections = match config.max_connections {
            Some(wanted) if wanted <= fits => wanted,
            Some(wanted) if has_private_tables => {
                let needed = wanted.div_ceil(of_a_table);
                return Err(ServeError::TooManyConnections {
                    wanted,
                    reactors,
                    fits,
                    nofile,
                    needed,
                });
            }
            Some(wanted) => {
                return Err(ServeError::TooManyForOneTable {
                    wanted,
                    fits,
                    nofile,
                });
            }
            // The kernel spreads newcomers over the listeners by chance: the cap leaves room
            // for a reactor that gets more than its share.
            None => fits / 20 * 19,
        };
        let share = (max_connections / tables) as u64;
        let descriptors = nofile.min(share + share / 8 + DESCRIPTORS_KEPT);
        Ok(Plan {
            reactors,
            max_connections,
            has_private_tables,
            descriptors,
        })
    }
}

fn identities(mode: AuthMode, secret: Option<&str>) -> Result<(Arc<Auth>, UserCodes), ServeError> {
    match (mode, secret) {
        (AuthMode::Hmac, Some(secret)) => {
            let keys = TokenKeys::parse(secret)?;
            let codes = UserCodes::new(&keys.derive("user codes"));
            Ok((Arc::new(Auth::Hmac(keys)), codes))
        }
        _ => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(ServeError::Random)?;
            Ok((Arc::new(Auth::None), UserCodes::new(&key)))
        }
    }
}

fn origins(config: &Config) -> Origins {
    let listed = config.allowed_origins.clone();
    match config.auth {
        AuthMode::None => Origins::LocalOr(listed),
        AuthMode::Hmac if listed.is_empty() => Origins::Any,
        AuthMode::Hmac => Origins::Listed(listed),
    }
}

fn mailboxes(count: usize) -> io::Result<(Vec<Mailbox>, Vec<Inbox>)> {
    let pairs: io::Result<Vec<_>> = (0..count).map(|_| mailbox()).collect();
    Ok(pairs?.into_iter().unzip())
}

/// Starts all reactors and returns where they listen.
fn start_reactors(
    config: &Config,
    plan: &Plan,
    inboxes: Vec<Inbox>,
    stats: &[Arc<ReactorStats>],
) -> Result<(Vec<Starting>, SocketAddr), ServeError> {
    let addr = config.listen;
    // Held until all of them listen: nobody else may take the port in between.
    let reserved =
        reactor::reserve_port(addr).map_err(|source| ServeError::Listen { addr, source })?;
    let bells: Vec<_> = inboxes
        .iter()
        .map(|inbox| inbox.bell().as_raw_fd())
        .collect();
    let mut starting = Vec::new();
    for (number, inbox) in inboxes.into_iter().enumerate() {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).map_err(ServeError::Random)?;
        let (prefix, start) = seed.split_at(8);
        let options = reactor::Options {
            number,
            listen: reserved.addr,
            backlog: config.backlog,
            private_table: plan.has_private_tables.then(|| bells.clone()),
            descriptors: plan.descriptors,
            refuses_surplus: config.overflow == Overflow::Refuse,
            json_depth_max: config.limits.json_depth_max,
            seed: [prefix, start].map(|half| half.iter().fold(0, |n, &b| n << 8 | u64::from(b))),
        };
        let one = reactor::spawn(options, inbox, stats[number].clone())?;
        one.listening()?;
        starting.push(one);
    }
    Ok((starting, reserved.addr))
}

/// The end of each reactor's thread, as a message.
fn watch_ends(threads: Vec<JoinHandle<io::Result<()>>>) -> Receiver<io::Result<()>> {
    let (sender, ended) = unbounded();
    for thread in threads {
        let sender = sender.clone();
        thread::spawn(move || {
            let result = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            let _ = sender.send(result);
        });
    }
    ended
}

/// SIGTERM, SIGINT and SIGHUP, as messages.
fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, received) = bounded(4);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in &mut signals {
                let _ = sender.send(signal);
            }
        })?;
    Ok(received)
}

fn serve_until_drained(
    config: &Config,
    node: &Node,
    switchboard: &Switchboard,
    signals: &Receiver<i32>,
    ended: &Receiver<io::Result<()>>,
    watch: &Watch<'_>,
) -> Result<(), ServeError> {
    let seconds = tick(Duration::from_secs(1));
    let mut left = switchboard.reactors();
    let mut stuck = vec![false; left];
    while left > 0 {
        select! {
            recv(signals) -> signal => {
                if signal == Ok(SIGHUP) {
                    tracing::warn!("SIGHUP: this version reloads nothing; restart to change the configuration");
                    continue;
                }
                if node.is_draining() {
                    return Err(ServeError::StoppedTwice);
                }
                start_drain(config, node, switchboard);
            }
            recv(ended) -> result => match result {
                Ok(Ok(())) if node.is_draining() => left -= 1,
                Ok(Ok(())) | Err(_) => return Err(ServeError::ReactorEnded),
                Ok(Err(error)) => return Err(ServeError::ReactorFailed(error)),
            },
            recv(seconds) -> _ => {
                watch.look(&mut stuck);
                sys::give_back_memory();
            }
        }
    }
    tracing::info!("drained");
    Ok(())
}

fn start_drain(config: &Config, node: &Node, switchboard: &Switchboard) {
    node.start_draining();
    let connections = node.connections();
    // Paced, but fast enough that nobody is cut off at the end.
    let in_time = connections / (config.drain_secs as usize).saturating_sub(2).max(1);
    let paced = (connections / DRAIN_PART_PER_SEC).max(DRAIN_MIN_PER_SEC);
    let per_sec = paced.max(in_time) as u32;
    let plan = DrainPlan {
        per_sec,
        within_secs: config.drain_secs,
    };
    tracing::info!(
        connections,
        per_sec,
        within_secs = plan.within_secs,
        "draining"
    );
    if switchboard.all(|| ToReactor::Drain { plan }).is_err() {
        tracing::warn!("a reactor is too busy to drain; a second signal stops it");
    }
}

/// Finds reactors that do not come back from a turn.
struct Watch<'a> {
    stats: &'a [Arc<ReactorStats>],
    origin: Instant,
    limit_secs: u32,
}

impl Watch<'_> {
    /// Logs each transition once; the metric shows how long the running turn has lasted.
    fn look(&self, stuck: &mut [bool]) {
        if self.limit_secs == 0 {
            return;
        }
        let now_ms = self.origin.elapsed().as_millis() as u64;
        for (reactor, (stats, was_stuck)) in self.stats.iter().zip(stuck).enumerate() {
            let since_ms = stats.turn_since_ms.get();
            let running_ms = if since_ms == 0 {
                0
            } else {
                now_ms.saturating_sub(since_ms)
            };
            let is_stuck = running_ms >= u64::from(self.limit_secs) * 1000;
            if is_stuck && !*was_stuck {
                tracing::error!(reactor, running_ms, "a reactor is stuck in a turn");
            } else if *was_stuck && !is_stuck {
                tracing::info!(reactor, "a stuck reactor goes on");
            }
            *was_stuck = is_stuck;
        }
    }
}

/// The address as a client on this machine would use it.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let mut addr = addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    addr
}

/// `ip:apiPort`: as advertised, else by the local address.
fn node_name(advertise: Option<&str>, api: SocketAddr) -> String {
    match advertise {
        Some(name) if has_port(name) => name.to_owned(),
        Some(host) => format!("{host}:{}", api.port()),
        None if api.ip().is_unspecified() => SocketAddr::new(
            local_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            api.port(),
        )
        .to_string(),
        None => api.to_string(),
    }
}

fn has_port(name: &str) -> bool {
    let port = name
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// The address from which this machine would reach others. Connecting a UDP socket sends nothing.
fn local_ip() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// One line for programs on standard output, the demo token for people on standard error.
/// Nobody may be reading either; the node serves all the same.
fn announce(node: &Node, api: SocketAddr, auth: &Auth) {
    if let Auth::Hmac(keys) = auth {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let expires_ms = now.as_millis() as u64 + DEMO_TOKEN_MS;
        if let Ok(demo) = Identity::new("demo", "") {
            let token = keys.sign(&demo, expires_ms, &[]);
            let _ = writeln!(
                io::stderr(),
                "demo token (user demo, one day): {token}\ntry: {}?token={token}",
                node.ws_url
            );
        }
    }
    let mut out = io::stdout().lock();
    let _ = writeln!(
        out,
        "ready ws={} api=http://{} node={}",
        node.ws_url,
        reachable(api),
        node.name
    );
    let _ = out.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_as_advertised_or_by_its_api_address() {
        let api: SocketAddr = "127.0.0.1:8084".parse().unwrap();
        assert_eq!(node_name(None, api), "127.0.0.1:8084");
        assert_eq!(node_name(Some("gw-1"), api), "gw-1:8084");
        assert_eq!(node_name(Some("gw-1:99"), api), "gw-1:99");
        assert_eq!(node_name(Some("[::1]"), api), "[::1]:8084");
        assert_eq!(node_name(Some("[::1]:99"), api), "[::1]:99");
    }
}
