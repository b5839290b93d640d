//! Listeners, filter chains, network filters.

mod chain_match;

pub use chain_match::{ChainCriteria, ChainMatcher, ChainMismatch, ConnectionFacts, SourceType};

use crate::access_log::AccessLog;
use crate::common::{Address, Metadata, SocketOption, TcpKeepalive};
use crate::dynamic_forward::SniForward;
use crate::filter::{IstioStats, RbacFilter};
use crate::hcm::Hcm;
use crate::tcp_proxy::{ConnectionRateLimit, TcpProxy};
use crate::tls::DownstreamTls;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Arc<str>,
    pub stat_prefix: Arc<str>,
    pub address: Address,
    pub additional_addresses: Vec<Address>,
    /// False: only reached by original destination from another listener.
    pub bind_to_port: bool,
    /// Connections are handed to the listener of their original destination, if there is one.
    pub use_original_dst: bool,
    pub transparent: bool,
    pub freebind: bool,
    pub traffic_direction: TrafficDirection,
    pub listener_filters: Vec<ListenerFilter>,
    /// `None`: no limit; Envoy's default is 15 s.
    pub listener_filters_timeout: Option<Duration>,
    pub continue_on_listener_filters_timeout: bool,
    pub chains: Vec<Arc<FilterChain>>,
    pub matcher: ChainMatcher,
    pub default_chain: Option<Arc<FilterChain>>,
    pub access_logs: Vec<AccessLog>,
    pub buffer_limit: u32,
    pub socket_options: Vec<SocketOption>,
    pub keepalive: Option<TcpKeepalive>,
    pub backlog: Option<u32>,
    pub fast_open_queue: Option<u32>,
    pub reuse_port: bool,
    pub exact_balance: bool,
    pub drain_modify_only: bool,
    pub max_accepts_per_event: Option<u32>,
    pub ignore_global_conn_limit: bool,
    /// HTTP/3 over UDP instead of TCP (Envoy's `udp_listener_config`).
    pub quic: Option<Quic>,
    pub metadata: Metadata,
    /// Of the encoded resource: equal plans have equal fingerprints.
    pub fingerprint: u64,
}

/// Envoy's `udp_listener_config.quic_options`. Windows are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quic {
    /// False: new connections are refused.
    pub accepts: bool,
    pub max_concurrent_streams: u32,
    pub stream_window: u32,
    pub connection_window: u32,
    /// A connection without a packet for so long is over.
    pub idle_timeout: Duration,
    pub handshake_timeout: Duration,
    /// How often a silent client is pinged.
    pub keepalive_interval: Option<Duration>,
    /// Connections of one worker.
    pub max_connections: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrafficDirection {
    Unspecified,
    Inbound,
    Outbound,
}

#[derive(Debug, Clone)]
pub struct ListenerFilter {
    pub name: Arc<str>,
    /// Skipped for connections that this holds for.
    pub disabled: Option<ListenerPredicate>,
    pub config: ListenerFilterConfig,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilterConfig {
    OriginalDst,
    TlsInspector { max_client_hello: u32, close_on_error: bool },
    HttpInspector,
    ProxyProtocol { allow_without: bool, v1: bool, v2: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerPredicate {
    Or(Vec<ListenerPredicate>),
    And(Vec<ListenerPredicate>),
    Not(Box<ListenerPredicate>),
    Any,
    /// `start..end` of the (restored) destination port.
    DestinationPort {
        start: u32,
        end: u32,
    },
}

impl ListenerPredicate {
    pub fn holds(&self, destination_port: u16) -> bool {
        match self {
            Self::Or(all) => all.iter().any(|one| one.holds(destination_port)),
            Self::And(all) => all.iter().all(|one| one.holds(destination_port)),
            Self::Not(one) => !one.holds(destination_port),
            Self::Any => true,
            Self::DestinationPort { start, end } => (*start..*end).contains(&u32::from(destination_port)),
        }
    }
}

#[derive(Debug, Clone)]
pub struct FilterChain {
    pub name: Arc<str>,
    pub criteria: ChainCriteria,
    pub tls: Option<Arc<DownstreamTls>>,
    /// `None`: no limit.
    pub transport_connect_timeout: Option<Duration>,
    pub filters: Vec<NetworkFilter>,
    pub metadata: Metadata,
    /// Of the encoded chain: connections of a chain that an update left alone are kept.
    pub fingerprint: u64,
}

#[derive(Debug, Clone)]
pub enum NetworkFilter {
    HttpConnectionManager(Arc<Hcm>),
    TcpProxy(Arc<TcpProxy>),
    Rbac(Arc<NetworkRbac>),
    ExtAuthz(Arc<crate::ext_authz::NetworkExtAuthz>),
    MetadataExchange(Arc<MetadataExchange>),
    IstioStats(Arc<IstioStats>),
    ConnectionRateLimit(Arc<ConnectionRateLimit>),
    /// Answers with these bytes and closes.
    DirectResponse(bytes::Bytes),
    Echo,
    /// Sets filter state on a new connection (Istio's waypoints).
    SetFilterState(Arc<[FilterStateValue]>),
    SniCluster,
    SniDynamicForward(Arc<SniForward>),
}

#[derive(Debug, Clone)]
pub struct FilterStateValue {
    pub key: Arc<str>,
    pub value: crate::format::Format,
    pub skip_if_empty: bool,
    pub shared_with_upstream: bool,
}

#[derive(Debug, Clone)]
pub struct NetworkRbac {
    pub stat_prefix: Arc<str>,
    pub rules: RbacFilter,
}

/// Istio's ALPN-negotiated exchange of peer metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataExchange {
    pub protocol: Arc<str>,
    pub enable_discovery: bool,
    pub additional_labels: Vec<Arc<str>>,
}

impl Listener {
    /// The chain for a connection; `None` closes it.
    pub fn find_chain(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        self.matcher.find(facts).map(|index| &self.chains[index]).or(self.default_chain.as_ref())
    }

    /// Whether any chain's choice needs what an inspector finds.
    pub fn inspects_tls(&self) -> bool {
        self.listener_filters.iter().any(|filter| matches!(filter.config, ListenerFilterConfig::TlsInspector { .. }))
    }
}
