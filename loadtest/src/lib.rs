//! A crowd of WebSocket clients for Throng: connected once, then driven.
//!
//! [`Plan`] says who connects, where to and how fast; [`Crowd`] holds the connections in a few
//! threads and is asked to open more, to hear broadcasts or to talk. [`Counts`] is what happened.
//!
//! Rooms: `frame`, `message`, `client`, `tally`, `counts` are pure (bytes in, values out);
//! `opening`, `seat` and `worker` perform on sockets; `crowd` drives the workers; `api` pushes over HTTP.

pub mod api;
mod client;
pub mod counts;
pub mod crowd;
pub mod frame;
pub mod message;
mod opening;
pub mod plan;
mod seat;
mod tally;
mod worker;

pub use api::Api;
pub use counts::Counts;
pub use crowd::{Crowd, CrowdError, Heard, Opened, Talked};
pub use plan::{Plan, PlanError, Who};
