//! Kubernetes-shaped documents and ServiceEntries become services and endpoints of the model; configuration objects are passed
//! on.
//!
//! Owns the derivation, as a function of the objects it was shown. Never watches anything itself and never looks at a clock.
//! Incremental: a changed object recomputes the services that depend on it and no others (a changed Node recomputes all).

mod entry;
mod kube;
mod workload;
mod world;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Object, Spec};
use meltemi_gateway_api::{Catalogue, Converted, IngressSettings, Settings};
use meltemi_model::config::Config;
use meltemi_model::snapshot::default_visibility;
use meltemi_model::{
    Changes, Endpoint, EndpointShard, ObjectKey, Options, RegistryKind, Service, ServiceKey, Shared, Update, Visibility,
};
use meltemi_store::{ChangeSet, ConfigSet};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use world::World;

/// A label: which Service an EndpointSlice belongs to.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What a derivation depends on besides the objects.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// `cluster.local`.
    pub domain: Arc<str>,
    pub cluster_id: Arc<str>,
    /// The network of workloads that name none.
    pub network: Arc<str>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        let options = Options::default();
        Self { domain: options.domain, cluster_id: options.cluster_id, network: "".into() }
    }
}

/// The state of one registry.
#[derive(Debug)]
pub struct Registry {
    options: RegistryOptions,
    world: World,
    /// `defaultServiceExportTo` of the mesh.
    visibility: Visibility,
    trust_domain: Arc<str>,
    known: BTreeSet<ServiceKey>,
    gateway_api: Catalogue,
    ingress: IngressSettings,
    /// What the Gateway API's objects mean, as it was handed on last.
    converted: Converted,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new(RegistryOptions::default())
    }
}

impl Registry {
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            options,
            world: World::default(),
            visibility: Visibility::Public,
            trust_domain: MeshConfig::default().trust_domain,
            known: BTreeSet::new(),
            gateway_api: Catalogue::default(),
            ingress: IngressSettings::default(),
            converted: Converted::default(),
        }
    }

    /// Takes a new MeshConfig; services are derived anew where its default `exportTo` or trust domain
    /// differs, and Ingresses where what it says of them does.
    pub fn set_mesh(&mut self, mesh: &Shared<MeshConfig>) -> Update {
        let visibility = default_visibility(&mesh.default_service_export_to);
        let same = visibility == self.visibility && mesh.trust_domain == self.trust_domain;
        self.visibility = visibility;
        self.trust_domain = mesh.trust_domain.clone();
        let mut update = if same { Update::default() } else { self.derive(self.known.clone()) };
        let ingress = IngressSettings::of(mesh);
        if ingress != self.ingress {
            self.ingress = ingress;
            self.convert(&mut update);
        }
        update.mesh = Some(mesh.clone());
        update
    }

    /// Everything from a set of objects, for a first snapshot.
    pub fn load<'a>(&mut self, objects: impl IntoIterator<Item = &'a Object>) -> Update {
        let objects: Vec<(Key, Option<Object>)> =
            objects.into_iter().map(|object| (object.key(), Some(object.clone()))).collect();
        self.apply(objects)
    }

    /// Takes changed objects (`None`: removed) and returns what they mean for the model.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = (Key, Option<Object>)>) -> Update {
        let mut dirty = BTreeSet::new();
        let mut passed = Update::default();
        let mut stale = false;
        for (key, object) in changes {
            stale |= self.gateway_api.take(&key, object.as_ref());
            if pass_on(&key, object.as_ref(), &mut passed) {
                continue;
            }
            self.world.take(&key, object, &self.options, &mut dirty);
        }
        if stale {
            self.convert(&mut passed);
        }
        let derived = self.derive(dirty);
        Update { services: derived.services, endpoints: derived.endpoints, ..passed }
    }

    /// Adds what the objects of the Gateway API mean now, where that differs.
    fn convert(&mut self, update: &mut Update) {
        let settings = Settings { domain: self.options.domain.clone(), ingress: self.ingress.clone() };
        let converted = meltemi_gateway_api::convert(&self.gateway_api, &settings);
        converted.changes_since(&self.converted, update);
        self.converted = converted;
    }

    /// Everything in a store's set.
    pub fn load_set(&mut self, set: &ConfigSet) -> Update {
        self.load(set.iter())
    }

    /// What a store's change means. `set` is the store after the change.
    pub fn follow(&mut self, set: &ConfigSet, changes: &ChangeSet) -> Update {
        self.apply(changes.keys().map(|key| (key.clone(), set.get(key).cloned())).collect::<Vec<_>>())
    }

    fn derive(&mut self, keys: BTreeSet<ServiceKey>) -> Update {
        let mut update = Update::default();
        for key in keys {
            let (service, endpoints) = self.service(&key);
            match &service {
                Some(_) => drop(self.known.insert(key.clone())),
                None => drop(self.known.remove(&key)),
            }
            let shard = service.as_ref().map(|_| Shared::new(EndpointShard::new(key.clone(), endpoints)));
            update.endpoints.insert(key.clone(), shard);
            update.services.insert(key, service.map(Shared::new));
        }
        update
    }

    /// The service of a key with its endpoints, from a Service, from ServiceEntries, or from both: the Service then decides,
    /// and the entries add identities and endpoints.
    fn service(&self, key: &ServiceKey) -> (Option<Service>, Vec<Shared<Endpoint>>) {
        let context = Context {
            world: &self.world,
            options: &self.options,
            visibility: &self.visibility,
            trust_domain: &self.trust_domain,
        };
        let mut endpoints = Vec::new();
        let mut service = None;
        if let Some((kube, found)) = kube::derive(&context, key) {
            service = Some(kube);
            endpoints = found;
        }
        for (entry, found) in entry::derive(&context, key) {
            match &mut service {
                None => service = Some(entry),
                Some(own) => {
                    let new = entry.subject_alt_names.iter().filter(|name| !own.subject_alt_names.contains(name));
                    let new: Vec<_> = new.cloned().collect();
                    own.subject_alt_names.extend(new);
                    if own.registry == RegistryKind::External {
                        own.declarations += 1;
                        own.merge_ports(&entry);
                    }
                }
            }
            endpoints.extend(found);
        }
        let mut seen = BTreeSet::new();
        endpoints.retain(|endpoint: &Endpoint| seen.insert((endpoint.address.clone(), endpoint.ports.clone())));
        (service, endpoints.into_iter().map(Shared::new).collect())
    }
}

/// What the derivation of a service reads.
pub(crate) struct Context<'a> {
    pub world: &'a World,
    pub options: &'a RegistryOptions,
    pub visibility: &'a Visibility,
    pub trust_domain: &'a str,
}

impl Context<'_> {
    pub fn export_to<'a>(&self, entries: impl IntoIterator<Item = &'a str>, namespace: &str) -> Visibility {
        Visibility::parse(entries, namespace, self.visibility)
    }
}

/// Hands a configuration object through to the model; false where it is the registry's own to read.
fn pass_on(key: &Key, object: Option<&Object>, update: &mut Update) -> bool {
    use meltemi_config::Kind;
    macro_rules! pass {
        ($variant:ident, $list:ident) => {{
            let spec = object.and_then(|object| match &object.spec {
                Spec::$variant(spec) => Some((object, spec)),
                _ => None,
            });
            push(&mut update.$list, key, spec.map(|(object, spec)| Config::shared(&object.meta, spec)));
        }};
    }
    match key.kind {
        Kind::VirtualService => pass!(VirtualService, virtual_services),
        Kind::DestinationRule => pass!(DestinationRule, destination_rules),
        Kind::Gateway => pass!(Gateway, gateways),
        Kind::Sidecar => pass!(Sidecar, sidecars),
        Kind::PeerAuthentication => pass!(PeerAuthentication, peer_authentications),
        Kind::AuthorizationPolicy => pass!(AuthorizationPolicy, authorization_policies),
        Kind::RequestAuthentication => pass!(RequestAuthentication, request_authentications),
        Kind::Secret => pass!(Secret, secrets),
        Kind::RateLimitPolicy => pass!(RateLimitPolicy, rate_limit_policies),
        Kind::MemQuota => pass!(MemQuota, mem_quotas),
        Kind::Quota => pass!(Quota, quotas),
        Kind::ResiliencePolicy => pass!(ResiliencePolicy, resilience_policies),
        Kind::FutureFeatures => {
            let spec = object.and_then(|object| match &object.spec {
                Spec::FutureFeatures(spec) => Some(Config::shared(&object.meta, &Arc::new(spec.policy()))),
                _ => None,
            });
            push(&mut update.future_features, key, spec);
        }
        _ => return false,
    }
    true
}

fn push<T: Hash>(list: &mut Changes<T>, key: &Key, config: Option<meltemi_model::ConfigRef<T>>) {
    list.push((ObjectKey { namespace: key.namespace.clone(), name: key.name.clone() }, config));
}

/// The services that objects name, by namespace and name, as the world keeps them.
pub(crate) type ByName<T> = BTreeMap<ObjectKey, T>;

#[cfg(test)]
mod tests;
