//! Throng: a WebSocket gateway. See ARCHITECTURE.md for the house and its floors.

pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod config;
pub mod control;
pub mod doctor;
pub mod hub;
pub mod inbox;
pub mod log;
pub mod mailbox;
pub mod parts;
pub mod protocol;
pub mod reactor;
pub mod server;
pub mod session;
pub mod stats;
pub mod store;
pub mod sys;
