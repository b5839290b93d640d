//! A cluster as a source of configuration, of trust and of leadership: the only crate that talks to an API server.

pub mod apply;
pub mod nodes;
