//! What goes over the wire: bytes in, values out, and back. Pure.

pub mod assembler;
pub mod b64;
pub mod close;
pub mod envelope;
pub mod frame;
pub mod identity;
pub mod limits;
pub mod mask;
pub mod utf8;
pub mod violation;
