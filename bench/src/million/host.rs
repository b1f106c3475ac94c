//! What the kernel says of this machine while the crowd is there, and of the two processes.
//!
//! Owns: the thread that looks once a second.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use throng_loadtest::host::Host;
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

/// One look.
#[derive(Clone, Debug, Serialize)]
pub struct Look {
    pub secs: f64,
    /// Share of one core since the look before.
    pub server_cpu: f64,
    pub clients_cpu: f64,
    pub server_bytes: u64,
    pub clients_bytes: u64,
    pub available_bytes: u64,
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
                let host = Host::read();
                looks.push(Look {
                    secs: (now.0 - began).as_secs_f64(),
                    server_cpu: share(&last.1, &now.1),
                    clients_cpu: share(&last.2, &now.2),
                    server_bytes: anonymous_bytes(server).unwrap_or(0),
                    clients_bytes: anonymous_bytes(clients).unwrap_or(0),
                    available_bytes: host.available_bytes.unwrap_or(0),
                    sockets: host.tcp_sockets.unwrap_or(0),
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
