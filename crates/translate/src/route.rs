//! Routes: virtual hosts and what they do with a request.
//!
//! Owns the decisions ([`spec`]) and their rendering, as for listeners.

mod filters;
mod headers;
mod matching;
mod render;
mod retry;
mod rule;
pub(crate) mod spec;

pub(crate) use render::inbound_route_configuration;
