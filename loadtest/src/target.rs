//! Where clients connect to: the nodes that were named at the beginning, and those that a node
//! has sent somebody to.
//!
//! Owns: the list of them, which all threads share, and how many clients each has now.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::plan::PlanError;

/// Addresses that servers may teach: more than any cluster has, and few enough to keep.
const LEARNED_MAX: usize = 256;

#[derive(Debug)]
pub struct Target {
    pub url: String,
    pub address: SocketAddr,
    pub(crate) host: String,
    pub(crate) path: String,
    /// Registered and still there; counted where clients come back.
    pub open: AtomicU64,
    /// Registrations so far; counted there, too.
    pub registered: AtomicU64,
}

impl Target {
    pub fn parse(url: &str) -> Result<Target, PlanError> {
        let bad = || PlanError::Url(url.to_owned());
        let rest = url.strip_prefix("ws://").ok_or_else(bad)?;
        let (host, path) = match rest.find('/') {
            Some(at) => (&rest[..at], &rest[at..]),
            None => (rest, "/"),
        };
        if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        let has_port = |(_, port): (&str, &str)| port.parse::<u16>().is_ok();
        let with_port = if host.rsplit_once(':').is_some_and(has_port) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = |source| PlanError::Address {
            host: host.to_owned(),
            source,
        };
        let mut addresses = with_port.to_socket_addrs().map_err(address)?;
        Ok(Target {
            url: url.to_owned(),
            address: addresses.next().ok_or_else(bad)?,
            host: host.to_owned(),
            path: path.to_owned(),
            open: AtomicU64::new(0),
            registered: AtomicU64::new(0),
        })
    }
}

#[derive(Debug)]
pub struct Targets {
    given: u32,
    list: RwLock<List>,
}

#[derive(Debug)]
struct List {
    all: Vec<Arc<Target>>,
    /// What each spelling of an address means; nothing, where it cannot be connected to.
    spellings: HashMap<String, Option<u32>>,
}

impl Targets {
    pub fn new<S: AsRef<str>>(urls: &[S]) -> Result<Targets, PlanError> {
        let parsed = urls.iter().map(|url| Target::parse(url.as_ref()));
        let all = parsed
            .map(|target| target.map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(PlanError::NoTarget);
        }
        let spellings = HashMap::new();
        Ok(Targets {
            given: all.len() as u32,
            list: RwLock::new(List { all, spellings }),
        })
    }

    /// How many were named at the beginning; their numbers come first.
    pub fn given(&self) -> u32 {
        self.given
    }

    pub fn get(&self, number: u32) -> Arc<Target> {
        let list = self.list();
        let at = (number as usize).min(list.all.len() - 1);
        list.all[at].clone()
    }

    pub fn all(&self) -> Vec<Arc<Target>> {
        self.list().all.clone()
    }

    /// The number of this address, which may be a new one. None if nobody can go there.
    pub fn learn(&self, url: &str) -> Option<u32> {
        if let Some(known) = self.list().spellings.get(url) {
            return *known;
        }
        let parsed = Target::parse(url).ok();
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        if list.spellings.len() >= LEARNED_MAX {
            return None;
        }
        let number = parsed.map(|target| list.number(target));
        list.spellings.insert(url.to_owned(), number);
        number
    }

    /// One of those named at the beginning, another than this where there is one.
    pub fn another(&self, than: u32, draw: u32) -> u32 {
        let others = self.given - u32::from(than < self.given);
        if others == 0 {
            return than;
        }
        let number = draw % others;
        number + u32::from(number >= than)
    }

    fn list(&self) -> RwLockReadGuard<'_, List> {
        self.list.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn number(&mut self, target: Target) -> u32 {
        let same =
            |known: &Arc<Target>| known.address == target.address && known.path == target.path;
        let at = self.all.iter().position(same).unwrap_or_else(|| {
            self.all.push(Arc::new(target));
            self.all.len() - 1
        });
        at as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLS: [&str; 3] = [
        "ws://127.0.0.1:1/w",
        "ws://127.0.0.1:2/w",
        "ws://127.0.0.1:3/w",
    ];

    #[test]
    fn an_address_is_known_again_however_it_is_spelled() {
        let targets = Targets::new(&URLS).unwrap();
        assert_eq!(targets.learn("ws://127.0.0.1:0002/w"), Some(1));
        assert_eq!(targets.learn("ws://127.0.0.1:9/w"), Some(3));
        assert_eq!(targets.learn("ws://127.0.0.1:9/w"), Some(3));
        assert_eq!((targets.all().len(), targets.given()), (4, 3));
        assert_eq!(targets.get(3).url, "ws://127.0.0.1:9/w");
    }

    #[test]
    fn nobody_goes_where_nobody_can_and_a_flood_of_addresses_is_not_kept() {
        let targets = Targets::new(&URLS).unwrap();
        for url in ["wss://127.0.0.1:2/w", "", "ws://127.0.0.1:2/a b"] {
            assert_eq!(targets.learn(url), None, "{url}");
        }
        let learn = |port: u16| targets.learn(&format!("ws://127.0.0.1:{port}/w"));
        assert!((1000..2000).filter_map(learn).count() < LEARNED_MAX);
    }

    #[test]
    fn another_is_another_where_there_is_one() {
        let targets = Targets::new(&URLS).unwrap();
        let of = |than| {
            let mut all: Vec<u32> = (0..6).map(|draw| targets.another(than, draw)).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!((of(0), of(1), of(2)), (vec![1, 2], vec![0, 2], vec![0, 1]));
        assert_eq!(of(7), [0, 1, 2], "one that was learned");
        assert_eq!(Targets::new(&URLS[..1]).unwrap().another(0, 5), 0);
        assert!(Targets::new::<&str>(&[]).is_err());
    }
}
