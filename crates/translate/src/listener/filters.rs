//! The fixed filters of Istio's chains, by dialect.

use std::time::Duration;

use meltemi_model::PersistentSession;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::TypedExtensionConfig;
use meltemi_proto::envoy::config::listener::v3::{
    Filter, ListenerFilter as FilterMessage, ListenerFilterChainMatchPredicate, filter, listener_filter,
    listener_filter_chain_match_predicate as predicate,
};
use meltemi_proto::envoy::extensions::filters::http;
use meltemi_proto::envoy::extensions::filters::listener as listener_filters;
use meltemi_proto::envoy::extensions::filters::network;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use meltemi_proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use meltemi_proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use meltemi_proto::envoy::tcp::metadataexchange::config::MetadataExchange;
use meltemi_proto::envoy::r#type::http::v3::Cookie;
use meltemi_proto::envoy::r#type::v3::Int32Range;
use meltemi_proto::io::istio::http::peer_metadata;
use meltemi_proto::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
use meltemi_proto::prost::{Message, Name};
use meltemi_proto::stats::PluginConfig;

use super::spec::{Class, ListenerFilter, Ports};
use crate::dynamic_dns::DnsCache;
use crate::wire;

pub const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
pub const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
pub const FAULT: &str = "envoy.filters.http.fault";
pub const STATEFUL_SESSION: &str = "envoy.filters.http.stateful_session";
pub const CORS: &str = "envoy.filters.http.cors";

/// How long a request or a connection waits for what it is the first to need.
pub const ON_DEMAND_TIMEOUT: Duration = Duration::from_secs(5);

pub fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(Any::pack(config))) }
}

pub fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any::pack(config))),
        ..HttpFilter::default()
    }
}

fn listener_filter<M: Message + Name>(name: &str, config: &M) -> FilterMessage {
    FilterMessage {
        name: name.into(),
        filter_disabled: None,
        config_type: Some(listener_filter::ConfigType::TypedConfig(Any::pack(config))),
    }
}

/// Waits for the virtual host, and then for the cluster, that the first request needs.
pub fn on_demand() -> HttpFilter {
    let clusters = http::on_demand::v3::OnDemandCds {
        source: Some(wire::ads()),
        resources_locator: String::new(),
        timeout: Some(wire::duration(ON_DEMAND_TIMEOUT)),
    };
    http_filter("envoy.filters.http.on_demand", &http::on_demand::v3::OnDemand { odcds: Some(clusters) })
}

/// A listener filter with the ports that it leaves alone.
pub fn of_listener(filter: &ListenerFilter) -> FilterMessage {
    let inspector = |mut message: FilterMessage, ports: &Ports| {
        message.filter_disabled = disabled_at(ports);
        message
    };
    match filter {
        ListenerFilter::OriginalDestination => listener_filter(
            "envoy.filters.listener.original_dst",
            &listener_filters::original_dst::v3::OriginalDst::default(),
        ),
        ListenerFilter::OriginalSource => {
            let config = listener_filters::original_src::v3::OriginalSrc { mark: 1337, ..Default::default() };
            listener_filter("envoy.filters.listener.original_src", &config)
        }
        ListenerFilter::ProxyProtocol => listener_filter(
            "envoy.filters.listener.proxy_protocol",
            &listener_filters::proxy_protocol::v3::ProxyProtocol::default(),
        ),
        ListenerFilter::TlsInspector(ports) => {
            // Envoy's default is 64 KiB for each connection; a ClientHello rarely needs more than this and it grows.
            let config = listener_filters::tls_inspector::v3::TlsInspector {
                initial_read_buffer_size: Some(512),
                ..Default::default()
            };
            inspector(listener_filter("envoy.filters.listener.tls_inspector", &config), ports)
        }
        ListenerFilter::HttpInspector(ports) => inspector(
            listener_filter(
                "envoy.filters.listener.http_inspector",
                &listener_filters::http_inspector::v3::HttpInspector::default(),
            ),
            ports,
        ),
    }
}

fn disabled_at(ports: &Ports) -> Option<ListenerFilterChainMatchPredicate> {
    match ports {
        Ports::All => None,
        Ports::Except(ports) => Some(any_port_of(ports)),
        Ports::Only(ports) => Some(ListenerFilterChainMatchPredicate {
            rule: Some(predicate::Rule::NotMatch(Box::new(any_port_of(ports)))),
        }),
    }
}

fn any_port_of(ports: &[u32]) -> ListenerFilterChainMatchPredicate {
    let one = |port: &u32| {
        let start = i32::try_from(*port).unwrap_or(i32::MAX - 1);
        let range = Int32Range { start, end: start + 1 };
        ListenerFilterChainMatchPredicate { rule: Some(predicate::Rule::DestinationPortRange(range)) }
    };
    match ports {
        [port] => one(port),
        _ => ListenerFilterChainMatchPredicate {
            rule: Some(predicate::Rule::OrMatch(predicate::MatchSet { rules: ports.iter().map(one).collect() })),
        },
    }
}

/// Exchanges workload metadata over a TCP connection whose ALPN says that the peer does so too.
pub fn tcp_metadata_exchange() -> Filter {
    let config = MetadataExchange {
        protocol: "istio-peer-exchange".into(),
        enable_discovery: true,
        additional_labels: Vec::new(),
    };
    network_filter("istio.metadata_exchange", &config)
}

pub fn http_metadata_exchange(class: Class, in_mesh_only: bool) -> HttpFilter {
    use peer_metadata::config::{
        DiscoveryMethod, IstioHeaders, PropagationMethod, WorkloadDiscovery, discovery_method, propagation_method,
    };
    let headers = IstioHeaders { skip_external_clusters: in_mesh_only && !class.is_inbound() };
    let discovery = vec![
        DiscoveryMethod {
            method_specifier: Some(discovery_method::MethodSpecifier::IstioHeaders(IstioHeaders::default())),
        },
        DiscoveryMethod {
            method_specifier: Some(discovery_method::MethodSpecifier::WorkloadDiscovery(WorkloadDiscovery {})),
        },
    ];
    let propagation =
        vec![PropagationMethod { method_specifier: Some(propagation_method::MethodSpecifier::IstioHeaders(headers)) }];
    let mut config = peer_metadata::Config::default();
    if class.is_inbound() {
        config.downstream_discovery = discovery;
        config.downstream_propagation = propagation;
    } else {
        config.upstream_discovery = discovery;
        config.upstream_propagation = propagation;
    }
    http_filter("istio.metadata_exchange", &config)
}

fn stats_config(class: Class) -> PluginConfig {
    PluginConfig { disable_host_header_fallback: class != Class::SidecarOutbound, ..PluginConfig::default() }
}

pub fn http_stats(class: Class) -> HttpFilter {
    http_filter("istio.stats", &stats_config(class))
}

pub fn tcp_stats(class: Class) -> Filter {
    network_filter("istio.stats", &stats_config(class))
}

/// Offers Istio's ALPN names, and the standard ones for servers outside of the mesh, for the protocol that the upstream
/// connection will speak.
pub fn istio_alpn() -> HttpFilter {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let offer = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.map(String::from).to_vec(),
    };
    let config = alpn::FilterConfig {
        alpn_override: vec![
            offer(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            offer(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            offer(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    };
    http_filter("istio.alpn", &config)
}

pub fn grpc_stats() -> HttpFilter {
    use http::grpc_stats::v3::{FilterConfig, filter_config::PerMethodStatSpecifier};
    let config = FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(false)),
        ..FilterConfig::default()
    };
    http_filter("envoy.filters.http.grpc_stats", &config)
}

pub fn grpc_web() -> HttpFilter {
    http_filter("envoy.filters.http.grpc_web", &http::grpc_web::v3::GrpcWeb::default())
}

pub fn fault() -> HttpFilter {
    http_filter(FAULT, &http::fault::v3::HttpFault::default())
}

pub fn cors() -> HttpFilter {
    http_filter(CORS, &http::cors::v3::Cors::default())
}

/// Does nothing where no virtual host or route says whose sessions to keep.
pub fn stateful_session() -> HttpFilter {
    http_filter(STATEFUL_SESSION, &http::stateful_session::v3::StatefulSession::default())
}

/// Sessions of one service.
pub fn stateful_session_of(session: &PersistentSession) -> http::stateful_session::v3::StatefulSession {
    let (name, state) = match session {
        PersistentSession::Cookie { name, path } => {
            // Without a time to live: for as long as the browser keeps it.
            let cookie = Cookie { name: name.to_string(), path: path.to_string(), ..Cookie::default() };
            ("cookie", Any::pack(&CookieBasedSessionState { cookie: Some(cookie) }))
        }
        PersistentSession::Header(name) => ("header", Any::pack(&HeaderBasedSessionState { name: name.to_string() })),
    };
    let session_state =
        TypedExtensionConfig { name: format!("envoy.http.stateful_session.{name}"), typed_config: Some(state) };
    http::stateful_session::v3::StatefulSession { session_state: Some(session_state), ..Default::default() }
}

/// The filter with sessions of its own, for clients that have one service behind each listener.
pub fn stateful_session_with(session: &PersistentSession) -> HttpFilter {
    http_filter(STATEFUL_SESSION, &stateful_session_of(session))
}

/// Resolves the host that a request to a cluster of this cache names.
pub fn dynamic_forward_proxy(cache: &DnsCache) -> HttpFilter {
    use http::dynamic_forward_proxy::v3::{FilterConfig, filter_config::ImplementationSpecifier};
    let config = FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache.config())),
        ..FilterConfig::default()
    };
    http_filter("envoy.filters.http.dynamic_forward_proxy", &config)
}

/// Resolves the host that a TLS greeting names.
pub fn sni_dynamic_forward_proxy(cache: &DnsCache, port: u32) -> Filter {
    use network::sni_dynamic_forward_proxy::v3::{FilterConfig, filter_config::PortSpecifier};
    let config = FilterConfig {
        dns_cache_config: Some(cache.config()),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..FilterConfig::default()
    };
    network_filter("envoy.extensions.filters.network.sni_dynamic_forward_proxy", &config)
}

/// The last filter. `debug_headers` are Envoy's own `x-envoy-*` response headers.
pub fn router(debug_headers: bool) -> HttpFilter {
    let config = http::router::v3::Router { suppress_envoy_headers: !debug_headers, ..Default::default() };
    http_filter("envoy.filters.http.router", &config)
}
