//! What the kernel knows of a process: the CPU time of its threads, its memory.

use std::collections::BTreeMap;
use std::io;

/// CPU nanoseconds by thread (the first two fields of schedstat). Exact for threads that sleep; a
/// running one may be a scheduler tick behind.
#[derive(Clone, Debug)]
pub struct CpuSample(BTreeMap<u32, Cpu>);

/// What one thread has had of the CPUs, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    pub ran: u64,
    /// It had something to do, and no CPU was free for it.
    pub waited: u64,
}

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
        Self::of_all(&[pid])
    }

    /// Of several processes; the kernel gives no number to two threads.
    pub fn of_all(pids: &[u32]) -> io::Result<CpuSample> {
        let mut threads = BTreeMap::new();
        for &pid in pids {
            Self::read(pid, &mut threads)?;
        }
        Ok(CpuSample(threads))
    }

    fn read(pid: u32, threads: &mut BTreeMap<u32, Cpu>) -> io::Result<()> {
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
            let mut fields = text.split_whitespace().map(str::parse);
            let (Some(Ok(ran)), Some(Ok(waited))) = (fields.next(), fields.next()) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            threads.insert(tid, Cpu { ran, waited });
        }
        Ok(())
    }

    /// What each thread used that is there at both ends, with its name.
    pub fn used_by_thread(&self, later: &CpuSample, pid: u32) -> Vec<(String, u64)> {
        let used = |(tid, cpu): (u32, Cpu)| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
            Some((name.ok()?.trim().to_owned(), cpu.ran))
        };
        self.by_thread(later).into_iter().filter_map(used).collect()
    }

    /// What each thread had that is there at both ends.
    pub fn by_thread(&self, later: &CpuSample) -> Vec<(u32, Cpu)> {
        let had = |(tid, now): (&u32, &Cpu)| {
            let before = self.0.get(tid)?;
            let cpu = Cpu {
                ran: now.ran.saturating_sub(before.ran),
                waited: now.waited.saturating_sub(before.waited),
            };
            Some((*tid, cpu))
        };
        later.0.iter().filter_map(had).collect()
    }

    pub fn used_until(&self, later: &CpuSample) -> CpuUsed {
        let before = |tid| self.0.get(tid).map_or(0, |cpu| cpu.ran);
        CpuUsed {
            nanos: later
                .0
                .iter()
                .map(|(tid, cpu)| cpu.ran.saturating_sub(before(tid)))
                .sum(),
            ended: self
                .0
                .keys()
                .filter(|&tid| !later.0.contains_key(tid))
                .count(),
        }
    }
}

/// Bytes of memory in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// RssAnon: user space's own, without code and without what the kernel keeps for the sockets.
    pub anonymous: u64,
    /// VmRSS: that, and what of its files is mapped.
    pub resident: u64,
    /// RssShmem: what it shares with other processes.
    pub shared: u64,
}

impl Memory {
    pub fn of(pid: u32) -> io::Result<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes * 1024)
        };
        match (bytes("RssAnon:"), bytes("VmRSS:"), bytes("RssShmem:")) {
            (Some(anonymous), Some(resident), Some(shared)) => Ok(Memory {
                anonymous,
                resident,
                shared,
            }),
            // A process that has ended, and that nobody has waited for, has no memory.
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// [`Memory::anonymous`] of a process.
pub fn anonymous_bytes(pid: u32) -> io::Result<u64> {
    Ok(Memory::of(pid)?.anonymous)
}

/// The same of this process.
pub fn own_bytes() -> Option<u64> {
    anonymous_bytes(std::process::id()).ok()
}

/// The same of a family of processes, with the memory that they share, counted once.
pub fn family_bytes(pids: &[u32]) -> io::Result<u64> {
    let (mut own, mut shared) = (0, 0);
    for &pid in pids {
        let memory = Memory::of(pid)?;
        own += memory.anonymous;
        shared = shared.max(memory.shared);
    }
    Ok(own + shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_come_count_whole_and_threads_that_go_are_told() {
        let ran = |ran| Cpu {
            ran,
            waited: 2 * ran,
        };
        let before = CpuSample([(1, ran(100)), (2, ran(50))].into());
        let after = CpuSample([(1, ran(150)), (3, ran(7))].into());
        assert_eq!(
            before.used_until(&after),
            CpuUsed {
                nanos: 57,
                ended: 1
            }
        );
        assert_eq!(before.by_thread(&after), [(1, ran(50))]);
    }

    #[test]
    fn this_process_has_threads_and_memory() {
        let pid = std::process::id();
        assert!(!CpuSample::take(pid).unwrap().0.is_empty());
        assert!(anonymous_bytes(pid).unwrap() > 0);
    }
}
