//! What the program says at the end of a run, as text and as JSON; `html` makes a page of it.
//!
//! Owns: the words. A part of the program, not of the library.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use throng_history::{Kind, Report as Verdict};
use throng_loadtest::chat::ChatTally;
use throng_loadtest::presence::{STEADY, Sample};
use throng_loadtest::pulse::Latencies;
use throng_loadtest::{Chatted, Churned, Counts, Opened, Pushed, Returned, Talked, Weathered};

use crate::findings::{Finding, Place, findings};
use crate::setting::Setting;
use crate::watch::Watched;

pub mod html;
mod plot;
mod plots;
pub mod table;

/// Lines of text about how many were connected when.
const MOMENTS_MAX: usize = 30;

pub struct Report {
    pub text: String,
    pub fields: Value,
    pub counts: Option<Counts>,
    pub findings: Vec<Finding>,
    /// Everything that was asked for happened.
    pub is_complete: bool,
}

impl Report {
    pub fn new() -> Report {
        Report {
            text: String::new(),
            fields: json!({}),
            counts: None,
            findings: Vec::new(),
            is_complete: true,
        }
    }

    pub fn json(&self) -> Value {
        let mut whole = self.fields.clone();
        if let Some(counts) = &self.counts {
            whole["counts"] = json!(counts);
        }
        whole["complete"] = json!(self.is_complete);
        whole
    }

    fn line(&mut self, name: &str, text: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{name:<12} {text}");
    }

    pub fn opened(&mut self, opened: &Opened, clients: u64) {
        let (secs, open) = (opened.took.as_secs_f64(), opened.open);
        let per_sec = open as f64 / secs;
        self.line(
            "connected",
            format_args!("{open} of {clients} in {secs:.2} s, {per_sec:.0}/s"),
        );
        let limit = opened.limit.map(|limit| limit.to_string());
        if let Some(limit) = &limit {
            self.line("host limit", format_args!("{limit}"));
        }
        self.fields["connect"] = json!({
            "wanted": clients, "open": open, "secs": secs, "per_sec": per_sec, "host_limit": limit,
        });
        self.is_complete = open == clients;
    }

    pub fn talked(&mut self, talked: &Talked, messages: u32, in_flight: u32) {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let latency = &talked.latency;
        let (p50, p99) = (
            micros(latency.value_at_quantile(0.5)),
            micros(latency.value_at_quantile(0.99)),
        );
        let (max, secs) = (micros(latency.max()), talked.took.as_secs_f64());
        let (sent, received) = (talked.sent, talked.received);
        let per_sec = received as f64 / secs;
        self.line(
            "unicast",
            format_args!(
                "{received} of {sent} messages arrived in {secs:.2} s, {per_sec:.0}/s, {in_flight} in flight"
            ),
        );
        self.line(
            "latency",
            format_args!("p50 {p50:.0} us, p99 {p99:.0} us, max {max:.0} us"),
        );
        self.fields["unicast"] = json!({
            "sent": sent, "received": received, "per_sec": per_sec,
            "secs": secs, "p50_us": p50, "p99_us": p99, "max_us": max,
        });
        self.is_complete &= received == u64::from(messages);
    }

    pub fn chatted(&mut self, chatted: &Chatted, rate: f64, clients: u64) {
        let tally = &chatted.tally;
        let (issued, secs) = (chatted.issued, chatted.took.as_secs_f64());
        let _ = write!(
            self.text,
            "chat         {issued} messages, {rate}/s, in {secs:.2} s: {} stored, {} delivered, {} told of\n\
             sent         {} times: {} known already, {} refused, {} not answered; {} given up\n\
             received     {} again, {} foreign; {} acknowledged, {} answered; {} gaps, {} comebacks\n",
            tally.confirmed,
            tally.delivered,
            tally.noticed,
            tally.attempts,
            tally.dups,
            tally.refused.values().sum::<u64>(),
            tally.unknown,
            tally.given_up,
            tally.repeated,
            tally.foreign,
            tally.acks,
            tally.answers,
            tally.gaps,
            tally.comebacks,
        );
        self.chat_faults(tally);
        let mut latencies = json!({});
        for (name, histogram) in [
            ("stored (0)", &tally.to_stored),
            ("received (2)", &tally.to_delivered),
            ("told (17)", &tally.to_noticed),
        ] {
            latencies[name] = self.latency(name, histogram, "");
        }
        let mut survivors = json!({});
        let secs_steady = STEADY.as_secs();
        for (name, histogram) in [
            ("stored (0)", &tally.steady_stored),
            ("received (2)", &tally.steady_delivered),
        ] {
            let of = format!(
                " ({} between clients that had lost no connection for {secs_steady} s)",
                histogram.len()
            );
            survivors[name] = self.latency(name, histogram, &of);
        }
        self.fields["chat"] = json!({
            "issued": issued, "secs": secs, "settled": chatted.is_settled,
            "attempts": tally.attempts, "confirmed": tally.confirmed, "dups": tally.dups,
            "refused": tally.refused, "given_up": tally.given_up, "unknown": tally.unknown,
            "delivered": tally.delivered, "repeated": tally.repeated, "foreign": tally.foreign,
            "doubled": tally.doubled, "out_of_order": tally.out_of_order,
            "misrouted": tally.misrouted,
            "acks": tally.acks, "answers": tally.answers, "noticed": tally.noticed,
            "gaps": tally.gaps, "comebacks": tally.comebacks, "latencies": latencies,
            "latencies_of_survivors": survivors,
        });
        // Who was not there at the beginning may have come since.
        let is_everybody_here = chatted.returned.open == clients;
        let is_once = tally.delivered == tally.confirmed && !tally.has_faults();
        let is_settled = chatted.is_settled && tally.given_up == 0;
        self.is_complete = is_settled && is_once && is_everybody_here;
    }

    fn chat_faults(&mut self, tally: &ChatTally) {
        for (code, count) in &tally.refused {
            self.line("refused", format_args!("{count} with {code}"));
        }
        if tally.has_faults() {
            self.line(
                "faults",
                format_args!(
                    "{} came twice on one connection, {} out of order, {} misrouted",
                    tally.doubled, tally.out_of_order, tally.misrouted
                ),
            );
        }
    }

    /// Each message is for the `size - 1` others of its group.
    pub fn grouped(&mut self, chatted: &Chatted, rate: f64, size: u32, clients: u64) {
        let tally = &chatted.tally;
        let (issued, secs) = (chatted.issued, chatted.took.as_secs_f64());
        let expected = tally.confirmed * u64::from(size - 1);
        let missing = expected.saturating_sub(tally.delivered);
        let _ = write!(
            self.text,
            "group        {issued} messages, {rate}/s, in {secs:.2} s, to groups of {size}: {} stored\n\
             sent         {} times: {} known already, {} refused, {} not answered; {} given up\n\
             delivered    {} of {expected}, {missing} missing; {} again, {} foreign; {} gaps, {} comebacks\n",
            tally.confirmed,
            tally.attempts,
            tally.dups,
            tally.refused.values().sum::<u64>(),
            tally.unknown,
            tally.given_up,
            tally.delivered,
            tally.repeated,
            tally.foreign,
            tally.gaps,
            tally.comebacks,
        );
        self.chat_faults(tally);
        let stored = self.latency("stored (0)", &tally.to_stored, "");
        let received = self.latency("received(10)", &tally.to_delivered, "");
        self.fields["group"] = json!({
            "issued": issued, "secs": secs, "size": size, "settled": chatted.is_settled,
            "attempts": tally.attempts, "confirmed": tally.confirmed, "dups": tally.dups,
            "refused": tally.refused, "given_up": tally.given_up, "unknown": tally.unknown,
            "expected": expected, "delivered": tally.delivered, "missing": missing,
            "repeated": tally.repeated, "foreign": tally.foreign, "doubled": tally.doubled,
            "out_of_order": tally.out_of_order, "misrouted": tally.misrouted,
            "gaps": tally.gaps, "comebacks": tally.comebacks,
            "stored": stored, "received": received,
        });
        let is_once = tally.delivered == expected && !tally.has_faults();
        let is_settled = chatted.is_settled && tally.given_up == 0;
        let is_everybody_here = chatted.returned.open == clients;
        self.is_complete = is_settled && is_once && is_everybody_here;
    }

    pub fn pushed(&mut self, pushed: &Pushed, counts: &Counts, rate: f64) {
        let Pushed {
            due, said, heard, ..
        } = pushed;
        let secs = pushed.took.as_secs_f64();
        let (received, missing) = self.answered("push", pushed, rate, said.promised);
        let answer = self.latency("answered", &said.to_answer, "");
        let latency = self.latency("received", &heard.to_heard, "");
        self.fields["push"] = json!({
            "due": due, "secs": secs, "answered": said.answered, "accepted": said.accepted,
            "refused": said.refused, "unknown": said.unknown, "absent": said.absent,
            "expected": said.promised, "received": received, "missing": missing,
            "answer": answer, "latency": latency,
        });
        let is_accepted = said.accepted == *due;
        self.is_complete &= is_accepted && received == said.promised && !counts.has_faults();
    }

    /// What the API said, and what came of what it accepted: received, and missing.
    fn answered(&mut self, name: &str, pushed: &Pushed, rate: f64, expected: u64) -> (u64, u64) {
        let Pushed {
            due, said, heard, ..
        } = pushed;
        let secs = pushed.took.as_secs_f64();
        let (received, accepted) = (heard.to_heard.len(), said.accepted);
        let missing = expected.saturating_sub(received);
        self.line(
            name,
            format_args!("{accepted} of {due} pushes accepted, {rate}/s, in {secs:.2} s"),
        );
        for (cause, count) in &said.refused {
            self.line("refused", format_args!("{count}: {cause}"));
        }
        if said.absent > 0 {
            self.line(
                "absent",
                format_args!("{} receivers not connected", said.absent),
            );
        }
        for (cause, count) in &said.unknown {
            self.line("no answer", format_args!("{count}: {cause}"));
        }
        self.line(
            "delivered",
            format_args!("{received} of {expected}, {missing} missing"),
        );
        (received, missing)
    }

    pub fn stalled(&mut self, pushed: &Pushed, counts: &Counts, rate: f64, stall_secs: u64) {
        let Pushed {
            due, said, heard, ..
        } = pushed;
        let secs = pushed.took.as_secs_f64();
        let expected = said.accepted * heard.listeners;
        let (received, missing) = self.answered("slow", pushed, rate, expected);
        let answer = self.latency("answered", &said.to_answer, "");
        let latency = self.latency("received", &heard.to_heard, "");
        for (cause, count) in &heard.gone {
            self.line("fast lost", format_args!("{count}: {cause}"));
        }
        let slow = heard.slow;
        let missed = (said.accepted * slow).saturating_sub(heard.to_slow.len());
        self.line(
            "slow ones",
            format_args!(
                "{slow} did not read for {stall_secs} s: {} caught up, {missed} deliveries missed",
                heard.caught_up
            ),
        );
        for (cause, count) in &heard.slow_gone {
            self.line("slow lost", format_args!("{count}: {cause}"));
        }
        let late = self.latency("slow heard", &heard.to_slow, "");
        self.fields["slow"] = json!({
            "due": due, "secs": secs, "answered": said.answered, "accepted": said.accepted,
            "refused": said.refused, "unknown": said.unknown, "listeners": heard.listeners,
            "expected": expected, "received": received, "missing": missing,
            "answer": answer, "latency": latency, "fast_lost": heard.gone,
            "slow": slow, "slow_caught_up": heard.caught_up, "slow_missed": missed,
            "slow_lost": heard.slow_gone, "slow_latency": late,
        });
        let is_accepted = said.accepted == *due;
        self.is_complete &= is_accepted && received == expected && !counts.has_faults();
    }

    pub fn churned(&mut self, churned: &Churned, rate: f64, at_once: f64) {
        let (tally, secs) = (&churned.tally, churned.took.as_secs_f64());
        let failed: u64 = tally.failed.values().sum();
        self.line(
            "churn",
            format_args!(
                "{} came, {rate}/s, in {secs:.2} s: {} registered, {failed} failed; {} due and nobody free",
                tally.came, tally.registered, tally.left_out
            ),
        );
        self.line(
            "left",
            format_args!("{} by a goodbye, {} by a reset", tally.closed, tally.reset),
        );
        for (cause, count) in &tally.failed {
            self.line("failed", format_args!("{count}: {cause}"));
        }
        self.moments(&churned.over_time);
        self.line(
            "at once",
            format_args!("{at_once:.0} would be here on average once the first ones have left"),
        );
        let connect = self.times("connecting", &tally.connects, "");
        let goodbye = self.times("goodbye", &tally.goodbyes, "");
        self.fields["churn"] = json!({
            "secs": secs, "came": tally.came, "registered": tally.registered,
            "left_out": tally.left_out, "closed": tally.closed, "reset": tally.reset,
            "failed": tally.failed, "at_once": at_once, "over_time": churned.over_time,
            "connect": connect, "goodbye": goodbye,
        });
        self.is_complete = failed == 0 && tally.left_out == 0 && tally.registered > 0;
    }

    /// Nothing where no node has sent anybody on.
    pub fn followed(&mut self, opened: &Opened) {
        let followed = opened.followed;
        if followed > 0 {
            self.line(
                "followed",
                format_args!("{followed} connections begun where and when a node had said so"),
            );
        }
        self.fields["connect"]["followed"] = json!(followed);
    }

    /// What the clients' connections need of this process's own memory. Of small crowds it would
    /// tell what the program itself needs.
    pub fn own_memory(&mut self, bytes: u64, clients: u64) {
        const CLIENTS_MIN: u64 = 5000;
        if clients < CLIENTS_MIN {
            return;
        }
        let each = bytes / clients;
        self.line("own memory", format_args!("{each} bytes a connection"));
        self.fields["own_bytes_per_connection"] = json!(each);
    }

    /// `histogram` is of nanoseconds.
    fn latency(&mut self, name: &str, histogram: &Histogram<u64>, of: &str) -> Value {
        let micros = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let (p50, p99, p999) = (micros(0.5), micros(0.99), micros(0.999));
        let max = histogram.max() as f64 / 1000.0;
        self.line(
            name,
            format_args!(
                "p50 {p50:.0} us, p99 {p99:.0} us, p99.9 {p999:.0} us, max {max:.0} us{of}"
            ),
        );
        json!({
            "count": histogram.len(),
            "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max,
        })
    }

    pub fn weathered(&mut self, weathered: &Weathered, clients: u64) {
        match weathered.all_open {
            Some(after) => self.line(
                "connected",
                format_args!(
                    "all {clients} for the first time after {:.2} s",
                    after.as_secs_f64()
                ),
            ),
            None => self.line("connected", format_args!("never all {clients}")),
        }
        let limit = weathered.limit.map(|limit| limit.to_string());
        if let Some(limit) = &limit {
            self.line("host limit", format_args!("{limit}"));
        }
        self.fields["storm"] = json!({
            "wanted": clients, "host_limit": limit,
            "all_open_secs": weathered.all_open.map(|after| after.as_secs_f64()),
        });
        self.returned(&weathered.returned, clients);
    }

    /// Complete is that everybody is connected at the end.
    pub fn returned(&mut self, returned: &Returned, clients: u64) {
        let Returned {
            tally,
            over_time,
            open,
            arriving_max,
            by_target,
        } = returned;
        self.moments(over_time);
        self.line(
            "at the end",
            format_args!(
                "{open} of {clients} connected; at most {arriving_max} were on their way at once"
            ),
        );
        for (url, open, registered) in by_target {
            self.line(
                "target",
                format_args!("{open} connected, {registered} registered in all: {url}"),
            );
        }
        self.line(
            "comebacks",
            format_args!(
                "{} begun; {} goodbyes named an address, {} one where nobody can go",
                tally.reconnects,
                tally.sent_on + tally.sent_nowhere,
                tally.sent_nowhere
            ),
        );
        for (name, causes) in [
            ("lost", &tally.lost),
            ("in vain", &tally.failed),
            ("stopped", &tally.stopped),
        ] {
            for (cause, count) in causes {
                self.line(name, format_args!("{count}: {cause}"));
            }
        }
        let connect = self.times("connecting", &tally.connects, "");
        let outage = self.times("outage", &tally.outages, "");
        let going_on = format!(", {} of them go on", tally.out);
        let worst = self.times("worst each", &tally.worst, &going_on);
        self.fields["returns"] = json!({
            "wanted": clients, "open": open, "arriving_max": arriving_max,
            "targets": by_target.iter().map(|(url, open, registered)| {
                json!({ "url": url, "open": open, "registered": registered })
            }).collect::<Vec<_>>(),
            "reconnects": tally.reconnects, "sent_on": tally.sent_on,
            "sent_nowhere": tally.sent_nowhere, "lost": tally.lost, "in_vain": tally.failed,
            "stopped": tally.stopped, "connect": connect, "outage": outage,
            "worst_outage_of_each": worst, "outages_that_go_on": tally.out,
            "over_time": over_time,
        });
        self.is_complete &= *open == clients;
    }

    /// `histogram` is of microseconds.
    fn times(&mut self, name: &str, histogram: &Histogram<u64>, more: &str) -> Value {
        let secs = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        let (count, p50, p99) = (histogram.len(), secs(0.5), secs(0.99));
        let max = histogram.max() as f64 / 1e6;
        self.line(
            name,
            format_args!("p50 {p50:.3} s, p99 {p99:.3} s, max {max:.3} s, of {count}{more}"),
        );
        json!({ "count": count, "p50_secs": p50, "p99_secs": p99, "max_secs": max })
    }

    /// When how many were connected, as far as it changed.
    fn moments(&mut self, over_time: &[Sample]) {
        let mut changes: Vec<&Sample> = Vec::new();
        for sample in over_time {
            if changes
                .last()
                .is_none_or(|last| last.by_target != sample.by_target)
            {
                changes.push(sample);
            }
        }
        let every = changes.len().div_ceil(MOMENTS_MAX).max(1);
        for sample in changes.iter().rev().step_by(every).rev() {
            let each: Vec<String> = sample.by_target.iter().map(u64::to_string).collect();
            self.line(
                &format!("at {:.1} s", sample.secs),
                format_args!(
                    "{} connected ({}), {} on their way",
                    sample.open,
                    each.join(" + "),
                    sample.arriving
                ),
            );
        }
    }

    pub fn judged(&mut self, verdict: &Verdict) {
        let lost = verdict.totals.lost;
        let doubled = verdict.count(Kind::DuplicateId) + verdict.count(Kind::DuplicateMsgid);
        self.line("judged", format_args!("{lost} lost, {doubled} doubled"));
        let _ = writeln!(self.text, "{verdict}");
        self.fields["judged"] = json!({ "lost": lost, "doubled": doubled });
        self.fields["history"] = json!(verdict);
        self.fields["lossRateBelow"] = json!(verdict.loss_rate_below());
        self.is_complete &= verdict.is_clean();
    }

    pub fn counted(&mut self, counts: Counts) {
        let _ = writeln!(self.text, "{counts}");
        self.counts = Some(counts);
    }

    /// What was seen from outside: latencies, series, and whose limits were reached.
    pub fn watched(&mut self, watched: &Watched, setting: &Setting) {
        self.text += &table::text(&watched.latencies);
        let place = Place {
            cores: setting.machine.cores,
            is_same_host: setting.is_same_host,
        };
        self.findings = findings(watched, place);
        for finding in &self.findings.clone() {
            self.line("finding", format_args!("{}", finding.text));
        }
        self.fields["setting"] = json!(setting);
        self.fields["latencies"] = table::json(&watched.latencies);
        self.fields["histograms"] = histograms(&watched.latencies);
        self.fields["findings"] = json!(self.findings);
        self.fields["series"] = json!(watched.samples);
        if let Some(slab) = &watched.slab {
            self.fields["slab"] = json!({
                "connections": slab.connections, "bytes": slab.bytes(), "caches": slab.caches,
            });
        }
    }
}

/// For each latency its whole distribution, as pairs of a share and milliseconds.
fn histograms(latencies: &Latencies) -> Value {
    let all = latencies.iter().map(|(what, histogram)| {
        let points = table::distribution(histogram);
        (what.name().to_owned(), json!(points))
    });
    Value::Object(all.collect())
}
