//! Which plots a page has, and how they are made of the samples.

use serde_json::Value;
use throng_loadtest::pulse::Latency;

use crate::report::plot::{Across, Line, Plot, Unit};
use crate::report::table;
use crate::setting::without_secrets;
use crate::watch::{Process, Sample, Watched};

/// Two looks that are closer are too close for a rate.
const RATE_SECS_MIN: f64 = 0.25;
/// With fewer connections a process's memory says nothing of each.
const CONNECTIONS_MIN: u64 = 100;
/// Causes with lines of their own.
const CAUSES_MAX: usize = 6;

/// `fields`: what the report of a scenario says of its targets.
pub fn plots(watched: &Watched, fields: &Value) -> Vec<Plot> {
    let samples = &watched.samples[..];
    // The last look comes when the connections have gone: what the processes do then is no matter.
    let held = &samples[..samples.len().saturating_sub(1)];
    let mut plots = vec![
        connections(samples, fields),
        plot(
            "Connects per second",
            Unit::Count,
            vec![rate(samples, "registered", |s| s.registered)],
        ),
        throughput(samples, watched),
    ];
    let measured = || {
        watched
            .latencies
            .keys()
            .filter(|what| **what != Latency::Lag)
    };
    plots.extend(measured().map(|what| latency(samples, *what)));
    plots.push(distribution(watched));
    plots.push(failures(samples));
    plots.extend(servers(held));
    plots.push(plot(
        "Kernel slab for each connection",
        Unit::Bytes,
        vec![each(held, "slab", |s| s.slab_bytes)],
    ));
    plots.push(plot(
        "CPU of the client and of the host",
        Unit::Share,
        vec![
            line(held, "client's busiest thread", |s| Some(s.client.busiest)),
            line(held, "client waited for a CPU", |s| Some(s.client.waited)),
            line(held, "all CPUs of the host", |s| s.cpus_busy),
        ],
    ));
    plots.push(plot(
        "Memory of the client",
        Unit::Bytes,
        vec![line(held, "anonymous", |s| {
            Some(s.client.anonymous_bytes as f64)
        })],
    ));
    if watched.latencies.contains_key(&Latency::Lag) {
        plots.push(latency(samples, Latency::Lag));
    }
    let secs = samples.last().map_or(0.0, |last| last.secs);
    plots.iter_mut().for_each(|plot| plot.secs = secs);
    plots.retain(Plot::has_lines);
    plots
}

fn plot(title: &str, unit: Unit, lines: Vec<Line>) -> Plot {
    let is_drawn = |line: &Line| line.points.len() > 1;
    Plot {
        title: title.to_owned(),
        unit,
        across: Across::Time,
        secs: 0.0,
        lines: lines.into_iter().filter(is_drawn).collect(),
    }
}

fn line(samples: &[Sample], name: &str, of: impl Fn(&Sample) -> Option<f64>) -> Line {
    let points = samples.iter().filter_map(|s| Some((s.secs, of(s)?)));
    Line {
        name: name.to_owned(),
        points: points.collect(),
    }
}

/// By how much a count grows in a second.
fn rate(samples: &[Sample], name: &str, of: impl Fn(&Sample) -> u64) -> Line {
    let mut points = Vec::new();
    for pair in samples.windows(2) {
        let passed = pair[1].secs - pair[0].secs;
        if passed >= RATE_SECS_MIN {
            let grown = of(&pair[1]).saturating_sub(of(&pair[0]));
            points.push((pair[1].secs, grown as f64 / passed));
        }
    }
    Line {
        name: name.to_owned(),
        points,
    }
}

/// Bytes of each connection.
fn each(samples: &[Sample], name: &str, bytes: impl Fn(&Sample) -> Option<u64>) -> Line {
    line(samples, name, |sample| {
        let of = (sample.open >= CONNECTIONS_MIN).then_some(sample.open)?;
        Some(bytes(sample)? as f64 / of as f64)
    })
}

fn connections(samples: &[Sample], fields: &Value) -> Plot {
    let mut lines = vec![
        Line {
            name: "open".to_owned(),
            points: samples.iter().map(|s| (s.secs, s.open as f64)).collect(),
        },
        line(samples, "on their way", |s| Some(s.arriving as f64)),
    ];
    lines.extend(by_target(fields));
    plot("Connections", Unit::Count, lines)
}

/// Of each target, where there are several and the clients come back.
fn by_target(fields: &Value) -> Vec<Line> {
    let array = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = array(&fields["returns"]["targets"]);
    let over_time = array(&fields["returns"]["over_time"]);
    if targets.len() < 2 {
        return Vec::new();
    }
    let name = |target: &Value| without_secrets(target["url"].as_str().unwrap_or_default());
    let point = |sample: &Value, at: usize| {
        Some((sample["secs"].as_f64()?, sample["by_target"][at].as_f64()?))
    };
    let line = |(at, target)| Line {
        name: name(target),
        points: over_time.iter().filter_map(|s| point(s, at)).collect(),
    };
    targets.iter().enumerate().map(line).collect()
}

fn throughput(samples: &[Sample], watched: &Watched) -> Plot {
    let messages = |what: &&Latency| !matches!(what, Latency::Connect | Latency::Lag);
    let mut lines = vec![rate(samples, "frames", |sample| sample.frames)];
    for what in watched.latencies.keys().filter(messages) {
        let mut so_far = 0;
        let counts: Vec<(f64, u64)> = samples
            .iter()
            .map(|sample| {
                so_far += sample
                    .latencies
                    .get(what.name())
                    .map_or(0, |took| took.count);
                (sample.secs, so_far)
            })
            .collect();
        let counted = |sample: &Sample| {
            let at = counts.partition_point(|(secs, _)| *secs < sample.secs);
            counts.get(at).map_or(0, |(_, count)| *count)
        };
        lines.push(rate(samples, what.name(), counted));
    }
    plot("Received per second", Unit::Count, lines)
}

fn latency(samples: &[Sample], what: Latency) -> Plot {
    let took = |sample: &Sample| sample.latencies.get(what.name()).copied();
    plot(
        &format!("Latency over time: {}", what.name()),
        Unit::Millis,
        vec![
            line(samples, "p50", |s| took(s).map(|took| took.p50_ms)),
            line(samples, "p99", |s| took(s).map(|took| took.p99_ms)),
            line(samples, "max", |s| took(s).map(|took| took.max_ms)),
        ],
    )
}

fn distribution(watched: &Watched) -> Plot {
    let line = |(what, histogram): (&Latency, &_)| {
        let points = table::distribution(histogram).into_iter();
        Line {
            name: what.name().to_owned(),
            // The whole has no number of nines.
            points: points
                .filter(|(share, _)| *share < 1.0)
                .map(|(share, millis)| (-(1.0 - share).log10(), millis))
                .collect(),
        }
    };
    Plot {
        across: Across::Nines,
        ..plot(
            "Distribution of the latencies",
            Unit::Millis,
            watched.latencies.iter().map(line).collect(),
        )
    }
}

fn failures(samples: &[Sample]) -> Plot {
    let last = samples.last().map(|last| &last.failures);
    let mut causes: Vec<(&String, &u64)> = last.into_iter().flatten().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let so_far = |cause: &str| {
        line(samples, cause, |sample| {
            Some(sample.failures.get(cause).copied().unwrap_or(0) as f64)
        })
    };
    let lines = causes
        .iter()
        .take(CAUSES_MAX)
        .map(|(cause, _)| so_far(cause));
    plot("Failures so far, by cause", Unit::Count, lines.collect())
}

fn servers(samples: &[Sample]) -> Vec<Plot> {
    let pids: Vec<u32> = samples
        .first()
        .map(|first| first.servers.iter().map(|server| server.pid).collect())
        .unwrap_or_default();
    let of = |what: &str, value: &dyn Fn(Process) -> f64| -> Vec<Line> {
        let lines = pids.iter().enumerate().map(|(at, pid)| {
            let name = format!("{what}, pid {pid}");
            line(samples, &name, |sample| {
                sample.servers[at].process.map(value)
            })
        });
        lines.collect()
    };
    let memory = |process: Process| process.anonymous_bytes as f64;
    let mut memories = of("anonymous", &memory);
    memories.extend(of("resident", &|process| process.resident_bytes as f64));
    let mut cpus = of("CPUs", &|process| process.cpus);
    cpus.extend(of("busiest thread", &|process| process.busiest));
    let used = |sample: &Sample, at: usize| -> Option<u64> {
        Some(sample.servers[at].process?.anonymous_bytes)
    };
    // Of those that are still there, what they have grown by.
    let grown = |sample: &Sample| {
        let of = |at| Some(used(sample, at)?.saturating_sub(used(samples.first()?, at)?));
        let growth: Vec<u64> = (0..pids.len()).filter_map(of).collect();
        (!growth.is_empty()).then(|| growth.iter().sum())
    };
    vec![
        plot("Memory of the servers", Unit::Bytes, memories),
        plot("CPUs that the servers keep busy", Unit::Count, cpus),
        plot(
            "User space of the servers for each connection",
            Unit::Bytes,
            vec![each(samples, "anonymous memory", grown)],
        ),
    ]
}
