//! The servers of all Gateways that a router serves, as one set of ports.
//!
//! Owns who wins: the older Gateway first; plain HTTP servers of a port join, TLS servers are told apart by host, and a server
//! that fits neither is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_base::Compliance;
use meltemi_config::networking::{Gateway, Server, ServerTlsMode, TlsProtocol};
use meltemi_model::{ConfigRef, Protocol, ServiceTarget, semantics};

use crate::names;
use crate::view::View;

/// Services with this label keep the gateway on the port number that the Gateway names.
const DISABLE_PORT_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A server, with the names that make it one of this node's.
#[derive(Debug, Clone)]
pub struct Bound {
    pub gateway: ConfigRef<Gateway>,
    pub index: usize,
    /// `namespace/name` of the Gateway.
    pub gateway_name: Arc<str>,
    /// With namespaces resolved: `host` or `namespace/host`.
    pub hosts: Vec<Arc<str>>,
    /// The server's RDS name; empty where it has none.
    pub route: String,
    /// Serves HTTP/3 as well.
    pub quic: bool,
}

impl Bound {
    pub fn server(&self) -> &Server {
        &self.gateway.spec.servers[self.index]
    }

    pub fn port(&self) -> u32 {
        self.server().port.as_ref().map_or(0, |port| port.number)
    }

    pub fn protocol(&self) -> Protocol {
        self.server().port.as_ref().map_or(Protocol::Auto, |port| Protocol::parse(&port.protocol))
    }

    pub fn terminates_https(&self) -> bool {
        self.server().tls.is_some() && self.protocol() == Protocol::Https && !is_passthrough(self.server())
    }

    pub fn redirects(&self) -> bool {
        self.server().tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// Hosts as SNI has them, without namespaces.
    pub fn sni_hosts(&self) -> Vec<String> {
        let hosts: BTreeSet<_> = self.hosts.iter().map(|host| without_namespace(host).to_owned()).collect();
        hosts.into_iter().collect()
    }
}

pub fn without_namespace(host: &str) -> &str {
    host.split_once('/').map_or(host, |(_, host)| host)
}

pub fn is_passthrough(server: &Server) -> bool {
    let mode = server.tls.as_ref().map(|tls| tls.mode);
    matches!(mode, Some(ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough))
}

/// A server that terminates HTTPS, where the gateway's service has a UDP port of the same number. QUIC has TLS 1.3 only.
fn can_be_quic(server: &Server, targets: &[ServiceTarget]) -> bool {
    let (Some(port), Some(tls)) = (&server.port, &server.tls) else { return false };
    Protocol::parse(&port.protocol) == Protocol::Https
        && !is_passthrough(server)
        && matches!(tls.max_protocol_version, TlsProtocol::Auto | TlsProtocol::V1_3)
        && targets.iter().any(|target| target.port.number == port.number && target.port.protocol == Protocol::Udp)
}

/// Where servers listen together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    pub number: u32,
    pub bind: Arc<str>,
    protocol: Arc<str>,
}

impl PortKey {
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.protocol)
    }
}

/// The servers of one port that share its listener.
#[derive(Debug, Default)]
pub struct Port {
    pub servers: Vec<Bound>,
    /// The RDS name of a plain HTTP port.
    pub route: String,
}

#[derive(Debug, Default)]
pub struct Merged {
    /// In the order in which the ports came up.
    pub ports: Vec<(PortKey, Port)>,
    pub by_route: BTreeMap<String, Vec<Bound>>,
    plain: BTreeMap<u32, PortKey>,
    known_ports: BTreeSet<u32>,
    tls_binds: BTreeMap<u32, BTreeSet<Arc<str>>>,
    tls_hosts: BTreeMap<u32, BTreeMap<Arc<str>, Arc<str>>>,
}

impl Merged {
    pub fn of(view: &View<'_>) -> Self {
        let mut merged = Self::default();
        let targets = view.snapshot.service_targets(view.node);
        for gateway in view.snapshot.gateways_for(view.node) {
            for index in 0..gateway.spec.servers.len() {
                merged.add_server(view, &gateway, index, &targets);
            }
        }
        merged
    }

    fn add_server(&mut self, view: &View<'_>, gateway: &ConfigRef<Gateway>, index: usize, targets: &[ServiceTarget]) {
        let server = &gateway.spec.servers[index];
        let Some(port) = &server.port else { return };
        let options = &view.snapshot.options;
        let without_tls13 = options.compliance == Some(Compliance::Fips140_2);
        for number in resolved_ports(port.number, targets, gateway) {
            let bound = Bound {
                gateway: gateway.clone(),
                index,
                gateway_name: format!("{}/{}", gateway.namespace, gateway.name).into(),
                hosts: server.hosts.iter().map(|host| sanitized(host, &gateway.namespace)).collect(),
                route: route_name(server, number, gateway),
                quic: options.quic_listeners && !without_tls13 && can_be_quic(server, targets),
            };
            let key = PortKey { number, bind: server.bind.clone(), protocol: port.protocol.clone() };
            if server.tls.is_none() || self.claim_hosts(&bound, number) {
                self.place(key, bound);
            }
        }
    }

    /// False where another TLS server of the port has one of the hosts already.
    fn claim_hosts(&mut self, bound: &Bound, number: u32) -> bool {
        let bind = &bound.server().bind;
        let known = self.tls_hosts.entry(number).or_default();
        if bound.hosts.iter().any(|host| known.get(host) == Some(bind)) {
            return false;
        }
        known.extend(bound.hosts.iter().map(|host| (host.clone(), bind.clone())));
        true
    }

    fn place(&mut self, key: PortKey, bound: Bound) {
        if !self.known_ports.contains(&key.number) {
            self.known_ports.insert(key.number);
            return self.start(key, bound);
        }
        match self.plain.get(&key.number).cloned() {
            Some(current) if current.bind == key.bind => {
                let joins =
                    key.protocol().is_http() && (current.protocol().is_http() || current.protocol() == key.protocol());
                if joins && !bound.route.is_empty() {
                    self.by_route.entry(bound.route.clone()).or_default().push(bound.clone());
                    self.port_mut(&current).servers.push(bound);
                }
            }
            Some(_) if self.ports.iter().any(|(own, _)| *own == key) => {
                self.by_route.entry(bound.route.clone()).or_default().push(bound.clone());
                let port = self.port_mut(&key);
                port.route.clone_from(&bound.route);
                port.servers.push(bound);
            }
            Some(_) => self.start(key, bound),
            None if !is_tls(&bound) => self.start(key, bound),
            None => self.join_tls(key, bound),
        }
    }

    /// The first server of a port, or of another address on it.
    fn start(&mut self, key: PortKey, bound: Bound) {
        if is_tls(&bound) {
            self.tls_binds.entry(key.number).or_default().insert(key.bind.clone());
        } else {
            self.plain.insert(key.number, key.clone());
        }
        if is_http(&bound) {
            self.by_route.insert(bound.route.clone(), vec![bound.clone()]);
        }
        let route = bound.route.clone();
        self.ports.push((key, Port { servers: vec![bound], route }));
    }

    fn join_tls(&mut self, key: PortKey, bound: Bound) {
        if is_http(&bound) {
            // One route configuration has one certificate's hosts, so its name is the server's alone.
            if bound.route.is_empty() || self.by_route.contains_key(&bound.route) {
                return;
            }
            self.by_route.insert(bound.route.clone(), vec![bound.clone()]);
        }
        self.tls_binds.entry(key.number).or_default().insert(key.bind.clone());
        self.port_mut(&key).servers.push(bound);
    }

    fn port_mut(&mut self, key: &PortKey) -> &mut Port {
        let index = match self.ports.iter().position(|(own, _)| own == key) {
            Some(index) => index,
            None => {
                self.ports.push((key.clone(), Port::default()));
                self.ports.len() - 1
            }
        };
        &mut self.ports[index].1
    }
}

fn is_tls(bound: &Bound) -> bool {
    bound.server().tls.is_some() && !bound.protocol().is_http()
}

fn is_http(bound: &Bound) -> bool {
    bound.protocol().is_http() || bound.protocol() == Protocol::Https && !is_passthrough(bound.server())
}

/// `./host` is of the Gateway's namespace, `*/host` of any.
fn sanitized(host: &Arc<str>, namespace: &str) -> Arc<str> {
    match host.split_once('/') {
        Some((".", host)) => format!("{namespace}/{host}").into(),
        Some(("*", host)) => host.into(),
        _ => host.clone(),
    }
}

fn route_name(server: &Server, number: u32, gateway: &ConfigRef<Gateway>) -> String {
    let Some(port) = &server.port else { return String::new() };
    let protocol = Protocol::parse(&port.protocol);
    if protocol.is_http() {
        return names::gateway_http_route(number, &server.bind);
    }
    if protocol == Protocol::Https && !is_passthrough(server) {
        let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
        return format!("https.{}.{}.{}.{}{bind}", port.number, port.name, gateway.name, gateway.namespace);
    }
    String::new()
}

/// The ports on which the gateway's workload serves the Gateway's port: the target ports of its services, or (where the
/// Gateway names no services) the number itself.
fn resolved_ports(number: u32, targets: &[ServiceTarget], gateway: &ConfigRef<Gateway>) -> Vec<u32> {
    let mut of_number = targets.iter().filter(|target| target.port.number == number);
    let Some((services, namespace)) = semantics::gateway_services(gateway) else {
        let translated = |target: &&ServiceTarget| !target.service.labels.contains_key(DISABLE_PORT_TRANSLATION);
        return vec![of_number.find(translated).map_or(number, |target| target.target_port)];
    };
    let services: BTreeSet<&str> = services.collect();
    let named = of_number
        .filter(|target| services.contains(&*target.service.hostname) && *target.service.namespace == *namespace);
    named.map(|target| target.target_port).collect::<BTreeSet<_>>().into_iter().collect()
}
