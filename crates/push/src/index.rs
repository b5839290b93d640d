//! Who watches what, so that a change visits only those it concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Identifies one connection of this process.
pub(crate) type ConnectionId = u64;

/// Connections by host of the endpoints they watch, and by address.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_host: HashMap<Arc<str>, HashSet<ConnectionId>>,
    by_address: HashMap<Arc<str>, HashSet<ConnectionId>>,
    /// Connections that watch all endpoints.
    all_endpoints: HashSet<ConnectionId>,
}

/// Endpoint assignments that one connection watches, by host.
pub(crate) type Watched = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

/// The host of a cluster name: `outbound|80|v1|reviews.default.svc.cluster.local`. Other names are hosts of their own.
pub(crate) fn host_of(name: &str) -> &str {
    let mut parts = name.splitn(4, '|');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(_), Some(host)) => host,
        // A proxyless client's name for a cluster is `host:port`.
        _ => name.rsplit_once(':').map_or(name, |(host, _)| host),
    }
}

impl Index {
    pub(crate) fn watch_hosts<'a>(&mut self, id: ConnectionId, hosts: impl Iterator<Item = &'a Arc<str>>) {
        for host in hosts {
            self.by_host.entry(host.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn unwatch_hosts<'a>(&mut self, id: ConnectionId, hosts: impl Iterator<Item = &'a Arc<str>>) {
        for host in hosts {
            remove(&mut self.by_host, host, id);
        }
    }

    pub(crate) fn watch_all_endpoints(&mut self, id: ConnectionId, all: bool) {
        if all {
            self.all_endpoints.insert(id);
        } else {
            self.all_endpoints.remove(&id);
        }
    }

    pub(crate) fn join(&mut self, id: ConnectionId, addresses: &[Arc<str>]) {
        for address in addresses {
            self.by_address.entry(address.clone()).or_default().insert(id);
        }
    }

    pub(crate) fn leave(&mut self, id: ConnectionId, addresses: &[Arc<str>], watched: &Watched) {
        for address in addresses {
            remove(&mut self.by_address, address, id);
        }
        self.unwatch_hosts(id, watched.keys());
        self.all_endpoints.remove(&id);
    }

    /// The connections that watch endpoints of these hosts or are at these addresses.
    pub(crate) fn reached(&self, hosts: &BTreeSet<Arc<str>>, addresses: &BTreeSet<Arc<str>>) -> HashSet<ConnectionId> {
        let mut found = HashSet::new();
        found.extend(hosts.iter().filter_map(|host| self.by_host.get(host)).flatten());
        found.extend(addresses.iter().filter_map(|address| self.by_address.get(address)).flatten());
        if !hosts.is_empty() {
            found.extend(&self.all_endpoints);
        }
        found
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_host.is_empty() && self.by_address.is_empty() && self.all_endpoints.is_empty()
    }
}

fn remove(map: &mut HashMap<Arc<str>, HashSet<ConnectionId>>, key: &Arc<str>, id: ConnectionId) {
    if let Some(ids) = map.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(key);
        }
    }
}

/// Groups names by host.
pub(crate) fn by_host<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Watched {
    let mut watched = Watched::new();
    for name in names {
        let host = host_of(name);
        match watched.get_mut(host) {
            Some(names) => drop(names.insert(name.clone())),
            None => drop(watched.insert(host.into(), BTreeSet::from([name.clone()]))),
        }
    }
    watched
}
