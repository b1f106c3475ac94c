//! What goes over the wire: bytes in, values out, and back. Pure.

pub mod b64;
pub mod envelope;
pub mod identity;
pub mod limits;
pub mod mask;
