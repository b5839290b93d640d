//! The rows of the support table. A row that no field matches is a test failure.

use crate::kind::Kind;

/// A field, or some values of it, that are not enforced yet.
pub(super) struct Row {
    pub kinds: &'static [Kind],
    /// As in `Field::path`; everything below it is covered. Empty: the whole kind.
    pub path: &'static str,
    /// Empty: whatever the value.
    pub values: &'static [&'static str],
    pub note: &'static str,
    /// Istio accepts it as well and makes nothing of it, so there is nothing to come.
    pub inert: bool,
}

const fn kind(kinds: &'static [Kind], note: &'static str) -> Row {
    Row { kinds, path: "", values: &[], note, inert: false }
}

const fn field(kinds: &'static [Kind], path: &'static str) -> Row {
    Row { kinds, path, values: &[], note: "", inert: false }
}

const fn inert(kinds: &'static [Kind], path: &'static str, note: &'static str) -> Row {
    Row { kinds, path, values: &[], note, inert: true }
}

const fn values(kinds: &'static [Kind], path: &'static str, values: &'static [&'static str]) -> Row {
    Row { kinds, path, values, note: "", inert: false }
}

const fn mesh(path: &'static str) -> Row {
    Row { kinds: &[], path, values: &[], note: "", inert: false }
}

const VS: &[Kind] = &[Kind::VirtualService];
const GATEWAY: &[Kind] = &[Kind::Gateway];
const SIDECAR: &[Kind] = &[Kind::Sidecar];
const CLASS: &[Kind] = &[Kind::GatewayClass];
const KUBERNETES_GATEWAY: &[Kind] = &[Kind::KubernetesGateway];
const ROUTES: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TcpRoute, Kind::TlsRoute];
const HTTP_ROUTE: &[Kind] = &[Kind::HttpRoute];
const SERVICE: &[Kind] = &[Kind::Service];
const POLICIES: &[Kind] = &[Kind::AuthorizationPolicy, Kind::RequestAuthentication];

const WAYPOINT_TARGETS: &[&str] = &["Service", "ServiceEntry", "GatewayClass"];
const NO_WAYPOINTS: &str = "a waypoint's policy: it applies to no sidecar and to no gateway";

const ONE_ROOT: &str = "clients are validated by the caCertificates beside tlsCertificates";

const NO_SIGNERS: &str = "there is one authority; roots for a signer are not used";
const OWN_DOMAIN: &str = "only roots for the mesh's own trust domain or an alias of it are used";

const TRAFFIC_POLICY: &[Kind] = &[Kind::XBackendTrafficPolicy];
const BACKEND: &[Kind] = &[Kind::XBackend];
const NO_CLIENT_CERTIFICATE: &str = "it is checked, and shown to no backend";
const REFUSED_BACKEND: &str = "the backend is refused, and its status says so";
const UNSUPPORTED_FILTERS: &[&str] = &["ExternalAuth", "ExtensionRef"];
const NO_FILTER: &str = "the route is then not in force, and its status says so";

pub(super) static ROWS: &[Row] = &[
    Row { note: NO_WAYPOINTS, ..values(POLICIES, "spec.targetRef.kind", WAYPOINT_TARGETS) },
    Row { note: NO_WAYPOINTS, ..values(POLICIES, "spec.targetRefs[].kind", WAYPOINT_TARGETS) },
    kind(&[Kind::Telemetry], "MeshConfig's defaults apply"),
    kind(&[Kind::EnvoyFilter, Kind::WasmPlugin, Kind::TrafficExtension], ""),
    Row { note: "a proxy is this binary, or the Envoy it was told of", ..field(&[Kind::ProxyConfig], "spec.image") },
    inert(VS, "spec.tcp[].match[].sourceSubnet", "use sourceLabels or sourceNamespace"),
    inert(GATEWAY, "spec.servers[].defaultEndpoint", "route with a VirtualService"),
    inert(GATEWAY, "spec.servers[].tls.tlsCertificates[].caCertificates", ONE_ROOT),
    inert(SIDECAR, "spec.ingress[].tls.tlsCertificates[].caCertificates", ONE_ROOT),
    values(KUBERNETES_GATEWAY, "spec.gatewayClassName", &["istio-waypoint", "istio-east-west"]),
    inert(KUBERNETES_GATEWAY, "spec.defaultScope", "routes name their Gateway in parentRefs"),
    Row { note: NO_CLIENT_CERTIFICATE, ..field(KUBERNETES_GATEWAY, "spec.tls.backend") },
    inert(CLASS, "spec.parametersRef", ""),
    inert(&[Kind::BackendTlsPolicy], "spec.options", ""),
    inert(TRAFFIC_POLICY, "spec.sessionPersistence", "the policy's status says so"),
    inert(TRAFFIC_POLICY, "spec.retryConstraint.minRetryRate.interval", "count is how many may be in flight"),
    inert(BACKEND, "spec.port.name", ""),
    inert(BACKEND, "spec.protocol", "the protocol is the ServiceEntry's"),
    Row { note: REFUSED_BACKEND, inert: true, ..values(BACKEND, "spec.tls.mode", &["ClientAndServer"]) },
    inert(BACKEND, "spec.tls.clientCertificateRef", REFUSED_BACKEND),
    kind(
        &[Kind::InferencePool],
        "no endpoint picker is asked; routes to it are refused unless a Service stands for it",
    ),
    inert(ROUTES, "spec.useDefaultGateways", "name the Gateway in parentRefs"),
    inert(&[Kind::HttpRoute, Kind::GrpcRoute], "spec.rules[].sessionPersistence", ""),
    Row {
        note: NO_FILTER,
        inert: true,
        ..values(&[Kind::GrpcRoute], "spec.rules[].filters[].type", &["ExtensionRef"])
    },
    Row { note: NO_FILTER, inert: true, ..values(HTTP_ROUTE, "spec.rules[].filters[].type", UNSUPPORTED_FILTERS) },
    values(SERVICE, "spec.sessionAffinity", &["ClientIP"]),
    field(SERVICE, "spec.externalIPs"),
];

pub(super) static MESH_ROWS: &[Row] = &[
    mesh("configSources"),
    mesh("enableEnvoyAccessLogService"),
    mesh("certificates"),
    Row { note: NO_SIGNERS, ..mesh("caCertificates[].certSigners") },
    Row { note: OWN_DOMAIN, ..mesh("caCertificates[].trustDomains") },
    mesh("ca"),
    mesh("discoverySelectors"),
    mesh("serviceSettings"),
    mesh("serviceScopeConfigs"),
    mesh("serviceEntryVisibility"),
    mesh("enablePrometheusMerge"),
    mesh("hboneIdleTimeout"),
    mesh("verifyCertificateAtClient"),
    mesh("extensionProviders[].datadog"),
    mesh("extensionProviders[].skywalking"),
    mesh("extensionProviders[].lightstep"),
    mesh("extensionProviders[].opencensus"),
    mesh("extensionProviders[].envoyOtelAls"),
    mesh("extensionProviders[].envoyHttpAls.filterStateObjectsToLog"),
    mesh("extensionProviders[].envoyHttpAls.additionalRequestHeadersToLog"),
    mesh("extensionProviders[].envoyHttpAls.additionalResponseHeadersToLog"),
    mesh("extensionProviders[].envoyHttpAls.additionalResponseTrailersToLog"),
    mesh("extensionProviders[].envoyTcpAls.filterStateObjectsToLog"),
    mesh("extensionProviders[].zipkin.timeout"),
    mesh("extensionProviders[].zipkin.headers"),
    mesh("extensionProviders[].opentelemetry.resourceDetectors"),
    mesh("extensionProviders[].opentelemetry.serviceAttributeEnrichment"),
    mesh("extensionProviders[].opentelemetry.dynatraceSampler"),
    mesh("defaultConfig.customConfigFile"),
    mesh("defaultConfig.proxyBootstrapTemplatePath"),
    mesh("defaultConfig.discoveryRefreshDelay"),
    mesh("defaultConfig.zipkinAddress"),
    mesh("defaultConfig.statsdUdpAddress"),
    mesh("defaultConfig.envoyMetricsServiceAddress"),
    mesh("defaultConfig.availabilityZone"),
    mesh("defaultConfig.tracingServiceName"),
    mesh("defaultConfig.statNameLength"),
    mesh("defaultConfig.sds"),
    mesh("defaultConfig.envoyAccessLogService"),
    mesh("defaultConfig.envoyMetricsService"),
    mesh("defaultConfig.runtimeValues"),
    mesh("defaultConfig.extraStatTags"),
    mesh("defaultConfig.proxyStatsMatcher"),
    mesh("defaultConfig.holdApplicationUntilProxyStarts"),
    mesh("defaultConfig.caCertificatesPem"),
    mesh("defaultConfig.privateKeyProvider"),
    mesh("defaultConfig.fileFlushInterval"),
    mesh("defaultConfig.fileFlushMinSizeKb"),
    mesh("defaultConfig.statsCompression"),
    mesh("defaultConfig.connectionSettings"),
];
