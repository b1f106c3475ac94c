//! Where and with what the figures were made.

use std::process::Command;

/// One line: cores, memory, kernel, commit, command.
pub fn line() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kibibytes = |text: String| -> Option<f64> {
        text.lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
    };
    let gibibytes = kibibytes(read("/proc/meminfo")).unwrap_or(0.0) / f64::from(1 << 20);
    let release = read("/proc/sys/kernel/osrelease");
    // Behind the first dash stands who has built it.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    let command: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "{cores} cores, {gibibytes:.0} GiB, Linux {kernel}, commit {}, `throng-bench {}`",
        commit().unwrap_or_else(|| "unknown".to_owned()),
        command.join(" ")
    )
    .replace("throng-bench `", "throng-bench`")
}

/// The load average of the last minute: what is far from 0 at the start disturbs the figures.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}

/// Today, in UTC.
pub fn date() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%d").to_string()
}

/// The commit that was checked out, with a plus where the tree differs from it.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(args)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let mut commit = git(&["rev-parse", "--short", "HEAD"])?;
    if !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty() {
        commit.push('+');
    }
    Some(commit)
}
