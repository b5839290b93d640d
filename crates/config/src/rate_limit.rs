//! Rate limits: the configuration document of a rate limit server, in the format of Envoy's reference server.

mod server;

pub use server::{LimitBlock, LimitDescriptor, RateLimitConfiguration, RateLimitUnit, Replaced};
