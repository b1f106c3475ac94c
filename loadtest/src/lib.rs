//! A crowd of WebSocket clients for Throng: connected once, then driven.
//!
//! [`Plan`] says who connects, where to and how fast; [`Crowd`] holds the connections in a few
//! threads and is asked to open more, to hear broadcasts, to talk, to chat, or to weather what is
//! done to the nodes. [`Counts`] is what happened.
//!
//! Rooms: `frame`, `message`, `dialect`, `inbox`, `client`, `talker`, `comeback`, `pairs`, `tally`,
//! `counts` are pure (bytes in, values out); `chat` is what clients of an inbox say to each other, and
//! `chats` what is written down of it; `returns` is who comes back where and when, `target` and
//! `presence` what all threads share of that; `pulse` is how all of it goes, and `process` what the
//! kernel knows of a process; `opening`, `seat` and `worker` perform on sockets;
//! `crowd` drives the workers; `api` pushes over HTTP.

pub mod api;
pub mod chat;
pub mod chats;
mod client;
mod comeback;
pub mod counts;
pub mod crowd;
pub mod dialect;
pub mod frame;
pub mod inbox;
pub mod message;
mod opening;
mod pairs;
pub mod plan;
pub mod presence;
pub mod process;
pub mod pulse;
pub mod returns;
mod seat;
mod talker;
mod tally;
pub mod target;
mod worker;

pub use api::Api;
pub use chat::Flow;
pub use chats::Chats;
pub use counts::Counts;
pub use crowd::{Chatted, Crowd, CrowdError, Heard, Opened, Returned, Talked, Weathered};
pub use dialect::Dialect;
pub use opening::HostLimit;
pub use plan::{Plan, PlanError, Who};
