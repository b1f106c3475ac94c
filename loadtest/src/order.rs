//! What one client has heard of messages whose numbers have no gaps: which one is new, which came
//! again, and which came after a later one. Pure.
//!
//! Owns: the last number heard, and which of the 32 before it were heard. What is older than
//! these and comes now counts as heard before.

/// Sits in every client, so it is small: a bit for each number before the last one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Order {
    last: u32,
    before: u32,
}

/// What a number is to the client that hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Later than all before.
    Next,
    /// For the first time, and after a later one.
    Late,
    Again,
}

impl Order {
    pub fn last(&self) -> u32 {
        self.last
    }

    pub fn hear(&mut self, number: u32) -> Turn {
        if number > self.last {
            let all = self.before << 1 | u32::from(self.last > 0);
            let skipped = number - self.last - 1;
            self.before = all.checked_shl(skipped).unwrap_or(0);
            self.last = number;
            return Turn::Next;
        }
        let Some(back) = (self.last - number).checked_sub(1) else {
            return Turn::Again;
        };
        let bit = 1_u32.checked_shl(back).unwrap_or(0);
        if bit == 0 || self.before & bit != 0 {
            return Turn::Again;
        }
        self.before |= bit;
        Turn::Late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_new_once_and_late_after_a_greater_one() {
        let mut order = Order::default();
        let turns = [1, 2, 2, 5, 3, 3, 4, 1, 6].map(|number| order.hear(number));
        use Turn::{Again, Late, Next};
        assert_eq!(
            turns,
            [Next, Next, Again, Next, Late, Again, Late, Again, Next]
        );
        assert_eq!(order.last(), 6);
    }

    #[test]
    fn it_remembers_the_32_numbers_before_the_last_one() {
        let mut order = Order::default();
        order.hear(1);
        order.hear(34);
        assert_eq!(order.hear(2), Turn::Late);
        assert_eq!(order.hear(1), Turn::Again);
        order.hear(1000);
        assert_eq!(
            (order.hear(968), order.hear(967)),
            (Turn::Late, Turn::Again)
        );
        order.hear(1001);
        assert_eq!(order.hear(1000), Turn::Again);
    }
}
