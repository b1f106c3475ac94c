//! What this process needs of memory.

/// Bytes of anonymous memory in use (RssAnon): without code, and without what the kernel keeps for
/// sockets. None where /proc does not say it.
pub fn own_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
