//! The real binary, started as a process, and clients over real sockets that share no code with it.
//!
//! `support` starts nodes and speaks WebSocket and HTTP; each other module proves one part of
//! PROTOCOL.md (tests/README.md has the table). Every test has a node of its own on a free port,
//! so all of them may run at once. Times are asserted as wide bounds only.

#![allow(clippy::unwrap_used)]

mod api;
mod attacks;
mod capacity;
mod chat;
mod clients;
mod clocks;
mod closing;
mod configuration;
mod descriptors;
mod doctor;
mod drain;
mod echo;
mod edges;
mod examples;
mod faults;
mod forgeries;
mod frames;
mod identity;
mod languages;
mod messages;
mod operators;
mod pressure;
mod proxies;
mod reload;
mod secrecy;
mod slow;
mod start;
mod store;
mod strikes;
mod support;
mod tokens;
mod upgrade;
