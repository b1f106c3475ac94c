//! The deterministic simulation: whole worlds of nodes, clients, a store and everything that can
//! go wrong, each decided by its seed, and judged as any history is.
//!
//! `THRONG_SIM_SEEDS=<n>` runs so many worlds; `THRONG_SIM_SEED=<n>` makes the test `replay` live
//! through one of them and print all that happens.

#![allow(clippy::unwrap_used)]

mod backend;
mod book;
mod client;
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
use throng_history::report::Totals;
use throng_history::{Kind, Report};

/// Worlds where nobody says how many.
const SEEDS: u64 = 5_000;

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
    fn add(&mut self, seed: u64, report: &Report, counts: &Counts) {
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
        if !report.is_clean() {
            self.blame(seed, report.to_string());
        }
    }

    fn blame(&mut self, seed: u64, words: String) {
        if self.wrong.as_ref().is_none_or(|(first, _)| seed < *first) {
            self.wrong = Some((seed, words));
        }
    }
}

/// Lives through all `seeds`, on all processors, up to the first ones that go wrong.
fn run_all(seeds: Range<u64>) -> Tally {
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
                    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(seed, false)));
                    let mut tally = tally.lock().unwrap();
                    match outcome {
                        Ok(outcome) => tally.add(seed, &outcome.report, &outcome.counts),
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
    let tally = run_all(seeds.clone());
    if let Some((seed, words)) = tally.wrong {
        panic!(
            "seed {seed}, to be replayed with\nTHRONG_SIM_SEED={seed} cargo test --features faults \
             --test simulation -- replay --nocapture\n{words}"
        );
    }
    let (t, c) = (&tally.totals, &tally.counts);
    println!(
        "seeds {}..{}, {} messages confirmed, {} crashes, no violation",
        seeds.start, seeds.end, t.confirmed, c.crashes
    );
    println!("{t:?}\n{c:?}");
    // What never happened proves nothing.
    let happened = [
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
    ];
    let never = happened.iter().filter(|(_, count)| *count == 0);
    let never: Vec<_> = never.map(|(what, _)| what).collect();
    assert!(never.is_empty(), "never: {never:?}");
}

#[test]
fn replay() {
    let Some(seed) = variable("THRONG_SIM_SEED") else {
        return;
    };
    let outcome = world::run(seed, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("{}", outcome.report);
    assert!(outcome.report.is_clean(), "seed {seed}");
}

#[test]
fn one_seed_is_one_trace() {
    for seed in 0..40 {
        let (first, second) = (world::run(seed, true), world::run(seed, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
    }
}

/// Worlds in which a mutant must be noticed.
const MUTANT_SEEDS: u64 = 2_000;

/// Lives through worlds with one way to be wrong, until the judge says what it is called.
fn is_noticed(mutant: Mutant, kinds: &[Kind]) {
    let mut seen = BTreeSet::new();
    for seed in 0..MUTANT_SEEDS {
        let report = with_mutant(Some(mutant), || world::run(seed, false)).report;
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
