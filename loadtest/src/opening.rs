//! Opening connections: pace, window, deadlines, and the limits of this host.
//!
//! Owns: how many are to be opened, how many are under way, and since when.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::plan::Plan;

/// Connections begun in one turn at most, so that those under way are served in between.
pub const BURST_MAX: usize = 64;

/// The receive buffer of a slow client, in the kernel.
const SLOW_BUFFER_BYTES: usize = 4 << 10;

/// A limit of this host that stopped the opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostLimit {
    /// EMFILE
    Descriptors,
    /// ENFILE
    SystemDescriptors,
    /// EADDRNOTAVAIL or, on bind, EADDRINUSE
    Ports,
    /// ENOBUFS or ENOMEM
    Memory,
}

impl HostLimit {
    fn of(error: &io::Error) -> Option<HostLimit> {
        // As errno(3) names them on Linux.
        const ENOMEM: i32 = 12;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const EADDRINUSE: i32 = 98;
        const EADDRNOTAVAIL: i32 = 99;
        const ENOBUFS: i32 = 105;
        match error.raw_os_error()? {
            EMFILE => Some(HostLimit::Descriptors),
            ENFILE => Some(HostLimit::SystemDescriptors),
            EADDRINUSE | EADDRNOTAVAIL => Some(HostLimit::Ports),
            ENOMEM | ENOBUFS => Some(HostLimit::Memory),
            _ => None,
        }
    }
}

impl std::fmt::Display for HostLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            HostLimit::Descriptors => {
                "EMFILE: a file table is full (ulimit -n); more --threads have more tables"
            }
            HostLimit::SystemDescriptors => {
                "ENFILE: the whole system is out of files (fs.file-max)"
            }
            HostLimit::Ports => {
                "EADDRNOTAVAIL: no local port is left to this destination; more --source addresses \
                 or a wider net.ipv4.ip_local_port_range help"
            }
            HostLimit::Memory => "ENOBUFS: the kernel has no memory for another socket",
        })
    }
}

/// One worker's newcomers.
pub struct Opening {
    next: u32,
    until: u32,
    /// Those that are under way, and since when.
    arriving: HashMap<u32, Instant>,
    window: usize,
    /// For one connection to be registered.
    patience: Duration,
    /// For each that is under way or was: when it must be registered.
    deadlines: VecDeque<(Instant, u32)>,
    /// Time between two, and when the next is due.
    pace: Option<(Duration, Instant)>,
    pub limit: Option<HostLimit>,
}

impl Opening {
    pub fn new(plan: &Plan, first: u32) -> Opening {
        let share = plan.threads as f64;
        let pace = plan.rate.map(|rate| {
            (
                Duration::from_secs_f64((share / rate.max(0.001)).min(3600.0)),
                Instant::now(),
            )
        });
        Opening {
            next: first,
            until: first,
            arriving: HashMap::new(),
            window: plan.window.div_ceil(plan.threads).max(1),
            patience: plan.handshake_patience,
            deadlines: VecDeque::new(),
            pace,
            limit: None,
        }
    }

    pub fn open_until(&mut self, until: u32, now: Instant) {
        self.until = until.max(self.next);
        if let Some((_, due)) = &mut self.pace {
            *due = now;
        }
    }

    /// How many more may be under way, at most [`BURST_MAX`].
    fn room(&self) -> usize {
        self.window
            .saturating_sub(self.arriving.len())
            .min(BURST_MAX)
    }

    /// The clients to begin now, at most [`BURST_MAX`].
    pub fn due(&mut self, now: Instant) -> std::ops::Range<u32> {
        let mut count = (self.until - self.next).min(self.room() as u32);
        if let Some((every, due)) = &mut self.pace {
            let behind = now.saturating_duration_since(*due).as_secs_f64();
            let allowed = if now < *due {
                0
            } else {
                (behind / every.as_secs_f64()) as u32 + 1
            };
            count = count.min(allowed);
            *due += *every * count;
        }
        let first = self.next;
        self.next += count;
        first..self.next
    }

    pub fn began(&mut self, index: u32, now: Instant) {
        self.arriving.insert(index, now);
        self.deadlines.push_back((now + self.patience, index));
    }

    /// One is registered, or has failed on the way. When it began.
    pub fn arrived(&mut self, index: u32) -> Option<Instant> {
        let began = self.arriving.remove(&index);
        if self.arriving.is_empty() {
            // Of a large crowd they need as much room as the crowd itself.
            self.deadlines = VecDeque::new();
        }
        began
    }

    pub fn arriving(&self) -> usize {
        self.arriving.len()
    }

    /// The host gives no more: those that were to come do not.
    pub fn stop(&mut self, limit: Option<HostLimit>, next: u32) {
        self.limit = self.limit.or(limit);
        self.next = next;
        self.until = next;
    }

    /// The next client whose time is over, whether it has arrived or not.
    pub fn overdue(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, index) = self.deadlines.front()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_front();
        Some(index)
    }

    pub fn is_done(&self) -> bool {
        self.next == self.until && self.arriving.is_empty()
    }

    /// How long the worker may sleep; forever if nothing is under way.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        const DEADLINE_CHECK: Duration = Duration::from_millis(100);
        if self.is_done() {
            return None;
        }
        if self.next == self.until || self.arriving.len() >= self.window {
            return Some(DEADLINE_CHECK);
        }
        let until_due = self.pace.map_or(Duration::ZERO, |(_, due)| {
            due.saturating_duration_since(now)
        });
        Some(until_due.min(DEADLINE_CHECK))
    }
}

/// Begins the connection of client `index` to this address.
pub fn dial(
    plan: &Plan,
    index: u32,
    to: SocketAddr,
) -> Result<TcpStream, (io::Error, Option<HostLimit>)> {
    let classed = |error: io::Error| {
        let limit = HostLimit::of(&error);
        (error, limit)
    };
    let begin = || {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        if plan.is_slow(index) {
            // What it does not read, the server is to keep.
            socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
        }
        if let Some(source) = plan.source(index, to) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if !is_under_way(&error) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    };
    begin().map_err(classed)
}

fn is_under_way(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.raw_os_error() == Some(EINPROGRESS) || error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Who;

    fn plan(rate: Option<f64>) -> Plan {
        let mut plan = Plan::new("ws://127.0.0.1:1/", Who::Openid, "", 1000).unwrap();
        (plan.rate, plan.window) = (rate, 10);
        plan
    }

    #[test]
    fn no_more_are_under_way_than_the_window_holds() {
        let now = Instant::now();
        let mut opening = Opening::new(&plan(None), 100);
        opening.open_until(112, now);
        let due = opening.due(now);
        assert_eq!(due, 100..110);
        due.for_each(|index| opening.began(index, now));
        assert_eq!(opening.due(now), 110..110);
        assert_eq!(opening.arrived(100), Some(now));
        assert_eq!(opening.due(now), 110..111);
        assert!(!opening.is_done());
    }

    #[test]
    fn a_rate_is_kept_over_time() {
        let now = Instant::now();
        let mut opening = Opening::new(&plan(Some(100.0)), 0);
        opening.open_until(1000, now);
        let mut begun = 0;
        for millis in 0..=100 {
            begun += opening.due(now + Duration::from_millis(millis)).len();
        }
        assert_eq!(begun, 11, "one at once and ten in a tenth of a second");
    }

    #[test]
    fn a_limit_ends_the_opening_and_is_remembered() {
        let now = Instant::now();
        let mut opening = Opening::new(&plan(None), 0);
        opening.open_until(1000, now);
        let due = opening.due(now);
        opening.began(due.start, now);
        opening.stop(Some(HostLimit::Ports), due.start + 1);
        assert!(!opening.is_done(), "one is still under way");
        assert_eq!(opening.overdue(now), None);
        assert_eq!(opening.overdue(now + opening.patience), Some(0));
        opening.arrived(0);
        assert!(opening.is_done());
        assert_eq!(
            (opening.limit, opening.overdue(now)),
            (Some(HostLimit::Ports), None)
        );
    }
}
