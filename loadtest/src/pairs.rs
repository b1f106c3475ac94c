//! Who of the crowd talks, to whom, and where each client connects first.
//!
//! Those who talk are spread evenly among all, so that every thread has its part of them. Their
//! pairs are spread over the targets: as many stay within one as go from each to each other, or,
//! where that is wished for, none stay within one.

/// So many clients, talkers among them, and targets.
#[derive(Clone, Copy, Debug)]
pub struct Pairs {
    pub clients: u32,
    pub talkers: u32,
    pub targets: u32,
    /// Partners begin at different targets.
    pub are_apart: bool,
}

impl Pairs {
    /// Talkers among the clients before this one.
    pub fn talkers_before(&self, index: u32) -> u32 {
        let before = u64::from(index) * u64::from(self.talkers);
        (before / u64::from(self.clients.max(1))) as u32
    }

    pub fn talks(&self, index: u32) -> bool {
        self.talkers_before(index + 1) > self.talkers_before(index)
    }

    /// Whom this talker talks to: somebody far away, so that no cache holds both by chance.
    pub fn partner(&self, index: u32) -> u32 {
        let rank = self.talkers_before(index);
        self.talker((rank + self.half().max(1)) % self.talkers.max(1))
    }

    /// Number of the target to begin with.
    pub fn target(&self, index: u32) -> u32 {
        let rank = self.talkers_before(index);
        let targets = self.targets.max(1);
        if !self.talks(index) {
            return (index - rank + self.talkers) % targets;
        }
        let Some(pair) = rank.checked_sub(self.half()) else {
            return rank % targets;
        };
        if self.are_apart {
            return (pair + 1) % targets;
        }
        // One further with each round, so that pairs of all kinds come about. The last round may
        // be a part of one: it goes on where the first halves of the pairs have left off.
        let (round, rounds) = (pair / targets, (self.talkers - self.half()) / targets);
        let shift = if round < rounds {
            round + 1
        } else {
            self.half()
        };
        (pair + shift) % targets
    }

    fn half(&self) -> u32 {
        self.talkers / 2
    }

    fn talker(&self, rank: u32) -> u32 {
        let upto = (u64::from(rank) + 1) * u64::from(self.clients);
        (upto.div_ceil(u64::from(self.talkers.max(1))) - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn pairs(clients: u32, talkers: u32, targets: u32) -> Pairs {
        Pairs {
            clients,
            talkers,
            targets,
            are_apart: false,
        }
    }

    #[test]
    fn everybody_who_talks_has_a_partner_who_talks_back() {
        for (clients, talkers) in [(1, 1), (2, 2), (10, 10), (10, 4), (15_000, 998)] {
            let pairs = pairs(clients, talkers, 3);
            let those: Vec<u32> = (0..clients).filter(|index| pairs.talks(*index)).collect();
            assert_eq!(those.len() as u32, talkers);
            for index in those {
                let partner = pairs.partner(index);
                assert!(pairs.talks(partner) && pairs.partner(partner) == index);
                assert!(clients == 1 || partner != index);
            }
        }
    }

    #[test]
    fn where_all_talk_everybody_has_another_partner() {
        for clients in [3, 4, 11] {
            let pairs = pairs(clients, clients, 1);
            let mut partners: Vec<u32> = (0..clients).map(|index| pairs.partner(index)).collect();
            partners.sort_unstable();
            assert_eq!(partners, (0..clients).collect::<Vec<_>>());
        }
    }

    #[test]
    fn clients_are_spread_evenly_over_the_targets() {
        let crowds = [(15_000, 1000, 4), (600, 0, 3), (1000, 998, 7)];
        let small =
            (1..30).flat_map(|clients| (1..6).map(move |targets| (clients, clients, targets)));
        for (clients, talkers, targets) in crowds.into_iter().chain(small) {
            let pairs = pairs(clients, talkers, targets);
            let mut each = vec![0; targets as usize];
            (0..clients).for_each(|index| each[pairs.target(index) as usize] += 1);
            let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            assert!(most - least <= 1, "{each:?}");
        }
    }

    #[test]
    fn partners_may_be_kept_apart() {
        for targets in [2, 3] {
            let pairs = Pairs {
                are_apart: true,
                ..pairs(1000, 1000, targets)
            };
            let mut each = vec![0; targets as usize];
            for index in 0..1000 {
                let target = pairs.target(index);
                assert_ne!(target, pairs.target(pairs.partner(index)));
                each[target as usize] += 1;
            }
            let (least, most) = (each.iter().min().unwrap(), each.iter().max().unwrap());
            assert!(most - least <= 2, "{each:?}");
        }
    }

    #[test]
    fn pairs_are_spread_over_the_pairs_of_targets() {
        let pairs = pairs(1000, 1000, 3);
        let mut each: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for index in 0..500 {
            let both = (pairs.target(index), pairs.target(pairs.partner(index)));
            *each.entry(both).or_default() += 1;
        }
        assert_eq!(each.len(), 9);
        assert!(
            each.values().all(|count| (50..=60).contains(count)),
            "{each:?}"
        );
    }
}
