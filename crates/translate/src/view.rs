//! What the gathering of inputs reads: the snapshot as one node sees it.
//!
//! Owns no decision. It exists for the length of one [`crate::generate`] and never reaches a generator's `build`.

use std::sync::{Arc, OnceLock};

use meltemi_config::networking::DestinationRule;
use meltemi_model::{
    MergedRule, Node, PersistentSession, RegistryKind, Resilience, Service, Shared, SidecarScope, Snapshot,
};

use crate::names;
use crate::profile::{self, Profile};
use crate::security::Security;

pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub node: &'a Node,
    pub scope: Arc<SidecarScope>,
    pub profile: Arc<Profile>,
    security: OnceLock<Shared<Security>>,
}

impl<'a> View<'a> {
    pub fn new(snapshot: &'a Snapshot, node: &'a Node) -> Self {
        let scope = snapshot.scope(node);
        let find = |name: &str| find_service(&scope, name);
        let profile = Arc::new(profile::resolve(snapshot, node, &find));
        Self { snapshot, node, profile, scope, security: OnceLock::new() }
    }

    /// The policies that select the node.
    pub fn security(&self) -> Shared<Security> {
        self.security.get_or_init(|| Shared::new(Security::of(self))).clone()
    }

    /// The host name of the service that a provider names.
    pub fn find_service(&self, name: &str) -> Option<Arc<str>> {
        find_service(&self.scope, name)
    }

    pub fn destination_rule(&self, service: &Service) -> Option<Shared<MergedRule>> {
        self.snapshot.destination_rule(self.node, service)
    }

    /// The persistent sessions of a service's clients.
    pub fn session(&self, service: &Service) -> Option<PersistentSession> {
        self.snapshot.options.sessions.of(service)
    }

    /// What ResiliencePolicies turn on for requests to a host.
    pub fn resilience(&self, hostname: &str) -> Resilience {
        self.snapshot.resilience(self.node, hostname)
    }

    /// The addresses on which a sidecar captures traffic to the service: without prefix length, of the node's families.
    /// None for services that have no address of their own.
    pub fn addresses(&self, service: &Service) -> Vec<Arc<str>> {
        let all = service.effective_addresses(self.node.dns_auto_allocate());
        if service.registry == RegistryKind::External && !service.addresses.is_empty() {
            // The user's own choice; traffic is matched on it whatever the proxy's family.
            return all;
        }
        let own: Vec<_> = all.iter().filter(|address| self.is_reachable(address)).cloned().collect();
        if own.is_empty() { all } else { own }
    }

    fn is_reachable(&self, address: &str) -> bool {
        let v6 = address.contains(':');
        if v6 { self.node.has_ipv6() } else { self.node.has_ipv4() }
    }

    /// `%SERVICE%`-style patterns of `outboundClusterStatName`, or the cluster's name.
    pub fn outbound_stat_prefix(&self, cluster: &str, service: &Service, subset: &str, port: u32) -> String {
        let pattern = &*self.snapshot.mesh.outbound_cluster_stat_name;
        if pattern.is_empty() {
            return cluster.into();
        }
        let port_name = service.port(port).map_or("", |port| &*port.name);
        names::stat_pattern(pattern, service, subset, (port_name, port), 0)
    }

    pub fn inbound_stat_prefix(&self, cluster: &str, service: Option<&Service>, port: u32, port_name: &str) -> String {
        let pattern = &*self.snapshot.mesh.inbound_cluster_stat_name;
        match service {
            Some(service) if !pattern.is_empty() => names::stat_pattern(pattern, service, "", (port_name, port), 0),
            _ => cluster.into(),
        }
    }
}

/// `host`, or `namespace/host` for one of several services of that name.
fn find_service(scope: &SidecarScope, name: &str) -> Option<Arc<str>> {
    let (namespace, host) = match name.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, name),
    };
    let service = scope.service(host).or_else(|| {
        // `zipkin.istio-system` is how the documentation writes it.
        let mut parts = host.split('.');
        let (name, ns) = (parts.next()?, parts.next()?);
        scope.services.iter().find(|s| *s.name == *name && *s.namespace == *ns)
    })?;
    namespace.is_none_or(|namespace| *service.namespace == *namespace).then(|| service.hostname.clone())
}

/// The cluster of a VirtualService's destination, as seen from a listener's port.
pub fn destination_cluster(
    destination: &meltemi_config::networking::Destination,
    service: Option<&Service>,
    listener_port: u32,
) -> String {
    if destination.host.is_empty() {
        return names::UNKNOWN_SERVICE.into();
    }
    let external = service.and_then(|service| service.external_name.as_deref());
    let port = match (&destination.port, service) {
        (Some(port), _) => port.number,
        (None, Some(service)) if service.ports.len() == 1 => service.ports[0].number,
        (None, _) => listener_port,
    };
    names::outbound(port, &destination.subset, external.unwrap_or(&destination.host))
}

/// The policy that applies to one subset of a rule, or to all of it.
pub fn consistent_hash_source_ip(rule: &DestinationRule, subset: &str) -> bool {
    let own = rule.subsets.iter().find(|s| *s.name == *subset && !subset.is_empty());
    let balancer = own
        .and_then(|s| s.traffic_policy.as_ref())
        .and_then(|policy| policy.load_balancer.as_ref())
        .or_else(|| rule.traffic_policy.as_ref().and_then(|policy| policy.load_balancer.as_ref()));
    balancer.and_then(|b| b.consistent_hash.as_ref()).is_some_and(|hash| hash.use_source_ip == Some(true))
}
