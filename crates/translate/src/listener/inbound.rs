//! What reaches the workload: `virtualInbound` with chains for each of its ports, and real listeners where nothing is captured.
//!
//! Owns how a port's protocol and mTLS mode become filter chains, which is what permissive mode is: each kind of client finds
//! the chain that understands it.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_config::networking::{CaptureMode, IstioIngressListener, ServerTlsSettings};
use meltemi_model::{InterceptionMode, MtlsMode, Protocol, Service, ServiceTarget, Shared};

use super::spec::{
    Chain, Class, Http, InboundRoute, Listener, ListenerFilter, Match, Origin, Ports, RouteSource, Tcp, Terminal, Tls,
    Transport,
};
use super::{AGENT_PORTS, is_capture_port, is_forbidden, server_tls, tcp, tls};
use crate::names;
use crate::view::View;

/// What sidecars of any age offer when they speak mutual TLS.
pub const ISTIO_MTLS: [&str; 5] = ["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
const ISTIO_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
const ISTIO_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];

pub fn listeners(view: &View<'_>) -> Vec<Listener> {
    let ports = ports(view);
    let mut listeners = Vec::new();
    let mut captured = Vec::new();
    for port in &ports {
        let chains = port_chains(view, port);
        if port.bind_to_port {
            listeners.push(custom(view, port, chains));
        } else {
            captured.extend(chains);
        }
    }
    if view.node.interception_mode() != InterceptionMode::None {
        listeners.insert(0, virtual_inbound(view, captured));
    }
    listeners
}

/// A port of the workload that something declares.
struct Port {
    number: u32,
    protocol: Protocol,
    service_port: u32,
    port_name: Arc<str>,
    /// Of traces and statistics.
    host: Arc<str>,
    service: Option<Shared<Service>>,
    binds: Vec<String>,
    bind_to_port: bool,
    tls: Option<ServerTlsSettings>,
    origin: Option<Origin>,
}

fn ports(view: &View<'_>) -> Vec<Port> {
    let mut ports: BTreeMap<u32, Port> = BTreeMap::new();
    let mut add = |port: Port| {
        ports.entry(port.number).or_insert(port);
    };
    if let Some(sidecar) = view.scope.spec().filter(|_| view.scope.has_ingress()) {
        for listener in &sidecar.ingress {
            if let Some(port) = declared(view, listener) {
                add(port);
            }
        }
    } else if view.node.interception_mode() != InterceptionMode::None {
        let is_own = |port: u32| AGENT_PORTS.contains(&port) || is_capture_port(view, port);
        let targets = view.snapshot.service_targets(view.node).into_iter();
        for target in targets.filter(|target| target.port.protocol != Protocol::Udp && !is_own(target.target_port)) {
            add(of_service(view, target));
        }
    }
    ports.into_values().collect()
}

fn of_service(view: &View<'_>, target: ServiceTarget) -> Port {
    Port {
        number: target.target_port,
        protocol: target.port.protocol,
        service_port: target.port.number,
        port_name: target.port.name.clone(),
        host: target.service.hostname.clone(),
        service: Some(target.service),
        binds: wildcards(view),
        bind_to_port: false,
        tls: None,
        origin: None,
    }
}

/// From a Sidecar's `ingress`.
fn declared(view: &View<'_>, listener: &IstioIngressListener) -> Option<Port> {
    let sidecar = view.scope.sidecar.as_ref()?;
    let port = listener.port.as_ref()?;
    let mut protocol = Protocol::parse(&port.protocol);
    if listener.tls.is_some() {
        protocol = after_termination(protocol);
    }
    let bind_to_port = match listener.capture_mode {
        CaptureMode::Default => view.node.interception_mode() == InterceptionMode::None,
        mode => mode == CaptureMode::None,
    };
    let wildcard = view.profile.addresses.wildcards()[0];
    let on_wildcard = if listener.bind.is_empty() { protocol.is_http() } else { &*listener.bind == wildcard };
    if bind_to_port && is_forbidden(view.node, port.number) || on_wildcard && AGENT_PORTS.contains(&port.number) {
        return None;
    }
    let binds = match (&*listener.bind, view.node.ip_addresses.first()) {
        ("", Some(own)) => vec![own.to_string()],
        ("", None) => wildcards(view),
        (bind, _) => vec![bind.to_owned()],
    };
    Some(Port {
        number: port.number,
        protocol,
        service_port: port.number,
        port_name: port.name.clone(),
        host: format!("{}.{}", sidecar.name, sidecar.namespace).into(),
        service: None,
        binds,
        bind_to_port,
        tls: listener.tls.clone(),
        origin: Some(Origin::networking("sidecar", &sidecar.namespace, &sidecar.name)),
    })
}

fn wildcards(view: &View<'_>) -> Vec<String> {
    view.profile.addresses.wildcards().iter().map(ToString::to_string).collect()
}

fn after_termination(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Https => Protocol::Http,
        Protocol::Tls => Protocol::Tcp,
        other => other,
    }
}

/// One kind of client of a port.
struct Kind {
    http: bool,
    /// The chain terminates TLS.
    tls: bool,
    transport: Transport,
    alpn: &'static [&'static str],
}

const fn kind(http: bool, tls: bool, transport: Transport, alpn: &'static [&'static str]) -> Kind {
    Kind { http, tls, transport, alpn }
}

/// What the bytes of a port are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Payload {
    Http,
    Tcp,
    Sniffed,
}

impl Payload {
    fn of(protocol: Protocol) -> Self {
        if protocol.is_http() {
            Self::Http
        } else if protocol.is_sniffed() {
            Self::Sniffed
        } else {
            Self::Tcp
        }
    }
}

fn kinds(payload: Payload, mode: MtlsMode) -> &'static [Kind] {
    use Transport::{RawBuffer, Tls};
    const PLAINTEXT: &[&str] = &super::PLAINTEXT_HTTP;
    match (payload, mode) {
        (Payload::Http, MtlsMode::Strict) => const { &[kind(true, true, Tls, &[])] },
        (Payload::Http, MtlsMode::Permissive) => {
            const { &[kind(true, true, Tls, &ISTIO_MTLS), kind(true, false, RawBuffer, &[])] }
        }
        (Payload::Http, MtlsMode::Disable) => const { &[kind(true, false, RawBuffer, &[])] },
        (Payload::Tcp, MtlsMode::Strict) => const { &[kind(false, true, Tls, &[])] },
        // TLS that is not ours is the application's own, and passes.
        (Payload::Tcp, MtlsMode::Permissive) => {
            const { &[kind(false, true, Tls, &ISTIO_MTLS), kind(false, false, Tls, &[]), kind(false, false, RawBuffer, &[])] }
        }
        (Payload::Tcp, MtlsMode::Disable) => const { &[kind(false, false, RawBuffer, &[])] },
        (Payload::Sniffed, MtlsMode::Strict) => {
            const { &[kind(true, true, Tls, &ISTIO_HTTP), kind(false, true, Tls, &[])] }
        }
        (Payload::Sniffed, MtlsMode::Permissive) => {
            const {
                &[
                    kind(true, true, Tls, &ISTIO_HTTP),
                    kind(true, false, RawBuffer, PLAINTEXT),
                    kind(false, true, Tls, &ISTIO_TCP),
                    kind(false, false, RawBuffer, &[]),
                    kind(false, false, Tls, &[]),
                ]
            }
        }
        (Payload::Sniffed, MtlsMode::Disable) => {
            const { &[kind(true, false, RawBuffer, PLAINTEXT), kind(false, false, RawBuffer, &[])] }
        }
    }
}

fn port_chains(view: &View<'_>, port: &Port) -> Vec<Chain> {
    let mode = view.snapshot.mtls_policy(view.node).mode_of(port.number);
    let name = names::listener(port.binds.first().map_or("", |bind| bind), port.number);
    let cluster = names::inbound(port.number);
    let stat_prefix = view.inbound_stat_prefix(&cluster, port.service.as_deref(), port.service_port, &port.port_name);
    let parts = ChainParts {
        view,
        http_name: name.clone(),
        tcp_name: name.clone(),
        http_stat_prefix: format!("inbound_{name};"),
        port: port.number,
        route: InboundRoute {
            cluster: cluster.clone(),
            port: port.service_port,
            host: port.host.clone(),
            grpc: matches!(port.protocol, Protocol::Grpc | Protocol::GrpcWeb),
            retry: view.profile.default_inbound_retry.clone(),
        },
        protocol: port.protocol,
        tcp: Tcp {
            stat_prefix,
            idle_timeout: view.profile.idle_timeout,
            mongo: port.protocol == Protocol::Mongo,
            ..Tcp::to(cluster)
        },
        origin: port.origin.clone(),
    };
    match &port.tls {
        // The user's own TLS applies where the mesh's is off.
        Some(settings) if mode == MtlsMode::Disable => {
            let own = server_tls(settings, view, false);
            let only = kind(Payload::of(port.protocol) == Payload::Http, true, Transport::Tls, &[]);
            vec![parts.chain(&only, |_| own.clone())]
        }
        _ => parts.chains(Payload::of(port.protocol), mode),
    }
}

/// What the chains of a port have in common.
struct ChainParts<'a> {
    view: &'a View<'a>,
    http_name: String,
    tcp_name: String,
    http_stat_prefix: String,
    port: u32,
    route: InboundRoute,
    protocol: Protocol,
    tcp: Tcp,
    origin: Option<Origin>,
}

impl ChainParts<'_> {
    fn chains(&self, payload: Payload, mode: MtlsMode) -> Vec<Chain> {
        let exchange = self.view.profile.dialect.has_istio_filters();
        let mesh = |http: bool| tls::mesh(!http && exchange, &self.view.profile);
        kinds(payload, mode).iter().map(|kind| self.chain(kind, mesh)).collect()
    }

    fn chain(&self, kind: &Kind, terminate: impl Fn(bool) -> Tls) -> Chain {
        let terminal = if kind.http { Terminal::Http(self.http()) } else { Terminal::Tcp(self.tcp.clone()) };
        Chain {
            name: if kind.http { self.http_name.clone() } else { self.tcp_name.clone() },
            matches: Match {
                destination_port: (self.port != 0).then_some(self.port),
                transport: Some(kind.transport),
                application_protocols: kind.alpn.to_vec(),
                ..Match::default()
            },
            tls: kind.tls.then(|| terminate(kind.http)),
            exchange_metadata: true,
            report: !kind.http,
            terminal,
            origin: self.origin.clone(),
        }
    }

    fn http(&self) -> Http {
        Http {
            resolves: Vec::new(),
            route: RouteSource::Inbound(self.route.clone()),
            stat_prefix: self.http_stat_prefix.clone(),
            use_remote_address: false,
            grpc_web: self.protocol == Protocol::GrpcWeb,
            http2: self.protocol.is_http2(),
            explicit_proxy: false,
        }
    }
}

/// A listener of its own, where connections are not captured.
fn custom(view: &View<'_>, port: &Port, chains: Vec<Chain>) -> Listener {
    let name = names::listener(port.binds.first().map_or("", |bind| bind), port.number);
    listener(view, name, port.binds.clone(), port.number, chains, true)
}

fn virtual_inbound(view: &View<'_>, captured: Vec<Chain>) -> Listener {
    let port = u32::try_from(view.snapshot.mesh.proxy_inbound_listen_port).unwrap_or_default();
    let mut chains = passthrough(view, port);
    chains.extend(captured);
    listener(view, names::VIRTUAL_INBOUND.into(), wildcards(view), port, chains, false)
}

/// The trap, and the chains of ports that nothing declares.
fn passthrough(view: &View<'_>, listen_port: u32) -> Vec<Chain> {
    let trap = Match { destination_port: Some(listen_port), ..Match::default() };
    let mut trap = tcp::named(names::VIRTUAL_INBOUND_BLACKHOLE, trap, Tcp::trap());
    trap.exchange_metadata = true;
    let mut chains = vec![trap];
    let policy = view.snapshot.mtls_policy(view.node);
    let declared: Vec<u32> = declared_ports(view);
    let undeclared = policy.ports.iter().filter(|(port, _)| !declared.contains(port) && !is_capture_port(view, **port));
    let undeclared = undeclared.map(|(port, mode)| (*port, *mode));
    for (port, mode) in std::iter::once((0, policy.mode)).chain(undeclared) {
        let parts = ChainParts {
            view,
            http_name: names::VIRTUAL_INBOUND_CATCH_ALL_HTTP.into(),
            tcp_name: names::VIRTUAL_INBOUND.into(),
            http_stat_prefix: format!("{};", names::INBOUND_PASSTHROUGH_CLUSTER),
            port,
            route: InboundRoute {
                cluster: names::INBOUND_PASSTHROUGH_CLUSTER.into(),
                port: 0,
                host: "".into(),
                grpc: false,
                retry: view.profile.default_inbound_retry.clone(),
            },
            protocol: Protocol::Auto,
            tcp: Tcp { idle_timeout: view.profile.idle_timeout, ..Tcp::to(names::INBOUND_PASSTHROUGH_CLUSTER) },
            origin: None,
        };
        chains.extend(parts.chains(Payload::Sniffed, mode));
    }
    chains
}

fn declared_ports(view: &View<'_>) -> Vec<u32> {
    match view.scope.spec().filter(|_| view.scope.has_ingress()) {
        Some(sidecar) => sidecar.ingress.iter().filter_map(|listener| Some(listener.port.as_ref()?.number)).collect(),
        None => view.snapshot.service_targets(view.node).iter().map(|target| target.target_port).collect(),
    }
}

fn listener(
    view: &View<'_>,
    name: String,
    binds: Vec<String>,
    port: u32,
    chains: Vec<Chain>,
    custom: bool,
) -> Listener {
    let tproxy = !custom && view.node.interception_mode() == InterceptionMode::Tproxy;
    let mut filters = Vec::new();
    if !custom {
        filters.push(ListenerFilter::OriginalDestination);
    }
    if tproxy {
        filters.push(ListenerFilter::OriginalSource);
    }
    filters.extend(inspectors(&chains));
    Listener {
        name: name.into(),
        profile: view.profile.clone(),
        class: Class::SidecarInbound,
        security: view.security(),
        binds,
        port,
        bind_to_port: true,
        quic: false,
        use_original_dst: false,
        transparent: tproxy,
        filters,
        filters_timeout: view.profile.protocol_detection_timeout,
        continue_on_filters_timeout: true,
        chains,
        default_chain: None,
    }
}

/// Inspectors where some chain of the port needs what they find. An inspector waits for the client's first bytes, so on a
/// port where the server speaks first it must be off.
fn inspectors(chains: &[Chain]) -> Vec<ListenerFilter> {
    let mut needs: BTreeMap<u32, (bool, bool)> = BTreeMap::new();
    for chain in chains {
        let (tls, http) = needs.entry(chain.matches.destination_port.unwrap_or(0)).or_default();
        *tls |= chain.matches.transport == Some(Transport::Tls);
        *http |= chain.matches.application_protocols.iter().any(|name| super::PLAINTEXT_HTTP.contains(name));
    }
    let ports_where = |wanted: bool, of: fn(&(bool, bool)) -> bool| -> Vec<u32> {
        needs.iter().filter(|(port, need)| **port != 0 && of(need) == wanted).map(|(port, _)| *port).collect()
    };
    let everywhere = |of: fn(&(bool, bool)) -> bool| needs.get(&0).is_some_and(of);
    let mut filters = Vec::new();
    if needs.values().any(|need| need.0) {
        let ports = if everywhere(|need| need.0) {
            except(ports_where(false, |need| need.0))
        } else {
            match ports_where(true, |need| need.0) {
                ports if ports.is_empty() => Ports::All,
                ports => Ports::Only(ports),
            }
        };
        filters.push(ListenerFilter::TlsInspector(ports));
    }
    if needs.values().any(|need| need.1) {
        filters.push(ListenerFilter::HttpInspector(except(ports_where(false, |need| need.1))));
    }
    filters
}

fn except(ports: Vec<u32>) -> Ports {
    if ports.is_empty() { Ports::All } else { Ports::Except(ports) }
}
