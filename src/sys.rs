//! The system calls that the standard library, mio and socket2 do not wrap, and the allocator's
//! settings. The only file with `unsafe`.
//!
//! Owns: nothing that lives longer than a call, but for [`EventFd`].
//! Neighbours: mailboxes ring event descriptors, reactors take private file tables.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Few arenas (threads are few and long-lived), dirty pages given back after a second,
/// and no background threads that would wake an idle process.
#[cfg(not(miri))]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8] =
    b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0,lg_tcache_max:13\0";

/// Gives memory back that has been free for longer than the decay time. The allocator does so by
/// itself only while it is used, and an idle node does not use it.
pub fn give_back_memory() {
    // SAFETY: a valid name (4096 means all arenas), and nothing to read or write.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.decay".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A counter in the kernel that wakes a poll: the bell of a mailbox (eventfd(2)).
///
/// It is written to by its number, which is the same in every file table that was split off
/// after it was made; the descriptor stays open for the life of the process.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes no pointers; the descriptor it returns is ours alone.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: `fd` was just made and nobody else owns it.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes whoever polls it. A full counter (EAGAIN) means that it is awake already.
    pub fn ring(&self) {
        let one: u64 = 1;
        // SAFETY: eight readable bytes, as eventfd(2) asks.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Sets the counter back to zero.
    pub fn clear(&self) {
        let mut count: u64 = 0;
        // SAFETY: eight writable bytes, as eventfd(2) asks.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Gives the calling thread a file table of its own that holds the standard streams and
/// `keep`, and closes everything else in it. Threads that it starts later share that table.
///
/// `unshare(2)` is tried first; where a sandbox forbids it, `close_range(2)` does the same.
/// Errors: neither is allowed here; the table is then still the shared one and untouched.
pub fn take_private_file_table(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: takes no pointers; descriptors keep their numbers, so nothing that Rust owns moves.
    if check(unsafe { libc::unshare(libc::CLONE_FILES) }).is_err() {
        // SAFETY: an empty range closes nothing; the flag alone splits the table.
        check(unsafe { libc::close_range(u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE as i32) })?;
    }
    let mut keep: Vec<u32> = keep
        .iter()
        .filter_map(|&fd| u32::try_from(fd).ok())
        .collect();
    keep.sort_unstable();
    let mut first = 3;
    for fd in keep.into_iter().filter(|&fd| fd >= 3).chain([u32::MAX]) {
        if fd > first {
            let last = if fd == u32::MAX { u32::MAX } else { fd - 1 };
            // SAFETY: this table belongs to this thread alone, which owns none of these
            // descriptors yet; their owners have them in the table that we left.
            check(unsafe { libc::close_range(first, last, 0) })?;
        }
        first = fd.saturating_add(1);
    }
    Ok(())
}

/// The system call that gives a thread a file table of its own on this host, if one may. Tried in
/// a thread that ends.
pub fn way_to_private_file_tables() -> Option<&'static str> {
    std::thread::spawn(|| {
        // SAFETY: as in `take_private_file_table`; the thread ends with its table.
        unsafe {
            if libc::unshare(libc::CLONE_FILES) == 0 {
                return Some("unshare");
            }
            let flag = libc::CLOSE_RANGE_UNSHARE as i32;
            (libc::close_range(u32::MAX, u32::MAX, flag) == 0).then_some("close_range")
        }
    })
    .join()
    .unwrap_or(None)
}

/// True if the kernel counts its clock as kept right by somebody (adjtimex(2)).
/// Errors: a sandbox forbids to ask.
pub fn clock_is_kept() -> io::Result<bool> {
    // SAFETY: all zeros is a valid timex, and one that changes nothing.
    let mut state = unsafe { std::mem::zeroed::<libc::timex>() };
    // SAFETY: `state` is a valid timex to write to.
    check(unsafe { libc::adjtimex(&raw mut state) })?;
    Ok(state.status & libc::STA_UNSYNC == 0)
}

/// Grows the calling thread's file table to hold `count` descriptors at once: each doubling
/// during a storm of newcomers would stall their accepts. Best effort.
pub fn grow_file_table(count: u64) {
    let Ok(highest) = libc::c_int::try_from(count.saturating_sub(1)) else {
        return;
    };
    // SAFETY: duplicates standard error to a free high number and closes that number again.
    unsafe {
        let fd = libc::fcntl(2, libc::F_DUPFD_CLOEXEC, highest);
        if fd >= 0 {
            libc::close(fd);
        }
    }
}

/// The soft limit of descriptors per file table after raising it to the hard limit.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit for both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        if limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
        }
    }
    Ok(limit.rlim_cur)
}

/// Blocks every signal in the calling thread (and in those it starts): they go to the main thread.
pub fn block_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_table_keeps_what_it_should_and_hides_the_rest() {
        let bell = EventFd::new().unwrap();
        let other = EventFd::new().unwrap();
        let (bell_fd, other_fd) = (bell.as_raw_fd(), other.as_raw_fd());
        std::thread::spawn(move || {
            take_private_file_table(&[bell_fd]).unwrap();
            // SAFETY: F_GETFD only asks.
            let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            assert!(is_open(2) && is_open(bell_fd) && !is_open(other_fd));
        })
        .join()
        .unwrap();
        // SAFETY: F_GETFD only asks.
        assert!(unsafe { libc::fcntl(other_fd, libc::F_GETFD) } >= 0);
        other.ring();
    }
}
