//! The history of a run, in memory: what clients are about to send, and what they have received.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use throng_history::{Event, Judge, Report, What};

pub struct Scribe {
    began: Instant,
    events: Mutex<Vec<Event>>,
}

impl Scribe {
    pub fn new() -> Scribe {
        Scribe {
            began: Instant::now(),
            events: Mutex::default(),
        }
    }

    pub fn tell(&self, what: What) {
        let mut events = self.events.lock().unwrap();
        let at = self.began.elapsed().as_millis() as u64;
        events.push(Event { at, what });
    }

    /// What would be said if this were all.
    pub fn judged_so_far(&self) -> Report {
        let mut judge = Judge::new();
        for (line, event) in (1..).zip(&self.whole()) {
            judge.see(line, event);
        }
        judge.finish()
    }

    /// Writes the history where somebody can read it, and says where.
    pub fn keep(&self, name: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.history"));
        let mut lines = Vec::new();
        for event in self.whole() {
            event.write(&mut lines).unwrap();
        }
        fs::write(&path, lines).unwrap();
        path
    }

    /// Everything so far, as a history that ends here.
    fn whole(&self) -> Vec<Event> {
        let mut events = self.events.lock().unwrap().clone();
        let at = events.last().map_or(0, |event| event.at);
        let ends = [What::Heal {}, What::Drained {}];
        events.extend(ends.map(|what| Event { at, what }));
        events
    }
}
