//! HTTP and network filters over the plan, the access log, and the record of a stream that they all read.
//!
//! Owns [`StreamInfo`], the filter chain, metadata exchange and Istio's standard metrics. Must never open a connection nor
//! decide a route. Filters are an enum of concrete structs; only a filter that waits (a delay) awaits. Labels and formats are
//! resolved when configuration is built: a repeated request costs a look-up by a small key and a few thread-local adds.

mod flags;
mod info;
mod peer;
mod reply;

pub use flags::ResponseFlags;
pub use info::{ConnectionInfo, Direction, StreamInfo, TlsInfo, UpstreamInfo, UpstreamTiming};
pub use peer::Peer;
pub use reply::{Flow, LocalReply};
