//! Clusters: several simulated nodes that share one Redis, each world decided by its seed.
//!
//! The product's own: sessions, rosters, pumps, what they do with a ring, a page or a head, the
//! contract of delivery, the words on channels, lives of a node and doubts of its storekeeper.
//! Modelled, because it runs in Lua, in threads and over sockets: Redis with its directory,
//! leases, channels and lives (`redis`, `directory`, `touched`), the pipelines of a storekeeper
//! (`link`), the reader of the bus (`process`), the keeper with its rounds (`keeper`). That the
//! scripts do what the contract says is shown elsewhere, against a real server.
//! Not in it: errands, presence, broadcast routing, real clocks, a second process of one name.

mod directory;
mod keeper;
mod link;
mod process;
mod redis;
mod touched;
pub mod world;
