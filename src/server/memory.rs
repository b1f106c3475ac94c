//! How much memory this process may use: the host's, or less where a control group says so.
//!
//! Invariants: the smallest limit on the way from the process's group up to the root counts;
//! what cannot be read sets no limit.

use std::path::Path;

use crate::cgroup;
use crate::protocol::limits::Limits;

/// Where nothing can be read at all.
const ASSUMED_BYTES: u64 = 1 << 30;
/// The part of the memory that queues may take.
const QUEUES_PART: u64 = 4;

/// Bytes that may wait in all write queues together.
pub fn queue_budget(limits: &Limits) -> usize {
    match limits.node_queue_bytes_max {
        0 => {
            let read = |path: &Path| std::fs::read_to_string(path).ok();
            let bytes = allowed_bytes(read) / QUEUES_PART;
            // Or one slow reader would be more than all of them may be.
            usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .max(limits.queue_hard_bytes)
        }
        set => set,
    }
}

/// `read` gives a file's text, if it can be read.
fn allowed_bytes(read: impl Fn(&Path) -> Option<String>) -> u64 {
    let read = |path: &Path| read(path);
    let total = read(Path::new("/proc/meminfo")).and_then(|text| mem_total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let of_group = cgroup::folders(&groups, "memory").into_iter();
    let of_group = of_group
        .map(|folder| folder.file("memory.max", "memory.limit_in_bytes"))
        .filter_map(|file| cgroup::limit(&read(&file)?));
    of_group.chain(total).min().unwrap_or(ASSUMED_BYTES)
}

/// The host's memory by `/proc/meminfo`.
fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16303428 kB\nMemFree:          912340 kB\n";
    const TOTAL: u64 = 16_303_428 * 1024;

    /// A machine on which these files can be read.
    fn on(files: &[(&str, &str)]) -> u64 {
        allowed_bytes(|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn without_groups_it_is_the_hosts() {
        assert_eq!(on(&[("/proc/meminfo", MEMINFO)]), TOTAL);
        let root = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/memory.max", "max\n"),
        ];
        assert_eq!(on(&root), TOTAL);
        assert_eq!(on(&[]), ASSUMED_BYTES);
    }

    #[test]
    fn the_smallest_limit_up_the_tree_counts() {
        let files = |own, above| {
            on(&[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", "0::/apps.slice/throng.service\n"),
                ("/sys/fs/cgroup/apps.slice/throng.service/memory.max", own),
                ("/sys/fs/cgroup/apps.slice/memory.max", above),
            ])
        };
        assert_eq!(files("max\n", "536870912\n"), 512 << 20);
        assert_eq!(files("268435456\n", "536870912\n"), 256 << 20);
        assert_eq!(files("268435456\n", "max\n"), 256 << 20);
        assert_eq!(files("99999999999999\n", "max\n"), TOTAL);
    }

    #[test]
    fn the_first_version_of_groups_is_known_too() {
        let groups = "9:name=systemd:/\n4:cpu,memory:/pods/a\n3:cpuset:/b\n0::/\n";
        let files = |own, root| {
            on(&[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", groups),
                ("/sys/fs/cgroup/memory/pods/a/memory.limit_in_bytes", own),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", root),
            ])
        };
        let unlimited = "9223372036854771712\n";
        assert_eq!(files(unlimited, unlimited), TOTAL);
        assert_eq!(files("1073741824\n", unlimited), 1 << 30);
        // A container that sees its own group as the root.
        assert_eq!(files("", "1073741824\n"), 1 << 30);
    }

    #[test]
    fn odd_texts_are_no_memory() {
        for odd in [
            "",
            "MemTotal:",
            "MemTotal: x kB",
            "MemTotal: 5 MB",
            "Mem: 1 kB",
        ] {
            assert_eq!(mem_total(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_is_set_is_taken_and_nothing_is_less_than_one_queue() {
        let mut limits = Limits {
            node_queue_bytes_max: 7 << 20,
            ..Limits::default()
        };
        assert_eq!(queue_budget(&limits), 7 << 20);
        limits.node_queue_bytes_max = 0;
        assert!(queue_budget(&limits) >= limits.queue_hard_bytes);
    }
}
