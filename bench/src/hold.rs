//! One gateway process holds a crowd with heartbeats on, and one broadcast reaches all of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use throng_loadtest::Crowd;
use throng_loadtest::plan::local_ports;

use crate::process::{CpuSample, anonymous_bytes};
use crate::server::{Server, build_throng};
use crate::{Failed, machine};

const SETTLES: Duration = Duration::from_secs(3);
const BROADCAST_PATIENCE: Duration = Duration::from_secs(180);

#[derive(Args)]
pub struct Hold {
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    connections: u32,
    /// Reactors of the gateway; as many as the descriptor limit asks for where it is not given.
    #[arg(long)]
    reactors: Option<usize>,
    /// Silence after which the gateway pings.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=120))]
    ping_secs: u32,
    /// How long to hold: long enough for everybody to be pinged.
    #[arg(long, default_value_t = 30)]
    secs: u64,
    /// New connections a second; as fast as they are answered where it is not given.
    #[arg(long)]
    rate: Option<f64>,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
}

/// True if all were connected, stayed, and were reached.
pub fn hold(hold: Hold) -> Result<bool, Failed> {
    let clients = hold.connections as usize;
    let binary = hold.throng.map_or_else(build_throng, Ok)?;
    let limit = throng::sys::raise_descriptor_limit()? as usize;
    // The gateway's own default cap: 0.95 of each file table, less a reserve of 256.
    let per_reactor = (limit.saturating_sub(256) * 95 / 100).max(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let reactors = hold
        .reactors
        .unwrap_or(clients.div_ceil(per_reactor).max(cores));
    let ping = hold.ping_secs.to_string();
    let mut server = Server::throng(&binary, reactors, &["--ping-secs", &ping])?;
    let mut plan = server.plan(clients)?;
    plan.rate = hold.rate;
    println!("{}", machine::line());
    println!(
        "gateway      1 process, {reactors} reactors, {limit} descriptors a file table, a ping after {ping} s"
    );
    println!(
        "clients      1 process, {} threads, {} source addresses, {} local ports each",
        plan.threads,
        plan.sources.len().max(1),
        local_ports()
    );
    for (name, path) in [
        ("somaxconn", "/proc/sys/net/core/somaxconn"),
        ("conntrack", "/proc/sys/net/netfilter/nf_conntrack_count"),
    ] {
        let value = std::fs::read_to_string(path).unwrap_or_else(|_| "none".to_owned());
        println!("{name:<12} {}", value.trim());
    }

    let mut crowd = Crowd::gather(plan)?;
    std::thread::sleep(SETTLES);
    let empty = anonymous_bytes(server.pid())?;
    let before = CpuSample::take(server.pid())?;
    let patience = hold
        .rate
        .map_or(0.0, |rate| clients as f64 / rate.max(0.001))
        + 120.0;
    let opened = crowd.open(clients, Duration::from_secs_f64(patience.min(1e6)))?;
    let used = before.used_until(&CpuSample::take(server.pid())?);
    let secs = opened.took.as_secs_f64();
    println!(
        "connected    {} of {clients} in {secs:.1} s, {:.0}/s, {:.1} us of server CPU each",
        opened.open,
        opened.open as f64 / secs,
        used.nanos as f64 / 1e3 / clients as f64
    );
    if let Some(limit) = opened.limit {
        println!("host limit   {limit}");
    }
    std::thread::sleep(SETTLES);
    let full = anonymous_bytes(server.pid())?;
    let each = full.saturating_sub(empty) as f64 / opened.open.max(1) as f64;
    println!("memory       {each:.0} bytes of user space (RssAnon) a connection, {full} in all");

    let pings = crowd.counts()?.pings_answered;
    let before = CpuSample::take(server.pid())?;
    std::thread::sleep(Duration::from_secs(hold.secs));
    let used = before.used_until(&CpuSample::take(server.pid())?);
    let counts = crowd.counts()?;
    println!(
        "held         {} s, {} pings answered, {:.2} % of a core, {} still open",
        hold.secs,
        counts.pings_answered - pings,
        used.nanos as f64 / 1e7 / hold.secs.max(1) as f64,
        counts.open
    );

    let heard = crowd.hear(1, BROADCAST_PATIENCE, |bodies| server.push(bodies))?;
    let millis = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
    println!(
        "broadcast    reached {} of {clients}: the first after {:.1} ms, the last after {:.1} ms",
        heard.delivered,
        millis(heard.first),
        millis(heard.last)
    );
    let counts = crowd.leave()?;
    println!("{counts}");
    let everybody = u64::from(hold.connections);
    Ok(heard.delivered == everybody && counts.open == everybody)
}
