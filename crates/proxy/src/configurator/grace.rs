//! What the former configuration still serves while the next one cannot.
//!
//! Changes come in pieces: a rule before the subset that it names, a subset's removal before the rule that named it, a service that
//! is deleted and made again. For a while no request fails that the former configuration would have served: a cluster that is taken
//! away stays for [`GRACE`] while a route in force leads to it, and a virtual host that now leads to a cluster nobody has heard
//! of stays for [`HOLD`] as it was. After that the configuration is in force as it stands. Envoy has neither: it answers 503 in
//! between.

use super::references::{clusters_of_host, clusters_of_routes_of};
use super::{ClusterSlot, Configurator};
use meltemi_plan::{RouteConfiguration, VirtualHost};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const GRACE: Duration = Duration::from_secs(15);
/// Shorter, as a mistaken subset keeps all else that is new of its host waiting.
pub(super) const HOLD: Duration = Duration::from_secs(5);

type Clusters = BTreeMap<Arc<str>, ClusterSlot>;

pub(super) fn is_in_force(clusters: &Clusters, name: &str) -> bool {
    clusters.get(name).is_some_and(|slot| slot.active.is_some())
}

/// Whether each cluster that the host leads to can be used.
pub(super) fn serves(clusters: &Clusters, host: &VirtualHost) -> bool {
    clusters_of_routes_of(host).all(|name| is_in_force(clusters, name))
}

/// `next` with those hosts of `former` in place of their successors that lead to clusters nobody has heard of; none where
/// there is no such host.
pub(super) fn held_back(
    clusters: &Clusters,
    next: &RouteConfiguration,
    former: &RouteConfiguration,
) -> Option<RouteConfiguration> {
    let is_lost = |host: &&Arc<VirtualHost>| clusters_of_routes_of(host).any(|name| !clusters.contains_key(name));
    let lost: BTreeSet<&str> = next.virtual_hosts.iter().filter(is_lost).map(|host| &*host.name).collect();
    if lost.is_empty() {
        return None;
    }
    let able = former.virtual_hosts.iter().filter(|host| lost.contains(&*host.name) && serves(clusters, host));
    let able: BTreeMap<&str, &Arc<VirtualHost>> = able.map(|host| (&*host.name, host)).collect();
    (!able.is_empty()).then(|| next.with_former(|host| able.get(&*host.name).copied().cloned()))
}

impl Configurator {
    /// The control plane has no such cluster, or no longer.
    pub fn remove_cluster(&mut self, name: &str) {
        self.cluster_went(name);
        let Some(slot) = self.clusters.get(name).filter(|slot| !slot.held.source.fixed) else { return };
        if slot.active.is_none() {
            return self.drop_cluster(name);
        }
        let plan = slot.held.plan.clone();
        self.unwatch(&plan);
        self.leaving.entry(plan.name.clone()).or_insert_with(|| Instant::now() + GRACE);
        (self.dirty, self.names_changed) = (true, true);
    }

    /// Lets go of clusters that were taken away, once nothing in force leads there or their time is over.
    pub(super) fn release_clusters(&mut self, now: Instant) {
        if self.leaving.is_empty() {
            return;
        }
        let routes = self.routes.values().filter_map(|slot| slot.active.as_ref()).flat_map(|plan| &plan.virtual_hosts);
        let led_to: BTreeSet<&Arc<str>> =
            routes.chain(self.on_demand.hosts_in_force()).flat_map(|host| clusters_of_host(host)).collect();
        let done = |(name, until): &(&Arc<str>, &Instant)| now >= **until || !led_to.contains(*name);
        let gone: Vec<Arc<str>> = self.leaving.iter().filter(done).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.leaving.remove(&name);
            self.drop_cluster(&name);
        }
    }

    /// Whether something stays for a while that the control plane has replaced or taken away.
    pub fn is_in_grace(&self) -> bool {
        !self.leaving.is_empty() || self.routes.values().any(|slot| slot.is_held_back)
    }

    /// Whether some of that has stayed long enough.
    pub(super) fn is_grace_over(&self, now: Instant) -> bool {
        self.leaving.values().any(|until| now >= *until)
            || self.routes.values().any(|slot| slot.is_held_back && now >= slot.came + HOLD)
    }
}

#[cfg(test)]
mod tests;
