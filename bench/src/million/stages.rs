//! The parts of the run, one after the other, each with what it came to.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::clients::{Arrived, Chatted, Child, Counted, Reached};
use super::host::{Look, Settings, Watch};
use super::{Million, reactors};
use crate::Failed;
use crate::server::Server;
use throng_loadtest::host::Host;
use throng_loadtest::process::{CpuSample, anonymous_bytes};
use throng_loadtest::slab::Slab;

const SETTLES: Duration = Duration::from_secs(3);
const GONE_PATIENCE: Duration = Duration::from_secs(120);
/// Memory that is left alone on the way to more.
const SPARED_BYTES: u64 = 1 << 30;
/// Source addresses of clients that were killed are not used again: that many are passed over.
const OTHER_SOURCES: u32 = 1000;
/// Connections that are opened between two looks at the memory.
const STEP: usize = 100_000;

#[derive(Serialize)]
pub struct Results {
    pub machine: String,
    pub settings: Settings,
    pub throng: Option<Held>,
    pub idle: Option<Idle>,
    pub broadcast: Option<(Reached, f64)>,
    pub chats: Option<(Chatted, f64)>,
    pub kill: Option<Killed>,
    pub again: Option<Arrival>,
    pub calm: Option<Idle>,
    pub worst_turns: Vec<(&'static str, f64)>,
    pub floor: Option<Held>,
    pub floor_idle: Option<Idle>,
    pub beyond: Option<Beyond>,
    pub looks: Vec<Look>,
    /// What went wrong, if anything did.
    pub ended_by: Option<String>,
    pub troubles: Vec<String>,
}

/// A crowd that has come.
#[derive(Clone, Serialize)]
pub struct Held {
    pub wanted: u64,
    pub reactors: usize,
    pub arrival: Arrival,
    /// The server's RssAnon before and after.
    pub empty_bytes: u64,
    pub full_bytes: u64,
    /// The same of the client process.
    pub own_empty_bytes: u64,
    pub own_full_bytes: u64,
    /// Growth of everything that is used, both ends and both processes.
    pub all_bytes: u64,
    /// Growth of the kernel's slab memory, both ends: the caches that have something for each
    /// connection. None where it may not be read.
    pub slabs: BTreeMap<String, u64>,
}

#[derive(Clone, Serialize)]
pub struct Arrival {
    pub arrived: Arrived,
    pub server_micros_each: f64,
}

#[derive(Clone, Serialize)]
pub struct Idle {
    pub secs: f64,
    /// Share of one core.
    pub cpu: f64,
    pub pings: u64,
    pub open: u64,
}

#[derive(Clone, Serialize)]
pub struct Killed {
    /// Until the server had no connection any more.
    pub gone_secs: f64,
    pub server_micros_each: f64,
    /// The server's RssAnon afterwards.
    pub left_bytes: u64,
}

#[derive(Clone, Serialize)]
pub struct Beyond {
    pub held: Held,
    pub idle: Idle,
    pub broadcast: Reached,
    /// Why it went no further, if it did not get there.
    pub stopped_by: Option<String>,
    pub available_bytes: u64,
}

impl Results {
    pub fn new(machine: String, settings: Settings) -> Results {
        Results {
            machine,
            settings,
            throng: None,
            idle: None,
            broadcast: None,
            chats: None,
            kill: None,
            again: None,
            calm: None,
            worst_turns: Vec::new(),
            floor: None,
            floor_idle: None,
            beyond: None,
            looks: Vec::new(),
            ended_by: None,
            troubles: Vec::new(),
        }
    }

    /// Everybody was connected, reached and served.
    pub fn is_complete(&self) -> bool {
        let came = |held: &Option<Held>| {
            held.as_ref()
                .is_some_and(|held| held.arrival.arrived.open == held.wanted)
        };
        let reached = self.broadcast.as_ref();
        let chats = self.chats.as_ref();
        let wanted = self.throng.as_ref().map(|held| held.wanted);
        self.ended_by.is_none()
            && came(&self.throng)
            && self.idle.as_ref().map(|idle| idle.open) == wanted
            && reached.is_some_and(|(r, _)| r.delivered == r.expected)
            && chats.is_some_and(|(c, _)| [c.confirmed, c.delivered, c.noticed] == [c.issued; 3])
            && self.again.as_ref().map(|again| again.arrived.open) == wanted
    }
}

/// A server and its clients, measured while something happens.
struct Pair {
    server: Server,
    clients: Child,
    wanted: u64,
}

impl Pair {
    fn new(server: Server, listeners: usize, chatters: usize) -> Result<Pair, Failed> {
        Self::from_sources(server, listeners, chatters, 0)
    }

    fn from_sources(
        server: Server,
        listeners: usize,
        chatters: usize,
        sources_from: u32,
    ) -> Result<Pair, Failed> {
        let clients = Child::start(&server, listeners, chatters, sources_from)?;
        let wanted = (listeners + chatters) as u64;
        Ok(Pair {
            server,
            clients,
            wanted,
        })
    }

    /// The server's CPU nanoseconds while `act` goes on.
    fn spent<T>(
        &mut self,
        act: impl FnOnce(&mut Pair) -> Result<T, Failed>,
    ) -> Result<(T, f64), Failed> {
        let before = CpuSample::take(self.server.pid())?;
        let result = act(self)?;
        let used = before.used_until(&CpuSample::take(self.server.pid())?);
        Ok((result, used.nanos as f64))
    }

    fn arrive(&mut self, listeners: usize) -> Result<Arrival, Failed> {
        let (arrived, nanos) = self.spent(|pair| pair.clients.open(listeners))?;
        let server_micros_each = nanos / 1e3 / arrived.open.max(1) as f64;
        Ok(Arrival {
            arrived,
            server_micros_each,
        })
    }

    /// Has everybody come, as `arrive` does it.
    fn hold(
        &mut self,
        reactors: usize,
        arrive: impl FnOnce(&mut Pair) -> Result<Arrival, Failed>,
    ) -> Result<Held, Failed> {
        std::thread::sleep(SETTLES);
        let (empty_bytes, own_empty_bytes) = self.memory()?;
        let (slab_before, available_before) = (Slab::read(), available());
        let arrival = arrive(self)?;
        std::thread::sleep(SETTLES);
        let (full_bytes, own_full_bytes) = self.memory()?;
        Ok(Held {
            wanted: self.wanted,
            reactors,
            arrival,
            empty_bytes,
            full_bytes,
            own_empty_bytes,
            own_full_bytes,
            all_bytes: available_before.saturating_sub(available()),
            slabs: grown(slab_before, self.wanted),
        })
    }

    fn memory(&mut self) -> Result<(u64, u64), Failed> {
        let own = self.clients.counts()?.own_bytes;
        Ok((anonymous_bytes(self.server.pid())?, own))
    }

    fn idle(&mut self, secs: u64) -> Result<Idle, Failed> {
        let before = self.clients.counts()?;
        let began = Instant::now();
        let ((), nanos) = self.spent(|_| {
            std::thread::sleep(Duration::from_secs(secs));
            Ok(())
        })?;
        let passed = began.elapsed();
        let after: Counted = self.clients.counts()?;
        Ok(Idle {
            secs: passed.as_secs_f64(),
            cpu: nanos / passed.as_nanos() as f64,
            pings: after.pings_answered - before.pings_answered,
            open: after.open,
        })
    }

    /// Kills the clients, waits until the server has noticed all of it, and starts new ones.
    fn kill(self) -> Result<(Pair, Killed), Failed> {
        let Pair {
            mut server,
            clients,
            wanted,
        } = self;
        let before = CpuSample::take(server.pid())?;
        let began = Instant::now();
        drop(clients);
        while server.metric("throng_connections")? > 0.0 {
            if began.elapsed() > GONE_PATIENCE {
                return Err("the server still has connections of clients that were killed".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let gone_secs = began.elapsed().as_secs_f64();
        let used = before.used_until(&CpuSample::take(server.pid())?);
        std::thread::sleep(SETTLES);
        let killed = Killed {
            gone_secs,
            server_micros_each: used.nanos as f64 / 1e3 / wanted as f64,
            left_bytes: anonymous_bytes(server.pid())?,
        };
        let pair = Pair::from_sources(server, wanted as usize, 0, OTHER_SOURCES)?;
        Ok((pair, killed))
    }
}

fn grown(before: Option<Slab>, connections: u64) -> BTreeMap<String, u64> {
    let growth = before.zip(Slab::read());
    let growth = growth.and_then(|(before, now)| before.growth(&now, connections));
    growth.unwrap_or_default()
}

/// Bytes of memory that the host could give.
fn available() -> u64 {
    Host::read().available_bytes.unwrap_or(0)
}

fn say(what: &str) {
    eprintln!("{what}");
}

/// The crowd on a node: it comes, is idle, hears a broadcast, chats, is killed and comes back.
pub fn crowd(million: &Million, binary: &Path, results: &mut Results) -> Result<(), Failed> {
    let (listeners, chatters) = (million.connections as usize, million.chatters as usize);
    let reactors = reactors(listeners + chatters)?;
    let ping = |secs: u32, idle: u32| format!("ping_secs = {secs}\nidle_secs = {idle}");
    let patience = million.ping_secs * 3 + 30;
    let server = Server::configured(binary, reactors, &ping(million.ping_secs, patience))?;
    let mut pair = Pair::new(server, listeners, chatters)?;
    let watch = Watch::start(pair.server.pid(), pair.clients.pid());

    say("everybody comes");
    let held = pair.hold(reactors, |pair| pair.arrive(listeners))?;
    results.throng = Some(held);
    note_turn(&mut pair, "everybody comes", results)?;
    say("idle, with pings");
    results.idle = Some(pair.idle(million.idle_secs)?);
    note_turn(&mut pair, "idle", results)?;
    say("a broadcast");
    let (reached, nanos) = pair.spent(|pair| pair.clients.broadcast())?;
    results.broadcast = Some((reached, nanos / 1e3));
    note_turn(&mut pair, "broadcast", results)?;
    say("chats");
    let (rate, secs) = (million.chat_rate, million.chat_secs);
    let (chatted, nanos) = pair.spent(|pair| pair.clients.chat(rate, secs))?;
    results.chats = Some((chatted, nanos / 1e3));
    note_turn(&mut pair, "chats", results)?;
    results.troubles = pair.clients.counts()?.troubles;
    results.looks = watch.looks();

    say("all clients are killed");
    let (mut pair, killed) = pair.kill()?;
    results.kill = Some(killed);
    note_turn(&mut pair, "all are killed", results)?;
    say("everybody comes back");
    let all = pair.wanted as usize;
    results.again = Some(pair.arrive(all)?);
    note_turn(&mut pair, "everybody comes back", results)?;
    say("idle, without pings");
    pair.server.reload(&ping(0, 0))?;
    // Entries of the wheel that were armed before come due once more.
    std::thread::sleep(Duration::from_secs(u64::from(million.ping_secs) + 5));
    results.calm = Some(pair.idle(million.calm_secs)?);
    results.troubles.extend(pair.clients.counts()?.troubles);
    Ok(())
}

fn note_turn(pair: &mut Pair, after: &'static str, results: &mut Results) -> Result<(), Failed> {
    let secs = pair.server.metric("throng_turn_worst_seconds")?;
    results.worst_turns.push((after, secs * 1e3));
    Ok(())
}

/// The same crowd on the floor, with as many pings.
pub fn floor(million: &Million, results: &mut Results) -> Result<(), Failed> {
    say("the floor");
    let listeners = million.connections as usize;
    let reactors = reactors(listeners)?;
    let server = Server::floor(reactors, million.ping_secs)?;
    let mut pair = Pair::new(server, listeners, 0)?;
    results.floor = Some(pair.hold(reactors, |pair| pair.arrive(listeners))?);
    results.floor_idle = Some(pair.idle(million.calm_secs)?);
    results.troubles.extend(pair.clients.counts()?.troubles);
    Ok(())
}

/// More, in steps, as long as there is memory for another one.
pub fn beyond(million: &Million, binary: &Path, results: &mut Results) -> Result<(), Failed> {
    say("further");
    let wanted = million.toward as usize;
    let reactors = reactors(wanted)?;
    let server = Server::configured(
        binary,
        reactors,
        &format!("ping_secs = {}", million.ping_secs),
    )?;
    let mut pair = Pair::new(server, wanted, 0)?;
    let mut stopped_by = None;
    let held = pair.hold(reactors, |pair| {
        let before = available();
        let (mut asked, mut open, mut secs, mut micros) = (0, 0, 0.0, 0.0);
        while asked < wanted && stopped_by.is_none() {
            let left = available();
            let each = before.saturating_sub(left) / open.max(1);
            if left < each * STEP as u64 + SPARED_BYTES {
                stopped_by = Some(format!(
                    "memory: {} MiB were left, and another {STEP} take {} MiB",
                    left >> 20,
                    (each * STEP as u64) >> 20
                ));
                break;
            }
            asked = (asked + STEP).min(wanted);
            let step = pair.arrive(asked)?;
            open = step.arrived.open;
            secs += step.arrived.secs;
            micros += step.server_micros_each * open as f64;
            // Each thread opens its part: a few of a step may come with the next one.
            let counts = pair.clients.counts()?;
            if step.arrived.limit.is_some() || !counts.troubles.is_empty() {
                let limit = step.arrived.limit;
                stopped_by = Some(limit.unwrap_or_else(|| counts.troubles.join("; ")));
            }
        }
        Ok(Arrival {
            arrived: Arrived {
                open,
                secs,
                limit: None,
            },
            server_micros_each: micros / open.max(1) as f64,
        })
    })?;
    let idle = pair.idle(million.calm_secs)?;
    let broadcast = pair.clients.broadcast()?;
    results.beyond = Some(Beyond {
        held,
        idle,
        broadcast,
        stopped_by,
        available_bytes: available(),
    });
    Ok(())
}
