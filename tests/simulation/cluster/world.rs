//! A cluster world that a seed decides: two or three nodes over one Redis, and clients that come
//! back on any of them.
//!
//! Nodes die and come back under their names, or stand still for a while; the bus loses, delays,
//! repeats and reorders, with and without anybody's knowledge; pipelines break; Redis goes and
//! comes back with all, some or nothing of what it had. Then everything heals. It lasts longer
//! then than in a world of one node: what nobody was told of is found within a minute.

use throng::inbox::InboxRules;
use throng::parts::time::TICK_MS;
use throng_history::What;

use super::process::Process;
use super::redis::{Comeback, Redis};
use crate::book::Book;
use crate::crowd::Crowd;
use crate::disk::Weather;
use crate::node::Clocks;
use crate::rig::feed::Chance;
use crate::rig::{Peer, START_MS};
use crate::world::{self, Outcome};

/// Steps while things go wrong.
const STEPS: u64 = 260;
/// Seconds for which a healed world lives at least, and at most.
const HEAL_SECS: u64 = 95;
const HEAL_SECS_MAX: u64 = 300;
/// Seconds in which nothing happens at its end.
const QUIET_SECS: u32 = 5;
/// One in so many times when time has passed, what is in Redis is on its disk.
const SYNCED_IN: u64 = 40;
/// Ticks after which threads look around, at the latest.
const SLICE: u32 = 10;

pub struct Cluster {
    chance: Chance,
    redis: Redis,
    members: Vec<Member>,
    /// Processes so far.
    started: u64,
    clocks: Clocks,
    rules: InboxRules,
    crowd: Crowd,
    /// Where each client is connected.
    homes: Vec<usize>,
    book: Book,
    connections: u64,
    /// Connections whose clients are gone, and the node does not know: which process has them.
    ghosts: Vec<(usize, u64, Peer)>,
    /// Words come early, late or twice.
    is_unruly: bool,
    /// What the restarts of Redis may lose.
    risk: Risk,
    sessions_max: usize,
}

struct Member {
    name: String,
    /// None: it has died, and nobody has started another.
    process: Option<Process>,
    /// The number of its process.
    number: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Risk {
    NoRestart,
    Restart,
    LosesLatest,
    LosesAll,
}

/// Lives through one seed.
pub fn run(seed: u64, keeps_trace: bool) -> Outcome {
    let mut cluster = Cluster::new(seed, keeps_trace);
    cluster.book.write(What::FaultStart {
        fault: "chance".to_owned(),
    });
    cluster.begin();
    for _ in 0..STEPS {
        cluster.step();
    }
    cluster.heal();
    let astray = cluster.astray();
    let (report, counts, trace) = cluster.book.finish();
    Outcome {
        report,
        astray,
        counts,
        trace,
    }
}

impl Cluster {
    fn new(seed: u64, keeps_trace: bool) -> Cluster {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xc105);
        let risk = match chance.below(8) {
            0..4 => Risk::NoRestart,
            4 | 5 => Risk::Restart,
            6 => Risk::LosesLatest,
            _ => Risk::LosesAll,
        };
        let mut crowd = Crowd::new(&mut chance);
        if risk > Risk::Restart {
            crowd.name_all();
        }
        let names = (1..=2 + chance.below(2)).map(|n| format!("10.0.0.{n}:8084"));
        let members: Vec<Member> = names
            .map(|name| Member {
                name,
                process: None,
                number: 0,
            })
            .collect();
        let mut cluster = Cluster {
            redis: Redis::new(),
            members,
            started: 0,
            clocks: Clocks {
                ms: 0,
                wall_ms: START_MS,
            },
            rules: world::rules(&mut chance),
            homes: vec![0; crowd.clients.len()],
            crowd,
            book: Book::new(keeps_trace),
            connections: 0,
            ghosts: Vec::new(),
            is_unruly: chance.below(2) == 0,
            risk,
            sessions_max: [8, 8, 2][chance.below(3) as usize],
            chance,
        };
        for at in 0..cluster.members.len() {
            cluster.node_starts(at);
        }
        cluster
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
            0..28 => self.client_acts(),
            28..54 => {
                let at = self.crowd.any_client(&mut self.chance);
                self.carry_bytes(at);
            }
            54..68 => {
                let at = self.any_member();
                self.store_works(at, false);
            }
            68..78 => {
                let at = self.any_member();
                self.reactor_reads_mail(at);
            }
            78..84 => {
                let at = self.any_member();
                self.threads_work(at);
            }
            84..92 => {
                let ticks = 1 << self.chance.below(6);
                self.time_passes(ticks);
            }
            92..99 => self.something_fails(),
            _ => {
                let ticks = 50 + self.chance.below(300) as u32;
                self.time_passes(ticks);
            }
        }
        self.settle_group();
    }

    fn settle_group(&mut self) {
        let mut is_under_way = false;
        for process in self.members.iter_mut().filter_map(|of| of.process.as_mut()) {
            is_under_way |= process.node.is_changing_groups();
        }
        let (rows, book) = (self.redis.rows(), &mut self.book);
        self.crowd.settle(is_under_way, rows, book);
    }

    fn any_member(&mut self) -> usize {
        self.chance.below(self.members.len() as u64) as usize
    }

    /// The process of a member, if it is alive and does something.
    fn running(&mut self, at: usize) -> Option<&mut Process> {
        let process = self.members[at].process.as_mut();
        process.filter(|process| process.stopped.is_none())
    }

    fn client_acts(&mut self) {
        let at = self.crowd.any_client(&mut self.chance);
        if self.crowd.clients[at].line.is_none() {
            return self.connect(at);
        }
        let (book, chance) = (&mut self.book, &mut self.chance);
        self.crowd.act(at, self.redis.rows(), book, chance);
    }

    /// A client comes, wherever there is a node.
    fn connect(&mut self, at: usize) {
        let member = self.any_member();
        self.connections += 1;
        let number = self.connections;
        let process = self.members[member].process.as_mut();
        if let Some(process) = process.filter(|process| process.stopped.is_none()) {
            let client = &mut self.crowd.clients[at];
            client.connect(number, &mut process.node, &mut self.book);
            self.book
                .note(|| format!("{number} is at {}", process.name));
            self.homes[at] = member;
        }
    }

    /// Brings some bytes to the node, and whatever has come to the client.
    fn carry_bytes(&mut self, at: usize) {
        let client = &mut self.crowd.clients[at];
        client.lose_patience(&mut self.book);
        let process = self.members[self.homes[at]].process.as_mut();
        let running = process.filter(|process| process.stopped.is_none());
        let (Some(process), Some(line)) = (running, &mut client.line) else {
            return;
        };
        let most = 1 << self.chance.below(12);
        let length = line.up.len().min(1 + self.chance.below(most) as usize);
        let piece: Vec<u8> = line.up.drain(..length).collect();
        process.node.rig.say_bytes(line.peer, &piece);
        client.hear(&mut process.node, &mut self.book, &mut self.chance);
    }

    fn store_works(&mut self, at: usize, is_dying: bool) {
        let process = self.members[at].process.as_mut();
        if let Some(process) = process.filter(|process| process.stopped.is_none()) {
            let (redis, rules) = (&mut self.redis, &self.rules);
            process.serve_store(redis, rules, self.clocks, is_dying, &mut self.chance);
        }
    }

    fn reactor_reads_mail(&mut self, at: usize) {
        let count = 1 + self.chance.below(8);
        let (is_unruly, mut own) = (self.is_unruly, Chance(self.chance.draw()));
        if let Some(process) = self.running(at) {
            for _ in 0..count {
                process.node.read_mail(is_unruly, &mut own);
            }
        }
    }

    fn threads_work(&mut self, at: usize) {
        let process = self.members[at].process.as_mut();
        if let Some(process) = process.filter(|process| process.stopped.is_none()) {
            let (redis, rules, chance) = (&mut self.redis, &self.rules, &mut self.chance);
            let before = process.lives.present();
            process.work(redis, rules, self.clocks, self.is_unruly, chance);
            self.book.counts.lives += u64::from(process.lives.present() != before);
        }
    }

    /// Meanwhile the threads of all nodes do what they do by themselves.
    fn time_passes(&mut self, ticks: u32) {
        let mut left = ticks;
        while left > 0 {
            let slice = left.min(SLICE);
            left -= slice;
            let ms = u64::from(slice) * TICK_MS;
            self.clocks.ms += ms;
            self.clocks.wall_ms += ms;
            self.book.ms = self.clocks.ms;
            self.redis.now_ms = self.clocks.ms;
            if self.chance.below(SYNCED_IN) == 0 {
                self.redis.sync();
            }
            for at in 0..self.members.len() {
                if let Some(process) = &mut self.members[at].process {
                    match &mut process.stopped {
                        Some(missed) => *missed += slice,
                        None => process.node.rig.advance_ticks(slice),
                    }
                }
                self.threads_work(at);
            }
        }
    }
}

/// What goes wrong.
impl Cluster {
    fn something_fails(&mut self) {
        let at = self.any_member();
        match self.chance.below(26) {
            0..5 => {
                let client = self.crowd.any_client(&mut self.chance);
                self.cut(client);
            }
            5 | 6 => self.redis.weather = Weather::Rough,
            7 => self.redis.weather = Weather::Down,
            8..11 => self.redis.weather = Weather::Fine,
            11 => {
                if let Some(process) = self.running(at) {
                    let is_jammed = &mut process.node.rig.desk.store.is_jammed;
                    *is_jammed = !*is_jammed;
                }
            }
            12 => {
                let max = [0, 3, 11, usize::MAX, usize::MAX][self.chance.below(5) as usize];
                if let Some(process) = self.running(at) {
                    process.node.mailbox_max = max;
                }
            }
            13 => {
                let client = self.crowd.any_client(&mut self.chance);
                self.stall(client);
            }
            14 | 15 => self.ghosts_end(),
            16..18 => {
                self.book.counts.gaps += 1;
                self.redis.unsubscribe(&self.members[at].name);
            }
            18 | 19 => {
                self.book.counts.gaps += 1;
                self.redis.deafen(&self.members[at].name);
            }
            20 | 21 => self.stop_or_go_on(at),
            22 | 23 if self.redis.is_down => self.redis_starts(),
            22 if self.risk > Risk::NoRestart => {
                self.book.note(|| "Redis stops".to_owned());
                self.redis.stop();
            }
            22 | 23 => {}
            _ if self.members[at].process.is_none() => self.node_starts(at),
            _ => {
                if self.chance.below(2) == 0 {
                    self.store_works(at, true);
                }
                self.node_dies(at);
            }
        }
    }

    /// A connection is cut: of the bytes under way, some arrive. The node may hear of it later.
    fn cut(&mut self, at: usize) {
        let (home, client) = (self.homes[at], &mut self.crowd.clients[at]);
        let Some(line) = &mut client.line else {
            return;
        };
        self.book.counts.cuts += 1;
        let peer = line.peer;
        let mut is_ghost = true;
        if let Some(process) = &mut self.members[home].process {
            let rig = &mut process.node.rig;
            if process.stopped.is_none() {
                let sent = self.chance.below(line.up.len() as u64 + 1) as usize;
                rig.say_bytes(peer, &line.up[..sent]);
                is_ghost = self.chance.below(2) == 0;
            }
            rig.lose_all_but(peer, self.chance.below(2048) as usize);
            client.hear(&mut process.node, &mut self.book, &mut self.chance);
            if !is_ghost {
                process.node.rig.hang_up(peer);
            }
        }
        client.hang_up(&mut self.book);
        if is_ghost {
            self.ghosts.push((home, self.members[home].number, peer));
        }
    }

    /// Nodes hear that some clients are gone.
    fn ghosts_end(&mut self) {
        for (at, number, peer) in std::mem::take(&mut self.ghosts) {
            let is_same = self.members[at].number == number;
            match self.running(at) {
                Some(process) if is_same => process.node.rig.hang_up(peer),
                None if is_same => self.ghosts.push((at, number, peer)),
                _ => {}
            }
        }
    }

    /// A client stops reading, or reads again.
    fn stall(&mut self, at: usize) {
        let process = self.members[self.homes[at]].process.as_mut();
        let running = process.filter(|process| process.stopped.is_none());
        if let (Some(process), Some(line)) = (running, &mut self.crowd.clients[at].line) {
            line.is_stalled = !line.is_stalled;
            process.node.rig.stall(line.peer, line.is_stalled);
        }
    }

    fn node_dies(&mut self, at: usize) {
        let name = self.members[at].name.clone();
        self.book.note(|| format!("{name} dies"));
        self.book.counts.crashes += 1;
        for client in 0..self.crowd.clients.len() {
            if self.homes[client] == at {
                self.cut(client);
            }
        }
        self.members[at].process = None;
        self.redis.unsubscribe(&name);
    }

    /// It comes back under its name, if there is a Redis to come to.
    fn node_starts(&mut self, at: usize) {
        if self.redis.is_down || self.redis.weather == Weather::Down {
            return;
        }
        self.started += 1;
        let member = &mut self.members[at];
        let process = Process::start(&member.name, self.started, &mut self.redis, self.clocks);
        if let Some(others) = process.others() {
            others.set_sessions_max(self.sessions_max);
        }
        self.book.note(|| format!("{} starts", member.name));
        (member.number, member.process) = (self.started, Some(process));
    }

    /// As SIGSTOP and SIGCONT do it.
    fn stop_or_go_on(&mut self, at: usize) {
        let Some(process) = &mut self.members[at].process else {
            return;
        };
        match process.stopped.take() {
            None => {
                self.book.note(|| format!("{} is stopped", process.name));
                self.book.counts.stops += 1;
                process.stopped = Some(0);
            }
            Some(missed) => {
                self.book.note(|| format!("{} goes on", process.name));
                process.node.rig.advance_ticks(missed);
            }
        }
    }

    fn redis_starts(&mut self) {
        let how = match (self.risk, self.chance.below(2)) {
            (Risk::LosesLatest, 0) => Comeback::WithoutLatest,
            (Risk::LosesAll, 0) => Comeback::WithNothing,
            _ => Comeback::WithAll,
        };
        self.book.note(|| format!("Redis starts: {how:?}"));
        self.redis.start(how);
        self.book.counts.restarts += 1;
        if how != Comeback::WithAll {
            self.book.counts.rollbacks += 1;
            self.book.write(What::StoreLost {});
            self.crowd.read_group(self.redis.rows(), &mut self.book);
        }
    }
}

/// The end.
impl Cluster {
    /// Nothing fails any more. Whatever is deaf by now has to notice.
    fn heal(&mut self) {
        self.redis.weather = Weather::Fine;
        self.is_unruly = false;
        if self.redis.is_down {
            self.redis_starts();
        }
        self.sessions_max = 8;
        for at in 0..self.members.len() {
            match self.members[at].process.as_ref().map(|of| of.stopped) {
                None => self.node_starts(at),
                Some(Some(_)) => self.stop_or_go_on(at),
                Some(None) => {}
            }
            if let Some(process) = &mut self.members[at].process {
                process.node.rig.desk.store.is_jammed = false;
                process.node.mailbox_max = usize::MAX;
                if let Some(others) = process.others() {
                    others.set_sessions_max(self.sessions_max);
                }
            }
        }
        self.ghosts_end();
        for at in 0..self.crowd.clients.len() {
            let line = self.crowd.clients[at].line.as_ref();
            if line.is_some_and(|line| line.is_stalled) {
                self.stall(at);
            }
        }
        self.book.write(What::Heal {});
        let healed_ms = self.clocks.ms;
        let mut quiet_secs = 0;
        let is_over = |secs: u32, ms: u64| secs >= QUIET_SECS && ms > HEAL_SECS * 1000;
        while self.clocks.ms < healed_ms + HEAL_SECS_MAX * 1000
            && !is_over(quiet_secs, self.clocks.ms - healed_ms)
        {
            for at in 0..self.crowd.clients.len() {
                if self.crowd.clients[at].line.is_none() {
                    self.connect(at);
                }
                self.crowd.behave(at, &mut self.book, &mut self.chance);
            }
            self.exchange();
            self.settle_group();
            self.time_passes(SLICE);
            quiet_secs = if self.crowd.is_done() {
                quiet_secs + 1
            } else {
                0
            };
        }
        // Some go once more, and come back: their other devices are found all the same.
        for at in self.crowd.firsts() {
            let client = &mut self.crowd.clients[at];
            let process = self.members[self.homes[at]].process.as_mut();
            if let (Some(process), Some(line)) = (process, &client.line) {
                process.node.rig.hang_up(line.peer);
                client.hang_up(&mut self.book);
            }
            self.exchange();
            self.connect(at);
        }
        self.exchange();
    }

    /// Everything that is on its way arrives.
    fn exchange(&mut self) {
        let mut is_idle = false;
        while !is_idle {
            for at in 0..self.crowd.clients.len() {
                let has_more = |crowd: &Crowd| {
                    let line = crowd.clients[at].line.as_ref();
                    line.is_some_and(|line| !line.up.is_empty())
                };
                while has_more(&self.crowd) {
                    self.carry_bytes(at);
                }
                self.carry_bytes(at);
            }
            is_idle = true;
            for at in 0..self.members.len() {
                self.threads_work(at);
                self.store_works(at, false);
                let mut own = Chance(self.chance.draw());
                if let Some(process) = self.running(at) {
                    while process.node.read_mail(false, &mut own) {}
                    is_idle &= process.is_idle();
                }
            }
            is_idle &= self.redis.is_quiet();
        }
        for at in 0..self.crowd.clients.len() {
            self.carry_bytes(at);
        }
    }

    /// Who is here and cannot be found, and who is found and not here.
    fn astray(&self) -> Vec<String> {
        let mut here = Vec::new();
        for process in self.members.iter().filter_map(|of| of.process.as_ref()) {
            let post = &process.node.rig.desk.post;
            let epoch = process.lives.present();
            for uid in &self.crowd.users {
                let sessions = post.roster.sessions(uid);
                let online = sessions.iter().filter(|session| session.is_online);
                here.extend(online.map(|session| (post.name_of(session), epoch)));
            }
        }
        let all = self.redis.directory().all();
        let found: Vec<(String, u64)> = all
            .map(|(_, placed)| (placed.entry.session.clone(), placed.node_epoch))
            .collect();
        let lost = here.iter().filter(|it| !found.contains(it));
        let left = found.iter().filter(|it| !here.contains(it));
        let lost = lost.map(|(session, _)| format!("{session} is here, and nobody finds it"));
        let left = left.map(|(session, _)| format!("{session} is found, and not there"));
        lost.chain(left).collect()
    }
}
