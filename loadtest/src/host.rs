//! What the host tells of itself in /proc: its CPUs, its memory, its sockets, and the queues and
//! tables that ran over.

use std::fs::read_to_string;

use serde::Serialize;

const PAGE_BYTES: u64 = 4096;

/// What there was at one moment. A file that cannot be read, or that this kernel has not, is none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Host {
    /// Since the host began, in ticks of all CPUs: all of them, and the idle ones.
    #[serde(skip)]
    pub ticks: Option<(u64, u64)>,
    pub available_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub tcp_sockets: Option<u64>,
    pub time_wait: Option<u64>,
    pub tcp_bytes: Option<u64>,
    /// Above that, TCP begins to take memory away from its connections.
    pub tcp_bytes_max: Option<u64>,
    /// Connections that found the queue of their listener full, since the host began.
    pub listen_overflows: Option<u64>,
    /// Times that TCP ran short of memory, since the host began.
    pub memory_pressures: Option<u64>,
    /// Connections in the table of those that are tracked, and how many it holds.
    pub tracked: Option<u64>,
    pub tracked_max: Option<u64>,
}

impl Host {
    pub fn read() -> Host {
        let text = |path: &str| read_to_string(path).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse().ok();
        let memory = text("/proc/meminfo");
        let sockets = text("/proc/net/sockstat");
        let tcp = |name: &str| after(line(&sockets, "TCP:")?, name);
        let netstat = text("/proc/net/netstat");
        let bounds = text("/proc/sys/net/ipv4/tcp_mem");
        let pages_max = bounds.split_whitespace().nth(1);
        Host {
            ticks: ticks(&text("/proc/stat")),
            available_bytes: kibibytes(&memory, "MemAvailable:"),
            total_bytes: kibibytes(&memory, "MemTotal:"),
            tcp_sockets: tcp("inuse"),
            time_wait: tcp("tw"),
            tcp_bytes: tcp("mem").map(|pages| pages * PAGE_BYTES),
            tcp_bytes_max: pages_max
                .and_then(|pages| pages.parse::<u64>().ok())
                .and_then(|pages| pages.checked_mul(PAGE_BYTES)),
            listen_overflows: counter(&netstat, "ListenOverflows"),
            memory_pressures: counter(&netstat, "TCPMemoryPressures"),
            tracked: number("/proc/sys/net/netfilter/nf_conntrack_count"),
            tracked_max: number("/proc/sys/net/netfilter/nf_conntrack_max"),
        }
    }

    /// Of all CPUs, the share that was busy since an earlier moment.
    pub fn busy_since(&self, earlier: &Host) -> Option<f64> {
        let ((all, idle), (all_before, idle_before)) = (self.ticks?, earlier.ticks?);
        let passed = all.checked_sub(all_before).filter(|passed| *passed > 0)?;
        let idled = idle.saturating_sub(idle_before);
        Some(1.0 - (idled as f64 / passed as f64).min(1.0))
    }
}

/// What figures were made with.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub memory_bytes: u64,
    /// `Linux` and the version, without what a distributor has made of its name.
    pub kernel: String,
}

impl Machine {
    pub fn read() -> Machine {
        let release = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: Host::read().total_bytes.unwrap_or(0),
            kernel: kernel(&release),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gibibytes = self.memory_bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{} cores, {gibibytes:.0} GiB, {}",
            self.cores, self.kernel
        )
    }
}

fn kernel(release: &str) -> String {
    let version = release.trim().split('-').next().unwrap_or_default();
    format!("Linux {version}")
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let fields = line(stat, "cpu ")?.split_whitespace().take(8);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((ticks.iter().sum(), idle))
}

/// What follows `name` in the line that begins with it.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// The number behind a word.
fn after(line: &str, name: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let number: u64 = line(text, name)?.split_whitespace().next()?.parse().ok()?;
    Some(number * 1024)
}

/// A counter of TcpExt: one line has the names, and the next one the numbers.
fn counter(netstat: &str, name: &str) -> Option<u64> {
    let mut lines = netstat.lines().filter_map(|l| l.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let stat = "cpu  40 10 20 100 5 0 3 2 7 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(ticks(stat), Some((180, 105)));
        let netstat = "TcpExt: SyncookiesSent ListenOverflows\nTcpExt: 0 17\nIpExt: A\nIpExt: 1\n";
        assert_eq!(counter(netstat, "ListenOverflows"), Some(17));
        assert_eq!(counter(netstat, "TCPMemoryPressures"), None);
        assert_eq!(
            after(" inuse 3 orphan 0 tw 9 alloc 3 mem 37", "tw"),
            Some(9)
        );
        assert_eq!(kibibytes("MemTotal:  2 kB\n", "MemTotal:"), Some(2048));
    }

    #[test]
    fn a_kernel_has_its_number() {
        assert_eq!(kernel("6.18.44-cloud-amd64\n"), "Linux 6.18.44");
    }

    #[test]
    fn a_share_of_the_cpus_is_busy() {
        let at = |ticks| Host {
            ticks: Some(ticks),
            ..Host::default()
        };
        let busy = at((300, 150)).busy_since(&at((100, 100)));
        assert_eq!(busy, Some(0.75));
        assert_eq!(at((100, 100)).busy_since(&at((100, 100))), None);
    }

    #[test]
    fn this_host_tells_of_itself() {
        let host = Host::read();
        assert!(host.ticks.is_some() && host.total_bytes > Some(0));
    }
}
