//! The checks of what makes a node the member of a cluster.

use super::checks::Prover;
use super::layers::Layer;
use super::{Config, RedisConfig, StoreKind};
use crate::store::redis::Address;
use crate::store::redis::names::PREFIX;

const PREFIX_BYTES_MAX: usize = 64;

impl Prover {
    /// Where messages are kept, and with whom they are shared.
    pub fn store(&mut self, config: &mut Config) {
        let store = self.layers.file.store.take();
        let redis = self.redis();
        let wants_redis = redis.is_some() || self.layers.origin("redis") > Layer::Default;
        match store.as_deref() {
            None => {}
            Some("redis") if wants_redis => {}
            Some("redis") => {
                let why = "needs to know where: set redis, as in redis://127.0.0.1:6379";
                self.problem("store", format!("= \"redis\" {why}"));
            }
            Some(store) if wants_redis => {
                let other = self.layers.name("redis");
                let why = "one of the two would have no messages: leave one of them out";
                self.problem("store", format!("= {store:?} beside {other}: {why}"));
            }
            Some("disk") => config.store = StoreKind::Disk,
            Some("memory") => config.store = StoreKind::Memory,
            Some(store) => {
                let sentence = format!("= {store:?} is not one of: disk, memory, redis");
                self.problem("store", sentence);
            }
        }
        config.redis = redis;
    }

    fn redis(&mut self) -> Option<RedisConfig> {
        let file = &mut self.layers.file;
        let (url, prefix) = (file.redis.take(), file.redis_prefix.take());
        let (routing, ca) = (file.routing.take(), file.redis_ca_file.take());
        let (password, password_file) =
            (file.redis_password.take(), file.redis_password_file.take());
        let has_more = [&ca, &password, &password_file];
        let has_more = has_more.iter().any(|value| value.is_some());
        let password = self.secret(
            "redis_password",
            password,
            "redis_password_file",
            password_file,
        );
        let password = password.map(|(_, text)| text.trim_end_matches(['\r', '\n']).to_owned());
        let authority = ca.and_then(|path| self.authority(&path));
        let prefix = prefix.map_or_else(|| PREFIX.to_owned(), |prefix| self.prefix(prefix));
        let mut has_directory = true;
        if let Some(routing) = routing {
            let choices = [("directory", true), ("broadcast", false)];
            self.choice("routing", &routing, &choices, &mut has_directory);
        }
        let Some(url) = url else {
            if has_more {
                let keys = "redis_password and redis_ca_file";
                self.layers
                    .warnings
                    .push(format!("{keys} have no effect without redis"));
            }
            return None;
        };
        if let Err(error) = Address::parse(&url) {
            // The text may hold a password.
            self.problem("redis", error);
            return None;
        }
        let holds_password = url.rsplit_once('@').is_some_and(|(user, _)| {
            let user = user.split_once("://").map_or(user, |(_, user)| user);
            user.split_once(':')
                .is_some_and(|(_, password)| !password.is_empty())
        });
        if holds_password && self.layers.origin("redis") == Layer::Flags {
            self.layers.warnings.push(
                "--redis holds a password, and whoever may list this machine's processes reads \
                 it: use THRONG_REDIS_PASSWORD or redis_password_file"
                    .to_owned(),
            );
        }
        Some(RedisConfig {
            url,
            password,
            authority,
            prefix,
            has_directory,
        })
    }

    fn authority(&mut self, path: &str) -> Option<Vec<u8>> {
        match std::fs::read(self.path_of("redis_ca_file", path)) {
            Ok(pem) if pem.starts_with(b"-----BEGIN") => Some(pem),
            Ok(_) => {
                let sentence = format!("= {path:?} holds no certificate in PEM");
                self.problem("redis_ca_file", sentence);
                None
            }
            Err(error) => {
                let way_out = "name a file that the server's user may read";
                let sentence = format!("= {path:?} cannot be read ({error}): {way_out}");
                self.problem("redis_ca_file", sentence);
                None
            }
        }
    }

    fn prefix(&mut self, prefix: String) -> String {
        let is_good = |b: u8| b.is_ascii_graphic() && !b"{}*?[]\\".contains(&b);
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(is_good) {
            let sentence = format!(
                "= {prefix:?} is not up to {PREFIX_BYTES_MAX} visible characters without \
                 {{}}*?[]\\: rights in Redis are given by pattern"
            );
            self.problem("redis_prefix", sentence);
        }
        prefix
    }
}
