//! What every test of a real node needs: a process, a client, an HTTP caller, and patience.

pub mod client;
pub mod frame;
pub mod http;
pub mod node;
pub mod setup;
pub mod talk;
pub mod world;

use std::thread::sleep;
use std::time::{Duration, Instant};

pub use client::{Client, Event};
pub use frame::Opcode;
pub use node::Node;
pub use setup::Setup;

/// What must happen has happened by then, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `is_so`, and fails with `what` if that never comes.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        sleep(Duration::from_millis(10));
    }
}
