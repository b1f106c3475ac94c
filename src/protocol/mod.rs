//! What goes over the wire: bytes in, values out, and back. Pure.

pub mod assembler;
pub mod away;
pub mod b64;
pub mod body;
pub mod close;
pub mod compact;
pub mod envelope;
pub mod forwarded;
pub mod frame;
pub mod identity;
pub mod inbound;
pub mod json;
pub mod limits;
pub mod mask;
pub mod metadata;
pub mod order;
pub mod outbound;
pub mod proxy;
pub mod upgrade;
pub mod utf8;
pub mod violation;
