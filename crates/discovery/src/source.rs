//! Resources from `translate`, as the pusher wants them.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_model::{Change, Node, Resolution, Snapshot};
use meltemi_push::{Affected, Reach, Source};
use meltemi_translate::Cache;
use meltemi_xds::Resource;

/// All generators with the cache that they share.
#[derive(Default)]
pub(crate) struct Translator {
    cache: Cache,
}

impl Source for Translator {
    fn generate(&self, snapshot: &Snapshot, node: &Node, type_url: &str, names: Option<&[Arc<str>]>) -> Vec<Resource> {
        let resources = meltemi_translate::generate(snapshot, node, type_url, names, &self.cache);
        resources.into_iter().map(|r| Resource { name: r.name, version: r.version, body: r.body }).collect()
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
}
