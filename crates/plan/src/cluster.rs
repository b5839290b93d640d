//! Clusters.

use crate::anomaly::AnomalyDetection;
use crate::common::{Address, Metadata, SocketOption, TcpKeepalive, Value};
use crate::dynamic_forward::DnsCache;
use crate::endpoint::LoadAssignment;
use crate::filter::HttpFilter;
use crate::hcm::{Http1Options, Http2Options};
use crate::route::{HashPolicy, RetryPolicy};
use crate::tls::UpstreamTls;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// What is a cluster's own, and the settings that it has in common with many.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub name: Arc<str>,
    /// What statistics call it: `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// What its load assignment is called, for EDS clusters.
    pub service_name: Arc<str>,
    /// For static and DNS clusters.
    pub load_assignment: Option<Arc<LoadAssignment>>,
    pub transport: TransportSocket,
    /// The first whose criteria the endpoint's metadata under `envoy.transport_socket_match` holds; else `transport`.
    pub transport_matches: Vec<TransportMatch>,
    pub metadata: Arc<Metadata>,
    /// What the metadata asks of anomaly detection.
    pub anomalies: Option<Arc<AnomalyDetection>>,
    /// Held once for all clusters whose fields but these are encoded alike.
    pub settings: Arc<ClusterSettings>,
    /// Of the encoded resource: equal plans have equal fingerprints.
    pub fingerprint: u64,
}

impl Deref for Cluster {
    type Target = ClusterSettings;

    fn deref(&self) -> &ClusterSettings {
        &self.settings
    }
}

#[derive(Debug, Clone)]
pub struct ClusterSettings {
    pub kind: ClusterKind,
    pub connect_timeout: Duration,
    pub lb_policy: LbPolicy,
    pub lb: CommonLb,
    pub subsets: Option<LbSubsets>,
    pub breakers: Arc<CircuitBreakers>,
    pub outlier: Option<Arc<OutlierDetection>>,
    pub health_checks: Vec<HealthCheck>,
    pub http: UpstreamHttp,
    pub dns: DnsSettings,
    pub keepalive: Option<TcpKeepalive>,
    pub bind: Option<BindConfig>,
    pub buffer_limit: u32,
    pub ignore_health_on_host_removal: bool,
    pub close_connections_on_host_health_failure: bool,
    pub wait_for_warm_on_init: bool,
    /// How often unused hosts of an original destination cluster are forgotten.
    pub cleanup_interval: Duration,
    pub pool_per_downstream_connection: bool,
    pub track_timeout_budgets: bool,
    /// Network filters in front of every upstream connection (Istio's metadata exchange).
    pub filters: Vec<UpstreamFilter>,
    pub preconnect_ratio: f64,
    /// What they were made from.
    pub encoded: bytes::Bytes,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ClusterKind {
    Static,
    StrictDns,
    LogicalDns,
    /// Over the one ADS stream.
    Eds,
    OriginalDst(OriginalDst),
    /// Hosts are those that requests name.
    DynamicForward(Arc<DnsCache>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OriginalDst {
    /// The header that names the destination, if it may.
    pub header: Option<http::HeaderName>,
    pub port_override: Option<u16>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choices: u32,
        active_request_bias: f64,
        full_scan: bool,
        slow_start: Option<SlowStart>,
    },
    Random,
    /// Least of latency times requests in flight, of two at random.
    PeakEwma {
        decay_time: Duration,
        default_rtt: Duration,
    },
    RingHash {
        minimum_size: u64,
        maximum_size: u64,
        hash: HashFunction,
    },
    Maglev {
        table_size: u64,
    },
    ClusterProvided,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashFunction {
    XxHash,
    Murmur2,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    pub min_weight_percent: f64,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CommonLb {
    /// Percent of healthy hosts below which health is ignored; Envoy's default is 50.
    pub healthy_panic_threshold: f64,
    pub locality: LocalityLb,
    /// Of hash policies (ring hash, maglev).
    pub use_hostname_for_hashing: bool,
    /// Percent; 0: unbounded.
    pub hash_balance_factor: u32,
    /// Hash policies that a load balancing policy brings itself.
    pub hash_policy: Vec<HashPolicy>,
    pub close_connections_on_host_set_change: bool,
    pub ignore_new_hosts_until_first_hc: bool,
    pub update_merge_window: Duration,
    pub override_host_status: OverrideHostStatus,
}

/// The states in which a host serves the clients whose session it has. Unknown is healthy and timed out is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideHostStatus {
    pub healthy: bool,
    pub degraded: bool,
    pub unhealthy: bool,
    pub draining: bool,
}

impl Default for OverrideHostStatus {
    fn default() -> Self {
        Self { healthy: true, degraded: true, unhealthy: false, draining: false }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum LocalityLb {
    /// All localities of a priority are one pool.
    None,
    Weighted,
    ZoneAware(ZoneAware),
}

impl LocalityLb {
    /// How localities are routed by zone where the proxy is part of a cluster itself: by Envoy's defaults unless told otherwise.
    pub fn zone_aware(&self) -> ZoneAware {
        match self {
            Self::None | Self::Weighted => ZoneAware::default(),
            Self::ZoneAware(zone) => *zone,
        }
    }
}

/// `ZoneAwareLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneAware {
    /// Percent of requests.
    pub routing_enabled: u32,
    /// Healthy hosts that a cluster must have.
    pub min_cluster_size: u64,
    pub fail_traffic_on_panic: bool,
    /// Everything goes to the proxy's own locality if so many hosts are healthy there.
    pub force_local_zone: Option<u32>,
    /// Localities are compared by the weight of their hosts, not by their number.
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100,
            min_cluster_size: 6,
            fail_traffic_on_panic: false,
            force_local_zone: None,
            by_weight: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LbSubsets {
    pub fallback: SubsetFallback,
    pub default_subset: Value,
    pub selectors: Vec<SubsetSelector>,
    pub panic_mode_any: bool,
    pub list_as_any: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SubsetSelector {
    pub keys: Vec<Arc<str>>,
    /// `None`: the cluster's.
    pub fallback: Option<SubsetFallback>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubsetFallback {
    None,
    AnyEndpoint,
    DefaultSubset,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CircuitBreakers {
    pub default: Thresholds,
    pub high: Thresholds,
    /// Connections to one host.
    pub per_host_max_connections: Option<u32>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Thresholds {
    pub max_connections: u32,
    pub max_pending_requests: u32,
    pub max_requests: u32,
    pub max_retries: u32,
    pub retry_budget: Option<RetryBudget>,
    pub track_remaining: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    pub percent: f64,
    pub min_concurrency: u32,
}

/// Enforcement values are percentages of probability.
#[derive(Debug, Clone, PartialEq)]
pub struct OutlierDetection {
    pub consecutive_5xx: u32,
    pub enforcing_consecutive_5xx: u32,
    pub consecutive_gateway_failure: u32,
    pub enforcing_consecutive_gateway_failure: u32,
    pub split_external_local_origin_errors: bool,
    pub consecutive_local_origin_failure: u32,
    pub enforcing_consecutive_local_origin_failure: u32,
    pub interval: Duration,
    pub base_ejection_time: Duration,
    pub max_ejection_time: Duration,
    pub max_ejection_time_jitter: Duration,
    pub max_ejection_percent: u32,
    pub always_eject_one_host: bool,
    pub enforcing_success_rate: u32,
    pub enforcing_local_origin_success_rate: u32,
    pub success_rate_minimum_hosts: u32,
    pub success_rate_request_volume: u32,
    /// Thousandths.
    pub success_rate_stdev_factor: u32,
    pub failure_percentage_threshold: u32,
    pub enforcing_failure_percentage: u32,
    pub enforcing_failure_percentage_local_origin: u32,
    pub failure_percentage_minimum_hosts: u32,
    pub failure_percentage_request_volume: u32,
    pub successful_health_check_uneject_host: bool,
}

impl OutlierDetection {
    /// Envoy's limits, and at least one host; nothing that ejects by itself.
    pub fn limits_alone() -> Self {
        Self {
            consecutive_5xx: 0,
            enforcing_consecutive_5xx: 0,
            consecutive_gateway_failure: 0,
            enforcing_consecutive_gateway_failure: 0,
            split_external_local_origin_errors: false,
            consecutive_local_origin_failure: 0,
            enforcing_consecutive_local_origin_failure: 0,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_time_jitter: Duration::ZERO,
            max_ejection_percent: 10,
            always_eject_one_host: true,
            enforcing_success_rate: 0,
            enforcing_local_origin_success_rate: 0,
            success_rate_minimum_hosts: u32::MAX,
            success_rate_request_volume: u32::MAX,
            success_rate_stdev_factor: 1900,
            failure_percentage_threshold: 100,
            enforcing_failure_percentage: 0,
            enforcing_failure_percentage_local_origin: 0,
            failure_percentage_minimum_hosts: u32::MAX,
            failure_percentage_request_volume: u32::MAX,
            successful_health_check_uneject_host: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct HealthCheck {
    pub timeout: Duration,
    pub interval: Duration,
    pub initial_jitter: Duration,
    pub interval_jitter: Duration,
    pub interval_jitter_percent: u32,
    pub unhealthy_threshold: u32,
    pub healthy_threshold: u32,
    pub alt_port: Option<u16>,
    pub no_traffic_interval: Duration,
    pub no_traffic_healthy_interval: Duration,
    pub unhealthy_interval: Duration,
    pub unhealthy_edge_interval: Duration,
    pub healthy_edge_interval: Duration,
    pub kind: HealthCheckKind,
}

#[derive(Debug, Clone)]
pub enum HealthCheckKind {
    Http(HttpHealthCheck),
    /// `send` empty: connect only.
    Tcp {
        send: bytes::Bytes,
        receive: Vec<bytes::Bytes>,
    },
    Grpc {
        service: Arc<str>,
        authority: Arc<str>,
    },
}

#[derive(Debug, Clone)]
pub struct HttpHealthCheck {
    pub host: Arc<str>,
    pub path: Arc<str>,
    pub method: http::Method,
    pub headers: crate::header::HeaderRules,
    pub http2: bool,
    /// `start..end`.
    pub expected: Vec<(u16, u16)>,
    pub retriable: Vec<(u16, u16)>,
    pub receive: Vec<bytes::Bytes>,
}

/// Which protocol is spoken to the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    Http1,
    Http2,
    /// As the downstream request came.
    Downstream,
    /// By ALPN.
    Auto,
}

#[derive(Debug, Clone)]
pub struct UpstreamHttp {
    pub protocol: UpstreamProtocol,
    pub http1: Http1Options,
    pub http2: Http2Options,
    /// `None`: never; Envoy's default is one hour.
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    /// 0: unlimited.
    pub max_requests_per_connection: u32,
    pub max_headers_count: u32,
    pub max_response_headers_bytes: u32,
    /// SNI from the request's authority, or from this header.
    pub auto_sni: bool,
    pub auto_sni_header: Option<http::HeaderName>,
    pub auto_san_validation: bool,
    /// Upstream HTTP filters: none so far but the codec filter, which is implied.
    pub filters: Vec<HttpFilter>,
    pub retry_policy: Option<Arc<RetryPolicy>>,
    pub hash_policy: Vec<HashPolicy>,
}

#[derive(Debug, Clone)]
pub enum TransportSocket {
    Plain,
    Tls(Arc<UpstreamTls>),
    /// PROXY protocol header in front of the inner socket.
    ProxyProtocol {
        version: ProxyProtocolVersion,
        inner: Box<TransportSocket>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocolVersion {
    V1,
    V2,
}

#[derive(Debug, Clone)]
pub struct TransportMatch {
    pub name: Arc<str>,
    pub criteria: Value,
    pub transport: TransportSocket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSettings {
    pub refresh_rate: Duration,
    pub jitter: Duration,
    pub failure_base: Duration,
    pub failure_max: Duration,
    pub respect_ttl: bool,
    pub family: DnsFamily,
    /// The system's if empty.
    pub resolvers: Vec<SocketAddr>,
    pub use_tcp: bool,
    pub no_search_domain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DnsFamily {
    Auto,
    V4Only,
    V6Only,
    V4Preferred,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindConfig {
    /// Used for endpoints of the same family.
    pub source: Option<SocketAddr>,
    pub extra_sources: Vec<SocketAddr>,
    pub freebind: bool,
    pub socket_options: Vec<SocketOption>,
}

impl BindConfig {
    /// The source address for a destination, if one of its family is given.
    pub fn source_for(&self, destination: IpAddr) -> Option<SocketAddr> {
        self.source.iter().chain(&self.extra_sources).find(|source| source.is_ipv4() == destination.is_ipv4()).copied()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamFilter {
    MetadataExchange(Arc<crate::listener::MetadataExchange>),
}

impl Cluster {
    /// The index of the transport for an endpoint: 0 is the default, `n + 1` the match `n`. The conversion refuses more
    /// matches than that can count.
    pub fn transport_index(&self, endpoint: Option<&Metadata>) -> u16 {
        let none = Metadata::default();
        let metadata = endpoint.unwrap_or(&none);
        self.transport_matches
            .iter()
            .position(|candidate| metadata.holds("envoy.transport_socket_match", &candidate.criteria))
            .map_or(0, |at| at as u16 + 1)
    }

    /// Endpoint addresses that this cluster names itself.
    pub fn static_addresses(&self) -> impl Iterator<Item = &Address> {
        self.load_assignment
            .iter()
            .flat_map(|assignment| &assignment.localities)
            .flat_map(|locality| locality.endpoints.iter().map(|endpoint| &endpoint.address))
    }
}
