//! Gateways: the listeners and routes of a router.

mod merge;
mod misdirected;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_config::networking::{RouteDestination, ServerTlsMode, VirtualService};
use meltemi_config::wire::Str;
use meltemi_model::{ConfigRef, Protocol, Resolution, Service, host, semantics};

use crate::listener::spec::{
    Chain, Class, Http, Listener, ListenerFilter, Match, Ports, RouteSource, Tcp, Terminal, Tls,
};
use crate::listener::{inbound, is_forbidden, server_tls, tcp};
use crate::names;
use crate::view::View;
use merge::{Bound, Port, PortKey, is_passthrough, without_namespace};

pub(crate) use merge::Merged;
pub(crate) use route::configuration as route_configuration;

pub(crate) fn listeners(view: &View<'_>) -> Vec<Listener> {
    let merged = Merged::of(view);
    let mut claimed = BTreeMap::new();
    let mut listeners: Vec<Listener> = Vec::new();
    for (key, port) in &merged.ports {
        if is_forbidden(view.node, key.number) {
            continue;
        }
        let chains = port_chains(view, key, port, claimed.entry(key.number).or_default());
        for listener in [listener(view, key, chains, false), listener(view, key, quic_chains(view, port), true)] {
            match listeners.iter_mut().find(|own| own.name == listener.name) {
                Some(own) => own.chains.extend(listener.chains),
                None => listeners.push(listener),
            }
        }
    }
    // A listener without chains is no listener.
    listeners.retain(|listener| !listener.chains.is_empty());
    for listener in &mut listeners {
        finish(view, listener);
    }
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    listeners
}

fn listener(view: &View<'_>, key: &PortKey, chains: Vec<Chain>, quic: bool) -> Listener {
    let binds: Vec<String> = if key.bind.is_empty() {
        view.profile.addresses.wildcards().iter().map(ToString::to_string).collect()
    } else {
        vec![key.bind.to_string()]
    };
    let name = names::listener(&binds[0], key.number);
    Listener {
        name: if quic { format!("udp_{name}").into() } else { name.into() },
        profile: view.profile.clone(),
        class: Class::Gateway,
        security: view.security(),
        binds,
        port: key.number,
        bind_to_port: true,
        quic,
        use_original_dst: false,
        transparent: false,
        filters: Vec::new(),
        filters_timeout: None,
        continue_on_filters_timeout: false,
        chains,
        default_chain: None,
    }
}

/// What depends on all chains of the listener.
fn finish(view: &View<'_>, listener: &mut Listener) {
    if view.profile.gateway.proxy_protocol && !listener.quic {
        listener.filters.push(ListenerFilter::ProxyProtocol);
    }
    let needs_tls = |chain: &Chain| chain.tls.is_some() || !chain.matches.server_names.is_empty();
    if !listener.quic && listener.chains.iter().any(needs_tls) {
        listener.filters.push(ListenerFilter::TlsInspector(Ports::All));
    }
    for chain in &mut listener.chains {
        if chain.matches.server_names.iter().any(|name| name == "*") {
            chain.matches.server_names.clear();
        }
        if let Terminal::Http(http) = &mut chain.terminal
            && http.stat_prefix.is_empty()
        {
            http.stat_prefix = format!("outbound_{};", listener.name);
        }
    }
}

type Claimed = BTreeMap<Arc<str>, Arc<str>>;

fn port_chains(view: &View<'_>, key: &PortKey, port: &Port, claimed: &mut Claimed) -> Vec<Chain> {
    if key.protocol().is_http() {
        return vec![http_chain(port.route.clone(), String::new(), key.protocol())];
    }
    let mut chains = Vec::new();
    for bound in &port.servers {
        if bound.terminates_https() {
            let mut chain = http_chain(bound.route.clone(), bound.server().name.to_string(), Protocol::Https);
            chain.matches.server_names = bound.sni_hosts();
            chain.tls = bound.server().tls.as_ref().map(|tls| server_tls(tls, view, false));
            chains.push(chain);
        } else {
            chains.extend(tcp_chains(view, bound, claimed));
        }
    }
    chains
}

/// The servers of a port that serve HTTP/3 as well, with their routes and certificates.
fn quic_chains(view: &View<'_>, port: &Port) -> Vec<Chain> {
    let chain = |bound: &Bound| {
        let mut chain = http_chain(bound.route.clone(), bound.server().name.to_string(), Protocol::Https);
        chain.matches.server_names = bound.sni_hosts();
        chain.tls = bound
            .server()
            .tls
            .as_ref()
            .map(|settings| Tls { alpn: vec![ALPN_HTTP3], ..server_tls(settings, view, false) });
        chain
    };
    port.servers.iter().filter(|bound| bound.quic).map(chain).collect()
}

const ALPN_HTTP3: &str = "h3";

fn http_chain(route: String, stat_prefix: String, protocol: Protocol) -> Chain {
    Chain {
        name: String::new(),
        matches: Match::default(),
        tls: None,
        exchange_metadata: false,
        report: false,
        terminal: Terminal::Http(Http {
            resolves: Vec::new(),
            route: RouteSource::Rds(route),
            stat_prefix,
            use_remote_address: true,
            grpc_web: protocol == Protocol::GrpcWeb,
            http2: false,
            explicit_proxy: false,
        }),
        origin: None,
    }
}

/// Of a TCP server, of one that terminates TLS around TCP, and of those that pass TLS on by SNI.
fn tcp_chains(view: &View<'_>, bound: &Bound, claimed: &mut Claimed) -> Vec<Chain> {
    let server = bound.server();
    if is_passthrough(server) {
        return match server.tls.as_ref().map(|tls| tls.mode) {
            Some(ServerTlsMode::AutoPassthrough) => auto_passthrough(view, bound),
            _ => sni_chains(view, bound, claimed),
        };
    }
    let Some((tcp, exchange)) = tcp_route(view, bound) else { return Vec::new() };
    let mut chain = tcp::named("", Match::default(), tcp);
    if let Some(settings) = &server.tls {
        chain.matches.server_names = bound.sni_hosts();
        chain.tls = Some(server_tls(settings, view, bound.protocol() != Protocol::Https));
        chain.exchange_metadata = exchange;
    }
    vec![chain]
}

/// The first TCP route of a VirtualService bound to the server.
fn tcp_route(view: &View<'_>, bound: &Bound) -> Option<(Tcp, bool)> {
    let exchange = bound.server().tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::IstioMutual);
    for rule in rules(view, bound) {
        let route = rule
            .spec
            .tcp
            .iter()
            .filter(|tcp| !tcp.route.is_empty())
            .find(|tcp| tcp.matches.is_empty() || tcp.matches.iter().any(|m| applies(bound, m.port, &m.gateways)));
        let route = route.map(|tcp| &tcp.route).or_else(|| terminated_tls_route(bound, &rule));
        if let Some(route) = route {
            return Some((tcp::routed(view, route, bound.port(), &rule), exchange));
        }
    }
    None
}

/// A TLSRoute of the Gateway API also routes what its listener has terminated.
fn terminated_tls_route<'a>(bound: &Bound, rule: &'a ConfigRef<VirtualService>) -> Option<&'a Vec<RouteDestination>> {
    let parents = rule.annotations.get(semantics::PARENTS)?;
    let routes = rule.spec.tls.iter().filter(|tls| parents.starts_with("TLSRoute/") && !tls.route.is_empty());
    routes.filter(|tls| tls.matches.iter().any(|m| applies(bound, m.port, &m.gateways))).map(|tls| &tls.route).next()
}

fn sni_chains(view: &View<'_>, bound: &Bound, claimed: &mut Claimed) -> Vec<Chain> {
    let mut chains = Vec::new();
    let bind = &bound.server().bind;
    for rule in rules(view, bound) {
        for tls in rule.spec.tls.iter().filter(|tls| !tls.route.is_empty()) {
            for matches in tls.matches.iter().filter(|m| applies(bound, m.port, &m.gateways)) {
                if matches.sni_hosts.iter().any(|host| claimed.get(host) == Some(bind)) {
                    continue;
                }
                claimed.extend(matches.sni_hosts.iter().map(|host| (host.clone(), bind.clone())));
                let mut server_names: Vec<_> = matches.sni_hosts.iter().map(ToString::to_string).collect();
                server_names.sort();
                let to = tcp::routed(view, &tls.route, bound.port(), &rule);
                chains.push(tcp::named("", Match { server_names, ..Match::default() }, to));
            }
        }
    }
    chains
}

/// Every service of the mesh by the SNI that sidecars give it, unopened: traffic between networks.
fn auto_passthrough(view: &View<'_>, bound: &Bound) -> Vec<Chain> {
    let hosts = bound.sni_hosts();
    let mut chains = Vec::new();
    let has_clusters = |service: &Service| !service.mesh_external && service.resolution != Resolution::Alias;
    for service in view.scope.services.iter().filter(|service| has_clusters(service)) {
        if !hosts.iter().any(|pattern| host::covers(pattern, &service.hostname)) {
            continue;
        }
        let rule = view.destination_rule(service);
        let subsets = rule.iter().flat_map(|rule| rule.spec().subsets.iter().map(|subset| &*subset.name));
        let subsets: Vec<&str> = std::iter::once("").chain(subsets).collect();
        for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            for subset in &subsets {
                let cluster = names::outbound_sni(port.number, subset, &service.hostname);
                let matches = Match {
                    server_names: vec![cluster.clone()],
                    application_protocols: inbound::ISTIO_MTLS.to_vec(),
                    ..Match::default()
                };
                chains.push(tcp::named("", matches, tcp::passthrough(view, cluster, service, subset)));
            }
        }
    }
    chains
}

/// The VirtualServices bound to the server's Gateway with a host that the server serves.
fn rules(view: &View<'_>, bound: &Bound) -> Vec<ConfigRef<VirtualService>> {
    let mut rules = view.snapshot.virtual_services_for_gateway(&bound.gateway_name, &view.node.namespace);
    rules.retain(|rule| {
        rule.spec.hosts.iter().any(|name| {
            bound.hosts.iter().any(|own| match own.split_once('/') {
                Some((namespace, _)) if namespace != &*rule.namespace => false,
                _ => host::overlaps(without_namespace(own), name),
            })
        })
    });
    rules
}

fn applies(bound: &Bound, port: u32, gateways: &[Str]) -> bool {
    (port == 0 || port == bound.port()) && (gateways.is_empty() || gateways.contains(&bound.gateway_name))
}

/// Hosts in both lists: of two that overlap, the more specific one.
fn intersection(a: &[&str], b: &[Str]) -> Vec<String> {
    let mut both = BTreeSet::new();
    for (one, other) in a.iter().flat_map(|one| b.iter().map(move |other| (*one, &**other))) {
        if host::covers(one, other) {
            both.insert(other.to_owned());
        } else if host::covers(other, one) {
            both.insert(one.to_owned());
        }
    }
    both.into_iter().collect()
}
