//! A listener before it is a protobuf: every decision taken, nothing left to look up.
//!
//! These values are the generator's inputs for listeners, so they hold resolved names and flags, never a service or a rule.
//! [`super::render`] turns them into messages.

use std::sync::Arc;
use std::time::Duration;

use meltemi_base::Compliance;
use meltemi_config::networking::HttpRetry;
use meltemi_model::Shared;

use crate::dynamic_dns::DnsCache;
use crate::names;
use crate::profile::Profile;
use crate::route::spec::Configuration;
use crate::security::Security;

/// Which side of the proxy a listener is on; it decides filters and telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    SidecarInbound,
    SidecarOutbound,
    Gateway,
}

impl Class {
    pub fn is_inbound(self) -> bool {
        self == Self::SidecarInbound
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Listener {
    pub name: Arc<str>,
    pub profile: Arc<Profile>,
    pub class: Class,
    /// What requests and connections must satisfy.
    pub security: Shared<Security>,
    /// The first is the primary address; a Unix socket's path stands alone with port 0.
    pub binds: Vec<String>,
    pub port: u32,
    pub bind_to_port: bool,
    /// HTTP/3 over UDP.
    pub quic: bool,
    pub use_original_dst: bool,
    pub transparent: bool,
    pub filters: Vec<ListenerFilter>,
    /// `None` leaves Envoy's own default.
    pub filters_timeout: Option<Duration>,
    pub continue_on_filters_timeout: bool,
    pub chains: Vec<Chain>,
    pub default_chain: Option<Chain>,
}

impl Listener {
    /// Whether a connection may fit no chain, which the listener alone can log.
    pub fn may_refuse(&self) -> bool {
        self.class != Class::SidecarOutbound || self.use_original_dst
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenerFilter {
    OriginalDestination,
    OriginalSource,
    ProxyProtocol,
    TlsInspector(Ports),
    HttpInspector(Ports),
}

/// Where an inspector looks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ports {
    All,
    Except(Vec<u32>),
    Only(Vec<u32>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    pub name: String,
    pub matches: Match,
    pub tls: Option<Tls>,
    /// Exchange workload metadata over TCP before anything else.
    pub exchange_metadata: bool,
    /// Report TCP metrics.
    pub report: bool,
    pub terminal: Terminal,
    /// The object that the chain comes from, for `istioctl` and access logs.
    pub origin: Option<Origin>,
}

/// The configuration object that made something, as Istio's metadata names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(pub Arc<str>);

impl Origin {
    /// `/apis/networking.istio.io/v1/namespaces/<namespace>/virtual-service/<name>`.
    pub fn networking(kind: &str, namespace: &str, name: &str) -> Self {
        Self(format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}").into())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Terminal {
    Http(Http),
    Tcp(Tcp),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Match {
    pub destination_port: Option<u32>,
    /// Addresses with or without a prefix length.
    pub prefixes: Vec<String>,
    pub server_names: Vec<String>,
    pub transport: Option<Transport>,
    pub application_protocols: Vec<&'static str>,
}

impl Match {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Tls,
    RawBuffer,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Http {
    pub route: RouteSource,
    /// `outbound_0.0.0.0_80`; Envoy adds the final dot that Istio's `;.` marks.
    pub stat_prefix: String,
    pub use_remote_address: bool,
    pub grpc_web: bool,
    /// The declared protocol is HTTP/2 or gRPC (inbound).
    pub http2: bool,
    /// Absolute URLs are accepted: an explicit HTTP proxy.
    pub explicit_proxy: bool,
    /// Caches of clusters whose hosts are those that requests name.
    pub resolves: Vec<DnsCache>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RouteSource {
    Rds(String),
    Inbound(InboundRoute),
    /// As it is here.
    Inline(Box<Configuration>),
}

/// The one route of an inbound chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundRoute {
    pub cluster: String,
    /// The service's port, or 0 for what no service claims.
    pub port: u32,
    /// Of the trace operation, `host:port/*`.
    pub host: Arc<str>,
    pub grpc: bool,
    /// `MeshConfig.defaultInboundHttpRetryPolicy`.
    pub retry: Option<HttpRetry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tcp {
    pub stat_prefix: String,
    /// One without weight, or several with.
    pub clusters: Vec<(String, u32)>,
    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub hash_source_ip: bool,
    pub tunnel: Option<Tunnel>,
    pub mongo: bool,
    /// The cluster's hosts are those that TLS greetings name, at this port.
    pub sni_forward: Option<(DnsCache, u32)>,
    /// Connections are in the access log.
    pub logged: bool,
    /// Goes on unopened to whom its SNI names, between networks: who opens it allows or denies it.
    pub unopened: bool,
}

impl Tcp {
    pub fn to(cluster: impl Into<String>) -> Self {
        let cluster = cluster.into();
        Self {
            stat_prefix: cluster.clone(),
            clusters: vec![(cluster, 0)],
            idle_timeout: None,
            max_connection_duration: None,
            hash_source_ip: false,
            tunnel: None,
            mongo: false,
            sni_forward: None,
            logged: true,
            unopened: false,
        }
    }

    /// Where a connection goes that must not come back to where it is from.
    pub fn trap() -> Self {
        Self { logged: false, ..Self::to(names::BLACK_HOLE_CLUSTER) }
    }

    /// What leads nowhere needs nobody's leave.
    pub fn is_authorized(&self) -> bool {
        !self.unopened && self.clusters.iter().any(|(cluster, _)| cluster != names::BLACK_HOLE_CLUSTER)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnel {
    pub target: String,
    pub post: bool,
}

/// A terminated TLS connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tls {
    pub alpn: Vec<&'static str>,
    pub require_client_certificate: bool,
    pub certificates: Vec<Secret>,
    pub validation: Option<Validation>,
    pub minimum: Option<TlsVersion>,
    pub maximum: Option<TlsVersion>,
    pub ciphers: Vec<String>,
    pub curves: Vec<String>,
    /// Over the four before it.
    pub compliance: Option<Compliance>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Validation {
    pub root: Option<Secret>,
    pub sans: Vec<String>,
    pub san_prefixes: Vec<String>,
    pub spki: Vec<String>,
    pub hashes: Vec<String>,
    pub crl: Option<String>,
    pub accept_untrusted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

/// A secret by name and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// The node agent, over its socket.
    Agent(String),
    /// Discovery, over ADS.
    Discovery(String),
    /// A server of the user's own: the node's credential socket, or a service of the mesh.
    External { name: String, cluster: String, authority: String },
}
