//! Small things that keep the books small: numbers for names, sets of seats, sets of places.

use std::collections::HashMap;

/// Each name once, and a number for it.
#[derive(Default)]
pub struct Names {
    numbers: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

impl Names {
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.names.len() as u32;
        self.numbers.insert(name.into(), number);
        self.names.push(name.into());
        number
    }

    pub fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub fn name(&self, number: u32) -> &str {
        &self.names[number as usize]
    }
}

/// A set of small numbers. Up to 64 of them cost no allocation.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    low: u64,
    high: Vec<u64>,
}

impl Bits {
    /// True if it was not in the set.
    pub fn set(&mut self, at: u32) -> bool {
        let bit = 1 << (at % 64);
        let word = match (at / 64) as usize {
            0 => &mut self.low,
            word => {
                if self.high.len() < word {
                    self.high.resize(word, 0);
                }
                &mut self.high[word - 1]
            }
        };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    pub fn has(&self, at: u32) -> bool {
        let word = match (at / 64) as usize {
            0 => self.low,
            word => self.high.get(word - 1).copied().unwrap_or(0),
        };
        word & 1 << (at % 64) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.low == 0 && self.high.iter().all(|word| *word == 0)
    }
}

/// A set of numbers that come almost in order: its size is that of its gaps.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// True if it was not in the set.
    pub fn insert(&mut self, n: u64) -> bool {
        let at = self.0.partition_point(|&(first, _)| first <= n);
        let before = at.checked_sub(1);
        if before.is_some_and(|before| self.0[before].1 >= n) {
            return false;
        }
        let joins_before = before.filter(|&before| self.0[before].1 + 1 == n);
        let joins_next = self.0.get(at).is_some_and(|&(first, _)| first == n + 1);
        match (joins_before, joins_next) {
            (Some(before), true) => {
                self.0[before].1 = self.0[at].1;
                self.0.remove(at);
            }
            (Some(before), false) => self.0[before].1 = n,
            (None, true) => self.0[at].0 = n,
            (None, false) => self.0.insert(at, (n, n)),
        }
        true
    }

    /// Puts all of `from..until` into the set.
    pub fn fill(&mut self, from: u64, until: u64) {
        if from >= until {
            return;
        }
        // What touches it becomes a part of it.
        let begin = self.0.partition_point(|&(_, last)| last + 1 < from);
        let end = self.0.partition_point(|&(first, _)| first <= until);
        let touched = &self.0[begin..end];
        let first = touched.first().map_or(from, |range| range.0.min(from));
        let last = touched
            .last()
            .map_or(until - 1, |range| range.1.max(until - 1));
        self.0.splice(begin..end, [(first, last)]);
    }

    /// How many of `from..until` are not in the set, and the first of them.
    pub fn missing(&self, from: u64, until: u64) -> (u64, u64) {
        let (mut next, mut count, mut first) = (from, 0, until);
        let begin = self.0.partition_point(|&(_, last)| last < from);
        for &(begin, end) in &self.0[begin..] {
            if next >= until {
                break;
            }
            let upto = begin.min(until);
            if upto > next {
                first = first.min(next);
                count += upto - next;
            }
            next = next.max(end + 1);
        }
        if until > next {
            first = first.min(next);
            count += until - next;
        }
        (count, first)
    }

    pub fn max(&self) -> Option<u64> {
        self.0.last().map(|&(_, last)| last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_know_what_is_missing_in_whatever_order_numbers_come() {
        let mut ranges = Ranges::default();
        for n in [5, 7, 6, 1, 2, 9] {
            assert!(ranges.insert(n));
            assert!(!ranges.insert(n));
        }
        assert_eq!(ranges.0, [(1, 2), (5, 7), (9, 9)]);
        assert_eq!(ranges.missing(1, 10), (3, 3));
        assert_eq!(ranges.missing(5, 8), (0, 8));
        assert_eq!(ranges.missing(6, 12), (3, 8));
        assert_eq!(ranges.missing(10, 12), (2, 10));
        assert_eq!(ranges.max(), Some(9));
    }

    #[test]
    fn ranges_are_filled_and_joined_with_what_they_touch() {
        for (from, until, expected) in [
            (3, 3, &[(1, 2), (5, 7), (9, 9)][..]),
            (3, 5, &[(1, 7), (9, 9)]),
            (6, 9, &[(1, 2), (5, 9)]),
            (12, 14, &[(1, 2), (5, 7), (9, 9), (12, 13)]),
            (0, 20, &[(0, 19)]),
        ] {
            let mut ranges = Ranges(vec![(1, 2), (5, 7), (9, 9)]);
            ranges.fill(from, until);
            assert_eq!(ranges.0, expected, "{from}..{until}");
        }
    }

    #[test]
    fn bits_beyond_the_first_word_are_kept_too() {
        let mut bits = Bits::default();
        assert!(bits.is_empty());
        assert!(bits.set(200) && bits.set(3) && !bits.set(200));
        assert!(bits.has(200) && bits.has(3) && !bits.has(64) && !bits.has(1000));
    }
}
