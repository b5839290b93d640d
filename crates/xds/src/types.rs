//! Resource types and what the protocol says of each.

pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
pub const PROXY_CONFIG: &str = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig";
/// A report, not a subscription: whether the application beside a proxy serves, with `error_detail` where it does not.
pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// Istio's debug requests: a page of `/debug/`, by its name there.
pub const DEBUG: &str = "istio.io/debug";
/// What every proxy has been sent and has accepted, as `envoy.service.status.v3.ClientConfig`.
pub const DEBUG_SYNC: &str = "istio.io/debug/syncz";
/// What a proxy would be sent, as the sections of Envoy's config dump.
pub const DEBUG_CONFIG_DUMP: &str = "istio.io/debug/config_dump";

/// The order in which a change is sent so that nothing names what is not there yet.
/// <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations>
pub const PUSH_ORDER: [&str; 7] = [CLUSTER, ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, SECRET, NAME_TABLE];

/// Place of a type in [`PUSH_ORDER`]; types that are not there come last.
pub fn push_rank(type_url: &str) -> usize {
    PUSH_ORDER.iter().position(|known| *known == type_url).unwrap_or(PUSH_ORDER.len())
}

/// Whether a first request without names subscribes to everything. The named-only types are those that clients ask for by what
/// other resources refer to.
pub fn legacy_wildcard(type_url: &str) -> bool {
    !matches!(type_url, ENDPOINT | ROUTE | VIRTUAL_HOST | SECRET | EXTENSION_CONFIG)
}

/// Whether a state-of-the-world response is the complete set, so that what it lacks is gone.
pub fn is_full_state(type_url: &str) -> bool {
    matches!(type_url, CLUSTER | LISTENER)
}

/// Whether field 1 of the type is its name.
pub(crate) fn has_name(type_url: &str) -> bool {
    matches!(
        type_url,
        CLUSTER | ENDPOINT | LISTENER | ROUTE | VIRTUAL_HOST | SCOPED_ROUTE | SECRET | EXTENSION_CONFIG | RUNTIME
    )
}

/// The short name Istio prints and labels metrics with, such as `cds`.
pub fn short_name(type_url: &str) -> &'static str {
    match type_url {
        CLUSTER => "cds",
        ENDPOINT => "eds",
        LISTENER => "lds",
        ROUTE => "rds",
        VIRTUAL_HOST => "vhds",
        SECRET => "sds",
        NAME_TABLE => "nds",
        PROXY_CONFIG => "pcds",
        EXTENSION_CONFIG => "ecds",
        _ => "other",
    }
}
