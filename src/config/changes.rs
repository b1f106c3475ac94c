//! What a running node takes from another configuration, and what has to wait for a restart.
//!
//! Owns: that decision, for every key.
//! Invariants: a value is never half taken; what was proven together stays good: an open API
//! keeps its key, and keys of another way to prove who one is are not mixed in.

use super::keys::LimitKeys;
use super::{AuthMode, Config, JwtConfig};

/// The keys that differed. Their values are nobody's business: some are secrets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub taken: Vec<&'static str>,
    /// They need a restart.
    pub left: Vec<&'static str>,
}

impl Changes {
    fn take<T: PartialEq>(&mut self, key: &'static str, current: &mut T, new: T) {
        if *current != new {
            self.taken.push(key);
            *current = new;
        }
    }

    fn leave<T: PartialEq>(&mut self, key: &'static str, current: &T, new: &T) {
        if current != new {
            self.left.push(key);
        }
    }
}

impl Config {
    /// Takes from `new` what may change while a node runs.
    pub fn adopt(&mut self, new: Config) -> Changes {
        // Taken apart without `..`: a key that nobody has decided about does not compile.
        let Config {
            listen,
            path,
            echo_path,
            allowed_origins,
            trusted_proxies,
            overflow,
            api,
            api_key,
            advertise,
            public_url,
            max_connections,
            reactors,
            auth,
            token_secret,
            jwt,
            session_policy,
            groups_are_open,
            store,
            redis,
            data_dir,
            drain_secs,
            limits,
            backlog,
            log_level,
            log_format,
            watchdog_secs,
            warnings,
        } = new;
        let mut changes = Changes::default();
        changes.leave("listen", &self.listen, &listen);
        changes.leave("path", &self.path, &path);
        changes.leave("echo_path", &self.echo_path, &echo_path);
        changes.leave("overflow", &self.overflow, &overflow);
        changes.leave("api", &self.api, &api);
        changes.leave("advertise", &self.advertise, &advertise);
        changes.leave("public_url", &self.public_url, &public_url);
        changes.leave("max_connections", &self.max_connections, &max_connections);
        changes.leave("reactors", &self.reactors, &reactors);
        changes.leave("auth", &self.auth, &auth);
        changes.leave("store", &self.store, &store);
        changes.leave("redis", &self.redis, &redis);
        changes.leave("data_dir", &self.data_dir, &data_dir);
        changes.leave("backlog", &self.backlog, &backlog);
        changes.leave("log_format", &self.log_format, &log_format);

        let is_open = !self.api.ip().is_loopback();
        if is_open && api_key.is_none() {
            // Good where the new address is a loopback one, but we still listen on the old.
            changes.leave("api_key", &self.api_key, &api_key);
        } else {
            changes.take("api_key", &mut self.api_key, api_key);
        }
        match self.auth {
            _ if self.auth != auth => {}
            AuthMode::Hmac => changes.take("token_secret", &mut self.token_secret, token_secret),
            AuthMode::Jwt => changes.take_jwt(&mut self.jwt, jwt),
            AuthMode::None => {}
        }
        let origins = &mut self.allowed_origins;
        changes.take("allowed_origins", origins, allowed_origins);
        let proxies = &mut self.trusted_proxies;
        changes.take("trusted_proxies", proxies, trusted_proxies);
        let policy = &mut self.session_policy;
        changes.take("session_policy", policy, session_policy);
        changes.take("group_join", &mut self.groups_are_open, groups_are_open);
        changes.take("drain_secs", &mut self.drain_secs, drain_secs);
        changes.take("watchdog_secs", &mut self.watchdog_secs, watchdog_secs);
        changes.take("log_level", &mut self.log_level, log_level);
        let differing = LimitKeys::differing(&self.limits, &limits);
        changes.taken.extend(differing);
        self.limits = limits;
        self.warnings = warnings;
        changes
    }
}

impl Changes {
    fn take_jwt(&mut self, current: &mut Option<JwtConfig>, new: Option<JwtConfig>) {
        let (Some(current), Some(new)) = (current, new) else {
            return;
        };
        let JwtConfig {
            algorithm,
            keys,
            issuer,
            audience,
        } = new;
        self.take("jwt_algorithm", &mut current.algorithm, algorithm);
        self.take("jwt_key", &mut current.keys, keys);
        self.take("jwt_issuer", &mut current.issuer, issuer);
        self.take("jwt_audience", &mut current.audience, audience);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::checks::prove;
    use crate::config::layers::Layers;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn config(text: &str) -> Config {
        prove(Layers::of_text(text, &[]), false).unwrap()
    }

    fn change(from: &str, to: &str) -> (Config, Changes) {
        let mut current = config(from);
        let changes = current.adopt(config(to));
        (current, changes)
    }

    #[test]
    fn the_same_again_changes_nothing() {
        let text = format!("api_key = \"{KEY}\"\n[limits]\nstrikes_max = 9");
        let (current, changes) = change(&text, &text);
        assert_eq!(changes, Changes::default());
        assert!(current == config(&text));
    }

    #[test]
    fn what_may_change_is_taken_and_the_rest_is_left_and_both_are_named() {
        let (current, changes) = change(
            "",
            "listen = \"127.0.0.1:1\"\nping_secs = 5\nsession_policy = \"single\"\n\
             data_dir = \"elsewhere\"\nlog_level = \"debug\"\n[limits]\nstrikes_max = 9",
        );
        assert_eq!(changes.left, ["listen", "data_dir"]);
        let taken = [
            "session_policy",
            "log_level",
            "limits.strikes_max",
            "ping_secs",
        ];
        assert_eq!(changes.taken, taken);
        assert_eq!(current.listen, Config::default().listen);
        assert_eq!(current.data_dir, Config::default().data_dir);
        assert_eq!(
            (current.limits.strikes_max, current.limits.ping_secs),
            (9, 5)
        );
    }

    #[test]
    fn an_open_api_keeps_its_key_until_it_has_another() {
        let open = format!("api = \"0.0.0.0:8084\"\napi_key = \"{KEY}\"");
        let (current, changes) = change(&open, "");
        assert_eq!(changes.left, ["api", "api_key"]);
        assert_eq!(current.api_key.as_deref(), Some(KEY));
        let other = "f".repeat(32);
        let (current, changes) = change(&open, &format!("api_key = \"{other}\""));
        assert_eq!(
            (changes.taken, changes.left),
            (vec!["api_key"], vec!["api"])
        );
        assert_eq!(current.api_key, Some(other));
        let (current, _) = change(&format!("api_key = \"{KEY}\""), "");
        assert_eq!(current.api_key, None, "on loopback it may go");
    }

    #[test]
    fn secrets_of_another_way_to_prove_who_one_is_are_left_alone() {
        let hmac = format!("token_secret = \"{KEY}\"");
        let (current, changes) = change(&hmac, "auth = \"none\"");
        assert_eq!(
            (changes.taken, changes.left),
            (vec![], vec!["listen", "auth"])
        );
        assert_eq!(current.token_secret.as_deref(), Some(KEY));
        let jwt = format!("auth = \"jwt\"\njwt_algorithm = \"HS256\"\njwt_key = \"{KEY}\"");
        let (current, changes) = change(&jwt, &hmac);
        assert_eq!((changes.taken, changes.left), (vec![], vec!["auth"]));
        assert!(current == config(&jwt));
    }
}
