//! When something was broken on purpose, so that nothing could be expected.
//!
//! Owns: the intervals of all faults, joined where they overlap. Its size is that of the faults.

#[derive(Default)]
pub struct Faults {
    /// Intervals that have ended, in order.
    past: Vec<(u64, u64)>,
    active: Vec<String>,
    since: u64,
}

impl Faults {
    pub fn start(&mut self, fault: &str, at: u64) {
        if self.active.is_empty() {
            self.since = at;
        }
        self.active.push(fault.to_owned());
    }

    /// False if there was no such fault.
    pub fn stop(&mut self, fault: &str, at: u64) -> bool {
        let Some(found) = self.active.iter().position(|active| active == fault) else {
            return false;
        };
        self.active.remove(found);
        if self.active.is_empty() {
            self.past.push((self.since, at));
        }
        true
    }

    pub fn heal(&mut self, at: u64) {
        if !self.active.is_empty() {
            self.active.clear();
            self.past.push((self.since, at));
        }
    }

    pub fn are_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The longest time within `from..to` without any fault.
    pub fn longest_quiet(&self, from: u64, to: u64) -> u64 {
        let (mut quiet_from, mut longest) = (from, 0);
        let begin = self.past.partition_point(|&(_, end)| end <= from);
        let running = self.are_active().then_some((self.since, u64::MAX));
        for (start, end) in self.past[begin..].iter().copied().chain(running) {
            if start >= to {
                break;
            }
            longest = longest.max(start.saturating_sub(quiet_from));
            quiet_from = quiet_from.max(end);
        }
        longest.max(to.saturating_sub(quiet_from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_times_lie_between_faults_that_may_overlap() {
        let mut faults = Faults::default();
        assert_eq!(faults.longest_quiet(10, 50), 40);
        faults.start("a", 20);
        faults.start("b", 25);
        assert!(faults.stop("a", 30) && !faults.stop("a", 30));
        faults.heal(40);
        assert_eq!(faults.longest_quiet(0, 100), 60);
        assert_eq!(faults.longest_quiet(0, 45), 20);
        assert_eq!(faults.longest_quiet(22, 38), 0);
        faults.start("c", 60);
        assert!(faults.are_active());
        assert_eq!(faults.longest_quiet(45, 200), 15);
    }
}
