//! The log: standard error, as text for people or JSON for machines.
//!
//! Owns: the one subscriber of the process, and the level that it writes at, which may change.

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, registry, reload};

use crate::config::LogFormat;

/// The way to change the level.
pub struct Log(reload::Handle<LevelFilter, Registry>);

/// From here on, what is at least as grave as `level` is written. A second call does nothing.
pub fn start(level: Level, format: LogFormat) -> Log {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        // Or a line that cannot be written would end the process.
        .log_internal_errors(false);
    let registry = registry().with(filter);
    // Only a second call can fail.
    let _ = match format {
        LogFormat::Text => registry.with(lines.with_ansi(is_terminal())).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Log(handle)
}

impl Log {
    pub fn set_level(&self, level: Level) {
        // It fails where this was not the first start: the level is another's then.
        let _ = self.0.reload(LevelFilter::from_level(level));
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
