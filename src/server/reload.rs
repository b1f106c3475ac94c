//! The configuration, read again on SIGHUP while the node serves.
//!
//! Owns: what the node goes by at present.
//! Invariants: it changes as a whole or not at all, and only to what was proven; every reactor
//! gets the present rules in the end, however full its mailbox is; no value reaches the log,
//! only names of keys and sentences that were made for the operator.

use std::sync::Arc;

use super::ServeError;
use super::rules::{apply_to_node, auth, inbox_rules, rules, with_secret};
use crate::command::ToReactor;
use crate::config::{Changes, Config, ConfigErrors};
use crate::control::{Control, Live};
use crate::hub::node::Node;
use crate::hub::others::Others;
use crate::log::Log;
use crate::mailbox::Switchboard;
use crate::session::rules::Rules;
use crate::store::LiveRules;

/// Reads the configuration as it was read at the start.
pub type Load<'a> = &'a dyn Fn() -> Result<Config, ConfigErrors>;

pub struct Reload<'a> {
    /// With its secret.
    pub config: Config,
    pub rules: Arc<Rules>,
    /// Those of the storekeeper.
    pub inbox_rules: LiveRules,
    pub load: Load<'a>,
    pub log: Log,
    pub control: &'a Control,
    pub node: Arc<Node>,
    pub others: Option<Arc<Others>>,
    pub switchboard: Switchboard,
    pub untold: Untold,
}

/// Reactors that have still to be told the rules.
#[derive(Default)]
pub struct Untold(Vec<usize>);

impl Reload<'_> {
    /// Reads everything again and takes what may change.
    pub fn reload(&mut self) {
        match self.read() {
            Ok((config, changes, rules)) => self.take(config, &changes, rules),
            Err(problems) => tracing::error!(
                problems,
                "the configuration is bad and was not taken: the node goes on as it was"
            ),
        }
    }

    /// The configuration that the node will have, how it differs, and the rules that it means.
    /// The error is all problems in one line.
    fn read(&self) -> Result<(Config, Changes, Rules), String> {
        let mut read = (self.load)().map_err(|errors| errors.0.join("; "))?;
        if read.auth == self.config.auth {
            // The secret is still the one of the directory that this node has.
            let named = std::mem::replace(&mut read.data_dir, self.config.data_dir.clone());
            read = with_secret(read).map_err(|error| error.to_string())?;
            read.data_dir = named;
        }
        let mut config = self.config.clone();
        let changes = config.adopt(read);
        let auth = auth(&config).map_err(|error: ServeError| error.to_string())?;
        let rules = rules(&config, auth, self.rules.node_name.clone());
        Ok((config, changes, rules))
    }

    fn take(&mut self, config: Config, changes: &Changes, rules: Rules) {
        self.config = config;
        self.rules = Arc::new(rules);
        apply_to_node(&self.rules, &self.node);
        if let Some(others) = &self.others {
            others.set_sessions_max(self.rules.sessions_max());
        }
        self.inbox_rules.set(inbox_rules(&self.rules.limits));
        // First, so that what follows is written as it is wanted now.
        self.log.set_level(self.config.log_level);
        warn_of(&self.config.warnings);
        self.control.reload(Live {
            rules: self.rules.clone(),
            api_key: self.config.api_key.clone(),
        });
        self.untold = Untold((0..self.switchboard.reactors()).collect());
        self.tell();
        if !changes.left.is_empty() {
            let keys = changes.left.join(", ");
            tracing::warn!(keys, "these settings need a restart and stay as they were");
        }
        let changed = match changes.taken.as_slice() {
            [] => "nothing".to_owned(),
            keys => keys.join(", "),
        };
        tracing::info!(changed, "the configuration was read again");
    }

    /// To be called again and again: some may have been too busy the last time.
    pub fn tell(&mut self) {
        self.untold.tell(&self.rules, &self.switchboard);
    }
}

impl Untold {
    /// Tells the rules to those whose mailbox has room.
    fn tell(&mut self, rules: &Arc<Rules>, switchboard: &Switchboard) {
        if self.0.is_empty() {
            return;
        }
        self.0.retain(|&reactor| {
            let rules = rules.clone();
            let told = switchboard.send(reactor, ToReactor::Reload { rules });
            told.is_err()
        });
        match self.0.len() {
            0 => tracing::debug!("all reactors have the rules in their mail"),
            reactors => tracing::debug!(reactors, "too busy to be told the rules"),
        }
    }
}

/// What is odd about a configuration, and no reason to refuse it.
pub fn warn_of(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(%warning, "the configuration is odd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::DrainPlan;
    use crate::mailbox::{MAIL_MAX, mailbox};
    use crate::session::auth::Auth;

    #[test]
    fn a_reactor_that_is_too_busy_is_told_later_and_nobody_is_told_twice() {
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox().unwrap()).unzip();
        let board = Switchboard::new(mailboxes);
        let plan = DrainPlan {
            per_sec: 1,
            within_secs: 1,
        };
        for _ in 0..MAIL_MAX {
            board.send(1, ToReactor::Drain { plan }).unwrap();
        }
        let rules = Arc::new(rules(&Config::default(), Auth::None, "n:1".to_owned()));
        let mut untold = Untold(vec![0, 1]);
        untold.tell(&rules, &board);
        assert_eq!(untold.0, [1]);
        while inboxes[1].next().is_some() {}
        untold.tell(&rules, &board);
        untold.tell(&rules, &board);
        for inbox in &inboxes {
            assert!(matches!(inbox.next(), Some(ToReactor::Reload { .. })));
            assert!(inbox.next().is_none());
        }
    }
}
