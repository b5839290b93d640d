//! ProxyConfig of MeshConfig's `defaultConfig` and of the pod annotation `proxy.istio.io/config`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::networking::{ClientTlsSettings, ProxyImage, ReadinessProbe, TcpKeepalive};
use crate::wire::{Double, Str, enumeration, message, settings};

settings! {
    /// Settings of one proxy.
    struct ProxyConfig {
        config_path: Str,
        binary_path: Str,
        /// At most one of this and `tracing_service_name`.
        service_cluster: Option<Str>,
        tracing_service_name: Option<TracingServiceName>,
        #[serde(with = "crate::wire::required_duration")]
        drain_duration: Duration,
        discovery_address: Str,
        /// Deprecated.
        #[serde(with = "crate::wire::duration")]
        discovery_refresh_delay: Option<Duration>,
        /// Deprecated.
        zipkin_address: Str,
        statsd_udp_address: Str,
        /// Deprecated.
        envoy_metrics_service_address: Str,
        proxy_admin_port: i32,
        /// Deprecated.
        availability_zone: Str,
        control_plane_auth_policy: AuthenticationPolicy,
        custom_config_file: Str,
        stat_name_length: i32,
        /// Absent or 0: from the CPU limit.
        concurrency: Option<i32>,
        proxy_bootstrap_template_path: Str,
        interception_mode: InboundInterceptionMode,
        tracing: Option<ProxyTracing>,
        /// Deprecated.
        sds: Option<Sds>,
        envoy_access_log_service: Option<RemoteService>,
        envoy_metrics_service: Option<RemoteService>,
        proxy_metadata: BTreeMap<Str, Str>,
        runtime_values: BTreeMap<Str, Str>,
        status_port: i32,
        extra_stat_tags: Vec<Str>,
        gateway_topology: Option<Topology>,
        #[serde(with = "crate::wire::required_duration")]
        termination_drain_duration: Duration,
        mesh_id: Str,
        readiness_probe: Option<ReadinessProbe>,
        proxy_stats_matcher: Option<ProxyStatsMatcher>,
        hold_application_until_proxy_starts: Option<bool>,
        ca_certificates_pem: Vec<Str>,
        image: Option<ProxyImage>,
        private_key_provider: Option<PrivateKeyProvider>,
        proxy_headers: Option<ProxyHeaders>,
        #[serde(with = "crate::wire::duration")]
        file_flush_interval: Option<Duration>,
        file_flush_min_size_kb: u32,
        stats_compression: Option<bool>,
        connection_settings: Option<ConnectionSettings>,
    }
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            config_path: "./etc/istio/proxy".into(),
            binary_path: "/usr/local/bin/envoy".into(),
            service_cluster: Some("istio-proxy".into()),
            tracing_service_name: None,
            drain_duration: Duration::from_secs(45),
            discovery_address: "istiod.istio-system.svc:15012".into(),
            discovery_refresh_delay: None,
            zipkin_address: Str::default(),
            statsd_udp_address: Str::default(),
            envoy_metrics_service_address: Str::default(),
            proxy_admin_port: 15000,
            availability_zone: Str::default(),
            control_plane_auth_policy: AuthenticationPolicy::MutualTls,
            custom_config_file: Str::default(),
            stat_name_length: 189,
            concurrency: None,
            proxy_bootstrap_template_path: Str::default(),
            interception_mode: InboundInterceptionMode::Redirect,
            tracing: None,
            sds: None,
            envoy_access_log_service: None,
            envoy_metrics_service: None,
            proxy_metadata: BTreeMap::new(),
            runtime_values: BTreeMap::new(),
            status_port: 15020,
            extra_stat_tags: Vec::new(),
            gateway_topology: None,
            termination_drain_duration: Duration::from_secs(5),
            mesh_id: Str::default(),
            readiness_probe: None,
            proxy_stats_matcher: None,
            hold_application_until_proxy_starts: None,
            ca_certificates_pem: Vec::new(),
            image: None,
            private_key_provider: None,
            proxy_headers: None,
            file_flush_interval: None,
            file_flush_min_size_kb: 0,
            stats_compression: None,
            connection_settings: None,
        }
    }
}

message! {
    /// At most one tracer.
    struct ProxyTracing {
        zipkin: Option<TracerAddress>,
        lightstep: Option<Lightstep>,
        datadog: Option<TracerAddress>,
        stackdriver: Option<Stackdriver>,
        open_census_agent: Option<OpenCensusAgent>,
        custom_tags: BTreeMap<Str, ProxyCustomTag>,
        max_path_tag_length: u32,
        /// Percent; 0 is Istio's default of 1.
        sampling: Double,
        tls_settings: Option<ClientTlsSettings>,
        enable_istio_tags: Option<bool>,
    }

    struct TracerAddress {
        address: Str,
    }

    struct Lightstep {
        address: Str,
        access_token: Str,
    }

    struct Stackdriver {
        debug: bool,
        max_number_of_attributes: Option<i64>,
        max_number_of_annotations: Option<i64>,
        max_number_of_message_events: Option<i64>,
    }

    struct OpenCensusAgent {
        address: Str,
        context: Vec<OpenCensusTraceContext>,
    }

    /// Exactly one of the three.
    struct ProxyCustomTag {
        literal: Option<ProxyLiteralTag>,
        environment: Option<ProxyNamedTag>,
        header: Option<ProxyNamedTag>,
    }

    struct ProxyLiteralTag {
        value: Str,
    }

    struct ProxyNamedTag {
        name: Str,
        default_value: Str,
    }

    struct Sds {
        enabled: bool,
        k8s_sa_jwt_path: Str,
    }

    struct Topology {
        num_trusted_proxies: u32,
        forward_client_cert_details: ForwardClientCertDetails,
        proxy_protocol: Option<ProxyProtocolConfiguration>,
    }

    struct ProxyProtocolConfiguration {}

    struct ProxyStatsMatcher {
        inclusion_prefixes: Vec<Str>,
        inclusion_suffixes: Vec<Str>,
        inclusion_regexps: Vec<Str>,
    }

    /// Exactly one of the two.
    struct PrivateKeyProvider {
        cryptomb: Option<PollingKeyProvider>,
        qat: Option<PollingKeyProvider>,
    }

    struct PollingKeyProvider {
        #[serde(with = "crate::wire::duration")]
        poll_delay: Option<Duration>,
        fallback: Option<bool>,
    }

    struct ProxyHeaders {
        forwarded_client_cert: ForwardClientCertDetails,
        set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        request_id: Option<HeaderSwitch>,
        server: Option<ServerHeader>,
        attempt_count: Option<HeaderSwitch>,
        envoy_debug_headers: Option<HeaderSwitch>,
        metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        preserve_http1_header_case: Option<bool>,
        x_forwarded_host: Option<HeaderOptIn>,
        x_forwarded_port: Option<HeaderOptIn>,
    }

    struct HeaderSwitch {
        disabled: Option<bool>,
    }

    struct HeaderOptIn {
        enabled: Option<bool>,
    }

    struct ServerHeader {
        disabled: Option<bool>,
        value: Str,
    }

    struct MetadataExchangeHeaders {
        mode: MetadataExchangeMode,
    }

    struct SetCurrentClientCertDetails {
        subject: Option<bool>,
        cert: Option<bool>,
        chain: Option<bool>,
        dns: Option<bool>,
        uri: Option<bool>,
    }

    struct RemoteService {
        address: Str,
        tls_settings: Option<ClientTlsSettings>,
        tcp_keepalive: Option<TcpKeepalive>,
    }

    struct ConnectionSettings {
        profile: ConnectionProfile,
        listener_per_connection_buffer_limit_bytes: Option<i32>,
        cluster_per_connection_buffer_limit_bytes: Option<i32>,
        #[serde(with = "crate::wire::duration")]
        http_idle_timeout: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_max_connection_duration: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_drain_timeout: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_request_timeout: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_request_headers_timeout: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_stream_idle_timeout: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        http_max_stream_duration: Option<Duration>,
        http_max_concurrent_streams: Option<i32>,
        http2_initial_stream_window_size: Option<i32>,
        http2_initial_connection_window_size: Option<i32>,
        http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        http_merge_slashes: Option<bool>,
        http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        listener_connection_limit: Option<i32>,
        global_downstream_connection_limit: Option<i32>,
    }
}

enumeration! {
    enum TracingServiceName {
        #[default]
        AppLabelAndNamespace = "APP_LABEL_AND_NAMESPACE",
        CanonicalNameOnly = "CANONICAL_NAME_ONLY",
        CanonicalNameAndNamespace = "CANONICAL_NAME_AND_NAMESPACE",
    }

    enum AuthenticationPolicy {
        #[default]
        None = "NONE",
        MutualTls = "MUTUAL_TLS",
        Inherit = "INHERIT",
    }

    enum InboundInterceptionMode {
        #[default]
        Redirect = "REDIRECT",
        Tproxy = "TPROXY",
        None = "NONE",
    }

    enum OpenCensusTraceContext {
        #[default]
        Unspecified = "UNSPECIFIED",
        W3c = "W3C_TRACE_CONTEXT",
        GrpcBin = "GRPC_BIN",
        CloudTrace = "CLOUD_TRACE_CONTEXT",
        B3 = "B3",
    }

    enum ForwardClientCertDetails {
        #[default]
        Undefined = "UNDEFINED",
        Sanitize = "SANITIZE",
        ForwardOnly = "FORWARD_ONLY",
        AppendForward = "APPEND_FORWARD",
        SanitizeSet = "SANITIZE_SET",
        AlwaysForwardOnly = "ALWAYS_FORWARD_ONLY",
    }

    enum MetadataExchangeMode {
        #[default]
        Undefined = "UNDEFINED",
        InMesh = "IN_MESH",
    }

    enum ConnectionProfile {
        #[default]
        Sidecar = "SIDECAR",
        Edge = "EDGE",
    }

    enum HeadersWithUnderscoresAction {
        #[default]
        Unspecified = "HEADERS_WITH_UNDERSCORES_UNSPECIFIED",
        Allow = "HEADERS_WITH_UNDERSCORES_ALLOW",
        RejectRequest = "HEADERS_WITH_UNDERSCORES_REJECT_REQUEST",
        DropHeader = "HEADERS_WITH_UNDERSCORES_DROP_HEADER",
    }

    enum PathWithEscapedSlashesAction {
        #[default]
        Unspecified = "PATH_WITH_ESCAPED_SLASHES_UNSPECIFIED",
        KeepUnchanged = "KEEP_UNCHANGED",
        RejectRequest = "REJECT_REQUEST",
        UnescapeAndRedirect = "UNESCAPE_AND_REDIRECT",
        UnescapeAndForward = "UNESCAPE_AND_FORWARD",
    }
}
