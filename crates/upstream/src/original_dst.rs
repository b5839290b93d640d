//! Hosts that come from where a connection was going, for original-destination clusters.
//!
//! A known destination costs one atomic load and one hash look-up; a new one copies a sixteenth of the map. Hosts unused for a
//! cleanup interval are dropped; the number of hosts is bounded.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::endpoint::Endpoint;

const SHARDS: usize = 16;
/// Beyond this a destination gets a host that is not remembered, and so no pooled connection.
const SHARD_LIMIT: usize = 1024;

#[derive(Debug, Default)]
struct Shard {
    hosts: ArcSwap<HashMap<SocketAddr, Arc<Endpoint>>>,
    /// Serialises writers, and remembers what each host had served at the last sweep.
    served: Mutex<HashMap<u64, u64>>,
}

/// The hosts of one original-destination cluster.
#[derive(Debug, Default)]
pub struct OriginalDst {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

impl OriginalDst {
    pub fn host(&self, address: SocketAddr) -> Arc<Endpoint> {
        let shard = &self.shards[self.hasher.hash_one(address) as usize % SHARDS];
        if let Some(host) = shard.hosts.load().get(&address) {
            return host.clone();
        }
        let _writer = shard.served.lock();
        let hosts = shard.hosts.load_full();
        if let Some(host) = hosts.get(&address) {
            return host.clone();
        }
        let host = Arc::new(Endpoint::bare(address.into()));
        if hosts.len() < SHARD_LIMIT {
            let mut next = (*hosts).clone();
            next.insert(address, host.clone());
            shard.hosts.store(Arc::new(next));
        }
        host
    }

    pub fn hosts(&self) -> Vec<Arc<Endpoint>> {
        self.shards.iter().flat_map(|s| s.hosts.load().values().cloned().collect::<Vec<_>>()).collect()
    }

    /// Drops hosts that served nothing since the last sweep and serve nothing now. Returns how many.
    pub fn sweep(&self) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            let mut served = shard.served.lock();
            let hosts = shard.hosts.load_full();
            let activity = |h: &Endpoint| {
                let stats = &h.state.stats;
                (stats.rq_total.load(Relaxed) + stats.cx_total.load(Relaxed), stats.cx_active.load(Relaxed))
            };
            let idle = |h: &Endpoint| {
                let (total, open) = activity(h);
                open == 0 && h.active_requests() == 0 && served.get(&h.id) == Some(&total)
            };
            let kept: HashMap<_, _> = hosts.iter().filter(|(_, h)| !idle(h)).map(|(a, h)| (*a, h.clone())).collect();
            dropped += hosts.len() - kept.len();
            *served = kept.values().map(|h| (h.id, activity(h).0)).collect();
            if kept.len() < hosts.len() {
                shard.hosts.store(Arc::new(kept));
            }
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn a_destination_is_one_host_until_it_is_idle_for_an_interval() {
        let hosts = OriginalDst::default();
        let first = hosts.host(address(80));
        assert_eq!(hosts.host(address(80)).id, first.id);
        assert_ne!(hosts.host(address(81)).id, first.id);
        let request = first.begin_request();
        assert_eq!(hosts.sweep(), 0, "the first sweep only looks");
        assert_eq!(hosts.sweep(), 1, "81 served nothing");
        drop(request);
        assert_eq!(hosts.sweep(), 1, "80 served nothing since and serves nothing now");
        assert_ne!(hosts.host(address(80)).id, first.id);
    }

    #[test]
    fn the_number_of_hosts_is_bounded() {
        let hosts = OriginalDst::default();
        (0..u16::MAX).for_each(|port| {
            hosts.host(address(port));
        });
        assert!(hosts.hosts().len() <= SHARDS * SHARD_LIMIT);
    }
}
