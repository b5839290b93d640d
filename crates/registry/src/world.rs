//! The objects that services are derived from, indexed by what asks for them, and which services a change touches.

use crate::workload::host_of;
use crate::{ByName, RegistryOptions, SERVICE_NAME};
use meltemi_config::kube::{EndpointSlice, Endpoints, KubeNode, KubeService, Pod};
use meltemi_config::networking::{ServiceEntry, WorkloadEntry};
use meltemi_config::{Key, Meta, Object, Spec};
use meltemi_model::labels::{pairs, selects};
use meltemi_model::{Labels, ObjectKey, ServiceKey};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// An object with its metadata.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    pub meta: Arc<Meta>,
    pub spec: Arc<T>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    services: ByName<Held<KubeService>>,
    endpoints: ByName<Held<Endpoints>>,
    /// By namespace and Service name, then by slice name.
    slices: ByName<BTreeMap<Arc<str>, Held<EndpointSlice>>>,
    slice_owner: ByName<ObjectKey>,
    pods: ByName<Held<Pod>>,
    /// Pod addresses; host-network pods share theirs and are found by name only.
    pod_at: BTreeMap<Arc<str>, ObjectKey>,
    nodes: BTreeMap<Arc<str>, Held<KubeNode>>,
    entries: ByName<Held<ServiceEntry>>,
    entries_of: BTreeMap<ServiceKey, BTreeSet<ObjectKey>>,
    workload_entries: ByName<Held<WorkloadEntry>>,
}

/// The objects of one namespace in a map by namespace and name.
fn within<'a, T>(map: &'a ByName<T>, namespace: &'a str) -> impl Iterator<Item = (&'a ObjectKey, &'a T)> {
    let from = ObjectKey::new(namespace, "");
    map.range(from..).take_while(move |(key, _)| &*key.namespace == namespace)
}

impl World {
    /// Stores a change and adds the services it may touch to `dirty`.
    pub fn take(
        &mut self,
        key: &Key,
        object: Option<Object>,
        options: &RegistryOptions,
        dirty: &mut BTreeSet<ServiceKey>,
    ) {
        use meltemi_config::Kind;
        let own = ObjectKey { namespace: key.namespace.clone(), name: key.name.clone() };
        let domain = &options.domain;
        match key.kind {
            Kind::Service => {
                dirty.insert(host_of(&own, domain));
                put(&mut self.services, own, object, |spec| match spec {
                    Spec::Service(spec) => Some(spec),
                    _ => None,
                });
            }
            Kind::Endpoints => {
                dirty.insert(host_of(&own, domain));
                put(&mut self.endpoints, own, object, |spec| match spec {
                    Spec::Endpoints(spec) => Some(spec),
                    _ => None,
                });
            }
            Kind::EndpointSlice => self.take_slice(own, object, domain, dirty),
            Kind::Pod => self.take_pod(own, object, domain, dirty),
            Kind::Node => {
                // Localities come from nodes; they change about never, so nothing finer is kept.
                dirty.extend(self.services.keys().map(|key| host_of(key, domain)));
                dirty.extend(self.entries_of.keys().cloned());
                match object.map(|object| (object.meta, object.spec)) {
                    Some((meta, Spec::Node(spec))) => drop(self.nodes.insert(own.name, Held { meta, spec })),
                    _ => drop(self.nodes.remove(&own.name)),
                }
            }
            Kind::ServiceEntry => self.take_entry(own, object, dirty),
            Kind::WorkloadEntry => {
                let old = self.workload_entries.get(&own).map(workload_entry_labels);
                put(&mut self.workload_entries, own.clone(), object, |spec| match spec {
                    Spec::WorkloadEntry(spec) => Some(spec),
                    _ => None,
                });
                let new = self.workload_entries.get(&own).map(workload_entry_labels);
                for labels in [old, new].into_iter().flatten() {
                    self.mark_selecting(&own.namespace, &labels, domain, dirty);
                }
            }
            _ => {}
        }
    }

    fn take_slice(&mut self, own: ObjectKey, object: Option<Object>, domain: &str, dirty: &mut BTreeSet<ServiceKey>) {
        if let Some(owner) = self.slice_owner.remove(&own) {
            dirty.insert(host_of(&owner, domain));
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(&own.name);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
        }
        let Some((meta, Spec::EndpointSlice(spec))) = object.map(|object| (object.meta, object.spec)) else { return };
        let Some(service) = meta.labels.get(SERVICE_NAME) else { return };
        let owner = ObjectKey { namespace: own.namespace.clone(), name: service.clone() };
        dirty.insert(host_of(&owner, domain));
        self.slices.entry(owner.clone()).or_default().insert(own.name.clone(), Held { meta, spec });
        self.slice_owner.insert(own, owner);
    }

    fn take_pod(&mut self, own: ObjectKey, object: Option<Object>, domain: &str, dirty: &mut BTreeSet<ServiceKey>) {
        let old = self.pods.get(&own).cloned();
        put(&mut self.pods, own.clone(), object, |spec| match spec {
            Spec::Pod(spec) => Some(spec),
            _ => None,
        });
        let new = self.pods.get(&own).cloned();
        if let Some(old) = &old {
            old.spec.ips().for_each(|ip| {
                if self.pod_at.get(ip) == Some(&own) {
                    self.pod_at.remove(ip);
                }
            });
        }
        if let Some(new) = new.as_ref().filter(|new| !new.spec.spec.host_network) {
            new.spec.ips().for_each(|ip| drop(self.pod_at.insert(ip.clone(), own.clone())));
        }
        for held in [old, new].into_iter().flatten() {
            self.mark_selecting(&own.namespace, &held.meta.labels, domain, dirty);
            self.mark_naming(&own, &held, domain, dirty);
        }
    }

    fn take_entry(&mut self, own: ObjectKey, object: Option<Object>, dirty: &mut BTreeSet<ServiceKey>) {
        let hosts = |entry: &Held<ServiceEntry>| -> Vec<ServiceKey> {
            entry.spec.hosts.iter().map(|host| ServiceKey::new(entry.meta.namespace.clone(), host.clone())).collect()
        };
        for key in self.entries.get(&own).map(hosts).unwrap_or_default() {
            if let Some(entries) = self.entries_of.get_mut(&key) {
                entries.remove(&own);
                if entries.is_empty() {
                    self.entries_of.remove(&key);
                }
            }
            dirty.insert(key);
        }
        put(&mut self.entries, own.clone(), object, |spec| match spec {
            Spec::ServiceEntry(spec) => Some(spec),
            _ => None,
        });
        for key in self.entries.get(&own).map(hosts).unwrap_or_default() {
            self.entries_of.entry(key.clone()).or_default().insert(own.clone());
            dirty.insert(key);
        }
    }

    /// Services and ServiceEntries of a namespace whose selector takes these labels.
    fn mark_selecting(&self, namespace: &str, labels: &Labels, domain: &str, dirty: &mut BTreeSet<ServiceKey>) {
        for (key, service) in within(&self.services, namespace) {
            let selector = &service.spec.spec.selector;
            if !selector.is_empty() && selects(pairs(selector), labels) {
                dirty.insert(host_of(key, domain));
            }
        }
        for (_, entry) in within(&self.entries, namespace) {
            let selector = entry.spec.workload_selector.as_ref();
            if selector.is_some_and(|selector| selects(pairs(&selector.labels), labels)) {
                dirty.extend(entry.spec.hosts.iter().map(|host| ServiceKey::new(namespace, host.clone())));
            }
        }
    }

    /// Services without selector whose slices or Endpoints name the pod or one of its addresses.
    fn mark_naming(&self, own: &ObjectKey, pod: &Held<Pod>, domain: &str, dirty: &mut BTreeSet<ServiceKey>) {
        let ips: BTreeSet<_> = pod.spec.ips().cloned().collect();
        for (owner, slices) in within(&self.slices, &own.namespace) {
            let mut endpoints = slices.values().flat_map(|slice| &slice.spec.endpoints);
            if endpoints.any(|endpoint| endpoint.addresses.iter().any(|ip| ips.contains(ip))) {
                dirty.insert(host_of(owner, domain));
            }
        }
        for (owner, endpoints) in within(&self.endpoints, &own.namespace) {
            let mut addresses = endpoints
                .spec
                .subsets
                .iter()
                .flat_map(|subset| subset.addresses.iter().chain(&subset.not_ready_addresses));
            if addresses.any(|address| ips.contains(&address.ip)) {
                dirty.insert(host_of(owner, domain));
            }
        }
    }

    pub fn service(&self, key: &ObjectKey) -> Option<&Held<KubeService>> {
        self.services.get(key)
    }

    pub fn endpoints(&self, key: &ObjectKey) -> Option<&Held<Endpoints>> {
        self.endpoints.get(key)
    }

    pub fn slices(&self, key: &ObjectKey) -> Option<impl Iterator<Item = &Held<EndpointSlice>>> {
        self.slices.get(key).map(|slices| slices.values())
    }

    pub fn pod(&self, key: &ObjectKey) -> Option<&Held<Pod>> {
        self.pods.get(key)
    }

    pub fn pod_at(&self, address: &str) -> Option<&Held<Pod>> {
        self.pod_at.get(address).and_then(|key| self.pods.get(key))
    }

    pub fn node(&self, name: &str) -> Option<&Held<KubeNode>> {
        self.nodes.get(name)
    }

    /// The ServiceEntries that declare a host, the oldest first.
    pub fn entries_of(&self, key: &ServiceKey) -> Vec<&Held<ServiceEntry>> {
        let keys = self.entries_of.get(key).into_iter().flatten();
        let mut entries: Vec<_> = keys.filter_map(|key| self.entries.get(key)).collect();
        entries
            .sort_by(|a, b| (a.meta.creation_timestamp, &a.meta.name).cmp(&(b.meta.creation_timestamp, &b.meta.name)));
        entries
    }

    /// Pods of a namespace with these labels that are or will be running.
    pub fn pods_selected<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Held<Pod>> {
        within(&self.pods, namespace).map(|(_, pod)| pod).filter(move |pod| {
            let over =
                matches!(&*pod.spec.status.phase, "Succeeded" | "Failed") || pod.meta.deletion_timestamp.is_some();
            !over && selects(pairs(selector), &pod.meta.labels)
        })
    }

    pub fn workload_entries_selected<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a Labels,
    ) -> impl Iterator<Item = &'a Held<WorkloadEntry>> {
        within(&self.workload_entries, namespace)
            .map(|(_, entry)| entry)
            .filter(move |entry| selects(pairs(selector), &workload_entry_labels(entry)))
    }
}

/// Labels of a WorkloadEntry: the spec's over the object's.
pub(crate) fn workload_entry_labels(entry: &Held<WorkloadEntry>) -> Labels {
    let mut labels = entry.meta.labels.clone();
    labels.extend(entry.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    labels
}

fn put<T>(map: &mut ByName<Held<T>>, key: ObjectKey, object: Option<Object>, spec: impl Fn(Spec) -> Option<Arc<T>>) {
    match object.and_then(|object| Some((object.meta, spec(object.spec)?))) {
        Some((meta, spec)) => drop(map.insert(key, Held { meta, spec })),
        None => drop(map.remove(&key)),
    }
}
