//! Tracing of an HTTP connection manager.

use crate::format::Format;
use crate::header::HeaderKey;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Percent.
    pub client_sampling: f64,
    pub random_sampling: f64,
    pub overall_sampling: f64,
    pub verbose: bool,
    pub max_path_tag_length: usize,
    pub custom_tags: Vec<CustomTag>,
    /// Without a provider only the sampling decision is made.
    pub provider: Option<TracingProvider>,
    pub spawn_upstream_span: bool,
    pub no_context_propagation: bool,
    pub operation: Option<Format>,
    pub upstream_operation: Option<Format>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CustomTag {
    pub tag: Arc<str>,
    pub value: TagValue,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TagValue {
    Literal(Arc<str>),
    Environment { name: Arc<str>, default: Arc<str> },
    RequestHeader { key: HeaderKey, default: Arc<str> },
    Metadata { of: crate::format::MetadataOf, namespace: Arc<str>, path: Vec<Arc<str>>, default: Arc<str> },
    Format(Format),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TracingProvider {
    Zipkin(Zipkin),
    OpenTelemetry(OpenTelemetry),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zipkin {
    pub cluster: Arc<str>,
    pub path: Arc<str>,
    pub hostname: Arc<str>,
    pub proto: bool,
    pub trace_id_128bit: bool,
    /// Also reads and writes `traceparent`.
    pub w3c: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTelemetry {
    pub service_name: Arc<str>,
    pub target: OtlpTarget,
    pub timeout: Duration,
    pub headers: Vec<(Arc<str>, Arc<str>)>,
    /// Those that the configuration gives.
    pub resource_attributes: Vec<(Arc<str>, Arc<str>)>,
    /// Those of `OTEL_RESOURCE_ATTRIBUTES` come before them.
    pub detect_environment: bool,
    pub sampler: OtlpSampler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpSampler {
    /// The connection manager's own decision.
    None,
    AlwaysOn,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OtlpTarget {
    Grpc { cluster: Arc<str>, authority: Arc<str> },
    Http { cluster: Arc<str>, authority: Arc<str>, path: Arc<str> },
}
