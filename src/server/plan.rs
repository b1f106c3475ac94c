//! How many threads, connections and descriptors the host allows.

use std::thread;

use super::ServeError;
use crate::config::Config;
use crate::parts::key::Key;
use crate::sys;

/// Descriptors of each table that connections leave to everything else.
const DESCRIPTORS_KEPT: u64 = 256;

pub struct Plan {
    pub reactors: usize,
    pub max_connections: usize,
    pub has_private_tables: bool,
    /// Descriptors that each table is grown for.
    pub descriptors: u64,
}

impl Plan {
    pub fn new(config: &Config) -> Result<Plan, ServeError> {
        let nofile = sys::raise_descriptor_limit()?;
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let reactors = config.reactors.unwrap_or(cores).clamp(1, Key::REACTORS_MAX);
        let has_private_tables = sys::private_file_tables_work();
        let usable = nofile.saturating_sub(DESCRIPTORS_KEPT);
        if usable == 0 {
            return Err(ServeError::TooFewDescriptors {
                nofile,
                needed: DESCRIPTORS_KEPT + 1,
            });
        }
        let of_a_table = usize::try_from(usable)
            .unwrap_or(usize::MAX)
            .min(Key::SLOTS_MAX);
        let tables = if has_private_tables { reactors } else { 1 };
        let fits = of_a_table.saturating_mul(tables);
        let max_connections = match config.max_connections {
            Some(wanted) if wanted <= fits => wanted,
            Some(wanted) if has_private_tables => {
                let needed = wanted.div_ceil(of_a_table);
                return Err(ServeError::TooManyConnections {
                    wanted,
                    reactors,
                    fits,
                    nofile,
                    needed,
                });
            }
            Some(wanted) => {
                return Err(ServeError::TooManyForOneTable {
                    wanted,
                    fits,
                    nofile,
                });
            }
            // The kernel spreads newcomers over the listeners by chance: the cap leaves room
            // for a reactor that gets more than its share.
            None => fits / 20 * 19,
        };
        let share = (max_connections / tables) as u64;
        let descriptors = nofile.min(share + share / 8 + DESCRIPTORS_KEPT);
        Ok(Plan {
            reactors,
            max_connections,
            has_private_tables,
            descriptors,
        })
    }
}
