//! Crowds that do nothing themselves: what the directory keeps of each user, what a stored message
//! takes, and a broadcast over several nodes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use throng_loadtest::{Chats, Crowd};

use super::nodes::{Cpu, Nodes};
use crate::Failed;

const PATIENCE: Duration = Duration::from_secs(120);
const SETTLES: Duration = Duration::from_millis(500);
/// Users that one push names.
const NAMED: usize = 250;
const BROADCASTERS: usize = 3;
/// Clients of each node that broadcasts.
const LISTENERS: usize = 3000;
const BODY: &str = "{\"text\":\"a hundred bytes are what people say to each other: hello, are you there, see you at eight, ok\"}";

/// Bytes of Redis for each user.
#[derive(Clone, Debug, Serialize)]
pub struct Directory {
    pub users: usize,
    /// Connected, and nothing else: between half of them and all.
    pub connected: f64,
    /// The same for users whose clients named a device, so that it is known where that stands.
    pub with_device: f64,
    /// Added by one stored message of 100 bytes that such a user has not passed.
    pub message: f64,
    /// One stored message for a user who has never come.
    pub away: f64,
}

/// `users` on two nodes, by what Redis says that it has allocated.
pub fn directory(binary: &Path, users: usize) -> Result<Directory, Failed> {
    let nodes = Nodes::start(binary, 2)?;
    let mut crowd = Crowd::gather(nodes.plan("idle-", users)?)?;
    let connected = slope(&nodes, &mut crowd, users)?;
    crowd.leave()?;
    drop(nodes);

    let mut nodes = Nodes::start(binary, 2)?;
    let mut plan = nodes.plan("idle-", users)?;
    // Clients that acknowledge, and do not know what is pushed: it stays.
    plan.chats = Some(Arc::new(Chats::new(None)?));
    let mut crowd = Crowd::gather(plan)?;
    let with_device = slope(&nodes, &mut crowd, users)?;
    let mut weight = weigh(&nodes)?;
    let present = (0..users as u32).map(|at| crowd.plan().uid(at)).collect();
    let absent = (0..users).map(|at| format!("away-{at:027}")).collect();
    let mut added = |those: Vec<String>| {
        store_for(&mut nodes, &those)?;
        let before = std::mem::replace(&mut weight, weigh(&nodes)?);
        Ok::<_, Failed>((weight - before) / users as f64)
    };
    let (message, away) = (added(present)?, added(absent)?);
    crowd.leave()?;
    Ok(Directory {
        users,
        connected,
        with_device,
        message,
        away,
    })
}

/// What each user of the second half adds.
fn slope(nodes: &Nodes, crowd: &mut Crowd, users: usize) -> Result<f64, Failed> {
    open(crowd, users / 2)?;
    let half = weigh(nodes)?;
    open(crowd, users)?;
    Ok((weigh(nodes)? - half) / (users - users / 2) as f64)
}

fn store_for(nodes: &mut Nodes, users: &[String]) -> Result<(), Failed> {
    for named in users.chunks(NAMED) {
        nodes.all[0].store_for(named, BODY)?;
    }
    Ok(())
}

fn weigh(nodes: &Nodes) -> Result<f64, Failed> {
    std::thread::sleep(SETTLES);
    Ok(nodes.redis.used_memory()? as f64)
}

fn open(crowd: &mut Crowd, clients: usize) -> Result<(), Failed> {
    let opened = crowd.open(clients, PATIENCE)?;
    if opened.open == clients as u64 {
        return Ok(());
    }
    let counts = crowd.counts()?;
    Err(format!("{} of {clients} connected\n{counts}", opened.open).into())
}

/// A broadcast to three nodes: times from the push, CPU in microseconds for each delivery.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Broadcast {
    pub nodes: usize,
    pub clients: usize,
    /// Medians over the broadcasts.
    pub first_ms: f64,
    pub last_ms: f64,
    pub nodes_us: f64,
    pub redis_us: f64,
}

pub fn broadcast(binary: &Path, count: u32) -> Result<Broadcast, Failed> {
    let mut nodes = Nodes::start(binary, BROADCASTERS)?;
    let clients = BROADCASTERS * LISTENERS;
    let mut crowd = Crowd::gather(nodes.plan("hear-", clients)?)?;
    open(&mut crowd, clients)?;
    let mut broadcast = Broadcast {
        nodes: BROADCASTERS,
        clients,
        ..Broadcast::default()
    };
    let (mut firsts, mut lasts) = (Vec::new(), Vec::new());
    // The first one warms up.
    for round in 0..=count {
        std::thread::sleep(SETTLES);
        let before = Cpu::of(&nodes)?;
        let pusher = &mut nodes.all[0];
        let heard = crowd.hear(1, PATIENCE, |bodies| pusher.push(bodies))?;
        let (Some(first), Some(last), true) = (heard.first, heard.last, heard.is_complete()) else {
            let expected = heard.expected();
            return Err(format!("{} of {expected} deliveries", heard.delivered).into());
        };
        if round == 0 {
            continue;
        }
        let spent = before.until_now(&nodes)?;
        broadcast.nodes_us += spent.nodes_us / (clients as f64 * f64::from(count));
        broadcast.redis_us += spent.redis_us / (clients as f64 * f64::from(count));
        firsts.push(first.as_secs_f64() * 1e3);
        lasts.push(last.as_secs_f64() * 1e3);
    }
    broadcast.first_ms = super::median(firsts);
    broadcast.last_ms = super::median(lasts);
    crowd.leave()?;
    Ok(broadcast)
}
