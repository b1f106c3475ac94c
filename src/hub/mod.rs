//! Who is here and where a message goes. Pure: no socket, thread or clock.

pub mod code;
pub mod node;
pub mod roster;
