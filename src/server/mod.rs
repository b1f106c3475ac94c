//! One node, from a proven configuration to its last connection: wires the threads together,
//! waits for signals, watches the reactors, takes other rules, drains.
//!
//! Owns: the order of the start. Reactors come first, while nothing but the standard streams
//! and the mailboxes' bells is open (see `reactor/start.rs`); everything else after them.

mod error;
mod life;
mod member;
mod memory;
mod names;
mod plan;
mod presence;
mod reload;
mod rules;
mod start;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{bounded, never};

use crate::cluster;
use crate::config::Config;
use crate::control::{self, Live};
use crate::hub::traces::Traces;
use crate::log::Log;
use crate::mailbox::{self, AwayBox, Switchboard, store_box};
use crate::reactor::Shared;
use crate::stats::{ClusterStats, ReactorStats, StoreStats};
use crate::store::{self, Keeper, LiveRules};
use life::Events;
use member::Ground;
use names::Names;
use plan::Plan;
use reload::{Reload, Untold};
use watch::Watchdog;

pub use error::ServeError;
pub use memory::queue_budget;
pub use reload::Load;

/// Runs a node until it has drained. `load` reads the configuration again when it is asked to.
pub fn run(config: Config, log: Log, load: Load<'_>) -> Result<(), ServeError> {
    reload::warn_of(&config.warnings);
    let plan = Plan::new(&config)?;
    let config = member::with_shared_secret(config)?;
    let config = rules::with_secret(config)?;
    let auth = rules::auth(&config)?;
    let codes = member::user_codes(&config, &auth)?;

    let stats: Vec<Arc<ReactorStats>> = (0..plan.reactors).map(|_| Arc::default()).collect();
    let (mailboxes, inboxes) = start::mailboxes(plan.reactors)?;
    let (starting, listen) = start::start_reactors(&config, &plan, inboxes, &stats)?;

    let api = control::bind(config.api).map_err(|source| ServeError::Listen {
        addr: config.api,
        option: "--api",
        source,
    })?;
    let api_addr = api.local_addr()?;
    let names = Names::of(&config, listen, api_addr, member::local_ip(&config)?);
    // Before anything is promised to anybody: it may be in use, or damaged, or out of reach.
    let Ground {
        backend,
        epoch,
        member,
    } = member::ground(&config, &names)?;
    let rules = Arc::new(rules::rules(&config, auth, names.node.clone()));
    let node = Arc::new(names.node(plan.max_connections));
    rules::apply_to_node(&rules, &node);
    let switchboard = Switchboard::new(mailboxes);
    let others = member::others(&config, &rules);
    let (post, tell_presence) = presence::post(&node, &switchboard, others.clone(), codes)?;
    let (store_box, letters) = store_box();
    let store_stats = Arc::new(StoreStats::default());
    let inbox_rules = LiveRules::new(rules::inbox_rules(&config.limits));
    let keeper = Keeper {
        backend,
        letters,
        post: post.clone(),
        switchboard: switchboard.clone(),
        rules: inbox_rules.clone(),
        tell_presence: tell_presence.clone(),
        epoch,
        stats: store_stats.clone(),
    };
    let storekeeper = store::spawn(keeper, store_box.clone())?;
    let cluster_stats = Arc::new(ClusterStats::default());
    let (away, cluster, supersessions) = match member.zip(others.clone()) {
        None => (AwayBox::default(), None, never()),
        Some((member, others)) => {
            let (away, partings) = mailbox::away_box();
            let (superseded, supersessions) = bounded(1);
            let cluster = member.start(cluster::Surroundings {
                post: post.clone(),
                others,
                switchboard: switchboard.clone(),
                partings,
                rules: inbox_rules.clone(),
                stats: cluster_stats.clone(),
                tell_presence,
                superseded,
            })?;
            (away, Some(cluster), supersessions)
        }
    };
    let traces = Arc::new(Traces::default());
    let origin = Instant::now();
    let shared = Arc::new(Shared {
        node: node.clone(),
        post: post.clone(),
        traces: traces.clone(),
        addresses: Arc::default(),
        switchboard: switchboard.clone(),
        store: store_box.clone(),
        away: away.clone(),
        origin,
    });
    let threads = starting
        .into_iter()
        .map(|one| one.go(shared.clone(), rules.clone()));
    let ended = start::watch_ends(threads.collect());
    let (drain, drains) = bounded(1);
    let services = control::Services {
        node: node.clone(),
        post,
        traces,
        switchboard: switchboard.clone(),
        store: store_box,
        away,
        cluster: cluster_stats,
        store_stats,
        stats: stats.clone().into(),
        drain,
        started: origin,
        seed: start::seed()?,
    };
    let live = Live {
        rules: rules.clone(),
        api_key: config.api_key.clone(),
    };
    let control = control::serve(api, live, services)?;
    let events = Events {
        signals: start::signals()?,
        drains,
        supersessions,
        ended,
    };
    tracing::info!(
        reactors = plan.reactors,
        max_connections = plan.max_connections,
        private_file_tables = plan.has_private_tables,
        queue_bytes_max = rules.limits.node_queue_bytes_max,
        "the node is up"
    );
    if let Some(cluster) = &cluster {
        cluster.wait_until_heard();
    }
    names::announce(&node, api_addr, &rules.auth);

    let reload = Reload {
        config,
        rules,
        inbox_rules,
        load,
        log,
        control: &control,
        node: node.clone(),
        others,
        switchboard: switchboard.clone(),
        untold: Untold::default(),
    };
    let watchdog = Watchdog::new(stats, origin);
    let outcome = life::serve_until_drained(&node, &switchboard, &events, reload, watchdog);
    control.stop();
    // Nobody is left who would ask for anything: what is on its way to the disk arrives there.
    storekeeper.end();
    if let Some(cluster) = cluster {
        cluster.end();
    }
    outcome
}
