//! Many nodes as one gateway: who is there, what they say to each other, what is put right when
//! something was lost on the way.
//!
//! Owns: two threads. The **keeper** keeps this node's lease and the table of the others, runs
//! errands, compares inboxes, cleans up after the dead; it has one pipelined connection. The
//! **reader** hears what is published, and hands it to the reactors; it has one connection, and
//! never waits for a reactor.
//! Invariants: what is heard is a hint. What must arrive stands in the log, and is looked for
//! after every gap and once a minute in any case.
//! Neighbours: errands come by queue, their outcomes and what is heard go by mail. The store's
//! scripts ring at other nodes themselves.

mod errands;
mod keeper;
mod lease;
mod reader;
mod round;
mod word;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::hub::lives::Lives;
use crate::hub::others::{Others, Part, Turn};
use crate::hub::post::Post;
use crate::hub::roster::OnPresence;
use crate::mailbox::{Partings, Switchboard};
use crate::stats::ClusterStats;
use crate::store::LiveRules;
use crate::store::redis::names::SECRET;
use crate::store::redis::{Address, Answer, Link, ask};
pub use lease::JoinError;
use lease::Lease;

/// How long the node waits at its end for the cluster's threads.
const END_PATIENCE: Duration = Duration::from_secs(5);
const FIRST_WORD_PATIENCE: Duration = Duration::from_secs(3);

/// How a node takes part in a cluster.
pub struct Options {
    pub address: Address,
    /// What all keys and channels begin with.
    pub prefix: String,
    /// This node's name.
    pub name: String,
    /// Where its own clients connect.
    pub ws_url: String,
    pub public_url: Option<String>,
}

/// A node that has its lease, and takes no part yet.
pub struct Member {
    options: Options,
    lease: Lease,
    link: Link,
}

/// What a member works with.
pub struct Surroundings {
    pub post: Arc<Post>,
    pub others: Arc<Others>,
    pub switchboard: Switchboard,
    pub partings: Partings,
    pub rules: LiveRules,
    pub stats: Arc<ClusterStats>,
    /// Tells watchers.
    pub tell_presence: OnPresence,
    /// Told when another process has taken this node's name.
    pub superseded: Sender<()>,
}

/// Takes the lease of this node's name. Waits where the name may be that of a node that has
/// died.
pub fn join(options: Options) -> Result<Member, JoinError> {
    let mut link = Link::open(&options.address, &options.prefix)?;
    let lease = Lease::take(&mut link, &options)?;
    Ok(Member {
        options,
        lease,
        link,
    })
}

impl Member {
    /// The lives of this process's node, for those who write its name down.
    pub fn lives(&self) -> Arc<Lives> {
        self.lease.lives.clone()
    }

    pub fn start(self, around: Surroundings) -> io::Result<Cluster> {
        let ending = Arc::new(AtomicBool::new(false));
        let stats = around.stats.clone();
        let around = Arc::new(around);
        let lives = self.lives();
        let options = Arc::new(self.options);
        let reader = reader::Reader::new(options.clone(), around.clone(), lives, ending.clone());
        let keeper = keeper::Keeper::new(options, around, self.lease, self.link, ending.clone());
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into());
            thread.spawn(work)
        };
        Ok(Cluster {
            threads: [
                spawn("bus", Box::new(move || reader.run()))?,
                spawn("cluster", Box::new(move || keeper.run()))?,
            ],
            ending,
            stats,
        })
    }
}

/// The threads, for whoever ends them.
pub struct Cluster {
    threads: [JoinHandle<()>; 2],
    ending: Arc<AtomicBool>,
    stats: Arc<ClusterStats>,
}

impl Cluster {
    /// Waits until the node hears itself on the bus; not for long, since clients need not.
    pub fn wait_until_heard(&self) {
        let deadline = Instant::now() + FIRST_WORD_PATIENCE;
        while !self.stats.is_whole() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives the lease back, and returns when nobody here speaks to the others any more.
    pub fn end(self) {
        self.ending.store(true, Relaxed);
        let deadline = Instant::now() + END_PATIENCE;
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() > deadline {
                tracing::warn!("the cluster's threads do not end: the lease ends by itself");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// One line for each time that the cluster is out of reach, or is there again, whatever noticed it.
fn tell(others: &Others, part: Part, failure: Option<&str>) {
    match others.note(part, failure.is_none()) {
        Turn::Down => tracing::error!(
            error = failure,
            ?part,
            "the cluster cannot be reached: clients stay, what would have to be stored is \
             refused, and everything else flows on this node alone"
        ),
        Turn::Up => tracing::info!("the cluster can be reached again"),
        Turn::None if failure.is_some() => tracing::debug!(error = failure, ?part, "down"),
        Turn::None => {}
    }
}

/// The secret that the nodes of a cluster share where none is configured: that of the first node.
///
/// `own`: what this node would offer.
pub fn shared_secret(address: &Address, prefix: &str, own: &str) -> Result<String, JoinError> {
    let mut link = Link::open(address, prefix)?;
    let key = format!("{prefix}{SECRET}");
    let mut offer = redis::cmd("SET");
    offer.arg(&key).arg(own).arg("NX");
    let mut take = redis::cmd("GET");
    take.arg(&key);
    let answer = link.ask(&[offer, take]).0.pop();
    let found = match &answer {
        Some(Answer::Value(value)) => ask::bytes(value).map(String::from_utf8_lossy),
        _ => None,
    };
    let refused = || JoinError::Refused("it does not keep the nodes' secret".to_owned());
    found.map(|secret| secret.into_owned()).ok_or_else(refused)
}
