//! The keeper of a simulated node: its lease, and the rounds that put right what was lost.
//!
//! A model of `src/cluster/keeper.rs` and `round.rs`, which are threads that speak to a server:
//! the same steps at the same times. What connections do with what they hear is the product's.

use std::collections::VecDeque;

use throng::hub::roster::{Place, SessionView};
use throng::inbox::{DirectoryEntry, InboxRules};
use throng::protocol::metadata::ANONYMOUS;

use super::process::Process;
use super::redis::{Caller, Redis, Said};
use crate::disk::Weather;
use crate::node::Clocks;
use crate::rig::feed::Chance;

const REST_MS: u64 = 1_000;
const REFRESH_MS: u64 = 5_000;
const TABLE_MS: u64 = 2_000;
const PROBE_MS: u64 = 5_000;
const COMPARE_MS: u64 = 60_000;

pub struct Keeper {
    /// The life of the server to which its own connection leads; none: it is broken.
    run: Option<u64>,
    rest_until: u64,
    refresh_at: u64,
    table_at: u64,
    probe_at: u64,
    /// Gaps of the bus so far, and how many of them a comparison has answered.
    pub gaps: u64,
    gaps_answered: u64,
    compare_at: u64,
    /// The life of the server under which everybody looked last.
    looked_under: u64,
    round: Option<Round>,
    /// Nodes after which it is to clean up.
    cleaning: VecDeque<String>,
}

#[derive(Clone, Copy)]
struct Round {
    /// Everybody is written down anew.
    is_return: bool,
    /// Everybody looks, whatever the heads are.
    looks: bool,
}

/// One step, with all that it may touch.
struct Step<'a> {
    process: &'a mut Process,
    redis: &'a mut Redis,
    rules: &'a InboxRules,
    now: Clocks,
    chance: &'a mut Chance,
}

impl Keeper {
    pub fn new(name: &str, run: u64, now: Clocks) -> Keeper {
        Keeper {
            run: Some(run),
            rest_until: 0,
            refresh_at: now.ms,
            table_at: now.ms,
            probe_at: now.ms,
            gaps: 0,
            gaps_answered: 0,
            compare_at: now.ms + COMPARE_MS,
            looked_under: run,
            round: None,
            // What an earlier life of this node wrote down goes.
            cleaning: VecDeque::from([name.to_owned()]),
        }
    }

    pub fn work(
        process: &mut Process,
        redis: &mut Redis,
        rules: &InboxRules,
        now: Clocks,
        chance: &mut Chance,
    ) {
        let mut step = Step {
            process,
            redis,
            rules,
            now,
            chance,
        };
        step.connect();
        step.do_chores();
    }

    fn begin_return(&mut self, run: u64) {
        let looks = self.looked_under != run;
        self.looked_under = run;
        self.round = Some(Round {
            is_return: true,
            looks,
        });
    }

    fn clean_after(&mut self, node: String) {
        if !self.cleaning.contains(&node) {
            self.cleaning.push_back(node);
        }
    }
}

impl Step<'_> {
    fn keeper(&mut self) -> &mut Keeper {
        &mut self.process.keeper
    }

    fn connect(&mut self) {
        let (now_ms, run) = (self.now.ms, self.redis.run);
        let is_there = !self.redis.is_down && self.redis.weather != Weather::Down;
        let keeper = self.keeper();
        if keeper.run.is_some() || now_ms < keeper.rest_until {
            return;
        }
        if !is_there {
            keeper.rest_until = now_ms + REST_MS;
            return;
        }
        keeper.run = Some(run);
        keeper.begin_return(run);
        (keeper.refresh_at, keeper.table_at) = (now_ms, now_ms);
    }

    /// Asks the server. None: it does not answer; whether it has done it, nobody knows.
    fn ask<T>(&mut self, work: impl FnOnce(&mut Redis, Caller<'_>) -> T) -> Option<T> {
        let (redis, process) = (&mut *self.redis, &mut *self.process);
        let run = process.keeper.run?;
        let by = process.caller(self.rules, self.now);
        let is_there = !redis.is_down && run == redis.run && redis.weather != Weather::Down;
        let breaks = redis.weather == Weather::Rough && self.chance.below(12) == 0;
        let done = (is_there && !(breaks && self.chance.below(2) == 0)).then(|| work(redis, by));
        if is_there && !breaks {
            return done;
        }
        let until = self.now.ms + REST_MS;
        let keeper = self.keeper();
        (keeper.run, keeper.rest_until) = (None, until);
        None
    }

    fn do_chores(&mut self) -> Option<()> {
        let now_ms = self.now.ms;
        self.keeper().run?;
        if now_ms >= self.keeper().refresh_at {
            self.keeper().refresh_at = now_ms + REFRESH_MS;
            self.refresh()?;
        }
        if now_ms >= self.keeper().probe_at {
            self.keeper().probe_at = now_ms + PROBE_MS;
            self.ask(|redis, by| redis.publish(by.node, Said::Probe))?;
        }
        if now_ms >= self.keeper().table_at {
            self.keeper().table_at = now_ms + TABLE_MS;
            self.read_table()?;
        }
        self.choose_round();
        if let Some(round) = self.keeper().round {
            self.go_round(round)?;
            self.keeper().round = None;
            if round.is_return {
                let own = self.process.name.clone();
                self.keeper().clean_after(own);
            }
        }
        while let Some(node) = self.keeper().cleaning.front().cloned() {
            self.clean(&node)?;
            self.keeper().cleaning.pop_front();
        }
        Some(())
    }

    /// A lease that has run out begins anew, with another epoch.
    fn refresh(&mut self) -> Option<()> {
        let held = self.ask(|redis, by| redis.lease(by.node))?;
        let is_anew = held != Some(self.process.lives.present());
        let epoch = self.redis.draw();
        let epoch = if is_anew {
            epoch
        } else {
            self.process.lives.present()
        };
        self.ask(|redis, by| redis.hold(by.node, epoch))?;
        if is_anew {
            self.process.lives.begin(epoch);
            let run = self.redis.run;
            self.keeper().begin_return(run);
        }
        Some(())
    }

    fn read_table(&mut self) -> Option<()> {
        let table = self.ask(|redis, _| {
            let servers = redis.servers().into_iter();
            let lived = |name: String| (redis.lease(&name).is_some(), name);
            servers.map(lived).collect::<Vec<_>>()
        })?;
        let (own, keeper) = (self.process.name.clone(), self.keeper());
        let others = table.into_iter().filter(|(_, name)| *name != own);
        let (alive, dead): (Vec<_>, Vec<_>) = others.partition(|(is_alive, _)| *is_alive);
        // One of the living does it, whichever it is.
        if alive.iter().all(|(_, name)| own < *name) {
            dead.into_iter()
                .for_each(|(_, name)| keeper.clean_after(name));
        }
        Some(())
    }

    fn choose_round(&mut self) {
        if self.keeper().round.is_some() {
            return;
        }
        let is_return = self
            .process
            .others()
            .is_some_and(|others| others.take_doubt());
        let (now_ms, keeper) = (self.now.ms, self.keeper());
        if keeper.gaps != keeper.gaps_answered || keeper.compare_at <= now_ms || is_return {
            keeper.gaps_answered = keeper.gaps;
            keeper.compare_at = now_ms + COMPARE_MS;
            keeper.round = Some(Round {
                is_return,
                looks: false,
            });
        }
    }

    fn go_round(&mut self, round: Round) -> Option<()> {
        let mut sessions = self
            .process
            .node
            .rig
            .desk
            .post
            .roster
            .page(&mut Place::default(), 500);
        sessions.sort_by_key(|session| session.key.bits());
        if round.is_return {
            self.rebind(&sessions)?;
        }
        let uid = |session: &SessionView| session.identity.uid().to_owned();
        if round.looks {
            self.process.node.look(sessions.iter().map(uid));
            return Some(());
        }
        let names: Vec<String> = sessions
            .iter()
            .map(|session| self.process.node.rig.desk.post.name_of(session))
            .collect();
        let found = self.ask(|redis, _| {
            let of_each = sessions.iter().zip(&names).map(|(session, name)| {
                let places = redis.directory().of(&uid(session));
                let is_found = places.iter().any(|placed| placed.entry.session == *name);
                (redis.head(&uid(session)), is_found)
            });
            of_each.collect::<Vec<_>>()
        })?;
        let strays = sessions
            .iter()
            .zip(&found)
            .filter(|(_, (_, is_found))| !is_found);
        let strays: Vec<SessionView> = strays.map(|(session, _)| session.clone()).collect();
        self.rebind(&strays)?;
        let keys = sessions.iter().map(|session| session.key);
        let heads = found.into_iter().map(|(head, _)| head);
        self.process.node.compare(keys.zip(heads).collect());
        Some(())
    }

    /// Writes down who is here.
    fn rebind(&mut self, sessions: &[SessionView]) -> Option<()> {
        let most = self
            .process
            .others()
            .map_or(usize::MAX, |others| others.sessions_max());
        let online = sessions.iter().filter(|session| session.is_online);
        let entries: Vec<(String, DirectoryEntry)> = online
            .map(|session| (session.identity.uid().to_owned(), self.entry(session)))
            .collect();
        let bound = self.ask(|redis, by| {
            let bound = entries
                .iter()
                .map(|(uid, entry)| redis.bind(by, uid, entry, most));
            bound.collect::<Vec<_>>()
        })?;
        for ((uid, entry), (stays, mut going)) in entries.into_iter().zip(bound) {
            if !stays {
                going.push(entry.session);
            }
            self.process.close(&uid, &going);
        }
        Some(())
    }

    fn entry(&self, session: &SessionView) -> DirectoryEntry {
        let desk = &self.process.node.rig.desk;
        let device = session.extra.as_ref().and_then(|of| of.device.as_deref());
        DirectoryEntry {
            session: desk.post.name_of(session),
            since_secs: session.since_secs,
            ordinal: session.ordinal,
            mark: desk.mark(session.key),
            device: device.unwrap_or(ANONYMOUS).to_owned(),
            uname: session.identity.name().to_owned(),
        }
    }

    /// Takes out what is left of a node, or of what this one was before.
    fn clean(&mut self, node: &str) -> Option<()> {
        let is_own = node == self.process.name;
        let users = self.ask(|redis, _| redis.directory().users_of(node))?;
        let desk = &self.process.node.rig.desk;
        let kept: Vec<(String, Vec<String>)> = users
            .into_iter()
            .map(|uid| {
                let sessions = desk.post.roster.sessions(&uid);
                let online = sessions.iter().filter(|session| session.is_online);
                let names = online.map(|session| desk.post.name_of(session)).collect();
                (uid, names)
            })
            .collect();
        self.ask(|redis, by| {
            for (uid, names) in &kept {
                redis.clean(by, uid, node, None, &[]);
                if is_own {
                    redis.clean(by, uid, node, Some(by.epoch), names);
                }
            }
        })?;
        if is_own {
            let roster = &self.process.node.rig.desk.post.roster;
            let sessions = kept.iter().flat_map(|(uid, _)| roster.sessions(uid));
            let sessions: Vec<SessionView> = sessions.collect();
            self.rebind(&sessions)?;
        } else {
            self.ask(|redis, _| redis.strike_out(node))?;
        }
        Some(())
    }
}
