//! `throng-bench`: what Throng costs, beside a server of nothing but system calls.
//!
//! Rooms: `floor` and `canned` are that server; `server` starts it or a Throng node as a child;
//! `measure` is one run of both in turns; `table` sets the runs side by side; `million` is the
//! large crowd; `chats` are messages that are stored; `cluster` is several nodes; `peers` are other
//! people's servers in the gateway's place, `peer` one of their processes and `posts` how it is
//! pushed to; `plot` draws; `parse` runs in this process; `machine` says where.

mod canned;
mod chats;
mod cluster;
mod floor;
mod machine;
mod measure;
mod million;
mod parse;
mod peer;
mod peers;
mod plot;
mod posts;
mod server;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use measure::Sizes;
use server::{Server, build_throng};
use table::{Table, parse_table};

type Failed = Box<dyn std::error::Error>;

/// What Throng costs in memory and CPU time, beside a server of nothing but system calls.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    all: All,
}

#[derive(Subcommand)]
enum What {
    /// One gateway process and one client process: a crowd of a million that comes, is idle, hears
    /// a broadcast, chats, is killed and comes back; beside it the floor.
    Million(million::Million),
    /// Chats with all six packets, with each store.
    Chat(chats::Chat),
    /// Nodes over a Redis, beside Socket.IO and Nchan.
    Cluster(cluster::Cluster),
    /// Other people's servers beside the floor and Throng: what scripts/peers.sh has installed.
    Peers(peers::Peers),
    /// A node that opens a store of many entries.
    OpenStore(chats::OpenStore),
    /// The parser alone: simd-json beside serde_json.
    Parse,
    /// The floor itself, until it is killed: what the other commands start as a child.
    Floor {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        #[arg(long, default_value_t = 1, value_parser = reactors)]
        reactors: usize,
        /// Each connection is pinged so often; 0 for never.
        #[arg(long, default_value_t = 0)]
        ping_secs: u32,
    },
    /// The clients of the million, which do what their standard input says.
    #[command(hide = true)]
    Clients(million::Clients),
}

#[derive(Args)]
struct All {
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    connections: u32,
    /// Times that both servers are started and measured.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Reactors of both servers. One leaves the client a core of its own on a machine of two.
    #[arg(long, default_value_t = 1, value_parser = reactors)]
    reactors: usize,
    /// Fewer broadcasts and messages: seconds instead of minutes, and noisier.
    #[arg(long)]
    quick: bool,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
    /// Writes all figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn reactors(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err("1 to 1000 reactors".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.what {
        None => all(cli.all),
        Some(What::Million(million)) => million::million(million),
        Some(What::Clients(clients)) => million::serve(clients),
        Some(What::Chat(chat)) => chats::chat(chat),
        Some(What::Cluster(cluster)) => cluster::cluster(cluster),
        Some(What::Peers(peers)) => peers::peers(peers),
        Some(What::OpenStore(open)) => chats::open_store(open),
        Some(What::Parse) => {
            print!("{}", parse_table(&parse::rows(Duration::from_millis(200))));
            Ok(true)
        }
        Some(What::Floor {
            listen,
            reactors,
            ping_secs,
        }) => floor::serve(listen, reactors, ping_secs)
            .map(|()| true)
            .map_err(Failed::from),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("throng-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// The whole table. A target that was missed is said, and is no failure of the bench.
fn all(all: All) -> Result<bool, Failed> {
    let binary = all.throng.map_or_else(build_throng, Ok)?;
    let sizes = Sizes {
        connections: all.connections as usize,
        broadcasts: if all.quick { 4 } else { 20 },
        rounds: if all.quick { 3 } else { 10 },
        messages: if all.quick { 40_000 } else { 200_000 },
    };
    let mut pairs = Vec::new();
    let load = machine::load();
    for number in 1..=all.runs {
        eprintln!("run {number} of {}", all.runs);
        let floor = Server::floor(all.reactors, 0)?;
        let throng = Server::throng(&binary, all.reactors, &[])?;
        let pair = measure::run(floor, throng, sizes)?;
        for note in pair.floor.notes.iter().chain(&pair.server.notes) {
            eprintln!("  {note}");
        }
        pairs.push(pair);
    }
    eprintln!("parse");
    let parsed = parse::rows(Duration::from_millis(if all.quick { 20 } else { 200 }));

    let table = Table::new(&pairs, sizes.connections);
    let machine = machine::line();
    println!(
        "{machine}; {} connections, reactors: {}\n",
        sizes.connections, all.reactors
    );
    println!("{table}\n{}", parse_table(&parsed));
    let shortfalls = table.shortfalls();
    match shortfalls.is_empty() {
        true => println!("All targets are reached."),
        false => println!("Short of its target: {}.", shortfalls.join("; ")),
    }
    if let Some(path) = all.json {
        let runs: Vec<_> = pairs
            .iter()
            .map(|pair| json!({ "floor": pair.floor, "throng": pair.server }))
            .collect();
        let whole = json!({
            "machine": machine, "load": load, "connections": sizes.connections, "reactors": all.reactors,
            "table": table.json(), "parse": parsed, "shortfalls": shortfalls, "runs": runs,
        });
        std::fs::write(&path, format!("{whole:#}\n"))
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(true)
}
