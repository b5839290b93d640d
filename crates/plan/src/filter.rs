//! Configurations of HTTP filters, and their overrides on virtual hosts, routes and weighted clusters.

use crate::common::Fraction;
use crate::dynamic_forward::DnsCache;
use crate::ext_authz::{AuthzPerRoute, ExtAuthz};
use crate::header::{HeaderAdd, HeaderMatcher, HeaderMutation};
use crate::jwt::{JwtAuthn, JwtPerRoute};
use crate::rate_limit::{HostPolicies, LocalDescriptor, RateLimit, RateLimitPerRoute, RateLimitPolicy};
use crate::rbac::Rbac;
use meltemi_matchers::StringMatcher;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct HttpFilter {
    /// The name under which overrides find it.
    pub name: Arc<str>,
    /// Off unless an override turns it on.
    pub disabled: bool,
    pub config: HttpFilterConfig,
}

#[derive(Debug, Clone)]
pub enum HttpFilterConfig {
    Router(Arc<RouterFilter>),
    Fault(Arc<Fault>),
    /// Acts only where an override gives it a policy.
    Cors,
    IstioStats(Arc<IstioStats>),
    IstioAlpn(Arc<IstioAlpn>),
    PeerMetadata(Arc<PeerMetadata>),
    GrpcStats,
    Rbac(Arc<RbacFilter>),
    HeaderMutation(Arc<HeaderMutationFilter>),
    LocalRateLimit(Arc<LocalRateLimit>),
    HealthCheck(Arc<HealthCheckFilter>),
    StatefulSession(Arc<StatefulSession>),
    JwtAuthn(Arc<JwtAuthn>),
    ExtAuthz(Arc<ExtAuthz>),
    RateLimit(Arc<RateLimit>),
    /// Requests to clusters of this cache wait until the host that they name is resolved.
    DynamicForward(Arc<DnsCache>),
}

/// Filter name → override; at most a few, searched in order.
#[derive(Debug, Clone, Default)]
pub struct PerFilter(pub Vec<(Arc<str>, FilterOverride)>);

impl PerFilter {
    pub fn find(&self, name: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|(have, _)| &**have == name).map(|(_, found)| found)
    }
}

#[derive(Debug, Clone)]
pub enum FilterOverride {
    Disabled,
    /// `FilterConfig` without a config: turns a disabled filter on.
    Enabled,
    Fault(Arc<Fault>),
    Cors(Arc<CorsPolicy>),
    /// `None`: no rules here, so everything is allowed.
    Rbac(Option<Arc<RbacFilter>>),
    HeaderMutation(Arc<HeaderMutationFilter>),
    LocalRateLimit(Arc<LocalRateLimit>),
    StatefulSession(Arc<StatefulSession>),
    JwtAuthn(JwtPerRoute),
    ExtAuthz(Arc<AuthzPerRoute>),
    RateLimit(Arc<RateLimitPerRoute>),
}

#[derive(Debug, Clone)]
pub struct RouterFilter {
    pub suppress_envoy_headers: bool,
}

#[derive(Debug, Clone)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    /// Only requests to this cluster, if set.
    pub upstream_cluster: Option<Arc<str>>,
    pub headers: Vec<HeaderMatcher>,
    /// Values of `x-envoy-downstream-service-node`; any if empty.
    pub downstream_nodes: Vec<Arc<str>>,
    pub max_active: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultDelay {
    pub fraction: Fraction,
    pub by: FaultDelayBy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultDelayBy {
    Fixed(Duration),
    /// `x-envoy-fault-delay-request`, milliseconds.
    Header,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultAbort {
    pub fraction: Fraction,
    pub by: FaultAbortBy,
    pub body: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultAbortBy {
    Http(u16),
    Grpc(u32),
    /// `x-envoy-fault-abort-request` or `-grpc-request`.
    Header,
}

#[derive(Debug, Clone)]
pub struct CorsPolicy {
    pub allow_origins: Vec<StringMatcher>,
    pub allow_methods: Arc<str>,
    pub allow_headers: Arc<str>,
    pub expose_headers: Arc<str>,
    pub max_age: Arc<str>,
    pub allow_credentials: bool,
    pub allow_private_network_access: bool,
    pub forward_not_matching_preflights: bool,
    pub enabled: Fraction,
    pub shadow: Fraction,
}

/// Istio's standard metrics. Tag overrides with CEL beyond literals are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioStats {
    pub stat_prefix: Arc<str>,
    pub disable_host_header_fallback: bool,
    pub tcp_reporting_duration: Duration,
    /// Reports as the server side of a gateway or waypoint.
    pub server_gateway: bool,
    pub metrics: Vec<IstioMetricConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IstioMetricConfig {
    /// All of them if empty.
    pub name: Arc<str>,
    pub drop: bool,
    pub tags_to_remove: Vec<Arc<str>>,
    /// Label → literal value.
    pub dimensions: Vec<(Arc<str>, Arc<str>)>,
}

/// Which ALPN to offer upstream, by the protocol chosen there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IstioAlpn {
    pub http10: Vec<Arc<str>>,
    pub http11: Vec<Arc<str>>,
    pub http2: Vec<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMetadata {
    pub downstream_discovery: Vec<PeerMethod>,
    pub upstream_discovery: Vec<PeerMethod>,
    pub downstream_propagation: Vec<PeerMethod>,
    pub upstream_propagation: Vec<PeerMethod>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerMethod {
    Baggage,
    WorkloadDiscovery,
    /// `x-envoy-peer-metadata` and `-id`.
    IstioHeaders {
        skip_external_clusters: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct RbacFilter {
    pub rules: Option<Rbac>,
    pub shadow_rules: Option<Rbac>,
    pub rules_stat_prefix: Arc<str>,
    pub shadow_rules_stat_prefix: Arc<str>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderMutationFilter {
    pub request: Vec<HeaderMutation>,
    pub response: Vec<HeaderMutation>,
}

#[derive(Debug, Clone)]
pub struct LocalRateLimit {
    pub stat_prefix: Arc<str>,
    pub status: u16,
    /// `None`: the filter is configured but limits nothing.
    pub bucket: Option<TokenBucket>,
    pub enabled: Fraction,
    pub enforced: Fraction,
    pub request_headers_when_not_enforced: Vec<HeaderAdd>,
    pub response_headers: Vec<HeaderAdd>,
    pub resource_exhausted: bool,
    pub descriptors: Vec<LocalDescriptor>,
    /// Of a descriptor that stands for each value: how many have a bucket, the most recently used.
    pub most_values: u32,
    /// Its policies of routes are of this stage.
    pub stage: u32,
    pub host_policies: HostPolicies,
    /// Requests that a descriptor's bucket has counted are counted by the one of all, too.
    pub always_counts_all: bool,
    /// Instead of those of routes, unless empty.
    pub policies: Vec<RateLimitPolicy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    pub max_tokens: u32,
    pub tokens_per_fill: u32,
    pub fill_interval: Duration,
}

/// `envoy.filters.http.health_check` without pass-through caching.
#[derive(Debug, Clone)]
pub struct HealthCheckFilter {
    pub pass_through: bool,
    pub headers: Vec<HeaderMatcher>,
}

/// Envoy's `StatefulSession`: a client goes back to the host that served it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StatefulSession {
    /// `None`: only an override says how.
    pub state: Option<SessionState>,
    /// A request fails where its host can no longer serve it; else another does.
    pub strict: bool,
}

/// Where the client keeps its host's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    Cookie {
        name: Arc<str>,
        /// Empty or `/`: requests of every path have sessions.
        path: Arc<str>,
        /// Zero: as long as the client keeps the cookie.
        ttl: Duration,
        attributes: Vec<(Arc<str>, Arc<str>)>,
    },
    Header(http::HeaderName),
}
