//! What all resources of one proxy have in common, resolved from the mesh's configuration and the node's own.
//!
//! Owns the [`Profile`]: part of every listener's and route's input, shared by `Arc`, equal for all nodes that need the same.
//! It must hold nothing that differs between replicas of a workload beyond what their resources really contain.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use meltemi_base::Compliance;
use meltemi_config::networking::HttpRetry;

use crate::dialect::Dialect;
use crate::listener::TlsVersion;

mod resolve;

pub use resolve::resolve;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Profile {
    pub dialect: Dialect,
    pub addresses: AddressFamilies,
    pub headers: ProxyHeaders,
    pub gateway: GatewayTopology,
    pub access_logs: Vec<AccessLog>,
    /// Log connections that no filter chain takes.
    pub listener_access_log: bool,
    pub tracing: Option<Tracing>,
    /// `istio.stats` reports, where the dialect has it.
    pub metrics: bool,
    pub idle_timeout: Option<Duration>,
    pub path_normalization: PathNormalization,
    /// Trust domains that mesh mTLS accepts.
    pub trust_domains: Vec<String>,
    pub mesh_tls: MeshTls,
    pub server_tls: ServerTlsDefaults,
    /// Over both.
    pub compliance: Option<Compliance>,
    pub default_retry: Option<HttpRetry>,
    pub default_inbound_retry: Option<HttpRetry>,
    pub protocol_detection_timeout: Option<Duration>,
    pub accept_http10: bool,
    pub preserve_header_case: bool,
    pub inbound_exact_balance: bool,
    pub outbound_exact_balance: bool,
    /// The proxy asks for virtual hosts and clusters when traffic first needs them.
    pub on_demand: bool,
    /// Services may have persistent sessions.
    pub sessions: bool,
}

impl Profile {
    /// Clusters that the proxy itself sends to: collectors of spans and logs.
    pub fn own_clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        let logs = self.access_logs.iter().filter_map(|log| match log {
            AccessLog::Grpc { cluster, .. } => Some(cluster),
            AccessLog::File { .. } => None,
        });
        let provider = self.tracing.as_ref().and_then(|tracing| tracing.provider.as_ref());
        let spans = provider.map(|provider| match provider {
            TracingProvider::Zipkin(zipkin) => &zipkin.cluster,
            TracingProvider::OpenTelemetryGrpc(collector) | TracingProvider::OpenTelemetryHttp(collector) => {
                &collector.cluster
            }
        });
        logs.chain(spans)
    }
}

/// Which wildcard addresses the proxy binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressFamilies {
    V4,
    V6,
    Dual,
}

impl AddressFamilies {
    pub fn wildcards(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["0.0.0.0"],
            Self::V6 => &["::"],
            Self::Dual => &["0.0.0.0", "::"],
        }
    }

    pub fn loopbacks(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["127.0.0.1"],
            Self::V6 => &["::1"],
            Self::Dual => &["127.0.0.1", "::1"],
        }
    }
}

/// `ProxyConfig.proxyHeaders`, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ProxyHeaders {
    pub server: ServerHeader,
    pub forwarded_client_cert: ForwardClientCert,
    pub current_cert: CurrentCertDetails,
    pub attempt_count: bool,
    pub request_id: bool,
    pub debug_headers: bool,
    /// Metadata exchange headers only inside the mesh.
    pub metadata_exchange_in_mesh_only: bool,
    pub x_forwarded_port: bool,
    pub x_forwarded_host: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    /// `istio-envoy` inbound and at gateways, Envoy's own name outbound.
    Default,
    Named(Arc<str>),
    /// Whatever the upstream sent.
    PassThrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CurrentCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

impl Default for ProxyHeaders {
    fn default() -> Self {
        Self {
            server: ServerHeader::Default,
            forwarded_client_cert: ForwardClientCert::AppendForward,
            current_cert: CurrentCertDetails { subject: true, cert: false, chain: false, dns: true, uri: true },
            attempt_count: true,
            request_id: true,
            debug_headers: true,
            metadata_exchange_in_mesh_only: false,
            x_forwarded_port: false,
            x_forwarded_host: false,
        }
    }
}

/// `ProxyConfig.gatewayTopology`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayTopology {
    pub trusted_proxies: u32,
    pub forward_client_cert: ForwardClientCert,
    pub proxy_protocol: bool,
}

impl Default for GatewayTopology {
    fn default() -> Self {
        Self { trusted_proxies: 0, forward_client_cert: ForwardClientCert::SanitizeSet, proxy_protocol: false }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    None,
    #[default]
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AccessLog {
    File {
        path: Arc<str>,
        format: LogFormat,
        omit_empty: bool,
    },
    /// Envoy's gRPC access log service at a cluster.
    Grpc {
        cluster: Arc<str>,
        authority: Arc<str>,
        http: bool,
        log_name: Arc<str>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogFormat {
    Text(Arc<str>),
    /// Field to format.
    Json(BTreeMap<Arc<str>, JsonField>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JsonField {
    Text(Arc<str>),
    /// Numbers and booleans are written as they are.
    Raw(Arc<str>),
    Object(BTreeMap<Arc<str>, JsonField>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tracing {
    /// Random sampling in millionths.
    pub sampling_ppm: u32,
    pub provider: Option<TracingProvider>,
    pub tags: BTreeMap<Arc<str>, TraceTag>,
    pub max_path_tag_length: Option<u32>,
    pub spawn_upstream_span: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TraceTag {
    Literal(Arc<str>),
    Environment {
        name: Arc<str>,
        default: Arc<str>,
    },
    Header {
        name: Arc<str>,
        default: Arc<str>,
    },
    /// Dynamic metadata that the RBAC filter leaves, by key.
    Rbac(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TracingProvider {
    Zipkin(Zipkin),
    OpenTelemetryGrpc(OpenTelemetry),
    OpenTelemetryHttp(OpenTelemetry),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OpenTelemetry {
    pub cluster: Arc<str>,
    /// Authority of gRPC, or the URI of HTTP.
    pub target: Arc<str>,
    pub service_name: Arc<str>,
    pub timeout: Option<Duration>,
    pub headers: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Zipkin {
    pub cluster: Arc<str>,
    pub hostname: Arc<str>,
    pub path: Arc<str>,
    pub short_trace_ids: bool,
    pub with_w3c: bool,
}

/// `MeshConfig.meshMTLS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshTls {
    pub minimum: TlsVersion,
    /// Empty: Istio's own list.
    pub ciphers: Vec<String>,
    pub curves: Vec<String>,
}

/// `MeshConfig.tlsDefaults`: for servers that bring their own certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ServerTlsDefaults {
    pub minimum: Option<TlsVersion>,
    pub ciphers: Vec<String>,
    pub curves: Vec<String>,
}
