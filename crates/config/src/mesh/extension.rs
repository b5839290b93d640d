//! Extension providers: where authorization checks, traces, metrics and access logs go.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::{Str, enumeration, message};

/// A `google.protobuf.Struct`.
pub type Struct = serde_json::Map<String, serde_json::Value>;

message! {
    /// Exactly one provider.
    struct ExtensionProvider {
        name: Str,
        envoy_ext_authz_http: Option<ExtAuthzHttpProvider>,
        envoy_ext_authz_grpc: Option<ExtAuthzGrpcProvider>,
        zipkin: Option<ZipkinProvider>,
        lightstep: Option<LightstepProvider>,
        datadog: Option<DatadogProvider>,
        stackdriver: Option<StackdriverProvider>,
        opencensus: Option<OpenCensusProvider>,
        skywalking: Option<SkyWalkingProvider>,
        opentelemetry: Option<OpenTelemetryProvider>,
        prometheus: Option<PrometheusProvider>,
        envoy_file_access_log: Option<FileAccessLogProvider>,
        envoy_http_als: Option<HttpAlsProvider>,
        envoy_tcp_als: Option<TcpAlsProvider>,
        envoy_otel_als: Option<OtelAlsProvider>,
        sds: Option<SdsProvider>,
    }

    struct ExtAuthzRequestBody {
        max_request_bytes: u32,
        allow_partial_message: bool,
        pack_as_bytes: bool,
    }

    struct ExtAuthzHttpProvider {
        service: Str,
        port: u32,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        path_prefix: Str,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: Str,
        /// Deprecated.
        include_headers_in_check: Vec<Str>,
        include_request_headers_in_check: Vec<Str>,
        include_additional_headers_in_check: BTreeMap<Str, Str>,
        include_request_body_in_check: Option<ExtAuthzRequestBody>,
        headers_to_upstream_on_allow: Vec<Str>,
        headers_to_downstream_on_deny: Vec<Str>,
        headers_to_downstream_on_allow: Vec<Str>,
    }

    struct ExtAuthzGrpcProvider {
        service: Str,
        port: u32,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        fail_open: bool,
        clear_route_cache: bool,
        status_on_error: Str,
        include_request_body_in_check: Option<ExtAuthzRequestBody>,
    }

    struct ZipkinProvider {
        service: Str,
        port: u32,
        max_tag_length: u32,
        #[serde(rename = "enable64bitTraceId")]
        enable_64bit_trace_id: bool,
        path: Str,
        trace_context_option: TraceContextOption,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
    }

    struct LightstepProvider {
        service: Str,
        port: u32,
        access_token: Str,
        max_tag_length: u32,
    }

    struct DatadogProvider {
        service: Str,
        port: u32,
        max_tag_length: u32,
    }

    struct SkyWalkingProvider {
        service: Str,
        port: u32,
        access_token: Str,
    }

    struct StackdriverProvider {
        debug: bool,
        max_number_of_attributes: Option<i64>,
        max_number_of_annotations: Option<i64>,
        max_number_of_message_events: Option<i64>,
        max_tag_length: u32,
        logging: Option<StackdriverLogging>,
    }

    struct StackdriverLogging {
        labels: BTreeMap<Str, Str>,
    }

    struct OpenCensusProvider {
        service: Str,
        port: u32,
        context: Vec<super::OpenCensusTraceContext>,
        max_tag_length: u32,
    }

    struct PrometheusProvider {}

    struct FileAccessLogProvider {
        /// Empty is `/dev/stdout`.
        path: Str,
        log_format: Option<LogFormat>,
        omit_empty_values: bool,
    }

    /// `text`, or `labels` for JSON; for the file provider at most one of them.
    struct LogFormat {
        text: Option<Str>,
        labels: Option<Struct>,
    }

    struct HttpAlsProvider {
        service: Str,
        port: u32,
        log_name: Str,
        filter_state_objects_to_log: Vec<Str>,
        additional_request_headers_to_log: Vec<Str>,
        additional_response_headers_to_log: Vec<Str>,
        additional_response_trailers_to_log: Vec<Str>,
    }

    struct TcpAlsProvider {
        service: Str,
        port: u32,
        log_name: Str,
        filter_state_objects_to_log: Vec<Str>,
    }

    struct OtelAlsProvider {
        service: Str,
        port: u32,
        log_name: Str,
        log_format: Option<LogFormat>,
    }

    struct OpenTelemetryProvider {
        service: Str,
        port: u32,
        max_tag_length: u32,
        /// At most one of `http` and `grpc`; none is gRPC.
        http: Option<ProviderHttpService>,
        grpc: Option<ProviderGrpcService>,
        resource_detectors: Option<ResourceDetectors>,
        service_attribute_enrichment: ServiceAttributeEnrichment,
        dynatrace_sampler: Option<DynatraceSampler>,
    }

    struct DynatraceSampler {
        tenant: Str,
        cluster_id: i32,
        root_spans_per_minute: u32,
        http_service: Option<DynatraceApi>,
    }

    struct DynatraceApi {
        service: Str,
        port: u32,
        http: Option<ProviderHttpService>,
    }

    struct SdsProvider {
        name: Str,
        service: Str,
        port: u32,
    }

    struct ProviderHttpService {
        path: Str,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        headers: Vec<ProviderHeader>,
    }

    struct ProviderGrpcService {
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
        initial_metadata: Vec<ProviderHeader>,
    }

    /// At most one of `value` and `env_name`.
    struct ProviderHeader {
        name: Str,
        value: Option<Str>,
        env_name: Option<Str>,
    }

    struct ResourceDetectors {
        environment: Option<ResourceDetector>,
        dynatrace: Option<ResourceDetector>,
    }

    struct ResourceDetector {}
}

enumeration! {
    enum TraceContextOption {
        #[default]
        UseB3 = "USE_B3",
        UseB3WithW3cPropagation = "USE_B3_WITH_W3C_PROPAGATION",
    }

    enum ServiceAttributeEnrichment {
        #[default]
        IstioCanonical = "ISTIO_CANONICAL",
        OtelSemanticConventions = "OTEL_SEMANTIC_CONVENTIONS",
    }
}

/// The providers that exist without being configured.
pub(super) fn default_extension_providers() -> Vec<ExtensionProvider> {
    vec![
        ExtensionProvider {
            name: "prometheus".into(),
            prometheus: Some(PrometheusProvider::default()),
            ..Default::default()
        },
        ExtensionProvider {
            name: "stackdriver".into(),
            stackdriver: Some(StackdriverProvider::default()),
            ..Default::default()
        },
        ExtensionProvider {
            name: "envoy".into(),
            envoy_file_access_log: Some(FileAccessLogProvider { path: "/dev/stdout".into(), ..Default::default() }),
            ..Default::default()
        },
    ]
}
