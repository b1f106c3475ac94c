//! Whose limits were reached: the client's own, the host's, or the server's. A part of the program,
//! not of the library.
//!
//! Owns: the criteria and the words. Samples go in and sentences come out.

use serde::Serialize;
use throng_loadtest::pulse::{Latencies, Latency};

use crate::watch::{Process, Sample, Watched};

/// A moment is no bottleneck; so many samples in a row are.
const SAMPLES_MIN: usize = 3;
/// A thread that ran for so much of the time had no time left.
const BUSY: f64 = 0.9;
/// A thread that waited for a CPU for so much of the time was kept from its work.
const KEPT_WAITING: f64 = 0.3;
/// Less of all CPUs was idle.
const IDLE_MIN: f64 = 0.05;
/// What a client begins later than that is its own latency.
const LAG_MAX_MS: f64 = 10.0;
/// Less of the host's memory was to be had.
const MEMORY_MIN: f64 = 0.05;
/// So full is a table or a budget that is full for some.
const FULL: f64 = 0.95;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum About {
    Client,
    Host,
    Limit,
    Server,
    /// Nothing of these.
    Nothing,
    /// No judgement, but good to know.
    Note,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub about: About,
    pub text: String,
}

/// What has to be known besides what was watched.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub cores: usize,
    pub is_same_host: bool,
}

pub fn findings(watched: &Watched, place: Place) -> Vec<Finding> {
    let samples = &watched.samples;
    let mut findings = Findings(Vec::new());
    findings.limits(samples);
    findings.client(samples, &watched.latencies);
    findings.cpus(samples, place);
    findings.overflows(samples);
    findings.memory(samples);
    findings.servers(samples);
    findings.verdict(samples);
    findings.slab(watched);
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, about: About, text: impl Into<String>) {
        let text = text.into();
        self.0.push(Finding { about, text });
    }

    /// What errors of this host have told.
    fn limits(&mut self, samples: &[Sample]) {
        if let Some(limit) = samples.iter().rev().find_map(|s| s.limit.as_ref()) {
            self.say(
                About::Limit,
                format!("a limit of this host stopped it: {limit}"),
            );
        }
    }

    fn client(&mut self, samples: &[Sample], latencies: &Latencies) {
        if let Some((count, share)) = worst(samples, |s| s.client.busiest, BUSY) {
            let (percent, of) = (percent(share), samples.len());
            let text = format!(
                "the client was the bottleneck: a thread of it was {percent} busy, in {count} of {of} \
                 looks, so the latencies are its own; more --threads or more machines help"
            );
            self.say(About::Client, text);
        }
        let Some(lag) = latencies.get(&Latency::Lag) else {
            return;
        };
        let late = lag.value_at_quantile(0.99) as f64 / 1e6;
        if late <= LAG_MAX_MS {
            return;
        }
        let who = if is_out_of_cpus(samples) {
            "the client had to wait for a CPU"
        } else {
            "the client was the bottleneck"
        };
        let text = format!(
            "{who}: of what its schedule asked for, it began one in a hundred more than {late:.0} ms \
             late, which is a part of the latencies"
        );
        self.say(About::Client, text);
    }

    fn cpus(&mut self, samples: &[Sample], place: Place) {
        let busy = |sample: &Sample| sample.cpus_busy.unwrap_or(0.0);
        if let Some((count, _)) = worst(samples, busy, 1.0 - IDLE_MIN) {
            let busy: Vec<&Sample> = samples
                .iter()
                .filter(|s| busy(s) >= 1.0 - IDLE_MIN)
                .collect();
            let mean = |of: &dyn Fn(&Sample) -> f64| {
                busy.iter().map(|s| of(s)).sum::<f64>() / busy.len() as f64
            };
            let client = mean(&|s| s.client.cpus);
            let servers = mean(&|s| {
                s.servers
                    .iter()
                    .filter_map(|s| s.process)
                    .map(|p| p.cpus)
                    .sum()
            });
            let cores = place.cores;
            let mut text = format!(
                "the host had no idle CPU, in {count} of {} looks; of {cores} the client had {client:.1}",
                samples.len()
            );
            let has_servers = samples.iter().any(|s| !s.servers.is_empty());
            let all = mean(&|s| s.cpus_busy.unwrap_or(0.0)) * cores as f64;
            let others = (all - client - servers).max(0.0);
            if has_servers {
                text +=
                    &format!(", the servers {servers:.1}, and the rest of the host {others:.1}");
            }
            if has_servers && others > client + servers {
                text += "; what else runs there is in their way";
            } else if place.is_same_host {
                text += "; client and server share them, so each of them waits for the other";
            }
            self.say(About::Host, text);
        } else if let Some((count, share)) = worst(samples, |s| s.client.waited, KEPT_WAITING) {
            let (percent, of) = (percent(share), samples.len());
            let text = format!(
                "the host gave the client no CPU: a thread of it waited for one for {percent} of the \
                 time, in {count} of {of} looks, so the latencies are the host's in part"
            );
            self.say(About::Host, text);
        }
    }

    fn overflows(&mut self, samples: &[Sample]) {
        let grew = |of: &dyn Fn(&Sample) -> Option<u64>| {
            let (first, last) = (of(samples.first()?)?, of(samples.last()?)?);
            Some(last.saturating_sub(first)).filter(|count| *count > 0)
        };
        if let Some(count) = grew(&|s| s.host.listen_overflows) {
            let text = format!(
                "a limit of this host was reached: {count} times a connection found the queue of its \
                 listener full; a larger net.core.somaxconn and backlog help, or a smaller --window"
            );
            self.say(About::Limit, text);
        }
        if let Some(count) = grew(&|s| s.host.memory_pressures) {
            let text = format!(
                "a limit of this host was reached: TCP ran short of memory {count} times; a larger \
                 net.ipv4.tcp_mem helps"
            );
            self.say(About::Limit, text);
        }
        let full = |sample: &&Sample| {
            let host = &sample.host;
            share(host.tracked, host.tracked_max).is_some_and(|share| share >= FULL)
        };
        if let Some(sample) = samples.iter().find(full) {
            let [tracked, max] =
                [sample.host.tracked, sample.host.tracked_max].map(Option::unwrap_or_default);
            let text = format!(
                "a limit of this host was reached: the table of tracked connections held {tracked} of \
                 {max}; a larger net.netfilter.nf_conntrack_max helps, or no tracking"
            );
            self.say(About::Limit, text);
        }
    }

    fn memory(&mut self, samples: &[Sample]) {
        let host = |sample: &Sample| share(sample.host.available_bytes, sample.host.total_bytes);
        let least = samples.iter().filter_map(host).fold(1.0, f64::min);
        if least < MEMORY_MIN {
            let percent = percent(least);
            let text = format!(
                "a limit of this host was reached: of its memory {percent} was left at the least"
            );
            self.say(About::Limit, text);
        }
        let tcp = |sample: &Sample| share(sample.host.tcp_bytes, sample.host.tcp_bytes_max);
        let most = samples.iter().filter_map(tcp).fold(0.0, f64::max);
        if most >= FULL {
            let percent = percent(most);
            let text = format!(
                "a limit of this host was reached: TCP used {percent} of its memory; a larger \
                 net.ipv4.tcp_mem helps"
            );
            self.say(About::Limit, text);
        }
    }

    fn servers(&mut self, samples: &[Sample]) {
        let count = samples.first().map_or(0, |first| first.servers.len());
        for at in 0..count {
            let process = |sample: &Sample| sample.servers[at].process;
            let pid = samples[0].servers[at].pid;
            let gone = samples.iter().find(|sample| process(sample).is_none());
            if samples.iter().all(|sample| process(sample).is_none()) {
                let text = format!("there is no process {pid}, or it is not to be looked at");
                self.say(About::Note, text);
            } else if let Some(gone) = gone {
                let text = format!(
                    "the server with pid {pid} was gone after {:.0} s",
                    gone.secs
                );
                self.say(About::Server, text);
            }
            let busiest = |sample: &Sample| process(sample).map_or(0.0, |p: Process| p.busiest);
            if let Some((looks, share)) = worst(samples, busiest, BUSY) {
                let (percent, of) = (percent(share), samples.len());
                let text = format!(
                    "a thread of the server with pid {pid} was {percent} busy, in {looks} of {of} looks"
                );
                self.say(About::Server, text);
            }
        }
    }

    fn verdict(&mut self, samples: &[Sample]) {
        let blames = |f: &Finding| matches!(f.about, About::Client | About::Host | About::Limit);
        if self.0.iter().any(blames) {
            return;
        }
        // The first sample has nothing to compare itself with.
        if samples.len() <= SAMPLES_MIN {
            let text = "the run was too short to tell whether client or host was the limit";
            self.say(About::Note, text);
        } else {
            self.say(About::Nothing, "neither client nor host was the limit");
        }
    }

    fn slab(&mut self, watched: &Watched) {
        if !watched.is_slab_readable {
            let text = "the kernel's memory for connections is not known: only root may read \
                        /proc/slabinfo";
            return self.say(About::Note, text);
        }
        let Some(slab) = &watched.slab else {
            if watched.is_disturbed {
                let text = "the kernel's memory for connections is not known: others on this host \
                            opened connections meanwhile";
                self.say(About::Note, text);
            }
            return;
        };
        let each = |bytes: u64| bytes / slab.connections.max(1);
        let mut largest: Vec<_> = slab.caches.iter().collect();
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
        let largest: Vec<String> = largest
            .iter()
            .take(4)
            .map(|(name, bytes)| format!("{name} {}", each(**bytes)))
            .collect();
        let ends = if slab.ends == 2 {
            "both ends, which are on this host"
        } else {
            "the client's end"
        };
        let (bytes, of) = (each(slab.bytes()), slab.connections);
        let mut text =
            format!("the kernel's slab grew by {bytes} bytes a connection, of {of}, for {ends}");
        if !largest.is_empty() {
            text += &format!(": {}", largest.join(", "));
        }
        self.say(About::Note, text);
    }
}

fn is_out_of_cpus(samples: &[Sample]) -> bool {
    let busy = worst(samples, |s| s.cpus_busy.unwrap_or(0.0), 1.0 - IDLE_MIN);
    busy.is_some() || worst(samples, |s| s.client.waited, KEPT_WAITING).is_some()
}

/// How often and how far a share was at least so much, if that was so often enough in a row.
fn worst(samples: &[Sample], of: impl Fn(&Sample) -> f64, least: f64) -> Option<(usize, f64)> {
    let is_high = |sample: &&Sample| of(sample) >= least;
    let mut runs = samples.split(|sample| !is_high(&sample));
    let lasts = runs.any(|run| run.len() >= SAMPLES_MIN);
    let highest = samples.iter().map(&of).fold(0.0, f64::max);
    lasts.then(|| (samples.iter().filter(is_high).count(), highest))
}

fn share(part: Option<u64>, whole: Option<u64>) -> Option<f64> {
    let whole = whole.filter(|whole| *whole > 0)?;
    Some(part? as f64 / whole as f64)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Grown, Server};

    const HERE: Place = Place {
        cores: 2,
        is_same_host: true,
    };

    fn calm(secs: usize) -> Sample {
        let mut sample = Sample {
            secs: secs as f64,
            cpus_busy: Some(0.4),
            ..Sample::default()
        };
        sample.host.total_bytes = Some(100);
        sample.host.available_bytes = Some(50);
        sample.host.listen_overflows = Some(7);
        sample
    }

    fn watched(change: impl Fn(usize, &mut Sample)) -> Watched {
        let mut samples: Vec<Sample> = (0..10).map(calm).collect();
        for (at, sample) in samples.iter_mut().enumerate() {
            change(at, sample);
        }
        Watched {
            samples,
            latencies: Latencies::new(),
            slab: None,
            is_slab_readable: true,
            is_disturbed: false,
        }
    }

    fn found(watched: &Watched) -> Vec<(About, String)> {
        let findings = findings(watched, HERE).into_iter();
        findings
            .map(|finding| (finding.about, finding.text))
            .collect()
    }

    /// The one thing that is found, and it begins so.
    #[track_caller]
    fn only(watched: &Watched, about: About, begins: &str) -> String {
        let found = found(watched);
        let [(what, text)] = &found[..] else {
            panic!("one finding: {found:?}");
        };
        assert_eq!(*what, about, "{text}");
        assert!(text.starts_with(begins), "{text}");
        text.clone()
    }

    #[test]
    fn when_nothing_was_wrong_that_is_said() {
        only(
            &watched(|_, _| {}),
            About::Nothing,
            "neither client nor host",
        );
    }

    #[test]
    fn a_short_run_tells_nothing() {
        let mut short = watched(|_, _| {});
        short.samples.truncate(3);
        only(&short, About::Note, "the run was too short");
    }

    #[test]
    fn a_client_without_time_is_the_bottleneck_and_a_busy_moment_is_none() {
        let busy = watched(|at, sample| sample.client.busiest = if at > 6 { 0.97 } else { 0.5 });
        let text = only(&busy, About::Client, "the client was the bottleneck");
        assert!(text.contains("97 % busy, in 3 of 10 looks"), "{text}");
        let moments = watched(|at, sample| sample.client.busiest = (at % 3) as f64 / 2.0);
        only(&moments, About::Nothing, "neither");
    }

    #[test]
    fn a_client_that_is_late_is_the_bottleneck() {
        let mut lag = hdrhistogram::Histogram::new(3).unwrap();
        for at in 0..100 {
            lag.record(if at < 98 { 1 } else { 25_000_000 }).unwrap();
        }
        let mut late = watched(|_, _| {});
        late.latencies.insert(Latency::Lag, lag);
        let text = only(&late, About::Client, "the client was the bottleneck");
        assert!(text.contains("more than 25 ms late"), "{text}");
    }

    #[test]
    fn a_host_without_idle_cpus_is_told_with_who_had_them() {
        let full = watched(|_, sample| {
            sample.cpus_busy = Some(1.0);
            sample.client.cpus = 0.5;
            let process = Some(Process {
                cpus: 1.25,
                ..Process::default()
            });
            sample.servers = vec![Server { pid: 1, process }];
        });
        let text = only(
            &full,
            About::Host,
            "the host had no idle CPU, in 10 of 10 looks",
        );
        let who = "of 2 the client had 0.5, the servers 1.2, and the rest of the host 0.2";
        assert!(text.contains(who) && text.contains("share them"), "{text}");
        let kept = watched(|_, sample| sample.client.waited = 0.5);
        only(&kept, About::Host, "the host gave the client no CPU");
    }

    #[test]
    fn limits_of_the_host_are_told_with_what_helps() {
        let stopped = |_: usize, sample: &mut Sample| sample.limit = Some("EMFILE: why".to_owned());
        let text = only(
            &watched(stopped),
            About::Limit,
            "a limit of this host stopped it",
        );
        assert!(text.ends_with("EMFILE: why"));
        type Change = fn(usize, &mut Sample);
        let cases: [(Change, &str); 5] = [
            (
                |at, s| s.host.listen_overflows = Some(7 + at as u64),
                "9 times a connection found",
            ),
            (
                |at, s| s.host.memory_pressures = Some(at as u64),
                "TCP ran short of memory 9 times",
            ),
            (
                |_, s| (s.host.tracked, s.host.tracked_max) = (Some(99), Some(100)),
                "held 99 of 100",
            ),
            (
                |_, s| s.host.available_bytes = Some(3),
                "of its memory 3 % was left",
            ),
            (
                |_, s| (s.host.tcp_bytes, s.host.tcp_bytes_max) = (Some(96), Some(100)),
                "TCP used 96 % of its memory",
            ),
        ];
        for (change, words) in cases {
            let text = only(
                &watched(change),
                About::Limit,
                "a limit of this host was reached",
            );
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_server_that_dies_or_has_no_time_is_told_and_clears_client_and_host() {
        let busy = |busiest| {
            Some(Process {
                busiest,
                ..Process::default()
            })
        };
        let dies = watched(|at, sample| {
            let process = if at < 5 { busy(0.95) } else { None };
            sample.servers = vec![Server { pid: 42, process }];
        });
        let found = found(&dies);
        let about: Vec<About> = found.iter().map(|(about, _)| *about).collect();
        assert_eq!(about, [About::Server, About::Server, About::Nothing]);
        assert_eq!(found[0].1, "the server with pid 42 was gone after 5 s");
        assert!(found[1].1.contains("95 % busy, in 5 of 10 looks"));
    }

    #[test]
    fn what_the_kernel_keeps_for_a_connection_is_told_or_why_not() {
        let mut seen = watched(|_, _| {});
        seen.slab = Some(Grown {
            connections: 2000,
            ends: 2,
            caches: [
                ("TCP".to_owned(), 8_000_000),
                ("filp".to_owned(), 1_000_000),
            ]
            .into(),
        });
        assert_eq!(
            found(&seen)[1].1,
            "the kernel's slab grew by 4500 bytes a connection, of 2000, for both ends, which are \
             on this host: TCP 4000, filp 500"
        );
        seen.slab = None;
        seen.is_disturbed = true;
        assert!(found(&seen)[1].1.contains("others on this host"));
        seen.is_slab_readable = false;
        assert!(found(&seen)[1].1.contains("only root may read"));
    }
}
