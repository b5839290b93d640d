//! A route configuration before it is a protobuf: hosts, domains and, for each VirtualService, which of its rules apply here
//! and where their destinations lead.
//!
//! These values are the generator's inputs for routes. The rules themselves are shared, not copied; what depends on the node
//! (its labels, namespace, visible services) is already resolved into indexes and cluster names.

use std::sync::Arc;
use std::time::Duration;

use meltemi_config::networking::{HttpRetry, VirtualService};
use meltemi_model::{ConfigRef, PersistentSession, Resilience};

use crate::rate_limit::RateLimits;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configuration {
    pub name: Arc<str>,
    pub policy: Arc<Policy>,
    pub hosts: Vec<Host>,
    pub catch_all: CatchAll,
    pub ignore_port: bool,
    /// Hosts are asked for one by one.
    pub on_demand: bool,
}

/// One host of such a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnDemandHost {
    /// `<route>/<host>`.
    pub name: Arc<str>,
    pub domain: String,
    pub policy: Arc<Policy>,
    pub target: Target,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    Host(Box<Routes>, Option<PersistentSession>),
    /// No service and no rule has the host.
    Nobody(CatchAll),
}

/// What the mesh and the proxy's own settings say of every route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    pub attempt_count: bool,
    pub x_forwarded_host: bool,
    pub default_retry: Option<HttpRetry>,
    /// gRPC libraries know `max_stream_duration` and not `max_grpc_timeout`.
    pub proxyless: bool,
    /// Of requests that a gateway accepts.
    pub rate_limits: RateLimits,
}

/// What becomes of a host that no virtual host names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CatchAll {
    None,
    /// To the address that the application asked for, or to an egress proxy.
    AllowAny(String),
    /// To the host that the request names, resolved for it.
    DynamicDns,
    BlockAll,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    pub name: String,
    pub domains: Vec<String>,
    pub routes: Routes,
    /// Plaintext requests are redirected to https.
    pub require_tls: bool,
    /// Of the service that the host is.
    pub session: Option<PersistentSession>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Routes {
    Service(ServiceRoute),
    /// In order; a gateway merges several rules for one host.
    Rules(Vec<Arc<RuleRoutes>>),
    /// Another server of the gateway's port has the host: 421, whatever is asked.
    Misdirected,
}

/// The one route of a service without a VirtualService.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceRoute {
    pub cluster: String,
    /// `host:port/*`.
    pub operation: String,
    pub hash: Option<Hash>,
    pub resilience: Resilience,
}

/// The part of a VirtualService that applies at one port, for one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleRoutes {
    pub rule: ConfigRef<VirtualService>,
    pub port: u32,
    /// The listener terminates TLS, so redirects default to https.
    pub tls: bool,
    /// Answers say that the port serves HTTP/3 as well.
    pub advertises_http3: bool,
    pub selected: Vec<Selected>,
}

/// One `http` entry with one of its matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selected {
    pub http: usize,
    pub matches: Option<usize>,
    /// Clusters of the entry's destinations, in order.
    pub destinations: Arc<[Destination]>,
    /// Clusters of `mirror` and `mirrors`, in order.
    pub mirrors: Arc<[String]>,
    /// What ResiliencePolicies turn on for all of the destinations. Retries only where the entry has none of its own.
    pub resilience: Arc<Resilience>,
    /// Of the first destination that has one.
    pub session: Option<PersistentSession>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    pub cluster: String,
    pub hash: Option<Hash>,
}

/// Consistent hashing as the destination's rule wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hash {
    Header(Arc<str>),
    Cookie { name: Arc<str>, path: Arc<str>, ttl: Option<Duration>, attributes: Vec<(Arc<str>, Arc<str>)> },
    SourceIp,
    QueryParameter(Arc<str>),
}
