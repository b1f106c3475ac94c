//! What holds for every session of a node, until the node is given other rules.

use crate::inbox::GroupRules;
use crate::protocol::limits::Limits;
use crate::protocol::upgrade::is_loopback_origin;
use crate::session::auth::Auth;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses that share a prefix; one address is the smallest.
pub use ipnet::IpNet as Network;

pub struct Rules {
    pub limits: Limits,
    /// The echo endpoint's own.
    pub echo_limits: Limits,
    pub path: String,
    pub echo_path: Option<String>,
    pub origins: Origins,
    /// Peers in these networks are believed when they say for whom they speak.
    pub trusted_proxies: Vec<Network>,
    pub auth: Arc<Auth>,
    pub session_policy: SessionPolicy,
    /// Anybody may join a group, not only who is invited by a member.
    pub groups_are_open: bool,
    /// `ip:apiPort`, the first part of every session id.
    pub node_name: String,
}

impl Rules {
    pub fn group_rules(&self) -> GroupRules {
        GroupRules {
            per_user_max: self.limits.groups_per_user_max,
            members_max: self.limits.group_members_max,
            is_open: self.groups_are_open,
        }
    }

    /// Sessions that a user may have at once.
    pub fn sessions_max(&self) -> usize {
        match self.session_policy {
            SessionPolicy::Single => 1,
            SessionPolicy::Multi => self.limits.user_sessions_max,
        }
    }

    /// Whether the peer `ip` is believed when it says for whom it speaks.
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&ip))
    }
}

/// They hold secrets, so nothing of them is shown.
impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rules")
    }
}

/// How many connections a user may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPolicy {
    /// As many as `user_sessions_max`.
    Multi,
    /// One: a new one takes the place of the one before.
    Single,
}

/// Which pages may connect. Clients that are no browsers send no Origin.
pub enum Origins {
    Any,
    Listed(Vec<String>),
    /// Pages of this machine, and those listed: where no token is asked for.
    LocalOr(Vec<String>),
}

impl Origins {
    pub fn allow(&self, origin: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        let listed = |list: &[String]| list.iter().any(|one| one == origin);
        match self {
            Origins::Any => true,
            Origins::Listed(list) => listed(list),
            Origins::LocalOr(list) => is_loopback_origin(origin) || listed(list),
        }
    }
}
