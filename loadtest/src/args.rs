//! The command line. A part of the program, not of the library.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use throng_loadtest::pulse::Pulse;
use throng_loadtest::{Plan, Who};

use crate::Failed;

const API: &str = "http://127.0.0.1:8084";

/// Load for a Throng gateway: thousands of authenticated WebSocket clients from one process.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Subcommand)]
pub enum What {
    /// Connects, registers and holds; heartbeats are answered.
    Idle {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        pace: Pace,
    },
    /// Pushes to everybody over the HTTP API and counts who heard it.
    Broadcast {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        pace: Pace,
        /// Where the HTTP API is. An API key is taken from THRONG_API_KEY.
        #[arg(long, default_value = API)]
        api: String,
        /// Broadcasts in all.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        messages: u32,
        /// Broadcasts that are pushed together; the next ones follow when all have heard these.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        at_once: u32,
    },
    /// Lets each client send direct messages of 100 bytes to a partner.
    Unicast {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        pace: Pace,
        /// Messages in all.
        #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
        messages: u32,
        /// Messages under way at once.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
        in_flight: u32,
    },
    /// Lets pairs of users chat, with all six packets of a message, at a rate that does not
    /// depend on the answers. The clients come back, and repeat what nobody has confirmed.
    Chat {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        talk: Talk,
        /// Writes down what happens, for `check`. Others may append lines meanwhile: their
        /// faults, with Unix milliseconds in `at`.
        #[arg(long)]
        history: Option<PathBuf>,
    },
    /// Connects and holds while nodes are killed, drained and restarted by somebody else: clients
    /// that lose their connection come back. Ends after --secs, or with SIGINT or SIGTERM.
    Storm {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        pace: Pace,
    },
    /// Chats while nodes are restarted one after the other by somebody else, and judges at the end
    /// whether anything was lost.
    Rolling {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        talk: Talk,
        /// Of the clients, so many talk, in pairs over all nodes; the others listen. All where it
        /// is not given.
        #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
        talkers: Option<u32>,
        /// Writes down what happens, and reads it at the end. Others may append lines meanwhile:
        /// their faults, with Unix milliseconds in `at`.
        #[arg(long)]
        history: PathBuf,
    },
    /// Pushes to users over the HTTP API, at a rate that does not depend on the answers.
    Push {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        flow: Pushes,
        /// Users of a push.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        batch: u32,
        /// HTTP connections, each of which waits for one answer at a time.
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
        lanes: u32,
        /// Has the pushes stored in the users' inboxes.
        #[arg(long)]
        store: bool,
    },
    /// Makes groups over the HTTP API, whose members chat at a rate that does not depend on the
    /// answers. The clients come back, and repeat what nobody has confirmed.
    Group {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        talk: Talk,
        /// Where the HTTP API is. An API key is taken from THRONG_API_KEY.
        #[arg(long, default_value = API)]
        api: String,
        /// Members of each group; the clients must be a multiple of it.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=500))]
        size: u32,
    },
    /// Pushes to everybody at a rate, while some of the clients do not read for a while.
    Slow {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        flow: Pushes,
        /// This share of the clients does not read.
        #[arg(long, default_value_t = 0.1, value_parser = share)]
        slow: f64,
        /// For how long it does not, from the first push on.
        #[arg(long, default_value_t = 15)]
        stall_secs: u64,
    },
    /// Has clients come and go, so many a second.
    Churn {
        #[command(flatten)]
        common: Common,
        /// Connections a second.
        #[arg(long, default_value_t = 100.0, value_parser = positive)]
        rate: f64,
        /// How long a client stays on average: each for a random time, twice that at most.
        #[arg(long, default_value_t = 5.0, value_parser = positive)]
        stay_secs: f64,
        /// This share of them ends its connection by a reset, the others say goodbye.
        #[arg(long, default_value_t = 0.0, value_parser = share)]
        reset: f64,
    },
    /// Judges a history: status 0 where every promise was kept, 1 where one was broken.
    Check {
        /// One event a line.
        history: PathBuf,
        /// Prints the report as JSON on standard output.
        #[arg(long)]
        json: bool,
    },
}

impl What {
    /// The report is wanted as JSON.
    pub fn is_json(&self) -> bool {
        match self {
            What::Check { json, .. } => *json,
            scenario => scenario.common().is_some_and(|common| common.json),
        }
    }

    /// What all scenarios with clients have in common.
    pub fn common(&self) -> Option<&Common> {
        match self {
            What::Idle { common, .. }
            | What::Broadcast { common, .. }
            | What::Unicast { common, .. }
            | What::Chat { common, .. }
            | What::Storm { common, .. }
            | What::Rolling { common, .. }
            | What::Push { common, .. }
            | What::Group { common, .. }
            | What::Slow { common, .. }
            | What::Churn { common, .. } => Some(common),
            What::Check { .. } => None,
        }
    }
}

#[derive(Args)]
pub struct Talk {
    /// Messages a second, of all users together.
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    pub rate: f64,
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long, value_parser = positive)]
    pub connect_rate: Option<f64>,
    /// How long to wait at the end, until everything has come and everybody is back.
    #[arg(long, default_value_t = 95)]
    pub drain_secs: u64,
}

#[derive(Args)]
pub struct Pushes {
    /// Where the HTTP API is; may be repeated, and pushes are spread over all of them. An API key
    /// is taken from THRONG_API_KEY.
    #[arg(long, default_value = API)]
    pub api: Vec<String>,
    /// Pushes a second.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub rate: f64,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub bytes: u32,
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long, value_parser = positive)]
    pub connect_rate: Option<f64>,
    /// How long to wait at the end, until everything has come.
    #[arg(long, default_value_t = 10)]
    pub drain_secs: u64,
}

#[derive(Args)]
pub struct Pace {
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
}

pub fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|e| e.to_string())?;
    let is_good = number > 0.0 && number <= 1e7;
    is_good
        .then_some(number)
        .ok_or_else(|| "more than 0, at most ten million".to_owned())
}

pub fn share(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|e| e.to_string())?;
    let is_good = (0.0..=1.0).contains(&number);
    is_good
        .then_some(number)
        .ok_or_else(|| "a share of 0 to 1".to_owned())
}

#[derive(Args)]
pub struct Common {
    /// A WebSocket endpoint; may be repeated, and clients are spread over all of them.
    #[arg(long, default_value = "ws://127.0.0.1:8888/websocket")]
    pub url: Vec<String>,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    pub connections: u32,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub window: u32,
    /// Threads, each with its own file table; as many as the descriptor limit asks for where it
    /// is not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub threads: Option<u32>,
    /// Idle: how long to hold. Storm, churn: how long to run. Chat, rolling, group: how long to
    /// talk. Push, slow: how long to push. Otherwise: how long to wait for the messages at most.
    #[arg(long, default_value_t = 60)]
    pub secs: u64,
    /// Local address to connect from; may be repeated. To loopback, as many as needed are taken.
    #[arg(long)]
    pub source: Vec<std::net::IpAddr>,
    /// The server's token secret: tokens are made with it (THRONG_TOKEN_SECRET does the same).
    #[arg(long, conflicts_with_all = ["token_file", "openid"])]
    pub secret_file: Option<PathBuf>,
    /// Tokens, one a line.
    #[arg(long, conflicts_with = "openid")]
    pub token_file: Option<PathBuf>,
    /// No tokens: the server runs with `--auth none`.
    #[arg(long)]
    pub openid: bool,
    /// Beginning of the made user ids, which have 32 characters [default: load-; where something
    /// is stored another one each time, because a store remembers]
    #[arg(long)]
    pub user_prefix: Option<String>,
    /// Prints the report as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Writes the report as one HTML page, with plots.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// A server's process on this host, whose memory and CPU are watched; may be repeated.
    #[arg(long, value_name = "PID")]
    pub server_pid: Vec<u32>,
    /// Says nothing on standard error about how it goes.
    #[arg(long)]
    pub quiet: bool,
    /// Where the clients tell how it goes.
    #[arg(skip)]
    pub pulse: Arc<Pulse>,
}

impl Common {
    pub fn plan(&self, rate: Option<f64>, default_prefix: &str) -> Result<Plan, Failed> {
        let clients = self.connections as usize;
        let prefix = self.user_prefix.as_deref().unwrap_or(default_prefix);
        let mut plan = Plan::over(&self.url, self.who()?, prefix, clients)?;
        plan.pulse = self.pulse.clone();
        plan.rate = rate;
        plan.window = self.window as usize;
        if let Some(threads) = self.threads {
            plan.threads = threads as usize;
        }
        if !self.source.is_empty() {
            plan.sources.clone_from(&self.source);
        }
        Ok(plan)
    }

    fn who(&self) -> Result<Who, Failed> {
        let read = |path: &Path| {
            std::fs::read_to_string(path)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))
        };
        if self.openid {
            return Ok(Who::Openid);
        }
        if let Some(path) = &self.token_file {
            return Ok(Who::tokens(&read(path)?)?);
        }
        if let Some(path) = &self.secret_file {
            return Ok(Who::signed(&read(path)?)?);
        }
        match std::env::var("THRONG_TOKEN_SECRET") {
            Ok(secret) => Ok(Who::signed(&secret)?),
            Err(_) => Err("who connects? --secret-file, --token-file or --openid says it".into()),
        }
    }

    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.secs)
    }
}
