//! The endpoints of every service, and which services an address serves.
//!
//! The fast path of the control plane: an update replaces one shard and the address entries that differ, and copies two or
//! three buckets of 256.

use crate::change::Change;
use crate::endpoint::{Endpoint, EndpointShard};
use crate::service::ServiceKey;
use crate::sharded::Sharded;
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct EndpointIndex {
    shards: Sharded<ServiceKey, Shared<EndpointShard>>,
    by_address: Sharded<Arc<str>, Arc<BTreeSet<ServiceKey>>>,
}

impl EndpointIndex {
    /// Takes in changed shards and notes the services whose endpoints and summaries differ now, and the addresses that came
    /// or went.
    pub(crate) fn update(
        &mut self,
        changes: &BTreeMap<ServiceKey, Option<Shared<EndpointShard>>>,
        change: &mut Change,
    ) {
        for (key, shard) in changes {
            let old = match shard {
                Some(shard) if self.shards.get(key) == Some(shard) => continue,
                Some(shard) => self.shards.insert(key.clone(), shard.clone()),
                None => match self.shards.remove(key) {
                    None => continue,
                    old => old,
                },
            };
            change.endpoints.insert(key.clone());
            if old.as_ref().map(|shard| shard.summary()) != shard.as_ref().map(|shard| shard.summary()) {
                change.summaries.insert(key.clone());
            }
            let (before, after) = (addresses(old.as_ref()), addresses(shard.as_ref()));
            for address in before.symmetric_difference(&after) {
                let mut keys = self.by_address.get(address).map(|keys| (**keys).clone()).unwrap_or_default();
                if after.contains(address) {
                    keys.insert(key.clone());
                } else {
                    keys.remove(key);
                }
                if keys.is_empty() {
                    self.by_address.remove(address);
                } else {
                    self.by_address.insert(address.clone(), Arc::new(keys));
                }
                change.addresses.insert(address.clone());
            }
        }
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&Shared<EndpointShard>> {
        self.shards.get(key)
    }

    pub fn of(&self, key: &ServiceKey) -> &[Shared<Endpoint>] {
        self.shards.get(key).map_or(&[], |shard| &shard.endpoints)
    }

    pub fn services_at(&self, address: &str) -> impl Iterator<Item = &ServiceKey> {
        self.by_address.get(address).into_iter().flat_map(|keys| keys.iter())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Shared<EndpointShard>> {
        self.shards.values()
    }

    /// How many of 256 parts two indexes share; a test's view of the cost of an update.
    pub fn shared_buckets(&self, other: &Self) -> usize {
        self.shards.shared_buckets(&other.shards)
    }
}

fn addresses(shard: Option<&Shared<EndpointShard>>) -> BTreeSet<Arc<str>> {
    shard
        .into_iter()
        .flat_map(|shard| &shard.endpoints)
        .filter_map(|endpoint| endpoint.address.host().cloned())
        .collect()
}
