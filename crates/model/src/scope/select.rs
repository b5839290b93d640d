//! Building a scope: which services and VirtualServices each listener imports, one service for each host name.

use super::hosts::Imports;
use super::{EgressListener, Services, SidecarScope, outbound_policy};
use crate::config::ConfigRef;
use crate::semantics;
use crate::service::{RegistryKind, Service};
use crate::service_index::ServiceIndex;
use crate::shared::Shared;
use crate::virtual_service::{self, MESH, VirtualServiceIndex};
use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{CaptureMode, IstioEgressListener, Sidecar, VirtualService};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What a scope is made from.
pub(crate) struct Catalogue<'a> {
    pub mesh: &'a MeshConfig,
    pub services: &'a ServiceIndex,
    pub virtual_services: &'a VirtualServiceIndex,
}

/// `before` is the scope of the same namespace and Sidecar when services were the same: what VirtualServices cannot have
/// changed is taken from it.
pub(crate) fn build(
    catalogue: &Catalogue<'_>,
    namespace: &str,
    sidecar: Option<ConfigRef<Sidecar>>,
    before: Option<&SidecarScope>,
) -> SidecarScope {
    let rules = catalogue.virtual_services.for_gateway(MESH, namespace);
    let everything = [IstioEgressListener { hosts: vec!["*/*".into()], ..Default::default() }];
    let bounds = sidecar.as_ref().map(|sidecar| &sidecar.spec.egress[..]).filter(|egress| !egress.is_empty());
    let listeners = bounds.unwrap_or(&everything);
    // Without bounds every service is imported already, whatever the rules send to.
    if let (None, Some(before)) = (bounds, before) {
        let egress = before.egress.iter().zip(listeners).map(|(own, listener)| EgressListener {
            virtual_services: imported_rules(&imports(listener, namespace), &rules),
            ..own.clone()
        });
        return SidecarScope { egress: egress.collect(), sidecar, ..before.clone() };
    }
    let imports: Arc<[Imports]> = listeners.iter().map(|listener| imports(listener, namespace)).collect();
    let owners: Option<Vec<_>> = imports.iter().map(Imports::owners).collect();
    let owners: Option<BTreeSet<Arc<str>>> = owners.map(|owners| owners.into_iter().flatten().cloned().collect());
    let mut visible = catalogue.services.of_namespaces(owners.as_ref());
    visible.retain(|service| service.export_to.includes(namespace));
    let each = listeners.iter().zip(&*imports);
    let egress: Vec<_> =
        each.map(|(listener, imports)| egress(listener, imports, namespace, &visible, &rules)).collect();
    let union = reachable(catalogue, namespace, &egress);
    SidecarScope {
        namespace: namespace.into(),
        egress,
        services: union.services.into(),
        by_hostname: Arc::new(union.by_hostname),
        outbound_policy: outbound_policy(sidecar.as_ref().map(|sidecar| &*sidecar.spec), catalogue.mesh),
        sidecar,
        imports,
    }
}

/// What the listeners import, and what their VirtualServices send to.
fn reachable(catalogue: &Catalogue<'_>, namespace: &str, egress: &[EgressListener]) -> Union {
    let mut union = Union::default();
    for listener in egress {
        listener.services.iter().for_each(|service| union.add(service));
        for rule in &listener.virtual_services {
            for (hostname, ports) in destinations(&rule.spec, namespace) {
                let Some(service) = catalogue.services.resolve(&hostname, namespace) else { continue };
                let matching = match &listener.port {
                    Some(port) => with_ports(service, &BTreeSet::from([port.number])),
                    None if ports.contains(&0) => Some(service.clone()),
                    None => with_ports(service, &ports),
                };
                matching.iter().for_each(|service| union.add(service));
            }
        }
    }
    union
}

fn imports(listener: &IstioEgressListener, namespace: &str) -> Imports {
    Imports::parse(listener.hosts.iter().map(|entry| &**entry), namespace)
}

fn imported_rules(imports: &Imports, rules: &[ConfigRef<VirtualService>]) -> Vec<ConfigRef<VirtualService>> {
    let imported = rules.iter().filter(|rule| {
        // Wildcards of a route of the Gateway API do not widen an import.
        imports.has_rule(&rule.namespace, &rule.spec.hosts, semantics::is_route(rule))
    });
    imported.cloned().collect()
}

fn egress(
    listener: &IstioEgressListener,
    imports: &Imports,
    namespace: &str,
    visible: &[Shared<Service>],
    rules: &[ConfigRef<VirtualService>],
) -> EgressListener {
    // A Unix socket has no service port to match, and an HTTP proxy's is its own.
    let port = listener.port.as_ref().filter(|port| port.number != 0 && !super::is_http_proxy(port));
    let imported = visible.iter().filter(|service| imports.has_service(&service.namespace, &service.hostname));
    let services: Vec<_> = imported
        .filter_map(|service| match port {
            Some(port) => with_ports(service, &BTreeSet::from([port.number])),
            None => Some(service.clone()),
        })
        .collect();
    EgressListener {
        port: listener.port.clone(),
        bind: listener.bind.clone(),
        capture_mode: listener.capture_mode,
        services: one_per_hostname(services, namespace).into(),
        virtual_services: imported_rules(imports, rules),
    }
}

/// Of services with one host name in several namespaces: the client's own, else Kubernetes', else the oldest.
fn one_per_hostname(services: Vec<Shared<Service>>, namespace: &str) -> Vec<Shared<Service>> {
    let mut chosen: HashMap<Arc<str>, (bool, bool, Arc<str>)> = HashMap::new();
    for service in &services {
        let rank = (&*service.namespace == namespace, service.registry == RegistryKind::Kubernetes);
        let better = match chosen.get(&service.hostname) {
            None => true,
            Some((own, kubernetes, _)) => rank > (*own, *kubernetes),
        };
        if better {
            chosen.insert(service.hostname.clone(), (rank.0, rank.1, service.namespace.clone()));
        }
    }
    let is_chosen = |service: &Shared<Service>| {
        chosen.get(&service.hostname).is_some_and(|(_, _, namespace)| *namespace == service.namespace)
    };
    services.into_iter().filter(is_chosen).collect()
}

/// The service with only these of its ports; `None` where it has none of them.
fn with_ports(service: &Shared<Service>, ports: &BTreeSet<u32>) -> Option<Shared<Service>> {
    let kept: Vec<_> = service.ports.iter().filter(|port| ports.contains(&port.number)).cloned().collect();
    match kept.len() {
        0 => None,
        all if all == service.ports.len() => Some(service.clone()),
        _ => Some(Shared::new(Service { ports: kept, ..(**service).clone() })),
    }
}

/// Destinations of a rule that a client in `namespace` can reach.
fn destinations(rule: &VirtualService, namespace: &str) -> BTreeMap<Arc<str>, BTreeSet<u32>> {
    let foreign = rule.http.iter().any(|route| route.matches.iter().any(|rule| !rule.source_namespace.is_empty()));
    if !foreign {
        return virtual_service::destinations(rule);
    }
    let mut own = rule.clone();
    own.http.retain(|route| {
        route.matches.is_empty()
            || route.matches.iter().any(|rule| rule.source_namespace.is_empty() || &*rule.source_namespace == namespace)
    });
    virtual_service::destinations(&own)
}

/// Services of several listeners as one list: the first of a host name stays, gaining ports that other listeners import.
#[derive(Default)]
struct Union {
    services: Vec<Shared<Service>>,
    by_hostname: HashMap<Arc<str>, usize>,
}

impl Union {
    fn add(&mut self, service: &Shared<Service>) {
        let Some(index) = self.by_hostname.get(&service.hostname) else {
            self.by_hostname.insert(service.hostname.clone(), self.services.len());
            self.services.push(service.clone());
            return;
        };
        let existing = &mut self.services[*index];
        if existing == service {
            return;
        }
        match (existing.registry, service.registry) {
            (RegistryKind::Kubernetes, RegistryKind::External) => {}
            (RegistryKind::External, RegistryKind::Kubernetes) => *existing = service.clone(),
            _ if existing.namespace == service.namespace => {
                let mut merged = (**existing).clone();
                merged.merge_ports(service);
                if merged.ports.len() != existing.ports.len() {
                    *existing = Shared::new(merged);
                }
            }
            _ => {}
        }
    }
}

impl Default for EgressListener {
    fn default() -> Self {
        Self {
            port: None,
            bind: "".into(),
            capture_mode: CaptureMode::Default,
            services: Services::default(),
            virtual_services: Vec::new(),
        }
    }
}
