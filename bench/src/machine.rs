//! Where and with what the figures were made.

use std::process::Command;

use throng_loadtest::host::Machine;

/// One line: cores, memory, kernel, commit, command.
pub fn line() -> String {
    let command: Vec<String> = std::env::args().skip(1).collect();
    format!(
        "{}, commit {}, `throng-bench {}`",
        Machine::read(),
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
