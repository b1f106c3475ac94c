//! One run against one server: what it costs in CPU time and memory.

use std::time::Duration;

use throng_loadtest::Crowd;

use crate::Failed;
use crate::process::{CpuSample, CpuUsed, anonymous_bytes};
use crate::server::Server;

/// Allocators give pages back after about a second.
const MEMORY_SETTLES: Duration = Duration::from_millis(2500);
/// So that what is still running is over, and asleep when its time is read.
const CPU_SETTLES: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(120);
/// Broadcasts that are queued together.
pub const QUEUED: u32 = 8;
pub const IN_FLIGHT: u32 = 64;

#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub connections: usize,
    pub broadcasts: u32,
    /// Rounds of [`QUEUED`] broadcasts.
    pub rounds: u32,
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
    pub unicast_p50: f64,
    pub unicast_p99: f64,
    /// What else happened that a reader of the figures should know.
    pub notes: Vec<String>,
}

struct Run<'a> {
    server: &'a mut Server,
    crowd: Crowd,
    sizes: Sizes,
    figures: Figures,
}

pub fn run(server: &mut Server, sizes: Sizes) -> Result<Figures, Failed> {
    let crowd = Crowd::gather(server.plan(sizes.connections)?)?;
    let mut run = Run {
        server,
        crowd,
        sizes,
        figures: Figures::default(),
    };
    run.connect_and_weigh()?;
    run.figures.broadcast = run.broadcast(1, sizes.broadcasts)?;
    run.figures.queued = run.broadcast(QUEUED, sizes.rounds)?;
    run.unicast()?;
    run.look_back()?;
    let Run { crowd, figures, .. } = run;
    crowd.leave()?;
    Ok(figures)
}

impl Run<'_> {
    fn connect_and_weigh(&mut self) -> Result<(), Failed> {
        let all = self.sizes.connections;
        let half = all / 2;
        let empty = self.weigh()?;
        let (first, first_took) = self.open(half)?;
        let half_full = self.weigh()?;
        let (second, second_took) = self.open(all)?;
        let full = self.weigh()?;
        let took = (first_took + second_took).as_secs_f64();
        self.figures.bytes_slope = (full - half_full) / (all - half) as f64;
        self.figures.bytes_mean = (full - empty) / all as f64;
        self.figures.connect = (self.micros(first) + self.micros(second)) / all as f64;
        self.figures.connects_per_sec = all as f64 / took;
        Ok(())
    }

    fn weigh(&self) -> Result<f64, Failed> {
        std::thread::sleep(MEMORY_SETTLES);
        Ok(anonymous_bytes(self.server.pid())? as f64)
    }

    fn open(&mut self, clients: usize) -> Result<(CpuUsed, Duration), Failed> {
        let before = self.sample()?;
        let opened = self.crowd.open(clients, PATIENCE)?;
        let used = before.used_until(&self.sample()?);
        if opened.open != clients as u64 {
            let limit = opened
                .limit
                .map(|limit| format!("; {limit}"))
                .unwrap_or_default();
            let counts = self.crowd.counts()?;
            return Err(format!("{} of {clients} connected{limit}\n{counts}", opened.open).into());
        }
        Ok((used, opened.took))
    }

    /// CPU for each delivery of `rounds` times `count` broadcasts, each round after the last
    /// delivery of the one before. The first round warms up and does not count.
    fn broadcast(&mut self, count: u32, rounds: u32) -> Result<f64, Failed> {
        self.round(count)?;
        let before = self.sample()?;
        for _ in 0..rounds {
            self.round(count)?;
        }
        let used = before.used_until(&self.sample()?);
        let deliveries = f64::from(rounds) * f64::from(count) * self.sizes.connections as f64;
        Ok(self.micros(used) / deliveries)
    }

    fn round(&mut self, count: u32) -> Result<(), Failed> {
        let server = &mut *self.server;
        let heard = self
            .crowd
            .hear(count, PATIENCE, |bodies| server.push(bodies))?;
        if heard.is_complete() && heard.listeners == self.sizes.connections as u64 {
            return Ok(());
        }
        let counts = self.crowd.counts()?;
        Err(format!(
            "{} of {} deliveries\n{counts}",
            heard.delivered,
            heard.expected()
        )
        .into())
    }

    fn unicast(&mut self) -> Result<(), Failed> {
        self.crowd
            .talk(self.sizes.messages / 10, IN_FLIGHT, PATIENCE)?;
        let before = self.sample()?;
        let talked = self.crowd.talk(self.sizes.messages, IN_FLIGHT, PATIENCE)?;
        let used = before.used_until(&self.sample()?);
        if talked.received != u64::from(self.sizes.messages) {
            let counts = self.crowd.counts()?;
            let (received, sent) = (talked.received, talked.sent);
            return Err(format!("{received} of {sent} messages arrived\n{counts}").into());
        }
        self.figures.unicast = self.micros(used) / talked.received as f64;
        self.figures.unicasts_per_sec = talked.received as f64 / talked.took.as_secs_f64();
        self.figures.unicast_p50 = talked.latency.value_at_quantile(0.5) as f64 / 1e3;
        self.figures.unicast_p99 = talked.latency.value_at_quantile(0.99) as f64 / 1e3;
        Ok(())
    }

    fn look_back(&mut self) -> Result<(), Failed> {
        let counts = self.crowd.counts()?;
        if counts.pings_answered > 0 {
            let note = format!(
                "{} pings of the server were answered meanwhile",
                counts.pings_answered
            );
            self.figures.notes.push(note);
        }
        let unexpected = counts.repeated + counts.misrouted + counts.stray + counts.refusals;
        if unexpected > 0 || counts.open != self.sizes.connections as u64 {
            self.figures
                .notes
                .push(format!("not all went well:\n{counts}"));
        }
        Ok(())
    }

    fn sample(&self) -> Result<CpuSample, Failed> {
        std::thread::sleep(CPU_SETTLES);
        Ok(CpuSample::take(self.server.pid())?)
    }

    fn micros(&mut self, used: CpuUsed) -> f64 {
        if used.ended > 0 {
            let note = format!(
                "{} threads of the server ended: their CPU time is missing",
                used.ended
            );
            self.figures.notes.push(note);
        }
        used.nanos as f64 / 1e3
    }
}
