//! Data structures that know no network.

pub mod key;
pub mod outbox;
pub mod pages;
pub mod ring;
pub mod slots;
pub mod time;
pub mod wheel;
