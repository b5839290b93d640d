//! Virtual hosts and clusters that traffic asked for.
//!
//! Owns which of them are followed, and until when. A host is put in force when the clusters that it names are, or are known
//! not to exist; so is its next version, which waits for the latter too while the present one serves. What nothing has used for
//! a while is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meltemi_plan::{OnDemandHost, RouteConfiguration, VirtualHost};
use meltemi_upstream::Cluster;
use tokio::time::Instant;

use super::grace::{self, GRACE, HOLD};
use super::references::clusters_of_host;
use super::{Configurator, Held};
use crate::demand::Need;

/// Hosts, and clusters asked for by themselves, that are followed at once. Beyond it the least recently used make room, some at
/// a time, as a crawler names ever new hosts.
const MAX_FOLLOWED: usize = 2048;
/// What was used within this does not make room.
const RECENTLY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct OnDemand {
    hosts: BTreeMap<Arc<str>, HostSlot>,
    /// Asked for by connections, and by requests of routes that do not come on demand.
    clusters: BTreeMap<Arc<str>, Followed>,
    /// Clusters that are wanted and that the control plane does not have.
    absent: BTreeSet<Arc<str>>,
    /// Grows when other hosts are in force.
    generation: u64,
}

#[derive(Debug)]
struct HostSlot {
    held: Option<Held<OnDemandHost>>,
    active: Option<Arc<OnDemandHost>>,
    /// The control plane has no such host.
    absent: bool,
    /// When the version held came.
    came: Instant,
    used: Instant,
}

impl HostSlot {
    fn is_current(&self) -> bool {
        match (&self.held, &self.active) {
            (Some(held), Some(active)) => Arc::ptr_eq(&held.plan, active),
            (None, _) => true,
            (Some(_), None) => false,
        }
    }

    fn versions(&self) -> impl Iterator<Item = &Arc<OnDemandHost>> {
        self.held.iter().map(|held| &held.plan).chain(&self.active)
    }
}

#[derive(Debug)]
struct Followed {
    used: Instant,
    /// Requests and connections so far, as last seen.
    count: u64,
}

impl OnDemand {
    pub(super) fn host_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.hosts.keys()
    }

    pub(super) fn cluster_names(&self) -> impl Iterator<Item = &Arc<str>> {
        let of_hosts = self.hosts.values().flat_map(HostSlot::versions).flat_map(|plan| clusters_of_host(&plan.host));
        of_hosts.chain(self.clusters.keys())
    }

    pub(super) fn held_hosts(&self) -> impl Iterator<Item = &Held<OnDemandHost>> {
        self.hosts.values().filter_map(|slot| slot.held.as_ref())
    }

    fn wants(&self, cluster: &str) -> bool {
        self.cluster_names().any(|name| **name == *cluster)
    }

    pub(super) fn hosts_in_force(&self) -> impl Iterator<Item = &Arc<VirtualHost>> {
        self.hosts.values().filter_map(|slot| slot.active.as_ref()).map(|plan| &plan.host)
    }

    /// The base with the hosts in force that belong to it.
    fn merged(&self, base: &RouteConfiguration) -> RouteConfiguration {
        let start = format!("{}/", base.name);
        let own = self.hosts.iter().filter(|(name, _)| name.starts_with(&start));
        base.with_hosts(own.filter_map(|(_, slot)| slot.active.as_deref()))
    }

    fn is_full(&self) -> bool {
        self.hosts.len() + self.clusters.len() >= MAX_FOLLOWED
    }

    /// Notes which hosts were used since this was last called.
    fn note_used(&mut self, now: Instant) {
        for slot in self.hosts.values_mut() {
            let usage = slot.active.as_ref().and_then(|plan| plan.host.usage.as_ref());
            if usage.is_some_and(meltemi_plan::on_demand::Usage::take) {
                slot.used = now;
            }
        }
    }

    /// Gives up hosts that are in force and have not been used for the longest time.
    fn make_room(&mut self, now: Instant) {
        self.note_used(now);
        let answered = self.hosts.iter().filter(|(_, slot)| slot.active.is_some() || slot.absent);
        let mut unused: Vec<(Instant, Arc<str>)> = answered
            .filter(|(_, slot)| slot.used + RECENTLY < now)
            .map(|(name, slot)| (slot.used, name.clone()))
            .collect();
        unused.sort();
        for (_, name) in unused.into_iter().take(MAX_FOLLOWED / 8) {
            self.hosts.remove(&name);
        }
        self.generation += 1;
    }
}

impl Configurator {
    /// Follows what is needed from here on; false if that would be too much.
    pub fn demand(&mut self, need: &Need, now: Instant) -> bool {
        let on_demand = &mut self.on_demand;
        let known = match need {
            Need::Host(name) => on_demand.hosts.contains_key(name),
            Need::Cluster(name) => on_demand.clusters.contains_key(name),
        };
        if known {
            return true;
        }
        if on_demand.is_full() {
            on_demand.make_room(now);
            self.dirty = true;
        }
        if on_demand.is_full() {
            return false;
        }
        match need {
            Need::Host(name) => {
                let slot = HostSlot { held: None, active: None, absent: false, came: now, used: now };
                on_demand.hosts.insert(name.clone(), slot);
            }
            Need::Cluster(name) => {
                on_demand.clusters.insert(name.clone(), Followed { used: now, count: 0 });
            }
        }
        self.names_changed = true;
        true
    }

    /// Whether what is needed is in force, or known not to exist.
    pub fn is_met(&self, need: &Need) -> bool {
        match need {
            Need::Host(name) => self.on_demand.hosts.get(name).is_none_or(|slot| slot.active.is_some() || slot.absent),
            Need::Cluster(name) => {
                self.on_demand.absent.contains(name)
                    || self.clusters.get(name).is_some_and(|slot| slot.active.is_some())
            }
        }
    }

    pub fn set_host(&mut self, held: Held<OnDemandHost>, now: Instant) {
        let Some(slot) = self.on_demand.hosts.get_mut(&held.plan.name) else { return };
        slot.absent = false;
        if slot.held.as_ref().is_some_and(|own| own.plan.fingerprint == held.plan.fingerprint) {
            return;
        }
        slot.held = Some(held);
        slot.came = now;
        (self.dirty, self.names_changed) = (true, true);
    }

    pub fn host_absent(&mut self, name: &str) {
        let Some(slot) = self.on_demand.hosts.get_mut(name) else { return };
        slot.absent = true;
        slot.held = None;
        if slot.active.take().is_some() {
            self.on_demand.generation += 1;
        }
        (self.dirty, self.names_changed) = (true, true);
    }

    /// A cluster came.
    pub(super) fn cluster_came(&mut self, name: &str) {
        self.on_demand.absent.remove(name);
    }

    /// A cluster is gone, or never was.
    pub(super) fn cluster_went(&mut self, name: &str) {
        if self.on_demand.wants(name) {
            self.on_demand.absent.insert(name.into());
            self.dirty = true;
        }
    }

    /// Puts hosts in force whose clusters are.
    pub(super) fn advance_hosts(&mut self, now: Instant) {
        let (clusters, on_demand) = (&self.clusters, &mut self.on_demand);
        let absent = &on_demand.absent;
        for slot in on_demand.hosts.values_mut().filter(|slot| !slot.is_current()) {
            let Some(held) = &slot.held else { continue };
            let serves = slot.active.as_ref().is_some_and(|former| grace::serves(clusters, &former.host));
            let holds = serves && now < slot.came + HOLD;
            let is_ready = |name: &Arc<str>| {
                let waits = clusters.contains_key(name) || holds || !absent.contains(name);
                grace::is_in_force(clusters, name) || !waits
            };
            if now >= slot.came + GRACE || clusters_of_host(&held.plan.host).all(is_ready) {
                slot.active = Some(held.plan.clone());
                on_demand.generation += 1;
                (self.dirty, self.names_changed) = (true, true);
            }
        }
    }

    /// The configuration to put in force for one whose hosts come on demand, if that differs from what is.
    pub(super) fn advance_on_demand_routes(&mut self) {
        for slot in self.routes.values_mut().filter(|slot| slot.held.plan.on_demand) {
            let made_of = (slot.held.plan.clone(), self.on_demand.generation);
            let is_same = slot
                .made_of
                .as_ref()
                .is_some_and(|(plan, generation)| Arc::ptr_eq(plan, &made_of.0) && *generation == made_of.1);
            if !is_same {
                slot.active = Some(Arc::new(self.on_demand.merged(&slot.held.plan)));
                slot.made_of = Some(made_of);
            }
        }
    }

    /// Whether anything ends by time alone.
    pub fn needs_time(&self) -> bool {
        self.has_on_demand() || self.is_in_grace()
    }

    /// Whether anything is followed for the sake of traffic.
    pub fn has_on_demand(&self) -> bool {
        !self.on_demand.hosts.is_empty() || !self.on_demand.clusters.is_empty()
    }

    /// Gives up what nothing has used for so long.
    pub fn give_up_unused(&mut self, now: Instant, idle: Duration) {
        let before = (self.on_demand.hosts.len(), self.on_demand.clusters.len());
        self.on_demand.note_used(now);
        self.on_demand.hosts.retain(|_, slot| now < slot.used + idle);
        let clusters = &self.clusters;
        self.on_demand.clusters.retain(|name, followed| {
            let active = clusters.get(name).and_then(|slot| slot.active.as_deref());
            let (count, in_use) = active.map_or((0, false), usage);
            if in_use || count != followed.count {
                *followed = Followed { used: now, count };
            }
            now < followed.used + idle
        });
        let after = (self.on_demand.hosts.len(), self.on_demand.clusters.len());
        if before != after {
            tracing::debug!(hosts = before.0 - after.0, clusters = before.1 - after.1, "given up unused configuration");
            self.on_demand.generation += 1;
            (self.dirty, self.names_changed) = (true, true);
            let wanted: BTreeSet<Arc<str>> = self.on_demand.cluster_names().cloned().collect();
            self.on_demand.absent.retain(|name| wanted.contains(name));
        }
    }
}

/// Requests and connections so far, and whether any is going on.
fn usage(cluster: &Cluster) -> (u64, bool) {
    let traffic = &cluster.stats.traffic;
    let count = traffic.upstream_rq_total().value() + traffic.upstream_cx_total().value();
    (count, traffic.upstream_rq_active().value() > 0 || traffic.upstream_cx_active().value() > 0)
}

#[cfg(test)]
mod tests;
