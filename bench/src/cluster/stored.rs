//! Chats with all six packets, where no two who talk to each other are on the same node.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use throng_loadtest::{Chats, Crowd, Flow};

use super::nodes::{Cpu, Nodes};
use crate::Failed;

const CLIENTS: usize = 1000;
const SETTLES: Duration = Duration::from_millis(500);
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// What came of one flow. CPU is in microseconds for each chat.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// So many were due a second, or so many were on their way at once.
    pub flow: String,
    pub issued: u64,
    pub stored: u64,
    pub delivered: u64,
    pub told_of: u64,
    pub per_sec: f64,
    pub stored_p50_ms: f64,
    pub stored_p99_ms: f64,
    pub noticed_p50_ms: f64,
    pub noticed_p99_ms: f64,
    /// Both nodes.
    pub nodes: f64,
    pub redis: f64,
}

impl Figures {
    pub fn is_complete(&self) -> bool {
        [self.stored, self.delivered, self.told_of] == [self.issued; 3]
    }
}

/// Two new nodes with a new Redis, and a crowd that chats.
pub fn run(binary: &Path, flow: Flow, lasts: Duration) -> Result<Figures, Failed> {
    let nodes = Nodes::start(binary, 2)?;
    let mut plan = nodes.plan("chat-", CLIENTS)?;
    plan.keeps_apart = true;
    plan.chats = Some(Arc::new(Chats::new(None)?));
    let mut crowd = Crowd::gather(plan)?;
    let opened = crowd.open(CLIENTS, OPEN_PATIENCE)?;
    if opened.open != CLIENTS as u64 {
        return Err(format!("{} of {CLIENTS} connected", opened.open).into());
    }
    std::thread::sleep(SETTLES);
    let before = Cpu::of(&nodes)?;
    let chatted = crowd.chat(flow, lasts, DRAIN_PATIENCE)?;
    let spent = before.until_now(&nodes)?;
    let tally = &chatted.tally;
    let each = 1.0 / tally.confirmed.max(1) as f64;
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let figures = Figures {
        flow: match flow {
            Flow::PerSec(rate) => format!("{rate:.0} due a second"),
            Flow::InFlight(count) => format!("{count} in flight"),
        },
        issued: chatted.issued,
        stored: tally.confirmed,
        delivered: tally.delivered,
        told_of: tally.noticed,
        per_sec: tally.confirmed as f64 / chatted.took.as_secs_f64(),
        stored_p50_ms: millis(tally.to_stored.value_at_quantile(0.5)),
        stored_p99_ms: millis(tally.to_stored.value_at_quantile(0.99)),
        noticed_p50_ms: millis(tally.to_noticed.value_at_quantile(0.5)),
        noticed_p99_ms: millis(tally.to_noticed.value_at_quantile(0.99)),
        nodes: spent.nodes_us * each,
        redis: spent.redis_us * each,
    };
    crowd.leave()?;
    Ok(figures)
}
