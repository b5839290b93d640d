//! Who watches what, so that a change visits only those it concerns.
//!
//! Owns the way from a host to the endpoint assignments that name it and to the connections that watch each. A connection has a
//! place, a small number, and the watchers of a name are a bit each: 2,000 proxies that watch 1,000 names cost 250 KiB.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Identifies one connection among those alive: the lowest number that is free when it joins.
pub(crate) type Place = usize;

/// A set of places.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Places(Vec<u64>);

impl Places {
    pub(crate) fn insert(&mut self, place: Place) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn remove(&mut self, place: Place) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word &= !(1 << (place % 64));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn contains(&self, place: Place) -> bool {
        self.0.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Place> {
        let places = |(index, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit)
        };
        self.0.iter().enumerate().flat_map(places)
    }
}

/// Connections by the endpoint assignments they watch, and by address.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The names of a host, each with its watchers: one a port and subset.
    by_host: HashMap<Arc<str>, Vec<(Arc<str>, Places)>>,
    by_address: HashMap<Arc<str>, Places>,
    /// Connections that watch all endpoints.
    all_endpoints: Places,
    taken: Places,
}

/// The assignment of the proxy's own workload: any service's endpoints may be its.
pub(crate) const LOCAL_CLUSTER: &str = "local_cluster";

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
    /// Gives a connection its place.
    pub(crate) fn join(&mut self, addresses: &[Arc<str>]) -> Place {
        let free = self.taken.0.iter().position(|word| *word != u64::MAX);
        let place = match free {
            Some(index) => index * 64 + self.taken.0[index].trailing_ones() as usize,
            None => self.taken.0.len() * 64,
        };
        self.taken.insert(place);
        for address in addresses {
            self.by_address.entry(address.clone()).or_default().insert(place);
        }
        place
    }

    /// Frees a place whose connection has unwatched its names.
    pub(crate) fn leave(&mut self, place: Place, addresses: &[Arc<str>]) {
        for address in addresses {
            if let Some(places) = self.by_address.get_mut(address) {
                places.remove(place);
                if places.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        self.all_endpoints.remove(place);
        self.taken.remove(place);
    }

    pub(crate) fn watch<'a>(&mut self, place: Place, names: impl IntoIterator<Item = &'a Arc<str>>) {
        for name in names {
            let host = host_of(name);
            if !self.by_host.contains_key(host) {
                self.by_host.insert(host.into(), Vec::with_capacity(1));
            }
            let Some(known) = self.by_host.get_mut(host) else { continue };
            match known.iter_mut().find(|(own, _)| own == name) {
                Some((_, places)) => places.insert(place),
                None => {
                    let mut places = Places::default();
                    places.insert(place);
                    known.push((name.clone(), places));
                }
            }
        }
    }

    pub(crate) fn unwatch<'a>(&mut self, place: Place, names: impl IntoIterator<Item = &'a Arc<str>>) {
        for name in names {
            let host = host_of(name);
            let Some(known) = self.by_host.get_mut(host) else { continue };
            known.retain_mut(|(own, places)| {
                if own == name {
                    places.remove(place);
                }
                !places.is_empty()
            });
            if known.is_empty() {
                self.by_host.remove(host);
            }
        }
    }

    pub(crate) fn watch_all_endpoints(&mut self, place: Place, all: bool) {
        if all {
            self.all_endpoints.insert(place);
        } else {
            self.all_endpoints.remove(place);
        }
    }

    /// The connections that watch endpoints of these hosts or are at these addresses.
    pub(crate) fn reached(&self, hosts: &BTreeSet<Arc<str>>, addresses: &BTreeSet<Arc<str>>) -> Places {
        let mut found = Places::default();
        let names = hosts.iter().filter_map(|host| self.by_host.get(host)).flatten();
        names.for_each(|(_, places)| found.extend(places));
        addresses.iter().filter_map(|address| self.by_address.get(address)).for_each(|places| found.extend(places));
        if !hosts.is_empty() {
            self.by_host.get(LOCAL_CLUSTER).into_iter().flatten().for_each(|(_, places)| found.extend(places));
            found.extend(&self.all_endpoints);
        }
        found
    }

    /// What one connection watches of these hosts or patterns of hosts (`*.example.com`).
    pub(crate) fn watched_of(&self, place: Place, hosts: &BTreeSet<Arc<str>>) -> BTreeSet<Arc<str>> {
        let own = |names: &[(Arc<str>, Places)]| -> Vec<Arc<str>> {
            names.iter().filter(|(_, places)| places.contains(place)).map(|(name, _)| name.clone()).collect()
        };
        let mut names: BTreeSet<Arc<str>> =
            hosts.iter().filter_map(|host| self.by_host.get(host)).flat_map(|names| own(names)).collect();
        names.extend(self.by_host.get(LOCAL_CLUSTER).into_iter().flat_map(|names| own(names)));
        for suffix in hosts.iter().filter_map(|host| host.strip_prefix('*')) {
            let covered = self.by_host.iter().filter(|(host, _)| host.ends_with(suffix));
            names.extend(covered.flat_map(|(_, names)| own(names)));
        }
        names
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.by_host.is_empty() && self.by_address.is_empty() && self.all_endpoints.is_empty() && self.taken.is_empty()
    }
}
