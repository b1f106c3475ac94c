//! The checks of who may ask and who may come: the API's key, tokens, the two addresses, and
//! what users may do among each other.

use super::checks::{Prover, unbuilt};
use super::layers::Layer;
use super::{AuthMode, Config};
use crate::session::auth::TokenKeys;
use crate::session::rules::SessionPolicy;

const API_KEY_CHARS_MIN: usize = 32;

impl Prover {
    pub fn api(&mut self, config: &mut Config) {
        let text = self.layers.file.api.take();
        self.address("api", text, &mut config.api);
        let (text, path) = {
            let file = &mut self.layers.file;
            (file.api_key.take(), file.api_key_file.take())
        };
        let was_set = text.is_some() || path.is_some();
        if let Some((name, key)) = self.secret("api_key", text, "api_key_file", path) {
            let key = key.trim();
            self.api_key(name, key);
            config.api_key = Some(key.to_owned());
        }
        if !config.api.ip().is_loopback() && !was_set {
            let api = config.api;
            let sentence = format!(
                "= {api} without an API key would let everybody who reaches it send to all \
                 clients: set THRONG_API_KEY or api_key_file, or listen on 127.0.0.1"
            );
            self.problem("api", sentence);
        }
    }

    fn api_key(&mut self, name: &str, key: &str) {
        let count = key.chars().count();
        if count < API_KEY_CHARS_MIN {
            let sentence = format!(
                "has {count} characters and could be guessed: {API_KEY_CHARS_MIN} or more are \
                 needed, as from `openssl rand -hex 32`"
            );
            self.problem(name, sentence);
        } else if !key.bytes().all(|b| b.is_ascii_graphic()) {
            let why = "holds characters that an HTTP header cannot carry: use letters and digits";
            self.problem(name, why);
        }
    }

    pub fn who_may_come(&mut self, config: &mut Config) {
        self.auth_mode(config);
        self.token_secret(config);
        self.jwt(config);
        let is_none = config.auth == AuthMode::None;
        if is_none {
            config.listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        let text = self.layers.file.listen.take();
        self.address("listen", text, &mut config.listen);
        let is_meant = self.layers.file.auth_none_anywhere.unwrap_or(false);
        if is_none && !is_meant && !config.listen.ip().is_loopback() {
            let listen = config.listen;
            let sentence = format!(
                "= {listen} with auth = \"none\" would let anybody be anyone: listen on \
                 127.0.0.1, use auth = \"hmac\", or set auth_none_anywhere = true \
                 (THRONG_AUTH_NONE_ANYWHERE) if that is meant"
            );
            self.problem("listen", sentence);
        }
    }

    pub fn auth_mode(&mut self, config: &mut Config) {
        match self.layers.file.auth.take().as_deref() {
            None => {}
            Some(mode @ ("http" | "redis")) => self.problem("auth", unbuilt(mode, "hmac")),
            Some(mode) => {
                let choices = [
                    ("hmac", AuthMode::Hmac),
                    ("jwt", AuthMode::Jwt),
                    ("none", AuthMode::None),
                ];
                self.choice("auth", mode, &choices, &mut config.auth);
            }
        }
    }

    pub fn token_secret(&mut self, config: &mut Config) {
        let file = &mut self.layers.file;
        let (text, path) = (file.token_secret.take(), file.token_secret_file.take());
        let Some((name, secret)) = self.secret("token_secret", text, "token_secret_file", path)
        else {
            return;
        };
        if let Err(error) = TokenKeys::parse(&secret) {
            let sentence = format!(
                "cannot sign: {error}. Make one with `openssl rand -hex 32`, or leave it out and \
                 the node makes its own"
            );
            self.problem(name, sentence);
        }
        config.token_secret = Some(secret);
    }

    pub fn users(&mut self, config: &mut Config) {
        if let Some(choice) = self.layers.file.session_policy.take() {
            #[rustfmt::skip]
            let choices = [("multi", SessionPolicy::Multi), ("single", SessionPolicy::Single)];
            self.choice(
                "session_policy",
                &choice,
                &choices,
                &mut config.session_policy,
            );
        }
        if let Some(choice) = self.layers.file.group_join.take() {
            let choices = [("members", false), ("open", true)];
            self.choice("group_join", &choice, &choices, &mut config.groups_are_open);
        }
    }

    /// A secret and the key it came from: itself, or a file's path; of both the later layer wins.
    pub fn secret<'a>(
        &mut self,
        key: &'a str,
        text: Option<String>,
        file_key: &'a str,
        path: Option<String>,
    ) -> Option<(&'a str, String)> {
        let (text_from, path_from) = (self.layers.origin(key), self.layers.origin(file_key));
        let path = match (text, path) {
            (None, None) => return None,
            (Some(text), None) => return Some((key, text)),
            (Some(text), Some(_)) if text_from > path_from => return Some((key, text)),
            (Some(_), Some(_)) if text_from == path_from => {
                let other = self.layers.name(file_key);
                let why = "nobody could tell which one is meant: keep one";
                self.problem(key, format!("and {other} are both set, and {why}"));
                return None;
            }
            (_, Some(path)) => path,
        };
        match std::fs::read_to_string(self.path_of(file_key, &path)) {
            Ok(text) => Some((file_key, text)),
            Err(error) => {
                let way_out = "name a file that the server's user may read";
                self.problem(
                    file_key,
                    format!("= {path:?} cannot be read ({error}): {way_out}"),
                );
                None
            }
        }
    }

    /// Whether clients and API can have their ports at once.
    pub fn ports(&mut self, config: &Config) {
        let (listen, api) = (config.listen, config.api);
        let is_any = listen.ip().is_unspecified() || api.ip().is_unspecified();
        if listen.port() == api.port() && listen.port() != 0 && (is_any || listen.ip() == api.ip())
        {
            // Named by whoever set one of them.
            let key = match self.layers.origin("api") {
                Layer::Default => "listen",
                _ => "api",
            };
            let sentence =
                format!("makes clients ({listen}) and the API ({api}) share a port: change one");
            self.problem(key, sentence);
        }
    }
}
