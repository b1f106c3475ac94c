//! Traces of single users, on demand: what happened to their connections, for an operator to read.
//!
//! Owns: the latest events of at most 16 users, 1 000 each.
//! Invariants: the memory is bounded, whatever is noted. While nobody is traced, the hot paths
//! pay one relaxed load; while somebody is, a hash for each event of the others, and a lock for
//! few of them.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;
use serde::Serialize;

/// Users traced at a time.
pub const TRACES_MAX: usize = 16;
/// Events of one user that are kept: the latest.
pub const EVENTS_MAX: usize = 1000;
/// Bytes of an event's detail that are kept: the first.
pub const DETAIL_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("as many users are traced as can be at a time")]
pub struct TooManyTraces;

/// What is known of one user. Times in Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    pub user_id: String,
    /// When it ends, or was to end.
    pub until: u64,
    pub is_running: bool,
    /// Events that made room for later ones.
    pub dropped: u64,
    /// Oldest first.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub at: u64,
    pub session: Box<str>,
    pub what: Box<str>,
    pub detail: Box<str>,
}

#[derive(Default)]
pub struct Traces {
    hasher: RandomState,
    /// For each running trace a bit, by the hash of its user: 0 while there is none.
    filter: AtomicU64,
    /// The moment from which on a running trace has ended.
    next_end_ms: AtomicU64,
    records: Mutex<Vec<Record>>,
}

struct Record {
    uid: Box<str>,
    until_ms: u64,
    is_running: bool,
    dropped: u64,
    events: VecDeque<Event>,
}

impl Traces {
    /// True if somebody may be traced: whether it is worth to note anything at all.
    pub fn is_active(&self) -> bool {
        self.filter.load(Relaxed) != 0
    }

    /// Traces `uid` until then. A running trace is prolonged, never cut short, and keeps its
    /// events; so does one that has ended. Another user's ended trace makes room if need be.
    pub fn start(&self, uid: &str, now_ms: u64, until_ms: u64) -> Result<(), TooManyTraces> {
        let mut records = self.records();
        self.settle(&mut records, now_ms);
        if let Some(record) = records.iter_mut().find(|record| &*record.uid == uid) {
            let is_prolonged = record.is_running && record.until_ms > until_ms;
            record.until_ms = if is_prolonged {
                record.until_ms
            } else {
                until_ms
            };
            record.is_running = true;
        } else {
            if records.len() == TRACES_MAX {
                let oldest = (0..TRACES_MAX)
                    .filter(|&at| !records[at].is_running)
                    .min_by_key(|&at| records[at].until_ms);
                records.swap_remove(oldest.ok_or(TooManyTraces)?);
            }
            records.push(Record {
                uid: uid.into(),
                until_ms,
                is_running: true,
                dropped: 0,
                events: VecDeque::new(),
            });
        }
        self.settle(&mut records, now_ms);
        Ok(())
    }

    /// Notes what happened to a session of `uid`, if that user is traced; else `detail` is not
    /// even made.
    pub fn note(
        &self,
        uid: &str,
        now_ms: u64,
        session: &str,
        what: &str,
        detail: impl FnOnce() -> String,
    ) {
        if !self.is_active() {
            return;
        }
        // Before the filter, so that anybody's event ends the trace of one who does nothing.
        if now_ms >= self.next_end_ms.load(Relaxed) {
            self.settle(&mut self.records(), now_ms);
        }
        if self.filter.load(Relaxed) & self.bit(uid) == 0 {
            return;
        }
        if running(&mut self.records(), uid, now_ms).is_none() {
            return;
        }
        // Made without the lock: who knows what it asks for.
        let detail = detail();
        let event = Event {
            at: now_ms,
            session: session.into(),
            what: what.into(),
            detail: detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].into(),
        };
        if let Some(record) = running(&mut self.records(), uid, now_ms) {
            if record.events.len() == EVENTS_MAX {
                record.events.pop_front();
                record.dropped += 1;
            }
            record.events.push_back(event);
        }
    }

    /// The trace of `uid`, running or not, if it is still here.
    pub fn read(&self, uid: &str, now_ms: u64) -> Option<Trace> {
        let mut records = self.records();
        self.settle(&mut records, now_ms);
        let record = records.iter().find(|record| &*record.uid == uid)?;
        Some(Trace {
            user_id: uid.to_owned(),
            until: record.until_ms,
            is_running: record.is_running,
            dropped: record.dropped,
            events: record.events.iter().cloned().collect(),
        })
    }

    /// Ends the trace of `uid`, which can still be read. False if none was running.
    pub fn stop(&self, uid: &str) -> bool {
        let mut records = self.records();
        let record = records.iter_mut().find(|record| &*record.uid == uid);
        let was_running =
            record.is_some_and(|record| std::mem::replace(&mut record.is_running, false));
        self.settle(&mut records, 0);
        was_running
    }

    /// Ends what is over, for good: a clock that is set back revives nothing.
    fn settle(&self, records: &mut [Record], now_ms: u64) {
        let mut filter = 0;
        let mut next_end_ms = u64::MAX;
        for record in records {
            record.is_running &= now_ms < record.until_ms;
            if record.is_running {
                filter |= self.bit(&record.uid);
                next_end_ms = next_end_ms.min(record.until_ms);
            }
        }
        self.filter.store(filter, Relaxed);
        self.next_end_ms.store(next_end_ms, Relaxed);
    }

    fn bit(&self, uid: &str) -> u64 {
        1 << (self.hasher.hash_one(uid) % u64::from(u64::BITS))
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        // A panic aborts the process, so a poisoned lock is never seen.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running<'a>(records: &'a mut [Record], uid: &str, now_ms: u64) -> Option<&'a mut Record> {
    records
        .iter_mut()
        .find(|record| &*record.uid == uid && record.is_running && now_ms < record.until_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(traces: &Traces, uid: &str, now_ms: u64, detail: &str) {
        traces.note(uid, now_ms, "s-1", "sent", || detail.to_owned());
    }

    fn details(traces: &Traces, uid: &str) -> Vec<String> {
        let trace = traces.read(uid, 0).unwrap();
        let texts = trace.events.iter().map(|event| event.detail.to_string());
        texts.collect()
    }

    #[test]
    fn a_trace_is_read_as_json() {
        let traces = Traces::default();
        traces.start("bob", 10, 20).unwrap();
        note(&traces, "bob", 11, "x");
        let trace = serde_json::to_string(&traces.read("bob", 12).unwrap()).unwrap();
        assert_eq!(
            trace,
            r#"{"userId":"bob","until":20,"isRunning":true,"dropped":0,"events":[{"at":11,"session":"s-1","what":"sent","detail":"x"}]}"#
        );
        assert_eq!(traces.read("eve", 12), None);
    }

    #[test]
    fn nothing_is_made_for_those_who_are_not_traced() {
        let traces = Traces::default();
        let never = || -> String { unreachable!("nobody asked for this") };
        traces.note("bob", 10, "s", "sent", never);
        traces.start("bob", 10, 20).unwrap();
        for i in 0..100 {
            traces.note(&format!("user-{i}"), 11, "s", "sent", never);
        }
        traces.note("bob", 20, "s", "sent", never);
        assert!(details(&traces, "bob").is_empty());
    }

    #[test]
    fn a_trace_ends_in_time_though_its_user_does_nothing_and_can_still_be_read() {
        let traces = Traces::default();
        assert!(!traces.is_active());
        traces.start("bob", 10, 20).unwrap();
        note(&traces, "bob", 19, "last");
        note(&traces, "eve", 19, "");
        assert!(traces.is_active());
        note(&traces, "eve", 20, "");
        assert!(!traces.is_active());
        note(&traces, "bob", 19, "too late: it has ended");
        assert_eq!(details(&traces, "bob"), ["last"]);
        assert!(!traces.read("bob", 19).unwrap().is_running);
    }

    #[test]
    fn a_trace_that_is_started_again_goes_on() {
        let traces = Traces::default();
        traces.start("bob", 10, 20).unwrap();
        note(&traces, "bob", 11, "a");
        traces.start("bob", 12, 15).unwrap();
        note(&traces, "bob", 19, "b");
        traces.start("bob", 19, 30).unwrap();
        note(&traces, "bob", 29, "c");
        assert!(!traces.read("bob", 40).unwrap().is_running);
        traces.start("bob", 40, 50).unwrap();
        note(&traces, "bob", 41, "d");
        assert_eq!(details(&traces, "bob"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_stopped_trace_can_be_read_and_started_again() {
        let traces = Traces::default();
        assert!(!traces.stop("bob"));
        traces.start("bob", 10, 1000).unwrap();
        note(&traces, "bob", 11, "a");
        assert!(traces.stop("bob") && !traces.stop("bob"));
        assert!(!traces.is_active());
        note(&traces, "bob", 12, "b");
        traces.start("bob", 13, 20).unwrap();
        assert_eq!(traces.read("bob", 13).unwrap().until, 20);
        note(&traces, "bob", 14, "c");
        assert_eq!(details(&traces, "bob"), ["a", "c"]);
    }

    #[test]
    fn sixteen_are_traced_at_a_time_and_ended_ones_make_room() {
        let traces = Traces::default();
        let user = |i: u64| format!("user-{i}");
        for i in 0..16 {
            traces.start(&user(i), 10, 100 + i).unwrap();
        }
        assert_eq!(traces.start("late", 99, 200), Err(TooManyTraces));
        traces.start(&user(3), 99, 103).unwrap();
        traces.start("late", 101, 200).unwrap();
        assert_eq!(traces.read(&user(0), 101), None);
        assert!(!traces.read(&user(1), 101).unwrap().is_running);
        traces.start("later", 101, 200).unwrap();
        assert_eq!(traces.start("latest", 101, 200), Err(TooManyTraces));
        assert_eq!(traces.read(&user(1), 101), None);
    }

    #[test]
    fn the_latest_thousand_events_are_kept() {
        let traces = Traces::default();
        traces.start("bob", 0, 9999).unwrap();
        for i in 0..1000 {
            note(&traces, "bob", i, "");
        }
        assert_eq!(traces.read("bob", 0).unwrap().dropped, 0);
        note(&traces, "bob", 1000, "");
        note(&traces, "bob", 1001, "");
        let trace = traces.read("bob", 0).unwrap();
        let ends = (trace.events[0].at, trace.events[999].at);
        assert_eq!(
            (trace.events.len(), trace.dropped, ends),
            (1000, 2, (2, 1001))
        );
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let traces = Traces::default();
        traces.start("bob", 0, 9).unwrap();
        for (length, kept) in [(255, 255), (256, 256), (257, 256)] {
            note(&traces, "bob", 1, &"x".repeat(length));
            assert_eq!(details(&traces, "bob").last().unwrap().len(), kept);
        }
        note(&traces, "bob", 1, &format!("{}é", "x".repeat(255)));
        assert_eq!(details(&traces, "bob")[3], "x".repeat(255));
    }
}
