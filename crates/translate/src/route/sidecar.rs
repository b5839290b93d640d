//! Route configurations of sidecars: `80`, `host:port` for sniffed services, a Sidecar's Unix sockets, `http_proxy`.
//!
//! Owns Istio's domain lists and who wins where two rules or services claim one domain: rules before plain services, the older
//! rule before the younger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_config::networking::VirtualService;
use meltemi_model::{
    ConfigRef, EgressListener, ObjectKey, OutboundPolicy, Port, Resolution, Service, Shared, host, semantics,
};

use super::hosts;
use super::select::{Selection, rule_routes, service_hash};
use super::spec::{CatchAll, Configuration, Host, Routes, ServiceRoute};
use crate::dialect::Dialect;
use crate::listener::outbound;
use crate::names;
use crate::view::View;

/// `None` where the name is none of a sidecar's.
pub fn configuration(view: &View<'_>, name: &str, ports: &mut PortCache) -> Option<Configuration> {
    let (port, host) = match names::Route::parse(name) {
        names::Route::Port(port) => (port, None),
        names::Route::Host { host, port } => (port, Some(host)),
        names::Route::Unix(_) | names::Route::HttpProxy => (0, None),
        names::Route::GatewayHttp | names::Route::GatewayHttps | names::Route::Unknown => return None,
    };
    let egress = match names::Route::parse(name) {
        names::Route::Unix(path) => view.scope.egress_for_bind(path),
        _ => view.scope.egress_for_port(port),
    };
    let http_proxy = egress.is_some_and(EgressListener::is_http_proxy);
    // A host asked for by itself is one of a port, and an HTTP proxy has those of all ports.
    if names::is_on_demand(name) && view.profile.on_demand && !http_proxy {
        return Some(to_be_asked(view, name));
    }
    let port = if http_proxy { 0 } else { port };
    let all = match egress {
        Some(egress) => ports.hosts(view, egress, port, name),
        None => Arc::new(Vec::new()),
    };
    let hosts = match host {
        Some(wanted) => of_sniffed_service(&all, wanted, name),
        None => (*all).clone(),
    };
    let catch_all = if host.is_some() { CatchAll::None } else { catch_all(view) };
    // Where one configuration serves all ports, a host's port tells which is meant.
    let ignore_port = view.profile.dialect != Dialect::Grpc && port != 0;
    let on_demand = false;
    Some(Configuration { name: name.into(), policy: super::policy(view), hosts, catch_all, ignore_port, on_demand })
}

/// What a sidecar does with hosts that nothing serves.
pub fn catch_all(view: &View<'_>) -> CatchAll {
    if view.scope.outbound_policy == OutboundPolicy::AllowAnyDynamicDns && view.profile.dialect != Dialect::Grpc {
        return CatchAll::DynamicDns;
    }
    match outbound::fallback_cluster(view) {
        Some(cluster) => CatchAll::AllowAny(cluster),
        None => CatchAll::BlockAll,
    }
}

/// Of what the capture port takes and no listener claims: nothing but the catch-all.
pub fn unclaimed(view: &View<'_>) -> Configuration {
    Configuration {
        name: names::ALLOW_ANY_DYNAMIC_DNS.into(),
        policy: super::policy(view),
        hosts: Vec::new(),
        catch_all: catch_all(view),
        ignore_port: true,
        on_demand: false,
    }
}

/// Of a proxy that asks for each host by itself: nothing but where to ask.
fn to_be_asked(view: &View<'_>, name: &str) -> Configuration {
    Configuration {
        name: name.into(),
        policy: super::policy(view),
        hosts: Vec::new(),
        catch_all: CatchAll::None,
        ignore_port: true,
        on_demand: true,
    }
}

/// The virtual hosts of a port, worked out once for all routes of one generation: every sniffed service of the port has a
/// route of its own, cut from the same list.
#[derive(Default)]
pub struct PortCache(BTreeMap<String, Arc<Vec<Host>>>);

impl PortCache {
    fn hosts(&mut self, view: &View<'_>, egress: &EgressListener, port: u32, name: &str) -> Arc<Vec<Host>> {
        let key = if port == 0 { name.to_owned() } else { port.to_string() };
        self.0.entry(key).or_insert_with(|| Arc::new(port_hosts(view, egress, &[], port))).clone()
    }
}

/// The one virtual host of the service, for whatever host a request names: the listener is the service's own.
fn of_sniffed_service(all: &[Host], hostname: &str, name: &str) -> Vec<Host> {
    let own = all.iter().find(|host| host.domains.iter().any(|domain| domain == hostname || domain == name));
    own.map(|host| Host { domains: vec!["*".into()], ..host.clone() }).into_iter().collect()
}

/// A service with the ports that matter to the route configuration.
struct Candidate {
    service: Shared<Service>,
    ports: Vec<Port>,
}

type Registry = BTreeMap<String, Candidate>;

/// Services without a virtual host here that destinations may name, where they have the port.
struct Beyond<'a> {
    services: &'a [Shared<Service>],
    port: u32,
}

impl<'a> Beyond<'a> {
    fn find(&self, hostname: &str) -> Option<&'a Shared<Service>> {
        let mut named = self.services.iter().filter(|service| service.hostname.eq_ignore_ascii_case(hostname));
        named.find(|service| service.port(self.port).is_some())
    }
}

/// Rules or a service, for the hosts of one port.
struct Group {
    port: u32,
    rule_hosts: Vec<String>,
    services: Vec<Shared<Service>>,
    routes: Routes,
}

/// The virtual hosts of a port. `beyond` are services that have none and that destinations of rules may name.
pub fn port_hosts(view: &View<'_>, egress: &EgressListener, beyond: &[Shared<Service>], port: u32) -> Vec<Host> {
    let mut registry = registry(egress, port);
    let rules: Vec<_> = egress
        .virtual_services
        .iter()
        // Port 80 also serves hosts of rules that are no service's.
        .filter(|rule| port == 80 || concerns(rule, &registry))
        .collect();
    let owners = owners(egress);
    let mut groups = Vec::new();
    for rule in rules {
        groups.extend(rule_groups(view, rule, &registry, &owners, &Beyond { services: beyond, port }));
    }
    for service in groups.iter().flat_map(|group| &group.services) {
        registry.remove(&service.hostname.to_lowercase());
    }
    for candidate in registry.values().filter(|candidate| candidate.service.resolution != Resolution::Alias) {
        groups.extend(service_groups(view, candidate));
    }
    let mut hosts = Claims::default().hosts(view, groups, port);
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts
}

fn registry(egress: &EgressListener, port: u32) -> Registry {
    let mut registry = Registry::new();
    for service in &egress.services {
        let ports = match port {
            0 => service.ports.clone(),
            _ => service.port(port).cloned().into_iter().collect::<Vec<_>>(),
        };
        if port == 0 || !ports.is_empty() {
            registry.insert(service.hostname.to_lowercase(), Candidate { service: service.clone(), ports });
        }
    }
    registry
}

fn concerns(rule: &ConfigRef<VirtualService>, registry: &Registry) -> bool {
    rule.spec.hosts.iter().any(|name| {
        let name = name.to_lowercase();
        registry.contains_key(&name)
            || registry
                .keys()
                .any(|own| (host::is_wildcard(&name) || host::is_wildcard(own)) && host::overlaps(&name, own))
    })
}

/// Which rule a service belongs to, where several name it by wildcard: the most specific host's.
fn owners(egress: &EgressListener) -> BTreeMap<String, ObjectKey> {
    let mut by_host: BTreeMap<String, ObjectKey> = BTreeMap::new();
    for rule in &egress.virtual_services {
        for name in &rule.spec.hosts {
            by_host.entry(name.to_lowercase()).or_insert_with(|| rule.key());
        }
    }
    let owner = |service: &Shared<Service>| {
        let name = service.hostname.to_lowercase();
        let best = match by_host.get(&name) {
            Some(key) => key,
            None => {
                let wildcards = by_host.keys().map(String::as_str).filter(|pattern| host::is_wildcard(pattern));
                by_host.get(host::most_specific(&name, wildcards)?)?
            }
        };
        Some((name, best.clone()))
    };
    if by_host.keys().any(|pattern| host::is_wildcard(pattern)) {
        egress.services.iter().filter_map(owner).collect()
    } else {
        BTreeMap::new()
    }
}

fn rule_groups(
    view: &View<'_>,
    rule: &ConfigRef<VirtualService>,
    registry: &Registry,
    owners: &BTreeMap<String, ObjectKey>,
    beyond: &Beyond<'_>,
) -> Vec<Group> {
    let port = beyond.port;
    let selection = Selection { port, gateway: names::MESH_GATEWAY, tls: false };
    let lookup = |hostname: &str| {
        let here = registry.get(&hostname.to_lowercase()).map(|candidate| &candidate.service);
        here.or_else(|| beyond.find(hostname)).cloned()
    };
    let Some(routes) = rule_routes(view, rule, &selection, &lookup) else { return Vec::new() };
    let routes = Routes::Rules(vec![Arc::new(routes)]);
    let (rule_hosts, services) = hosts_and_services(rule, registry, owners);
    if semantics::is_route(rule) && !services.iter().any(|candidate| may_route(view, rule, &candidate.service)) {
        return Vec::new();
    }
    let mut by_port: BTreeMap<u32, Vec<Shared<Service>>> = BTreeMap::new();
    for candidate in services {
        for own in candidate.ports.iter().filter(|own| own.protocol.is_http() || own.protocol.is_sniffed()) {
            by_port.entry(own.number).or_default().push(candidate.service.clone());
        }
    }
    if by_port.is_empty() && port == 80 {
        by_port.insert(80, Vec::new());
    }
    let group = |(port, services)| Group { port, rule_hosts: rule_hosts.clone(), services, routes: routes.clone() };
    by_port.into_iter().map(group).collect()
}

/// A route of the Gateway API counts for the clients of its own namespace, and for everyone where that is the service's.
fn may_route(view: &View<'_>, rule: &ConfigRef<VirtualService>, service: &Service) -> bool {
    service.namespace == rule.namespace || view.node.namespace == rule.namespace
}

/// Hosts of the rule that are no service's, and the services that the others are.
fn hosts_and_services<'a>(
    rule: &ConfigRef<VirtualService>,
    registry: &'a Registry,
    owners: &BTreeMap<String, ObjectKey>,
) -> (Vec<String>, Vec<&'a Candidate>) {
    let mut own_hosts = Vec::new();
    let mut services = Vec::new();
    let (wildcards, exact): (Vec<_>, Vec<_>) = rule.spec.hosts.iter().partition(|name| host::is_wildcard(name));
    for name in exact {
        match registry.get(&name.to_lowercase()) {
            Some(candidate) => services.push(candidate),
            None => own_hosts.push(name.to_string()),
        }
    }
    for pattern in wildcards {
        let pattern = pattern.to_lowercase();
        if semantics::is_route(rule) {
            own_hosts.push(pattern);
            continue;
        }
        let mut found = false;
        for (name, candidate) in registry.iter().filter(|(name, _)| host::overlaps(name, &pattern)) {
            found = true;
            if owners.get(name) == Some(&rule.key()) {
                services.push(candidate);
            }
        }
        if !found {
            own_hosts.push(pattern);
        }
    }
    (own_hosts, services)
}

fn service_groups(view: &View<'_>, candidate: &Candidate) -> Vec<Group> {
    let http = candidate.ports.iter().filter(|port| port.protocol.is_http() || port.protocol.is_sniffed());
    let group = |port: &Port| Group {
        port: port.number,
        rule_hosts: Vec::new(),
        services: vec![candidate.service.clone()],
        routes: Routes::Service(ServiceRoute {
            cluster: names::outbound(port.number, "", &candidate.service.hostname),
            operation: format!("{}/*", names::domain(&candidate.service.hostname, port.number)),
            hash: service_hash(view, &candidate.service, port.number),
            resilience: view.resilience(&candidate.service.hostname),
        }),
    };
    http.map(group).collect()
}

/// Names and domains that are taken. Within one route configuration each may stand once.
#[derive(Default)]
struct Claims {
    names: BTreeSet<String>,
    domains: BTreeSet<String>,
    /// Full names of the services, with and without port: no service may take another's as its short form.
    full: BTreeSet<String>,
}

impl Claims {
    fn hosts(mut self, view: &View<'_>, groups: Vec<Group>, port: u32) -> Vec<Host> {
        for (group, service) in groups.iter().flat_map(|group| group.services.iter().map(move |s| (group, s))) {
            self.full.insert(names::domain(&service.hostname, group.port));
            self.full.insert(service.hostname.to_string());
        }
        let ignore_port = view.profile.dialect != Dialect::Grpc;
        let most = groups.iter().map(|group| group.rule_hosts.len() + group.services.len()).sum();
        let mut hosts = Vec::with_capacity(most);
        for group in groups {
            let mut found = Vec::new();
            for hostname in &group.rule_hosts {
                let name = names::domain(&hostname.to_lowercase(), group.port);
                let mut domains = vec![names::bracketed(&hostname.to_lowercase())];
                if !ignore_port || port == 0 {
                    domains.push(name.clone());
                }
                found.extend(self.host(name, domains, &[], &group.routes));
            }
            for service in &group.services {
                let suffix = (!ignore_port || port == 0).then_some(group.port);
                let domains = hosts::of_service(view, service, suffix);
                let name = names::domain(&service.hostname, group.port);
                let host = self.host(name, domains.all, &domains.alternatives, &group.routes);
                found.extend(host.map(|host| Host { session: view.session(service), ..host }));
            }
            hosts.extend(
                found
                    .into_iter()
                    .filter_map(|host| if port == 0 { across_ports(host, group.port) } else { Some(host) }),
            );
        }
        hosts
    }

    fn host(&mut self, name: String, domains: Vec<String>, alternatives: &[String], routes: &Routes) -> Option<Host> {
        if !self.names.insert(name.clone()) {
            return None;
        }
        let mut kept = Vec::new();
        for domain in domains {
            let key = domain.to_lowercase();
            if self.domains.contains(&key) || alternatives.contains(&domain) && self.full.contains(&domain) {
                continue;
            }
            self.domains.insert(key);
            kept.push(domain);
        }
        (!kept.is_empty()).then(|| Host {
            name,
            domains: kept,
            routes: routes.clone(),
            require_tls: false,
            session: None,
        })
    }
}

/// Where one route configuration serves all ports, a host without port means port 80.
fn across_ports(mut host: Host, port: u32) -> Option<Host> {
    if port != 80 {
        host.domains.retain(|domain| domain.contains(':'));
    }
    (!host.domains.is_empty()).then_some(host)
}
