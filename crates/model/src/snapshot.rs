//! The mesh at one moment: an immutable value, cheap to clone, from which every resource of every node follows.
//!
//! Owns the indexes and the way from one snapshot to the next. Never does I/O. An endpoint-only change costs its own shard;
//! other changes rebuild the index of the kind that changed. Scopes are computed when first asked for and kept for as long as
//! what they are made from is unchanged.

mod policies;
mod scopes;
mod targets;

use crate::authentication::{AuthenticationIndex, MtlsPolicy};
use crate::change::{Change, Changes, Update};
use crate::config::{ConfigRef, ObjectKey};
use crate::destination_rule::{DestinationRuleIndex, MergedRule};
use crate::endpoint_index::EndpointIndex;
use crate::host;
use crate::key_set::{KeyFetch, KeySets};
use crate::labels::{Labels, pairs, selects};
use crate::migration::{Migration, MigrationStep};
use crate::node::Node;
use crate::policy::ByNamespace;
use crate::quota::QuotaIndex;
use crate::resilience::{Resilience, ResilienceIndex};
use crate::scope::SidecarScope;
use crate::semantics;
use crate::service::{Resolution, Service, ServiceKey, Visibility};
use crate::service_index::ServiceIndex;
use crate::session::Sessions;
use crate::shared::Shared;
use crate::virtual_service::VirtualServiceIndex;
use meltemi_base::Compliance;
use meltemi_config::kube::Secret;
use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{Gateway, Sidecar, VirtualService};
use meltemi_config::rate_limit::RateLimitPolicy;
use meltemi_config::resilience::ResiliencePolicy;
use meltemi_config::security::{AuthorizationPolicy, RequestAuthentication};
use meltemi_config::{Key, Kind};
use scopes::ScopeCache;
use std::collections::BTreeMap;
use std::sync::Arc;

pub use targets::ServiceTarget;

/// What does not change while the control plane runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Completes short host names in configuration. Empty: `name.namespace` only.
    pub domain: Arc<str>,
    /// The id of the cluster whose registry this is.
    pub cluster_id: Arc<str>,
    pub sessions: Sessions,
    /// Gateways serve HTTP/3 beside HTTPS where their service has a UDP port of the same number (istiod's
    /// `PILOT_ENABLE_QUIC_LISTENERS`).
    pub quic_listeners: bool,
    /// Who fetches keys for tokens.
    pub key_fetch: KeyFetch,
    /// A workload may have AuthorizationPolicies with different external providers (istiod's
    /// `PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS`).
    pub several_external_authorizers: bool,
    /// Instances of a headless TCP service share a listener, in which each has a chain (istiod's
    /// `PILOT_ENABLE_HEADLESS_FILTER_CHAIN_LISTENER`).
    pub headless_filter_chains: bool,
    /// Over all settings of TLS (`COMPLIANCE_POLICY`).
    pub compliance: Option<Compliance>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            sessions: Sessions::default(),
            quic_listeners: false,
            key_fetch: KeyFetch::default(),
            several_external_authorizers: false,
            headless_filter_chains: false,
            compliance: None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts up with every change.
    pub version: u64,
    /// The version of the last change that was more than one of the endpoints of services that are balanced over: listeners,
    /// routes and clusters are the same in two snapshots that have this in common.
    pub shape: u64,
    pub mesh: Shared<MeshConfig>,
    pub options: Arc<Options>,
    pub services: Arc<ServiceIndex>,
    pub endpoints: EndpointIndex,
    pub virtual_services: Arc<VirtualServiceIndex>,
    pub destination_rules: Arc<DestinationRuleIndex>,
    pub gateways: Arc<BTreeMap<ObjectKey, ConfigRef<Gateway>>>,
    pub sidecars: Arc<BTreeMap<ObjectKey, ConfigRef<Sidecar>>>,
    /// As declared; see [`Self::mtls_policy`] and [`Self::client_authentication`] for what is in force.
    authentication: Arc<AuthenticationIndex>,
    migration: Option<Migration>,
    pub authorization: Arc<ByNamespace<AuthorizationPolicy>>,
    pub request_authentication: Arc<ByNamespace<RequestAuthentication>>,
    pub key_sets: Arc<KeySets>,
    pub rate_limits: Arc<ByNamespace<RateLimitPolicy>>,
    pub quotas: Arc<QuotaIndex>,
    pub secrets: Arc<BTreeMap<ObjectKey, ConfigRef<Secret>>>,
    pub resilience: Arc<ResilienceIndex>,
    scopes: ScopeCache,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(Options::default(), Shared::new(MeshConfig::default()))
    }
}

impl Snapshot {
    /// A mesh with nothing in it.
    pub fn new(options: Options, mesh: Shared<MeshConfig>) -> Self {
        Self {
            version: 0,
            shape: 0,
            mesh,
            options: Arc::new(options),
            services: Arc::default(),
            endpoints: EndpointIndex::default(),
            virtual_services: Arc::default(),
            destination_rules: Arc::default(),
            gateways: Arc::default(),
            sidecars: Arc::default(),
            authentication: Arc::default(),
            migration: None,
            authorization: Arc::default(),
            request_authentication: Arc::default(),
            key_sets: Arc::default(),
            rate_limits: Arc::default(),
            quotas: Arc::default(),
            secrets: Arc::default(),
            resilience: Arc::default(),
            scopes: ScopeCache::default(),
        }
    }

    /// The first snapshot from everything that is known.
    pub fn build(options: Options, update: &Update) -> Self {
        let mesh = update.mesh.clone().unwrap_or_else(|| Shared::new(MeshConfig::default()));
        Self::new(options, mesh).next(update).0
    }

    /// The snapshot after `update`, and what differs. With nothing different, the version stays.
    pub fn next(&self, update: &Update) -> (Self, Change) {
        let mut next = self.clone();
        let mut change = Change::default();
        next.take_mesh(update, &mut change);
        let differs = |(key, service): &(&ServiceKey, &Option<_>)| self.services.differs(key, service.as_ref());
        let services: BTreeMap<_, _> =
            update.services.iter().filter(differs).map(|(key, service)| (key.clone(), service.clone())).collect();
        if !services.is_empty() {
            change.services = Arc::make_mut(&mut next.services).update(&services);
        }
        next.endpoints.update(&update.endpoints, &mut change);
        next.take_routes(update, &mut change);
        next.take_destination_rules(update, &mut change);
        take(Kind::Gateway, &mut next.gateways, &update.gateways, &mut change);
        take(Kind::Sidecar, &mut next.sidecars, &update.sidecars, &mut change);
        take(Kind::Secret, &mut next.secrets, &update.secrets, &mut change);
        next.take_authentication(update, &mut change);
        next.take_policies(update, &mut change);
        next.take_resilience(Kind::ResiliencePolicy, &update.resilience_policies, &mut change);
        next.take_resilience(Kind::FutureFeatures, &update.future_features, &mut change);
        let touches = |kind| change.configs.iter().any(|key| key.kind == kind);
        if change.full || touches(Kind::Sidecar) {
            next.scopes = ScopeCache::default();
        } else if !change.services.is_empty() || touches(Kind::VirtualService) {
            next.scopes = self.scopes.after(&change);
        }
        next.version += u64::from(!change.is_empty());
        if next.shows(&change) {
            next.shape = next.version;
        }
        (next, change)
    }

    /// Whether a change can show in anything but load assignments and name tables.
    fn shows(&self, change: &Change) -> bool {
        let balanced = |key: &ServiceKey| {
            self.services.get(key).is_none_or(|service| service.resolution == Resolution::ClientSideLb)
        };
        !change.is_endpoints_only() || !change.summaries.is_empty() || !change.endpoints.iter().all(balanced)
    }

    fn take_mesh(&mut self, update: &Update, change: &mut Change) {
        let Some(mesh) = update.mesh.as_ref().filter(|mesh| **mesh != self.mesh) else { return };
        self.mesh = mesh.clone();
        change.full = true;
        let routes = default_visibility(&self.mesh.default_virtual_service_export_to);
        Arc::make_mut(&mut self.virtual_services).rebuild(&self.options.domain, &routes);
        let rules = default_visibility(&self.mesh.default_destination_rule_export_to);
        Arc::make_mut(&mut self.destination_rules).rebuild(&self.options.domain, &rules);
    }

    fn take_routes(&mut self, update: &Update, change: &mut Change) {
        let changes: Vec<_> = update
            .virtual_services
            .iter()
            .filter(|(key, new)| self.virtual_services.raw(key) != new.as_ref())
            .cloned()
            .collect();
        if changes.is_empty() {
            return;
        }
        let default = default_visibility(&self.mesh.default_virtual_service_export_to);
        let before = self.virtual_services.clone();
        Arc::make_mut(&mut self.virtual_services).update(&changes, &self.options.domain, &default);
        for (key, new) in &changes {
            let delegate = new.as_ref().or(before.raw(key)).is_some_and(|config| config.spec.hosts.is_empty());
            // A delegate shows through its roots, whichever they are.
            if delegate {
                change.route_hosts.insert("*".into());
            }
            for config in [before.get(key), self.virtual_services.get(key)].into_iter().flatten() {
                change.route_hosts.extend(config.spec.hosts.iter().cloned());
            }
        }
        note(Kind::VirtualService, changes.iter().map(|(key, _)| key), change);
    }

    fn take_destination_rules(&mut self, update: &Update, change: &mut Change) {
        let changes: Vec<_> = update
            .destination_rules
            .iter()
            .filter(|(key, new)| self.destination_rules.get(key) != new.as_ref())
            .cloned()
            .collect();
        if changes.is_empty() {
            return;
        }
        for (key, new) in &changes {
            for rule in [self.destination_rules.get(key), new.as_ref()].into_iter().flatten() {
                let host = host::fqdn(&rule.spec.host, &rule.namespace, &self.options.domain);
                change.destination_hosts.insert(host.into());
            }
        }
        let default = default_visibility(&self.mesh.default_destination_rule_export_to);
        Arc::make_mut(&mut self.destination_rules).update(&changes, &self.options.domain, &default);
        note(Kind::DestinationRule, changes.iter().map(|(key, _)| key), change);
    }

    fn take_authentication(&mut self, update: &Update, change: &mut Change) {
        let differs = |(key, new): &&(ObjectKey, Option<_>)| self.authentication.get(key) != new.as_ref();
        let changes: Vec<_> = update.peer_authentications.iter().filter(differs).cloned().collect();
        if !changes.is_empty() {
            let before = self.authentication.clone();
            Arc::make_mut(&mut self.authentication).update(&changes);
            note(Kind::PeerAuthentication, changes.iter().map(|(key, _)| key), change);
            if update.migration == Some(MigrationStep::Begin) {
                let keys = changes.into_iter().map(|(key, _)| key).collect();
                self.migration = Migration::begin(self.migration.as_ref(), &before, &self.authentication, keys);
            }
        }
        match (update.migration, &mut self.migration) {
            (Some(MigrationStep::ClientsFollow), Some(migration)) => {
                let told = if migration.clients_follow() { &*migration.keys } else { &[] };
                note(Kind::PeerAuthentication, told.iter(), change);
            }
            (Some(MigrationStep::End), running) => {
                let ended = running.take();
                note(Kind::PeerAuthentication, ended.iter().flat_map(|migration| &migration.keys), change);
            }
            _ => {}
        }
    }

    /// Whether a change of PeerAuthentications waits for its next step.
    pub fn is_migrating(&self) -> bool {
        self.migration.is_some()
    }

    fn take_resilience(&mut self, kind: Kind, update: &Changes<ResiliencePolicy>, change: &mut Change) {
        let future = kind == Kind::FutureFeatures;
        let differs = |(key, new): &&(ObjectKey, Option<_>)| self.resilience.get(future, key) != new.as_ref();
        let changes: Vec<_> = update.iter().filter(differs).cloned().collect();
        if !changes.is_empty() {
            Arc::make_mut(&mut self.resilience).update(future, &changes, &self.options.domain);
            note(kind, changes.iter().map(|(key, _)| key), change);
        }
    }

    pub fn root_namespace(&self) -> &str {
        &self.mesh.root_namespace
    }

    /// What the node's proxy sees.
    pub fn scope(&self, node: &Node) -> Arc<SidecarScope> {
        self.scopes.of(self, node)
    }

    /// The service that a node means by a host name.
    pub fn service_for(&self, node: &Node, hostname: &str) -> Option<Shared<Service>> {
        self.scope(node).service(hostname).cloned()
    }

    /// The DestinationRule with which a node reaches a service.
    pub fn destination_rule(&self, node: &Node, service: &Service) -> Option<Shared<MergedRule>> {
        self.destination_rules.lookup(&node.namespace, self.root_namespace(), service, Some(&node.labels))
    }

    /// The DestinationRule of a service that a node itself serves.
    pub fn inbound_destination_rule(&self, node: &Node, service: &Service) -> Option<Shared<MergedRule>> {
        self.destination_rules.lookup(&node.namespace, self.root_namespace(), service, None)
    }

    /// What ResiliencePolicies turn on for a node's requests to a host.
    pub fn resilience(&self, node: &Node, hostname: &str) -> Resilience {
        self.resilience.lookup(&node.namespace, self.root_namespace(), &node.labels, hostname)
    }

    /// Resolved VirtualServices bound to a gateway (`namespace/name`, or `mesh`) that `namespace` sees.
    pub fn virtual_services_for_gateway(&self, gateway: &str, namespace: &str) -> Vec<ConfigRef<VirtualService>> {
        self.virtual_services.for_gateway(gateway, namespace)
    }

    /// The Gateways that a router node serves, the oldest first.
    pub fn gateways_for(&self, node: &Node) -> Vec<ConfigRef<Gateway>> {
        let mut targets: Option<Vec<ServiceTarget>> = None;
        let mut found: Vec<_> = self
            .gateways
            .values()
            .filter(|gateway| match semantics::gateway_services(gateway) {
                Some((mut services, namespace)) => {
                    let targets = targets.get_or_insert_with(|| self.service_targets(node));
                    let has =
                        |name: &str, service: &Service| *service.hostname == *name && *service.namespace == *namespace;
                    services.any(|name| targets.iter().any(|target| has(name, &target.service)))
                }
                None => {
                    let selector = gateway.spec.selector.iter().map(|(key, value)| (&**key, &**value));
                    selects(selector, &node.labels)
                }
            })
            .cloned()
            .collect();
        found.sort_by(|a, b| a.by_age(b));
        found
    }

    /// The mTLS modes of a node's own ports.
    pub fn mtls_policy(&self, node: &Node) -> MtlsPolicy {
        let of =
            |index: &AuthenticationIndex| index.workload_policy(&node.namespace, self.root_namespace(), &node.labels);
        let declared = of(&self.authentication);
        match &self.migration {
            Some(migration) => migration.of_server(declared, of),
            None => declared,
        }
    }

    /// What clients go by.
    pub fn client_authentication(&self) -> &AuthenticationIndex {
        self.migration.as_ref().and_then(Migration::of_clients).unwrap_or(&self.authentication)
    }

    /// The mTLS modes that clients take a workload's ports to have.
    pub fn mtls_of_server(&self, namespace: &str, labels: &Labels) -> MtlsPolicy {
        self.client_authentication().workload_policy(namespace, self.root_namespace(), labels)
    }

    /// What of the mesh a node serves itself, in the order of service age.
    pub fn service_targets(&self, node: &Node) -> Vec<ServiceTarget> {
        targets::of(self, node)
    }

    /// The Sidecar for a workload: in its namespace one that selects it, else one for all; else the root namespace's.
    pub fn sidecar_for(&self, namespace: &str, labels: &Labels) -> Option<ConfigRef<Sidecar>> {
        let in_namespace = |namespace: &str| {
            let from = self.sidecars.range(ObjectKey::new(namespace, "")..);
            let own = from.take_while(|(key, _)| &*key.namespace == namespace);
            let mut list: Vec<_> = own.map(|(_, sidecar)| sidecar).collect();
            list.sort_by(|a, b| a.by_age(b));
            list
        };
        let selector = |sidecar: &ConfigRef<Sidecar>| {
            sidecar
                .spec
                .workload_selector
                .as_ref()
                .map(|selector| selector.labels.clone())
                .filter(|labels| !labels.is_empty())
        };
        let own = in_namespace(namespace);
        let selected = own.iter().find(|sidecar| selector(sidecar).is_some_and(|own| selects(pairs(&own), labels)));
        if let Some(sidecar) = selected.or_else(|| own.iter().find(|sidecar| selector(sidecar).is_none())) {
            return Some((*sidecar).clone());
        }
        if namespace == self.root_namespace() {
            return None;
        }
        in_namespace(self.root_namespace()).into_iter().find(|sidecar| selector(sidecar).is_none()).cloned()
    }

    /// Keys of the services at an address, for debugging and peer lookup.
    pub fn services_at(&self, address: &str) -> Vec<ServiceKey> {
        self.endpoints.services_at(address).cloned().collect()
    }
}

/// The mesh's default for `exportTo`.
pub fn default_visibility(entries: &[Arc<str>]) -> Visibility {
    if entries.is_empty() || entries.iter().any(|entry| &**entry == "*") {
        return Visibility::Public;
    }
    if entries.iter().all(|entry| &**entry == "~") {
        return Visibility::None;
    }
    Visibility::Namespaces(entries.iter().cloned().collect())
}

fn note<'a>(kind: Kind, keys: impl Iterator<Item = &'a ObjectKey>, change: &mut Change) {
    change.configs.extend(keys.map(|key| Key { kind, namespace: key.namespace.clone(), name: key.name.clone() }));
}

fn take<T: PartialEq>(
    kind: Kind,
    map: &mut Arc<BTreeMap<ObjectKey, ConfigRef<T>>>,
    changes: &[(ObjectKey, Option<ConfigRef<T>>)],
    change: &mut Change,
) {
    for (key, new) in changes {
        if map.get(key) == new.as_ref() {
            continue;
        }
        let map = Arc::make_mut(map);
        match new {
            Some(new) => drop(map.insert(key.clone(), new.clone())),
            None => drop(map.remove(key)),
        }
        note(kind, std::iter::once(key), change);
    }
}

#[cfg(test)]
mod tests;
