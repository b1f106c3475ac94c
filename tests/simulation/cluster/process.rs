//! One process of a simulated cluster: a node with its storekeeper's link, its keeper and its
//! ear on the bus.
//!
//! Owns: the lives that it has had (`Lives` is the product's), and the subscription: a model of
//! `src/cluster/reader.rs`. What is heard goes to the node by mail, as a ring of its own does.

use std::sync::Arc;

use throng::hub::lives::Lives;
use throng::hub::node::Node as Names;
use throng::hub::others::Others;
use throng::inbox::InboxRules;
use throng::store::redis::{Doorbell, Word};

use super::keeper::Keeper;
use super::link::{Line, Link};
use super::redis::{Caller, Redis, Said};
use crate::node::{Clocks, Node};
use crate::rig::feed::Chance;

/// Without hearing itself for so long a node is deaf, whatever the connection says.
const DEAF_MS: u64 = 16_000;
const RECONNECT_MS: u64 = 500;

pub struct Process {
    pub name: String,
    pub node: Node,
    pub lives: Lives,
    pub keeper: Keeper,
    link: Link,
    ear: Ear,
    /// Ticks that have passed while it was stopped; none: it runs.
    pub stopped: Option<u32>,
}

/// The subscription.
enum Ear {
    /// Subscribed, and it has heard itself at that time.
    Open(u64),
    /// It is tried again then.
    Shut(u64),
}

impl Process {
    /// A node comes, under a name that nobody has any more, and takes its lease.
    pub fn start(name: &str, number: u64, redis: &mut Redis, now: Clocks) -> Process {
        let mut node = Node::new(number, now);
        let others = Others::new(true);
        node.rig.rules.node_name = name.to_owned();
        node.rig.desk.life = number << 32;
        node.rig.desk.post.others = Some(Arc::new(others));
        let names = Names::new(name.to_owned(), format!("ws://{name}"), None, 100);
        node.rig.desk.post.node = Arc::new(names);
        let lives = Lives::beginning_with(redis.draw());
        redis.hold(name, lives.present());
        Process {
            name: name.to_owned(),
            node,
            lives,
            keeper: Keeper::new(name, redis.run, now),
            link: Link::default(),
            ear: Ear::Shut(now.ms),
            stopped: None,
        }
    }

    pub fn others(&self) -> Option<&Others> {
        self.node.rig.desk.post.others.as_deref()
    }

    pub fn caller<'a>(&'a self, rules: &'a InboxRules, now: Clocks) -> Caller<'a> {
        Caller {
            node: &self.name,
            epoch: self.lives.present(),
            rules,
            wall_ms: now.wall_ms,
        }
    }

    /// The storekeeper carries out a batch. Where the process dies meanwhile, nobody hears of it.
    pub fn serve_store(
        &mut self,
        redis: &mut Redis,
        rules: &InboxRules,
        now: Clocks,
        is_dying: bool,
        chance: &mut Chance,
    ) {
        let mut own = Chance(chance.draw());
        let mut line = Line {
            link: &mut self.link,
            redis,
            node: &self.name,
            epoch: self.lives.present(),
            chance: &mut own,
            is_dying,
        };
        self.node.serve(&mut line, rules, now, chance);
    }

    /// What the threads beside do on their own: chores, and what is on the bus.
    pub fn work(
        &mut self,
        redis: &mut Redis,
        rules: &InboxRules,
        now: Clocks,
        is_unruly: bool,
        chance: &mut Chance,
    ) {
        self.listen(redis, now, is_unruly, chance);
        Keeper::work(self, redis, rules, now, chance);
    }

    /// Hears what has been said, or notices that it does not hear.
    fn listen(&mut self, redis: &mut Redis, now: Clocks, is_unruly: bool, chance: &mut Chance) {
        match self.ear {
            Ear::Shut(until) => {
                if until > now.ms {
                    return;
                }
                if redis.is_down {
                    self.ear = Ear::Shut(now.ms + RECONNECT_MS);
                    return;
                }
                redis.subscribe(&self.name);
                self.keeper.gaps += 1;
                self.ear = Ear::Open(now.ms);
            }
            Ear::Open(heard) if !redis.is_subscribed(&self.name) || heard + DEAF_MS < now.ms => {
                redis.unsubscribe(&self.name);
                self.ear = Ear::Shut(now.ms + RECONNECT_MS);
            }
            Ear::Open(_) => {
                for _ in 0..if is_unruly { chance.below(6) } else { u64::MAX } {
                    let Some(said) = redis.next_word(&self.name, is_unruly, chance) else {
                        break;
                    };
                    match said {
                        Said::Probe => self.ear = Ear::Open(now.ms),
                        Said::Word(doorbell) => self.hear(doorbell),
                    }
                }
            }
        }
    }

    /// What concerns a life that this process has had.
    fn hear(&mut self, doorbell: Doorbell) {
        if doorbell.from == self.name || !self.lives.has_been(doorbell.node_epoch) {
            return;
        }
        match doorbell.word {
            Word::Ring(ring) => self.node.ring(ring),
            Word::Close { uid, session, .. } => self.close(&uid, &[session]),
            Word::Presence(_) => {}
        }
    }

    /// These sessions have lost their places.
    pub fn close(&mut self, uid: &str, sessions: &[String]) {
        for key in self.node.rig.desk.post.named(uid, sessions) {
            self.node.rig.replace(key);
        }
    }

    /// Nothing is on its way in it.
    pub fn is_idle(&mut self) -> bool {
        self.node.is_idle()
    }
}
