//! The node's numbers as Prometheus text, read when somebody asks.
//!
//! Owns: names, units and help of all metrics, and the counter of API requests. All other numbers
//! belong to the node and its reactors.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use tikv_jemalloc_ctl::{epoch, stats as jemalloc};

use super::answer::Answer;
use super::{Services, Shared};
use crate::protocol::limits::Limit;
use crate::stats::{CLOSE_CODES, Count, ERRORS, REFUSALS, ReactorStats, Strikes, TURN_MICROS};

/// OpenMetrics, which Prometheus reads since 2.5.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub struct Metrics {
    registry: Registry,
    requests: Family<[(&'static str, String); 1], Counter>,
}

impl Metrics {
    pub fn new(services: Arc<Services>, strikes: Arc<Strikes>) -> Metrics {
        let mut registry = Registry::with_prefix("throng");
        let requests = Family::default();
        registry.register(
            "api_requests",
            "Answers of the HTTP API by status",
            requests.clone(),
        );
        registry.register_collector(Box::new(Node {
            services,
            strikes,
            empty_bytes: AtomicU64::new(memory().map_or(0, |(allocated, _)| allocated)),
        }));
        Metrics { registry, requests }
    }

    pub fn count_request(&self, status: StatusCode) {
        self.requests
            .get_or_create(&[("status", status.as_u16().to_string())])
            .inc();
    }
}

/// Bytes that the process has allocated, and bytes that the allocator holds for it; nothing where
/// another allocator is at work.
fn memory() -> Option<(u64, u64)> {
    epoch::advance().ok()?;
    let (allocated, resident) = (jemalloc::allocated::read(), jemalloc::resident::read());
    Some((allocated.ok()? as u64, resident.ok()? as u64))
}

pub async fn show(State(desk): Shared) -> Response {
    let mut text = String::new();
    match encode(&mut text, &desk.metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(Error) => {
            let msg = "the metrics could not be written";
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, msg).into_response()
        }
    }
}

struct Node {
    services: Arc<Services>,
    /// The API's own.
    strikes: Arc<Strikes>,
    /// Bytes that were allocated when this was last read and nobody was connected.
    empty_bytes: AtomicU64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

impl Collector for Node {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut sheet = Sheet {
            encoder,
            stats: &self.services.stats,
        };
        self.node(&mut sheet)?;
        self.crowd(&mut sheet)?;
        self.tables(&mut sheet)?;
        traffic(&mut sheet)?;
        ends(&mut sheet)?;
        self.strikes(&mut sheet)?;
        self.reactors(&mut sheet)
    }
}

impl Node {
    fn node(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let Services {
            node,
            post,
            started,
            ..
        } = &*self.services;
        let (users, sessions) = post.roster.counts();
        let draining = u64::from(node.is_draining());
        sheet.gauge(
            "connections",
            "Connections admitted, authenticated or not",
            None,
            node.connections() as u64,
        )?;
        sheet.gauge(
            "connections_max",
            "Connections that this node admits",
            None,
            node.max_connections as u64,
        )?;
        sheet.gauge(
            "sessions",
            "Connections that are bound to a user",
            None,
            sessions as u64,
        )?;
        sheet.gauge(
            "users",
            "Users that have a session here",
            None,
            users as u64,
        )?;
        sheet.gauge(
            "draining",
            "1 while this node is letting its clients go",
            None,
            draining,
        )?;
        sheet.gauge(
            "uptime",
            "Time since the start",
            Some(Unit::Seconds),
            started.elapsed().as_secs(),
        )?;
        self.memory(sheet)
    }

    /// What clients make of the node, by state and in bytes.
    fn crowd(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let strangers = self.services.node.strangers() as u64;
        let bound = sheet.total(|s| &s.bound);
        let rest = sheet.total(|s| &s.open).saturating_sub(strangers + bound);
        let help = "Sockets held, by state";
        let mut metric =
            sheet
                .encoder
                .encode_descriptor("sockets", help, None, MetricType::Gauge)?;
        for (state, count) in [
            ("unauthenticated", strangers),
            ("authenticated", bound),
            ("leaving", rest),
        ] {
            metric
                .encode_family(&[("state", state)])?
                .encode_gauge(&count)?;
        }
        Ok(())
    }

    fn memory(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let Some((allocated, resident)) = memory() else {
            return Ok(());
        };
        let open = sheet.total(|s| &s.open);
        if open == 0 {
            self.empty_bytes.store(allocated, Relaxed);
        }
        let grown = allocated.saturating_sub(self.empty_bytes.load(Relaxed));
        for (name, help, bytes) in [
            (
                "allocated",
                "Memory that is in use by the process",
                allocated,
            ),
            ("resident", "Memory that the allocator holds", resident),
            (
                "connection",
                "Memory allocated since nobody was connected, for each socket",
                grown / open.max(1),
            ),
        ] {
            sheet.gauge(name, help, Some(Unit::Bytes), bytes)?;
        }
        Ok(())
    }

    fn store(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let stats = &self.services.store_stats;
        let up = "1 while the store does what it is asked";
        sheet.gauge("store_up", up, None, stats.up.get())?;
        let waiting = "Requests that waited for the store when it took its last batch";
        sheet.gauge("store_waiting", waiting, None, stats.waiting.get())?;
        let requests = "Requests to the store";
        sheet.counter("store_requests", requests, None, stats.requests.get())?;
        let batches = "Transactions in which they were served";
        sheet.counter("store_batches", batches, None, stats.batches.get())?;
        let seconds = stats.micros.get() as f64 / 1e6;
        let busy = "Time that transactions took";
        sheet.counter("store_busy", busy, Some(Unit::Seconds), seconds)
    }

    /// What the node is among others.
    fn cluster(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        if self.services.post.others.is_none() {
            return Ok(());
        }
        let stats = &self.services.cluster;
        for (name, help, gauge) in [
            ("cluster_up", "1 while the node has its lease", &stats.up),
            (
                "bus_up",
                "1 while the node hears itself on the bus",
                &stats.hears,
            ),
            ("nodes", "Nodes that are alive", &stats.nodes),
        ] {
            sheet.gauge(name, help, None, gauge.get())?;
        }
        for (name, help, counter) in [
            ("bus_received", "Words heard on the bus", &stats.words_in),
            (
                "bus_sent",
                "Words published, but those of scripts",
                &stats.words_out,
            ),
            (
                "bus_gaps",
                "Times that words may have been missed",
                &stats.gaps,
            ),
            (
                "bus_dropped",
                "Words that a full mailbox refused",
                &stats.dropped,
            ),
            ("errands", "Errands to other nodes done", &stats.errands),
            (
                "errands_lost",
                "Errands that could not be done",
                &stats.errands_lost,
            ),
            (
                "inboxes_compared",
                "Sessions whose inbox was compared",
                &stats.compared,
            ),
            (
                "sessions_rebound",
                "Sessions that were written down anew",
                &stats.rebound,
            ),
        ] {
            sheet.counter(name, help, None, counter.get())?;
        }
        Ok(())
    }

    /// What the connections have in common.
    fn tables(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let Services { node, post, .. } = &*self.services;
        self.store(sheet)?;
        self.cluster(sheet)?;
        sheet.gauge(
            "watches",
            "Users whose coming and going connections watch, each as often as it is watched",
            None,
            post.watches.len() as u64,
        )?;
        sheet.gauge(
            "write_queues_max",
            "Bytes that all write queues of the node may hold",
            Some(Unit::Bytes),
            node.queued_max() as u64,
        )
    }

    fn strikes(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let help = "Times that a limit struck, by its key in the configuration";
        let metric = "limit_strikes";
        let mut metric =
            sheet
                .encoder
                .encode_descriptor(metric, help, None, MetricType::Counter)?;
        for &limit in Limit::ALL {
            let of_reactors = sheet.stats.iter().map(|stats| stats.strikes.of(limit));
            let total = of_reactors.sum::<u64>() + self.strikes.of(limit);
            metric
                .encode_family(&[("limit", limit.key())])?
                .encode_counter::<NoLabelSet, _, u64>(&total, None)?;
        }
        Ok(())
    }

    fn reactors(&self, sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
        let clock_ms = self.services.started.elapsed().as_millis() as u64;
        let running = |s: &ReactorStats| match s.turn_since_ms.get() {
            0 => 0.0,
            since => clock_ms.saturating_sub(since) as f64 / 1e3,
        };
        sheet.each(
            "open_sockets",
            "Sockets held, those that are closing included",
            None,
            |s| s.open.get() as f64,
        )?;
        sheet.each(
            "bound_sockets",
            "Sockets that are bound to a user",
            None,
            |s| s.bound.get() as f64,
        )?;
        sheet.each("timers", "Entries in the timing wheel", None, |s| {
            s.timers.get() as f64
        })?;
        sheet.each(
            "write_queue",
            "Bytes that wait in write queues",
            Some(Unit::Bytes),
            |s| s.queued_bytes.get() as f64,
        )?;
        sheet.each(
            "turn_running",
            "For how long the current turn has been running",
            Some(Unit::Seconds),
            running,
        )?;
        sheet.each(
            "turn_worst",
            "CPU time of the longest turn",
            Some(Unit::Seconds),
            |s| s.turn_worst_micros.get() as f64 / 1e6,
        )?;
        sheet.turns()
    }
}

fn traffic(sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
    let bytes = || Some(Unit::Bytes);
    sheet.sum("accepted", "Sockets accepted", None, |s| &s.accepted)?;
    sheet.sum("frames_received", "Frames read from clients", None, |s| {
        &s.frames_in
    })?;
    sheet.sum(
        "received",
        "Bytes read from clients after the upgrade",
        bytes(),
        |s| &s.bytes_in,
    )?;
    sheet.sum("sent", "Bytes written to clients", bytes(), |s| {
        &s.bytes_out
    })?;
    sheet.sum("writes", "Writes to sockets that carried them", None, |s| {
        &s.writes
    })?;
    sheet.sum("deliveries", "Messages handed to a session", None, |s| {
        &s.deliveries
    })?;
    sheet.sum(
        "broadcast_deliveries",
        "Broadcast messages handed to a session",
        None,
        |s| &s.broadcast_deliveries,
    )?;
    sheet.sum("pings", "Pings sent to silent clients", None, |s| &s.pings)
}

fn ends(sheet: &mut Sheet<'_, '_>) -> Result<(), Error> {
    sheet.sum(
        "dropped",
        "Messages that a full mailbox or write queue refused",
        None,
        |s| &s.dropped,
    )?;
    sheet.sum(
        "farewells",
        "Newcomers beyond the cap that were told where to go",
        None,
        |s| &s.farewells,
    )?;
    sheet.sum(
        "descriptors_exhausted",
        "Times that no descriptor was left to accept with",
        None,
        |s| &s.descriptors_exhausted,
    )?;
    sheet.named(
        "refusals",
        "Upgrades refused, by HTTP status",
        "status",
        &REFUSALS,
        |s| &s.refusals,
    )?;
    sheet.named(
        "errors",
        "Errors that did not end a connection, by code",
        "code",
        &ERRORS,
        |s| &s.errors,
    )?;
    sheet.named(
        "closes",
        "Connections closed, by close code; 1006: without a close frame",
        "code",
        &CLOSE_CODES,
        |s| &s.closes,
    )
}

/// Writes metrics, one kind a method.
struct Sheet<'e, 's> {
    encoder: DescriptorEncoder<'e>,
    stats: &'s [Arc<ReactorStats>],
}

impl Sheet<'_, '_> {
    /// One number of the node.
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: u64,
    ) -> Result<(), Error> {
        self.encoder
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?
            .encode_gauge(&value)
    }

    /// A gauge of each reactor.
    fn each(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        of: impl Fn(&ReactorStats) -> f64,
    ) -> Result<(), Error> {
        let mut metric =
            self.encoder
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (number, stats) in self.stats.iter().enumerate() {
            metric
                .encode_family(&[("reactor", number)])?
                .encode_gauge(&of(stats))?;
        }
        Ok(())
    }

    fn total(&self, of: impl Fn(&ReactorStats) -> &Count) -> u64 {
        self.stats.iter().map(|stats| of(stats).get()).sum()
    }

    /// A counter, summed over the reactors.
    fn sum(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        of: impl Fn(&ReactorStats) -> &Count,
    ) -> Result<(), Error> {
        self.counter(name, help, unit, self.total(of))
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: impl EncodeCounterValue,
    ) -> Result<(), Error> {
        self.encoder
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// Counters that stand side by side under their names; the last counts all others.
    fn named(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        names: &[u16],
        of: impl Fn(&ReactorStats) -> &[Count],
    ) -> Result<(), Error> {
        let mut metric = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (at, code) in names.iter().enumerate() {
            let text = if *code == 0 {
                "other".to_owned()
            } else {
                code.to_string()
            };
            let total: u64 = self.stats.iter().map(|stats| of(stats)[at].get()).sum();
            metric
                .encode_family(&[(label, text)])?
                .encode_counter::<NoLabelSet, _, u64>(&total, None)?;
        }
        Ok(())
    }

    fn turns(&mut self) -> Result<(), Error> {
        let help = "CPU time of a reactor's turns";
        let mut metric = self.encoder.encode_descriptor(
            "turn",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        for (number, stats) in self.stats.iter().enumerate() {
            let tops = TURN_MICROS
                .iter()
                .map(|&micros| micros as f64 / 1e6)
                .chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = tops
                .zip(&stats.turn_histogram)
                .map(|(top, count)| (top, count.get()))
                .collect();
            // From the buckets, so that the total agrees with them while the reactor counts on.
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = stats.turn_micros.get() as f64 / 1e6;
            metric
                .encode_family(&[("reactor", number)])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}
