//! The deterministic simulation: whole worlds of nodes, clients, a store and everything that can
//! go wrong, each decided by its seed, and judged as any history is.
//!
//! `THRONG_SIM_SEEDS=<n>` runs so many worlds, and a quarter as many clusters; `THRONG_SIM_SEED=<n>`
//! or `THRONG_SIM_CLUSTER=<n>` makes the test `replay` live through one of them and print all that
//! happens.

#![allow(clippy::unwrap_used)]

mod backend;
mod book;
mod client;
mod cluster;
mod crowd;
mod disk;
mod group;
mod node;
#[path = "../rig/mod.rs"]
mod rig;
mod traffic;
mod world;

use std::collections::BTreeSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use book::Counts;
use throng::parts::faults::{Mutant, with_mutant};
use throng_history::Kind;
use throng_history::report::Totals;
use world::Outcome;

/// Worlds where nobody says how many.
const SEEDS: u64 = 5_000;
const CLUSTERS: u64 = 1_200;

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// What many worlds come to.
#[derive(Default)]
struct Tally {
    totals: Totals,
    counts: Counts,
    /// The first seed that went wrong, and what the judge says of it.
    wrong: Option<(u64, String)>,
}

impl Tally {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        let (report, counts) = (&outcome.report, &outcome.counts);
        let (all, one) = (&mut self.totals, &report.totals);
        all.messages += one.messages;
        all.confirmed += one.confirmed;
        all.refused += one.refused;
        all.unknown += one.unknown;
        all.judged += one.judged;
        all.owed += one.owed;
        all.excused += one.excused;
        all.delivered += one.delivered;
        all.redelivered += one.redelivered;
        all.acks += one.acks;
        all.answers += one.answers;
        all.acks_unknown += one.acks_unknown;
        all.notices += one.notices;
        all.gaps += one.gaps;
        all.connections += one.connections;
        let sum = &mut self.counts;
        sum.crashes += counts.crashes;
        sum.cuts += counts.cuts;
        sum.mute += counts.mute;
        sum.group_deliveries += counts.group_deliveries;
        sum.push_deliveries += counts.push_deliveries;
        sum.cancelled += counts.cancelled;
        sum.inbox_full += counts.inbox_full;
        sum.conflicts += counts.conflicts;
        sum.epochs += counts.epochs;
        sum.replaced += counts.replaced;
        sum.lives += counts.lives;
        sum.restarts += counts.restarts;
        sum.rollbacks += counts.rollbacks;
        sum.gaps += counts.gaps;
        sum.stops += counts.stops;
        if !outcome.is_clean() {
            let astray = outcome.astray.join("\n");
            self.blame(seed, format!("{report}\n{astray}"));
        }
    }

    /// `variable` is what chooses one of these worlds.
    fn expect_no_violation(&self, seeds: &Range<u64>, variable: &str) {
        if let Some((seed, words)) = &self.wrong {
            panic!(
                "seed {seed}, to be replayed with\nTHRONG_SIM_{variable}={seed} cargo test \
                 --features faults --test simulation -- replay --nocapture\n{words}"
            );
        }
        let (t, c) = (&self.totals, &self.counts);
        println!(
            "seeds {}..{}, {} messages confirmed, {} crashes, no violation",
            seeds.start, seeds.end, t.confirmed, c.crashes
        );
        println!("{t:?}\n{c:?}");
    }

    fn blame(&mut self, seed: u64, words: String) {
        if self.wrong.as_ref().is_none_or(|(first, _)| seed < *first) {
            self.wrong = Some((seed, words));
        }
    }
}

/// What never happened proves nothing.
fn expect_all(happened: &[(&str, u64)]) {
    let never = happened.iter().filter(|(_, count)| *count == 0);
    let never: Vec<_> = never.map(|(what, _)| what).collect();
    assert!(never.is_empty(), "never: {never:?}");
}

/// How a world is lived through.
type Run = fn(u64, bool) -> Outcome;

/// Lives through all `seeds`, on all processors, up to the first ones that go wrong.
fn run_all(seeds: Range<u64>, run: Run) -> Tally {
    let next = AtomicU64::new(seeds.start);
    let tally = Mutex::new(Tally::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end || tally.lock().unwrap().wrong.is_some() {
                        return;
                    }
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
                    let mut tally = tally.lock().unwrap();
                    match outcome {
                        Ok(outcome) => tally.add(seed, &outcome),
                        Err(_) => tally.blame(seed, "it panicked, see above".to_owned()),
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

#[test]
fn thousands_of_worlds_break_no_promise() {
    let seeds = 0..variable("THRONG_SIM_SEEDS").unwrap_or(SEEDS);
    let tally = run_all(seeds.clone(), world::run);
    tally.expect_no_violation(&seeds, "SEED");
    let (t, c) = (&tally.totals, &tally.counts);
    expect_all(&[
        ("refused", t.refused),
        ("unknown", t.unknown),
        ("redelivered", t.redelivered),
        ("forged acknowledgement", t.acks_unknown),
        ("notice", t.notices),
        ("resync", t.gaps),
        ("excused", t.excused),
        ("crash", c.crashes),
        ("cut", c.cuts),
        ("4431", c.mute),
        ("group message", c.group_deliveries),
        ("push", c.push_deliveries),
        ("cancelled", c.cancelled),
        ("inbox full", c.inbox_full),
        ("msgid of another message", c.conflicts),
        ("another epoch", c.epochs),
    ]);
}

#[test]
fn thousands_of_clusters_break_no_promise() {
    // One of them lasts as long as many worlds of one node.
    let most = variable("THRONG_SIM_SEEDS").map(|seeds| seeds / 4);
    let seeds = 0..most.unwrap_or(CLUSTERS);
    let tally = run_all(seeds.clone(), cluster::world::run);
    tally.expect_no_violation(&seeds, "CLUSTER");
    let (t, c) = (&tally.totals, &tally.counts);
    expect_all(&[
        ("refused", t.refused),
        ("unknown", t.unknown),
        ("redelivered", t.redelivered),
        ("notice", t.notices),
        ("resync", t.gaps),
        ("crash", c.crashes),
        ("cut", c.cuts),
        ("group message", c.group_deliveries),
        ("4409", c.replaced),
        ("lease that ran out", c.lives),
        ("restart of Redis", c.restarts),
        ("loss of Redis", c.rollbacks),
        ("gap of the bus", c.gaps),
        ("node that stood still", c.stops),
    ]);
}

#[test]
fn replay() {
    let seeds = [
        (variable("THRONG_SIM_SEED"), world::run as Run),
        (variable("THRONG_SIM_CLUSTER"), cluster::world::run),
    ];
    for (seed, run) in seeds {
        let Some(seed) = seed else {
            continue;
        };
        let outcome = run(seed, true);
        for line in &outcome.trace {
            println!("{line}");
        }
        println!("{}\n{}", outcome.report, outcome.astray.join("\n"));
        assert!(outcome.is_clean(), "seed {seed}");
    }
}

#[test]
fn one_seed_is_one_trace() {
    for run in [world::run as Run, cluster::world::run] {
        for seed in 0..40 {
            let (first, second) = (run(seed, true), run(seed, true));
            assert_eq!(first.trace, second.trace, "seed {seed}");
        }
    }
}

/// Worlds in which a mutant must be noticed.
const MUTANT_SEEDS: u64 = 2_000;

/// Lives through worlds with one way to be wrong, until the judge says what it is called.
fn is_noticed(mutant: Mutant, kinds: &[Kind]) {
    is_noticed_in(world::run, mutant, kinds);
}

fn is_noticed_in(run: Run, mutant: Mutant, kinds: &[Kind]) {
    let mut seen = BTreeSet::new();
    for seed in 0..MUTANT_SEEDS {
        let report = with_mutant(Some(mutant), || run(seed, false)).report;
        seen.extend(report.kinds.keys().copied());
        if kinds.iter().all(|kind| seen.contains(kind)) {
            println!("{} is noticed by seed {seed}: {seen:?}", mutant.name());
            return;
        }
    }
    panic!("{} shows {seen:?} and not {kinds:?}", mutant.name());
}

#[test]
fn an_answer_before_it_is_durable_is_noticed() {
    is_noticed(Mutant::AnswersEarly, &[Kind::Lost]);
}

#[test]
fn a_repetition_that_is_a_new_message_is_noticed() {
    is_noticed(Mutant::NoDedupe, &[Kind::TwoIds, Kind::DuplicateMsgid]);
}

#[test]
fn a_hole_that_is_not_read_from_the_log_is_noticed() {
    is_noticed(Mutant::DoorbellOnly, &[Kind::Hole, Kind::Lost]);
}

#[test]
fn an_acknowledgement_of_what_is_somebody_elses_is_noticed() {
    is_noticed(Mutant::AnyonesAck, &[Kind::ForgedAck]);
}

#[test]
fn a_notice_of_what_is_not_written_down_is_noticed() {
    is_noticed(Mutant::EarlyNotice, &[Kind::SecondNotice]);
}

#[test]
fn a_notice_for_each_acknowledgement_is_noticed() {
    is_noticed(Mutant::NoticeEachTime, &[Kind::SecondNotice]);
}

#[test]
fn an_inbox_that_drops_its_oldest_in_silence_is_noticed() {
    is_noticed(Mutant::SilentTrim, &[Kind::Lost]);
}

#[test]
fn what_grows_old_in_silence_is_noticed() {
    is_noticed(Mutant::SilentExpiry, &[Kind::Lost]);
}

#[test]
fn a_group_message_that_is_only_remembered_in_memory_is_noticed() {
    is_noticed(Mutant::NoWorkItem, &[Kind::Lost]);
}

#[test]
fn what_was_sent_and_counts_as_arrived_is_noticed() {
    is_noticed(Mutant::SentIsGot, &[Kind::Lost]);
}

#[test]
fn a_cursor_that_is_not_heard_is_noticed() {
    is_noticed(Mutant::NoCursor, &[Kind::Repeated]);
}

#[test]
fn a_refusal_of_what_may_be_written_is_noticed() {
    is_noticed(Mutant::UnknownIsNo, &[Kind::FailedDelivered]);
}

#[test]
fn what_the_bus_lost_and_nobody_reads_from_the_log_is_noticed() {
    let run = cluster::world::run;
    is_noticed_in(run, Mutant::DoorbellOnly, &[Kind::Hole, Kind::Lost]);
}

#[test]
fn what_the_bus_lost_and_nobody_compares_is_noticed() {
    is_noticed_in(cluster::world::run, Mutant::NoReconcile, &[Kind::Lost]);
}

#[test]
fn numbers_that_go_on_after_a_loss_as_if_nothing_were_missing_are_noticed() {
    let run = cluster::world::run;
    is_noticed_in(run, Mutant::SameEpoch, &[Kind::Lost]);
}

/// The directory shows it at the end, when all is healed.
fn is_found_astray(mutant: Mutant, words: &str) {
    let shows = |seed: u64| {
        let outcome = with_mutant(Some(mutant), || cluster::world::run(seed, false));
        outcome.astray.iter().any(|it| it.contains(words))
    };
    let seed = (0..MUTANT_SEEDS).find(|&seed| shows(seed));
    println!("{} is noticed by seed {seed:?}", mutant.name());
    assert!(seed.is_some(), "{}: nobody is astray", mutant.name());
}

#[test]
fn an_end_that_takes_out_a_newer_session_is_noticed() {
    is_found_astray(Mutant::AnyUnbind, "nobody finds it");
}

#[test]
fn what_a_dead_node_wrote_down_and_still_counts_is_noticed() {
    is_found_astray(Mutant::DeadCount, "not there");
}
