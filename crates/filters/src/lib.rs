//! HTTP and network filters over the plan, the access log, and the record of a stream that they all read.
//!
//! Owns [`StreamInfo`], the filter chain, metadata exchange and Istio's standard metrics. Must never open a connection nor
//! decide a route. Filters are an enum of concrete structs; only a filter that waits (a delay, an answer) awaits. Labels and formats are
//! resolved when configuration is built: a repeated request costs a look-up by a small key and a few thread-local adds.

pub mod access_log;
mod authz;
mod bucket;
mod call;
mod chain;
mod connection_rate;
mod context;
mod descriptor;
mod edit;
pub mod exchange;
mod flags;
pub mod format;
mod guard;
pub mod headers;
mod http;
mod info;
pub mod jwt;
mod lookup;
mod peer;
mod query;
pub mod rbac;
mod reply;
mod stats;
#[cfg(test)]
mod testing;
mod tracing;

pub use access_log::{AccessLogs, LogWriter};
pub use call::{Answer, Around, Call, CallError, Caller, Calling, Early};
pub use chain::{ChainScope, FilterChain, StreamFilters};
pub use connection_rate::{ConnectionRate, Place};
pub use context::Context;
pub use flags::ResponseFlags;
pub use format::{LogType, Scope};
pub use guard::Guard;
pub use http::{AlpnOverrides, KeyFetcher, Session, Wanted, set_cookie};
pub use info::{ConnectionInfo, Direction, StreamInfo, TlsInfo, UpstreamInfo, UpstreamTiming};
pub use lookup::{Fields, RequestFields, ResponseFields};
pub use peer::{LocalNode, Peer};
pub use reply::{Flow, LocalReply, grpc_status_of};
pub use stats::{IstioMetrics, TcpReport, TcpStats};
pub use tracing::Tracer;
