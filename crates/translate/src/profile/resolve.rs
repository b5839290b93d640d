//! The profile of a node, from MeshConfig, from the ProxyConfig that the node sends, and from the rest of its metadata.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use meltemi_config::mesh::{
    self, AccessLogEncoding, ExtensionProvider, MeshConfig, MeshTlsProtocol, ProxyTracing, TraceContextOption,
};
use meltemi_model::{Node, Snapshot};
use serde_json::Value;

use super::{
    AccessLog, AddressFamilies, CurrentCertDetails, ForwardClientCert, GatewayTopology, JsonField, LogFormat, MeshTls,
    OpenTelemetry, PathNormalization, Profile, ProxyHeaders, ServerHeader, ServerTlsDefaults, TraceTag, Tracing,
    TracingProvider, Zipkin,
};
use crate::dialect::Dialect;
use crate::listener::TlsVersion;
use crate::names;

/// Istio's `PILOT_TRACE_SAMPLING`: 1 %.
const DEFAULT_SAMPLING_PPM: u32 = 10_000;

/// Istio's default access log line.
const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n"
);

/// Istio's default fields of a JSON access log.
const JSON_FORMAT: [(&str, &str); 24] = [
    ("authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
];

/// `find_service` gives the host name of the service that a provider names (`host` or `namespace/host`).
pub fn resolve(snapshot: &Snapshot, node: &Node, find_service: &dyn Fn(&str) -> Option<Arc<str>>) -> Profile {
    let mesh: &MeshConfig = &snapshot.mesh;
    let proxy = ProxySettings::of(mesh, node);
    let mut trust_domains = vec![mesh.trust_domain.to_string()];
    trust_domains.extend(mesh.trust_domain_aliases.iter().map(ToString::to_string));
    Profile {
        dialect: Dialect::of(node),
        addresses: families(node),
        headers: headers(proxy.headers.as_ref()),
        gateway: proxy.topology.as_ref().map(topology).unwrap_or_default(),
        access_logs: access_logs(mesh, find_service),
        listener_access_log: !mesh.disable_envoy_listener_log,
        tracing: tracing(mesh, node, proxy.tracing.as_ref(), find_service),
        metrics: reports_metrics(mesh),
        idle_timeout: node.text("IDLE_TIMEOUT").and_then(|text| meltemi_config::parse_duration(text).ok()),
        path_normalization: path_normalization(mesh),
        trust_domains,
        mesh_tls: mesh_tls(mesh),
        server_tls: server_tls(mesh),
        compliance: snapshot.options.compliance,
        default_retry: mesh.default_http_retry_policy.clone(),
        default_inbound_retry: mesh.default_inbound_http_retry_policy.clone(),
        protocol_detection_timeout: Some(mesh.protocol_detection_timeout),
        accept_http10: node.text("HTTP10") == Some("1"),
        preserve_header_case: proxy.headers.as_ref().is_some_and(|h| h.preserve_http1_header_case == Some(true)),
        inbound_exact_balance: node.flag("INBOUND_LISTENER_EXACT_BALANCE"),
        outbound_exact_balance: node.flag("OUTBOUND_LISTENER_EXACT_BALANCE"),
        on_demand: node.on_demand(),
        sessions: snapshot.options.sessions.enabled,
    }
}

/// The parts of ProxyConfig that matter here: the node's own where it sends them, else the mesh's.
struct ProxySettings {
    headers: Option<mesh::ProxyHeaders>,
    topology: Option<mesh::Topology>,
    tracing: Option<ProxyTracing>,
}

impl ProxySettings {
    fn of(mesh: &MeshConfig, node: &Node) -> Self {
        let default = &mesh.default_config;
        let own = node.metadata.get("PROXY_CONFIG").and_then(Value::as_object);
        // A part that does not parse is the node's mistake and falls back to the mesh's.
        fn part<T: serde::de::DeserializeOwned>(own: Option<&serde_json::Map<String, Value>>, key: &str) -> Option<T> {
            serde_json::from_value(own?.get(key)?.clone()).ok()
        }
        Self {
            headers: part(own, "proxyHeaders").or_else(|| default.proxy_headers.clone()),
            topology: part(own, "gatewayTopology").or_else(|| default.gateway_topology.clone()),
            tracing: part(own, "tracing").or_else(|| default.tracing.clone()),
        }
    }
}

fn families(node: &Node) -> AddressFamilies {
    let mut addresses = node.ip_addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    let (mut v4, mut v6) = (false, false);
    for address in &mut addresses {
        match address {
            IpAddr::V4(_) => v4 = true,
            // A link-local address alone does not make a dual stack.
            IpAddr::V6(address) => v6 |= !address.is_unicast_link_local(),
        }
    }
    match (v4, v6) {
        (false, true) => AddressFamilies::V6,
        (true, true) if node.flag("ISTIO_DUAL_STACK") => AddressFamilies::Dual,
        _ => AddressFamilies::V4,
    }
}

fn headers(settings: Option<&mesh::ProxyHeaders>) -> ProxyHeaders {
    let mut headers = ProxyHeaders::default();
    let Some(settings) = settings else { return headers };
    let off = |switch: &Option<mesh::HeaderSwitch>| switch.as_ref().is_some_and(|s| s.disabled == Some(true));
    let on = |option: &Option<mesh::HeaderOptIn>| option.as_ref().is_some_and(|o| o.enabled == Some(true));
    headers.attempt_count = !off(&settings.attempt_count);
    headers.request_id = !off(&settings.request_id);
    headers.debug_headers = !off(&settings.envoy_debug_headers);
    headers.x_forwarded_host = on(&settings.x_forwarded_host);
    headers.x_forwarded_port = on(&settings.x_forwarded_port);
    if let Some(forward) = forward_client_cert(settings.forwarded_client_cert) {
        headers.forwarded_client_cert = forward;
    }
    if let Some(server) = &settings.server {
        headers.server = match (&*server.value, server.disabled) {
            (_, Some(true)) => ServerHeader::PassThrough,
            ("", _) => ServerHeader::Default,
            (_, _) => ServerHeader::Named(server.value.clone()),
        };
    }
    headers.metadata_exchange_in_mesh_only =
        settings.metadata_exchange_headers.as_ref().is_some_and(|m| m.mode == mesh::MetadataExchangeMode::InMesh);
    if let Some(details) = &settings.set_current_client_cert_details {
        let default = headers.current_cert;
        headers.current_cert = CurrentCertDetails {
            subject: details.subject.unwrap_or(default.subject),
            cert: details.cert.unwrap_or(default.cert),
            chain: details.chain.unwrap_or(default.chain),
            dns: details.dns.unwrap_or(default.dns),
            uri: details.uri.unwrap_or(default.uri),
        };
    }
    headers
}

fn forward_client_cert(details: mesh::ForwardClientCertDetails) -> Option<ForwardClientCert> {
    match details {
        mesh::ForwardClientCertDetails::Undefined => None,
        mesh::ForwardClientCertDetails::Sanitize => Some(ForwardClientCert::Sanitize),
        mesh::ForwardClientCertDetails::ForwardOnly => Some(ForwardClientCert::ForwardOnly),
        mesh::ForwardClientCertDetails::AppendForward => Some(ForwardClientCert::AppendForward),
        mesh::ForwardClientCertDetails::SanitizeSet => Some(ForwardClientCert::SanitizeSet),
        mesh::ForwardClientCertDetails::AlwaysForwardOnly => Some(ForwardClientCert::AlwaysForwardOnly),
    }
}

fn topology(settings: &mesh::Topology) -> GatewayTopology {
    let default = GatewayTopology::default();
    GatewayTopology {
        trusted_proxies: settings.num_trusted_proxies,
        forward_client_cert: forward_client_cert(settings.forward_client_cert_details)
            .unwrap_or(default.forward_client_cert),
        proxy_protocol: settings.proxy_protocol.is_some(),
    }
}

fn path_normalization(mesh: &MeshConfig) -> PathNormalization {
    match mesh.path_normalization.normalization {
        mesh::PathNormalization::None => PathNormalization::None,
        mesh::PathNormalization::Default | mesh::PathNormalization::Base => PathNormalization::Base,
        mesh::PathNormalization::MergeSlashes => PathNormalization::MergeSlashes,
        mesh::PathNormalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
    }
}

fn mesh_tls(mesh: &MeshConfig) -> MeshTls {
    let settings = mesh.mesh_mtls.as_ref();
    let minimum = match settings.map(|s| s.min_protocol_version) {
        Some(MeshTlsProtocol::V1_3) => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    };
    let list = |values: Option<&[Arc<str>]>| values.unwrap_or_default().iter().map(ToString::to_string).collect();
    MeshTls {
        minimum,
        ciphers: list(settings.map(|s| s.cipher_suites.as_slice())),
        curves: list(settings.map(|s| s.ecdh_curves.as_slice())),
    }
}

fn server_tls(mesh: &MeshConfig) -> ServerTlsDefaults {
    let Some(settings) = &mesh.tls_defaults else { return ServerTlsDefaults::default() };
    ServerTlsDefaults {
        minimum: match settings.min_protocol_version {
            MeshTlsProtocol::Auto => None,
            MeshTlsProtocol::V1_2 => Some(TlsVersion::V1_2),
            MeshTlsProtocol::V1_3 => Some(TlsVersion::V1_3),
        },
        ciphers: settings.cipher_suites.iter().map(ToString::to_string).collect(),
        curves: settings.ecdh_curves.iter().map(ToString::to_string).collect(),
    }
}

/// Istio's installation makes Prometheus the provider; a mesh that names others only gets no metrics from the proxy.
fn reports_metrics(mesh: &MeshConfig) -> bool {
    let providers = &mesh.default_providers.metrics;
    providers.is_empty() || providers.iter().any(|name| mesh.provider(name).is_some_and(|p| p.prometheus.is_some()))
}

fn access_logs(mesh: &MeshConfig, find_service: &dyn Fn(&str) -> Option<Arc<str>>) -> Vec<AccessLog> {
    let providers = &mesh.default_providers.access_logging;
    if providers.is_empty() {
        let file = (!mesh.access_log_file.is_empty()).then(|| mesh_file_log(mesh, &mesh.access_log_file));
        return file.into_iter().collect();
    }
    let known = providers.iter().filter_map(|name| mesh.provider(name));
    known.filter_map(|provider| provider_log(mesh, provider, find_service)).collect()
}

fn mesh_file_log(mesh: &MeshConfig, path: &Arc<str>) -> AccessLog {
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => LogFormat::Text(text_format(&mesh.access_log_format)),
        AccessLogEncoding::Json => json_format(&mesh.access_log_format),
    };
    AccessLog::File { path: path.clone(), format, omit_empty: false }
}

fn text_format(own: &Arc<str>) -> Arc<str> {
    if own.is_empty() {
        return TEXT_FORMAT.into();
    }
    if own.ends_with('\n') { own.clone() } else { format!("{own}\n").into() }
}

fn default_json() -> LogFormat {
    LogFormat::Json(
        JSON_FORMAT.iter().map(|(name, format)| ((*name).into(), JsonField::Text((*format).into()))).collect(),
    )
}

/// A format that is no JSON object is as if it were not there, as in Istio.
fn json_format(own: &str) -> LogFormat {
    match serde_json::from_str::<Value>(own) {
        Ok(Value::Object(fields)) => LogFormat::Json(json_fields(&fields)),
        _ => default_json(),
    }
}

fn json_fields(fields: &serde_json::Map<String, Value>) -> BTreeMap<Arc<str>, JsonField> {
    let field = |value: &Value| match value {
        Value::String(text) => JsonField::Text(text.as_str().into()),
        Value::Object(fields) => JsonField::Object(json_fields(fields)),
        other => JsonField::Raw(other.to_string().into()),
    };
    fields.iter().map(|(name, value)| (name.as_str().into(), field(value))).collect()
}

fn provider_log(
    mesh: &MeshConfig,
    provider: &ExtensionProvider,
    find_service: &dyn Fn(&str) -> Option<Arc<str>>,
) -> Option<AccessLog> {
    if let Some(file) = &provider.envoy_file_access_log {
        let path = if file.path.is_empty() { Arc::from("/dev/stdout") } else { file.path.clone() };
        let format = match &file.log_format {
            // The built-in provider without a format of its own writes the mesh's.
            None if &*provider.name == "envoy" && !file.omit_empty_values => return Some(mesh_file_log(mesh, &path)),
            None => LogFormat::Text(TEXT_FORMAT.into()),
            Some(format) => match (&format.text, &format.labels) {
                (Some(text), _) => LogFormat::Text(text_format(text)),
                (None, Some(labels)) if !labels.is_empty() => LogFormat::Json(json_fields(labels)),
                (None, Some(_)) => default_json(),
                (None, None) => LogFormat::Text(TEXT_FORMAT.into()),
            },
        };
        return Some(AccessLog::File { path, format, omit_empty: file.omit_empty_values });
    }
    let (service, port, log_name, http) = match (&provider.envoy_http_als, &provider.envoy_tcp_als) {
        (Some(als), _) => (&als.service, als.port, &als.log_name, true),
        (None, Some(als)) => (&als.service, als.port, &als.log_name, false),
        (None, None) => return None,
    };
    let host = find_service(service)?;
    let default_name = if http { "http_envoy_accesslog" } else { "tcp_envoy_accesslog" };
    Some(AccessLog::Grpc {
        cluster: names::outbound(port, "", &host).into(),
        authority: host,
        http,
        log_name: if log_name.is_empty() { default_name.into() } else { log_name.clone() },
    })
}

fn tracing(
    mesh: &MeshConfig,
    node: &Node,
    settings: Option<&ProxyTracing>,
    find_service: &dyn Fn(&str) -> Option<Arc<str>>,
) -> Option<Tracing> {
    let named = mesh.default_providers.tracing.first().and_then(|name| mesh.provider(name));
    let (provider, max_length) = match named {
        Some(provider) => {
            let (provider, length) = tracing_provider(node, provider, find_service)?;
            (Some(provider), length)
        }
        None if !mesh.enable_tracing => return None,
        // Without a provider of its own the manager uses the bootstrap's, unless the collector is a service of the mesh.
        None => (settings.and_then(|s| legacy_zipkin(s, find_service)), 0),
    };
    let declared = settings.map_or(0, |s| s.max_path_tag_length);
    let length = if max_length != 0 { max_length } else { declared };
    Some(Tracing {
        sampling_ppm: settings.map_or(DEFAULT_SAMPLING_PPM, sampling),
        provider,
        tags: trace_tags(node, settings),
        max_path_tag_length: (length != 0).then_some(length),
        spawn_upstream_span: named.is_some() && node.is_router(),
    })
}

fn sampling(settings: &ProxyTracing) -> u32 {
    match settings.sampling.value() {
        value if value <= 0.0 => DEFAULT_SAMPLING_PPM,
        value if value > 100.0 => DEFAULT_SAMPLING_PPM,
        value => (value * 10_000.0) as u32,
    }
}

fn tracing_provider(
    node: &Node,
    provider: &ExtensionProvider,
    find_service: &dyn Fn(&str) -> Option<Arc<str>>,
) -> Option<(TracingProvider, u32)> {
    if let Some(zipkin) = &provider.zipkin {
        let hostname = find_service(&zipkin.service)?;
        let path = if zipkin.path.is_empty() { Arc::from("/api/v2/spans") } else { zipkin.path.clone() };
        let resolved = Zipkin {
            cluster: names::outbound(zipkin.port, "", &hostname).into(),
            hostname,
            path,
            short_trace_ids: zipkin.enable_64bit_trace_id,
            with_w3c: zipkin.trace_context_option == TraceContextOption::UseB3WithW3cPropagation,
        };
        return Some((TracingProvider::Zipkin(resolved), zipkin.max_tag_length));
    }
    let otel = provider.opentelemetry.as_ref()?;
    let hostname = find_service(&otel.service)?;
    let cluster = names::outbound(otel.port, "", &hostname).into();
    let service_name = otel_service_name(node);
    let headers = |headers: &[mesh::ProviderHeader]| {
        headers.iter().filter_map(|h| Some((h.name.clone(), h.value.clone()?))).collect::<Vec<_>>()
    };
    let resolved = match &otel.http {
        Some(http) => TracingProvider::OpenTelemetryHttp(OpenTelemetry {
            cluster,
            target: format!("{hostname}/{}", http.path.trim_start_matches('/')).into(),
            service_name,
            timeout: http.timeout,
            headers: headers(&http.headers),
        }),
        None => TracingProvider::OpenTelemetryGrpc(OpenTelemetry {
            cluster,
            target: hostname,
            service_name,
            timeout: otel.grpc.as_ref().and_then(|grpc| grpc.timeout),
            headers: otel.grpc.as_ref().map(|grpc| headers(&grpc.initial_metadata)).unwrap_or_default(),
        }),
    };
    Some((resolved, otel.max_tag_length))
}

fn otel_service_name(node: &Node) -> Arc<str> {
    let app = node.labels.get("app").or_else(|| node.labels.get("app.kubernetes.io/name"));
    match app {
        Some(app) => format!("{app}.{}", node.namespace).into(),
        None => {
            node.text("WORKLOAD_NAME").map_or_else(|| node.name.clone(), |n| format!("{n}.{}", node.namespace).into())
        }
    }
}

fn legacy_zipkin(settings: &ProxyTracing, find_service: &dyn Fn(&str) -> Option<Arc<str>>) -> Option<TracingProvider> {
    let (host, port) = names::host_and_port(&settings.zipkin.as_ref()?.address)?;
    let hostname = find_service(host)?;
    Some(TracingProvider::Zipkin(Zipkin {
        cluster: names::outbound(port, "", &hostname).into(),
        hostname,
        path: "/api/v2/spans".into(),
        short_trace_ids: false,
        with_w3c: false,
    }))
}

fn trace_tags(node: &Node, settings: Option<&ProxyTracing>) -> BTreeMap<Arc<str>, TraceTag> {
    let mut tags = BTreeMap::new();
    if settings.and_then(|s| s.enable_istio_tags) != Some(false) {
        let label = |name: &str, default: &str| node.labels.get(name).map_or_else(|| default.into(), Arc::clone);
        let text = |key: &str| node.text(key).filter(|text| !text.is_empty()).unwrap_or("unknown").into();
        let literals: [(&str, Arc<str>); 5] = [
            ("istio.canonical_revision", label("service.istio.io/canonical-revision", "latest")),
            ("istio.canonical_service", label("service.istio.io/canonical-name", "unknown")),
            ("istio.mesh_id", text("MESH_ID")),
            ("istio.namespace", node.namespace.clone()),
            ("istio.cluster_id", text("CLUSTER_ID")),
        ];
        tags.extend(literals.into_iter().map(|(name, value)| (name.into(), TraceTag::Literal(value))));
        let dry_run = [
            ("istio.authorization.dry_run.allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
            ("istio.authorization.dry_run.allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
            ("istio.authorization.dry_run.deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
            ("istio.authorization.dry_run.deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
        ];
        tags.extend(dry_run.into_iter().map(|(name, key)| (name.into(), TraceTag::Rbac(key))));
    }
    for (name, tag) in settings.map(|s| &s.custom_tags).into_iter().flatten() {
        let resolved = if let Some(literal) = &tag.literal {
            TraceTag::Literal(literal.value.clone())
        } else if let Some(environment) = &tag.environment {
            TraceTag::Environment { name: environment.name.clone(), default: environment.default_value.clone() }
        } else if let Some(header) = &tag.header {
            TraceTag::Header { name: header.name.clone(), default: header.default_value.clone() }
        } else {
            continue;
        };
        tags.insert(name.clone(), resolved);
    }
    tags
}
