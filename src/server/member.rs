//! What a node stands on: a store of its own, or a Redis that makes it the member of a cluster.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;

use super::ServeError;
use super::names::{self, Names};
use crate::cluster::{self, Member, Options};
use crate::config::{
    AuthMode, Config, RedisConfig, StoreKind, load_or_create_secret, replace_secret,
};
use crate::hub::code::UserCodes;
use crate::hub::others::Others;
use crate::inbox::batch::{Backend, OverRows, Store};
use crate::protocol::b64::B64URL;
use crate::session::auth::{Auth, TokenKeys};
use crate::session::rules::Rules;
use crate::store::redis::{Address, Redis};
use crate::store::{self, Disk, Memory};

/// Why the data directory keeps a node from a cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store in {0} holds {1} entries that somebody has not got, and with --redis nobody would \
     read them. Let a node without --redis deliver them; or keep them with 'throng store export', \
     for a later 'throng store import', and move {0} away"
)]
pub struct Undelivered(PathBuf, u64);

fn address(redis: &RedisConfig) -> Result<Address, ServeError> {
    let mut address = Address::parse(&redis.url)?;
    if let Some(password) = &redis.password {
        address = address.with_password(password);
    }
    if let Some(authority) = &redis.authority {
        address = address.trusting(authority.clone());
    }
    Ok(address)
}

/// Nothing that waits for somebody is left behind in the data directory.
fn refuse_what_is_undelivered(config: &Config) -> Result<(), ServeError> {
    if !config.data_dir.join(store::STORE_FILE).exists() {
        return Ok(());
    }
    let entries = store::tool::waiting(&config.data_dir).map_err(ServeError::Leftovers)?;
    if entries > 0 {
        let file = config.data_dir.join(store::STORE_FILE);
        return Err(Undelivered(file, entries).into());
    }
    Ok(())
}

/// The secret that all nodes share, where none is configured. It is asked for before anything
/// else is open.
pub fn with_shared_secret(mut config: Config) -> Result<Config, ServeError> {
    let Some(redis) = &config.redis else {
        return Ok(config);
    };
    refuse_what_is_undelivered(&config)?;
    if config.auth == AuthMode::Hmac && config.token_secret.is_none() {
        let own = load_or_create_secret(&config.data_dir)?;
        let shared = cluster::shared_secret(&address(redis)?, &redis.prefix, &own)?;
        TokenKeys::parse(&shared)?;
        if shared != own {
            replace_secret(&config.data_dir, &shared)?;
        }
        config.token_secret = Some(shared);
    }
    Ok(config)
}

/// Sessions' names that any node of a cluster can read, and that stay readable for as long as the
/// node runs, whatever becomes of the secrets.
pub fn user_codes(config: &Config, auth: &Auth) -> Result<UserCodes, ServeError> {
    if let Auth::Hmac(keys) = auth {
        return Ok(UserCodes::new(&keys.derive("user codes")));
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(ServeError::Random)?;
    let Some(redis) = &config.redis else {
        return Ok(UserCodes::new(&key));
    };
    let shared = cluster::shared_secret(&address(redis)?, &redis.prefix, &B64URL.encode(key))?;
    Ok(UserCodes::new(
        &TokenKeys::parse(&shared)?.derive("user codes"),
    ))
}

/// What a node stands on.
pub struct Ground {
    pub backend: Box<dyn Backend>,
    /// Of inboxes that begin now, where the node makes them.
    pub epoch: u64,
    /// With its lease.
    pub member: Option<Member>,
}

/// Opens the store; of a member after its lease is taken. A store that forgets with the process has
/// another epoch in each life of the node.
pub fn ground(config: &Config, names: &Names) -> Result<Ground, ServeError> {
    if let Some(redis) = &config.redis {
        return shared_ground(redis, names);
    }
    let (store, epoch): (Box<dyn Store>, u64) = match config.store {
        StoreKind::Disk => {
            let disk = Disk::open(&config.data_dir)?;
            let epoch = disk.epoch();
            (Box::new(disk), epoch)
        }
        StoreKind::Memory => {
            let epoch = store::new_epoch().map_err(ServeError::Random)?;
            (Box::<Memory>::default(), epoch)
        }
    };
    Ok(Ground {
        backend: Box::new(OverRows::new(store)),
        epoch,
        member: None,
    })
}

fn shared_ground(redis: &RedisConfig, names: &Names) -> Result<Ground, ServeError> {
    let member = cluster::join(Options {
        address: address(redis)?,
        prefix: redis.prefix.clone(),
        name: names.node.clone(),
        ws_url: names.ws_url.clone(),
        public_url: names.public_url.clone(),
    })?;
    let place = store::redis::Place {
        node: names.node.clone(),
        epoch: member.lives().present(),
        is_broadcast: !redis.has_directory,
    };
    let store = Redis::open(address(redis)?, &redis.prefix, place)?;
    Ok(Ground {
        backend: Box::new(store.in_lives(member.lives())),
        epoch: 0,
        member: Some(member),
    })
}

/// The other nodes, of which nothing is known yet; none for a node that is alone.
pub fn others(config: &Config, rules: &Rules) -> Option<Arc<Others>> {
    let redis = config.redis.as_ref()?;
    let others = Others::new(redis.has_directory);
    others.set_sessions_max(rules.sessions_max());
    Some(Arc::new(others))
}

/// This machine's address, as the others in the cluster may reach it.
pub fn local_ip(config: &Config) -> Result<Option<IpAddr>, ServeError> {
    let Some(redis) = &config.redis else {
        return Ok(None);
    };
    let peer = address(redis)?.peer();
    Ok(peer.and_then(|(host, port)| names::local_ip_towards(&host, port)))
}
