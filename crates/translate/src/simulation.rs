//! What a proxy with a given configuration would do with a connection or a request, without a network.
//!
//! Owns a pure model of Envoy's matching: listener by original destination, listener filters, filter chain, virtual host and
//! route by path. It evaluates the xDS messages themselves, so it judges what is sent and not what was meant. Headers, query
//! and weights are not evaluated. Costs a decode of the matched connection manager per call: for tests and for explaining,
//! never for traffic.

mod chain;
mod route;

use std::fmt;
use std::net::IpAddr;

use meltemi_proto::envoy::config::core::v3::{Address, address, socket_address};
use meltemi_proto::envoy::config::listener::v3::listener_filter_chain_match_predicate::Rule;
use meltemi_proto::envoy::config::listener::v3::{
    FilterChain, Listener, ListenerFilter, ListenerFilterChainMatchPredicate, filter,
};
use meltemi_proto::envoy::config::route::v3::RouteConfiguration;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_proto::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;

use crate::names;

/// What the client speaks inside its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl Protocol {
    fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// How the client secures its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    Plaintext,
    Tls,
    /// TLS with the client certificate of a mesh workload.
    Mtls,
}

/// A connection that reaches the proxy, and the request in it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Original destination.
    pub address: IpAddr,
    pub port: u16,
    pub path: String,
    pub protocol: Protocol,
    pub security: Security,
    /// What the client offers, or its default for the protocol.
    pub alpn: Option<String>,
    pub host: String,
    pub sni: String,
    /// Captured on its way in: `virtualInbound` takes it whatever the destination.
    pub inbound: bool,
    /// The SDS secret that makes a chain count as mutual TLS of the mesh.
    pub mtls_secret: String,
}

impl Default for Call {
    fn default() -> Self {
        Self {
            address: IpAddr::from([1, 3, 3, 7]),
            port: 0,
            path: "/".into(),
            protocol: Protocol::Tcp,
            security: Security::Plaintext,
            alpn: None,
            host: String::new(),
            sni: String::new(),
            inbound: false,
            mtls_secret: "default".into(),
        }
    }
}

impl Call {
    fn effective_alpn(&self) -> String {
        if let Some(alpn) = &self.alpn {
            return alpn.clone();
        }
        match (self.security, self.protocol) {
            (Security::Tls, Protocol::Http1) => "http/1.1",
            (Security::Tls, Protocol::Http2) => "h2",
            (Security::Mtls, Protocol::Http1) => "istio-http/1.1",
            (Security::Mtls, Protocol::Http2) => "istio-h2",
            (Security::Mtls, Protocol::Tcp) => "istio",
            (Security::Plaintext, _) | (Security::Tls, Protocol::Tcp) => "",
        }
        .into()
    }
}

/// Why a call does not reach a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NoListener,
    NoFilterChain,
    MultipleFilterChains,
    /// Plaintext to a chain that terminates TLS.
    Tls,
    /// Mutual TLS where the chain does not ask for it, or the other way round.
    Mtls,
    /// Bytes that are not HTTP for an HTTP connection manager.
    Protocol,
    NoVirtualHost,
    TlsRedirect,
    NoRoute,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoListener => "no listener matched",
            Self::NoFilterChain => "no filter chains matched",
            Self::MultipleFilterChains => "multiple filter chains matched",
            Self::Tls => "invalid TLS",
            Self::Mtls => "invalid mTLS",
            Self::Protocol => "protocol error",
            Self::NoVirtualHost => "no virtual host matched",
            Self::TlsRedirect => "tls required, sending 301",
            Self::NoRoute => "no route matched",
        })
    }
}

/// What took the call, as far as it got. Empty names are unnamed or not reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub failure: Option<Failure>,
    pub listener: String,
    pub filter_chain: String,
    /// Name of the RDS resource; empty for an inline route configuration.
    pub route_config: String,
    pub virtual_host: String,
    pub route: String,
    /// Empty for weighted clusters, redirects and direct responses.
    pub cluster: String,
}

/// The configuration of one proxy.
#[derive(Debug, Clone, Copy)]
pub struct Proxy<'a> {
    pub listeners: &'a [Listener],
    pub routes: &'a [RouteConfiguration],
}

impl<'a> Proxy<'a> {
    pub fn play(&self, call: &Call) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.failure = self.run(call, &mut outcome).err();
        outcome
    }

    /// The filter chain that takes the call, for checks beyond its name.
    pub fn filter_chain(&self, call: &Call) -> Result<&'a FilterChain, Failure> {
        let listener = self.listener(call).ok_or(Failure::NoListener)?;
        chain::select(listener, &Arrival::new(listener, call))
    }

    fn run(&self, call: &Call, outcome: &mut Outcome) -> Result<(), Failure> {
        let listener = self.listener(call).ok_or(Failure::NoListener)?;
        outcome.listener.clone_from(&listener.name);
        let chain = chain::select(listener, &Arrival::new(listener, call))?;
        outcome.filter_chain.clone_from(&chain.name);
        check_security(chain, call)?;
        if let Some(manager) = http_connection_manager(chain) {
            if call.security != Security::Plaintext && chain.transport_socket.is_none() || !call.protocol.is_http() {
                return Err(Failure::Protocol);
            }
            return route::select(&manager, self.routes, call, outcome);
        }
        if let Some(tcp_proxy::ClusterSpecifier::Cluster(cluster)) = tcp_proxy(chain).and_then(|p| p.cluster_specifier)
        {
            outcome.cluster = cluster;
        }
        Ok(())
    }

    fn listener(&self, call: &Call) -> Option<&'a Listener> {
        let named = |name: &str| self.listeners.iter().find(|l| l.name == name);
        if call.inbound {
            return named(names::VIRTUAL_INBOUND);
        }
        let at = |address: IpAddr| {
            self.listeners.iter().find(|l| socket_address(l.address.as_ref()) == Some((address, u32::from(call.port))))
        };
        at(call.address).or_else(|| at(IpAddr::from([0, 0, 0, 0]))).or_else(|| named(names::VIRTUAL_OUTBOUND))
    }
}

/// What is known of a connection when a filter chain is chosen.
struct Arrival<'a> {
    call: &'a Call,
    alpn: String,
    tls_inspected: bool,
}

impl<'a> Arrival<'a> {
    fn new(listener: &Listener, call: &'a Call) -> Self {
        let port = i32::from(call.port);
        let enabled = |name| listener.listener_filters.iter().any(|f| f.name == name && !is_disabled(f, port));
        let tls_inspected = enabled("envoy.filters.listener.tls_inspector");
        let mut alpn = if tls_inspected { call.effective_alpn() } else { String::new() };
        if call.security == Security::Plaintext && enabled("envoy.filters.listener.http_inspector") {
            match call.protocol {
                Protocol::Http1 => alpn = "http/1.1".into(),
                Protocol::Http2 => alpn = "h2c".into(),
                Protocol::Tcp => {}
            }
        }
        Self { call, alpn, tls_inspected }
    }
}

fn is_disabled(filter: &ListenerFilter, port: i32) -> bool {
    filter.filter_disabled.as_ref().is_some_and(|predicate| predicate_matches(predicate, port))
}

fn predicate_matches(predicate: &ListenerFilterChainMatchPredicate, port: i32) -> bool {
    match &predicate.rule {
        Some(Rule::OrMatch(set)) => set.rules.iter().any(|r| predicate_matches(r, port)),
        Some(Rule::AndMatch(set)) => set.rules.iter().all(|r| predicate_matches(r, port)),
        Some(Rule::NotMatch(inner)) => !predicate_matches(inner, port),
        Some(Rule::AnyMatch(any)) => *any,
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&port),
        None => false,
    }
}

fn check_security(chain: &FilterChain, call: &Call) -> Result<(), Failure> {
    let Some(tls) = downstream_tls(chain) else { return Ok(()) };
    if call.security == Security::Plaintext {
        return Err(Failure::Tls);
    }
    if requires_mesh_certificate(&tls, &call.mtls_secret) != (call.security == Security::Mtls) {
        return Err(Failure::Mtls);
    }
    Ok(())
}

fn requires_mesh_certificate(tls: &DownstreamTlsContext, secret: &str) -> bool {
    let common = tls.common_tls_context.as_ref();
    let first = common.and_then(|c| c.tls_certificate_sds_secret_configs.first());
    first.is_some_and(|sds| sds.name == secret) && tls.require_client_certificate == Some(true)
}

/// The TLS settings of a chain; an unreadable transport socket counts as TLS without settings.
pub fn downstream_tls(chain: &FilterChain) -> Option<DownstreamTlsContext> {
    use meltemi_proto::envoy::config::core::v3::transport_socket::ConfigType;
    let socket = chain.transport_socket.as_ref()?;
    let typed = match &socket.config_type {
        Some(ConfigType::TypedConfig(any)) => meltemi_proto::unpack_downstream_tls_context(any).ok(),
        _ => None,
    };
    Some(typed.unwrap_or_default())
}

/// The HTTP connection manager of a chain, if it has one.
pub fn http_connection_manager(chain: &FilterChain) -> Option<HttpConnectionManager> {
    chain.filters.iter().find_map(|f| match &f.config_type {
        Some(filter::ConfigType::TypedConfig(any)) if any.is::<HttpConnectionManager>() => {
            meltemi_proto::unpack_http_connection_manager(any).ok()
        }
        _ => None,
    })
}

/// The TCP proxy of a chain, if it has one.
pub fn tcp_proxy(chain: &FilterChain) -> Option<TcpProxy> {
    chain.filters.iter().find_map(|f| match &f.config_type {
        Some(filter::ConfigType::TypedConfig(any)) if any.is::<TcpProxy>() => any.unpack().ok(),
        _ => None,
    })
}

fn socket_address(address: Option<&Address>) -> Option<(IpAddr, u32)> {
    let Some(address::Address::SocketAddress(socket)) = address?.address.as_ref() else { return None };
    match socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => Some((socket.address.parse().ok()?, port)),
        _ => None,
    }
}
