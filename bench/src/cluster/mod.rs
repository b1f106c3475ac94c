//! What a cluster costs: nodes of Throng over a Redis, beside Socket.IO and Nchan.
//!
//! Rooms: `redis`, `nodes` and `peers` are processes; `dialect` is how each is spoken to, `volley`
//! the client that does it; `unicast`, `stored` and `crowds` are the cases; `table` shows what
//! came of them.

mod crowds;
mod dialect;
mod nodes;
mod peers;
mod redis;
mod stored;
mod table;
mod unicast;
mod volley;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use throng_loadtest::Flow;

use crate::server::build_throng;
use crate::{Failed, machine};
use unicast::{Contender, Sizes};

/// Connected, half of them on each of two nodes: one file table has room for more.
const USERS: usize = 20_000;
const BROADCASTS: u32 = 10;

#[derive(Args)]
pub struct Cluster {
    /// Seconds that each case lasts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    secs: u64,
    /// Times that direct messages are measured, by all servers in turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Those who send direct messages, and as many who receive them.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pairs: u32,
    /// Direct messages that are on their way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=5000))]
    in_flight: u32,
    /// Chats a second that are due, whatever becomes of those before; may be repeated.
    #[arg(long, default_values_t = [2000.0, 4000.0, 6000.0, 8000.0])]
    rate: Vec<f64>,
    /// Chats that are on their way at once, where another one leaves when one has come through.
    #[arg(long, default_value_t = 256)]
    chats_in_flight: u32,
    /// Direct messages only.
    #[arg(long)]
    unicast_only: bool,
    /// Goes without Socket.IO and Nchan.
    #[arg(long)]
    no_peers: bool,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
    /// Writes all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// True if nothing of what was stored was lost.
pub fn cluster(cluster: Cluster) -> Result<bool, Failed> {
    let binary = cluster.throng.clone().map_or_else(build_throng, Ok)?;
    let (machine, load) = (machine::line(), machine::load());
    println!("{machine}; load average {load} at the start\n");

    let unicasts = unicasts(&binary, &cluster)?;
    let unicast_table = table::Unicasts(&unicasts);
    println!("{unicast_table}");
    if let Some((_, runs)) = unicasts.first() {
        println!("{}", table::Threads(runs));
    }
    match unicast_table.shortfall() {
        None => println!("The target for direct messages is reached.\n"),
        Some(short) => println!("Short of its target: {short}.\n"),
    }
    let mut whole = json!({ "machine": machine, "load": load, "unicast": unicasts });
    let mut is_complete = true;
    if !cluster.unicast_only {
        let chats = chats(&binary, &cluster)?;
        println!("{}", table::Chats(&chats));
        for row in chats.iter().filter(|row| !row.is_complete()) {
            println!("Not all came through: {row:?}\n");
            is_complete = false;
        }
        let directory = crowds::directory(&binary, USERS)?;
        println!("{directory}");
        let broadcast = crowds::broadcast(&binary, BROADCASTS)?;
        println!("{broadcast}");
        whole["chats"] = json!(chats);
        whole["directory"] = json!(directory);
        whole["broadcast"] = json!(broadcast);
    }
    if let Some(path) = cluster.json {
        std::fs::write(&path, format!("{whole:#}\n"))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(is_complete)
}

/// All servers at once, each with its own clients, which work in turns: what disturbs the machine
/// disturbs all.
fn unicasts(
    binary: &Path,
    cluster: &Cluster,
) -> Result<Vec<(&'static str, Vec<unicast::Figures>)>, Failed> {
    let sizes = Sizes {
        pairs: cluster.pairs as usize,
        in_flight: cluster.in_flight as usize,
        lasts: Duration::from_secs(cluster.secs),
    };
    let mut contenders = vec![Contender::throng(binary, sizes)?];
    if !cluster.no_peers {
        contenders.push(Contender::socket_io(sizes)?);
        contenders.push(Contender::nchan(sizes)?);
    }
    for run in 1..=cluster.runs {
        eprintln!("direct messages, run {run} of {}", cluster.runs);
        for contender in &mut contenders {
            contender.run(sizes)?;
        }
    }
    let done = contenders.into_iter();
    Ok(done.map(|done| (done.name, done.runs)).collect())
}

fn chats(binary: &Path, cluster: &Cluster) -> Result<Vec<stored::Figures>, Failed> {
    let open = cluster.rate.iter().map(|&rate| Flow::PerSec(rate));
    let closed = Flow::InFlight(cluster.chats_in_flight);
    let row = |flow| {
        eprintln!("chats: {flow:?}");
        stored::run(binary, flow, Duration::from_secs(cluster.secs))
    };
    open.chain([closed]).map(row).collect()
}

/// The middle one, or between the two that are.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    (at(last / 2) + at(last.div_ceil(2))) / 2.0
}
