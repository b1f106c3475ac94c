//! Two nodes behind a real nginx, with the configuration that sysctl/nginx.conf ships.
//!
//! `nginx` starts it; `front` is the whole of it: a redis-server, two nodes, nginx before them;
//! `cases` are the tests. What starts a server, a node or a client is shared with the
//! neighbouring test programs.

#![allow(clippy::unwrap_used)]

mod cases;
mod front;
mod nginx;
#[path = "../cluster/nodes.rs"]
#[expect(dead_code, reason = "other tests use it too")]
mod nodes;
#[path = "../redis/server.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod server;
#[path = "../node/support/mod.rs"]
#[expect(dead_code, reason = "these tests use a part of it")]
mod support;
