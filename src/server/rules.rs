//! From the configuration to what sessions go by: who is believed, which pages may come, limits.

use std::sync::Arc;

use super::ServeError;
use super::memory::queue_budget;
use crate::config::{AuthMode, Config, load_or_create_secret};
use crate::hub::node::Node;
use crate::inbox::InboxRules;
use crate::protocol::limits::Limits;
use crate::session::auth::{Auth, JwtKeys, TokenKeys};
use crate::session::rules::{Origins, Rules};

/// Where tokens need a secret and none was set, it is the one in the data directory.
pub fn with_secret(mut config: Config) -> Result<Config, ServeError> {
    if config.auth == AuthMode::Hmac && config.token_secret.is_none() {
        config.token_secret = Some(load_or_create_secret(&config.data_dir)?);
    }
    Ok(config)
}

/// `config` has its secret.
pub fn auth(config: &Config) -> Result<Auth, ServeError> {
    Ok(match config.auth {
        AuthMode::Hmac => {
            let secret = config.token_secret.as_deref().unwrap_or_default();
            Auth::Hmac(TokenKeys::parse(secret)?)
        }
        AuthMode::Jwt => {
            let jwt = config.jwt.as_ref();
            let jwt = jwt.expect("this mode was proven together with its keys");
            let (issuer, audience) = (jwt.issuer.as_deref(), jwt.audience.as_deref());
            let keys = JwtKeys::parse(jwt.algorithm, &jwt.keys, issuer, audience)?;
            Auth::Jwt(keys)
        }
        AuthMode::None => Auth::None,
    })
}

pub fn rules(config: &Config, auth: Auth, node_name: String) -> Rules {
    let limits = Limits {
        node_queue_bytes_max: queue_budget(&config.limits),
        ..config.limits.clone()
    };
    Rules {
        echo_limits: limits.echo(),
        limits,
        path: config.path.clone(),
        echo_path: config.echo_path.clone(),
        origins: origins(config),
        trusted_proxies: config.trusted_proxies.clone(),
        auth: Arc::new(auth),
        session_policy: config.session_policy,
        groups_are_open: config.groups_are_open,
        node_name,
    }
}

/// The limits that hold for all connections together.
pub fn apply_to_node(rules: &Rules, node: &Node) {
    let limits = &rules.limits;
    node.set_limits(limits.strangers_percent_max, limits.node_queue_bytes_max);
}

fn origins(config: &Config) -> Origins {
    let listed = config.allowed_origins.clone();
    match config.auth {
        AuthMode::None => Origins::LocalOr(listed),
        AuthMode::Hmac | AuthMode::Jwt if listed.is_empty() => Origins::Any,
        AuthMode::Hmac | AuthMode::Jwt => Origins::Listed(listed),
    }
}

/// How much is kept in an inbox, and for how long.
pub fn inbox_rules(limits: &Limits) -> InboxRules {
    const HOUR_MS: u64 = 3600 * 1000;
    InboxRules {
        entries_max: limits.inbox_entries_max,
        bytes_max: limits.inbox_bytes_max as u64,
        notices_max: 1000,
        devices_max: 8,
        ttl_ms: u64::from(limits.inbox_ttl_secs) * 1000,
        seen_ms: 24 * HOUR_MS,
        seen_max: 10_000,
    }
}
