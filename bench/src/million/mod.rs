//! A million: one gateway process and one client process on this machine, from the first
//! connection to the return of everybody who was killed; the same idle crowd on the floor; and
//! then as many as memory allows.
//!
//! Rooms: `clients` is the client process; `host` is what the kernel says meanwhile; `stages` are
//! the parts of the run; `report` writes down what came of them.

mod clients;
mod host;
mod report;
mod stages;

use std::path::PathBuf;

use clap::Args;
use throng::config::Room;

use crate::server::build_throng;
use crate::{Failed, machine};

pub use clients::{Clients, serve};

#[derive(Args)]
pub struct Million {
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=1_040_000))]
    connections: u32,
    /// Clients that chat, besides these.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    chatters: u32,
    /// Chats a second, each with six packets.
    #[arg(long, default_value_t = 1000.0)]
    chat_rate: f64,
    #[arg(long, default_value_t = 30)]
    chat_secs: u64,
    /// Silence after which the gateway pings.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=120))]
    ping_secs: u32,
    /// How long everybody is idle, with pings.
    #[arg(long, default_value_t = 300)]
    idle_secs: u64,
    /// How long everybody is idle without pings, and how long the floor is, with them.
    #[arg(long, default_value_t = 75)]
    calm_secs: u64,
    /// Without the floor.
    #[arg(long)]
    no_floor: bool,
    /// Then as far toward this number as memory allows; 0 for not at all.
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(0..=4_000_000))]
    toward: u32,
    /// Where the report is written, as Markdown, with all figures in a .json beside it.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The gateway's binary; built where it is not given.
    #[arg(long)]
    throng: Option<PathBuf>,
}

/// True if everybody was connected, reached, served and connected again.
pub fn million(million: Million) -> Result<bool, Failed> {
    let binary = million.throng.clone().map_or_else(build_throng, Ok)?;
    let before = host::Settings::read();
    let mut results = stages::Results::new(machine::line(), before);
    let outcome = stages::crowd(&million, &binary, &mut results)
        .and_then(|()| match million.no_floor {
            true => Ok(()),
            false => stages::floor(&million, &mut results),
        })
        .and_then(|()| match million.toward {
            0 => Ok(()),
            _ => stages::beyond(&million, &binary, &mut results),
        });
    if let Err(error) = &outcome {
        results.ended_by = Some(error.to_string());
    }
    let text = report::markdown(&million, &results);
    print!("{text}");
    if let Some(path) = &million.out {
        let write = |path: &std::path::Path, text: &str| {
            std::fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
        };
        write(path, &text)?;
        let json = serde_json::to_string_pretty(&results)?;
        write(&path.with_extension("json"), &format!("{json}\n"))?;
    }
    outcome?;
    Ok(results.is_complete())
}

/// Reactors whose file tables hold so many connections, with the gateway's own margin.
fn reactors(connections: usize) -> Result<usize, Failed> {
    let room = Room::of_this_host(None)?;
    let one = Room {
        reactors: 1,
        ..room
    };
    Ok(connections.div_ceil(one.usual().max(1)).max(room.reactors))
}
