//! The one Redis of a simulated cluster.
//!
//! Owns: what is in it, and what of that is on its disk; who is subscribed, and what is on its
//! way to them. Each script is one step: the contract is the product's (`Books`), and so is what
//! is said on channels; the directory, leases and the work of groups are models of the scripts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use throng::inbox::memory::MemoryRows;
use throng::inbox::records::{Head, decode};
use throng::inbox::rows::{self, Rows};
use throng::inbox::service::{Outcome, Request};
use throng::inbox::{Books, DirectoryEntry, InboxRules, Ring, epoch_at};
use throng::parts::faults::Mutant;
use throng::store::redis::{Doorbell, Placed, Word};

use super::directory::{Directory, Entered};
use super::touched::Touched;
use crate::disk::Weather;
use crate::rig::feed::Chance;

/// How long a lease lasts.
const LEASE_MS: u64 = 15_000;
/// Work for a group that nobody has taken up for so long was left by its node.
const ABANDONED_MS: u64 = 15_000;
/// Close codes that are said on a channel.
const REPLACED: u16 = 4409;
const DUE_MAX: usize = 64;

pub struct Redis {
    data: Data,
    /// What a restart finds, where the rest is not on the disk.
    synced: Data,
    /// Which life of it, or which server, this is.
    pub run: u64,
    pub is_down: bool,
    /// What becomes of what it is asked.
    pub weather: Weather,
    /// By its own clock, which does not step.
    pub now_ms: u64,
    /// Random numbers that nobody has drawn before, counted.
    drawn: u64,
    channels: BTreeMap<String, Channel>,
}

#[derive(Clone, Default)]
struct Data {
    rows: MemoryRows,
    directory: Directory,
    leases: BTreeMap<String, Lease>,
    /// Names of nodes that have been there and were not struck out.
    servers: BTreeSet<String>,
    /// Groups with unfinished work, and when a node last took it up.
    work: BTreeMap<String, u64>,
    /// The life in which the epoch of new inboxes was drawn, and that epoch.
    epoch: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Lease {
    epoch: u64,
    ends_ms: u64,
}

/// The channel of one node, while it is subscribed.
#[derive(Default)]
struct Channel {
    said: VecDeque<Said>,
    /// Nothing comes through any more, and nobody knows.
    is_deaf: bool,
}

/// What is on its way to a subscriber.
#[derive(Clone)]
pub enum Said {
    Word(Doorbell),
    /// A node speaks to itself.
    Probe,
}

/// Who asks.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    pub node: &'a str,
    /// Of its present life.
    pub epoch: u64,
    pub rules: &'a InboxRules,
    /// By the clock of the node.
    pub wall_ms: u64,
}

/// How it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comeback {
    WithAll,
    /// As another server, to which the latest had not come, or from what was on the disk.
    WithoutLatest,
    WithNothing,
}

impl Redis {
    pub fn new() -> Redis {
        Redis {
            data: Data::default(),
            synced: Data::default(),
            run: 1,
            is_down: false,
            weather: Weather::Fine,
            now_ms: 0,
            drawn: 0xe000,
            channels: BTreeMap::new(),
        }
    }

    /// A number that nobody has had before.
    pub fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    pub fn rows(&self) -> &MemoryRows {
        &self.data.rows
    }

    pub fn directory(&self) -> &Directory {
        &self.data.directory
    }

    /// What is there now would be there after a restart too.
    pub fn sync(&mut self) {
        self.synced = self.data.clone();
    }

    /// It stops. Whoever is subscribed is so no longer.
    pub fn stop(&mut self) {
        self.is_down = true;
        self.channels.clear();
    }

    /// It is there again: another life of it.
    pub fn start(&mut self, how: Comeback) {
        match how {
            Comeback::WithAll => {}
            Comeback::WithoutLatest => self.data = self.synced.clone(),
            Comeback::WithNothing => self.data = Data::default(),
        }
        self.sync();
        self.is_down = false;
        self.run += 1;
    }
}

/// Channels.
impl Redis {
    pub fn subscribe(&mut self, node: &str) {
        self.channels.insert(node.to_owned(), Channel::default());
    }

    pub fn unsubscribe(&mut self, node: &str) {
        self.channels.remove(node);
    }

    /// Nothing comes through to this node any more.
    pub fn deafen(&mut self, node: &str) {
        if let Some(channel) = self.channels.get_mut(node) {
            channel.said.clear();
            channel.is_deaf = true;
        }
    }

    pub fn is_subscribed(&self, node: &str) -> bool {
        self.channels.contains_key(node)
    }

    pub fn publish(&mut self, node: &str, said: Said) {
        let heard = self.channels.get_mut(node);
        if let Some(channel) = heard.filter(|channel| !channel.is_deaf) {
            channel.said.push_back(said);
        }
    }

    pub fn is_quiet(&self) -> bool {
        self.channels
            .values()
            .all(|channel| channel.said.is_empty())
    }

    /// The next word for a node; where `is_unruly`, words come early, late or twice.
    pub fn next_word(&mut self, node: &str, is_unruly: bool, chance: &mut Chance) -> Option<Said> {
        let said = &mut self.channels.get_mut(node)?.said;
        let at = match is_unruly && chance.below(3) == 0 {
            true => chance.below(said.len() as u64) as usize,
            false => 0,
        };
        let word = said.remove(at)?;
        if is_unruly && chance.below(8) == 0 {
            let later = chance.below(said.len() as u64 + 1) as usize;
            said.insert(later, word.clone());
        }
        Some(word)
    }

    /// Tells one life of a node; the one that asks hears it in the answer.
    fn tell(&mut self, by: Caller<'_>, to: &(String, u64), word: Word, own: &mut Vec<Word>) {
        let (node, epoch) = to;
        if node == by.node && *epoch == by.epoch {
            own.push(word);
            return;
        }
        let doorbell = Doorbell {
            node_epoch: *epoch,
            from: by.node.to_owned(),
            word,
        };
        self.publish(node, Said::Word(doorbell));
    }

    fn ring(&mut self, by: Caller<'_>, rings: Vec<Ring>, own: &mut Vec<Word>) {
        for ring in rings {
            for life in self.data.directory.lives(ring.uid()) {
                self.tell(by, &life, Word::Ring(ring.clone()), own);
            }
        }
    }
}

/// Leases.
impl Redis {
    /// Which life of a node has its lease.
    pub fn lease(&self, node: &str) -> Option<u64> {
        let lease = self.data.leases.get(node);
        let lease = lease.filter(|lease| lease.ends_ms > self.now_ms);
        lease.map(|lease| lease.epoch)
    }

    /// A lease begins or goes on, and the node stands in the registry.
    pub fn hold(&mut self, node: &str, epoch: u64) {
        let ends_ms = self.now_ms + LEASE_MS;
        let lease = Lease { epoch, ends_ms };
        self.data.leases.insert(node.to_owned(), lease);
        self.data.servers.insert(node.to_owned());
    }

    pub fn servers(&self) -> Vec<String> {
        self.data.servers.iter().cloned().collect()
    }

    pub fn strike_out(&mut self, node: &str) {
        if self.lease(node).is_none() {
            self.data.servers.remove(node);
        }
    }

    fn is_live(&self, by: Caller<'_>) -> impl Fn(&Placed) -> bool + use<> {
        let mut lives: BTreeMap<String, u64> = BTreeMap::new();
        for node in self.data.leases.keys() {
            lives.extend(self.lease(node).map(|epoch| (node.clone(), epoch)));
        }
        lives.insert(by.node.to_owned(), by.epoch);
        move |placed| {
            lives.get(&placed.node) == Some(&placed.node_epoch) || Mutant::DeadCount.is_on()
        }
    }
}

/// Scripts.
impl Redis {
    /// What a request that is one script comes to, and what rings on the node that asks.
    pub fn serve(&mut self, by: Caller<'_>, request: &Request) -> (Outcome, Vec<Word>) {
        let mut own = Vec::new();
        let mut replaced = Vec::new();
        match request {
            Request::Unbind { uid, session } => {
                let directory = &mut self.data.directory;
                directory.unbind(uid, session, by.node, by.epoch);
                return (Outcome::Done, own);
            }
            Request::Attach(attach) => {
                self.touch(by, &attach.uid, &mut own);
                if let Some(entry) = &attach.entry {
                    let most = attach.sessions_max;
                    let entered = self.enter(by, &attach.uid, entry, most, true, &mut own);
                    replaced = entered.1;
                }
            }
            Request::AcceptForGroup(accept) => {
                self.data.work.insert(accept.group.clone(), self.now_ms);
            }
            _ => {}
        }
        let mut outcome = self.run(by, &mut own, |books| books.serve(request).unwrap());
        if let Outcome::Attached(attached) = &mut outcome {
            attached.replaced = replaced;
        }
        (outcome, own)
    }

    /// A session that is there already enters the directory, by its age. Says whether it stays,
    /// and which others of its node have to go.
    pub fn bind(
        &mut self,
        by: Caller<'_>,
        uid: &str,
        entry: &DirectoryEntry,
        most: usize,
    ) -> (bool, Vec<String>) {
        let mut own = Vec::new();
        self.touch(by, uid, &mut own);
        self.enter(by, uid, entry, most, false, &mut own)
    }

    pub fn clean(
        &mut self,
        by: Caller<'_>,
        uid: &str,
        node: &str,
        epoch: Option<u64>,
        keep: &[String],
    ) {
        self.touch(by, uid, &mut Vec::new());
        let is_live = self.is_live(by);
        self.data.directory.clean(uid, node, epoch, keep, is_live);
    }

    /// Puts what is due into the inboxes.
    pub fn deliver_due(&mut self, by: Caller<'_>) -> Vec<Word> {
        let mut own = Vec::new();
        self.run(by, &mut own, |books| books.deliver_due(DUE_MAX).unwrap());
        own
    }

    /// Drops what has grown old.
    pub fn expire(&mut self, by: Caller<'_>) -> Vec<Word> {
        let mut own = Vec::new();
        self.run(by, &mut own, |books| {
            for uid in books.users("", usize::MAX).unwrap() {
                books.expire(&uid).unwrap();
            }
            for group in books.groups("", usize::MAX).unwrap() {
                books.expire_group(&group).unwrap();
            }
        });
        own
    }

    /// Groups whose work nobody has taken up for a while: whoever asks takes it up.
    pub fn take_over(&mut self) -> Vec<String> {
        let now_ms = self.now_ms;
        let is_left = |(_, since): &(&String, &mut u64)| **since + ABANDONED_MS <= now_ms;
        let left = self.data.work.iter_mut().filter(is_left);
        left.map(|(group, since)| {
            *since = now_ms;
            group.clone()
        })
        .collect()
    }

    /// Brings one message of a group to its members. True: there is more.
    pub fn work(&mut self, by: Caller<'_>, group: &str) -> (bool, Vec<Word>) {
        let mut own = Vec::new();
        let has_more = self.run(by, &mut own, |books| books.work("").unwrap().is_some());
        match has_more {
            true => self.data.work.insert(group.to_owned(), self.now_ms),
            false => self.data.work.remove(group),
        };
        (has_more, own)
    }

    /// What stands in the head of an inbox, whatever life it was touched under.
    pub fn head(&self, uid: &str) -> Option<(u64, u64)> {
        let row = self.data.rows.get(&rows::head(uid)).unwrap()?;
        let head: Head = decode("inbox", &row).unwrap();
        Some((head.epoch, head.seq))
    }

    fn touch(&mut self, by: Caller<'_>, uid: &str, own: &mut Vec<Word>) {
        self.run(by, own, |books| books.rows.get(&rows::head(uid)).unwrap());
    }

    fn enter(
        &mut self,
        by: Caller<'_>,
        uid: &str,
        entry: &DirectoryEntry,
        most: usize,
        is_newest: bool,
        own: &mut Vec<Word>,
    ) -> (bool, Vec<String>) {
        let newcomer = Placed {
            entry: entry.clone(),
            node: by.node.to_owned(),
            node_epoch: by.epoch,
        };
        let is_live = self.is_live(by);
        let directory = &mut self.data.directory;
        let Entered { stays, replaced } = directory.enter(uid, newcomer, most, is_newest, is_live);
        let mut of_its_node = Vec::new();
        for placed in replaced {
            let session = placed.entry.session;
            if placed.node == by.node {
                of_its_node.push(session);
                continue;
            }
            let word = Word::Close {
                uid: uid.to_owned(),
                session,
                code: REPLACED,
            };
            self.tell(by, &(placed.node, placed.node_epoch), word, own);
        }
        (stays, of_its_node)
    }

    /// One step of the contract.
    fn run<T>(
        &mut self,
        by: Caller<'_>,
        own: &mut Vec<Word>,
        work: impl FnOnce(&mut Books<'_>) -> T,
    ) -> T {
        let fresh = self.draw();
        let epoch = match self.data.epoch {
            Some((run, epoch)) if run == self.run => epoch,
            _ => fresh,
        };
        self.data.epoch = Some((self.run, epoch));
        let mut rings = Vec::new();
        let mut rows = Touched::new(&mut self.data.rows, self.run, fresh);
        let result = work(&mut Books {
            rows: &mut rows,
            presence: &self.data.directory,
            rules: by.rules,
            now_ms: by.wall_ms,
            epoch: epoch_at(epoch, by.wall_ms),
            rings: &mut rings,
        });
        let lost = rows.into_lost().into_iter();
        let lost = lost.map(|uid| Ring::Lost { uid }).collect();
        self.data.rows.commit();
        self.ring(by, lost, own);
        self.ring(by, rings, own);
        result
    }
}
