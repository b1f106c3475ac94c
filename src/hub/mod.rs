//! Who is here and where a message goes. Pure: no socket, thread or clock.

pub mod addresses;
pub mod code;
pub mod ids;
pub mod lives;
pub mod node;
pub mod others;
pub mod post;
pub mod push;
pub mod roster;
pub mod selectors;
pub mod traces;
pub mod watches;
