//! The start of a reactor: its thread, its file table, its door.
//!
//! The order matters. Before the file tables split, only the standard streams and the bells of
//! the mailboxes are open, so that their numbers mean the same in every table. Each reactor then
//! takes a table of its own, makes its poll and its listener in it, and reports; only when all
//! have, the node opens anything else.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

use super::accept::Door;
use super::courier::Courier;
use super::desk::Desk;
use super::listener::{Reserve, listen};
use super::select::Selections;
use super::strangers::Strangers;
use super::{BELL, LISTENER, READ_BYTES, Reactor, Shared};
use crate::hub::ids::MessageIds;
use crate::mailbox::Inbox;
use crate::parts::gate::Gate;
use crate::parts::rate::Rate;
use crate::parts::ring::Ring;
use crate::parts::slots::Slots;
use crate::parts::time::Tick;
use crate::parts::wheel::Wheel;
use crate::protocol::assembler::PADDING;
use crate::protocol::inbound::Scratch;
use crate::session::rules::Rules;
use crate::stats::ReactorStats;
use crate::sys;

/// Readiness events taken from the poll at once.
const EVENTS_PER_TURN: usize = 1024;

/// What one reactor needs to know at its start.
#[derive(Clone, Debug)]
pub struct Options {
    pub number: usize,
    pub listen: SocketAddr,
    pub backlog: u32,
    /// The kernel asks silent peers. Heartbeats do the same at their own pace; the kernel's timers
    /// of a crowd that came together also fire together, tens of thousands at once.
    pub keeps_alive: bool,
    /// Descriptors that a private file table keeps; none: the table is shared.
    pub private_table: Option<Vec<RawFd>>,
    /// Descriptors that the table is grown for at once.
    pub descriptors: u64,
    /// Surplus newcomers hear 503 instead of being told where to go.
    pub refuses_surplus: bool,
    /// Seeds of the message ids, from the system's random source.
    pub seed: [u64; 2],
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("reactor {number} cannot have a file table of its own: {source}")]
    FileTable { number: usize, source: io::Error },
    #[error("reactor {number} cannot poll: {source}")]
    Poll { number: usize, source: io::Error },
    #[error("reactor {number} ended before it listened")]
    Gone { number: usize },
}

/// A reactor that has begun; it serves when it is told to go.
pub struct Starting {
    number: usize,
    thread: JoinHandle<io::Result<()>>,
    listening: Receiver<Result<SocketAddr, StartError>>,
    go: Sender<(Arc<Shared>, Arc<Rules>)>,
}

impl Starting {
    /// Waits until it listens, and returns where.
    pub fn listening(&self) -> Result<SocketAddr, StartError> {
        self.listening.recv().unwrap_or(Err(StartError::Gone {
            number: self.number,
        }))
    }

    /// Lets it serve by these rules. Dropping a `Starting` instead ends the thread.
    pub fn go(self, shared: Arc<Shared>, rules: Arc<Rules>) -> JoinHandle<io::Result<()>> {
        // It waits for nothing else; if it is gone, the thread's result says why.
        let _ = self.go.send((shared, rules));
        self.thread
    }
}

/// Starts the thread of a reactor.
pub fn spawn(options: Options, inbox: Inbox, stats: Arc<ReactorStats>) -> io::Result<Starting> {
    let number = options.number;
    let (report, listening) = bounded(1);
    let (go, start) = bounded(1);
    let thread = std::thread::Builder::new()
        .name(format!("reactor-{number}"))
        .spawn(move || prepare_and_run(&options, inbox, stats, &report, &start))?;
    Ok(Starting {
        number,
        thread,
        listening,
        go,
    })
}

fn prepare_and_run(
    options: &Options,
    inbox: Inbox,
    stats: Arc<ReactorStats>,
    report: &Sender<Result<SocketAddr, StartError>>,
    start: &Receiver<(Arc<Shared>, Arc<Rules>)>,
) -> io::Result<()> {
    let prepared = prepare(options, &inbox);
    let (poll, listener) = match prepared {
        Ok((poll, listener, addr)) => {
            let _ = report.send(Ok(addr));
            (poll, listener)
        }
        Err(error) => {
            let _ = report.send(Err(error));
            return Ok(());
        }
    };
    let Ok((shared, rules)) = start.recv() else {
        return Ok(());
    };
    let door = Door {
        listener,
        reserve: Reserve::new(),
        is_knocked: true,
        paused_until: Tick(0),
        rate: Rate::new(
            rules.limits.handshakes_per_sec,
            shared.switchboard.reactors(),
            shared.now().tick,
        ),
        surplus: 0,
        refuses_surplus: options.refuses_surplus,
        warned: None,
    };
    let courier = Courier::new(
        shared.node.clone(),
        shared.switchboard.clone(),
        stats.clone(),
        MessageIds::new(options.seed),
        shared.away.clone(),
    );
    let reactor = Reactor {
        poll,
        events: Events::with_capacity(EVENTS_PER_TURN),
        door,
        inbox,
        slots: Slots::new(options.number),
        wheel: Wheel::new(shared.now().tick),
        ring: Ring::default(),
        selections: Selections::default(),
        desk: Desk::new(shared.clone(), courier),
        scratch: Scratch::new(rules.limits.json_depth_max),
        buffer: vec![0; READ_BYTES + PADDING].into(),
        pool: Vec::new(),
        unfinished: Vec::new(),
        dirty: Vec::new(),
        dead: Vec::new(),
        strangers: Strangers::default(),
        queued_bytes: 0,
        reported_bytes: 0,
        shedding: None,
        gate: Gate::default(),
        has_expired_all: true,
        drain: None,
        rules,
        sweep: None,
        shared,
        stats,
    };
    reactor.run()
}

fn prepare(
    options: &Options,
    inbox: &Inbox,
) -> Result<(Poll, TcpListener, SocketAddr), StartError> {
    let number = options.number;
    sys::block_signals();
    if let Some(keep) = &options.private_table {
        sys::take_private_file_table(keep)
            .map_err(|source| StartError::FileTable { number, source })?;
    }
    sys::grow_file_table(options.descriptors);
    let addr = options.listen;
    let listener = listen(addr, options.backlog, options.keeps_alive)
        .map_err(|source| StartError::Listen { addr, source })?;
    let addr = listener
        .local_addr()
        .map_err(|source| StartError::Listen { addr, source })?;
    let mut listener = TcpListener::from_std(listener);
    let polled = Poll::new().and_then(|poll| {
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let bell = inbox.bell().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&bell), BELL, Interest::READABLE)?;
        Ok(poll)
    });
    let poll = polled.map_err(|source| StartError::Poll { number, source })?;
    Ok((poll, listener, addr))
}
