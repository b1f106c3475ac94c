//! Looks once a second at how the crowd is doing, at its own process, at the servers' processes
//! and at the host. A part of the program, not of the library.
//!
//! Owns: the samples, and all latencies of the run.
//! Neighbours: the progress is told each sample; `findings` and the report read them at the end.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use throng_loadtest::Counts;
use throng_loadtest::host::Host;
use throng_loadtest::process::{CpuSample, Memory};
use throng_loadtest::pulse::{Latencies, Pulse};
use throng_loadtest::slab::Slab;

use crate::progress::Progress;

const EVERY: Duration = Duration::from_secs(1);

/// How everything was at one moment. What is counted is counted from the beginning; latencies,
/// CPU time and shares are of the time since the sample before.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    pub secs: f64,
    pub attempted: u64,
    pub registered: u64,
    pub open: u64,
    pub arriving: u64,
    pub frames: u64,
    pub bytes: u64,
    pub pings_answered: u64,
    /// Messages that have come to somebody.
    pub messages: u64,
    pub failures: BTreeMap<String, u64>,
    /// What of this host stopped the opening.
    pub limit: Option<String>,
    pub latencies: BTreeMap<&'static str, Quantiles>,
    pub client: Process,
    pub servers: Vec<Server>,
    /// Of all CPUs, the share that was busy.
    pub cpus_busy: Option<f64>,
    pub host: Host,
    /// What the kernel's caches have grown by that grow with connections.
    pub slab_bytes: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Quantiles {
    /// `histogram` is of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Quantiles {
        let millis = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Quantiles {
            count: histogram.len(),
            p50_ms: millis(0.5),
            p99_ms: millis(0.99),
            max_ms: histogram.max() as f64 / 1e6,
        }
    }
}

/// One process since the sample before.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Process {
    /// CPUs that it kept busy.
    pub cpus: f64,
    /// Of the thread that used most, the share of the time that it ran.
    pub busiest: f64,
    /// Of the thread that waited most for a CPU, the share of the time that it waited.
    pub waited: f64,
    pub anonymous_bytes: u64,
    pub resident_bytes: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub struct Server {
    pub pid: u32,
    /// None where there is no such process (any more).
    pub process: Option<Process>,
}

/// Everything that was seen.
pub struct Watched {
    pub samples: Vec<Sample>,
    pub latencies: Latencies,
    /// The kernel's caches when they were largest.
    pub slab: Option<Grown>,
    /// False for whom the kernel does not show them.
    pub is_slab_readable: bool,
    /// Others on this host opened connections, too, so that nobody can tell whose the slab is.
    pub is_disturbed: bool,
}

/// What the kernel's caches have grown by.
pub struct Grown {
    pub connections: u64,
    /// 2 where the server's sockets are on this host, too.
    pub ends: u64,
    pub caches: BTreeMap<String, u64>,
}

impl Grown {
    pub fn bytes(&self) -> u64 {
        self.caches.values().sum()
    }
}

pub struct Watch {
    thread: JoinHandle<Watched>,
    stop: Sender<()>,
}

impl Watch {
    /// The first look is taken before this returns: nobody is connected then.
    pub fn begin(pulse: Arc<Pulse>, servers: &[u32], progress: Progress) -> io::Result<Watch> {
        let mut observer = Observer::new(pulse, servers, progress);
        observer.look();
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || observer.watch(&stopped))?;
        Ok(Watch { thread, stop })
    }

    /// What was seen; nothing where the watching thread has failed.
    pub fn end(self) -> Option<Watched> {
        drop(self.stop);
        self.thread.join().ok()
    }
}

struct Observer {
    pulse: Arc<Pulse>,
    progress: Progress,
    client: Followed,
    servers: Vec<Followed>,
    slab_before: Option<Slab>,
    seen: Watched,
}

impl Observer {
    fn new(pulse: Arc<Pulse>, servers: &[u32], progress: Progress) -> Observer {
        let slab_before = Slab::read();
        Observer {
            pulse,
            progress,
            client: Followed::new(std::process::id()),
            servers: servers.iter().map(|pid| Followed::new(*pid)).collect(),
            seen: Watched {
                samples: Vec::new(),
                latencies: Latencies::new(),
                slab: None,
                is_slab_readable: slab_before.is_some(),
                is_disturbed: false,
            },
            slab_before,
        }
    }

    fn watch(mut self, stopped: &Receiver<()>) -> Watched {
        let mut next = Instant::now() + EVERY;
        loop {
            let sleep = next.saturating_duration_since(Instant::now());
            let is_over = stopped.recv_timeout(sleep) != Err(RecvTimeoutError::Timeout);
            self.look();
            if is_over {
                break;
            }
            next = (next + EVERY).max(Instant::now());
        }
        self.progress.end();
        self.seen
    }

    fn look(&mut self) {
        let look = self.pulse.look();
        let before = self.seen.samples.last();
        let host = Host::read();
        let counts = look.beat.counts;
        let came = look.lately.iter().filter(|(what, _)| what.is_message());
        let came: u64 = came.map(|(_, histogram)| histogram.len()).sum();
        let mut sample = Sample {
            secs: look.secs,
            attempted: counts.attempted,
            registered: counts.registered,
            open: counts.open,
            arriving: look.beat.arriving,
            frames: counts.frames,
            bytes: counts.bytes,
            pings_answered: counts.pings_answered,
            messages: before.map_or(0, |before| before.messages) + came,
            failures: failures(&counts),
            limit: look.beat.limit.map(|limit| limit.to_string()),
            latencies: look
                .lately
                .iter()
                .map(|(what, h)| (what.name(), Quantiles::of(h)))
                .collect(),
            client: self.client.look().unwrap_or_default(),
            servers: self.servers.iter_mut().map(Followed::server).collect(),
            cpus_busy: before.and_then(|before| host.busy_since(&before.host)),
            host,
            slab_bytes: None,
        };
        sample.slab_bytes = self.look_at_slab(sample.open, &sample.host);
        self.keep(look.lately);
        let before = self.seen.samples.last();
        self.progress.show(before, &sample, &self.seen.latencies);
        self.seen.samples.push(sample);
    }

    /// What the kernel's caches have grown by, if that is these connections' doing alone.
    fn look_at_slab(&mut self, connections: u64, host: &Host) -> Option<u64> {
        let first = self.seen.samples.first()?;
        let (before, now) = (first.host.tcp_sockets?, host.tcp_sockets?);
        let sockets = now.saturating_sub(before);
        let caches = self
            .slab_before
            .as_ref()?
            .growth(&Slab::read()?, connections)?;
        let Some(ends) = ends(sockets, connections) else {
            self.seen.is_disturbed |= sockets > connections;
            return None;
        };
        let grown = Grown {
            connections,
            ends,
            caches,
        };
        let bytes = grown.bytes();
        if self
            .seen
            .slab
            .as_ref()
            .is_none_or(|most| bytes > most.bytes())
        {
            self.seen.slab = Some(grown);
        }
        Some(bytes)
    }

    fn keep(&mut self, lately: Latencies) {
        for (what, histogram) in lately {
            let whole = self.seen.latencies.entry(what);
            // All of them have the same range, so they add up.
            whole
                .and_modify(|whole| *whole += &histogram)
                .or_insert(histogram);
        }
    }
}

/// How many ends of each connection are on this host, if there are no other new sockets.
fn ends(sockets: u64, connections: u64) -> Option<u64> {
    const TOLERANCE: f64 = 0.1;
    let each = sockets as f64 / connections.max(1) as f64;
    let is_so = |ends: &u64| (each / *ends as f64 - 1.0).abs() <= TOLERANCE;
    [1, 2].into_iter().find(is_so)
}

/// A process from one look to the next.
struct Followed {
    pid: u32,
    last: Option<(Instant, CpuSample)>,
}

impl Followed {
    fn new(pid: u32) -> Followed {
        Followed { pid, last: None }
    }

    fn server(&mut self) -> Server {
        Server {
            pid: self.pid,
            process: self.look(),
        }
    }

    fn look(&mut self) -> Option<Process> {
        let memory = Memory::of(self.pid).ok()?;
        let (now, cpu) = (Instant::now(), CpuSample::take(self.pid).ok()?);
        let mut process = Process {
            anonymous_bytes: memory.anonymous,
            resident_bytes: memory.resident,
            ..Process::default()
        };
        if let Some((then, before)) = &self.last {
            let passed = now.duration_since(*then).as_nanos().max(1) as f64;
            let threads = before.by_thread(&cpu);
            let share = |nanos: u64| (nanos as f64 / passed).min(1.0);
            let most = |nanos: Option<u64>| nanos.map_or(0.0, share);
            process.cpus = before.used_until(&cpu).nanos as f64 / passed;
            process.busiest = most(threads.iter().map(|(_, cpu)| cpu.ran).max());
            process.waited = most(threads.iter().map(|(_, cpu)| cpu.waited).max());
        }
        self.last = Some((now, cpu));
        Some(process)
    }
}

/// Everything that went wrong, by its cause.
fn failures(counts: &Counts) -> BTreeMap<String, u64> {
    let refused = counts.refused.iter();
    let refused = refused.map(|(status, count)| (format!("refused with HTTP {status}"), *count));
    let closed = counts.closes.iter();
    let closed = closed.map(|(code, count)| (format!("closed with {code}"), *count));
    let errors = counts.errors.iter();
    let errors = errors.map(|(cause, count)| (cause.clone(), *count));
    let wrong = [
        ("repeated or late", counts.repeated),
        ("misrouted", counts.misrouted),
        ("waited for by nobody", counts.stray),
        ("error frames", counts.refusals),
    ];
    let wrong = wrong
        .into_iter()
        .map(|(what, count)| (what.to_owned(), count));
    let all = refused.chain(closed).chain(errors).chain(wrong);
    all.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_seen_at_the_beginning_and_at_the_end() {
        let pulse = Arc::new(Pulse::default());
        let me = std::process::id();
        let watch = Watch::begin(pulse, &[me, u32::MAX], Progress::quiet()).unwrap();
        let seen = watch.end().unwrap();
        assert!(seen.samples.len() >= 2);
        for sample in &seen.samples {
            let [server, nobody] = sample.servers[..] else {
                panic!("two servers: {:?}", sample.servers);
            };
            assert!(server.process.is_some_and(|p| p.anonymous_bytes > 0));
            assert!(nobody.process.is_none());
        }
    }

    #[test]
    fn sockets_of_others_are_no_ends_of_these_connections() {
        let seen = [1003, 2050, 1500, 10].map(|sockets| ends(sockets, 1000));
        assert_eq!(seen, [Some(1), Some(2), None, None]);
    }

    #[test]
    fn whatever_goes_wrong_has_its_cause() {
        let counts = Counts {
            refused: [(503, 2)].into(),
            closes: [(1013, 1)].into(),
            errors: [("Too many open files".to_owned(), 4)].into(),
            misrouted: 3,
            ..Counts::default()
        };
        let causes: Vec<(String, u64)> = failures(&counts).into_iter().collect();
        let expected = [
            ("Too many open files", 4),
            ("closed with 1013", 1),
            ("misrouted", 3),
            ("refused with HTTP 503", 2),
        ];
        assert_eq!(
            causes,
            expected.map(|(cause, count)| (cause.to_owned(), count))
        );
    }
}
