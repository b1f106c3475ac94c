//! Lines of a log that are let through now and then: each kind once in a while, with the number
//! of those that were not.

use super::time::Tick;

/// Seconds between two lines of one kind.
const EVERY_SECS: u32 = 10;

/// A gate for `N` kinds of lines.
pub struct Gate<const N: usize> {
    last: [Option<Tick>; N],
    withheld: [u64; N],
}

impl<const N: usize> Default for Gate<N> {
    fn default() -> Gate<N> {
        Gate {
            last: [None; N],
            withheld: [0; N],
        }
    }
}

impl<const N: usize> Gate<N> {
    /// How many of this kind (`< N`) were withheld since the last one, if this one may pass.
    pub fn pass(&mut self, kind: usize, now: Tick) -> Option<u64> {
        if self.last[kind].is_some_and(|last| now < last.plus_secs(EVERY_SECS)) {
            self.withheld[kind] += 1;
            return None;
        }
        self.last[kind] = Some(now);
        Some(std::mem::take(&mut self.withheld[kind]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_passes_in_ten_seconds_and_tells_of_the_others() {
        let mut gate = Gate::<2>::default();
        assert_eq!(gate.pass(0, Tick(5)), Some(0));
        assert_eq!(gate.pass(0, Tick(6)), None);
        assert_eq!(gate.pass(1, Tick(6)), Some(0));
        assert_eq!(gate.pass(0, Tick(105)), None);
        assert_eq!(gate.pass(0, Tick(106)), Some(2));
        assert_eq!(gate.pass(0, Tick(107)), None);
    }
}
