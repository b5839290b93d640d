//! Names of components: ours, and Envoy's for what ours do.

/// What `/logging` lists.
pub const COMPONENTS: &[&str] = &[
    "agent",
    "ca",
    "config",
    "discovery",
    "filters",
    "http",
    "local",
    "meltemi",
    "model",
    "net",
    "netfilter",
    "plan",
    "proto",
    "proxy",
    "push",
    "registry",
    "store",
    "telemetry",
    "tls",
    "translate",
    "upstream",
    "xds",
];

/// Envoy's loggers with what of ours says the same things.
const ENVOY: &[(&str, &[&str])] = &[
    ("admin", &["proxy"]),
    ("client", &["http"]),
    ("conn_handler", &["net", "proxy"]),
    ("connection", &["net"]),
    ("dns", &["upstream"]),
    ("ext_authz", &["filters"]),
    ("filter", &["filters"]),
    ("grpc", &["xds"]),
    ("hc", &["upstream"]),
    ("health_checker", &["upstream"]),
    ("http2", &["http"]),
    ("init", &["proxy"]),
    ("io", &["net"]),
    ("jwt", &["filters"]),
    ("local_rate_limit", &["filters"]),
    ("main", &["meltemi", "proxy"]),
    ("pool", &["http", "upstream"]),
    ("rbac", &["filters"]),
    ("rds", &["proxy"]),
    ("router", &["proxy"]),
    ("secret", &["tls"]),
    ("stats", &["telemetry"]),
    ("tracing", &["telemetry"]),
];

/// Those of Envoy 1.40's loggers that have nothing of ours to say.
const SILENT: &[&str] = &[
    "a2a",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "assert",
    "aws",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "compression",
    "credential_injector",
    "decompression",
    "dubbo",
    "dynamic_modules",
    "envoy_bug",
    "ext_proc",
    "file",
    "forward_proxy",
    "geolocation",
    "golang",
    "happy_eyeballs",
    "hystrix",
    "ip_tagging",
    "json_rpc",
    "kafka",
    "key_value_store",
    "lua",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "quic",
    "quic_stream",
    "rate_limit_quota",
    "redis",
    "rocketmq",
    "runtime",
    "sse",
    "stats_sinks",
    "tap",
    "testing",
    "thrift",
    "udp",
    "wasm",
    "websocket",
];

/// Our components behind a name; `None` for a name that neither side has.
pub(super) fn modules(name: &str) -> Option<&'static [&'static str]> {
    if let Some(at) = COMPONENTS.iter().position(|known| *known == name) {
        return Some(&COMPONENTS[at..=at]);
    }
    let theirs = ENVOY.iter().find(|(known, _)| *known == name).map(|(_, modules)| *modules);
    theirs.or_else(|| SILENT.contains(&name).then_some(&[]))
}
