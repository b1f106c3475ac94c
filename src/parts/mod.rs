//! Data structures that know no network.

pub mod key;
pub mod pages;
