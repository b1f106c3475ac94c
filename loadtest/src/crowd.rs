//! The crowd: connected once, then driven.
//!
//! Owns: the workers' threads, their bells, and the numbering of tasks and broadcasts.
//! Invariants: one task at a time, for all workers; each ends by itself or by its patience.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use throng::sys::EventFd;
use throng_history::What;

use crate::chat::{ChatTally, Flow, SLICE, Schedule};
use crate::chats::Chats;
use crate::counts::Counts;
use crate::message;
use crate::opening::HostLimit;
use crate::plan::Plan;
use crate::presence::{Presence, Sample};
use crate::returns::ReturnTally;
use crate::tally::{self, Shared};
use crate::worker::{self, Command, Part, Report};

/// A worker's turn is short: one that is silent for so long is stuck.
const WORKER_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at how many are connected.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

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
    #[error("nobody is connected")]
    Nobody,
    #[error("the clients of this crowd do not chat")]
    NoChats,
    #[error("cannot write the history: {0}")]
    History(io::Error),
}

/// How an opening went.
#[derive(Clone, Debug)]
pub struct Opened {
    pub took: Duration,
    /// All that are registered and open, those of former openings included.
    pub open: u64,
    /// What of this host stopped it, if anything did.
    pub limit: Option<HostLimit>,
}

/// How a series of broadcasts was heard. Times count from the moment before the push.
#[derive(Clone, Debug)]
pub struct Heard {
    pub waves: u32,
    pub listeners: u64,
    pub delivered: u64,
    /// Each broadcast's deliveries, in order.
    pub by_wave: Vec<u64>,
    pub first: Option<Duration>,
    pub last: Option<Duration>,
}

impl Heard {
    pub fn expected(&self) -> u64 {
        u64::from(self.waves) * self.listeners
    }

    pub fn is_complete(&self) -> bool {
        self.delivered >= self.expected()
    }
}

/// How a run of chats went.
#[derive(Clone, Debug)]
pub struct Chatted {
    pub issued: u64,
    /// Every message was stored, delivered and told of, or given up.
    pub is_settled: bool,
    pub took: Duration,
    pub tally: ChatTally,
    pub returned: Returned,
}

/// How clients came back that had lost their connection.
#[derive(Clone, Debug)]
pub struct Returned {
    pub tally: ReturnTally,
    /// How many were connected, about once a second, from when the crowd was gathered.
    pub over_time: Vec<Sample>,
    /// How many are connected now.
    pub open: u64,
    /// The most that were on their way at once.
    pub arriving_max: u64,
    /// Of each target: those connected now, and all registrations.
    pub by_target: Vec<(String, u64, u64)>,
}

/// How a crowd fared that was only held.
#[derive(Clone, Debug)]
pub struct Weathered {
    /// When all were connected for the first time, if they ever were.
    pub all_open: Option<Duration>,
    /// What of this host stopped the opening, if anything did.
    pub limit: Option<HostLimit>,
    pub returned: Returned,
}

/// How a volley of direct messages went.
#[derive(Clone, Debug)]
pub struct Talked {
    pub sent: u64,
    pub received: u64,
    pub took: Duration,
    /// Sender to receiver, in nanoseconds.
    pub latency: Histogram<u64>,
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
            counts: Counts::default(),
        })
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
        Ok(Opened {
            took,
            open: self.counts.open,
            limit,
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

    /// Opens all connections and holds them; who loses one comes back, and nobody does anything
    /// else. Ends when the time is over, or sooner when it is told to.
    pub fn weather(
        &mut self,
        lasts: Duration,
        should_stop: &AtomicBool,
    ) -> Result<Weathered, CrowdError> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let began = Instant::now();
        self.begin_opening(self.plan.clients)?;
        let mut all_open = None;
        while began.elapsed() < lasts && !should_stop.load(Relaxed) {
            self.keep_watch()?;
            if all_open.is_none() && self.is_everybody_here() {
                all_open = Some(began.elapsed());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let parts = self.collect()?;
        Ok(Weathered {
            all_open,
            limit: parts.iter().filter_map(|part| part.limit).min(),
            returned: self.returned(&parts)?,
        })
    }

    /// Looks how many are connected, if it is time for that, and whether a worker has died.
    fn keep_watch(&mut self) -> Result<(), CrowdError> {
        let is_due = |last: &Sample| {
            let secs = self.presence.began.elapsed().as_secs_f64();
            secs >= last.secs + SAMPLE_EVERY.as_secs_f64()
        };
        if self.over_time.last().is_none_or(is_due) {
            self.over_time
                .push(self.presence.sample(&self.plan.targets));
        }
        while let Ok(report) = self.reports.try_recv() {
            if let Report::Died(error) = report {
                return Err(CrowdError::Worker(error));
            }
        }
        Ok(())
    }

    /// True if all are connected that have not been sent away for good.
    fn is_everybody_here(&self) -> bool {
        let open = self.presence.sample(&self.plan.targets).open;
        open + self.presence.stopped() >= self.plan.clients as u64
    }

    fn returned(&mut self, parts: &[Part]) -> Result<Returned, CrowdError> {
        let mut tally = ReturnTally::default();
        for part in parts.iter().filter_map(|part| part.returns.as_ref()) {
            tally.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        let last = self.presence.sample(&self.plan.targets);
        let open = last.open;
        self.over_time.push(last);
        let targets = self.plan.targets.all();
        let by_target = targets.iter().map(|target| {
            let (open, registered) = (target.open.load(Relaxed), target.registered.load(Relaxed));
            (target.url.clone(), open, registered)
        });
        Ok(Returned {
            tally,
            over_time: self.over_time.clone(),
            open,
            arriving_max: self.presence.arriving_max(),
            by_target: by_target.collect(),
        })
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
        let shared = Arc::new(Shared::new(messages));
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

    /// Has those who talk chat with their partners, so much of it; then waits until each message
    /// has come through and everybody is connected, at most for `patience`.
    pub fn chat(
        &mut self,
        flow: Flow,
        lasts: Duration,
        patience: Duration,
    ) -> Result<Chatted, CrowdError> {
        let chats = self.plan.chats.clone().ok_or(CrowdError::NoChats)?;
        let from = Instant::now();
        for (number, worker) in self.workers.iter().enumerate() {
            let (pairs, share) = (self.plan.pairs(), self.plan.share(number));
            let talkers = pairs.talkers_before(share.end) - pairs.talkers_before(share.start);
            let schedule = Schedule::new(from, lasts, flow.part(talkers, pairs.talkers));
            worker.send(Command::Chat { schedule })?;
        }
        self.beat_time(&chats, from + lasts, from + lasts + patience)?;
        let took = from.elapsed();
        chats.tell(|| What::Drained {});
        chats.flush().map_err(CrowdError::History)?;
        let mut tally = ChatTally::default();
        let parts = self.collect()?;
        for part in parts.iter().filter_map(|part| part.chat.as_ref()) {
            tally.add(part).map_err(|_| CrowdError::Stuck)?;
        }
        Ok(Chatted {
            returned: self.returned(&parts)?,
            issued: chats.issued(),
            is_settled: chats.are_settled(),
            took,
            tally,
        })
    }

    /// Wakes the workers at each slice of the schedule: a poll sleeps too long for that.
    fn beat_time(
        &mut self,
        chats: &Chats,
        until: Instant,
        deadline: Instant,
    ) -> Result<(), CrowdError> {
        const FLUSH_EVERY: u32 = 100;
        let mut beat = Instant::now();
        for count in 0_u32.. {
            let now = Instant::now();
            let is_settled = now >= until && chats.are_settled();
            if now >= deadline || (is_settled && self.is_everybody_here()) {
                break;
            }
            self.workers.iter().for_each(|worker| worker.bell.ring());
            if count.is_multiple_of(FLUSH_EVERY) {
                chats.flush().map_err(CrowdError::History)?;
                self.keep_watch()?;
            }
            // Slices that were slept through are made up for in the next one.
            beat = (beat + SLICE).max(now);
            std::thread::sleep(beat.saturating_duration_since(now));
        }
        Ok(())
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

    /// Waits until so many workers are done with `task`; being late is no error.
    fn wait_done(&self, task: u32, workers: usize, deadline: Instant) -> Result<(), CrowdError> {
        let mut done = 0;
        while done < workers {
            match self.next_report(deadline) {
                Ok(Report::Done { task: of }) if of == task => done += 1,
                Ok(_) => {}
                Err(CrowdError::Stuck) => return Ok(()),
                Err(error) => return Err(error),
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
