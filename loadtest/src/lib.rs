//! A crowd of WebSocket clients for Throng: connected once, then driven.
//!
//! [`Plan`] says who connects, where to and how fast; [`Crowd`] holds the connections in a few
//! threads and is asked to open more, to hear broadcasts, to talk, to chat, to hear pushes, to come
//! and go, or to weather what is done to the nodes. [`Counts`] is what happened.
//!
//! Rooms: `frame`, `message`, `dialect`, `inbox`, `client`, `talker`, `comeback`, `pairs`, `groups`,
//! `order`, `schedule`, `tally`, `post`, `churn`, `counts` are pure (bytes in, values out); `chat` is
//! what clients of an inbox say to each other, and `chats` what is written down of it; `returns` is
//! who comes back where and when, `target` and `presence` what all threads share of that; `pulse` is
//! how all of it goes, `process`, `host` and `slab` what the kernel knows of a process, of the host and
//! of its own memory; `opening`, `seat` and `worker` perform on sockets; `crowd` drives the workers;
//! `api` speaks HTTP, and `pusher` pushes over it at a rate.

pub mod api;
pub mod chat;
pub mod chats;
pub mod churn;
mod client;
mod comeback;
pub mod counts;
pub mod crowd;
pub mod dialect;
pub mod frame;
pub mod groups;
pub mod host;
pub mod inbox;
pub mod message;
mod opening;
mod order;
mod pairs;
pub mod plan;
pub mod post;
pub mod presence;
pub mod process;
pub mod pulse;
pub mod pusher;
pub mod returns;
pub mod schedule;
mod seat;
pub mod slab;
mod talker;
mod tally;
pub mod target;
mod worker;

pub use api::Api;
pub use chats::Chats;
pub use churn::Manners;
pub use counts::Counts;
pub use crowd::{
    Chatted, Churned, Crowd, CrowdError, Heard, Opened, Pushed, Returned, Talked, Weathered,
};
pub use dialect::Dialect;
pub use groups::Groups;
pub use opening::HostLimit;
pub use plan::{Plan, PlanError, Who};
pub use pusher::{Pushing, To};
pub use schedule::Flow;
