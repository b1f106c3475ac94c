//! What the kernel says of this machine while the crowd is there, and of the two processes.
//!
//! Owns: the thread that looks once a second.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use throng_loadtest::process::{CpuSample, anonymous_bytes};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Settings that a crowd depends on, as they were.
#[derive(Clone, Debug, Serialize)]
pub struct Settings(pub BTreeMap<&'static str, String>);

impl Settings {
    pub fn read() -> Settings {
        let all = [
            "fs/file-max",
            "fs/nr_open",
            "net/core/somaxconn",
            "net/ipv4/ip_local_port_range",
            "net/ipv4/tcp_mem",
            "net/ipv4/tcp_max_tw_buckets",
            "net/netfilter/nf_conntrack_count",
        ];
        let read = |name: &'static str| {
            let text = std::fs::read_to_string(format!("/proc/sys/{name}"));
            let text = text.map_or("-".to_owned(), |text| {
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            });
            (name, text)
        };
        Settings(all.into_iter().map(read).collect())
    }
}

/// A line of /proc/meminfo, in bytes.
pub fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = text.lines().find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(':')?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    kibibytes.unwrap_or(0) * 1024
}

/// Bytes of each slab cache (/proc/slabinfo, which only root reads).
pub fn slabs() -> BTreeMap<String, u64> {
    const PAGE: u64 = 4096;
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let cache = |line: &str| {
        // name active_objs num_objs objsize objperslab pagesperslab : tunables … : slabdata active num …
        let fields: Vec<&str> = line.split_whitespace().collect();
        let pages: u64 = fields.get(5)?.parse().ok()?;
        let slabs: u64 = fields.get(14)?.parse().ok()?;
        Some((fields[0].to_owned(), pages * slabs * PAGE))
    };
    text.lines().skip(2).filter_map(cache).collect()
}

/// One look.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub secs: f64,
    /// Share of one core since the look before.
    pub server_cpu: f64,
    pub clients_cpu: f64,
    pub server_bytes: u64,
    pub clients_bytes: u64,
    pub slab_bytes: u64,
    /// Sockets that are connected, both ends (/proc/net/sockstat).
    pub sockets: u64,
}

/// Looks once a second from when it is started until it is asked.
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Look>>,
}

impl Watch {
    pub fn start(server: u32, clients: u32) -> Watch {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let began = Instant::now();
            let mut looks = Vec::new();
            let mut last = (
                began,
                CpuSample::take(server).ok(),
                CpuSample::take(clients).ok(),
            );
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK_EVERY) {
                let now = (
                    Instant::now(),
                    CpuSample::take(server).ok(),
                    CpuSample::take(clients).ok(),
                );
                let passed = (now.0 - last.0).as_nanos() as f64;
                let share = |before: &Option<CpuSample>, after: &Option<CpuSample>| {
                    let used = before.as_ref().zip(after.as_ref());
                    used.map_or(0.0, |(b, a)| b.used_until(a).nanos as f64 / passed)
                };
                looks.push(Look {
                    secs: (now.0 - began).as_secs_f64(),
                    server_cpu: share(&last.1, &now.1),
                    clients_cpu: share(&last.2, &now.2),
                    server_bytes: anonymous_bytes(server).unwrap_or(0),
                    clients_bytes: anonymous_bytes(clients).unwrap_or(0),
                    slab_bytes: meminfo("Slab"),
                    sockets: sockets(),
                });
                last = now;
            }
            looks
        });
        Watch { stop, thread }
    }

    pub fn looks(self) -> Vec<Look> {
        drop(self.stop);
        self.thread.join().unwrap_or_default()
    }
}

fn sockets() -> u64 {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let count = line.and_then(|line| line.split_whitespace().nth(2)?.parse().ok());
    count.unwrap_or(0)
}
