//! One run: the floor and another server side by side, each with its own crowd, in turns so short
//! that whatever disturbs the machine disturbs both.
//!
//! Owns: two servers with everybody connected, of which one idles while the other works.

use std::time::Duration;

use throng_loadtest::Crowd;

use crate::Failed;
use crate::server::Server;
use throng_loadtest::process::{CpuSample, family_bytes};

/// Allocators give pages back after about a second.
const MEMORY_SETTLES: Duration = Duration::from_millis(2500);
/// So that what is still running is over, and asleep when its time is read.
const CPU_SETTLES: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(120);
/// Broadcasts that are queued together.
pub const QUEUED: u32 = 8;
pub const IN_FLIGHT: u32 = 64;
/// Turns in which half of the connections are opened, and the direct messages sent.
const TURNS: u32 = 10;

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub connections: usize,
    /// Broadcasts, one at a time.
    pub broadcasts: u32,
    /// Rounds of [`QUEUED`] broadcasts.
    pub rounds: u32,
    /// Direct messages.
    pub messages: u32,
}

/// Costs of one run: CPU in microseconds, memory in bytes.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Figures {
    /// Between half of the connections and all, each.
    pub bytes_slope: f64,
    /// Between none and all, each.
    pub bytes_mean: f64,
    pub connect: f64,
    pub connects_per_sec: f64,
    pub broadcast: f64,
    pub queued: f64,
    pub unicast: f64,
    pub unicasts_per_sec: f64,
    /// Medians over the turns.
    pub unicast_p50: f64,
    pub unicast_p99: f64,
    /// What else happened that a reader of the figures should know.
    pub notes: Vec<String>,
}

/// The floor and another server, measured in turns.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Pair {
    pub floor: Figures,
    pub server: Figures,
}

pub fn run(floor: Server, server: Server, sizes: Sizes) -> Result<Pair, Failed> {
    let mut sides = [Side::new(floor, sizes)?, Side::new(server, sizes)?];
    connect_and_weigh(&mut sides, sizes.connections)?;
    for (count, rounds) in [(1, sizes.broadcasts), (QUEUED, sizes.rounds)] {
        for round in 0..=rounds {
            for side in in_turn(&mut sides, round) {
                let spent = side.broadcast(count)?;
                // The first round warms up.
                if round > 0 {
                    let cost = if count == 1 {
                        &mut side.broadcast
                    } else {
                        &mut side.queued
                    };
                    cost.add(spent, f64::from(count) * sizes.connections as f64);
                }
            }
        }
    }
    for turn in 0..=TURNS {
        for side in in_turn(&mut sides, turn) {
            side.talk(sizes.messages / TURNS, turn > 0)?;
        }
    }
    let [floor, server] = sides;
    Ok(Pair {
        floor: floor.finish()?,
        server: server.finish()?,
    })
}

fn connect_and_weigh(sides: &mut [Side; 2], all: usize) -> Result<(), Failed> {
    let half = all / 2;
    let mut weights = vec![weigh(sides)?];
    for (from, to) in [(0, half), (half, all)] {
        for turn in 1..=TURNS {
            for side in in_turn(sides, turn) {
                side.open(from + (to - from) * turn as usize / TURNS as usize)?;
            }
        }
        weights.push(weigh(sides)?);
    }
    for (at, side) in sides.iter_mut().enumerate() {
        let [empty, half_full, full] = [0, 1, 2].map(|when: usize| weights[when][at] as f64);
        side.figures.bytes_slope = (full - half_full) / (all - half) as f64;
        side.figures.bytes_mean = (full - empty) / all as f64;
    }
    Ok(())
}

/// Both, each one first in every second turn.
fn in_turn(sides: &mut [Side; 2], turn: u32) -> [&mut Side; 2] {
    let [floor, server] = sides;
    if turn.is_multiple_of(2) {
        [floor, server]
    } else {
        [server, floor]
    }
}

fn weigh(sides: &[Side; 2]) -> Result<[u64; 2], Failed> {
    std::thread::sleep(MEMORY_SETTLES);
    let weigh = |side: &Side| family_bytes(&side.server.pids());
    Ok([weigh(&sides[0])?, weigh(&sides[1])?])
}

/// What something costs, summed over the turns.
#[derive(Clone, Copy, Default)]
struct Cost {
    nanos: f64,
    count: f64,
}

impl Cost {
    fn add(&mut self, nanos: u64, count: f64) {
        self.nanos += nanos as f64;
        self.count += count;
    }

    fn micros_each(self) -> f64 {
        self.nanos / 1e3 / self.count
    }
}

struct Side {
    server: Server,
    crowd: Crowd,
    open: usize,
    opening_took: Duration,
    talking_took: Duration,
    connect: Cost,
    broadcast: Cost,
    queued: Cost,
    unicast: Cost,
    p50: Vec<f64>,
    p99: Vec<f64>,
    threads_ended: usize,
    figures: Figures,
}

impl Side {
    fn new(server: Server, sizes: Sizes) -> Result<Side, Failed> {
        Ok(Side {
            crowd: Crowd::gather(server.plan(sizes.connections)?)?,
            server,
            open: 0,
            opening_took: Duration::ZERO,
            talking_took: Duration::ZERO,
            connect: Cost::default(),
            broadcast: Cost::default(),
            queued: Cost::default(),
            unicast: Cost::default(),
            p50: Vec::new(),
            p99: Vec::new(),
            threads_ended: 0,
            figures: Figures::default(),
        })
    }

    fn open(&mut self, until: usize) -> Result<(), Failed> {
        let before = self.sample()?;
        let opened = self.crowd.open(until, PATIENCE)?;
        let spent = self.spent_since(&before)?;
        if opened.open != until as u64 {
            let limit = opened
                .limit
                .map(|limit| format!("; {limit}"))
                .unwrap_or_default();
            let counts = self.crowd.counts()?;
            return Err(format!("{} of {until} connected{limit}\n{counts}", opened.open).into());
        }
        self.connect.add(spent, (until - self.open) as f64);
        self.opening_took += opened.took;
        self.open = until;
        Ok(())
    }

    /// CPU nanoseconds that `count` broadcasts cost, pushed together, until all have heard them.
    fn broadcast(&mut self, count: u32) -> Result<u64, Failed> {
        let before = self.sample()?;
        let server = &mut self.server;
        let heard = self
            .crowd
            .hear(count, PATIENCE, |bodies| server.push(bodies))?;
        if heard.is_complete() && heard.listeners == self.open as u64 {
            return self.spent_since(&before);
        }
        let counts = self.crowd.counts()?;
        Err(format!(
            "{} of {} deliveries\n{counts}",
            heard.delivered,
            heard.expected()
        )
        .into())
    }

    fn talk(&mut self, messages: u32, counts: bool) -> Result<(), Failed> {
        let before = self.sample()?;
        let talked = self.crowd.talk(messages, IN_FLIGHT, PATIENCE)?;
        let spent = self.spent_since(&before)?;
        if talked.received != u64::from(messages) {
            let counts = self.crowd.counts()?;
            return Err(format!("{} of {messages} messages\n{counts}", talked.received).into());
        }
        if counts {
            self.unicast.add(spent, f64::from(messages));
            self.talking_took += talked.took;
            self.p50
                .push(talked.latency.value_at_quantile(0.5) as f64 / 1e3);
            self.p99
                .push(talked.latency.value_at_quantile(0.99) as f64 / 1e3);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Figures, Failed> {
        let counts = self.crowd.counts()?;
        let mut notes = Vec::new();
        if self.threads_ended > 0 {
            notes.push(format!(
                "{} threads ended: their CPU time is missing",
                self.threads_ended
            ));
        }
        if counts.pings_answered > 0 {
            notes.push(format!(
                "{} pings were answered meanwhile",
                counts.pings_answered
            ));
        }
        let unexpected = counts.repeated + counts.misrouted + counts.stray + counts.refusals;
        if unexpected > 0 || counts.open != self.open as u64 {
            notes.push(format!("not all went well:\n{counts}"));
        }
        self.crowd.leave()?;
        Ok(Figures {
            connect: self.connect.micros_each(),
            connects_per_sec: self.open as f64 / self.opening_took.as_secs_f64(),
            broadcast: self.broadcast.micros_each(),
            queued: self.queued.micros_each(),
            unicast: self.unicast.micros_each(),
            unicasts_per_sec: self.unicast.count / self.talking_took.as_secs_f64(),
            unicast_p50: median(self.p50),
            unicast_p99: median(self.p99),
            notes,
            ..self.figures
        })
    }

    fn sample(&self) -> Result<CpuSample, Failed> {
        std::thread::sleep(CPU_SETTLES);
        Ok(CpuSample::of_all(&self.server.pids())?)
    }

    fn spent_since(&mut self, before: &CpuSample) -> Result<u64, Failed> {
        let used = before.used_until(&self.sample()?);
        self.threads_ended += used.ended;
        Ok(used.nanos)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
