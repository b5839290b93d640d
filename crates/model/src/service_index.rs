//! All services of the mesh, by key, by host name, and in the order of their age.
//!
//! Owns what follows from services together: which names are aliases of which service, and allocated addresses. Lookup is by
//! hash; a changed service copies the lists that it is in and moves in them, a change to endpoints touches nothing here.

mod allocate;
mod by_age;

use crate::service::{RegistryKind, Resolution, Service, ServiceKey};
use crate::sharded::Sharded;
use crate::shared::Shared;
use by_age::ByAge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a chain of ExternalName services is followed.
const MAX_ALIAS_HOPS: usize = 10;

#[derive(Clone, Debug, Default)]
pub struct ServiceIndex {
    by_key: Sharded<ServiceKey, Shared<Service>>,
    by_hostname: Sharded<Arc<str>, Arc<BTreeSet<ServiceKey>>>,
    ordered: Arc<ByAge>,
    by_namespace: BTreeMap<Arc<str>, Arc<ByAge>>,
    slots: allocate::Slots,
    aliases: BTreeSet<ServiceKey>,
}

impl ServiceIndex {
    /// Whether taking a service in would change anything. Addresses and aliases are not its own to say.
    pub(crate) fn differs(&self, key: &ServiceKey, service: Option<&Shared<Service>>) -> bool {
        match (self.by_key.get(key), service) {
            (None, None) => false,
            (Some(own), Some(new)) => {
                let (auto_address, aliases) = (own.auto_address, own.aliases.clone());
                Service { auto_address, aliases, ..(**new).clone() } != **own
            }
            _ => true,
        }
    }

    /// Takes in changed services; returns the keys of those that differ now, which can be more: an alias changes its target.
    pub(crate) fn update(&mut self, changes: &BTreeMap<ServiceKey, Option<Shared<Service>>>) -> BTreeSet<ServiceKey> {
        let mut changed = BTreeSet::new();
        let mut before = Vec::new();
        for (key, service) in changes {
            let Some(service) = service else {
                if let Some(old) = self.by_key.remove(key) {
                    before.push(old);
                    self.slots.release(key);
                    self.aliases.remove(key);
                    self.edit_hostname(key, |keys| {
                        keys.remove(key);
                    });
                    changed.insert(key.clone());
                }
                continue;
            };
            let mut own = (**service).clone();
            own.auto_address = self.slots.address_of(&own);
            match own.resolution {
                Resolution::Alias => drop(self.aliases.insert(key.clone())),
                _ => drop(self.aliases.remove(key)),
            }
            let own = Shared::new(own);
            if self.by_key.get(key) != Some(&own) {
                before.extend(self.by_key.insert(key.clone(), own));
                self.edit_hostname(key, |keys| {
                    keys.insert(key.clone());
                });
                changed.insert(key.clone());
            }
        }
        if !changed.is_empty() {
            changed.extend(self.update_aliases(&mut before));
            self.reorder(&before, &changed);
        }
        changed
    }

    /// Takes what was out of the lists, and what is in.
    fn reorder(&mut self, before: &[Shared<Service>], changed: &BTreeSet<ServiceKey>) {
        let now: Vec<Shared<Service>> = changed.iter().filter_map(|key| self.by_key.get(key)).cloned().collect();
        Arc::make_mut(&mut self.ordered).edit(before, &now);
        let mut by_namespace: BTreeMap<&Arc<str>, [Vec<Shared<Service>>; 2]> = BTreeMap::new();
        for (which, services) in [before, &now].into_iter().enumerate() {
            for service in services {
                by_namespace.entry(&service.namespace).or_default()[which].push(service.clone());
            }
        }
        for (namespace, [before, now]) in by_namespace {
            let list = self.by_namespace.entry(namespace.clone()).or_default();
            Arc::make_mut(list).edit(&before, &now);
            if list.is_empty() {
                self.by_namespace.remove(namespace);
            }
        }
    }

    fn edit_hostname(&mut self, key: &ServiceKey, edit: impl FnOnce(&mut BTreeSet<ServiceKey>)) {
        let mut keys = self.by_hostname.get(&key.hostname).map(|keys| (**keys).clone()).unwrap_or_default();
        edit(&mut keys);
        if keys.is_empty() {
            self.by_hostname.remove(&key.hostname);
        } else {
            self.by_hostname.insert(key.hostname.clone(), Arc::new(keys));
        }
    }

    /// Gives each service the list of its ExternalName aliases.
    fn update_aliases(&mut self, before: &mut Vec<Shared<Service>>) -> BTreeSet<ServiceKey> {
        let mut wanted: BTreeMap<ServiceKey, Vec<ServiceKey>> = BTreeMap::new();
        for alias in &self.aliases {
            if let Some(target) = self.alias_target(alias) {
                wanted.entry(target).or_default().push(alias.clone());
            }
        }
        let holders = self.by_key.values().filter(|service| !service.aliases.is_empty()).map(|service| service.key());
        let candidates: BTreeSet<ServiceKey> = holders.chain(wanted.keys().cloned()).collect();
        let mut changed = BTreeSet::new();
        for key in candidates {
            let aliases = wanted.remove(&key).unwrap_or_default();
            let Some(service) = self.by_key.get(&key).filter(|service| service.aliases != aliases) else { continue };
            let edited = Shared::new(Service { aliases, ..(**service).clone() });
            before.extend(self.by_key.insert(key.clone(), edited));
            changed.insert(key);
        }
        changed
    }

    fn alias_target(&self, alias: &ServiceKey) -> Option<ServiceKey> {
        let mut current = self.by_key.get(alias)?;
        for _ in 0..MAX_ALIAS_HOPS {
            let target = current.external_name.as_ref()?;
            // The same namespace first: it is the likely owner where several declare the host.
            let keys = self.by_hostname.get(target)?;
            let key = keys.iter().find(|key| key.namespace == current.namespace).or_else(|| keys.first())?;
            current = self.by_key.get(key)?;
            if current.resolution != Resolution::Alias {
                return Some(key.clone());
            }
        }
        None
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&Shared<Service>> {
        self.by_key.get(key)
    }

    /// Every service with this host name, by namespace.
    pub fn with_hostname(&self, hostname: &str) -> impl Iterator<Item = &Shared<Service>> {
        self.by_hostname.get(hostname).into_iter().flat_map(|keys| keys.iter()).filter_map(|key| self.by_key.get(key))
    }

    /// The service that `namespace` means by a host name: its own, else a Kubernetes one, else the oldest; of those it sees.
    pub fn resolve(&self, hostname: &str, namespace: &str) -> Option<&Shared<Service>> {
        self.with_hostname(hostname).filter(|service| service.export_to.includes(namespace)).min_by_key(|service| {
            let own = &*service.namespace == namespace;
            (!own, service.registry != RegistryKind::Kubernetes, service.creation, service.namespace.clone())
        })
    }

    /// All services, the oldest first.
    pub fn ordered(&self) -> &[Shared<Service>] {
        &self.ordered
    }

    /// Those of a namespace, the oldest first.
    pub fn in_namespace(&self, namespace: &str) -> &[Shared<Service>] {
        self.by_namespace.get(namespace).map_or(&[], |list| list)
    }

    /// All services, or those of these namespaces; the oldest first.
    pub(crate) fn of_namespaces(&self, namespaces: Option<&BTreeSet<Arc<str>>>) -> Vec<Shared<Service>> {
        let Some(namespaces) = namespaces else { return self.ordered.to_vec() };
        let lists = namespaces.iter().map(|namespace| self.in_namespace(namespace));
        let mut services: Vec<_> = lists.flatten().cloned().collect();
        services.sort_by(by_age::order);
        services
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests;
