//! `throng-loadtest`: holds, broadcasts to, or lets talk a crowd of WebSocket clients, perhaps
//! while somebody restarts their nodes, and says what happened to them; and judges what was
//! written down of it.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use throng_loadtest::{Api, Chats, Chatted, Crowd, Flow, Plan, Who};

use crate::report::Report;

mod report;

type Failed = Box<dyn std::error::Error>;

/// Load for a Throng gateway: thousands of authenticated WebSocket clients from one process.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
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
        #[arg(long, default_value = "http://127.0.0.1:8084")]
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
    /// Judges a history: status 0 where every promise was kept, 1 where one was broken.
    Check {
        /// One event a line.
        history: PathBuf,
        /// Prints the report as JSON on standard output.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Talk {
    /// Messages a second, of all users together.
    #[arg(long, default_value_t = 100.0, value_parser = positive)]
    rate: f64,
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long, value_parser = positive)]
    connect_rate: Option<f64>,
    /// How long to wait at the end, until everything has come and everybody is back.
    #[arg(long, default_value_t = 95)]
    drain_secs: u64,
}

#[derive(Args)]
struct Pace {
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long)]
    rate: Option<f64>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|e| e.to_string())?;
    let is_good = number > 0.0 && number <= 1e7;
    is_good
        .then_some(number)
        .ok_or_else(|| "more than 0, at most ten million".to_owned())
}

#[derive(Args)]
struct Common {
    /// A WebSocket endpoint; may be repeated, and clients are spread over all of them.
    #[arg(long, default_value = "ws://127.0.0.1:8888/websocket")]
    url: Vec<String>,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Threads, each with its own file table; as many as the descriptor limit asks for where it
    /// is not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    threads: Option<u32>,
    /// Idle: how long to hold. Storm: how long to run. Chat, rolling: how long to talk. Otherwise:
    /// how long to wait for the messages at most.
    #[arg(long, default_value_t = 60)]
    secs: u64,
    /// Local address to connect from; may be repeated. To loopback, as many as needed are taken.
    #[arg(long)]
    source: Vec<std::net::IpAddr>,
    /// The server's token secret: tokens are made with it (THRONG_TOKEN_SECRET does the same).
    #[arg(long, conflicts_with_all = ["token_file", "openid"])]
    secret_file: Option<PathBuf>,
    /// Tokens, one a line.
    #[arg(long, conflicts_with = "openid")]
    token_file: Option<PathBuf>,
    /// No tokens: the server runs with `--auth none`.
    #[arg(long)]
    openid: bool,
    /// Beginning of the made user ids, which have 32 characters [default: load-; for a chat
    /// another one each time, because a store remembers]
    #[arg(long)]
    user_prefix: Option<String>,
    /// Prints the report as JSON on standard output.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn plan(&self, rate: Option<f64>, default_prefix: &str) -> Result<Plan, Failed> {
        let clients = self.connections as usize;
        let prefix = self.user_prefix.as_deref().unwrap_or(default_prefix);
        let mut plan = Plan::over(&self.url, self.who()?, prefix, clients)?;
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

    fn patience(&self) -> Duration {
        Duration::from_secs(self.secs)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let is_json = match &cli.what {
        What::Idle { common, .. }
        | What::Broadcast { common, .. }
        | What::Unicast { common, .. }
        | What::Chat { common, .. }
        | What::Storm { common, .. }
        | What::Rolling { common, .. } => common.json,
        What::Check { json, .. } => *json,
    };
    match run(cli.what) {
        Ok(report) => {
            if is_json {
                println!("{}", report.json());
            } else {
                print!("{}", report.text);
            }
            if report.is_complete {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("throng-loadtest: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(what: What) -> Result<Report, Failed> {
    match what {
        What::Idle { common, pace } => {
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            let open = |report: &Report| report.counts.as_ref().map(|counts| counts.open);
            let opened = open(&report);
            std::thread::sleep(common.patience());
            finish(&mut crowd, &mut report)?;
            report.is_complete &= open(&report) == opened;
            Ok(report)
        }
        What::Broadcast {
            common,
            pace,
            api,
            messages,
            at_once,
        } => {
            let mut api = Api::connect(&api, std::env::var("THRONG_API_KEY").ok())
                .map_err(|e| format!("cannot reach the API at {api}: {e}"))?;
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            broadcast(
                &mut crowd,
                &mut api,
                messages,
                at_once,
                common.patience(),
                &mut report,
            )?;
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Unicast {
            common,
            pace,
            messages,
            in_flight,
        } => {
            let (mut crowd, mut report) = gather(common.plan(pace.rate, "load-")?)?;
            let talked = crowd.talk(messages, in_flight, common.patience())?;
            report.talked(&talked, messages, in_flight);
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Chat {
            common,
            talk,
            history,
        } => {
            let (report, _) = chat(&common, &talk, common.connections, history.as_deref())?;
            Ok(report)
        }
        What::Storm { common, pace } => storm(&common, pace.rate),
        What::Rolling {
            common,
            talk,
            talkers,
            history,
        } => {
            let talkers = talkers.unwrap_or(common.connections);
            let (mut report, chatted) = chat(&common, &talk, talkers, Some(&history))?;
            report.returned(&chatted.returned, u64::from(common.connections));
            report.judged(&judge(&history)?);
            Ok(report)
        }
        What::Check { history, .. } => {
            let mut report = Report::new();
            report.judged(&judge(&history)?);
            Ok(report)
        }
    }
}

fn chat(
    common: &Common,
    talk: &Talk,
    talkers: u32,
    history: Option<&Path>,
) -> Result<(Report, Chatted), Failed> {
    if !talkers.is_multiple_of(2) || talkers > common.connections {
        return Err("pairs chat: those who talk must be an even number, of all clients".into());
    }
    let chats = Chats::new(history).map_err(|e| format!("cannot write the history: {e}"))?;
    let mut plan = common.plan(talk.connect_rate, &format!("chat-{:08x}-", chats.run))?;
    plan.talkers = talkers as usize;
    plan.chats = Some(Arc::new(chats));
    let (mut crowd, mut report) = gather(plan)?;
    let drain = Duration::from_secs(talk.drain_secs);
    let chatted = crowd.chat(Flow::PerSec(talk.rate), common.patience(), drain)?;
    report.chatted(&chatted, talk.rate, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    Ok((report, chatted))
}

fn storm(common: &Common, rate: Option<f64>) -> Result<Report, Failed> {
    let should_stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The first one ends the run, and if that takes too long the second one the program.
        flag::register_conditional_default(signal, should_stop.clone())?;
        flag::register(signal, should_stop.clone())?;
    }
    let mut plan = common.plan(rate, "load-")?;
    plan.comes_back = true;
    let mut crowd = Crowd::gather(plan)?;
    let weathered = crowd.weather(common.patience(), &should_stop)?;
    let mut report = Report::new();
    report.weathered(&weathered, u64::from(common.connections));
    finish(&mut crowd, &mut report)?;
    Ok(report)
}

fn judge(history: &Path) -> Result<throng_history::Report, Failed> {
    let told = |e: &dyn std::fmt::Display| format!("{}: {e}", history.display());
    let file = File::open(history).map_err(|e| told(&e))?;
    let lines = BufReader::with_capacity(1 << 20, file);
    Ok(throng_history::judge(lines).map_err(|e| told(&e))?)
}

fn gather(plan: Plan) -> Result<(Crowd, Report), Failed> {
    let clients = plan.clients;
    // At the slowest: as long as the rate takes, or 200 a second, and a handshake's time.
    let slowest = clients as f64 / plan.rate.unwrap_or(200.0).max(0.001);
    let patience = Duration::from_secs_f64(slowest.min(1e6) * 1.1) + plan.handshake_patience;
    let mut crowd = Crowd::gather(plan)?;
    let opened = crowd.open(clients, patience)?;
    let mut report = Report::new();
    report.opened(&opened, clients as u64);
    report.counts = Some(crowd.counts()?);
    Ok((crowd, report))
}

fn broadcast(
    crowd: &mut Crowd,
    api: &mut Api,
    messages: u32,
    at_once: u32,
    patience: Duration,
    report: &mut Report,
) -> Result<(), Failed> {
    let began = Instant::now();
    let (mut delivered, mut expected, mut left) = (0, 0, messages);
    let (mut first_worst, mut last_worst) = (Duration::ZERO, Duration::ZERO);
    while left > 0 && began.elapsed() < patience {
        let count = left.min(at_once);
        let remaining = patience.saturating_sub(began.elapsed());
        let heard = crowd.hear(count, remaining, |bodies| api.send_to_all(bodies))?;
        delivered += heard.delivered;
        expected += heard.expected();
        first_worst = first_worst.max(heard.first.unwrap_or(remaining));
        last_worst = last_worst.max(heard.last.unwrap_or(remaining));
        left -= count;
    }
    let secs = began.elapsed().as_secs_f64();
    let (first, last) = (
        first_worst.as_secs_f64() * 1e3,
        last_worst.as_secs_f64() * 1e3,
    );
    report.text += &format!(
        "broadcast    {delivered} of {expected} deliveries of {} messages in {secs:.2} s, {at_once} at once\n\
         slowest      first delivery after {first:.1} ms, last after {last:.1} ms\n",
        messages - left
    );
    report.fields["broadcast"] = json!({
        "messages": messages - left, "delivered": delivered, "expected": expected, "secs": secs,
        "first_ms": first, "last_ms": last,
    });
    report.is_complete &= left == 0 && delivered == expected;
    Ok(())
}

fn finish(crowd: &mut Crowd, report: &mut Report) -> Result<(), Failed> {
    report.counted(crowd.counts()?);
    Ok(())
}
