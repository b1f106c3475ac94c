//! What is said on standard error while the crowd works. A part of the program, not of the library.
//!
//! Owns: the line of a terminal; anything else gets a plain line every ten seconds.

use std::fmt::Write as _;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use throng_loadtest::pulse::{Latencies, Latency};

use crate::watch::{Quantiles, Sample};

const LINE_EVERY_SECS: f64 = 10.0;
/// Causes of failures that have room in a line; the others are counted together.
const CAUSES_MAX: usize = 2;

pub struct Progress(Shown);

enum Shown {
    Nowhere,
    Bar(ProgressBar),
    Lines { next_secs: f64 },
}

impl Progress {
    pub fn new(clients: u64) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(Shown::Lines {
                next_secs: LINE_EVERY_SECS,
            });
        }
        let bar = ProgressBar::new(clients);
        let style = ProgressStyle::with_template("{elapsed_precise} {bar:20} {wide_msg}");
        Progress(Shown::Bar(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }))
    }

    pub fn quiet() -> Progress {
        Progress(Shown::Nowhere)
    }

    pub fn show(&mut self, before: Option<&Sample>, now: &Sample, latencies: &Latencies) {
        match &mut self.0 {
            Shown::Nowhere => {}
            Shown::Bar(bar) => {
                bar.set_position(now.open);
                let wanted = bar.length();
                bar.set_message(line(before, now, wanted, latencies));
            }
            Shown::Lines { next_secs } => {
                if now.secs >= *next_secs {
                    *next_secs = now.secs + LINE_EVERY_SECS;
                    let line = line(before, now, None, latencies);
                    eprintln!("{:>6.0} s  {line}", now.secs);
                }
            }
        }
    }

    pub fn end(&self) {
        if let Shown::Bar(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn line(
    before: Option<&Sample>,
    now: &Sample,
    wanted: Option<u64>,
    latencies: &Latencies,
) -> String {
    let mut line = format!("{} open", now.open);
    if let Some(wanted) = wanted {
        let _ = write!(line, " of {wanted}");
    }
    let passed = before.map(|before| now.secs - before.secs);
    if let (Some(before), Some(passed)) = (before, passed.filter(|passed| *passed > 0.0)) {
        let per_sec = |now: u64, before: u64| now.saturating_sub(before) as f64 / passed;
        let connects = per_sec(now.registered, before.registered);
        let messages = per_sec(now.messages, before.messages);
        if connects > 0.0 {
            let _ = write!(line, ", {connects:.0} connects/s");
        }
        if messages > 0.0 {
            let _ = write!(line, ", {messages:.0} messages/s");
        }
    }
    for (what, histogram) in latencies.iter().filter(|(what, _)| **what != Latency::Lag) {
        let took = Quantiles::of(histogram);
        let _ = write!(
            line,
            "; {} p50 {:.1} ms p99 {:.1} ms",
            what.name(),
            took.p50_ms,
            took.p99_ms
        );
    }
    let mut causes: Vec<_> = now.failures.iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for (cause, count) in causes.iter().take(CAUSES_MAX) {
        let _ = write!(line, "; {count} × {cause}");
    }
    let others: u64 = causes
        .iter()
        .skip(CAUSES_MAX)
        .map(|(_, count)| **count)
        .sum();
    if others > 0 {
        let _ = write!(line, "; {others} × other failures");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_connections_rates_latencies_and_the_most_frequent_failures() {
        let mut connects = hdrhistogram::Histogram::new(3).unwrap();
        connects.record(2_000_000).unwrap();
        let before = Sample {
            secs: 1.0,
            registered: 10,
            ..Sample::default()
        };
        let failures = [("a", 1), ("b", 5), ("c", 3), ("d", 1)];
        let now = Sample {
            secs: 3.0,
            open: 30,
            registered: 40,
            messages: 200,
            failures: failures
                .map(|(cause, count)| (cause.to_owned(), count))
                .into(),
            ..Sample::default()
        };
        assert_eq!(
            line(
                Some(&before),
                &now,
                Some(50),
                &[(Latency::Connect, connects)].into()
            ),
            "30 open of 50, 15 connects/s, 100 messages/s; connect p50 2.0 ms p99 2.0 ms; \
             5 × b; 3 × c; 2 × other failures"
        );
        assert_eq!(
            line(None, &Sample::default(), None, &Latencies::new()),
            "0 open"
        );
    }
}
