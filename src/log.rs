//! The log: standard error, as text for people or JSON for machines.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// From here on, what is at least as grave as `level` is written. A second call does nothing.
pub fn start(level: Level, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        // Or a line that cannot be written would end the process.
        .log_internal_errors(false)
        .with_max_level(LevelFilter::from_level(level));
    // Only a second call can fail.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
