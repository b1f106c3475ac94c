//! `throng-loadtest`: holds, broadcasts to, or lets talk a crowd of WebSocket clients, and says
//! what happened to them; and judges what was written down of it.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use throng_loadtest::{Api, Chats, Chatted, Counts, Crowd, Opened, Plan, Who};

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
        /// Messages a second, of all users together.
        #[arg(long, default_value_t = 100.0, value_parser = positive)]
        rate: f64,
        /// New connections a second; as fast as they are answered where it is not given.
        #[arg(long, value_parser = positive)]
        connect_rate: Option<f64>,
        /// How long to wait at the end, until everything has come.
        #[arg(long, default_value_t = 95)]
        drain_secs: u64,
        /// Writes down what happens, for `check`. Others may append lines meanwhile: their
        /// faults, with Unix milliseconds in `at`.
        #[arg(long)]
        history: Option<PathBuf>,
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
    /// The WebSocket endpoint.
    #[arg(long, default_value = "ws://127.0.0.1:8888/websocket")]
    url: String,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,
    /// Handshakes under way at once.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Threads, each with its own file table; as many as the descriptor limit asks for where it
    /// is not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    threads: Option<u32>,
    /// Idle: how long to hold. Chat: how long to talk. Otherwise: how long to wait for the messages
    /// at most.
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
        let mut plan = Plan::new(&self.url, self.who()?, prefix, clients)?;
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
        | What::Chat { common, .. } => common.json,
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

/// What is said at the end.
struct Report {
    text: String,
    fields: Value,
    counts: Option<Counts>,
    /// Everything that was asked for happened.
    is_complete: bool,
}

impl Report {
    fn json(&self) -> Value {
        let mut whole = self.fields.clone();
        if let Some(counts) = &self.counts {
            whole["counts"] = json!(counts);
        }
        whole["complete"] = json!(self.is_complete);
        whole
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
            let micros = |quantile| talked.latency.value_at_quantile(quantile) as f64 / 1000.0;
            let (p50, p99, max) = (
                micros(0.5),
                micros(0.99),
                talked.latency.max() as f64 / 1000.0,
            );
            let per_sec = talked.received as f64 / talked.took.as_secs_f64();
            report.text += &format!(
                "unicast      {} of {} messages arrived in {:.2} s, {per_sec:.0}/s, {in_flight} in flight\n\
                 latency      p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us\n",
                talked.received,
                talked.sent,
                talked.took.as_secs_f64()
            );
            report.fields["unicast"] = json!({
                "sent": talked.sent, "received": talked.received, "per_sec": per_sec,
                "secs": talked.took.as_secs_f64(), "p50_us": p50, "p99_us": p99, "max_us": max,
            });
            report.is_complete &= talked.received == u64::from(messages);
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Chat {
            common,
            rate,
            connect_rate,
            drain_secs,
            history,
        } => {
            if !common.connections.is_multiple_of(2) {
                return Err("pairs chat: --connections must be even".into());
            }
            let chats = Chats::new(history.as_deref())
                .map_err(|e| format!("cannot write the history: {e}"))?;
            let mut plan = common.plan(connect_rate, &format!("chat-{:08x}-", chats.run))?;
            plan.chats = Some(Arc::new(chats));
            let (mut crowd, mut report) = gather(plan)?;
            let drain = Duration::from_secs(drain_secs);
            let chatted = crowd.chat(rate, common.patience(), drain)?;
            tell_chats(&chatted, rate, &mut report);
            finish(&mut crowd, &mut report)?;
            Ok(report)
        }
        What::Check { history, .. } => {
            let told = |e: &dyn std::fmt::Display| format!("{}: {e}", history.display());
            let file = File::open(&history).map_err(|e| told(&e))?;
            let lines = BufReader::with_capacity(1 << 20, file);
            let verdict = throng_history::judge(lines).map_err(|e| told(&e))?;
            Ok(Report {
                text: format!("{verdict}\n"),
                fields: json!({ "history": verdict, "lossRateBelow": verdict.loss_rate_below() }),
                counts: None,
                is_complete: verdict.is_clean(),
            })
        }
    }
}

fn tell_chats(chatted: &Chatted, rate: f64, report: &mut Report) {
    let tally = &chatted.tally;
    let (issued, secs) = (chatted.issued, chatted.took.as_secs_f64());
    report.text += &format!(
        "chat         {issued} messages, {rate}/s, in {secs:.2} s: {} stored, {} delivered, {} told of\n\
         sent         {} times: {} known already, {} refused, {} not answered; {} given up\n\
         received     {} again, {} foreign; {} acknowledged, {} answered; {} gaps, {} comebacks\n",
        tally.confirmed,
        tally.delivered,
        tally.noticed,
        tally.attempts,
        tally.dups,
        tally.refused.values().sum::<u64>(),
        tally.unknown,
        tally.given_up,
        tally.repeated,
        tally.foreign,
        tally.acks,
        tally.answers,
        tally.gaps,
        tally.comebacks,
    );
    for (code, count) in &tally.refused {
        report.text += &format!("refused      {count} with {code}\n");
    }
    let mut latencies = json!({});
    for (name, histogram) in [
        ("stored (0)", &tally.to_stored),
        ("received (2)", &tally.to_delivered),
        ("told (17)", &tally.to_noticed),
    ] {
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let (p50, p99, p999) = (micros(0.5), micros(0.99), micros(0.999));
        let max = histogram.max() as f64 / 1000.0;
        report.text += &format!(
            "{name:<12} p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us, max {max:.0} us\n"
        );
        latencies[name] = json!({ "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max });
    }
    report.fields["chat"] = json!({
        "issued": issued, "secs": secs, "settled": chatted.is_settled,
        "attempts": tally.attempts, "confirmed": tally.confirmed, "dups": tally.dups,
        "refused": tally.refused, "given_up": tally.given_up, "unknown": tally.unknown,
        "delivered": tally.delivered, "repeated": tally.repeated, "foreign": tally.foreign,
        "acks": tally.acks, "answers": tally.answers, "noticed": tally.noticed,
        "gaps": tally.gaps, "comebacks": tally.comebacks, "latencies": latencies,
    });
    report.is_complete &= chatted.is_settled && tally.given_up == 0;
}

fn gather(plan: Plan) -> Result<(Crowd, Report), Failed> {
    let clients = plan.clients;
    // At the slowest: as long as the rate takes, or 200 a second, and a handshake's time.
    let slowest = clients as f64 / plan.rate.unwrap_or(200.0).max(0.001);
    let patience = Duration::from_secs_f64(slowest.min(1e6) * 1.1) + plan.handshake_patience;
    let mut crowd = Crowd::gather(plan)?;
    let Opened { took, open, limit } = crowd.open(clients, patience)?;
    let per_sec = open as f64 / took.as_secs_f64();
    let mut text = format!(
        "connected    {open} of {clients} in {:.2} s, {per_sec:.0}/s\n",
        took.as_secs_f64()
    );
    if let Some(limit) = limit {
        text += &format!("host limit   {limit}\n");
    }
    let fields = json!({
        "connect": {
            "wanted": clients, "open": open, "secs": took.as_secs_f64(), "per_sec": per_sec,
            "host_limit": limit.map(|limit| limit.to_string()),
        }
    });
    let counts = crowd.counts()?;
    Ok((
        crowd,
        Report {
            text,
            fields,
            counts: Some(counts),
            is_complete: open == clients as u64,
        },
    ))
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
    let counts = crowd.counts()?;
    report.text += &format!("{counts}\n");
    report.counts = Some(counts);
    Ok(())
}
