//! The way of a connection and its request through what a proxy was sent.
//!
//! Each step is the proxy's own look-up (`plan`): the listener by original destination, [`Listener::find_chain`],
//! [`RouteConfiguration::find_host`] and [`RouteConfiguration::find_route`]. This module only puts the facts together that the
//! proxy learns from a socket, and stops where the proxy would refuse.

use std::fmt;
use std::sync::Arc;

use meltemi_plan::hcm::{RouteSource, StripPort};
use meltemi_plan::listener::ListenerFilterConfig;
use meltemi_plan::route::find::without_port;
use meltemi_plan::route::{ClusterSpec, Forward, TlsRequirement};
use meltemi_plan::tcp_proxy::TcpCluster;
use meltemi_plan::tls::SecretRef;
use meltemi_plan::{
    ConnectionFacts, DownstreamTls, FilterChain, Hcm, Listener, PlanError, Route, RouteConfiguration, RouteRequest,
    TcpProxy, VirtualHost,
};
use meltemi_translate::names;
use serde_json::{Value, json};

use crate::request::{Protocol, Request, Security};
use crate::sent::{Resource, Sent, manager, tcp_proxy};

/// Why a request does not reach a cluster.
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

impl Failure {
    const ALL: [(Self, &str); 9] = [
        (Self::NoListener, "ErrNoListener"),
        (Self::NoFilterChain, "ErrNoFilterChain"),
        (Self::MultipleFilterChains, "ErrMultipleFilterChain"),
        (Self::Tls, "ErrTLSError"),
        (Self::Mtls, "ErrMTLSError"),
        (Self::Protocol, "ErrProtocolError"),
        (Self::NoVirtualHost, "ErrNoVirtualHost"),
        (Self::TlsRedirect, "ErrTLSRedirect"),
        (Self::NoRoute, "ErrNoRoute"),
    ];

    /// The name that Istio's simulation has for it.
    pub fn code(self) -> &'static str {
        Self::ALL.iter().find(|(failure, _)| *failure == self).map_or("", |(_, code)| code)
    }

    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == code).map(|(failure, _)| *failure)
    }
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

/// What took the request, as far as it got.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outcome<'a> {
    pub failure: Option<Failure>,
    /// The resource that took the connection, which the proxy refuses.
    pub refused: Option<&'a PlanError>,
    pub listener: Option<&'a Resource<Listener>>,
    pub chain: Option<&'a Arc<FilterChain>>,
    pub manager: Option<&'a Arc<Hcm>>,
    /// The name under which the listener subscribes to its routes.
    pub rds: Option<&'a str>,
    pub routes: Option<&'a RouteConfiguration>,
    pub host: Option<&'a Arc<VirtualHost>>,
    pub route: Option<&'a Arc<Route>>,
    pub tcp: Option<&'a Arc<TcpProxy>>,
}

impl<'a> Outcome<'a> {
    pub fn forward(&self) -> Option<&'a Forward> {
        self.route.and_then(|route| route.forward())
    }

    /// The one cluster that the traffic goes to; none where several share it, or nothing is forwarded.
    pub fn cluster(&self) -> Option<&'a str> {
        let of_route = || match &self.forward()?.cluster {
            ClusterSpec::Named(name) => Some(&**name),
            ClusterSpec::Header(_) | ClusterSpec::Weighted(_) => None,
        };
        let of_tcp = || match &self.tcp?.cluster {
            TcpCluster::Single(name) => Some(&**name),
            TcpCluster::Weighted { .. } => None,
        };
        of_route().or_else(of_tcp)
    }

    /// The names of what took it; what has no name, or was not reached, is null.
    pub fn names(&self) -> Value {
        let named = |text: Option<&str>| text.filter(|text| !text.is_empty()).map_or(Value::Null, Value::from);
        json!({
            "error": self.failure.map(Failure::code),
            "listener": named(self.listener.map(|listener| &*listener.name)),
            "filter_chain": named(self.chain.map(|chain| &*chain.name)),
            "route_config": named(self.rds),
            "virtual_host": named(self.host.map(|host| &*host.name)),
            "route": named(self.route.map(|route| &*route.name)),
            "cluster": named(self.cluster()),
        })
    }
}

/// Follows a request through what a proxy was sent.
pub fn walk<'a>(sent: &'a Sent, request: &Request) -> Outcome<'a> {
    let mut outcome = Outcome::default();
    outcome.failure = connection(sent, request, &mut outcome).err();
    outcome
}

fn connection<'a>(sent: &'a Sent, request: &Request, outcome: &mut Outcome<'a>) -> Result<(), Failure> {
    let resource = listener(sent, request).ok_or(Failure::NoListener)?;
    outcome.listener = Some(resource);
    let listener = resource.plan.as_ref().map_err(|error| {
        outcome.refused = Some(error);
        // The one thing that Istio's model calls by name.
        if error.reason.contains("the same filter_chain_match") {
            Failure::MultipleFilterChains
        } else {
            Failure::NoListener
        }
    })?;
    let chain = Facts::of(listener, request).choose(listener, request).ok_or(Failure::NoFilterChain)?;
    outcome.chain = Some(chain);
    check_security(chain, request)?;
    let Some(manager) = manager(chain) else {
        outcome.tcp = tcp_proxy(chain);
        return Ok(());
    };
    outcome.manager = Some(manager);
    if request.is_encrypted() && chain.tls.is_none() || !request.protocol.is_http() {
        return Err(Failure::Protocol);
    }
    route(sent, manager, request, outcome)
}

fn listener<'a>(sent: &'a Sent, request: &Request) -> Option<&'a Resource<Listener>> {
    if request.inbound {
        return sent.listener(names::VIRTUAL_INBOUND);
    }
    sent.listener_at(request.destination).or_else(|| sent.listener(names::VIRTUAL_OUTBOUND))
}

/// What the listener filters find out about a connection.
#[derive(Debug, Clone)]
pub struct Facts {
    pub server_name: String,
    pub transport_protocol: &'static str,
    /// What the client offers, or what the HTTP inspector sees.
    pub application_protocol: String,
}

impl Facts {
    pub fn of(listener: &Listener, request: &Request) -> Self {
        let port = request.destination.port();
        let enabled = |is: fn(&ListenerFilterConfig) -> bool| {
            let mut filters = listener.listener_filters.iter().filter(|filter| is(&filter.config));
            filters.any(|filter| filter.disabled.as_ref().is_none_or(|predicate| !predicate.holds(port)))
        };
        let tls =
            enabled(|config| matches!(config, ListenerFilterConfig::TlsInspector { .. })) && request.is_encrypted();
        let http = enabled(|config| matches!(config, ListenerFilterConfig::HttpInspector));
        let seen = match request.protocol {
            Protocol::Http1 if http && !request.is_encrypted() => "http/1.1",
            Protocol::Http2 if http && !request.is_encrypted() => "h2c",
            _ => "",
        };
        Self {
            server_name: if tls { request.sni.to_ascii_lowercase() } else { String::new() },
            transport_protocol: if tls { "tls" } else { "raw_buffer" },
            application_protocol: if tls { request.offered() } else { seen }.to_owned(),
        }
    }

    /// Calls `with` with the facts as the plan takes them.
    pub fn read<T>(&self, request: &Request, with: impl FnOnce(&ConnectionFacts<'_>) -> T) -> T {
        let protocol = [self.application_protocol.as_str()];
        with(&ConnectionFacts {
            destination: Some(request.destination),
            source: request.source,
            direct_source: request.source,
            server_name: &self.server_name,
            transport_protocol: self.transport_protocol,
            application_protocols: if protocol[0].is_empty() { &[] } else { &protocol },
        })
    }

    fn choose<'a>(&self, listener: &'a Listener, request: &Request) -> Option<&'a Arc<FilterChain>> {
        self.read(request, |facts| listener.find_chain(facts))
    }
}

fn check_security(chain: &FilterChain, request: &Request) -> Result<(), Failure> {
    let Some(tls) = &chain.tls else { return Ok(()) };
    if !request.is_encrypted() {
        return Err(Failure::Tls);
    }
    if wants_mesh_certificate(tls, &request.mtls_secret) != (request.security == Security::Mtls) {
        return Err(Failure::Mtls);
    }
    Ok(())
}

/// Whether a chain takes the mesh's own clients and no others.
pub fn wants_mesh_certificate(tls: &DownstreamTls, secret: &str) -> bool {
    let named = match tls.common.certificates.first() {
        Some(SecretRef::Sds { name, .. }) => **name == *secret,
        Some(SecretRef::Inline(_)) | None => false,
    };
    named && tls.require_client_certificate
}

fn route<'a>(sent: &'a Sent, manager: &'a Hcm, request: &Request, outcome: &mut Outcome<'a>) -> Result<(), Failure> {
    let routes = match &manager.route {
        RouteSource::Inline(routes) => &**routes,
        RouteSource::Rds(name) => {
            outcome.rds = Some(name);
            let resource = sent.route(name).ok_or(Failure::NoVirtualHost)?;
            resource.plan.as_ref().map_err(|error| {
                outcome.refused = Some(error);
                Failure::NoVirtualHost
            })?
        }
    };
    outcome.routes = Some(routes);
    let request = as_routed(request, manager);
    let view = route_request(&request);
    let host = routes.find_host(&view).ok_or(Failure::NoVirtualHost)?;
    outcome.host = Some(host);
    if host.require_tls == TlsRequirement::All && !request.is_encrypted() {
        return Err(Failure::TlsRedirect);
    }
    outcome.route = Some(routes.find_route(host, &view).ok_or(Failure::NoRoute)?);
    Ok(())
}

/// The request as the connection manager hands it to the routes: with the port stripped from its host, where it does that.
pub fn as_routed(request: &Request, manager: &Hcm) -> Request {
    let mut routed = request.clone();
    let bare = without_port(&request.host);
    let port = request.host.get(bare.len() + 1..).and_then(|port| port.parse::<u16>().ok());
    let strip = match manager.strip_port {
        StripPort::No => false,
        StripPort::Any => true,
        StripPort::Matching => port == Some(request.destination.port()),
    };
    if strip {
        routed.host = bare.to_owned();
    }
    if manager.strip_trailing_host_dot && routed.host.ends_with('.') {
        routed.host.pop();
    }
    routed
}

/// What route selection reads of a request that is already as routed. Its random value is the one that every fraction but
/// 0% takes.
pub fn route_request(request: &Request) -> RouteRequest<'_> {
    RouteRequest {
        host: &request.host,
        path: &request.path,
        headers: request,
        random: 0,
        is_connect: request.method == "CONNECT",
        tls_presented: request.security == Security::Mtls,
        tls_validated: request.security == Security::Mtls,
        metadata: None,
    }
}
