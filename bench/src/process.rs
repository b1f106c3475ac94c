//! What the kernel knows of another process: the CPU time of its threads, its memory.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// CPU nanoseconds by thread (the first field of schedstat). Exact for threads that sleep; a
/// running one may be a scheduler tick behind.
#[derive(Clone, Debug)]
pub struct CpuSample(BTreeMap<u32, u64>);

/// A process and all that it has started.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    all.extend(children.flat_map(family));
    all
}

/// CPU time used between two samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsed {
    pub nanos: u64,
    /// Threads that ended in between: what they used after the first sample is not in `nanos`.
    pub ended: usize,
}

impl CpuSample {
    pub fn take(pid: u32) -> io::Result<CpuSample> {
        let mut threads = BTreeMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let Some(tid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // One that ends while the list is read is missing, as if it had ended before.
            let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let nanos = text
                .split_whitespace()
                .next()
                .and_then(|field| field.parse().ok());
            threads.insert(tid, nanos.ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(CpuSample(threads))
    }

    /// What each thread used that is there at both ends, with its name.
    pub fn used_by_thread(&self, later: &CpuSample, pid: u32) -> Vec<(String, u64)> {
        let used = |(tid, nanos): (&u32, &u64)| {
            let before = self.0.get(tid)?;
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
            Some((name.ok()?.trim().to_owned(), nanos.saturating_sub(*before)))
        };
        later.0.iter().filter_map(used).collect()
    }

    pub fn used_until(&self, later: &CpuSample) -> CpuUsed {
        let before = |tid| self.0.get(tid).copied().unwrap_or(0);
        CpuUsed {
            nanos: later
                .0
                .iter()
                .map(|(tid, nanos)| nanos.saturating_sub(before(tid)))
                .sum(),
            ended: self
                .0
                .keys()
                .filter(|&tid| !later.0.contains_key(tid))
                .count(),
        }
    }
}

/// Bytes of anonymous memory in use (RssAnon): user space's own, without code and without what
/// the kernel keeps for the sockets.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status")))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix("RssAnon:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .map(|kibibytes: u64| kibibytes * 1024)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_come_count_whole_and_threads_that_go_are_told() {
        let before = CpuSample([(1, 100), (2, 50)].into());
        let after = CpuSample([(1, 150), (3, 7)].into());
        assert_eq!(
            before.used_until(&after),
            CpuUsed {
                nanos: 57,
                ended: 1
            }
        );
    }

    #[test]
    fn this_process_has_threads_and_memory() {
        let pid = std::process::id();
        assert!(!CpuSample::take(pid).unwrap().0.is_empty());
        assert!(anonymous_bytes(pid).unwrap() > 0);
    }
}
