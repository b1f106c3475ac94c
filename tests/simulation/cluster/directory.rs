//! Who is connected where, as the scripts of the directory keep it.
//!
//! Owns: the entries of all sessions. A model of `enter.lua`, `unbind.lua` and `clean.lua`;
//! `tests/redis` ties those to what is promised.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use smallvec::SmallVec;

use throng::inbox::Presence;
use throng::parts::faults::Mutant;
use throng::protocol::metadata::ANONYMOUS;
use throng::store::redis::Placed;

#[derive(Clone, Debug, Default)]
pub struct Directory(BTreeMap<String, Vec<Placed>>);

/// What came of an entry that was to be there.
pub struct Entered {
    /// False: it is one of those that had to go.
    pub stays: bool,
    /// Sessions that had to go for it.
    pub replaced: Vec<Placed>,
}

impl Presence for Directory {
    fn devices(&self, uid: &str) -> SmallVec<[String; 2]> {
        let all = self.of(uid).iter().map(|placed| &placed.entry.device);
        let mut devices: SmallVec<[String; 2]> = all.cloned().collect();
        devices.sort_unstable();
        devices.dedup();
        devices
    }
}

impl Directory {
    pub fn of(&self, uid: &str) -> &[Placed] {
        self.0.get(uid).map_or(&[], Vec::as_slice)
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &Placed)> {
        let of_each = self.0.iter();
        of_each.flat_map(|(uid, places)| places.iter().map(|placed| (uid.as_str(), placed)))
    }

    /// Users of whom a node has an entry, whichever life of it.
    pub fn users_of(&self, node: &str) -> Vec<String> {
        let has_it = |places: &[Placed]| places.iter().any(|placed| placed.node == node);
        let found = self.0.iter().filter(|(_, places)| has_it(places));
        found.map(|(uid, _)| uid.clone()).collect()
    }

    /// Each life of a node where the user is, once.
    pub fn lives(&self, uid: &str) -> Vec<(String, u64)> {
        let mut lives = Vec::new();
        for placed in self.of(uid) {
            let life = (placed.node.clone(), placed.node_epoch);
            if !lives.contains(&life) {
                lives.push(life);
            }
        }
        lives
    }

    /// A session enters, and others go for it: those of dead lives, all but the youngest on its
    /// device, and the oldest where there are more than `most`. A newcomer is the youngest.
    pub fn enter(
        &mut self,
        uid: &str,
        newcomer: Placed,
        most: usize,
        is_newest: bool,
        is_live: impl Fn(&Placed) -> bool,
    ) -> Entered {
        let name = newcomer.entry.session.clone();
        let device = newcomer.entry.device.clone();
        let before = self.0.remove(uid).unwrap_or_default();
        let mut sessions: Vec<Placed> = before
            .into_iter()
            .filter(|placed| is_live(placed) && placed.entry.session != name)
            .collect();
        sessions.push(newcomer);
        sessions.sort_by_key(|placed| {
            let entry = &placed.entry;
            let is_first = is_newest && entry.session == name;
            let age = (entry.since_secs, entry.ordinal, entry.session.clone());
            (!is_first, Reverse(age))
        });
        let (mut staying, mut going, mut is_taken) = (Vec::new(), Vec::new(), false);
        for placed in sessions {
            let is_twin = device != ANONYMOUS && placed.entry.device == device;
            let goes = staying.len() >= most.max(1) || (is_twin && is_taken);
            is_taken |= is_twin;
            let list = if goes { &mut going } else { &mut staying };
            list.push(placed);
        }
        let stays = staying.iter().any(|placed| placed.entry.session == name);
        going.retain(|placed| placed.entry.session != name);
        self.set(uid, staying);
        Entered {
            stays,
            replaced: going,
        }
    }

    /// A session of this life of a node has ended: no newer entry of its name goes with it.
    pub fn unbind(&mut self, uid: &str, session: &str, node: &str, epoch: u64) {
        self.retain(uid, |placed| {
            let is_it = placed.entry.session == session
                && placed.node == node
                && placed.node_epoch == epoch;
            !is_it && !Mutant::AnyUnbind.is_on()
        });
    }

    /// Takes out what a node left of a user: what is of the life `epoch`, or of all but the live
    /// one where none is named. The sessions in `keep` stay.
    pub fn clean(
        &mut self,
        uid: &str,
        node: &str,
        epoch: Option<u64>,
        keep: &[String],
        is_live: impl Fn(&Placed) -> bool,
    ) {
        self.retain(uid, |placed| {
            let is_meant = match epoch {
                Some(epoch) => placed.node_epoch == epoch,
                None => !is_live(placed),
            };
            placed.node != node || !is_meant || keep.contains(&placed.entry.session)
        });
    }

    fn retain(&mut self, uid: &str, stays: impl Fn(&Placed) -> bool) {
        let mut places = self.0.remove(uid).unwrap_or_default();
        places.retain(stays);
        self.set(uid, places);
    }

    fn set(&mut self, uid: &str, places: Vec<Placed>) {
        if !places.is_empty() {
            self.0.insert(uid.to_owned(), places);
        }
    }
}
