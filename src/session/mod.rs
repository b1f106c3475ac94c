//! One connection's life. Pure.

pub mod auth;
