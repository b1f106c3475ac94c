//! A crowd of WebSocket clients for Throng: connected once, then driven.
//!
//! [`Plan`] says who connects, where to and how fast; [`Crowd`] holds the connections in a few
//! threads and is asked to open more, to hear broadcasts, to talk or to chat. [`Counts`] is what
//! happened.
//!
//! Rooms: `frame`, `message`, `inbox`, `client`, `talker`, `tally`, `counts` are pure (bytes in,
//! values out); `chat` is what clients of an inbox say to each other, and `chats` what is written
//! down of it; `opening`, `seat` and `worker` perform on sockets; `crowd` drives the workers;
//! `api` pushes over HTTP.

pub mod api;
pub mod chat;
pub mod chats;
mod client;
pub mod counts;
pub mod crowd;
pub mod frame;
pub mod inbox;
pub mod message;
mod opening;
pub mod plan;
mod seat;
mod talker;
mod tally;
mod worker;

pub use api::Api;
pub use chats::Chats;
pub use counts::Counts;
pub use crowd::{Chatted, Crowd, CrowdError, Heard, Opened, Talked};
pub use plan::{Plan, PlanError, Who};
