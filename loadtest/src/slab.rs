//! The kernel's memory for connections, as far as its slab allocator tells (/proc/slabinfo, which
//! only root may read).
//!
//! Owns: which caches grow with connections. There is no list of names: kernels merge caches of
//! one size under one name, so what grows is what counts.

use std::collections::BTreeMap;

/// Fewer connections than that are lost in what else happens on a host.
const CONNECTIONS_MIN: u64 = 1000;
const PAGE_BYTES: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cache {
    objects: u64,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slab(BTreeMap<String, Cache>);

impl Slab {
    pub fn read() -> Option<Slab> {
        let text = std::fs::read_to_string("/proc/slabinfo").ok()?;
        Some(Slab::parse(&text))
    }

    /// Lines of name, active and all objects, bytes of one, objects and pages of a slab, …, and
    /// at the end active slabs, all slabs, and a number.
    fn parse(text: &str) -> Slab {
        let cache = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
            let slabs = number(fields.len().checked_sub(2)?)?;
            let cache = Cache {
                objects: number(1)?,
                bytes: slabs * number(5)? * PAGE_BYTES,
            };
            (cache.bytes > 0).then(|| (fields[0].to_owned(), cache))
        };
        Slab(text.lines().filter_map(cache).collect())
    }

    /// By how many bytes those caches have grown that keep something for each connection, or for
    /// each second one at least. None where there are too few connections to tell.
    pub fn growth(&self, now: &Slab, connections: u64) -> Option<BTreeMap<String, u64>> {
        if connections < CONNECTIONS_MIN {
            return None;
        }
        let grown = |(name, cache): (&String, &Cache)| {
            let none = Cache {
                objects: 0,
                bytes: 0,
            };
            let before = self.0.get(name).unwrap_or(&none);
            let objects = cache.objects.saturating_sub(before.objects);
            let bytes = cache.bytes.saturating_sub(before.bytes);
            (objects >= connections / 2 && bytes > 0).then(|| (name.clone(), bytes))
        };
        Some(now.0.iter().filter_map(grown).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_that_grow_with_the_connections_are_counted_whatever_their_name() {
        let text = |sockets: u64, inodes: u64| {
            format!(
                "slabinfo - version: 2.1\n\
                 # name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab>\n\
                 TCP {sockets} {sockets} 2304 14 8 : tunables 0 0 0 : slabdata {0} {0} 0\n\
                 ext4_inode_cache {inodes} {inodes} 1128 14 4 : tunables 0 0 0 : slabdata {1} {1} 0\n",
                sockets / 14,
                inodes / 14,
            )
        };
        let before = Slab::parse(&text(0, 14_000));
        let after = Slab::parse(&text(2800, 14_140));
        let grown = before.growth(&after, 1400).unwrap();
        assert_eq!(grown, [("TCP".to_owned(), 200 * 8 * 4096)].into());
        assert_eq!(before.growth(&after, 999), None);
    }
}
