//! The threads that a node is made of: reactors, the ends of reactors as messages, signals.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::{io, thread};

use crossbeam_channel::{Receiver, bounded, unbounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::ServeError;
use super::plan::Plan;
use crate::config::{Config, Overflow};
use crate::mailbox::{Inbox, Mailbox, mailbox};
use crate::reactor::{self, Starting};
use crate::stats::ReactorStats;

pub fn mailboxes(count: usize) -> io::Result<(Vec<Mailbox>, Vec<Inbox>)> {
    let pairs: io::Result<Vec<_>> = (0..count).map(|_| mailbox()).collect();
    Ok(pairs?.into_iter().unzip())
}

/// For a generator of message ids, from the system's random source.
pub fn seed() -> Result<[u64; 2], ServeError> {
    let mut halves = [[0; 8]; 2];
    for half in &mut halves {
        getrandom::fill(half).map_err(ServeError::Random)?;
    }
    Ok(halves.map(u64::from_be_bytes))
}

/// Starts all reactors and returns where they listen.
pub fn start_reactors(
    config: &Config,
    plan: &Plan,
    inboxes: Vec<Inbox>,
    stats: &[Arc<ReactorStats>],
) -> Result<(Vec<Starting>, SocketAddr), ServeError> {
    let addr = config.listen;
    // Held until all of them listen: nobody else may take the port in between.
    let reserved = reactor::reserve_port(addr).map_err(|source| ServeError::Listen {
        addr,
        option: "--listen",
        source,
    })?;
    let bells: Vec<_> = inboxes
        .iter()
        .map(|inbox| inbox.bell().as_raw_fd())
        .collect();
    let mut starting = Vec::new();
    for (number, inbox) in inboxes.into_iter().enumerate() {
        let options = reactor::Options {
            number,
            listen: reserved.addr,
            backlog: config.backlog,
            keeps_alive: config.limits.ping_secs == 0,
            private_table: plan.has_private_tables.then(|| bells.clone()),
            descriptors: plan.descriptors,
            refuses_surplus: config.overflow == Overflow::Refuse,
            seed: seed()?,
        };
        let one = reactor::spawn(options, inbox, stats[number].clone())?;
        one.listening()?;
        starting.push(one);
    }
    Ok((starting, reserved.addr))
}

/// The end of each reactor's thread, as a message.
pub fn watch_ends(threads: Vec<JoinHandle<io::Result<()>>>) -> Receiver<io::Result<()>> {
    let (sender, ended) = unbounded();
    for thread in threads {
        let sender = sender.clone();
        thread::spawn(move || {
            let result = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            let _ = sender.send(result);
        });
    }
    ended
}

/// SIGTERM, SIGINT and SIGHUP, as messages.
pub fn signals() -> io::Result<Receiver<i32>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (sender, received) = bounded(4);
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in &mut signals {
                let _ = sender.send(signal);
            }
        })?;
    Ok(received)
}
