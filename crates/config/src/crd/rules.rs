//! What is demanded of fields beyond their types. A row that is about nothing is a test failure.
//!
//! Rules are what an API server can check without a webhook: no document that validation (`validate`) accepts is refused
//! by them, but for values that are written and empty. Messages are Istio's, as users know and tests look for them.

use serde_json::{Value, json};

use crate::kind::Kind;

/// Rules about one place.
pub(super) struct Row {
    pub about: Subject,
    pub rules: &'static [Rule],
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// A struct, wherever it is used.
    Struct(&'static str),
    /// A field of a struct; `[]` and `{}` after its name stand for the elements.
    Field(&'static str, &'static str),
    /// A path within the `spec` of a kind, where others use the same struct with other rules. Empty: the `spec`.
    Path(Kind, &'static str),
}

#[derive(Debug)]
pub(super) enum Rule {
    Required(&'static [&'static str]),
    /// protobuf's `oneof`.
    AtMostOne(&'static [&'static str]),
    MinItems(u32),
    MaxItems(u32),
    MinLength(u32),
    MaxLength(u32),
    MinProperties(u32),
    MaxProperties(u32),
    Minimum(i64),
    Maximum(i64),
    Pattern(&'static str),
    /// No two elements of the list have this field in common.
    Keyed(&'static str),
    Cel(&'static Cel),
    /// The field of this name is also known by another one.
    Alias(&'static str, &'static str),
    /// A duration that may be shorter than a millisecond.
    AnyDuration,
}

impl Rule {
    /// The other name of a field.
    pub fn alias_of(&self, field: &str) -> Option<&'static str> {
        match self {
            Self::Alias(name, alias) if *name == field => Some(alias),
            _ => None,
        }
    }

    /// True if the field is one of a choice.
    pub fn chooses(&self, field: &str) -> bool {
        matches!(self, Self::AtMostOne(names) if names.contains(&field))
    }
}

/// A rule in the Common Expression Language, as API servers evaluate it.
#[derive(Debug)]
pub(super) struct Cel {
    rule: &'static str,
    message: &'static str,
}

impl Cel {
    pub fn json(&self) -> Value {
        json!({"rule": self.rule, "message": self.message})
    }
}

const fn cel(rule: &'static str, message: &'static str) -> Cel {
    Cel { rule, message }
}

const fn of(name: &'static str, rules: &'static [Rule]) -> Row {
    Row { about: Subject::Struct(name), rules }
}

const fn field(name: &'static str, field: &'static str, rules: &'static [Rule]) -> Row {
    Row { about: Subject::Field(name, field), rules }
}

const fn path(kind: Kind, path: &'static str, rules: &'static [Rule]) -> Row {
    Row { about: Subject::Path(kind, path), rules }
}

pub(super) static AT_LEAST_1_MS: Cel =
    cel("duration(self) >= duration('1ms')", "must be a valid duration greater than 1ms");

static PORT: Cel = cel("0 < self && self <= 65535", "port must be between 1-65535");
static KEY_WITHOUT_STAR: Cel = cel("self.all(key, !key.contains('*'))", "wildcard not allowed in label key match");
static KEY_NOT_EMPTY: Cel = cel("self.all(key, key.size() != 0)", "key must not be empty");
static VALUE_WITHOUT_STAR: Cel = cel("!self.contains('*')", "wildcard not allowed in label value match");
static SELECTOR_WITHOUT_STAR: Cel = cel("!self.contains('*')", "wildcard is not supported in selector");
static OWN_NAMESPACE: Cel = cel("self.size() == 0", "cross namespace referencing is not currently supported");
static ONE_TARGET: Cel = cel(
    "[has(self.selector), has(self.targetRef), has(self.targetRefs)].filter(set, set).size() <= 1",
    "only one of targetRefs or selector can be set",
);
static TARGETS_OR_SELECTOR: Cel =
    cel("!has(self.selector) || !has(self.targetRefs)", "only one of targetRefs or selector can be set");
static TARGETS_OR_WORKLOADS: Cel = cel(
    "!has(self.workloadSelector) || !has(self.targetRefs)",
    "only one of targetRefs or workloadSelector can be set",
);

static NAMES_OR_CERTIFICATES: Cel = cel(
    "!has(self.tlsCertificates) || !has(self.credentialNames)",
    "only one of credentialNames or tlsCertificates can be set",
);
static NAME_OR_NAMES: Cel = cel(
    "!has(self.credentialName) || !has(self.credentialNames)",
    "only one of credentialName or credentialNames can be set",
);

static SELECTOR_OR_ENDPOINTS: Cel =
    cel("!has(self.workloadSelector) || !has(self.endpoints)", "only one of WorkloadSelector or Endpoints can be set");
static NO_CIDR: Cel = cel(
    "!has(self.addresses) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC'] || \
     self.addresses.all(address, !address.contains('/'))",
    "CIDR addresses are allowed only for NONE/STATIC resolution types",
);
static NO_ENDPOINTS: Cel = cel(
    "!has(self.endpoints) || (has(self.resolution) && self.resolution != 'NONE')",
    "NONE mode cannot set endpoints",
);
static ONE_ENDPOINT: Cel = cel(
    "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) || self.endpoints.size() <= 1",
    "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
);
static HOST_IS_NO_WILDCARD: Cel = cel("self != '*'", "hostname cannot be wildcard");
static PORT_ONCE: Cel =
    cel("self.all(one, self.exists_one(other, one.number == other.number))", "port number cannot be duplicated");

static ADDRESS_OR_NETWORK: Cel = cel("has(self.address) || has(self.network)", "Address is required");
static SOCKET_WITHOUT_PORTS: Cel =
    cel("!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)", "UDS may not include ports");
static SOCKET_IS_ABSOLUTE: Cel = cel(
    "!self.startsWith('unix://') || self.substring(7, 8) in ['/', '@']",
    "UDS must be an absolute path or abstract socket",
);
static SOCKET_IS_NO_FOLDER: Cel = cel("!self.startsWith('unix://') || !self.endsWith('/')", "UDS may not be a dir");
static PORT_NAMES: Cel = cel(
    "self.all(key, key.size() < 63 && key.matches('^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$'))",
    "port name must be valid",
);
static SCHEME: Cel = cel("self in ['', 'HTTP', 'HTTPS']", "scheme must be one of [HTTP, HTTPS]");

static WAYPOINT: Cel = cel(
    "has(self.waypoint) == (has(self.context) && self.context == 'WAYPOINT')",
    "only support waypointMatch when context is WAYPOINT",
);

static ACCOUNTS_ALONE: Cel = cel(
    "!(has(self.serviceAccounts) || has(self.notServiceAccounts)) || !(has(self.principals) || \
     has(self.notPrincipals) || has(self.namespaces) || has(self.notNamespaces))",
    "Cannot set serviceAccounts with namespaces or principals",
);
static PORTS_NEED_SELECTOR: Cel = cel(
    "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && \
     self.selector.matchLabels.size() > 0)",
    "portLevelMtls requires selector",
);
static PORT_KEYS: Cel = cel("self.all(key, 0 < int(key) && int(key) <= 65535)", "port must be between 1-65535");
static ONE_KEY_SET: Cel = cel(
    "[has(self.jwksUri), has(self.jwks_uri), has(self.jwks)].filter(set, set).size() <= 1",
    "only one of jwks or jwksUri can be set",
);
static HTTP_URL: Cel = cel("url(self).getScheme() in ['http', 'https']", "url must have scheme http:// or https://");

static VALUE_TO_UPSERT: Cel = cel(
    "!has(self.operation) || self.operation != 'UPSERT' || (has(self.value) && self.value != '')",
    "value must be set when operation is UPSERT",
);
static NO_VALUE_TO_REMOVE: Cel = cel(
    "!has(self.operation) || self.operation != 'REMOVE' || !has(self.value)",
    "value must not be set when operation is REMOVE",
);

static MODULE_URL: Cel = cel(
    "isURL(self) ? url(self).getScheme() in ['', 'http', 'https', 'file', 'oci'] : isURL('http://' + self)",
    "url must have schema one of [http, https, file, oci]",
);
static VALUE_OF_HOST: Cel = cel(
    "!has(self.valueFrom) || self.valueFrom != 'HOST' || !has(self.value)",
    "value may only be set when valueFrom is INLINE",
);
static WASM_OR_LUA: Cel = cel("has(self.wasm) != has(self.lua)", "exactly one of wasm or lua must be set");

static WINDOW: Cel =
    cel("duration(self) >= duration('1s') && duration(self) <= duration('1h')", "must be between 1s and 1h");
static GLOBAL_PROVIDER: Cel = cel(
    "has(self.provider) == (has(self.scope) && self.scope == 'GLOBAL')",
    "scope GLOBAL needs a provider, and LOCAL has none",
);
static UNIT_OR_INTERVAL: Cel = cel("has(self.unit) != has(self.interval)", "needs one of unit and interval");
static GATEWAYS_ONLY: Cel = cel("self.all(target, target.kind == 'Gateway')", "only Gateways are limited by reference");

const LABELS: &[Rule] = &[Rule::MaxProperties(4096), Rule::Cel(&KEY_WITHOUT_STAR), Rule::Cel(&KEY_NOT_EMPTY)];
const TARGETED: &[Rule] = &[Rule::Cel(&ONE_TARGET)];
const TARGETS: &[Rule] = &[Rule::MaxItems(16)];
const NAMED: &[Rule] = &[Rule::Required(&["name"])];
const NOT_EMPTY: &[Rule] = &[Rule::MinLength(1)];
const MAX_256_ENTRIES: &[Rule] = &[Rule::MaxProperties(256)];
const MAX_256_ITEMS: &[Rule] = &[Rule::MaxItems(256)];
const PORT_NUMBER: &[Rule] = &[Rule::Cel(&PORT)];
const NEEDS_PORT: &[Rule] = &[Rule::Required(&["port"])];
const NEEDS_DESTINATION: &[Rule] = &[Rule::Required(&["destination"])];
const NEEDS_HOSTS: &[Rule] = &[Rule::Required(&["hosts"])];
const NEEDS_URL: &[Rule] = &[Rule::Required(&["url"])];
const NEEDS_VALUE: &[Rule] = &[Rule::Required(&["value"])];
const PERCENT: &[Rule] = &[Rule::Minimum(0), Rule::Maximum(100)];
const NOT_NEGATIVE: &[Rule] = &[Rule::Minimum(0)];
const ONE_OR_TWO: &[Rule] = &[Rule::MinItems(1), Rule::MaxItems(2)];
const SHA256: &[Rule] = &[Rule::Pattern("(^$|^[a-f0-9]{64}$)")];
const URL: &[Rule] = &[Rule::MinLength(1), Rule::Cel(&MODULE_URL)];
const SECRET: &[Rule] = &[Rule::MinLength(1), Rule::MaxLength(253)];
const PLUGIN_NAME: &[Rule] = &[Rule::MinLength(1), Rule::MaxLength(256)];
const ACCOUNTS: &[Rule] = &[Rule::MaxItems(16)];
const ACCOUNT: &[Rule] = &[Rule::MaxLength(320)];
const MAX_2048: &[Rule] = &[Rule::MaxLength(2048)];
const MAX_512_ITEMS: &[Rule] = &[Rule::MaxItems(512)];
const HEADER_NAME: Rule = Rule::Pattern("^[-_A-Za-z0-9]+$");

pub(super) static ROWS: &[Row] = &[
    // Whom a document is for.
    field("LabelSelector", "matchLabels", LABELS),
    field("LabelSelector", "matchLabels{}", &[Rule::MaxLength(63), Rule::Cel(&VALUE_WITHOUT_STAR)]),
    field("WorkloadSelector", "labels", MAX_256_ENTRIES),
    field("WorkloadSelector", "labels{}", &[Rule::MaxLength(63), Rule::Cel(&SELECTOR_WITHOUT_STAR)]),
    of("PolicyTargetReference", &[Rule::Required(&["kind", "name"])]),
    field(
        "PolicyTargetReference",
        "group",
        &[Rule::MaxLength(253), Rule::Pattern(r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")],
    ),
    field(
        "PolicyTargetReference",
        "kind",
        &[Rule::MinLength(1), Rule::MaxLength(63), Rule::Pattern("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$")],
    ),
    field("PolicyTargetReference", "name", &[Rule::MinLength(1), Rule::MaxLength(253)]),
    field("PolicyTargetReference", "namespace", &[Rule::Cel(&OWN_NAMESPACE)]),
    // VirtualService.
    of("HttpRoute", &[Rule::Alias("mirrorPercent", "mirror_percent")]),
    of("HttpRouteDestination", NEEDS_DESTINATION),
    of("RouteDestination", NEEDS_DESTINATION),
    of("HttpMirrorPolicy", NEEDS_DESTINATION),
    of("Destination", &[Rule::Required(&["host"])]),
    of("HttpDirectResponse", &[Rule::Required(&["status"])]),
    of("HttpBody", &[Rule::AtMostOne(&["string", "bytes"])]),
    of("FaultDelay", &[Rule::AtMostOne(&["fixedDelay", "exponentialDelay"])]),
    of("FaultAbort", &[Rule::AtMostOne(&["httpStatus", "grpcStatus", "http2Error"])]),
    of("HttpRedirect", &[Rule::AtMostOne(&["port", "derivePort"])]),
    of("StringMatch", &[Rule::AtMostOne(&["exact", "prefix", "regex"])]),
    of("TlsRoute", &[Rule::Required(&["match"])]),
    of("TlsMatchAttributes", &[Rule::Required(&["sniHosts"])]),
    // DestinationRule.
    of("DestinationRule", &[Rule::Required(&["host"])]),
    of("Subset", NAMED),
    field("TrafficPolicy", "portLevelSettings", &[Rule::MaxItems(4096)]),
    // 0s is no timeout at all.
    field("TcpSettings", "idleTimeout", &[Rule::AnyDuration]),
    of("TunnelSettings", &[Rule::Required(&["targetHost", "targetPort"])]),
    of("LoadBalancerSettings", &[Rule::AtMostOne(&["simple", "consistentHash"])]),
    of(
        "ConsistentHashLb",
        &[
            Rule::AtMostOne(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]),
            Rule::AtMostOne(&["ringHash", "maglev"]),
        ],
    ),
    of("HttpCookie", NAMED),
    field("HttpCookie", "ttl", &[Rule::AnyDuration]),
    of("CookieAttribute", NAMED),
    of("WarmupConfiguration", &[Rule::Required(&["duration"])]),
    field("WarmupConfiguration", "minimumPercent", PERCENT),
    field("WarmupConfiguration", "aggression", NOT_NEGATIVE),
    field("ZoneAwareLbSetting", "minClusterSize", &[Rule::Minimum(1)]),
    field("OutlierDetection", "outlierDetectionHttpErrorCodes[]", &[Rule::Minimum(100), Rule::Maximum(599)]),
    field("RetryBudget", "percent", PERCENT),
    field("RetryBudget", "budgetInterval", &[Rule::AnyDuration]),
    // Gateway and Sidecar.
    of("Server", &[Rule::Required(&["port", "hosts"])]),
    path(Kind::Gateway, "servers[].port", &[Rule::Required(&["number", "protocol", "name"])]),
    of("ServerTlsSettings", &[Rule::Cel(&NAMES_OR_CERTIFICATES), Rule::Cel(&NAME_OR_NAMES)]),
    field("ServerTlsSettings", "credentialNames", ONE_OR_TWO),
    field("ServerTlsSettings", "tlsCertificates", ONE_OR_TWO),
    of("IstioIngressListener", NEEDS_PORT),
    of("IstioEgressListener", NEEDS_HOSTS),
    // ServiceEntry, WorkloadEntry and WorkloadGroup.
    of(
        "ServiceEntry",
        &[
            Rule::Required(&["hosts"]),
            Rule::Cel(&SELECTOR_OR_ENDPOINTS),
            Rule::Cel(&NO_CIDR),
            Rule::Cel(&NO_ENDPOINTS),
            Rule::Cel(&ONE_ENDPOINT),
        ],
    ),
    field("ServiceEntry", "hosts", &[Rule::MinItems(1), Rule::MaxItems(256)]),
    field("ServiceEntry", "hosts[]", &[Rule::Cel(&HOST_IS_NO_WILDCARD)]),
    field("ServiceEntry", "addresses", MAX_256_ITEMS),
    field("ServiceEntry", "addresses[]", &[Rule::MaxLength(64)]),
    field("ServiceEntry", "ports", &[Rule::MaxItems(256), Rule::Keyed("name"), Rule::Cel(&PORT_ONCE)]),
    field("ServiceEntry", "endpoints", &[Rule::MaxItems(4096)]),
    path(Kind::ServiceEntry, "endpoints[]", &[Rule::Cel(&ADDRESS_OR_NETWORK)]),
    path(Kind::WorkloadEntry, "", &[Rule::Cel(&ADDRESS_OR_NETWORK)]),
    of("ServicePort", &[Rule::Required(&["number", "name"])]),
    field("ServicePort", "number", PORT_NUMBER),
    field("ServicePort", "targetPort", PORT_NUMBER),
    field("ServicePort", "name", &[Rule::MaxLength(256)]),
    field("ServicePort", "protocol", &[Rule::MaxLength(256)]),
    of("WorkloadEntry", &[Rule::Cel(&SOCKET_WITHOUT_PORTS)]),
    field(
        "WorkloadEntry",
        "address",
        &[Rule::MaxLength(256), Rule::Cel(&SOCKET_IS_ABSOLUTE), Rule::Cel(&SOCKET_IS_NO_FOLDER)],
    ),
    field("WorkloadEntry", "ports", &[Rule::MaxProperties(128), Rule::Cel(&PORT_NAMES)]),
    field("WorkloadEntry", "ports{}", PORT_NUMBER),
    field("WorkloadEntry", "labels", MAX_256_ENTRIES),
    field("WorkloadEntry", "locality", MAX_2048),
    field("WorkloadEntry", "network", MAX_2048),
    field("WorkloadEntry", "serviceAccount", &[Rule::MaxLength(253)]),
    of("WorkloadGroup", &[Rule::Required(&["template"])]),
    field("WorkloadGroupMetadata", "labels", MAX_256_ENTRIES),
    field("WorkloadGroupMetadata", "annotations", MAX_256_ENTRIES),
    of("ReadinessProbe", &[Rule::AtMostOne(&["httpGet", "tcpSocket", "exec", "grpc"])]),
    field("ReadinessProbe", "initialDelaySeconds", NOT_NEGATIVE),
    field("ReadinessProbe", "timeoutSeconds", NOT_NEGATIVE),
    field("ReadinessProbe", "periodSeconds", NOT_NEGATIVE),
    field("ReadinessProbe", "successThreshold", NOT_NEGATIVE),
    field("ReadinessProbe", "failureThreshold", NOT_NEGATIVE),
    of("HttpHealthCheck", NEEDS_PORT),
    field("HttpHealthCheck", "port", PORT_NUMBER),
    field("HttpHealthCheck", "scheme", &[Rule::Cel(&SCHEME)]),
    field("HttpHeader", "name", &[HEADER_NAME]),
    of("TcpHealthCheck", NEEDS_PORT),
    field("TcpHealthCheck", "port", PORT_NUMBER),
    of("ExecHealthCheck", &[Rule::Required(&["command"])]),
    field("ExecHealthCheck", "command[]", NOT_EMPTY),
    field("GrpcHealthCheck", "port", PORT_NUMBER),
    // EnvoyFilter and ProxyConfig.
    of("EnvoyFilter", &[Rule::Cel(&TARGETS_OR_WORKLOADS)]),
    field("EnvoyFilter", "targetRefs", TARGETS),
    of(
        "EnvoyConfigObjectMatch",
        &[Rule::AtMostOne(&["listener", "routeConfiguration", "cluster", "waypoint"]), Rule::Cel(&WAYPOINT)],
    ),
    field("WaypointMatch", "portNumber", PORT_NUMBER),
    field("ProxyConfigResource", "concurrency", NOT_NEGATIVE),
    field("ProxyConfigResource", "environmentVariables{}", MAX_2048),
    // Security.
    of("PeerAuthentication", &[Rule::Cel(&PORTS_NEED_SELECTOR)]),
    field("PeerAuthentication", "portLevelMtls", &[Rule::MinProperties(1), Rule::Cel(&PORT_KEYS)]),
    of("RequestAuthentication", TARGETED),
    field("RequestAuthentication", "targetRefs", TARGETS),
    field("RequestAuthentication", "jwtRules", &[Rule::MaxItems(4096)]),
    of("JwtRule", &[Rule::Alias("jwksUri", "jwks_uri"), Rule::Cel(&ONE_KEY_SET)]),
    field("JwtRule", "issuer", NOT_EMPTY),
    field("JwtRule", "audiences[]", NOT_EMPTY),
    field("JwtRule", "jwksUri", &[Rule::MinLength(1), Rule::MaxLength(2048), Rule::Cel(&HTTP_URL)]),
    field("JwtRule", "fromParams[]", NOT_EMPTY),
    field("JwtRule", "fromCookies[]", NOT_EMPTY),
    field("JwtRule", "spaceDelimitedClaims", &[Rule::MaxItems(64)]),
    field("JwtRule", "spaceDelimitedClaims[]", NOT_EMPTY),
    of("JwtHeader", NAMED),
    field("JwtHeader", "name", NOT_EMPTY),
    of("ClaimToHeader", &[Rule::Required(&["header", "claim"])]),
    field("ClaimToHeader", "header", &[Rule::MinLength(1), HEADER_NAME]),
    field("ClaimToHeader", "claim", NOT_EMPTY),
    of("AuthorizationPolicy", TARGETED),
    field("AuthorizationPolicy", "targetRefs", TARGETS),
    field("AuthorizationPolicy", "rules", MAX_512_ITEMS),
    field("AuthorizationRule", "from", MAX_512_ITEMS),
    of("Source", &[Rule::Cel(&ACCOUNTS_ALONE)]),
    field("Source", "serviceAccounts", ACCOUNTS),
    field("Source", "serviceAccounts[]", ACCOUNT),
    field("Source", "notServiceAccounts", ACCOUNTS),
    field("Source", "notServiceAccounts[]", ACCOUNT),
    of("Condition", &[Rule::Required(&["key"])]),
    // Telemetry.
    of("Telemetry", TARGETED),
    field("Telemetry", "targetRefs", TARGETS),
    of("ProviderRef", NAMED),
    field("ProviderRef", "name", NOT_EMPTY),
    field("Tracing", "randomSamplingPercentage", PERCENT),
    of("TelemetryCustomTag", &[Rule::AtMostOne(&["literal", "environment", "header", "formatter"])]),
    of("LiteralTag", NEEDS_VALUE),
    field("LiteralTag", "value", NOT_EMPTY),
    of("EnvironmentTag", NAMED),
    field("EnvironmentTag", "name", NOT_EMPTY),
    of("HeaderTag", NAMED),
    field("HeaderTag", "name", NOT_EMPTY),
    of("FormatterTag", NEEDS_VALUE),
    field("FormatterTag", "value", NOT_EMPTY),
    of("MetricSelector", &[Rule::AtMostOne(&["metric", "customMetric"])]),
    field("MetricSelector", "customMetric", NOT_EMPTY),
    of("TagOverride", &[Rule::Cel(&VALUE_TO_UPSERT), Rule::Cel(&NO_VALUE_TO_REMOVE)]),
    // Extensions.
    of("WasmPlugin", &[Rule::Required(&["url"]), Rule::Cel(&ONE_TARGET)]),
    field("WasmPlugin", "targetRefs", TARGETS),
    field("WasmPlugin", "url", URL),
    field("WasmPlugin", "sha256", SHA256),
    field("WasmPlugin", "imagePullSecret", SECRET),
    field("WasmPlugin", "pluginName", PLUGIN_NAME),
    of(
        "TrafficExtension",
        &[Rule::AtMostOne(&["wasm", "lua"]), Rule::Cel(&TARGETS_OR_SELECTOR), Rule::Cel(&WASM_OR_LUA)],
    ),
    field("TrafficExtension", "targetRefs", TARGETS),
    of("WasmConfig", NEEDS_URL),
    field("WasmConfig", "url", URL),
    field("WasmConfig", "sha256", SHA256),
    field("WasmConfig", "imagePullSecret", SECRET),
    field("WasmConfig", "pluginName", PLUGIN_NAME),
    of("LuaConfig", &[Rule::Required(&["inlineCode"])]),
    field("LuaConfig", "inlineCode", &[Rule::MinLength(1), Rule::MaxLength(65536)]),
    field("VmConfig", "env", &[Rule::MaxItems(256), Rule::Keyed("name")]),
    of("EnvironmentVariable", &[Rule::Required(&["name"]), Rule::Cel(&VALUE_OF_HOST)]),
    field("EnvironmentVariable", "name", &[Rule::MinLength(1), Rule::MaxLength(256)]),
    field("EnvironmentVariable", "value", MAX_2048),
    field("TrafficSelector", "ports", &[Rule::Keyed("number")]),
    of("TrafficPort", &[Rule::Required(&["number"])]),
    field("TrafficPort", "number", &[Rule::Minimum(1), Rule::Maximum(65535)]),
    // Our own.
    field("AutomaticRetries", "maxAttempts", &[Rule::Minimum(1), Rule::Maximum(10)]),
    field("AutomaticRetryBudget", "percent", PERCENT),
    field("AdaptiveLoadBalancing", "windowSize", &[Rule::Cel(&WINDOW)]),
    of("RateLimitPolicy", &[Rule::Cel(&TARGETS_OR_SELECTOR)]),
    field("RateLimitPolicy", "targetRefs", &[Rule::MaxItems(16), Rule::Cel(&GATEWAYS_ONLY)]),
    field("RateLimitPolicy", "rules", &[Rule::MaxItems(64)]),
    of("RateLimitRule", &[Rule::Required(&["limit"]), Rule::Cel(&GLOBAL_PROVIDER)]),
    field("RateLimitRule", "name", &[Rule::MaxLength(63)]),
    field("RateLimitRule", "by", &[Rule::MaxItems(8)]),
    of("RateLimit", &[Rule::Cel(&UNIT_OR_INTERVAL)]),
    of("RateLimitProvider", &[Rule::Required(&["address"])]),
    field("RateLimitResponse", "headers", &[Rule::MaxProperties(10)]),
];
