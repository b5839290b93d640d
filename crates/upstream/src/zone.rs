//! Zone aware routing: how much of a priority's traffic stays in the proxy's own locality, as Envoy works it out.
//!
//! Owns the comparison of two clusters, the one the proxy is part of (the origin) and the one it sends to: where the second has
//! at least the origin's share of its hosts in the proxy's locality, everything stays there; else what fits stays, and the rest
//! goes where there is capacity left. Computed when either changes; a pick costs up to three random numbers.
//! Source: Envoy, "Zone aware routing", and `ZoneAwareLbConfig`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_plan::Locality;
use meltemi_plan::cluster::ZoneAware;
use meltemi_telemetry::{Spec, stats};
use tokio::sync::watch;

use crate::endpoint::{Endpoint, Health};
use crate::load::{self, Census};
use crate::set::LocalityMembers;

/// Shares are in hundredths of a percent.
const WHOLE: u64 = 10_000;

stats! {
    /// Of a cluster whose localities are routed by zone.
    pub struct ZoneStats {
        lb_recalculate_zone_structures: Spec::counter("lb_recalculate_zone_structures"),
        lb_local_cluster_not_ok: Spec::counter("lb_local_cluster_not_ok"),
        lb_zone_cluster_too_small: Spec::counter("lb_zone_cluster_too_small"),
        lb_zone_routing_all_directly: Spec::counter("lb_zone_routing_all_directly"),
        lb_zone_routing_sampled: Spec::counter("lb_zone_routing_sampled"),
        lb_zone_routing_cross_zone: Spec::counter("lb_zone_routing_cross_zone"),
        lb_zone_no_capacity_left: Spec::counter("lb_zone_no_capacity_left"),
    }
}

/// Healthy hosts of a locality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    hosts: u64,
    weight: u64,
}

impl Share {
    fn add(&mut self, host: &Endpoint) {
        if host.health() == Health::Healthy {
            self.hosts += 1;
            self.weight += u64::from(host.weight);
        }
    }

    fn measure(self, by_weight: bool) -> u64 {
        if by_weight { self.weight } else { self.hosts }
    }
}

/// The cluster that the proxy is part of, as far as zone aware routing looks at it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Origin {
    /// The proxy's own.
    locality: Arc<Locality>,
    localities: BTreeMap<Arc<Locality>, Share>,
    census: Census,
}

impl Origin {
    /// From the members of the origin; only the first priority counts.
    pub(crate) fn new(locality: Arc<Locality>, members: &[LocalityMembers]) -> Self {
        let first: Vec<&LocalityMembers> = members.iter().filter(|l| l.priority == 0).collect();
        let mut localities: BTreeMap<Arc<Locality>, Share> = BTreeMap::new();
        for host in first.iter().flat_map(|l| &l.hosts) {
            localities.entry(host.locality.clone()).or_default().add(host);
        }
        Self { locality, localities, census: crate::set::take_census(&first, false) }
    }
}

/// Where the origin is announced: the name of its cluster (`ClusterManager.local_cluster_name`), and what it is like now.
#[derive(Clone, Debug)]
pub struct Local {
    pub cluster: Arc<str>,
    pub(crate) locality: Arc<Locality>,
    pub(crate) origin: watch::Sender<Arc<Origin>>,
}

impl Local {
    /// `locality` is the proxy's own (`Node.locality`).
    pub fn new(cluster: Arc<str>, locality: Locality) -> Self {
        let locality = Arc::new(locality);
        let origin = Origin::new(locality.clone(), &[]);
        Self { cluster, locality, origin: watch::Sender::new(Arc::new(origin)) }
    }
}

/// What a cluster's localities are routed by.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(crate) settings: ZoneAware,
    pub(crate) origin: Arc<Origin>,
    pub(crate) stats: ZoneStats,
}

/// One decision of [`Routing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Any host of the priority.
    Anywhere,
    /// No host: the origin is in panic, and traffic is to fail then.
    Nowhere,
    /// By place among the localities.
    Locality(usize),
}

/// How a priority's requests spread over its localities.
#[derive(Debug)]
pub(crate) struct Routing {
    /// Percent of requests that are routed by zone at all.
    enabled: u64,
    /// What becomes of requests while the origin is in panic.
    panic: Option<Choice>,
    direct: bool,
    /// Of `WHOLE`.
    local_part: u64,
    /// Sums of what each locality can take beyond its own, up to and with it.
    residual: Vec<u64>,
    stats: ZoneStats,
}

impl Routing {
    pub fn choose(&self, mut random: impl FnMut() -> u64) -> Choice {
        if self.enabled < 100 && random() % 100 >= self.enabled {
            return Choice::Anywhere;
        }
        if let Some(instead) = self.panic {
            self.stats.lb_local_cluster_not_ok().inc();
            return instead;
        }
        if self.direct {
            self.stats.lb_zone_routing_all_directly().inc();
            return Choice::Locality(0);
        }
        if random() % WHOLE < self.local_part {
            self.stats.lb_zone_routing_sampled().inc();
            return Choice::Locality(0);
        }
        self.stats.lb_zone_routing_cross_zone().inc();
        let Some(capacity) = self.residual.last().copied().filter(|capacity| *capacity > 0) else {
            // Rounding can leave no locality with capacity.
            self.stats.lb_zone_no_capacity_left().inc();
            return Choice::Locality((random() % self.residual.len().max(1) as u64) as usize);
        };
        let sample = random() % capacity;
        Choice::Locality(self.residual.partition_point(|sum| *sum <= sample))
    }
}

/// The hosts of a priority by locality, the proxy's own first if it has any.
pub(crate) fn by_locality<'a>(
    origin: &Origin,
    localities: &[&'a LocalityMembers],
) -> Vec<(Arc<Locality>, Vec<&'a Arc<Endpoint>>)> {
    let mut found: BTreeMap<Arc<Locality>, Vec<&Arc<Endpoint>>> = BTreeMap::new();
    for host in localities.iter().flat_map(|l| &l.hosts) {
        found.entry(host.locality.clone()).or_default().push(host);
    }
    let own = found.remove(&origin.locality).map(|hosts| (origin.locality.clone(), hosts));
    own.into_iter().chain(found).collect()
}

impl Zone {
    /// How the first priority's localities share its traffic; `None` if zones do not matter. `panic_threshold` in percent.
    pub(crate) fn routing(
        &self,
        localities: &[(Arc<Locality>, Vec<&Arc<Endpoint>>)],
        panic_threshold: u32,
    ) -> Option<Routing> {
        self.stats.lb_recalculate_zone_structures().inc();
        let settings = &self.settings;
        let upstream: Vec<Share> = localities.iter().map(|(_, hosts)| share(hosts)).collect();
        let forces = settings.force_local_zone.is_some();
        if localities.len() < 2 || self.origin.localities.len() < 2 && !forces {
            return None;
        }
        if !self.origin.localities.contains_key(&self.origin.locality) {
            self.stats.lb_local_cluster_not_ok().inc();
            return None;
        }
        if upstream.iter().map(|share| share.hosts).sum::<u64>() < settings.min_cluster_size {
            self.stats.lb_zone_cluster_too_small().inc();
            return None;
        }
        let shares = self.shares(localities, &upstream);
        let has_own = localities[0].0 == self.origin.locality;
        let forced = settings.force_local_zone.is_some_and(|least| upstream[0].hosts >= u64::from(least));
        let (local, own) = shares[0];
        let panics = load::in_panic(&self.origin.census, panic_threshold);
        let instead = if settings.fail_traffic_on_panic { Choice::Nowhere } else { Choice::Anywhere };
        Some(Routing {
            enabled: u64::from(settings.routing_enabled),
            panic: panics.then_some(instead),
            direct: has_own && (own > 0 && own >= local || forced),
            local_part: if has_own { (own * WHOLE).checked_div(local).unwrap_or(0) } else { 0 },
            residual: residual(&shares, has_own),
            stats: self.stats.clone(),
        })
    }

    /// The origin's and the upstream's share of each upstream locality, of `WHOLE`.
    fn shares(&self, localities: &[(Arc<Locality>, Vec<&Arc<Endpoint>>)], upstream: &[Share]) -> Vec<(u64, u64)> {
        let by_weight = self.settings.by_weight;
        let total: u64 = upstream.iter().map(|share| share.measure(by_weight)).sum();
        let origin_total: u64 = self.origin.localities.values().map(|share| share.measure(by_weight)).sum();
        let part = |share: Share, total: u64| (WHOLE * share.measure(by_weight)).checked_div(total).unwrap_or(0);
        let both = |((locality, _), share): (&(Arc<Locality>, _), &Share)| {
            if share.hosts == 0 {
                // Nothing can go there, whatever comes from there.
                return (0, 0);
            }
            let origin = self.origin.localities.get(locality).copied().unwrap_or_default();
            (part(origin, origin_total), part(*share, total))
        };
        localities.iter().zip(upstream).map(both).collect()
    }
}

fn share(hosts: &[&Arc<Endpoint>]) -> Share {
    let mut share = Share::default();
    hosts.iter().for_each(|host| share.add(host));
    share
}

/// Running sums of the capacity that localities have beyond what comes from them; the proxy's own has given its all.
fn residual(shares: &[(u64, u64)], has_own: bool) -> Vec<u64> {
    let mut sum = 0;
    let spare = shares.iter().enumerate().map(|(place, (local, upstream))| {
        if place > 0 || !has_own {
            sum += upstream.saturating_sub(*local);
        }
        sum
    });
    spare.collect()
}
