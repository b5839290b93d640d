//! Resources from `translate`, as the pusher wants them.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_ca::Authority;
use meltemi_kubernetes::SecretAccess;
use meltemi_model::{Change, Node, Resolution, Snapshot};
use meltemi_push::{Affected, Reach, Source};
use meltemi_translate::{Cache, names};
use meltemi_xds::Resource;
use meltemi_xds::types::{CLUSTER, SECRET};

use crate::authority::{ROOT_CA, RootSecret};
use crate::cluster;

/// All generators with the cache that they share, and the secret with the roots of the mesh.
pub(crate) struct Translator {
    cache: Arc<Cache>,
    roots: RootSecret,
    /// In a cluster, who may have Secrets of it.
    access: Option<SecretAccess>,
}

impl Translator {
    pub(crate) fn new(cache: Arc<Cache>, authority: Arc<Authority>, access: Option<SecretAccess>) -> Self {
        Self { cache, roots: RootSecret::new(authority), access }
    }
}

impl Source for Translator {
    fn generate(&self, snapshot: &Snapshot, node: &Node, type_url: &str, names: Option<&[Arc<str>]>) -> Vec<Resource> {
        let permitted = self.access.as_ref().zip(names).filter(|_| type_url == SECRET);
        let permitted = permitted.map(|(access, names)| cluster::permitted(access, node, names));
        let given = permitted.as_deref().or(names);
        let resources = meltemi_translate::generate(snapshot, node, type_url, given, &self.cache);
        let resources = resources.into_iter().map(|r| Resource { name: r.name, version: r.version, body: r.body });
        let asked = |names: &[Arc<str>]| names.iter().any(|name| **name == *ROOT_CA);
        let roots = (type_url == SECRET && names.is_some_and(asked)).then(|| self.roots.resource(&snapshot.mesh));
        resources.chain(roots).collect()
    }

    fn reach(&self, snapshot: &Snapshot, change: &Change) -> Reach {
        if !change.is_endpoints_only() || !change.summaries.is_empty() {
            return Reach::Everyone;
        }
        // Clients of a headless service have its addresses in listeners and name tables.
        let is_headless = |service: &_| {
            let service: &meltemi_model::Service = service;
            service.headless || service.resolution == Resolution::Passthrough
        };
        if change.endpoints.iter().any(|key| snapshot.services.get(key).is_some_and(|service| is_headless(service))) {
            return Reach::Everyone;
        }
        let hosts: BTreeSet<Arc<str>> = change.endpoints.iter().map(|key| key.hostname.clone()).collect();
        Reach::Some { hosts, addresses: change.addresses.clone() }
    }

    fn affected(&self, snapshot: &Snapshot, change: &Change, node: &Node, type_url: &str) -> Affected {
        match meltemi_translate::affected(change, snapshot, node, type_url) {
            meltemi_translate::Affected::Nothing => Affected::Nothing,
            meltemi_translate::Affected::Everything => Affected::Everything,
            meltemi_translate::Affected::Hosts(hosts) => Affected::Hosts(hosts),
        }
    }

    fn names_of(
        &self,
        snapshot: &Snapshot,
        node: &Node,
        type_url: &str,
        hosts: &BTreeSet<Arc<str>>,
    ) -> Option<BTreeSet<Arc<str>>> {
        // A gateway has its services under two names; one's own services are inbound clusters too, which name no host.
        let own = |host: &Arc<str>| {
            let keys = node.ip_addresses.iter().flat_map(|address| snapshot.endpoints.services_at(address));
            keys.into_iter().any(|key| key.hostname == *host)
        };
        if type_url != CLUSTER || node.is_router() || hosts.iter().any(|host| host.starts_with('*') || own(host)) {
            return None;
        }
        let scope = snapshot.scope(node);
        let mut found = BTreeSet::new();
        for service in hosts.iter().filter_map(|host| scope.service(host)) {
            let rule = snapshot.destination_rule(node, service);
            let subsets: Vec<&str> =
                rule.iter().flat_map(|rule| &rule.spec().subsets).map(|subset| &*subset.name).collect();
            for port in &service.ports {
                let names = std::iter::once("").chain(subsets.iter().copied());
                found.extend(names.map(|subset| Arc::from(names::outbound(port.number, subset, &service.hostname))));
            }
        }
        Some(found)
    }
}
