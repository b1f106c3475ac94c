//! A cluster as it runs: a real redis-server, nodes as processes, and what kills them.
//!
//! `nodes` starts the nodes of a cluster, as a Redis user that may do no more than is needed;
//! `world` has a crowd of clients talk to them while something breaks, and the history that they
//! write is judged. The other modules are the tests; those in `chaos` are long, and run by
//! `make chaos` alone. What starts a server, a node, a client or a crowd is shared with the
//! neighbouring test programs.

#![allow(clippy::unwrap_used)]

#[path = "../delivery/backend.rs"]
mod backend;
mod chaos;
mod crashes;
#[path = "../delivery/crowd.rs"]
#[expect(dead_code, reason = "other tests use it too")]
mod crowd;
#[path = "../delivery/device.rs"]
mod device;
mod everyday;
mod nodes;
mod outages;
mod races;
#[path = "../delivery/random.rs"]
mod random;
mod refusals;
#[path = "../delivery/scribe.rs"]
mod scribe;
#[path = "../redis/server.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod server;
mod sessions;
#[path = "../node/support/mod.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod support;
mod table;
#[path = "../delivery/wire.rs"]
mod wire;
mod world;
