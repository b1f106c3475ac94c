//! The crowd: connected once, then driven.
//!
//! What takes a given time, while connections come and go, is in `runs`.
//! Owns: the workers' threads, their bells, and the numbering of tasks and broadcasts.
//! Invariants: one task at a time, for all workers; each ends by itself or by its patience.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use throng::sys::EventFd;

use crate::counts::Counts;
use crate::message;
use crate::plan::Plan;
use crate::presence::{Presence, Sample};
use crate::tally::{self, Shared};
use crate::worker::{self, Command, Part, Report};

mod results;
mod runs;

pub use results::{Chatted, Churned, Heard, Opened, Pushed, Returned, Talked, Weathered};

/// A worker's turn is short: one that is silent for so long is stuck.
const WORKER_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum CrowdError {
    #[error("cannot start a thread of clients: {0}")]
    Start(io::Error),
    #[error("a thread of clients failed: {0}")]
    Worker(io::Error),
    #[error("a thread of clients does not answer")]
    Stuck,
    #[error("the push was refused: {0}")]
    Push(io::Error),
    #[error("cannot reach the API at {url}: {source}")]
    Api { url: String, source: io::Error },
    #[error("nobody is connected")]
    Nobody,
    #[error("the clients of this crowd do not chat")]
    NoChats,
    #[error("cannot write the history: {0}")]
    History(io::Error),
}

struct Handle {
    bell: Arc<EventFd>,
    commands: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    fn send(&self, command: Command) -> Result<(), CrowdError> {
        self.commands.send(command).map_err(|_| CrowdError::Stuck)?;
        self.bell.ring();
        Ok(())
    }
}

pub struct Crowd {
    plan: Arc<Plan>,
    workers: Vec<Handle>,
    reports: Receiver<Report>,
    presence: Arc<Presence>,
    over_time: Vec<Sample>,
    task: u32,
    /// Broadcasts so far; their numbers begin with one.
    waves: u32,
    /// Direct messages so far; their numbers begin with zero.
    directs: u32,
    should_stop: Arc<AtomicBool>,
    counts: Counts,
}

impl Crowd {
    /// Starts the threads; nobody is connected yet. All bells exist before the first thread
    /// takes its own file table, so that their numbers mean the same in every table.
    pub fn gather(plan: Plan) -> Result<Crowd, CrowdError> {
        let plan = Arc::new(plan);
        let presence = Arc::new(Presence::new(plan.clients));
        let (report, reports) = channel();
        let mut workers = Vec::new();
        let mut starts = Vec::new();
        for number in 0..plan.threads {
            let bell = Arc::new(EventFd::new().map_err(CrowdError::Start)?);
            let (commands, inbox) = channel();
            starts.push((number, bell.clone(), inbox));
            workers.push(Handle {
                bell,
                commands,
                thread: None,
            });
        }
        for (number, bell, inbox) in starts {
            let (plan, report) = (plan.clone(), report.clone());
            let presence = presence.clone();
            let thread = std::thread::Builder::new()
                .name(format!("clients-{number}"))
                .spawn(move || worker::run(number, plan, presence, bell, inbox, report))
                .map_err(CrowdError::Start)?;
            workers[number].thread = Some(thread);
        }
        Ok(Crowd {
            plan,
            workers,
            reports,
            presence,
            over_time: Vec::new(),
            task: 0,
            waves: 0,
            directs: 0,
            should_stop: Arc::default(),
            counts: Counts::default(),
        })
    }

    /// What takes a given time ends sooner when this is set.
    pub fn stop_when(&mut self, should_stop: Arc<AtomicBool>) {
        self.should_stop = should_stop;
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Opens connections until there are `clients`, in all threads alike; returns when each is
    /// registered or has failed, or when `patience` is over.
    pub fn open(&mut self, clients: usize, patience: Duration) -> Result<Opened, CrowdError> {
        let began = Instant::now();
        let task = self.begin_opening(clients)?;
        self.wait_done(task, self.workers.len(), began + patience)?;
        let took = began.elapsed();
        let parts = self.collect()?;
        let limit = parts.iter().filter_map(|part| part.limit).min();
        let returns = parts.iter().filter_map(|part| part.returns.as_ref());
        Ok(Opened {
            took,
            open: self.counts.open,
            limit,
            followed: returns.map(|tally| tally.reconnects).sum(),
        })
    }

    fn begin_opening(&mut self, clients: usize) -> Result<u32, CrowdError> {
        let task = self.next_task();
        let whole = self.plan.clients.max(1);
        for (number, worker) in self.workers.iter().enumerate() {
            let share = self.plan.share(number);
            let part = share.len() * clients.min(whole) / whole;
            worker.send(Command::Open {
                task,
                until: share.start + part as u32,
            })?;
        }
        Ok(task)
    }

    /// Has `count` broadcasts pushed by `push`, which gets their `msg` objects, and waits until
    /// everybody has heard all of them, or until `patience` is over.
    pub fn hear(
        &mut self,
        count: u32,
        patience: Duration,
        push: impl FnOnce(&[String]) -> io::Result<()>,
    ) -> Result<Heard, CrowdError> {
        let task = self.next_task();
        let first = self.waves + 1;
        self.waves += count;
        for worker in &self.workers {
            worker.send(Command::Hear { task, first, count })?;
        }
        self.wait_ready()?;
        let bodies: Vec<String> = (first..first + count).map(message::wave).collect();
        let began = Instant::now();
        self.plan.pulse.pushes(began);
        push(&bodies).map_err(CrowdError::Push)?;
        self.wait_done(task, self.workers.len(), began + patience)?;
        let parts = self.collect()?;
        let tallies = || parts.iter().flat_map(|part| &part.tallies);
        let by_wave: Vec<u64> = (0..count as usize)
            .map(|n| {
                parts
                    .iter()
                    .filter_map(|part| part.tallies.get(n))
                    .map(|t| t.delivered)
                    .sum()
            })
            .collect();
        let since = |at: Instant| at.saturating_duration_since(began);
        Ok(Heard {
            waves: count,
            listeners: parts.iter().map(|part| part.listeners).sum(),
            delivered: by_wave.iter().sum(),
            by_wave,
            first: tallies().filter_map(|tally| tally.first).min().map(since),
            last: tallies().filter_map(|tally| tally.last).max().map(since),
        })
    }

    /// Has the clients send `messages` to their partners, `in_flight` at a time.
    pub fn talk(
        &mut self,
        messages: u32,
        in_flight: u32,
        patience: Duration,
    ) -> Result<Talked, CrowdError> {
        if self.counts()?.open == 0 {
            return Err(CrowdError::Nobody);
        }
        let task = self.next_task();
        let shared = Arc::new(Shared::new(self.directs, messages));
        self.directs = self.directs.wrapping_add(messages);
        let workers = self.workers.len() as u32;
        for (number, worker) in (0..).zip(&self.workers) {
            let in_flight = (in_flight + number) / workers;
            worker.send(Command::Talk {
                task,
                shared: shared.clone(),
                in_flight,
            })?;
        }
        // The one that settles the last message is the first to know; one is enough.
        self.wait_done(task, 1, shared.began + patience)?;
        let took = shared.began.elapsed();
        let mut latency = tally::latencies();
        let mut received = 0;
        for (count, part) in self.collect()?.iter().filter_map(|part| part.talk.as_ref()) {
            received += count;
            latency.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        Ok(Talked {
            sent: u64::from(shared.issued()),
            received,
            took,
            latency,
        })
    }

    /// Everything that happened so far.
    pub fn counts(&mut self) -> Result<Counts, CrowdError> {
        self.collect()?;
        Ok(self.counts.clone())
    }

    /// Ends all connections with a reset.
    pub fn leave(mut self) -> Result<Counts, CrowdError> {
        self.counts()
    }

    fn next_task(&mut self) -> u32 {
        self.task += 1;
        self.task
    }

    fn wait_ready(&self) -> Result<(), CrowdError> {
        let deadline = Instant::now() + WORKER_PATIENCE;
        for _ in &self.workers {
            while !matches!(self.next_report(deadline)?, Report::Ready) {}
        }
        Ok(())
    }

    /// Waits until so many workers are done with `task`; being late is no error. What they note
    /// meanwhile is written down: for a whole crowd it is too much to keep.
    fn wait_done(&self, task: u32, workers: usize, deadline: Instant) -> Result<(), CrowdError> {
        const FLUSH_EVERY: Duration = Duration::from_millis(100);
        let mut done = 0;
        while done < workers {
            let soon = deadline.min(Instant::now() + FLUSH_EVERY);
            match self.next_report(soon) {
                Ok(Report::Done { task: of }) if of == task => done += 1,
                Ok(_) => {}
                Err(CrowdError::Stuck) if Instant::now() >= deadline => return Ok(()),
                Err(CrowdError::Stuck) => {}
                Err(error) => return Err(error),
            }
            if let Some(chats) = &self.plan.chats {
                chats.flush().map_err(CrowdError::History)?;
            }
        }
        Ok(())
    }

    fn next_report(&self, deadline: Instant) -> Result<Report, CrowdError> {
        match self
            .reports
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(Report::Died(error)) => Err(CrowdError::Worker(error)),
            Ok(report) => Ok(report),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(CrowdError::Stuck)
            }
        }
    }

    fn collect(&mut self) -> Result<Vec<Part>, CrowdError> {
        for worker in &self.workers {
            worker.send(Command::Collect)?;
        }
        let deadline = Instant::now() + WORKER_PATIENCE;
        let mut parts = Vec::new();
        while parts.len() < self.workers.len() {
            if let Report::Part(part) = self.next_report(deadline)? {
                parts.push(*part);
            }
        }
        self.counts = Counts::default();
        for part in &parts {
            self.counts.add(&part.counts);
        }
        Ok(parts)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // One that has died needs no telling.
            let _ = worker.send(Command::Leave);
        }
        for thread in self
            .workers
            .iter_mut()
            .filter_map(|worker| worker.thread.take())
        {
            let _ = thread.join();
        }
    }
}
