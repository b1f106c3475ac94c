//! A node's lease: its name belongs to whoever refreshes it.
//!
//! Owns: what stands in a lease, and who may take one.
//! Invariant: a name that somebody still refreshes is not taken from him.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redis::Value;

use super::Options;
use super::word::Voice;
use crate::hub::lives::Lives;
use crate::hub::node::Node;
use crate::hub::others::NodeView;
use crate::hub::roster::Roster;
use crate::store::redis::ask::{bytes, items, number};
use crate::store::redis::names::{FORMAT, NODE, escape, unescape};
use crate::store::redis::scripts::Script;
use crate::store::redis::{Answer, Link, LinkError, fresh_epoch};

/// How long a lease lasts, and how often it is refreshed.
pub const LEASE_MS: u64 = 15_000;
pub const REFRESH: Duration = Duration::from_secs(5);
/// A lease that is still refreshed never has less left than this, unless its node is very late.
const STALE_MS: i64 = 8_000;
/// A node that does not listen on its channel for so many looks has died.
const UNHEARD_MAX: u32 = 6;
/// How often it is looked whether a lease of another life is refreshed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For what cannot be decided in this time there is an error.
const TAKE_PATIENCE: Duration = Duration::from_secs(20);

/// Why a node cannot become a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(
        "another node is called {0}, and is alive. Give each node a name of its own with \
         --advertise, or stop the other one"
    )]
    NameTaken(String),
    #[error("Redis does not do what is needed to become a member: {0}")]
    Refused(String),
    #[error("there is no randomness: {0}")]
    Random(String),
}

/// What a try to take or keep a lease came to.
enum Hold {
    Held,
    /// Nobody has it any more.
    Lapsed,
    /// It is another life's, for so many milliseconds.
    Taken {
        by: u64,
        left_ms: i64,
    },
}

/// What became of a lease that was to be refreshed.
pub enum Refreshed {
    Kept,
    /// It had run out, and was taken anew: what was written under the old epoch is void.
    Anew,
    /// Another process has taken the name.
    Lost,
}

pub struct Lease {
    pub lives: Arc<Lives>,
}

impl Lease {
    /// Takes the lease of a name that nobody refreshes.
    pub fn take(link: &mut Link, options: &Options) -> Result<Lease, JoinError> {
        let epoch = fresh_epoch().map_err(|error| JoinError::Random(error.to_string()))?;
        let value = format!("{FORMAT} {epoch} 0 0 0 0 joining -");
        let since = Instant::now();
        let (mut from, mut left_before, mut unheard) = (String::from("-"), None, 0);
        loop {
            match hold(link, options, epoch, &value, &from)? {
                Hold::Held => break,
                Hold::Lapsed => from = "-".to_owned(),
                Hold::Taken { by, left_ms } => {
                    let is_refreshed = left_before.is_some_and(|before| left_ms > before);
                    if is_refreshed || since.elapsed() > TAKE_PATIENCE {
                        return Err(JoinError::NameTaken(options.name.clone()));
                    }
                    if left_before.is_none() {
                        tracing::info!(
                            node = options.name,
                            "an earlier life of this node still has its lease: waiting until it is stale"
                        );
                    }
                    left_before = Some(left_ms);
                    unheard = if listens(link, options)? {
                        0
                    } else {
                        unheard + 1
                    };
                    if left_ms < STALE_MS || unheard >= UNHEARD_MAX {
                        from = by.to_string();
                    } else {
                        sleep(LOOK_EVERY);
                    }
                }
            }
        }
        Ok(Lease {
            lives: Arc::new(Lives::beginning_with(epoch)),
        })
    }

    /// Refreshes it with what is to be known of the node now.
    pub fn refresh(
        &self,
        link: &mut Link,
        options: &Options,
        node: &Node,
        roster: &Roster,
    ) -> Result<Refreshed, JoinError> {
        let epoch = self.lives.present();
        let value = value_of(epoch, options, node, roster);
        let from = match hold(link, options, epoch, &value, "")? {
            Hold::Held => return Ok(Refreshed::Kept),
            Hold::Lapsed => "-".to_owned(),
            // A Redis that has lost the latest may name an earlier life of this process.
            Hold::Taken { by, .. } if self.lives.has_been(by) => by.to_string(),
            Hold::Taken { .. } => return Ok(Refreshed::Lost),
        };
        let epoch = fresh_epoch().map_err(|error| JoinError::Random(error.to_string()))?;
        let value = value_of(epoch, options, node, roster);
        match hold(link, options, epoch, &value, &from)? {
            Hold::Held => {
                self.lives.begin(epoch);
                Ok(Refreshed::Anew)
            }
            Hold::Taken { .. } | Hold::Lapsed => Ok(Refreshed::Lost),
        }
    }
}

/// `from`: from whom it may be taken: empty, from nobody; `-`, if there is none; or a life.
fn hold(
    link: &mut Link,
    options: &Options,
    epoch: u64,
    value: &str,
    from: &str,
) -> Result<Hold, JoinError> {
    let mut call = redis::cmd("EVALSHA");
    call.arg(Script::Lease.sha()).arg(0).arg(&options.prefix);
    call.arg(&options.name).arg(epoch).arg(value);
    call.arg(LEASE_MS).arg(from);
    let refused = |why: String| JoinError::Refused(why);
    match link.ask(&[call]).0.pop() {
        Some(Answer::Value(answer)) => {
            read_hold(answer).ok_or_else(|| refused("it answers what the script does not".into()))
        }
        Some(Answer::Refused(why) | Answer::Failed(why) | Answer::Unknown(why)) => {
            Err(refused(why))
        }
        Some(Answer::NoScript) | None => Err(refused("it forgets scripts".into())),
    }
}

/// Somebody listens on the channel of this node's name.
fn listens(link: &mut Link, options: &Options) -> Result<bool, JoinError> {
    let mut say = redis::cmd("PUBLISH");
    say.arg(format!("{}{NODE}{}", options.prefix, options.name));
    say.arg(Voice(&options.name).nodes());
    match link.ask(&[say]).0.pop() {
        Some(Answer::Value(count)) => Ok(number(&count) != Some(0)),
        answer => Err(JoinError::Refused(format!("{answer:?}"))),
    }
}

fn read_hold(answer: Value) -> Option<Hold> {
    let [code, by, left_ms] = items(answer)?.try_into().ok()?;
    Some(match number(&code)? {
        1 => Hold::Held,
        2 => Hold::Lapsed,
        _ => Hold::Taken {
            by: std::str::from_utf8(bytes(&by)?).ok()?.parse().ok()?,
            left_ms: number(&left_ms)?,
        },
    })
}

fn value_of(epoch: u64, options: &Options, node: &Node, roster: &Roster) -> String {
    let (users, sessions) = roster.counts();
    let state = if node.is_draining() { "draining" } else { "up" };
    let url = options.public_url.as_deref().map_or("-".to_owned(), escape);
    let (connections, max) = (node.connections(), node.max_connections);
    format!("{FORMAT} {epoch} {connections} {users} {sessions} {max} {state} {url}")
}

/// The node whose lease this is; none if nobody wrote that, or a version that is too new.
pub fn read(name: &str, ws_url: &str, value: &str) -> Option<NodeView> {
    let mut words = value.split(' ');
    let version: u32 = words.next()?.parse().ok()?;
    if version > FORMAT || version + 1 < FORMAT {
        return None;
    }
    let mut number = || words.next()?.parse::<u64>().ok();
    let (epoch, connections, users) = (number()?, number()?, number()?);
    let (sessions, max_connections) = (number()?, number()?);
    let state = words.next()?;
    let url = words.next()?;
    Some(NodeView {
        name: name.to_owned(),
        epoch,
        connections: connections as usize,
        max_connections: max_connections as usize,
        users: users as usize,
        sessions: sessions as usize,
        is_draining: state != "up",
        ws_url: ws_url.to_owned(),
        public_url: if url == "-" {
            None
        } else {
            Some(unescape(url)?)
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_of_its_node() {
        let url = escape("wss://a b.example/websocket");
        let lease = format!("{FORMAT} 7 10 3 4 100 up {url}");
        let node = read("n:1", "ws://n", &lease).unwrap();
        assert_eq!((node.epoch, node.room()), (7, 90));
        assert_eq!((node.users, node.sessions), (3, 4));
        let public = node.public_url.as_deref();
        assert_eq!(public, Some("wss://a b.example/websocket"));
        let draining = read("n:1", "ws://n", &lease.replace("up", "draining")).unwrap();
        assert_eq!(draining.room(), 0);
    }

    #[test]
    fn a_lease_that_nobody_wrote_is_no_node() {
        for lease in [
            "",
            "1 7",
            "1 7 1 1 1 1 up",
            "9 7 1 1 1 1 up -",
            "1 x 1 1 1 1 up -",
        ] {
            assert_eq!(read("n:1", "ws://n", lease), None, "{lease}");
        }
    }
}
