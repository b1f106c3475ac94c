//! How many threads, connections and descriptors this node has.

use std::io;

use crate::config::{Config, DESCRIPTORS_KEPT, Room};

pub struct Plan {
    pub reactors: usize,
    pub max_connections: usize,
    pub has_private_tables: bool,
    /// Descriptors that each table is grown for.
    pub descriptors: u64,
}

impl Plan {
    /// For a configuration that was proven to fit.
    pub fn new(config: &Config) -> io::Result<Plan> {
        let room = Room::of_this_host(config.reactors)?;
        let max_connections = config.max_connections.unwrap_or(room.usual());
        let share = (max_connections / room.tables()) as u64;
        let descriptors = room.nofile.min(share + share / 8 + DESCRIPTORS_KEPT);
        Ok(Plan {
            reactors: room.reactors,
            max_connections,
            has_private_tables: room.has_private_tables,
            descriptors,
        })
    }
}
