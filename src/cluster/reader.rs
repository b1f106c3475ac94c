//! The reader of the bus: hears what is published, and hands it on by mail.
//!
//! Owns: the one connection that is subscribed.
//! Invariants: it never waits for a reactor. After a time in which it may have missed something,
//! inboxes are compared; so nothing that was only said on the bus is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::{Connection, RedisError};

use super::word::Word;
use super::{Options, Surroundings, tell};
use crate::command::Bye;
use crate::hub::lives::Lives;
use crate::hub::others::Part;
use crate::hub::post::Selector;
use crate::hub::roster::Sessions;
use crate::parts::key::Key;
use crate::protocol::envelope::Head;
use crate::stats::ClusterStats;
use crate::store::redis::names::{ALL, CTL, NODE};
use crate::store::redis::{Doorbell, Word as Said};
use crate::store::{Bells, RETRY};

/// After so long without a word, the connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Without hearing itself for so long a node is deaf, whatever the connection says.
const DEAF: Duration = Duration::from_secs(16);
/// How long it waits for a word before it looks around.
const LISTEN: Duration = Duration::from_millis(500);
const RECONNECT: Duration = Duration::from_millis(500);

pub struct Reader {
    options: Arc<Options>,
    around: Arc<Surroundings>,
    lives: Arc<Lives>,
    ending: Arc<AtomicBool>,
    bells: Bells,
    /// Sessions that are to end, and could not be told.
    byes: Vec<(Key, Bye)>,
}

impl Reader {
    pub fn new(
        options: Arc<Options>,
        around: Arc<Surroundings>,
        lives: Arc<Lives>,
        ending: Arc<AtomicBool>,
    ) -> Reader {
        Reader {
            bells: Bells::new(around.post.clone(), around.switchboard.clone()),
            options,
            around,
            lives,
            ending,
            byes: Vec::new(),
        }
    }

    pub fn run(mut self) {
        while !self.ending.load(Relaxed) {
            let connection = self.options.address.connect();
            let result = connection.and_then(|mut connection| self.listen(&mut connection));
            self.stats().hears.set(0);
            if let Err(error) = result {
                self.tell(Some(&error.to_string()));
                sleep(RECONNECT);
            }
        }
    }

    fn stats(&self) -> &ClusterStats {
        &self.around.stats
    }

    fn listen(&mut self, connection: &mut Connection) -> Result<(), RedisError> {
        let mut bus = connection.as_pubsub();
        let Options { prefix, name, .. } = &*self.options;
        bus.subscribe(&[
            format!("{prefix}{NODE}{name}"),
            format!("{prefix}{ALL}"),
            format!("{prefix}{CTL}"),
        ])?;
        // What was said before that was not heard. The keeper looks for it.
        self.stats().gaps.add(1);
        let (mut heard_itself, mut heard) = (Instant::now(), Instant::now());
        // What the socket was told last: telling it is a system call.
        let mut patience = Duration::ZERO;
        while !self.ending.load(Relaxed) {
            let is_behind = self.bells.is_behind() || !self.byes.is_empty();
            let wished = if is_behind { RETRY } else { LISTEN };
            if wished != patience {
                bus.set_read_timeout(Some(wished))?;
                patience = wished;
            }
            match bus.get_message() {
                Ok(message) => {
                    heard = Instant::now();
                    let payload = message.get_payload_bytes();
                    self.stats().words_in.add(1);
                    match Word::parse(payload) {
                        Some((Word::Probe { epoch }, _)) if self.lives.has_been(epoch) => {
                            heard_itself = heard;
                            self.note_hears();
                        }
                        Some((word, from)) => self.hear(word, &from),
                        None => tracing::debug!("a word on the bus that nobody wrote"),
                    }
                }
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error),
            }
            if is_behind {
                self.try_again();
            }
            if heard.elapsed() > PING_EVERY {
                // Its answer counts as a word; without one within the time-out it is an error.
                bus.set_read_timeout(Some(PING_EVERY))?;
                patience = PING_EVERY;
                bus.ping::<redis::Value>()?;
                heard = Instant::now();
            }
            if heard_itself.elapsed() > DEAF {
                self.stats().hears.set(0);
                let deaf = (
                    redis::ErrorKind::Io,
                    "subscribed, and nothing is heard: its user may lack the right to subscribe",
                );
                return Err(deaf.into());
            }
        }
        Ok(())
    }

    fn note_hears(&mut self) {
        self.stats().hears.set(1);
        self.tell(None);
    }

    fn tell(&self, failure: Option<&str>) {
        tell(&self.around.others, Part::Bus, failure);
    }

    fn hear(&mut self, word: Word<'_>, from: &str) {
        match word {
            Word::Script(doorbell) => self.hear_script(*doorbell),
            Word::Live {
                uid,
                only,
                selector,
                head,
                tail,
            } if !self.is_own(from) => self.deliver(&uid, only, selector, head, tail),
            Word::All { selector, frame } if !self.is_own(from) => {
                let frame = frame.into();
                let sent = self.around.switchboard.broadcast(&frame, selector);
                self.note_dropped(sent.is_err());
            }
            Word::Nodes => self.stats().nodes_changed.set(1),
            Word::Live { .. } | Word::All { .. } | Word::Probe { .. } => {}
        }
    }

    /// What concerns a life that this process has had, or every node.
    fn hear_script(&mut self, doorbell: Doorbell) {
        let epoch = doorbell.node_epoch;
        if self.is_own(&doorbell.from) || (epoch != 0 && !self.lives.has_been(epoch)) {
            return;
        }
        match doorbell.word {
            Said::Ring(ring) => self.bells.ring(ring),
            Said::Close { uid, session, code } => {
                let why = match code {
                    4409 => Bye::Replaced,
                    _ => Bye::Kicked,
                };
                let keys = self.around.post.named(&uid, &[session]);
                self.byes.extend(keys.into_iter().map(|key| (key, why)));
                self.try_again();
            }
            Said::Presence(change) => (self.around.tell_presence)(&change.uid, change.is_online),
        }
    }

    fn is_own(&self, from: &str) -> bool {
        from == self.options.name
    }

    fn deliver(
        &mut self,
        uid: &str,
        only: Option<u64>,
        selector: Option<Selector>,
        head: Head,
        tail: &[u8],
    ) {
        let post = &self.around.post;
        let mut sessions: Sessions = match &selector {
            None => post.roster.find(uid),
            Some(selector) => post.roster.find_matching(uid, selector),
        };
        if let Some(mark) = only {
            sessions.retain(|key| *key == post.node.marked(mark));
        }
        if !sessions.is_empty() {
            let sent = self
                .around
                .switchboard
                .deliver(&sessions, head, &tail.into());
            self.note_dropped(sent.is_err());
        }
    }

    fn note_dropped(&self, is_dropped: bool) {
        self.stats().dropped.add(u64::from(is_dropped));
    }

    fn try_again(&mut self) {
        self.bells.try_again();
        self.around.switchboard.close_all(&mut self.byes);
    }
}
