//! A world that a seed decides: clients and a backend, a node that dies and another one after it
//! on the same disk, a network that cuts and stalls, clocks that step. Then everything heals, and
//! what is still to come has its time.

use throng::inbox::InboxRules;
use throng::inbox::batch::Batches;
use throng::parts::time::TICK_MS;
use throng_history::{Report, What};

use crate::backend::Backend;
use crate::book::{Book, Counts};
use crate::crowd::Crowd;
use crate::disk::{Death, Disk, OverDisk, Weather};
use crate::node::{self, Clocks, Node};
use crate::rig::feed::Chance;
use crate::rig::{Peer, START_MS};

/// Steps while things go wrong.
const STEPS: u64 = 320;
/// Seconds that a healed world has, at most, until nothing is left to do.
const HEAL_SECS: u64 = 400;
/// Seconds in which nothing happens at its end.
const QUIET_SECS: u32 = 5;

pub struct World {
    chance: Chance,
    disk: Disk,
    batches: Batches,
    /// None: it has died, and nobody has started another.
    node: Option<Node>,
    lives: u64,
    clocks: Clocks,
    rules: InboxRules,
    crowd: Crowd,
    backend: Backend,
    book: Book,
    connections: u64,
    /// Connections whose clients are gone, and the node does not know.
    ghosts: Vec<Peer>,
    /// Rings come early, late or twice.
    is_unruly: bool,
}

#[derive(Default)]
pub struct Outcome {
    pub report: Report,
    /// What the directory of a cluster has wrong when all is healed.
    pub astray: Vec<String>,
    pub counts: Counts,
    pub trace: Vec<String>,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.astray.is_empty()
    }
}

/// Lives through one seed.
pub fn run(seed: u64, keeps_trace: bool) -> Outcome {
    let mut world = World::new(seed, keeps_trace);
    world.book.write(What::FaultStart {
        fault: "chance".to_owned(),
    });
    world.begin();
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    let (report, counts, trace) = world.book.finish();
    Outcome {
        report,
        counts,
        trace,
        ..Outcome::default()
    }
}

impl World {
    fn new(seed: u64, keeps_trace: bool) -> World {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let crowd = Crowd::new(&mut chance);
        let clocks = Clocks {
            ms: 0,
            wall_ms: START_MS,
        };
        let rules = rules(&mut chance);
        World {
            disk: Disk::new(Chance(chance.draw())),
            batches: Batches::default(),
            node: Some(Node::new(1, clocks)),
            lives: 1,
            clocks,
            rules,
            crowd,
            backend: Backend::default(),
            book: Book::new(keeps_trace),
            connections: 0,
            ghosts: Vec::new(),
            is_unruly: chance.below(2) == 0,
            chance,
        }
    }

    /// Who has several devices comes with the first of them, before anything else happens.
    fn begin(&mut self) {
        for at in self.crowd.firsts() {
            self.connect(at);
        }
        self.exchange();
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.chance.below(100) {
            0..30 => self.client_acts(),
            30..60 => {
                let at = self.crowd.any_client(&mut self.chance);
                self.carry_bytes(at);
            }
            60..72 => self.store_works(),
            72..84 => self.reactor_reads_mail(),
            84..92 => {
                let ticks = 1 << self.chance.below(6);
                self.time_passes(ticks as u32);
            }
            92..94 => self.backend_acts(),
            94..99 => self.something_fails(),
            _ => {
                let ticks = 100 + self.chance.below(600);
                self.time_passes(ticks as u32);
            }
        }
        self.settle_group();
    }

    fn settle_group(&mut self) {
        let is_under_way = self.node.as_mut().is_some_and(Node::is_changing_groups);
        self.crowd.settle(is_under_way, &self.disk, &mut self.book);
    }

    fn client_acts(&mut self) {
        let at = self.crowd.any_client(&mut self.chance);
        if self.crowd.clients[at].line.is_none() {
            return self.connect(at);
        }
        let (book, chance) = (&mut self.book, &mut self.chance);
        self.crowd.act(at, &self.disk, book, chance);
    }

    fn connect(&mut self, at: usize) {
        if let Some(node) = &mut self.node {
            self.connections += 1;
            self.crowd.clients[at].connect(self.connections, node, &mut self.book);
        }
    }

    /// Brings some bytes to the node, and whatever has come to the client.
    fn carry_bytes(&mut self, at: usize) {
        let (Some(node), client) = (&mut self.node, &mut self.crowd.clients[at]) else {
            return;
        };
        let Some(line) = &mut client.line else {
            return;
        };
        let most = 1 << self.chance.below(12);
        let length = line.up.len().min(1 + self.chance.below(most) as usize);
        let piece: Vec<u8> = line.up.drain(..length).collect();
        node.rig.say_bytes(line.peer, &piece);
        client.hear(node, &mut self.book, &mut self.chance);
        client.lose_patience(&mut self.book);
    }

    fn store_works(&mut self) {
        let Some(node) = &mut self.node else {
            return;
        };
        let mut store = OverDisk {
            batches: &mut self.batches,
            disk: &mut self.disk,
        };
        let answers = node.serve(&mut store, &self.rules, self.clocks, &mut self.chance);
        if self.disk.has_died {
            return self.node_dies();
        }
        self.backend.hear(answers, &mut self.book);
    }

    fn reactor_reads_mail(&mut self) {
        let Some(node) = &mut self.node else {
            return;
        };
        for _ in 0..1 + self.chance.below(8) {
            node.read_mail(self.is_unruly, &mut self.chance);
        }
    }

    fn time_passes(&mut self, ticks: u32) {
        let ms = u64::from(ticks) * TICK_MS;
        self.clocks.ms += ms;
        self.clocks.wall_ms += ms;
        self.book.ms = self.clocks.ms;
        if let Some(node) = &mut self.node {
            node.rig.advance_ticks(ticks);
        }
    }

    fn backend_acts(&mut self) {
        let Some(node) = &mut self.node else {
            return;
        };
        match self.chance.below(4) {
            0 => self.backend.cancel(node, &mut self.chance),
            _ => {
                let mut to = self.crowd.users.clone();
                to.truncate(1 + self.chance.below(2) as usize);
                to.reverse();
                let delay_ms = 500 << self.chance.below(7);
                let is_later = self.chance.below(2) == 0;
                let due_ms = is_later.then_some(self.clocks.wall_ms + delay_ms);
                self.backend.compose(to, due_ms);
            }
        }
        self.backend.send(node, self.clocks, &mut self.book);
    }
}

/// What goes wrong.
impl World {
    fn something_fails(&mut self) {
        let Some(node) = &mut self.node else {
            return self.node_starts();
        };
        match self.chance.below(20) {
            0..6 => {
                let at = self.crowd.any_client(&mut self.chance);
                self.cut(at);
            }
            6..8 => self.disk.weather = Weather::Rough,
            8 => self.disk.weather = Weather::Down,
            9..12 => self.disk.weather = Weather::Fine,
            12 => {
                let is_jammed = &mut node.rig.desk.store.is_jammed;
                *is_jammed = !*is_jammed;
            }
            13 => node.mailbox_max = self.chance.below(12) as usize,
            14 => node.mailbox_max = usize::MAX,
            15 => {
                let at = self.crowd.any_client(&mut self.chance);
                self.stall(at);
            }
            16 => {
                let secs = self.chance.below(40) as i64 - 20;
                node.rig.step_wall_secs(secs);
                self.clocks.wall_ms = node.rig.now.wall_ms;
            }
            17 => {
                for ghost in std::mem::take(&mut self.ghosts) {
                    node.rig.hang_up(ghost);
                }
            }
            18 => {
                self.disk.death = Some(match self.chance.below(3) {
                    0 => Death::BeforeWork,
                    1 => Death::BeforeCommit,
                    _ => Death::AfterCommit,
                });
            }
            _ => self.node_dies(),
        }
    }

    /// A connection is cut: of the bytes under way, some arrive. The node may hear of it later.
    fn cut(&mut self, at: usize) {
        let (Some(node), client) = (&mut self.node, &mut self.crowd.clients[at]) else {
            return;
        };
        let Some(line) = &mut client.line else {
            return;
        };
        self.book.counts.cuts += 1;
        let peer = line.peer;
        let sent = self.chance.below(line.up.len() as u64 + 1) as usize;
        node.rig.say_bytes(peer, &line.up[..sent]);
        node.rig
            .lose_all_but(peer, self.chance.below(2048) as usize);
        client.hear(node, &mut self.book, &mut self.chance);
        client.hang_up(&mut self.book);
        match self.chance.below(3) {
            0 => self.ghosts.push(peer),
            _ => node.rig.hang_up(peer),
        }
    }

    /// A client stops reading, or reads again.
    fn stall(&mut self, at: usize) {
        let (Some(node), client) = (&mut self.node, &mut self.crowd.clients[at]) else {
            return;
        };
        if let Some(line) = &mut client.line {
            line.is_stalled = !line.is_stalled;
            node.rig.stall(line.peer, line.is_stalled);
        }
    }

    fn node_dies(&mut self) {
        self.book.note(|| "the node dies".to_owned());
        self.book.counts.crashes += 1;
        for at in 0..self.crowd.clients.len() {
            self.cut(at);
        }
        self.node = None;
        self.ghosts.clear();
        self.disk.crash();
        self.backend.hear_nothing(&mut self.book);
    }

    /// Another node on the same disk, or on what was exported from it and imported again.
    fn node_starts(&mut self) {
        self.lives += 1;
        if self.chance.below(6) == 0 {
            self.book
                .note(|| "the store takes another epoch".to_owned());
            self.book.counts.epochs += 1;
            self.disk.begin_epoch(node::epoch(self.lives));
        }
        self.batches = Batches::default();
        self.node = Some(Node::new(self.lives, self.clocks));
        self.book.note(|| "a node starts".to_owned());
    }
}

/// The end.
impl World {
    /// Nothing fails any more. Everybody comes back, and says and hears what there is.
    fn heal(&mut self) {
        self.disk.weather = Weather::Fine;
        self.disk.death = None;
        self.is_unruly = false;
        if self.node.is_none() {
            self.node_starts();
        }
        if let Some(node) = &mut self.node {
            node.rig.desk.store.is_jammed = false;
            node.mailbox_max = usize::MAX;
            for ghost in std::mem::take(&mut self.ghosts) {
                node.rig.hang_up(ghost);
            }
        }
        for at in 0..self.crowd.clients.len() {
            let is_stalled = self.crowd.clients[at]
                .line
                .as_ref()
                .is_some_and(|line| line.is_stalled);
            if is_stalled {
                self.stall(at);
            }
        }
        self.book.write(What::Heal {});
        let end_ms = self.clocks.ms + HEAL_SECS * 1000;
        let (healed, mut quiet_secs) = (self.clocks, 0);
        while quiet_secs < QUIET_SECS && self.clocks.ms < end_ms {
            let is_quiet = self.pass_a_healed_second(healed);
            quiet_secs = if is_quiet { quiet_secs + 1 } else { 0 };
        }
    }

    /// True if there was nothing to do in it.
    fn pass_a_healed_second(&mut self, healed: Clocks) -> bool {
        for at in 0..self.crowd.clients.len() {
            if self.crowd.clients[at].line.is_none() {
                self.connect(at);
            }
            self.crowd.behave(at, &mut self.book, &mut self.chance);
        }
        if let Some(node) = &mut self.node {
            self.backend.send(node, self.clocks, &mut self.book);
        }
        self.exchange();
        self.settle_group();
        self.time_passes(10);
        let now = self.clocks;
        self.crowd.is_done() && self.backend.is_done(healed, now)
    }

    /// Everything that is on its way arrives.
    fn exchange(&mut self) {
        let mut is_idle = false;
        while !is_idle {
            for at in 0..self.crowd.clients.len() {
                while self.crowd.clients[at]
                    .line
                    .as_ref()
                    .is_some_and(|line| !line.up.is_empty())
                {
                    self.carry_bytes(at);
                }
                self.carry_bytes(at);
            }
            self.store_works();
            while self
                .node
                .as_mut()
                .is_some_and(|node| node.read_mail(false, &mut self.chance))
            {}
            is_idle = self.node.as_mut().is_none_or(Node::is_idle);
        }
        for at in 0..self.crowd.clients.len() {
            self.carry_bytes(at);
        }
    }
}

/// Mostly what holds where nothing is configured; sometimes so tight that it strikes.
pub fn rules(chance: &mut Chance) -> InboxRules {
    const HOUR_MS: u64 = 3_600_000;
    InboxRules {
        entries_max: [1000, 1000, 12, 6][chance.below(4) as usize],
        bytes_max: 8 << 20,
        notices_max: [1000, 1000, 4][chance.below(3) as usize],
        devices_max: [8, 8, 2][chance.below(3) as usize],
        ttl_ms: [168 * HOUR_MS, 168 * HOUR_MS, 60_000][chance.below(3) as usize],
        seen_ms: 24 * HOUR_MS,
        seen_max: 10_000,
    }
}
