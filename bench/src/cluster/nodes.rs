//! Some nodes of one cluster, and the Redis that they share.
//!
//! Owns: their processes; and what they have used of the CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use throng_loadtest::{Plan, Who};

use super::redis::Redis;
use crate::Failed;
use crate::server::{SECRET, Server};
use throng_loadtest::process::CpuSample;

const MEET_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// So that what is still running is over, and asleep when its time is read.
const CPU_SETTLES: Duration = Duration::from_millis(30);

/// Nodes end before their Redis does.
pub struct Nodes {
    pub all: Vec<Server>,
    pub redis: Redis,
}

impl Nodes {
    /// With one reactor each; everything else as it comes.
    pub fn start(binary: &Path, count: usize) -> Result<Nodes, Failed> {
        let redis = Redis::start()?;
        let url = redis.url();
        let node = |_| Server::throng(binary, 1, &["--redis", &url]);
        let all = (0..count).map(node).collect::<Result<Vec<_>, _>>()?;
        let mut nodes = Nodes { all, redis };
        nodes.wait_until_met()?;
        Ok(nodes)
    }

    /// A crowd's plan, spread over all of them.
    pub fn plan(&self, prefix: &str, clients: usize) -> Result<Plan, Failed> {
        let urls: Vec<&str> = self.all.iter().map(Server::ws).collect();
        Ok(Plan::over(&urls, Who::signed(SECRET)?, prefix, clients)?)
    }

    /// Each has seen all of them.
    fn wait_until_met(&mut self) -> Result<(), Failed> {
        let deadline = Instant::now() + MEET_PATIENCE;
        let count = self.all.len();
        for node in &mut self.all {
            while node.nodes()? < count {
                if Instant::now() > deadline {
                    return Err("the nodes do not see each other".into());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }
}

/// What the nodes and their Redis had used at one moment.
pub struct Cpu {
    nodes: Vec<CpuSample>,
    redis: CpuSample,
}

/// Microseconds between two moments.
pub struct Spent {
    pub nodes_us: f64,
    pub redis_us: f64,
}

impl Cpu {
    pub fn of(nodes: &Nodes) -> Result<Cpu, Failed> {
        std::thread::sleep(CPU_SETTLES);
        let samples = nodes.all.iter().map(|node| CpuSample::take(node.pid()));
        Ok(Cpu {
            nodes: samples.collect::<Result<_, _>>()?,
            redis: CpuSample::take(nodes.redis.pid())?,
        })
    }

    pub fn until_now(&self, nodes: &Nodes) -> Result<Spent, Failed> {
        let now = Cpu::of(nodes)?;
        let both = self.nodes.iter().zip(&now.nodes);
        let nanos: u64 = both.map(|(before, now)| before.used_until(now).nanos).sum();
        Ok(Spent {
            nodes_us: nanos as f64 / 1e3,
            redis_us: self.redis.used_until(&now.redis).nanos as f64 / 1e3,
        })
    }
}
