//! Envoy's xDS resources as a validated, immutable intermediate representation.
//!
//! Owns the meaning of every accepted field: the conversions either honour what is set or refuse it with its path, by the
//! one table in [`support`]. Must never do I/O, read a clock, or let a prost type out. Costs: a conversion walks the
//! encoded resource once (to see fields that no type of ours knows) and allocates what the resource holds; look-ups
//! ([`RouteConfiguration::find`], [`Listener::find_chain`]) allocate nothing.

pub mod access_log;
pub mod anomaly;
pub mod bootstrap;
pub mod cluster;
pub mod common;
// Deprecated fields are still what control planes send.
#[allow(deprecated)]
mod convert;
pub mod dynamic_forward;
pub mod endpoint;
pub mod error;
pub mod ext_authz;
pub mod filter;
pub mod format;
pub mod hcm;
pub mod header;
pub mod jwt;
pub mod listener;
pub mod on_demand;
pub mod rate_limit;
pub mod rbac;
pub mod route;
pub mod support;
pub mod tcp_proxy;
pub mod tls;
pub mod tracing;

pub use access_log::{AccessLog, AccessLogFilter, AccessLogFormat, AccessLogSink};
pub use anomaly::{AnomalyDetection, Sensitivity};
pub use bootstrap::{AdsConfig, Bootstrap};
pub use cluster::{Cluster, ClusterKind, ClusterSettings, LbPolicy};
pub use common::{Address, Fraction, Metadata, TcpKeepalive};
pub use convert::{
    bootstrap, cluster, encoded_cluster, encoded_listener, encoded_load_assignment, encoded_route_configuration,
    encoded_secret, encoded_virtual_host, listener, load_assignment, route_configuration, secret,
};
pub use endpoint::{Endpoint, EndpointHealth, LoadAssignment, Locality, LocalityEndpoints};
pub use error::{At, PlanError};
pub use filter::{FilterOverride, HttpFilter, HttpFilterConfig, PerFilter};
pub use format::{Format, FormatOp, JsonFormat, Operator};
pub use hcm::{Hcm, RouteSource};
pub use header::{HeaderKey, HeaderLookup, HeaderMatcher, HeaderRules};
pub use listener::{ConnectionFacts, FilterChain, Listener, NetworkFilter};
pub use on_demand::{OnDemand, OnDemandHost};
pub use rbac::{Rbac, RbacAction};
pub use route::{Route, RouteAction, RouteConfiguration, RouteRequest, VirtualHost};
pub use tcp_proxy::TcpProxy;
pub use tls::{DownstreamTls, Secret, UpstreamTls};
pub use tracing::Tracing;
