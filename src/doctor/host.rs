//! What a host says of itself: files below /proc and /sys, and what only system calls tell.
//!
//! Owns: [`Host`], plain values. None: the host does not say, as a container or another kernel
//! may not; then it is not judged.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

use crate::cgroup;
use crate::sys;

/// The capability to raise hard limits (capabilities(7)).
const CAP_SYS_RESOURCE: u32 = 24;

#[derive(Clone, Debug)]
pub struct Host {
    pub answers: Answers,
    /// Soft and hard limit of descriptors.
    pub nofile: (u64, u64),
    /// Root could raise the hard one; not so where a container took away the right.
    pub may_raise_nofile: bool,
    pub is_container: bool,
    pub nr_open: Option<u64>,
    pub file_max: u64,
    pub files_open: u64,
    pub epoll_watches_max: Option<u64>,
    pub somaxconn: Option<u64>,
    pub syn_cookies: Option<u64>,
    pub syn_backlog: Option<u64>,
    pub port_range: Option<(u16, u16)>,
    /// Ranges, both ends within.
    pub reserved_ports: Vec<(u16, u16)>,
    /// Connections that are tracked, and how many may be; none: no tracking is loaded.
    pub tracked: Option<(u64, u64)>,
    pub tcp_mem: Option<[u64; 3]>,
    pub tcp_pages_used: u64,
    /// Each limits: bytes.
    pub memory: Vec<Share>,
    /// Each limits: threads.
    pub threads: Vec<Share>,
}

/// What no file says.
#[derive(Clone, Debug)]
pub struct Answers {
    /// As many as control groups and affinity leave to this process.
    pub cores: usize,
    /// The system call that gives a thread a descriptor table of its own.
    pub way_to_private_tables: Option<&'static str>,
    pub now_secs: u64,
    /// None: it may not be asked.
    pub clock_is_kept: Option<bool>,
}

/// Something of which there is so much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Whose limit it is: a file of a control group, a key of sysctl.
    pub name: String,
    pub is_of_group: bool,
    pub limit: u64,
    pub used: u64,
}

impl Share {
    pub fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl Answers {
    pub fn of_this_host() -> Answers {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Answers {
            cores: thread::available_parallelism().map_or(1, usize::from),
            way_to_private_tables: sys::way_to_private_file_tables(),
            now_secs: now.map_or(0, |time| time.as_secs()),
            clock_is_kept: sys::clock_is_kept().ok(),
        }
    }
}

impl Host {
    /// Reads the files below `root`, which is `/` but in tests.
    /// Errors: what every Linux says cannot be read.
    pub fn read(root: &Path, answers: Answers) -> io::Result<Host> {
        let files = Files { root };
        let limits = files.must("proc/self/limits")?;
        let file_nr = numbers(&files.must("proc/sys/fs/file-nr")?);
        let [files_open, _, file_max] = file_nr[..] else {
            return Err(io::Error::other(
                "/proc/sys/fs/file-nr is not three numbers",
            ));
        };
        let nofile = nofile(&limits)
            .ok_or_else(|| io::Error::other("/proc/self/limits has no open files"))?;
        let range = files.numbers("proc/sys/net/ipv4/ip_local_port_range");
        let tcp_mem = files.numbers("proc/sys/net/ipv4/tcp_mem");
        Ok(Host {
            answers,
            nofile,
            may_raise_nofile: files.has_capability(CAP_SYS_RESOURCE),
            is_container: files.has(".dockerenv") || files.has("run/.containerenv"),
            nr_open: files.number("proc/sys/fs/nr_open"),
            file_max,
            files_open,
            epoll_watches_max: files.number("proc/sys/fs/epoll/max_user_watches"),
            somaxconn: files.number("proc/sys/net/core/somaxconn"),
            syn_cookies: files.number("proc/sys/net/ipv4/tcp_syncookies"),
            syn_backlog: files.number("proc/sys/net/ipv4/tcp_max_syn_backlog"),
            port_range: port_range(&range),
            reserved_ports: files.reserved_ports(),
            tracked: files.tracked(),
            tcp_mem: tcp_mem.try_into().ok(),
            tcp_pages_used: files.tcp_pages_used().unwrap_or(0),
            memory: files.memory(),
            threads: files.threads(),
        })
    }
}

/// Soft and hard, by `/proc/self/limits`.
fn nofile(limits: &str) -> Option<(u64, u64)> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace();
    let mut next = || match words.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((next()?, next()?))
}

fn port_range(range: &[u64]) -> Option<(u16, u16)> {
    let [low, high] = range[..] else {
        return None;
    };
    Some((low.try_into().ok()?, high.try_into().ok()?))
}

fn numbers(text: &str) -> Vec<u64> {
    let words = text.split_whitespace();
    words.map_while(|word| word.parse().ok()).collect()
}

/// The number behind a name, as in `MemTotal:  16303428 kB`.
fn named(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix([':', ' ']))?;
    numbers(line).first().copied()
}

struct Files<'a> {
    root: &'a Path,
}

impl Files<'_> {
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    fn must(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.path(path))
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read /{path}: {error}")))
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    fn numbers(&self, path: &str) -> Vec<u64> {
        numbers(&self.text(path).unwrap_or_default())
    }

    fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// Whether any program here may have it: what is not in the bounding set, root lacks too.
    fn has_capability(&self, number: u32) -> bool {
        let status = self.text("proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let bounds = lines.find_map(|line| line.strip_prefix("CapBnd:"));
        let bits = bounds.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        bits.is_some_and(|bits| bits >> number & 1 == 1)
    }

    fn reserved_ports(&self) -> Vec<(u16, u16)> {
        let path = "proc/sys/net/ipv4/ip_local_reserved_ports";
        let text = self.text(path).unwrap_or_default();
        let range = |text: &str| {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            Some((low.parse().ok()?, high.parse().ok()?))
        };
        text.trim().split(',').filter_map(range).collect()
    }

    fn tracked(&self) -> Option<(u64, u64)> {
        let folder = "proc/sys/net/netfilter";
        let count = self.number(format!("{folder}/nf_conntrack_count"))?;
        Some((count, self.number(format!("{folder}/nf_conntrack_max"))?))
    }

    fn tcp_pages_used(&self) -> Option<u64> {
        let text = self.text("proc/net/sockstat")?;
        let line = text.lines().find(|line| line.starts_with("TCP:"))?;
        let (_, pages) = line.split_once(" mem ")?;
        pages.trim().parse().ok()
    }

    fn memory(&self) -> Vec<Share> {
        let info = self.text("proc/meminfo").unwrap_or_default();
        let kib = |name| Some(named(&info, name)? * 1024);
        let of_host = kib("MemTotal").zip(kib("MemAvailable"));
        let of_host = of_host.map(|(limit, free)| Share {
            name: "MemAvailable".to_owned(),
            is_of_group: false,
            limit,
            used: limit.saturating_sub(free),
        });
        // `high` slows down long before `max` kills; version 1 has only the one.
        let limits = [
            ("memory.max", "memory.limit_in_bytes"),
            ("memory.high", "memory.limit_in_bytes"),
        ];
        let of_groups = limits.into_iter().flat_map(|limit| {
            let used = ("memory.current", "memory.usage_in_bytes");
            self.of_groups("memory", limit, used)
        });
        of_host.into_iter().chain(of_groups).collect()
    }

    fn threads(&self) -> Vec<Share> {
        // The fourth word is running/all.
        let used = self.text("proc/loadavg").and_then(|text| {
            let word = text.split_whitespace().nth(3)?;
            word.split_once('/')?.1.parse().ok()
        });
        let used = used.unwrap_or(0);
        let of_host = ["kernel.threads-max", "kernel.pid_max"].map(|key| {
            let limit = self.number(format!("proc/sys/{}", key.replace('.', "/")))?;
            Some(Share {
                name: key.to_owned(),
                is_of_group: false,
                limit,
                used,
            })
        });
        let of_groups = self.of_groups(
            "pids",
            ("pids.max", "pids.max"),
            ("pids.current", "pids.current"),
        );
        of_host.into_iter().flatten().chain(of_groups).collect()
    }

    /// What the control groups limit; files are named for both versions.
    fn of_groups(&self, controller: &str, limit: (&str, &str), used: (&str, &str)) -> Vec<Share> {
        let groups = self.text("proc/self/cgroup").unwrap_or_default();
        let folders = cgroup::folders(&groups, controller).into_iter();
        let share = |folder: cgroup::Folder| {
            let file = folder.file(limit.0, limit.1);
            let limit = cgroup::limit(&self.text(&file)?)?;
            let used = self.number(folder.file(used.0, used.1)).unwrap_or(0);
            // The page cache of files counts, and goes where it must.
            let stat = self.text(folder.file("memory.stat", "memory.stat"));
            let stat = stat.unwrap_or_default();
            let cached = named(&stat, "total_inactive_file").or(named(&stat, "inactive_file"));
            Some(Share {
                name: file.file_name()?.to_string_lossy().into_owned(),
                is_of_group: true,
                limit,
                used: used.saturating_sub(match controller {
                    "memory" => cached.unwrap_or(0),
                    _ => 0,
                }),
            })
        };
        folders.filter_map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files that goes with its owner.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let name = format!("throng-host-{name}-{}", std::process::id());
            let tree = Tree(std::env::temp_dir().join(name));
            let _ = fs::remove_dir_all(&tree.0);
            for (path, text) in files {
                let path = tree.0.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn read(&self) -> io::Result<Host> {
            Host::read(&self.0, Answers::of_this_host())
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            // It lies among temporary files.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const LEAST: [(&str, &str); 2] = [
        (
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max file size             unlimited            unlimited            bytes     \n\
             Max open files            1024                 unlimited            files     \n",
        ),
        ("proc/sys/fs/file-nr", "413\t0\t2466170\n"),
    ];

    #[test]
    fn the_least_that_a_host_says_is_enough() {
        let host = Tree::new("least", &LEAST).read().unwrap();
        assert_eq!(host.nofile, (1024, u64::MAX));
        assert_eq!((host.files_open, host.file_max), (413, 2_466_170));
        assert!(!host.may_raise_nofile && !host.is_container);
        assert_eq!(
            (host.nr_open, host.port_range, host.tracked),
            (None, None, None)
        );
        assert_eq!((host.memory, host.threads), (Vec::new(), Vec::new()));
        let error = Tree::new("nothing", &LEAST[..1]).read().unwrap_err();
        assert!(
            error.to_string().contains("/proc/sys/fs/file-nr"),
            "{error}"
        );
    }

    #[test]
    fn each_file_is_read_as_the_kernel_writes_it() {
        let files = [
            (
                "proc/self/status",
                "Name:\tx\nCapEff:\t0\nCapBnd:\t000001ffffffffff\n",
            ),
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            (
                "proc/sys/net/ipv4/ip_local_reserved_ports",
                "8084,9000-9010\n",
            ),
            ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "7\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
            (
                "proc/net/sockstat",
                "sockets: used 12\nTCP: inuse 1 orphan 0 tw 0 alloc 1 mem 297\nUDP: inuse 0 mem 5\n",
            ),
            (
                "proc/meminfo",
                "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n",
            ),
            ("proc/loadavg", "0.61 4.92 4.46 1/106 21388\n"),
            ("proc/sys/kernel/threads-max", "5000\n"),
            (".dockerenv", ""),
        ];
        let host = Tree::new("whole", &[&LEAST[..], &files[..]].concat());
        let host = host.read().unwrap();
        assert!(host.may_raise_nofile && host.is_container);
        assert_eq!(host.nr_open, Some(1_048_576));
        assert_eq!(host.port_range, Some((32_768, 60_999)));
        assert_eq!(host.reserved_ports, [(8084, 8084), (9000, 9010)]);
        assert_eq!(host.tcp_mem, Some([287_898, 383_867, 575_796]));
        assert_eq!(host.tcp_pages_used, 297);
        assert_eq!(host.tracked, Some((7, 262_144)));
        assert_eq!(host.memory[0].free(), 400 * 1024);
        assert_eq!((host.threads[0].limit, host.threads[0].used), (5000, 106));
    }

    #[test]
    fn a_right_that_the_container_took_away_is_missed() {
        let status = ("proc/self/status", "CapBnd:\t000001fffeffffff\n");
        let host = Tree::new("rights", &[&LEAST[..], &[status]].concat());
        assert!(!host.read().unwrap().may_raise_nofile);
    }

    #[test]
    fn groups_of_both_versions_limit_less_what_they_can_drop() {
        let second = [
            ("proc/self/cgroup", "0::/apps/throng\n"),
            ("sys/fs/cgroup/apps/throng/memory.max", "max\n"),
            ("sys/fs/cgroup/apps/throng/memory.high", "4000\n"),
            ("sys/fs/cgroup/apps/throng/memory.current", "900\n"),
            (
                "sys/fs/cgroup/apps/throng/memory.stat",
                "anon 1\ninactive_file 400\n",
            ),
            ("sys/fs/cgroup/apps/pids.max", "64\n"),
            ("sys/fs/cgroup/apps/pids.current", "4\n"),
        ];
        let host = Tree::new("second", &[&LEAST[..], &second[..]].concat());
        let host = host.read().unwrap();
        let seen: Vec<_> = host
            .memory
            .iter()
            .map(|one| (&*one.name, one.free()))
            .collect();
        assert_eq!(seen, [("memory.high", 3500)]);
        assert_eq!(host.threads[0].free(), 60);
        let first = [
            ("proc/self/cgroup", "4:memory:/a\n3:pids:/b\n0::/\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1000\n"),
            (
                "sys/fs/cgroup/memory/a/memory.stat",
                "total_inactive_file 100\n",
            ),
            ("sys/fs/cgroup/pids/b/pids.max", "max\n"),
        ];
        let host = Tree::new("first", &[&LEAST[..], &first[..]].concat());
        let host = host.read().unwrap();
        assert!(
            host.memory
                .iter()
                .all(|one| one.free() == 4100 && one.is_of_group)
        );
        assert!(host.threads.is_empty());
    }
}
