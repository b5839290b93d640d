//! VirtualServices with every name resolved and delegates merged in, and who sees which.
//!
//! A change resolves only the changed objects and the roots that delegate to them; the sorted lists are rebuilt.

mod delegate;
mod resolve;

use crate::config::{ConfigRef, ObjectKey};
use crate::semantics;
use crate::service::Visibility;
use meltemi_config::networking::VirtualService;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use resolve::gateway_name;

/// The gateway that means every sidecar.
pub const MESH: &str = "mesh";

/// A resolved VirtualService and who may use it.
#[derive(Clone, Debug)]
struct Entry {
    config: ConfigRef<VirtualService>,
    visibility: Visibility,
}

#[derive(Clone, Debug, Default)]
pub struct VirtualServiceIndex {
    raw: BTreeMap<ObjectKey, ConfigRef<VirtualService>>,
    resolved: BTreeMap<ObjectKey, Entry>,
    /// By gateway (`mesh` or `namespace/name`), the oldest first.
    by_gateway: BTreeMap<Arc<str>, Vec<ObjectKey>>,
}

impl VirtualServiceIndex {
    pub(crate) fn update(
        &mut self,
        changes: &[(ObjectKey, Option<ConfigRef<VirtualService>>)],
        domain: &str,
        default: &Visibility,
    ) {
        let mut dirty = BTreeSet::new();
        for (key, config) in changes {
            match config {
                Some(config) => drop(self.raw.insert(key.clone(), config.clone())),
                None => drop(self.raw.remove(key)),
            }
            dirty.insert(key.clone());
        }
        let roots = self.raw.values().filter(|root| {
            root.spec
                .http
                .iter()
                .filter_map(|route| route.delegate.as_ref())
                .any(|delegate| dirty.contains(&delegate::key_of(delegate, &root.namespace)))
        });
        let roots: Vec<ObjectKey> = roots.map(|root| root.key()).collect();
        dirty.extend(roots);
        self.resolve(dirty, domain, default);
    }

    pub(crate) fn rebuild(&mut self, domain: &str, default: &Visibility) {
        let all = self.raw.keys().cloned().collect();
        self.resolve(all, domain, default);
    }

    fn resolve(&mut self, keys: BTreeSet<ObjectKey>, domain: &str, default: &Visibility) {
        for key in keys {
            // A VirtualService without hosts is a delegate and acts only through its roots.
            match self.raw.get(&key).filter(|config| !config.spec.hosts.is_empty()) {
                // Its names are whole, and it delegates nothing.
                Some(config) if semantics::is_route(config) => {
                    let visibility = Visibility::parse([], &config.namespace, default);
                    self.resolved.insert(key, Entry { config: config.clone(), visibility });
                }
                Some(config) => {
                    let merged = delegate::merge(config, &self.raw, domain, default);
                    let spec = resolve::names(&merged, &config.namespace, domain);
                    let export_to = config.spec.export_to.iter().map(|entry| &**entry);
                    let visibility = Visibility::parse(export_to, &config.namespace, default);
                    let config = crate::shared::Shared::new(config.with_spec(spec));
                    self.resolved.insert(key, Entry { config, visibility });
                }
                None => drop(self.resolved.remove(&key)),
            }
        }
        self.by_gateway.clear();
        let mut ordered: Vec<_> = self.resolved.values().collect();
        ordered.sort_by(|a, b| a.config.by_age(&b.config));
        for entry in ordered {
            let gateways = &entry.config.spec.gateways;
            let mesh = [Arc::from(MESH)];
            for gateway in if gateways.is_empty() { &mesh[..] } else { gateways } {
                let keys = self.by_gateway.entry(gateway.clone()).or_default();
                if keys.last() != Some(&entry.config.key()) {
                    keys.push(entry.config.key());
                }
            }
        }
    }

    /// Those bound to `gateway` that `namespace` sees: its private ones, those exported to it, the public ones; each by age, but
    /// routes of the Gateway API of the namespace's own first.
    pub fn for_gateway(&self, gateway: &str, namespace: &str) -> Vec<ConfigRef<VirtualService>> {
        let mut visible: Vec<(u8, &ConfigRef<VirtualService>)> = Vec::new();
        for key in self.by_gateway.get(gateway).into_iter().flatten() {
            let Some(entry) = self.resolved.get(key) else { continue };
            let class = match &entry.visibility {
                Visibility::Public => 2,
                other if !other.includes(namespace) => continue,
                _ if &*entry.config.namespace == namespace => 0,
                _ => 1,
            };
            visible.push((class, &entry.config));
        }
        let own = |config: &ConfigRef<VirtualService>| &*config.namespace == namespace && semantics::is_route(config);
        visible.sort_by_key(|(class, config)| (*class, !own(config)));
        visible.into_iter().map(|(_, config)| config.clone()).collect()
    }

    /// As written, before resolution.
    pub fn raw(&self, key: &ObjectKey) -> Option<&ConfigRef<VirtualService>> {
        self.raw.get(key)
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&ConfigRef<VirtualService>> {
        self.resolved.get(key).map(|entry| &entry.config)
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigRef<VirtualService>> {
        self.resolved.values().map(|entry| &entry.config)
    }

    pub fn len(&self) -> usize {
        self.raw.len()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}

/// The hosts that a resolved VirtualService sends to, with the ports it names (0: any port of the service).
pub fn destinations(spec: &VirtualService) -> BTreeMap<Arc<str>, BTreeSet<u32>> {
    let mut found: BTreeMap<Arc<str>, BTreeSet<u32>> = BTreeMap::new();
    let mut add = |destination: &meltemi_config::networking::Destination| {
        let port = destination.port.as_ref().map_or(0, |port| port.number);
        found.entry(destination.host.clone()).or_default().insert(port);
    };
    for route in &spec.http {
        route.route.iter().for_each(|to| add(&to.destination));
        route.mirror.iter().for_each(&mut add);
        route.mirrors.iter().filter_map(|mirror| mirror.destination.as_ref()).for_each(&mut add);
    }
    spec.tls.iter().flat_map(|route| &route.route).for_each(|to| add(&to.destination));
    spec.tcp.iter().flat_map(|route| &route.route).for_each(|to| add(&to.destination));
    found
}

#[cfg(test)]
mod tests;
