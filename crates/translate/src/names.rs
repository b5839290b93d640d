//! The names of xDS resources, both ways: built from their parts and parsed back.
//!
//! Owns Istio's grammar of cluster, listener and route names, and of patterns for names of statistics. Proxies, dashboards and
//! `istioctl` parse these names, so they never change. Pure; building a name costs one allocation.

use std::fmt;

use meltemi_model::{RegistryKind, Service};

pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Where requests of hosts that no service claims are resolved one by one (`ALLOW_ANY_DYNAMIC_DNS`).
pub const ALLOW_ANY_DYNAMIC_DNS_CLUSTER: &str = "AllowAnyDynamicDNSCluster";
/// Its DNS cache.
pub const ALLOW_ANY_DNS_CACHE: &str = "allow_any_dfp_dns_cache";
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// The proxy's own workload, by which it balances over zones (`ISTIO_META_ENABLE_SELF_DISCOVERY`).
pub const LOCAL_CLUSTER: &str = "local_cluster";
/// What Istio names the cluster of a destination without a host.
pub const UNKNOWN_SERVICE: &str = "UnknownService";

pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
pub const VIRTUAL_OUTBOUND_TRAP: &str = "virtualOutbound-blackhole";
pub const VIRTUAL_OUTBOUND_CATCH_ALL_TCP: &str = "virtualOutbound-catchall-tcp";
pub const VIRTUAL_OUTBOUND_CATCH_ALL_HTTP: &str = "virtualOutbound-catchall-tcp-http";
pub const VIRTUAL_INBOUND_BLACKHOLE: &str = "virtualInbound-blackhole";
pub const VIRTUAL_INBOUND_CATCH_ALL_HTTP: &str = "virtualInbound-catchall-http";
pub const PASSTHROUGH_FILTER_CHAIN: &str = "PassthroughFilterChain";

/// Virtual host, and route, that sends what no service claims to its original destination.
pub const ALLOW_ANY: &str = "allow_any";
/// Virtual host, and route, that sends it to the host that it names.
pub const ALLOW_ANY_DYNAMIC_DNS: &str = "allow_any_dynamic_dns";
/// Virtual host, and route, that refuses what no service claims.
pub const BLOCK_ALL: &str = "block_all";
/// Route of hosts that another server of a gateway's port has.
pub const MISDIRECTED: &str = "misdirected";
/// Route configuration of the explicit HTTP proxy port (`MeshConfig.proxyHttpPort`).
pub const HTTP_PROXY_ROUTE: &str = "http_proxy";
/// The route that a service has without a VirtualService.
pub const DEFAULT_ROUTE: &str = "default";
/// The name that means every sidecar, not a Gateway, in `VirtualService.gateways`.
pub const MESH_GATEWAY: &str = "mesh";

const UNIX_PREFIX: &str = "unix:";
const GRPC_SERVER_PREFIX: &str = "xds.istio.io/grpc/lds/inbound/";

/// `outbound|80|v1|reviews.default.svc.cluster.local`; an empty subset leaves its place empty.
pub fn outbound(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.80_.v1_.reviews.default.svc.cluster.local`: the form that fits in an SNI.
pub fn outbound_sni(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|8080||`, by the workload's own port.
pub fn inbound(target_port: u32) -> String {
    format!("inbound|{target_port}||")
}

/// `0.0.0.0_80`; a Unix socket (port 0) keeps its path as the address part, as Istio writes it.
pub fn listener(bind: &str, port: u32) -> String {
    format!("{bind}_{port}")
}

/// `reviews.default.svc.cluster.local:9080`, with brackets where the host is an IPv6 address.
pub fn domain(host: &str, port: u32) -> String {
    format!("{}:{port}", bracketed(host))
}

/// An IPv6 address in brackets, as it stands in an authority; anything else unchanged.
pub fn bracketed(host: &str) -> String {
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{host}]"),
        Err(_) => host.to_owned(),
    }
}

/// The parts of a cluster's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster<'a> {
    Outbound {
        port: u32,
        subset: &'a str,
        host: &'a str,
    },
    OutboundSni {
        port: u32,
        subset: &'a str,
        host: &'a str,
    },
    Inbound {
        port: u32,
    },
    /// `PassthroughCluster`, `BlackHoleCluster`, and whatever else has no parts.
    Fixed(&'a str),
}

impl<'a> Cluster<'a> {
    pub fn parse(name: &'a str) -> Self {
        Self::structured(name).unwrap_or(Self::Fixed(name))
    }

    fn structured(name: &'a str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("outbound|") {
            let (port, subset, host) = three_parts(rest, "|")?;
            return Some(Self::Outbound { port, subset, host });
        }
        if let Some(rest) = name.strip_prefix("outbound_.") {
            let (port, subset, host) = three_parts(rest, "_.")?;
            return Some(Self::OutboundSni { port, subset, host });
        }
        let (port, subset, host) = three_parts(name.strip_prefix("inbound|")?, "|")?;
        (subset.is_empty() && host.is_empty()).then_some(Self::Inbound { port })
    }
}

impl fmt::Display for Cluster<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outbound { port, subset, host } => write!(f, "outbound|{port}|{subset}|{host}"),
            Self::OutboundSni { port, subset, host } => write!(f, "outbound_.{port}_.{subset}_.{host}"),
            Self::Inbound { port } => write!(f, "inbound|{port}||"),
            Self::Fixed(name) => f.write_str(name),
        }
    }
}

fn three_parts<'a>(text: &'a str, separator: &str) -> Option<(u32, &'a str, &'a str)> {
    let (port, rest) = text.split_once(separator)?;
    let (subset, host) = rest.split_once(separator)?;
    Some((decimal(port)?, subset, host))
}

/// Digits only: `+80` and the empty string are no ports.
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The parts of a route configuration's name, as a proxy asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// `80`: every HTTP service of a port.
    Port(u32),
    /// `reviews.default.svc.cluster.local:9080`: one service whose protocol is sniffed.
    Host { host: &'a str, port: u32 },
    /// `unix:///path`: a Sidecar's egress listener on a socket.
    Unix(&'a str),
    /// `http_proxy`.
    HttpProxy,
    /// `http.80[.<bind>]`: the plain HTTP servers of a gateway's port.
    GatewayHttp,
    /// `https.443.<port name>.<gateway>.<namespace>[.<bind>]`: one TLS server of a gateway.
    GatewayHttps,
    /// A name outside the grammar.
    Unknown,
}

impl<'a> Route<'a> {
    pub fn parse(name: &'a str) -> Self {
        if name == HTTP_PROXY_ROUTE {
            return Self::HttpProxy;
        }
        if name.starts_with(UNIX_PREFIX) {
            return Self::Unix(name);
        }
        if let Some(port) = decimal(name) {
            return Self::Port(port);
        }
        if let Some((host, port)) = host_and_port(name) {
            return Self::Host { host, port };
        }
        if let Some(rest) = name.strip_prefix("http.")
            && decimal(rest.split('.').next().unwrap_or_default()).is_some()
        {
            return Self::GatewayHttp;
        }
        if name.starts_with("https.") {
            return Self::GatewayHttps;
        }
        Self::Unknown
    }
}

/// Whether hosts of the route configuration can be asked for one by one: those of a port, which many services share.
pub fn is_on_demand(route: &str) -> bool {
    matches!(Route::parse(route), Route::Port(port) if port != 0)
}

/// Splits `host:port` and `[v6]:port`.
pub fn host_and_port(text: &str) -> Option<(&str, u32)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = decimal(port)?;
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port))
}

/// Route name of a gateway's plain HTTP port.
pub fn gateway_http_route(port: u32, bind: &str) -> String {
    if bind.is_empty() { format!("http.{port}") } else { format!("http.{port}.{bind}") }
}

/// Fills a pattern such as `%SERVICE_FQDN%_%SERVICE_PORT%`.
pub fn stat_pattern(pattern: &str, service: &Service, subset: &str, port: (&str, u32), target: u32) -> String {
    let (short, name) = match service.registry {
        RegistryKind::Kubernetes => (format!("{}.{}", service.name, service.namespace), service.name.to_string()),
        RegistryKind::External => (service.hostname.to_string(), service.hostname.to_string()),
    };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &name)
        .replace("%SERVICE_FQDN%", &service.hostname)
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target.to_string())
        .replace("%SERVICE_PORT_NAME%", port.0)
        .replace("%SERVICE_PORT%", &port.1.to_string())
}

/// The address that a proxyless gRPC server asks its listener for, if `name` is such a name.
pub fn grpc_server_address(name: &str) -> Option<&str> {
    name.strip_prefix(GRPC_SERVER_PREFIX)
}

#[cfg(test)]
mod tests;
