//! The keeper of the cluster: one thread for all that a node does with Redis beside its messages.
//!
//! Owns: the lease, the table of the others, the rounds that put right what was lost.
//! Invariants: while Redis cannot be reached, errands are answered at once; when it can be again,
//! everybody here is written down anew, and looks into the inbox.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::lease::{self, Lease, REFRESH, Refreshed};
use super::round::Rounds;
use super::{Options, Surroundings, tell};
use crate::hub::others::{NodeView, Part};
use crate::inbox::InboxRules;
use crate::store::redis::ask::{Scene, bytes, pairs};
use crate::store::redis::names::{CTL, LEASE, NODE, SERVERS};
use crate::store::redis::{Answer, Link, Place, fresh_epoch};
use crate::store::{Bells, wall_ms};

/// Errands that leave together at most.
const ERRANDS_MAX: usize = 512;
/// How long a Redis that cannot be reached, or does not serve, is left alone.
const REST: Duration = Duration::from_secs(1);
const TABLE_EVERY: Duration = Duration::from_secs(2);
/// A node that is told of changes reads the table no more often than that.
const TABLE_SOONEST: Duration = Duration::from_millis(200);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Until it has heard itself for the first time.
const FIRST_PROBES_EVERY: Duration = Duration::from_millis(200);

pub struct Keeper {
    pub(super) options: Arc<Options>,
    pub(super) around: Arc<Surroundings>,
    pub(super) lease: Lease,
    link: Option<Link>,
    ending: Arc<AtomicBool>,
    /// Redis is left alone until then.
    rest_until: Option<Instant>,
    /// Another process has this node's name.
    is_superseded: bool,
    refresh_at: Instant,
    was_draining: bool,
    table_at: Instant,
    probed: Instant,
    probes: u64,
    pub(super) rounds: Rounds,
    pub(super) bells: Bells,
}

impl Keeper {
    pub fn new(
        options: Arc<Options>,
        around: Arc<Surroundings>,
        lease: Lease,
        link: Link,
        ending: Arc<AtomicBool>,
    ) -> Keeper {
        let now = Instant::now();
        around.stats.up.set(1);
        let mut rounds = Rounds::new(link.run().to_owned(), now);
        if around.others.has_directory {
            // A lease that is taken over never runs out: nobody else cleans up after that life.
            rounds.clean_after(vec![options.name.clone()]);
        }
        Keeper {
            rounds,
            bells: Bells::new(around.post.clone(), around.switchboard.clone()),
            options,
            around,
            lease,
            link: Some(link),
            ending,
            rest_until: None,
            is_superseded: false,
            refresh_at: now,
            was_draining: false,
            table_at: now,
            probed: now,
            probes: 0,
        }
    }

    pub fn run(mut self) {
        loop {
            let patience = self.patience();
            let Some(partings) = self.around.partings.take(ERRANDS_MAX, patience) else {
                break;
            };
            self.connect();
            if !partings.is_empty() {
                self.run_errands(partings);
            }
            self.do_chores();
            if self.ending.load(Relaxed) && self.around.partings.is_empty() {
                break;
            }
        }
        self.leave();
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// What is answered to each of the commands. None: Redis does not answer all of them.
    pub(super) fn ask(&mut self, commands: &[Cmd]) -> Option<Vec<Value>> {
        let link = self.link.as_mut()?;
        if commands.is_empty() {
            return Some(Vec::new());
        }
        let (answers, is_alive) = link.ask(commands);
        let values = answers.into_iter().map(|answer| match answer {
            Answer::Value(value) => Ok(value),
            Answer::Refused(why) | Answer::Unknown(why) | Answer::Failed(why) => Err(why),
            Answer::NoScript => Err("it forgets scripts".to_owned()),
        });
        let values: Result<Vec<Value>, String> = values.collect();
        let ended = || "the connection has ended".to_owned();
        match values.and_then(|values| is_alive.then_some(values).ok_or_else(ended)) {
            Ok(values) => Some(values),
            Err(why) => {
                self.fail(&why);
                None
            }
        }
    }

    /// What calls of scripts have in common now. None: there is nobody to be asked.
    pub(super) fn prepare(&self) -> Option<Prepared> {
        let link = self.link.as_ref()?;
        Some(Prepared {
            prefix: self.options.prefix.clone(),
            run: link.run().to_owned(),
            fresh_epoch: fresh_epoch().ok()?,
            now_ms: wall_ms(),
            rules: self.around.rules.get(),
            place: Place {
                node: self.options.name.clone(),
                epoch: self.lease.lives.present(),
                is_broadcast: !self.around.others.has_directory,
            },
        })
    }

    /// Redis is left alone for a while, and then asked anew: it may be another one.
    fn fail(&mut self, why: &str) {
        tell(&self.around.others, Part::Keeper, Some(why));
        self.around.stats.up.set(0);
        self.link = None;
        self.rest_until = Some(Instant::now() + REST);
    }

    fn connect(&mut self) {
        let now = Instant::now();
        if self.link.is_some() || self.rest_until.is_some_and(|until| now < until) {
            return;
        }
        match Link::open(&self.options.address, &self.options.prefix) {
            Ok(link) => {
                tell(&self.around.others, Part::Keeper, None);
                self.around.stats.up.set(1);
                let watched = self.watched();
                self.rounds.begin_return(link.run(), watched);
                self.link = Some(link);
                self.refresh_at = now;
                self.table_at = now;
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Whose coming and going other nodes are to tell us.
    fn watched(&self) -> Vec<Arc<str>> {
        match self.around.others.has_directory {
            true => self.around.post.watches.watched(),
            false => Vec::new(),
        }
    }

    /// How long there is nothing to do without an errand.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let until = |at: Instant| at.saturating_duration_since(now);
        if self.link.is_none() {
            return self.rest_until.map_or(Duration::ZERO, until).min(REST);
        }
        let chores = [
            until(self.refresh_at),
            until(self.table_at),
            until(self.probe_at()),
            self.rounds.patience(now),
        ];
        // What others set for this thread is looked at so often.
        chores.into_iter().fold(TABLE_SOONEST, Duration::min)
    }

    fn probe_at(&self) -> Instant {
        let hears = self.around.stats.hears.get() == 1;
        let pause = match hears {
            true => PROBE_EVERY,
            false => FIRST_PROBES_EVERY,
        };
        self.probed + pause
    }

    fn do_chores(&mut self) {
        if self.link.is_none() {
            return;
        }
        let now = Instant::now();
        let is_draining = self.around.post.node.is_draining();
        let drains = is_draining && !std::mem::replace(&mut self.was_draining, is_draining);
        if (now >= self.refresh_at || drains) && !self.is_superseded {
            self.refresh(drains);
            self.refresh_at = now + REFRESH;
        }
        if now >= self.probe_at() {
            self.probes += 1;
            let word = self.voice().probe(self.lease.lives.present());
            let probe = self.say(NODE, &self.options.name, word);
            self.ask(&[probe]);
            self.probed = now;
        }
        let stats = self.around.stats.clone();
        let is_changed = stats.nodes_changed.get() == 1;
        if now >= self.table_at
            || (is_changed && now + TABLE_EVERY >= self.table_at + TABLE_SOONEST)
        {
            stats.nodes_changed.set(0);
            self.read_table();
            self.table_at = now + TABLE_EVERY;
        }
        self.go_round(now);
    }

    /// Refreshes the lease, and this node's line in the registry. `is_news`: for all others too.
    fn refresh(&mut self, is_news: bool) {
        let Some(link) = &mut self.link else { return };
        let post = &self.around.post;
        let refreshed = self
            .lease
            .refresh(link, &self.options, &post.node, &post.roster);
        match refreshed {
            Ok(Refreshed::Kept) => {}
            Ok(Refreshed::Anew) => {
                tracing::warn!("the lease had run out: everybody here is written down anew");
                let run = link.run().to_owned();
                let watched = self.watched();
                self.rounds.begin_return(&run, watched);
            }
            Ok(Refreshed::Lost) => {
                self.is_superseded = true;
                tracing::error!(
                    node = self.options.name,
                    "another process has taken this node's name: this one lets its clients go"
                );
                let _ = self.around.superseded.try_send(());
            }
            Err(error) => return self.fail(&error.to_string()),
        }
        let mut register = redis::cmd("HSET");
        register.arg(format!("{}{SERVERS}", self.options.prefix));
        register.arg(&self.options.name).arg(&self.options.ws_url);
        let mut commands = vec![register];
        if is_news || self.probes == 0 {
            commands.push(self.say(CTL, "", self.voice().nodes()));
        }
        self.ask(&commands);
    }

    /// Who is there, by the registry and the leases.
    fn read_table(&mut self) {
        let mut all = redis::cmd("HGETALL");
        all.arg(format!("{}{SERVERS}", self.options.prefix));
        let Some(registered) = self.ask(&[all]).and_then(|mut answers| answers.pop()) else {
            return;
        };
        let text = |value: &Value| Some(String::from_utf8_lossy(bytes(value)?).into_owned());
        let servers: Vec<(String, String)> = pairs(registered)
            .unwrap_or_default()
            .iter()
            .filter_map(|(name, ws_url)| Some((text(name)?, text(ws_url)?)))
            .filter(|(name, _)| *name != self.options.name)
            .collect();
        let Some(found) = self.leases(&servers) else {
            return;
        };
        let (mut alive, mut dead) = (Vec::new(), Vec::new());
        for ((name, _), found) in servers.into_iter().zip(found) {
            match found {
                Found::Node(node) => alive.push(node),
                Found::Nothing => dead.push(name),
                Found::Unread => {}
            }
        }
        // One of the living does it, whichever it is.
        let is_first = alive.iter().all(|node| self.options.name < node.name);
        self.rounds
            .clean_after(if is_first { dead } else { Vec::new() });
        self.around.stats.nodes.set(alive.len() as u64 + 1);
        self.around.others.set(alive);
    }

    /// The leases of these nodes, of which the addresses are known.
    pub(super) fn leases(&mut self, servers: &[(String, String)]) -> Option<Vec<Found>> {
        let lease = |(name, _): &(String, String)| {
            let mut cmd = redis::cmd("GET");
            cmd.arg(format!("{}{LEASE}{name}", self.options.prefix));
            cmd
        };
        let commands: Vec<Cmd> = servers.iter().map(lease).collect();
        let answers = self.ask(&commands)?;
        let read = |((name, ws_url), answer): (&(String, String), Value)| {
            if answer == Value::Nil {
                return Found::Nothing;
            }
            let text = bytes(&answer).and_then(|text| std::str::from_utf8(text).ok());
            let node = text.and_then(|text| lease::read(name, ws_url, text));
            node.map_or(Found::Unread, Found::Node)
        };
        Some(servers.iter().zip(answers).map(read).collect())
    }

    /// The node ends: its lease does too, and the others hear of it.
    fn leave(&mut self) {
        self.connect();
        if self.is_superseded || self.link.is_none() {
            return;
        }
        let prefix = &self.options.prefix;
        let mut release = redis::cmd("DEL");
        release.arg(format!("{prefix}{LEASE}{}", self.options.name));
        let news = self.say(CTL, "", self.voice().nodes());
        self.ask(&[release, news]);
    }
}

/// What there is under the name of a lease.
pub(super) enum Found {
    Node(NodeView),
    Nothing,
    /// Nobody wrote that, or a version that is too new.
    Unread,
}

/// A scene, with what it borrows.
pub(super) struct Prepared {
    prefix: String,
    run: String,
    fresh_epoch: u64,
    now_ms: u64,
    rules: InboxRules,
    place: Place,
}

impl Prepared {
    pub fn scene(&self) -> Scene<'_> {
        Scene {
            prefix: &self.prefix,
            run: &self.run,
            fresh_epoch: self.fresh_epoch,
            now_ms: self.now_ms,
            rules: &self.rules,
            place: &self.place,
        }
    }
}
