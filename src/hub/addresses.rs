//! What each client address has on this node: connections, strangers among them, and newcomers
//! lately. Shared by all reactors, and asked only where a limit by address is on.
//!
//! Owns: address → counts and a meter, in shards by the hash of the address, each behind a short
//! lock that is taken when a connection comes, becomes known, and goes.
//! Invariants: whoever was let in is counted until it leaves; who was turned away has left
//! nothing but a newcomer on the meter; an entry counts something or has a meter that drains.
//! Memory: a newcomer pays for a look at a few places of its shard's table, where what counts
//! nothing any more is cleared away. So the table is never gone through at once, and stays within
//! a small multiple of who is here and who came in the last two seconds.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::roster::unpoisoned;
use crate::parts::time::{TICKS_PER_SEC, Tick};
use crate::protocol::limits::{Limit, Limits};

const SHARDS: usize = 64;
/// Places of a table that a newcomer looks at.
const LOOKS: usize = 4;
/// A table with fewer places stays as it is; a larger one is made smaller when only one in so
/// many of its places is used.
const SMALL: usize = 64;
const SPARSE: usize = 8;

#[derive(Default)]
pub struct Addresses {
    /// Of the better quality: neighbours in a network differ by a bit, and must not share shards.
    hasher: RandomState,
    shards: Shards,
}

struct Shards(Box<[Mutex<Shard>]>);

#[derive(Default)]
struct Shard {
    tallies: HashTable<Tally>,
    /// The next place of the table to look at.
    cursor: usize,
}

/// What counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    V4(u32),
    /// The first half, which is what one household or machine is given.
    V6(u64),
}

struct Tally {
    place: Place,
    connections: u32,
    strangers: u32,
    /// Newcomers that have not drained away; two seconds' worth at most.
    newcomers: u32,
    /// Up to when they have drained.
    at: Tick,
}

impl Default for Shards {
    fn default() -> Shards {
        Shards((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Addresses {
    /// Counts a newcomer, who is a stranger, or tells which limit is against it.
    pub fn enter(&self, ip: IpAddr, now: Tick, limits: &Limits) -> Result<(), Limit> {
        let place = Place::of(ip);
        let rehash = |tally: &Tally| self.hasher.hash_one(tally.place);
        let hash = self.hasher.hash_one(place);
        let mut shard = self.shard(hash);
        shard.clear_away(now, limits, rehash);
        let tally = shard
            .tallies
            .entry(hash, |tally| tally.place == place, rehash)
            .or_insert_with(|| Tally::new(place, now));
        tally.into_mut().enter(now, limits)
    }

    /// One who was let in has said who it is.
    pub fn known(&self, ip: IpAddr) {
        let place = Place::of(ip);
        let hash = self.hasher.hash_one(place);
        let mut shard = self.shard(hash);
        if let Some(tally) = shard.tallies.find_mut(hash, |tally| tally.place == place) {
            tally.strangers = tally.strangers.saturating_sub(1);
        }
    }

    /// One who was let in goes.
    pub fn leave(&self, ip: IpAddr, was_stranger: bool) {
        let place = Place::of(ip);
        let hash = self.hasher.hash_one(place);
        let mut shard = self.shard(hash);
        let found = shard.tallies.find_entry(hash, |tally| tally.place == place);
        let Ok(mut entry) = found else { return };
        let tally = entry.get_mut();
        tally.connections = tally.connections.saturating_sub(1);
        tally.strangers = tally.strangers.saturating_sub(u32::from(was_stranger));
        // What is still on the meter is cleared away by newcomers, who know the time.
        if tally.connections == 0 && tally.newcomers == 0 {
            entry.remove();
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table uses the top seven and the low bits of the hash: these are in between.
        unpoisoned(&self.shards.0[(hash >> 48) as usize % SHARDS])
    }
}

impl Shard {
    fn clear_away(&mut self, now: Tick, limits: &Limits, rehash: impl Fn(&Tally) -> u64) {
        for _ in 0..LOOKS.min(self.tallies.num_buckets()) {
            self.cursor = (self.cursor + 1) % self.tallies.num_buckets();
            if let Ok(mut entry) = self.tallies.get_bucket_entry(self.cursor)
                && entry.get_mut().is_nothing(now, limits)
            {
                entry.remove();
            }
        }
        let (places, used) = (self.tallies.num_buckets(), self.tallies.len());
        if places > SMALL && used < places / SPARSE {
            self.tallies.shrink_to(2 * used, rehash);
        }
    }
}

impl Place {
    fn of(ip: IpAddr) -> Place {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Place::V4(ip.to_bits()),
            IpAddr::V6(ip) => Place::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

impl Tally {
    fn new(place: Place, now: Tick) -> Tally {
        Tally {
            place,
            connections: 0,
            strangers: 0,
            newcomers: 0,
            at: now,
        }
    }

    fn enter(&mut self, now: Tick, limits: &Limits) -> Result<(), Limit> {
        let rate = limits.address_handshakes_per_sec;
        self.drain(now, rate);
        if rate != 0 {
            // One that is over the burst adds nothing, so who keeps knocking is let in in time.
            if self.newcomers >= rate.saturating_mul(2) {
                return Err(Limit::AddressHandshakes);
            }
            self.newcomers += 1;
        }
        if is_full(self.connections, limits.address_connections_max) {
            return Err(Limit::AddressConnections);
        }
        if is_full(self.strangers, limits.address_strangers_max) {
            return Err(Limit::AddressStrangers);
        }
        self.connections += 1;
        self.strangers += 1;
        Ok(())
    }

    /// Drains by whole seconds. A meter that is off is empty.
    fn drain(&mut self, now: Tick, rate: u32) {
        let secs = now.secs_since(self.at);
        self.at = self.at.plus_ticks(secs * TICKS_PER_SEC);
        self.newcomers = match rate {
            0 => 0,
            _ => self.newcomers.saturating_sub(rate.saturating_mul(secs)),
        };
    }

    fn is_nothing(&mut self, now: Tick, limits: &Limits) -> bool {
        self.drain(now, limits.address_handshakes_per_sec);
        self.connections == 0 && self.newcomers == 0
    }
}

/// Whether one more is too many; 0: any number may come.
fn is_full(count: u32, max: usize) -> bool {
    max != 0 && count as usize >= max
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: fn() -> Limits = || Limits {
        address_connections_max: 0,
        address_strangers_max: 0,
        address_handshakes_per_sec: 0,
        ..Limits::default()
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// One of many addresses.
    fn nth(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    impl Addresses {
        fn entries(&self) -> usize {
            let shards = self.shards.0.iter();
            shards.map(|shard| unpoisoned(shard).tallies.len()).sum()
        }

        fn places(&self) -> usize {
            let shards = self.shards.0.iter();
            shards
                .map(|shard| unpoisoned(shard).tallies.num_buckets())
                .sum()
        }
    }

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let limits = Limits {
            address_connections_max: 3,
            ..OFF()
        };
        let addresses = Addresses::default();
        let enter = |from: &str| addresses.enter(ip(from), Tick(1), &limits);
        for _ in 0..3 {
            assert_eq!(enter("192.0.2.7"), Ok(()));
            addresses.known(ip("192.0.2.7"));
        }
        assert_eq!(enter("192.0.2.7"), Err(Limit::AddressConnections));
        assert_eq!(enter("192.0.2.7"), Err(Limit::AddressConnections));
        assert_eq!(enter("192.0.2.8"), Ok(()), "another address");
        addresses.leave(ip("192.0.2.7"), false);
        assert_eq!(enter("192.0.2.7"), Ok(()), "a place was given back");
        assert_eq!(enter("192.0.2.7"), Err(Limit::AddressConnections));
    }

    #[test]
    fn an_address_has_so_many_strangers_and_no_more() {
        let limits = Limits {
            address_strangers_max: 3,
            ..OFF()
        };
        let addresses = Addresses::default();
        let from = ip("192.0.2.7");
        let enter = || addresses.enter(from, Tick(1), &limits);
        assert!((0..3).all(|_| enter() == Ok(())));
        assert_eq!(enter(), Err(Limit::AddressStrangers));
        addresses.known(from);
        assert_eq!(enter(), Ok(()), "one is known by now");
        assert_eq!(enter(), Err(Limit::AddressStrangers));
        addresses.leave(from, false);
        assert_eq!(
            enter(),
            Err(Limit::AddressStrangers),
            "it was the known one"
        );
        addresses.leave(from, true);
        assert_eq!(enter(), Ok(()));
        assert_eq!(enter(), Err(Limit::AddressStrangers));
    }

    #[test]
    fn an_address_has_so_many_newcomers_a_second_and_twice_that_at_once() {
        let limits = Limits {
            address_handshakes_per_sec: 2,
            ..OFF()
        };
        let addresses = Addresses::default();
        let come = |tick| {
            let answer = addresses.enter(ip("192.0.2.7"), Tick(tick), &limits);
            if answer.is_ok() {
                addresses.leave(ip("192.0.2.7"), true);
            }
            answer.is_ok()
        };
        assert_eq!([101; 5].map(come), [true, true, true, true, false]);
        assert!((101..111).all(|tick| !come(tick)), "less than a second");
        assert_eq!([111, 112, 113].map(come), [true, true, false]);
        assert_eq!([121, 122, 123].map(come), [true, true, false]);
        assert_eq!([900; 5].map(come), [true, true, true, true, false]);
        assert!(
            !come(0),
            "another reactor's clock may be behind by a moment"
        );
    }

    #[test]
    fn who_is_turned_away_leaves_nothing_but_a_newcomer() {
        let limits = Limits {
            address_connections_max: 2,
            address_strangers_max: 1,
            address_handshakes_per_sec: 3,
            ..OFF()
        };
        let addresses = Addresses::default();
        let from = ip("192.0.2.7");
        let enter = |tick| addresses.enter(from, Tick(tick), &limits);
        assert_eq!(enter(0), Ok(()));
        assert_eq!(enter(0), Err(Limit::AddressStrangers));
        addresses.known(from);
        assert_eq!(enter(0), Ok(()), "it was no connection");
        assert_eq!(enter(0), Err(Limit::AddressConnections));
        addresses.leave(from, true);
        assert_eq!(enter(0), Ok(()), "it was no stranger");
        addresses.leave(from, true);
        assert_eq!(enter(0), Ok(()));
        assert_eq!(enter(0), Err(Limit::AddressHandshakes), "the seventh");
        addresses.leave(from, true);
        addresses.leave(from, false);
        assert_eq!(enter(10), Ok(()));
        addresses.leave(from, true);
        assert_eq!(addresses.enter(from, Tick(10), &OFF()), Ok(()));
        addresses.leave(from, true);
        assert_eq!(addresses.entries(), 0);
    }

    #[test]
    fn a_limit_of_zero_is_off() {
        let addresses = Addresses::default();
        let from = ip("192.0.2.7");
        assert!((0..10_000).all(|_| addresses.enter(from, Tick(0), &OFF()).is_ok()));
        assert_eq!(addresses.entries(), 1);
        (0..10_000).for_each(|_| addresses.leave(from, true));
        assert_eq!(addresses.entries(), 0);
    }

    #[test]
    fn half_of_an_ipv6_address_counts_and_a_mapped_one_is_ipv4() {
        let limits = Limits {
            address_connections_max: 1,
            ..OFF()
        };
        let addresses = Addresses::default();
        let enter = |from: &str| addresses.enter(ip(from), Tick(0), &limits).is_ok();
        assert!(enter("2001:db8:0:1::7") && !enter("2001:db8:0:1:ffff::8"));
        assert!(enter("2001:db8:0:2::7"));
        assert!(enter("192.0.2.7") && !enter("::ffff:192.0.2.7"));
        assert!(enter("::ffff:192.0.2.8") && !enter("192.0.2.8"));
        assert!(enter("::1") && enter("0.0.0.0") && enter("0.0.0.1"));
        addresses.leave(ip("2001:db8:0:1:ffff::8"), true);
        assert!(enter("2001:db8:0:1::9"));
        addresses.leave(ip("::ffff:192.0.2.7"), true);
        assert!(enter("192.0.2.7"));
    }

    #[test]
    fn who_was_never_let_in_takes_nobody_elses_place() {
        let limits = Limits {
            address_connections_max: 1,
            ..OFF()
        };
        let addresses = Addresses::default();
        addresses.known(ip("192.0.2.7"));
        addresses.leave(ip("192.0.2.7"), true);
        assert!(addresses.enter(ip("192.0.2.7"), Tick(0), &limits).is_ok());
        assert!(addresses.enter(ip("192.0.2.7"), Tick(0), &limits).is_err());
    }

    #[test]
    fn meters_of_those_who_left_are_cleared_away_as_others_come() {
        const PER_TICK: u32 = 200;
        let limits = Limits {
            address_handshakes_per_sec: 1,
            ..OFF()
        };
        let addresses = Addresses::default();
        let mut most = 0;
        for n in 0..200_000 {
            addresses
                .enter(nth(n), Tick(n / PER_TICK), &limits)
                .unwrap();
            addresses.leave(nth(n), true);
            most = most.max(addresses.entries());
        }
        // Those of one second have not drained.
        let fresh = (PER_TICK * TICKS_PER_SEC) as usize;
        assert!((fresh..4 * fresh).contains(&most), "{most}");
    }

    #[test]
    fn tables_shrink_after_a_crowd_has_gone() {
        let limits = Limits {
            address_handshakes_per_sec: 1,
            ..OFF()
        };
        let addresses = Addresses::default();
        for n in 0..50_000 {
            addresses.enter(nth(n), Tick(0), &limits).unwrap();
        }
        assert_eq!(addresses.entries(), 50_000);
        (0..50_000).for_each(|n| addresses.leave(nth(n), true));
        // So many that every shard is visited, and often enough.
        for n in 0..80_000 {
            let from = nth(n % 5_000);
            addresses.enter(from, Tick(100), &limits).unwrap();
            addresses.leave(from, true);
            assert!(addresses.enter(from, Tick(100), &OFF()).is_ok());
            addresses.leave(from, true);
        }
        assert_eq!(addresses.entries(), 0);
        assert!(addresses.places() <= SHARDS * SMALL);
    }

    #[test]
    fn counts_are_right_after_any_coming_and_going() {
        let limits = Limits {
            address_connections_max: 3,
            address_strangers_max: 2,
            ..OFF()
        };
        let addresses = Addresses::default();
        let mut here: Vec<Vec<bool>> = vec![Vec::new(); 50];
        let mut seed = 1_u32;
        for _ in 0..50_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let who = (seed >> 8) as usize % here.len();
            let from = nth(who as u32);
            let those = &mut here[who];
            match seed >> 30 {
                0 | 1 => {
                    let strangers = those.iter().filter(|&&is_stranger| is_stranger).count();
                    let expected = match (those.len(), strangers) {
                        (3.., _) => Err(Limit::AddressConnections),
                        (_, 2..) => Err(Limit::AddressStrangers),
                        _ => Ok(()),
                    };
                    assert_eq!(addresses.enter(from, Tick(0), &limits), expected);
                    those.extend(expected.is_ok().then_some(true));
                }
                2 => {
                    if let Some(is_stranger) = those.iter_mut().find(|is_stranger| **is_stranger) {
                        *is_stranger = false;
                        addresses.known(from);
                    }
                }
                _ => {
                    if let Some(was_stranger) = those.pop() {
                        addresses.leave(from, was_stranger);
                    }
                }
            }
        }
        let occupied = here.iter().filter(|those| !those.is_empty()).count();
        assert_eq!(addresses.entries(), occupied);
    }
}
