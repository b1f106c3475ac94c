//! What a crowd takes: memory, threads, CPU; and the clock by which its tokens end.

use super::Case;
use super::finding::{Finding, Mend, Status};
use super::host::Share;

/// Measured with idle connections, authenticated and registered: 216 (bench/README.md).
const USER_BYTES: u64 = 256;
/// Measured on Linux 6.18: about 4 KB for each idle end of a connection.
const KERNEL_BYTES: u64 = 4100;
/// The load client's own.
const CLIENT_BYTES: u64 = 300;
/// Measured with empty nodes: 22 MB resident with two reactors, and 1.6 MB for each further one.
const NODE_BYTES: u64 = 64 << 20;
const REACTOR_BYTES: u64 = 2 << 20;
/// What is left to write queues and everything else: the node's queues may take as much.
const SPARED_PART: u64 = 4;
/// Beside the reactors: storekeeper, control, Redis, signals.
const OTHER_THREADS: u64 = 32;
/// Measured: a ping and its pong take 9 us of CPU, a connection that comes back 23.
const PING_MICROS: f64 = 9.0;
const CONNECT_MICROS: f64 = 23.0;
/// Of a connected crowd so many have a page of a broadcast unread at once.
const SLOW_PART: u64 = 10;
/// 2026, when this was written, and 2100.
const PLAUSIBLE_SECS: std::ops::Range<u64> = 1_767_225_600..4_102_444_800;

impl Case<'_> {
    pub fn crowd(&self) -> Vec<Finding> {
        let all = [self.memory(), self.tcp_mem(), self.threads()];
        all.into_iter().flatten().chain([self.cpu()]).collect()
    }

    fn memory(&self) -> Option<Finding> {
        let share = smallest(&self.host.memory)?;
        let free = share.free();
        let clients = if self.args.with_clients {
            self.connections * CLIENT_BYTES
        } else {
            0
        };
        let node = NODE_BYTES + self.room.reactors as u64 * REACTOR_BYTES;
        let needed = self.ends() * KERNEL_BYTES + self.connections * USER_BYTES + clients + node;
        let status = if needed > free {
            Status::Fail
        } else {
            Status::Warn
        };
        let is_good = needed <= free / SPARED_PART * (SPARED_PART - 1);
        let wanted = (share.used + needed / (SPARED_PART - 1) * SPARED_PART).div_ceil(1 << 30);
        let more = if share.is_of_group {
            let command = format!("systemctl set-property throng.service MemoryMax={wanted}G");
            vec![
                Mend::service(command, "MemoryMax", format!("{wanted}G")),
                Mend::once(format!("docker update --memory {wanted}g CONTAINER")),
            ]
        } else {
            let sentence = format!("a host with {wanted} GiB, or fewer connections on each node");
            vec![Mend::once(sentence)]
        };
        let finding = Finding::new(
            "memory",
            format!("{} free by {}", mib(free), share.name),
            format!("{} and a third more", mib(needed)),
        )
        .because(
            "4.1 KB in the kernel for each idle end of a connection and 256 bytes in the node; a \
            control group counts both. What is left is for write queues in a broadcast.",
        )
        .unless(is_good, status, more);
        Some(finding)
    }

    fn tcp_mem(&self) -> Option<Finding> {
        let [low, pressure, high] = self.host.tcp_mem?;
        let needed = self.ends() / SLOW_PART + self.host.tcp_pages_used;
        let wanted = [needed - needed / 4, needed, needed + needed / 4];
        let wanted = wanted.map(|pages| pages.to_string()).join(" ");
        let finding = Finding::new(
            "net.ipv4.tcp_mem",
            format!("{low} {pressure} {high} pages"),
            format!("{needed} in the middle"),
        )
        .because(
            "Idle connections need none. A broadcast takes a page for each client that has not \
            taken it yet, a tenth of all at once; past the middle value the kernel saves.",
        )
        .unless(
            pressure >= needed,
            Status::Warn,
            [Mend::sysctl("net.ipv4.tcp_mem", wanted)],
        );
        Some(finding)
    }

    fn threads(&self) -> Option<Finding> {
        let share = smallest(&self.host.threads)?;
        let needed = 2 * self.room.reactors as u64 + OTHER_THREADS;
        let wanted = share.used + needed;
        let mends = if share.is_of_group {
            let command = format!("systemctl set-property throng.service TasksMax={wanted}");
            vec![
                Mend::service(command, "TasksMax", wanted),
                Mend::once(format!("docker update --pids-limit {wanted} CONTAINER")),
            ]
        } else {
            vec![Mend::sysctl(&share.name, wanted.next_power_of_two())]
        };
        let now = format!("{} free by {}", share.free(), share.name);
        let finding = Finding::new("threads", now, needed)
            .because(
                "A reactor is a thread, another one waits for its end, and some stand beside them.",
            )
            .unless(share.free() >= needed, Status::Fail, mends);
        Some(finding)
    }

    fn cpu(&self) -> Finding {
        let cores = self.host.answers.cores;
        let connections = self.connections as f64;
        let ping_secs = self.config.limits.ping_secs;
        let of_pings = match ping_secs {
            0 => 0.0,
            secs => connections * PING_MICROS / 1e6 / f64::from(secs),
        };
        let storm = connections * CONNECT_MICROS / 1e6 / cores as f64;
        let rarer = Mend::key(self.config_file(), "ping_secs", ping_secs.saturating_mul(2));
        Finding::new(
            "cpu",
            format!("{cores} cores: all return in {storm:.0} s"),
            format!("{of_pings:.1} for heartbeats"),
        )
        .because("What half of the CPU does for heartbeats is not there for messages.")
        .unless(of_pings <= cores as f64 / 2.0, Status::Warn, [rarer])
    }

    pub fn clock(&self) -> Vec<Finding> {
        let now = self.host.answers.now_secs;
        let is_plausible = PLAUSIBLE_SECS.contains(&now);
        let is_kept = self.host.answers.clock_is_kept;
        let says = match is_kept {
            Some(true) => "kept right",
            Some(false) => "kept by nobody",
            None => "cannot be asked",
        };
        let status = if is_plausible {
            Status::Warn
        } else {
            Status::Fail
        };
        let date = jiff::Timestamp::from_second(now.try_into().unwrap_or(i64::MAX));
        let date = date.map_or("no date".to_owned(), |date| {
            date.strftime("%Y-%m-%d %H:%M").to_string()
        });
        let finding = Finding::new("clock", format!("{date}, {says}"), "right to seconds (UTC)")
            .because(
                "Tokens end by it, and delayed messages wait for it. A container has its host's.",
            )
            .unless(
                is_plausible && is_kept == Some(true),
                status,
                [Mend::once("timedatectl set-ntp true")],
            );
        vec![finding]
    }
}

fn smallest(shares: &[Share]) -> Option<&Share> {
    shares.iter().min_by_key(|share| share.free())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
