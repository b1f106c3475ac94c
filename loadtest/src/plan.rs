//! Who connects, where to, from where, and how fast.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use throng::protocol::b64::B64URL;
use throng::protocol::identity::{Identity, is_id};
use throng::session::auth::TokenKeys;

use crate::chats::Chats;
use crate::dialect::Dialect;
use crate::groups::Groups;
use crate::message;
use crate::pairs::Pairs;
use crate::pulse::Pulse;
use crate::target::{Target, Targets};

/// Characters of a made user id.
pub const UID_CHARS: usize = 32;
/// A made token is good for a day: longer than any test.
const TOKEN_TTL_SECS: u64 = 24 * 3600;
/// Of the local ports of one address, this share is used. The kernel gives out the even or the
/// odd ones first; when that half is used up, each further connection costs it a long search.
const PORT_SHARE: f64 = 0.4;
/// Descriptors of a worker that are no connections: streams, poll, bell.
const OTHER_DESCRIPTORS: usize = 64;

/// How a client says who it is.
pub enum Who {
    /// Tokens for made ids, signed with the server's secret.
    Signed { keys: TokenKeys, expires_ms: u64 },
    /// Given tokens; client i uses number i, from the beginning again where there are too few.
    Tokens(Vec<Given>),
    /// Nothing but the id (`none` mode).
    Openid,
}

pub struct Given {
    uid: String,
    token: String,
}

impl Who {
    /// Signs with `secret`, the text of a token secret file.
    pub fn signed(secret: &str) -> Result<Who, PlanError> {
        let keys = TokenKeys::parse(secret).map_err(|e| PlanError::Secret(e.to_string()))?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Ok(Who::Signed {
            keys,
            expires_ms: (now + TOKEN_TTL_SECS) * 1000,
        })
    }

    /// One token a line.
    pub fn tokens(text: &str) -> Result<Who, PlanError> {
        let mut tokens = Vec::new();
        for (number, token) in text.lines().map(str::trim).enumerate() {
            if token.is_empty() {
                continue;
            }
            let uid = token_uid(token).ok_or(PlanError::Token { line: number + 1 })?;
            tokens.push(Given {
                uid,
                token: token.to_owned(),
            });
        }
        if tokens.is_empty() {
            Err(PlanError::NoTokens)
        } else {
            Ok(Who::Tokens(tokens))
        }
    }
}

/// The user id that a token is for, unverified.
fn token_uid(token: &str) -> Option<String> {
    let text = B64URL.decode(token.split_once('.')?.0).ok()?;
    let uid = std::str::from_utf8(&text).ok()?.split(':').next()?;
    is_id(uid).then(|| uid.to_owned())
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{0} is not a ws:// URL: ws://HOST:PORT/PATH is needed (TLS is not spoken here)")]
    Url(String),
    #[error("no URL to connect to")]
    NoTarget,
    #[error("cannot find the address of {host}: {source}")]
    Address { host: String, source: io::Error },
    #[error("{0}")]
    Secret(String),
    #[error("line {line} is not a token")]
    Token { line: usize },
    #[error("no token in the token file")]
    NoTokens,
    #[error("the user prefix must be at most 22 of [A-Za-z0-9_.@-]")]
    Prefix,
}

pub struct Plan {
    pub targets: Targets,
    who: Who,
    prefix: String,
    /// Clients that there will be at most.
    pub clients: usize,
    /// Of those, so many talk to each other, where they talk at all.
    pub talkers: usize,
    /// Those who talk to each other begin at different URLs.
    pub keeps_apart: bool,
    pub threads: usize,
    /// Local addresses to connect from, taken in turn; none leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// New connections a second; none is as fast as they are answered.
    pub rate: Option<f64>,
    /// Handshakes under way at once, in all threads.
    pub window: usize,
    /// For one connection to be registered.
    pub handshake_patience: Duration,
    /// Clients that have lost their connection come back, as good ones do.
    pub comes_back: bool,
    /// Clients that a node sends away before they are registered, and tells when or where to come
    /// back, do so a few times.
    pub follows_hints: bool,
    /// This share of the clients is slow: they have small buffers, and do not read while a series
    /// of pushes says so.
    pub slow_share: f64,
    /// Those who chat do so in these groups, and not in pairs.
    pub groups: Option<Groups>,
    /// The clients are those of an inbox: they acknowledge, and come back where they were.
    pub chats: Option<Arc<Chats>>,
    /// Where the threads tell how they are doing.
    pub pulse: Arc<Pulse>,
    pub dialect: Dialect,
}

impl Plan {
    /// `clients` that connect to `url`, on as many threads and from as many loopback addresses
    /// as this host's limits ask for. The fields may be changed before the crowd is gathered.
    pub fn new(url: &str, who: Who, prefix: &str, clients: usize) -> Result<Plan, PlanError> {
        Plan::over(&[url], who, prefix, clients)
    }

    /// The same, spread evenly over several URLs.
    pub fn over<S: AsRef<str>>(
        urls: &[S],
        who: Who,
        prefix: &str,
        clients: usize,
    ) -> Result<Plan, PlanError> {
        let targets = Targets::new(urls)?;
        if prefix.len() > 22 || !(prefix.is_empty() || is_id(prefix)) {
            return Err(PlanError::Prefix);
        }
        let limit = throng::sys::raise_descriptor_limit().unwrap_or(1024) as usize;
        let per_thread = limit.saturating_sub(OTHER_DESCRIPTORS).max(1);
        Ok(Plan {
            sources: loopback_sources(targets.get(0).address, clients),
            targets,
            who,
            prefix: prefix.to_owned(),
            clients,
            talkers: clients,
            keeps_apart: false,
            threads: clients.div_ceil(per_thread).max(1),
            rate: None,
            window: 128,
            handshake_patience: Duration::from_secs(20),
            comes_back: false,
            follows_hints: false,
            slow_share: 0.0,
            groups: None,
            chats: None,
            pulse: Arc::default(),
            dialect: Dialect::default(),
        })
    }

    /// Appends the id of client `index`.
    pub fn write_uid(&self, index: u32, out: &mut String) {
        use std::fmt::Write as _;
        match &self.who {
            Who::Tokens(tokens) => out.push_str(&tokens[index as usize % tokens.len()].uid),
            _ => {
                let width = UID_CHARS - self.prefix.len();
                let _ = write!(out, "{}{index:0width$}", self.prefix);
            }
        }
    }

    pub fn uid(&self, index: u32) -> String {
        let mut uid = String::with_capacity(64);
        self.write_uid(index, &mut uid);
        uid
    }

    /// `more` goes into the query, with an ampersand before it.
    pub(crate) fn write_upgrade(&self, target: &Target, index: u32, more: &str, out: &mut String) {
        let uid = self.uid(index);
        let mut query = match &self.who {
            Who::Signed { keys, expires_ms } => match Identity::new(&uid, "") {
                Ok(identity) => format!("token={}", keys.sign(&identity, *expires_ms, &[])),
                Err(_) => String::new(),
            },
            Who::Tokens(tokens) => format!("token={}", tokens[index as usize % tokens.len()].token),
            Who::Openid => format!("openid={uid}"),
        };
        query.push_str(more);
        if self.dialect == Dialect::Nchan {
            query.push_str("&to=");
            self.write_uid(self.partner(index), &mut query);
        }
        message::write_upgrade(out, &target.host, &target.path, &query);
    }

    pub(crate) fn write_register(&self, index: u32, out: &mut String) {
        let uid = self.uid(index);
        self.dialect
            .register(out, |out| message::write_register(out, &uid));
    }

    pub fn pairs(&self) -> Pairs {
        Pairs {
            clients: self.clients as u32,
            talkers: self.talkers.min(self.clients) as u32,
            targets: self.targets.given(),
            are_apart: self.keeps_apart,
        }
    }

    /// Whom client `index` talks to.
    pub fn partner(&self, index: u32) -> u32 {
        self.pairs().partner(index)
    }

    /// True for those clients that read slowly; they are spread evenly.
    pub fn is_slow(&self, index: u32) -> bool {
        let before = |index: u32| (f64::from(index) * self.slow_share) as u64;
        before(index + 1) > before(index)
    }

    /// Clients of thread `worker`: this range of indices.
    pub(crate) fn share(&self, worker: usize) -> std::ops::Range<u32> {
        let part = |n: usize| (self.clients * n / self.threads) as u32;
        part(worker)..part(worker + 1)
    }

    /// Where client `index` connects from, if that matters. From loopback one gets nowhere else.
    pub(crate) fn source(&self, index: u32, target: SocketAddr) -> Option<IpAddr> {
        let count = self.sources.len();
        let source = (count > 0).then(|| self.sources[index as usize % count])?;
        let gets_there = source.is_ipv4() == target.is_ipv4()
            && (target.ip().is_loopback() || !source.is_loopback());
        gets_there.then_some(source)
    }
}

/// One address has ports for so many connections to one destination, and the loopback network
/// has 16 million addresses. Those of a crowd are its own by the port that it connects to:
/// a port that is bound on an address is taken there, whatever the destination.
fn loopback_sources(target: SocketAddr, clients: usize) -> Vec<IpAddr> {
    let per_address = (local_ports() as f64 * PORT_SHARE) as usize;
    if !target.ip().is_loopback() || !target.is_ipv4() || clients <= per_address {
        return Vec::new();
    }
    let [high, low] = target.port().to_be_bytes();
    let first = u32::from(Ipv4Addr::new(127, high, low, 1));
    let count = clients.div_ceil(per_address.max(1)) as u32;
    (first..first + count)
        .map(|bits| IpAddr::V4(Ipv4Addr::from(bits)))
        .collect()
}

/// Local ports that the kernel hands out.
pub fn local_ports() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = text.ok().and_then(|text| {
        let mut numbers = text.split_whitespace().map(str::parse::<usize>);
        Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
    });
    range.map_or(28_232, |range| range.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_ids_have_32_characters_and_their_tokens_are_good() {
        const SECRET: &str = "a secret that is long enough for this";
        let who = Who::signed(SECRET).unwrap();
        let plan = Plan::new("ws://127.0.0.1:8888/websocket?a=b", who, "load-", 10).unwrap();
        let (mut uid, mut request) = (String::new(), String::new());
        plan.write_uid(7, &mut uid);
        assert_eq!(
            (uid.len(), &uid[..5], &uid[24..]),
            (UID_CHARS, "load-", "00000007")
        );
        plan.write_upgrade(&plan.targets.get(0), 7, "", &mut request);
        assert!(request.starts_with("GET /websocket?a=b&token="));
        let token = request.split(['=', ' ']).nth(3).unwrap();
        assert_eq!(token_uid(token).unwrap(), uid);
        let claims = TokenKeys::parse(SECRET).unwrap().verify(token, 1).unwrap();
        assert_eq!(claims.identity.uid(), uid);
    }

    #[test]
    fn everybody_has_a_thread() {
        for clients in [1, 2, 3, 10] {
            let mut plan = Plan::new("ws://127.0.0.1:1/", Who::Openid, "", clients).unwrap();
            plan.threads = 3;
            let all: Vec<u32> = (0..3).flat_map(|worker| plan.share(worker)).collect();
            assert_eq!(all, (0..clients as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_connections_to_loopback_come_from_many_addresses() {
        let plan = |clients| Plan::new("ws://127.0.0.1:1/", Who::Openid, "", clients).unwrap();
        assert!(plan(1000).sources.is_empty());
        let plan = plan(100_000);
        assert!(plan.sources.len() >= 4);
        let source = |to: &str| plan.source(1, to.parse().unwrap());
        assert_eq!(source("127.0.0.1:2"), Some(plan.sources[1]));
        assert_eq!((source("192.0.2.1:2"), source("[::1]:2")), (None, None));
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        for url in ["wss://127.0.0.1/", "127.0.0.1:1", "ws://127.0.0.1:1/a b"] {
            assert!(Plan::new(url, Who::Openid, "", 1).is_err(), "{url}");
        }
        assert!(Plan::new("ws://127.0.0.1/", Who::Openid, "a b", 1).is_err());
        assert!(Who::tokens("\n").is_err() && Who::tokens("x.y").is_err());
    }
}
