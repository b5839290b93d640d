//! All services of the mesh, by key, by host name, and in the order of their age.
//!
//! Owns what follows from services together: which names are aliases of which service, and allocated addresses. Lookup is by
//! hash; a change to services rebuilds the ordered list, a change to endpoints touches nothing here.

mod allocate;

use crate::service::{RegistryKind, Resolution, Service, ServiceKey};
use crate::sharded::Sharded;
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How long a chain of ExternalName services is followed.
const MAX_ALIAS_HOPS: usize = 10;

#[derive(Clone, Debug, Default)]
pub struct ServiceIndex {
    by_key: Sharded<ServiceKey, Shared<Service>>,
    by_hostname: Sharded<Arc<str>, Arc<BTreeSet<ServiceKey>>>,
    ordered: Arc<Vec<Shared<Service>>>,
    slots: allocate::Slots,
    aliases: BTreeSet<ServiceKey>,
}

impl ServiceIndex {
    /// Takes in changed services; returns the keys of those that differ now, which can be more: an alias changes its target.
    pub(crate) fn update(&mut self, changes: &BTreeMap<ServiceKey, Option<Shared<Service>>>) -> BTreeSet<ServiceKey> {
        let mut changed = BTreeSet::new();
        for (key, service) in changes {
            let Some(service) = service else {
                if self.by_key.remove(key).is_some() {
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
                self.by_key.insert(key.clone(), own);
                self.edit_hostname(key, |keys| {
                    keys.insert(key.clone());
                });
                changed.insert(key.clone());
            }
        }
        if !changed.is_empty() {
            changed.extend(self.update_aliases());
            let mut ordered: Vec<_> = self.by_key.values().cloned().collect();
            ordered.sort_by(|a, b| {
                (&a.creation, &a.hostname, &a.namespace).cmp(&(&b.creation, &b.hostname, &b.namespace))
            });
            self.ordered = Arc::new(ordered);
        }
        changed
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
    fn update_aliases(&mut self) -> BTreeSet<ServiceKey> {
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
            self.by_key.insert(key.clone(), edited);
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
    pub fn ordered(&self) -> &Arc<Vec<Shared<Service>>> {
        &self.ordered
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
