//! What this host has room for: reactors, descriptors, and so connections.

use std::io;
use std::thread;

use super::Config;
use super::checks::Prover;
use crate::parts::key::Key;
use crate::sys;

/// Descriptors of each table that connections leave to everything else.
pub const DESCRIPTORS_KEPT: u64 = 256;

/// No node holds more.
pub const CONNECTIONS_MAX: usize = Key::REACTORS_MAX * Key::SLOTS_MAX;

/// What a number of reactors can hold here.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub reactors: usize,
    /// Each reactor has a descriptor table of its own.
    pub has_private_tables: bool,
    /// Descriptors that one table may have.
    pub nofile: u64,
}

impl Room {
    /// As the host allows it. The limit of descriptors is raised as far as it goes.
    pub fn of_this_host(reactors: Option<usize>) -> io::Result<Room> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Ok(Room {
            reactors: reactors.unwrap_or(cores).clamp(1, Key::REACTORS_MAX),
            has_private_tables: sys::way_to_private_file_tables().is_some(),
            nofile: sys::raise_descriptor_limit()?,
        })
    }

    pub fn tables(self) -> usize {
        if self.has_private_tables {
            self.reactors
        } else {
            1
        }
    }

    /// Connections that fit.
    pub fn fits(self) -> usize {
        self.of_a_table().saturating_mul(self.tables())
    }

    /// Connections at most where nobody says how many. The kernel spreads newcomers over the
    /// listeners by chance: this leaves room for a reactor that gets more than its share.
    pub fn usual(self) -> usize {
        self.fits() / 20 * 19
    }

    fn of_a_table(self) -> usize {
        let usable = self.nofile.saturating_sub(DESCRIPTORS_KEPT);
        usize::try_from(usable)
            .unwrap_or(usize::MAX)
            .min(Key::SLOTS_MAX)
    }

    /// Why `wanted` connections do not fit, to go on behind the key's name; none if they do.
    fn lack(self, wanted: usize) -> Option<String> {
        let fits = self.fits();
        if wanted <= fits {
            return None;
        }
        let Room {
            reactors, nofile, ..
        } = self;
        let start = format!("= {wanted} does not fit:");
        let needed = wanted.div_ceil(self.of_a_table().max(1));
        Some(if !self.has_private_tables {
            format!(
                "{start} this host does not let threads have file tables of their own, and \
                 {nofile} descriptors hold {fits}. Raise nofile (see sysctl/README.md)"
            )
        } else if needed > Key::REACTORS_MAX {
            format!(
                "{start} {reactors} reactors hold {fits} with {nofile} descriptors each. Raise \
                 nofile (see sysctl/README.md)"
            )
        } else {
            format!(
                "{start} {reactors} reactors hold {fits} with {nofile} descriptors each. Use \
                 --reactors {needed}, or raise nofile (see sysctl/README.md)"
            )
        })
    }
}

impl Prover {
    /// Whether this host can hold what was asked for.
    pub fn room(&mut self, config: &Config) {
        if self.layers.file.reactors != config.reactors {
            // Refused already: nobody can tell what would fit.
            return;
        }
        match Room::of_this_host(config.reactors) {
            Ok(room) => self.check_room(room, config.max_connections),
            Err(error) => {
                let sentence =
                    format!("the limit of descriptors cannot be read or raised: {error}");
                self.layers.problems.push(sentence);
            }
        }
    }

    fn check_room(&mut self, room: Room, wanted: Option<usize>) {
        let nofile = room.nofile;
        if nofile <= DESCRIPTORS_KEPT {
            let needed = DESCRIPTORS_KEPT + 1;
            self.layers.problems.push(format!(
                "{nofile} file descriptors are too few: at least {needed} are needed (see \
                 sysctl/README.md)"
            ));
        } else if let Some(sentence) = wanted.and_then(|wanted| room.lack(wanted)) {
            self.problem("max_connections", sentence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(reactors: usize, has_private_tables: bool, nofile: u64) -> Room {
        Room {
            reactors,
            has_private_tables,
            nofile,
        }
    }

    #[test]
    fn each_table_holds_what_it_may_less_what_is_kept() {
        assert_eq!(room(2, true, 20_000).fits(), 39_488);
        assert_eq!(room(2, true, 20_000).usual(), 37_506);
        assert_eq!(room(2, false, 20_000).fits(), 19_744);
        assert_eq!(room(2, true, 100).fits(), 0);
        assert_eq!(room(1, true, u64::MAX).fits(), Key::SLOTS_MAX);
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_would_help() {
        let two = room(2, true, 20_000);
        assert_eq!(two.lack(39_488), None);
        assert!(two.lack(39_489).unwrap().contains("Use --reactors 3,"));
        let far = two.lack(99_999_999).unwrap();
        assert!(!far.contains("--reactors"), "more than there can be: {far}");
        assert!(far.contains("Raise nofile"), "{far}");
        let shared = room(2, false, 20_000).lack(20_000).unwrap();
        assert!(shared.contains("file tables of their own"), "{shared}");
    }
}
