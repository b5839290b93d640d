//! The xDS transport protocol, both variants, both ends.
//!
//! Owns who has subscribed to what, what was sent and what became of it. [`server::Session`] and [`client::Session`] are pure
//! state machines: a message in, messages out, no clock and no I/O, so that a property test can run them against each other
//! through any schedule. [`client::Client`] is the thin part that owns a gRPC stream. Never looks into a resource: a body is
//! bytes here. A resource is encoded once and shared by every session that sends it.

pub mod client;
mod resource;
pub mod server;
pub mod types;

#[cfg(test)]
mod conversation;

pub use resource::{Resource, resource_name};

/// The name that stands for every resource of a type.
pub const WILDCARD: &str = "*";

/// Which variant of the protocol a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `DeltaAggregatedResources`
    Delta,
    /// `StreamAggregatedResources`
    StateOfTheWorld,
}

/// A peer broke the protocol, or a limit; its stream is to be closed with this text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("request without a type_url")]
    NoType,
    #[error("more than {0} resource types on one stream")]
    TooManyTypes(usize),
    #[error("more than {limit} resource names of {type_url}")]
    TooManyNames { type_url: String, limit: usize },
    #[error("resource name longer than {0} bytes")]
    LongName(usize),
    #[error("response of {0}, which was not subscribed to")]
    Unasked(String),
}
