//! Who is in which group: neighbours, as many in each.

use std::ops::Range;

/// Groups of one size, numbered in the order of their members.
#[derive(Clone, Debug)]
pub struct Groups {
    /// Beginning of their ids.
    pub prefix: String,
    pub size: u32,
}

impl Groups {
    pub fn id(&self, number: u32) -> String {
        format!("{}{number:08}", self.prefix)
    }

    /// The group that this client is in.
    pub fn of(&self, index: u32) -> u32 {
        index / self.size.max(1)
    }

    pub fn members(&self, number: u32) -> Range<u32> {
        let first = number * self.size;
        first..first + self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_a_member_of_its_group() {
        let groups = Groups {
            prefix: "g-".to_owned(),
            size: 3,
        };
        assert!((0..12).all(|index| groups.members(groups.of(index)).contains(&index)));
        assert_eq!(groups.id(2), "g-00000002");
    }
}
