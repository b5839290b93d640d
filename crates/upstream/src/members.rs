//! Who belongs to a cluster: turning an update into endpoints while keeping the identity of those that stay.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use meltemi_net::Address;
use meltemi_plan::{Locality, Metadata};

use crate::endpoint::{Check, Endpoint, Fault};
use crate::set::LocalityMembers;

/// The control plane's word on a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EdsHealth {
    #[default]
    Healthy,
    Degraded,
    /// Unhealthy or timed out.
    Unhealthy,
    /// Takes no requests, and is missed by nobody: no percentage counts it.
    Draining,
}

/// A host as an update names it, resolved to an address.
#[derive(Clone, Debug)]
pub struct Host {
    pub address: Address,
    pub hostname: Arc<str>,
    pub weight: u32,
    pub health: EdsHealth,
    pub metadata: Option<Arc<Metadata>>,
    pub transport: u16,
    pub check: Option<Box<Check>>,
}

/// Hosts of one locality at one priority.
#[derive(Clone, Debug)]
pub struct HostGroup {
    pub locality: Arc<Locality>,
    pub priority: u32,
    pub weight: u32,
    pub hosts: Vec<Host>,
}

/// How hosts of a cluster begin and end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifecycle {
    /// Has active health checks: new hosts wait for their first answer.
    pub checked: bool,
    /// A host that no update names leaves at once although its checks pass.
    pub ignore_health_on_removal: bool,
}

/// The outcome of an update.
#[derive(Debug, Default)]
pub struct Update {
    pub members: Vec<LocalityMembers>,
    pub added: usize,
    /// Hosts that are gone; their ejections must be forgotten.
    pub removed: Vec<Arc<Endpoint>>,
}

type Key = (Address, Arc<str>);

/// The next members: hosts with the same address and name keep their id, counters and health.
pub fn update(previous: &[LocalityMembers], groups: &[HostGroup], lifecycle: Lifecycle) -> Update {
    let mut known: HashMap<Key, Arc<Endpoint>> = previous
        .iter()
        .flat_map(|l| &l.hosts)
        .map(|host| ((host.address.clone(), host.hostname.clone()), host.clone()))
        .collect();
    let mut out = Update::default();
    // An address counts once in a cluster, as in Envoy: the first mention stays.
    let mut seen = std::collections::HashSet::new();
    for group in groups {
        let mut hosts = Vec::with_capacity(group.hosts.len());
        for host in group.hosts.iter().filter(|h| seen.insert(h.address.clone())) {
            let old = known.remove(&(host.address.clone(), host.hostname.clone()));
            out.added += usize::from(old.is_none());
            let endpoint = next(old, host, group, lifecycle);
            endpoint.state.set(Fault::Eds, matches!(host.health, EdsHealth::Unhealthy | EdsHealth::Draining));
            endpoint.state.set(Fault::Draining, host.health == EdsHealth::Draining);
            endpoint.state.set(Fault::EdsDegraded, host.health == EdsHealth::Degraded);
            endpoint.state.set(Fault::Removed, false);
            hosts.push(endpoint);
        }
        out.members.push(LocalityMembers { priority: group.priority, weight: group.weight, hosts });
    }
    // In the order they were in, so that an update is reproducible.
    for locality in previous {
        let gone: Vec<_> = locality
            .hosts
            .iter()
            .filter(|h| known.get(&(h.address.clone(), h.hostname.clone())).is_some_and(|k| Arc::ptr_eq(k, h)))
            .cloned()
            .collect();
        let stays = |h: &Arc<Endpoint>| {
            lifecycle.checked && !lifecycle.ignore_health_on_removal && !h.state.has(Fault::ActiveCheck)
        };
        let (staying, leaving): (Vec<_>, Vec<_>) = gone.into_iter().partition(stays);
        out.removed.extend(leaving);
        if !staying.is_empty() {
            staying.iter().for_each(|h| {
                h.state.set(Fault::Removed, true);
            });
            out.members.push(LocalityMembers { priority: locality.priority, weight: locality.weight, hosts: staying });
        }
    }
    out
}

fn next(old: Option<Arc<Endpoint>>, host: &Host, group: &HostGroup, lifecycle: Lifecycle) -> Arc<Endpoint> {
    let same = |old: &Endpoint| {
        old.weight == host.weight
            && old.priority == group.priority
            && old.transport == host.transport
            && old.locality == group.locality
            && old.check == host.check
            && old.metadata == host.metadata
    };
    let (id, state) = match old {
        Some(old) if same(&old) => return old,
        Some(old) => (old.id, old.state.clone()),
        None => (Endpoint::next_id(), Arc::default()),
    };
    let endpoint = Endpoint {
        id,
        address: host.address.clone(),
        hostname: host.hostname.clone(),
        locality: group.locality.clone(),
        metadata: host.metadata.clone(),
        weight: host.weight,
        priority: group.priority,
        transport: host.transport,
        check: host.check.clone(),
        state,
    };
    if lifecycle.checked
        && !endpoint.is_unchecked()
        && !endpoint.state.checked.load(std::sync::atomic::Ordering::Relaxed)
    {
        endpoint.state.set(Fault::ActiveCheck, true);
        endpoint.state.set(Fault::PendingCheck, true);
    }
    Arc::new(endpoint)
}
