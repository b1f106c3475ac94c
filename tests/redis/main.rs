//! The store in Redis, against a real redis-server, as a user who may do no more than is needed.
//!
//! `contract` compares it with the contract over rows, request by request; `directory` is who is
//! connected where; the others prove what only a Redis can do wrong. `server` starts one for each test.

#![allow(clippy::unwrap_used)]

mod connections;
mod contract;
mod cost;
mod directory;
mod failures;
mod promises;
mod server;
mod world;
