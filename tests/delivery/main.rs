//! Delivery proven on real processes: clients chat without a pause while the node dies, again and
//! again, and what all of them saw is written down and judged.
//!
//! `world` starts nodes that follow each other on one data directory; `crowd` has devices and a
//! backend talk to them; `device` is one client that comes back and repeats; `scribe` writes the
//! history; the crate `throng-history` judges it. A run prints what it has proven, as a bound, and its seed.
//! The other modules are the tests.

#![allow(clippy::unwrap_used)]

mod backend;
mod cases;
#[cfg(feature = "faults")]
mod crashes;
#[expect(dead_code, reason = "other tests use it too")]
mod crowd;
mod device;
mod kills;
#[cfg(feature = "faults")]
mod mutants;
mod random;
mod scribe;
#[path = "../node/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "these tests use a part of it")]
mod support;
mod wire;
mod world;
