//! The disk of a simulated node: rows that a crash takes back to what was synced, in transactions
//! that fail as the weather has it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use throng::inbox::batch::{Backend, Batch, Batches, Failure, Moment, Scene, Store};
use throng::inbox::records::{Head, decode, encode};
use throng::inbox::rows::{self, Broken, Rows, Visit};
use throng::inbox::service::Request;
use throng::parts::faults::Mutant;

use crate::rig::feed::Chance;

type Bytes = Vec<u8>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Some transactions fail, in one way or another.
    Rough,
    /// Nothing can be written or read.
    Down,
}

/// A point within a transaction at which the node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    BeforeWork,
    BeforeCommit,
    AfterCommit,
}

pub struct Disk {
    rows: BTreeMap<Bytes, Bytes>,
    /// How to take back what is not synced.
    undo: Vec<(Bytes, Option<Bytes>)>,
    pub weather: Weather,
    /// The next transaction is the node's last.
    pub death: Option<Death>,
    /// It was.
    pub has_died: bool,
    pub chance: Chance,
}

impl Disk {
    pub fn new(chance: Chance) -> Disk {
        Disk {
            rows: BTreeMap::new(),
            undo: Vec::new(),
            weather: Weather::Fine,
            death: None,
            has_died: false,
            chance,
        }
    }

    /// The node has died: what was not synced is gone.
    pub fn crash(&mut self) {
        self.roll_back(0);
        self.death = None;
        self.has_died = false;
    }

    /// What is exported and imported again, because something may be missing, has another epoch.
    pub fn begin_epoch(&mut self, epoch: u64) {
        let heads = rows::all::heads();
        let end = rows::end_of(heads.clone());
        for (_, row) in self.rows.range_mut(heads..end) {
            let mut head: Head = decode("inbox", row).unwrap();
            head.begin_epoch(epoch);
            *row = encode(&head);
        }
    }

    fn sync(&mut self) {
        let is_late = Mutant::AnswersEarly.is_on() && self.chance.below(4) > 0;
        if !is_late {
            self.undo.clear();
        }
    }

    fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some((key, Some(value))) => self.rows.insert(key, value),
                Some((key, None)) => self.rows.remove(&key),
                None => None,
            };
        }
    }

    fn dies(&mut self, at: Death) -> bool {
        let dies = self.death == Some(at);
        self.has_died |= dies;
        dies
    }
}

/// The contract over rows on a disk.
pub struct OverDisk<'a> {
    pub batches: &'a mut Batches,
    pub disk: &'a mut Disk,
}

impl Backend for OverDisk<'_> {
    fn carry_out(&mut self, requests: &[&Request], scene: &Scene<'_>) -> Batch {
        self.batches.carry_out(self.disk, requests, scene)
    }

    fn patience(&self, now: Moment) -> Duration {
        self.batches.patience(now)
    }

    fn look_for_work(&mut self) {
        self.batches.look_for_work();
    }
}

impl Store for Disk {
    fn run(
        &mut self,
        work: &mut dyn FnMut(&mut dyn Rows) -> Result<(), Broken>,
    ) -> Result<(), Failure> {
        let says = |text: &str| Broken(text.to_owned());
        if self.has_died || self.dies(Death::BeforeWork) {
            return Err(Failure::Unknown(says("the node has died")));
        }
        if self.weather == Weather::Down {
            return Err(Failure::Down(says("the disk is gone")));
        }
        let mark = self.undo.len();
        if let Err(broken) = work(self) {
            self.roll_back(mark);
            return Err(Failure::NotDone(broken));
        }
        if self.dies(Death::BeforeCommit) {
            self.roll_back(mark);
            return Err(Failure::Unknown(says("the node has died")));
        }
        let fate = match self.weather {
            Weather::Rough => self.chance.below(12),
            Weather::Fine | Weather::Down => u64::MAX,
        };
        if matches!(fate, 0..=2) {
            self.roll_back(mark);
        } else {
            self.sync();
        }
        self.dies(Death::AfterCommit);
        match fate {
            0 => Err(Failure::NotDone(says("a row is spoiled"))),
            1 => Err(Failure::Down(says("the disk is full"))),
            2 | 3 => Err(Failure::Unknown(says("the disk did not answer"))),
            _ => Ok(()),
        }
    }
}

impl Rows for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Broken> {
        Ok(self.rows.get(key).cloned())
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Broken> {
        let before = self.rows.insert(key.to_vec(), value.to_vec());
        self.undo.push((key.to_vec(), before));
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), Broken> {
        if let Some(before) = self.rows.remove(key) {
            self.undo.push((key.to_vec(), Some(before)));
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), Broken> {
        if from >= to {
            return Ok(());
        }
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.rows.range::<[u8], _>(bounds) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
