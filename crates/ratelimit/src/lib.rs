//! A rate limit server: `envoy.service.ratelimit.v3.RateLimitService` over fixed windows, as Envoy's reference server counts.
//!
//! Owns which limit is for a descriptor, the counts, and the answer. Counts lie in this process's memory, bounded and constant,
//! or in a Redis that several servers share. Knows nothing of proxies or routes. A request costs a few map look-ups and, for
//! each limit, one count: some microseconds in memory, one pipelined round trip with Redis.

mod counters;
mod decision;
mod limits;
mod server;
mod service;
mod source;
mod stats;

pub use counters::resp::{Reply, RespError, parse as parse_reply};
pub use counters::{Backend, Credential, RedisOptions};
pub use server::{Addresses, OnFailure, Options, RateLimitServer};
pub use source::Source;
