//! What holds for every session of a node; fixed at start.

use crate::protocol::limits::Limits;
use crate::protocol::upgrade::is_loopback_origin;
use crate::session::auth::Auth;
use std::sync::Arc;

pub struct Rules {
    pub limits: Limits,
    /// The echo endpoint's own.
    pub echo_limits: Limits,
    pub path: String,
    pub echo_path: Option<String>,
    pub origins: Origins,
    pub auth: Arc<Auth>,
    /// `ip:apiPort`, the first part of every session id.
    pub node_name: String,
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
