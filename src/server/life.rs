//! From the ready line to the last connection: signals, the look at the reactors once a second,
//! the drain.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, select, tick};
use signal_hook::consts::SIGHUP;

use super::ServeError;
use super::reload::Reload;
use super::watch::Watchdog;
use crate::command::{DrainPlan, ToReactor};
use crate::hub::node::Node;
use crate::mailbox::Switchboard;
use crate::sys;

/// A node that drains closes this part of its connections a second, or `DRAIN_MIN_PER_SEC`.
const DRAIN_PART_PER_SEC: usize = 20;
const DRAIN_MIN_PER_SEC: usize = 500;

/// For the last closing handshakes of a drain whose pace the operator has set.
const LAST_SECS: u32 = 5;

/// What main listens to.
pub struct Events {
    pub signals: Receiver<i32>,
    /// The API wants a drain, at so many closings a second.
    pub drains: Receiver<u32>,
    /// Another process has this node's name.
    pub supersessions: Receiver<()>,
    /// The ends of reactors.
    pub ended: Receiver<io::Result<()>>,
}

pub fn serve_until_drained(
    node: &Node,
    switchboard: &Switchboard,
    events: &Events,
    mut reload: Reload<'_>,
    mut watchdog: Watchdog,
) -> Result<(), ServeError> {
    let Events {
        signals,
        drains,
        supersessions,
        ended,
    } = events;
    let mut is_superseded = false;
    let mut is_stopping = false;
    let seconds = tick(Duration::from_secs(1));
    let mut left = switchboard.reactors();
    while left > 0 {
        select! {
            recv(signals) -> signal => {
                if signal == Ok(SIGHUP) {
                    reload.reload();
                    continue;
                }
                if is_stopping {
                    return Err(ServeError::StoppedTwice);
                }
                is_stopping = true;
                start_drain(in_time(reload.config.drain_secs, node), node, switchboard);
            }
            recv(drains) -> per_sec => if let Ok(per_sec) = per_sec && !is_stopping {
                let plan = at_rate(per_sec, node, switchboard.reactors());
                start_drain(plan, node, switchboard);
            },
            recv(supersessions) -> _ => if !is_superseded {
                is_superseded = true;
                start_drain(in_time(reload.config.drain_secs, node), node, switchboard);
            },
            recv(ended) -> result => match result {
                Ok(Ok(())) if node.is_draining() => left -= 1,
                Ok(Ok(())) | Err(_) => return Err(ServeError::ReactorEnded),
                Ok(Err(error)) => return Err(ServeError::ReactorFailed(error)),
            },
            recv(seconds) -> _ => {
                watchdog.look(reload.config.watchdog_secs);
                reload.tell();
                if node.is_over_budget() {
                    // Those that sleep may hold the largest queues.
                    switchboard.wake();
                }
                sys::give_back_memory();
            }
        }
    }
    if is_superseded {
        return Err(ServeError::Superseded);
    }
    tracing::info!("drained");
    Ok(())
}

/// Paced, but fast enough that nobody is cut off at the end.
fn in_time(within_secs: u32, node: &Node) -> DrainPlan {
    let connections = node.connections();
    let in_time = connections / (within_secs as usize).saturating_sub(2).max(1);
    let paced = (connections / DRAIN_PART_PER_SEC).max(DRAIN_MIN_PER_SEC);
    DrainPlan {
        per_sec: paced.max(in_time) as u32,
        within_secs,
    }
}

/// As slowly as the operator wants: it takes what it takes, also where one reactor, which has its
/// part of the pace alone, holds all of them.
fn at_rate(per_sec: u32, node: &Node, reactors: usize) -> DrainPlan {
    let secs = (node.connections() * reactors).div_ceil(per_sec.max(1) as usize);
    DrainPlan {
        per_sec,
        within_secs: u32::try_from(secs).map_or(u32::MAX, |secs| secs.saturating_add(LAST_SECS)),
    }
}

fn start_drain(plan: DrainPlan, node: &Node, switchboard: &Switchboard) {
    node.start_draining();
    let DrainPlan {
        per_sec,
        within_secs,
    } = plan;
    let connections = node.connections();
    tracing::info!(connections, per_sec, within_secs, "draining");
    if switchboard.all(|| ToReactor::Drain { plan }).is_err() {
        tracing::warn!("a reactor is too busy to drain; a second signal stops it");
    }
}
