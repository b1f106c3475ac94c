//! Direct messages across two nodes, by each server in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::dialect::Dialect;
use super::nodes::Nodes;
use super::peers;
use super::redis::Redis;
use super::volley::Callers;
use crate::Failed;
use crate::peer::Peer;
use throng_loadtest::process::CpuSample;

const WARM_UP: Duration = Duration::from_secs(1);
/// Until what was said at the entry (subscriptions, above all) has been done.
const SETTLES: Duration = Duration::from_secs(1);

/// How much each is asked for.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub pairs: usize,
    pub in_flight: usize,
    pub lasts: Duration,
}

/// What one volley came to. CPU is in microseconds for each message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub sent: u64,
    pub received: u64,
    pub per_sec: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub senders_node: f64,
    pub receivers_node: f64,
    pub redis: f64,
    /// By the names of a gateway's threads.
    pub threads: BTreeMap<String, f64>,
}

impl Figures {
    pub fn servers(&self) -> f64 {
        self.senders_node + self.receivers_node + self.redis
    }
}

/// Two nodes of a kind with their Redis, and those who talk over them.
pub struct Contender {
    pub name: &'static str,
    callers: Callers,
    servers: Servers,
    pub runs: Vec<Figures>,
}

enum Servers {
    Throng(Nodes),
    Peers([Peer; 2], Redis),
}

impl Servers {
    fn pids(&self) -> [Vec<u32>; 3] {
        match self {
            Servers::Throng(nodes) => {
                let [a, b] = [0, 1].map(|at: usize| vec![nodes.all[at].pid()]);
                [a, b, vec![nodes.redis.pid()]]
            }
            Servers::Peers([a, b], redis) => [a.pids(), b.pids(), vec![redis.pid()]],
        }
    }
}

impl Contender {
    pub fn throng(binary: &Path, sizes: Sizes) -> Result<Contender, Failed> {
        let nodes = Nodes::start(binary, 2)?;
        let [from, to] = [nodes.all[0].address()?, nodes.all[1].address()?];
        let servers = Servers::Throng(nodes);
        Contender::gather("Throng", Dialect::throng()?, [from, to], servers, sizes)
    }

    pub fn socket_io(sizes: Sizes) -> Result<Contender, Failed> {
        let redis = Redis::start()?;
        let peers = [peers::socket_io(&redis)?, peers::socket_io(&redis)?];
        let at = [peers[0].address, peers[1].address];
        let servers = Servers::Peers(peers, redis);
        Contender::gather("Socket.IO", Dialect::SocketIo, at, servers, sizes)
    }

    pub fn nchan(sizes: Sizes) -> Result<Contender, Failed> {
        let redis = Redis::start()?;
        let peers = [peers::nchan(&redis)?, peers::nchan(&redis)?];
        let at = [peers[0].address, peers[1].address];
        let servers = Servers::Peers(peers, redis);
        Contender::gather("Nchan", Dialect::Nchan, at, servers, sizes)
    }

    fn gather(
        name: &'static str,
        dialect: Dialect,
        [from, to]: [SocketAddr; 2],
        servers: Servers,
        sizes: Sizes,
    ) -> Result<Contender, Failed> {
        let callers =
            Callers::gather(dialect, from, to, sizes.pairs).map_err(|e| format!("{name}: {e}"))?;
        std::thread::sleep(SETTLES);
        let mut contender = Contender {
            name,
            callers,
            servers,
            runs: Vec::new(),
        };
        contender.run(Sizes {
            lasts: WARM_UP,
            ..sizes
        })?;
        contender.runs.clear();
        Ok(contender)
    }

    pub fn run(&mut self, sizes: Sizes) -> Result<(), Failed> {
        let name = self.name;
        let pids = self.servers.pids();
        let before = sample(&pids)?;
        let talked = self.callers.talk(sizes.lasts, sizes.in_flight);
        let talked = talked.map_err(|e| format!("{name}: {e}"))?;
        let after = sample(&pids)?;
        let each = 1e-3 / talked.received.max(1) as f64;
        let mut threads = BTreeMap::new();
        if matches!(self.servers, Servers::Throng(_)) {
            for (node, at) in [("sender's", 0), ("receiver's", 1)] {
                let (before, after) = (&before[at][0], &after[at][0]);
                for (thread, nanos) in before.used_by_thread(after, pids[at][0]) {
                    *threads.entry(format!("{node} {thread}")).or_default() += nanos as f64 * each;
                }
            }
        }
        let spent = |at: usize| {
            let both = before[at].iter().zip(&after[at]);
            let nanos: u64 = both
                .map(|(before, after)| before.used_until(after).nanos)
                .sum();
            nanos as f64 * each
        };
        let micros = |quantile| talked.latency.value_at_quantile(quantile) as f64 / 1e3;
        self.runs.push(Figures {
            sent: talked.sent,
            received: talked.received,
            per_sec: talked.received as f64 / talked.took.as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            senders_node: spent(0),
            receivers_node: spent(1),
            redis: spent(2),
            threads,
        });
        Ok(())
    }
}

fn sample(pids: &[Vec<u32>; 3]) -> std::io::Result<Vec<Vec<CpuSample>>> {
    let of = |pids: &Vec<u32>| pids.iter().map(|&pid| CpuSample::take(pid)).collect();
    pids.iter().map(of).collect()
}
