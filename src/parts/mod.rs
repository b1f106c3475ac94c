//! Data structures that know no network.

pub mod faults;
pub mod gate;
pub mod key;
pub mod outbox;
pub mod pages;
pub mod rate;
pub mod ring;
pub mod room;
pub mod slots;
pub mod time;
pub mod turns;
pub mod wheel;
