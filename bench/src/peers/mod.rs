//! Other people's servers in the gateway's place: each beside the floor, with the same crowd.
//!
//! Rooms: `kinds` is who is measured and how they are started; `table` sets them side by side.
//! Invariants: whoever is not measured is named, with the reason.

mod kinds;
mod table;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::measure::{self, Pair, Sizes};
use crate::server::{Server, build_throng};
use crate::{Failed, machine};
use kinds::{KINDS, Kind, Setting};
use table::{Measured, Missing, Peered};

#[derive(Args)]
pub struct Peers {
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    connections: u32,
    /// Times that every server is started and measured beside the floor.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Fewer broadcasts and messages: noisier.
    #[arg(long)]
    quick: bool,
    /// Measures this server alone, by its name in the table; may be repeated.
    #[arg(long)]
    only: Vec<String>,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
    /// Writes peers.md, peers-short.md, peers.json and the plots into this directory.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// True if every server was measured that was to be.
pub fn peers(peers: Peers) -> Result<bool, Failed> {
    let chosen = choose(&peers.only)?;
    // Not every server does so itself; they inherit it.
    throng::sys::raise_descriptor_limit()?;
    let binary = peers.throng.map_or_else(build_throng, Ok)?;
    let setting = Setting {
        throng: &binary,
        connections: peers.connections as usize,
    };
    let sizes = Sizes {
        connections: setting.connections,
        broadcasts: if peers.quick { 2 } else { 8 },
        rounds: if peers.quick { 1 } else { 3 },
        messages: if peers.quick { 10_000 } else { 40_000 },
    };
    let (machine, date, load) = (machine::line(), machine::date(), machine::load());
    let mut measured = Vec::new();
    let mut missing = Vec::new();
    for kind in chosen {
        match kind.version() {
            Ok(version) => measured.push(Measured::new(kind, version)),
            Err(reason) => missing.push(Missing::new(kind, reason)),
        }
    }
    for run in 1..=peers.runs {
        for server in &mut measured {
            eprintln!("run {run} of {}: {}", peers.runs, server.name);
            match beside_the_floor(server.kind, &setting, sizes) {
                Ok(pair) => server.pairs.push(pair),
                // The others are worth measuring all the same.
                Err(error) => missing.push(Missing::in_run(server.kind, run, &*error)),
            }
        }
    }
    let head = format!(
        "{machine}; {date}; {} connections of each server, runs: {}; load average {load} at the start",
        sizes.connections, peers.runs
    );
    let peered = Peered {
        head,
        measured,
        missing,
    };
    println!("{peered}");
    if let Some(dir) = peers.out {
        write(&dir, &peered)?;
    }
    Ok(peered.missing.is_empty())
}

fn choose(only: &[String]) -> Result<Vec<&'static Kind>, Failed> {
    let known = |name: &&String| KINDS.iter().any(|kind| kind.name == name.as_str());
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
        return Err(format!("{unknown:?} is none of: {}", names.join("; ")).into());
    }
    let is_chosen = |kind: &&Kind| only.is_empty() || only.iter().any(|name| name == kind.name);
    Ok(KINDS.iter().filter(is_chosen).collect())
}

fn beside_the_floor(kind: &Kind, setting: &Setting, sizes: Sizes) -> Result<Pair, Failed> {
    let pair = measure::run(Server::floor(1, 0)?, (kind.start)(setting)?, sizes)?;
    for note in &pair.server.notes {
        eprintln!("  {note}");
    }
    Ok(pair)
}

fn write(dir: &Path, peered: &Peered) -> Result<(), Failed> {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
    };
    std::fs::create_dir_all(dir)?;
    write("peers.md", peered.to_string())?;
    write("peers-short.md", peered.short())?;
    write("peers.json", format!("{:#}\n", peered.json()))?;
    for (name, chart) in peered.charts() {
        write(&format!("peers-{name}.svg"), chart.svg()?)?;
    }
    Ok(())
}
