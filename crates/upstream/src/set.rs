//! The hosts of a cluster as load balancing needs them: by priority, health and locality, with loads and hash tables computed.
//!
//! Immutable; rebuilt as a whole when members or their health change, which costs O(hosts) on whoever noticed, and replaces
//! one `Arc`. A request reads it without a lock.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use meltemi_net::Address;

use crate::endpoint::{Endpoint, Fault, Health};
use crate::hash::{HashFunction, Keyed, Maglev, Ring};
use crate::latency::PeakEwma;
use crate::load::{self, Census, Loads};
use crate::zone::{self, Routing, Zone};

/// How hosts are chosen; built from the plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    RoundRobin {
        slow_start: Option<SlowStart>,
    },
    LeastRequest {
        choices: u32,
        active_request_bias: f64,
        slow_start: Option<SlowStart>,
    },
    Random,
    PeakEwma(PeakEwma),
    RingHash {
        min_size: u64,
        max_size: u64,
        function: HashFunction,
        use_hostname: bool,
    },
    Maglev {
        table_size: u64,
        use_hostname: bool,
    },
    /// Hosts come from the connection, not from a list.
    OriginalDst,
}

impl Default for Policy {
    fn default() -> Self {
        Self::RoundRobin { slow_start: None }
    }
}

/// New hosts get a growing part of their weight for a while (Istio's warm-up).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    pub window: Duration,
    pub aggression: f64,
    /// 0 to 1.
    pub min_weight: f64,
}

impl SlowStart {
    /// The part of its weight that a host of this age gets.
    pub fn factor(self, age: Duration) -> f64 {
        if age >= self.window {
            return 1.0;
        }
        // Envoy counts from the first millisecond, so that a new host has some weight.
        let time = (age.as_millis().max(1) as f64) / (self.window.as_millis().max(1) as f64);
        let grown = if self.aggression == 1.0 { time } else { time.powf(1.0 / self.aggression) };
        grown.max(self.min_weight).min(1.0)
    }
}

impl Policy {
    pub fn slow_start(self) -> Option<SlowStart> {
        match self {
            Self::RoundRobin { slow_start } | Self::LeastRequest { slow_start, .. } => slow_start,
            Self::Random | Self::PeakEwma(_) | Self::RingHash { .. } | Self::Maglev { .. } | Self::OriginalDst => None,
        }
    }

    /// Zone aware routing chooses a locality first.
    fn is_by_zone(self) -> bool {
        matches!(self, Self::RoundRobin { .. } | Self::LeastRequest { .. } | Self::Random)
    }

    pub fn is_hash(self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// Envoy's `CommonLbConfig` in the part that shapes a set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    pub policy: Policy,
    /// Percent.
    pub panic_threshold: u32,
    pub fail_traffic_on_panic: bool,
    /// Percent.
    pub overprovisioning: u32,
    pub locality_weighted: bool,
    /// Priority loads weigh hosts by their weight instead of counting them.
    pub weighted_priority_health: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            panic_threshold: 50,
            fail_traffic_on_panic: false,
            overprovisioning: 140,
            locality_weighted: false,
            weighted_priority_health: false,
        }
    }
}

/// The members of one locality at one priority.
#[derive(Clone, Debug)]
pub struct LocalityMembers {
    pub priority: u32,
    /// 0 when the control plane gave none.
    pub weight: u32,
    pub hosts: Vec<Arc<Endpoint>>,
}

/// Hosts to choose among.
#[derive(Debug)]
pub struct HostList {
    pub hosts: Arc<[Arc<Endpoint>]>,
    /// All the same weight: cursors suffice.
    pub even: bool,
    /// Index of the cursor in each worker's state.
    pub cursor: usize,
}

#[derive(Debug)]
pub enum HashTable {
    Ring(Ring),
    Maglev(Maglev),
}

impl HashTable {
    pub fn find(&self, hash: u64, attempt: usize) -> Option<usize> {
        match self {
            Self::Ring(ring) => ring.find(hash, attempt),
            Self::Maglev(maglev) => maglev.find(hash, attempt),
        }
    }
}

/// Localities with their weights, for locality weighted balancing.
#[derive(Debug)]
pub struct Localities {
    pub lists: Vec<HostList>,
    pub weights: Vec<f64>,
    pub cursor: usize,
}

/// Localities in the order in which routing by zone counts them.
#[derive(Debug)]
pub(crate) struct Zones {
    pub lists: Vec<HostList>,
    pub routing: Arc<Routing>,
}

/// Hosts of one priority in one state of health.
#[derive(Debug)]
pub struct Tier {
    pub all: HostList,
    /// When locality weighted and more than nothing has weight.
    pub localities: Option<Box<Localities>>,
    /// When the cluster that the proxy is part of has a say in which locality is used.
    pub(crate) zones: Option<Box<Zones>>,
    pub table: Option<Box<HashTable>>,
}

#[derive(Debug)]
pub struct PrioritySet {
    /// What requests use: healthy hosts, or all in panic.
    pub serving: Tier,
    /// `None`: no host is.
    pub degraded: Option<Box<Tier>>,
    pub total: usize,
    pub healthy: usize,
}

#[derive(Debug, Default)]
pub struct EndpointSet {
    pub priorities: Box<[PrioritySet]>,
    pub loads: Loads,
    /// How many cursors a worker needs.
    pub cursors: usize,
    /// One of several that requests alternate between.
    pub is_subset: bool,
    /// Every host once, in order of address.
    hosts: Box<[Arc<Endpoint>]>,
    pub healthy: usize,
    pub degraded: usize,
    pub excluded: usize,
}

impl EndpointSet {
    pub fn new(members: &[LocalityMembers], shape: &Shape) -> Self {
        Self::zoned(members, shape, None)
    }

    /// With `zone`, the localities of the first priority are routed by it.
    pub(crate) fn zoned(members: &[LocalityMembers], shape: &Shape, zone: Option<&Zone>) -> Self {
        let count = members.iter().map(|l| l.priority as usize + 1).max().unwrap_or(0);
        let mut by_priority: Vec<Vec<&LocalityMembers>> = vec![Vec::new(); count];
        for locality in members {
            by_priority[locality.priority as usize].push(locality);
        }
        let census: Vec<Census> = by_priority.iter().map(|l| take_census(l, shape.weighted_priority_health)).collect();
        let loads = load::loads(&census, shape.overprovisioning, shape.panic_threshold);
        let mut builder = Builder { shape, cursors: 0, zone: zone.filter(|_| shape.policy.is_by_zone()) };
        let priorities = by_priority
            .iter()
            .zip(&loads.panic)
            .map(|(localities, panic)| {
                let priority = builder.priority(localities, *panic);
                // Only the first priority is routed by zone.
                builder.zone = None;
                priority
            })
            .collect();
        let hosts = || members.iter().flat_map(|l| &l.hosts);
        let with_health = |health| hosts().filter(|h| h.health() == health).count();
        Self {
            priorities,
            loads,
            cursors: builder.cursors,
            is_subset: false,
            hosts: by_address(hosts()),
            healthy: with_health(Health::Healthy),
            degraded: with_health(Health::Degraded),
            excluded: hosts().filter(|h| is_excluded(h)).count(),
        }
    }

    /// The loads of a retry after attempts at these hosts: every so many attempts, the priorities of all hosts so far are left out,
    /// and nothing is remembered any more once no other has a host to offer.
    pub fn loads_without(&self, attempted: &[u64], every: NonZeroU32) -> Cow<'_, Loads> {
        let every = every.get() as usize;
        let mut loads = Cow::Borrowed(&self.loads);
        let mut since = 0;
        for end in 1..=attempted.len() {
            if (end - since) % every != 0 {
                continue;
            }
            let hosts = || self.hosts.iter().filter(|host| attempted[since..end].contains(&host.id));
            let left = |priority: usize| hosts().any(|host| host.priority as usize == priority);
            match self.loads.without(left) {
                Some(without) => loads = Cow::Owned(without),
                None => (loads, since) = (Cow::Borrowed(&self.loads), end),
            }
        }
        loads
    }

    pub fn find(&self, address: &Address) -> Option<&Arc<Endpoint>> {
        self.hosts.binary_search_by(|host| host.address.cmp(address)).ok().map(|at| &self.hosts[at])
    }

    /// Every host once.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.hosts.iter()
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

/// One host an address: of two, one waits for its check to fail before it goes.
fn by_address<'a>(hosts: impl Iterator<Item = &'a Arc<Endpoint>>) -> Box<[Arc<Endpoint>]> {
    let mut sorted: Vec<Arc<Endpoint>> = hosts.cloned().collect();
    sorted.sort_by(|a, b| a.address.cmp(&b.address));
    sorted.dedup_by(|a, b| a.address == b.address);
    sorted.into()
}

/// Envoy's `excludeBasedOnHealthFlag`.
fn is_excluded(host: &Endpoint) -> bool {
    host.state.has(Fault::PendingCheck) || host.state.has(Fault::Draining)
}

pub(crate) fn take_census(localities: &[&LocalityMembers], weighted: bool) -> Census {
    let mut census = Census::default();
    for host in localities.iter().flat_map(|l| &l.hosts) {
        let unit = if weighted { u64::from(host.weight) } else { 1 };
        census.total += unit;
        match host.health() {
            Health::Healthy => census.healthy += unit,
            Health::Degraded => census.degraded += unit,
            Health::Unhealthy if is_excluded(host) => census.excluded += unit,
            Health::Unhealthy => {}
        }
    }
    census
}

struct Builder<'a> {
    shape: &'a Shape,
    cursors: usize,
    zone: Option<&'a Zone>,
}

impl Builder<'_> {
    fn cursor(&mut self) -> usize {
        self.cursors += 1;
        self.cursors - 1
    }

    fn priority(&mut self, localities: &[&LocalityMembers], panic: bool) -> PrioritySet {
        let all = |_: &Endpoint| true;
        let healthy = |host: &Endpoint| host.health() == Health::Healthy;
        let is_degraded = |host: &Endpoint| host.health() == Health::Degraded;
        let hosts = || localities.iter().flat_map(|l| &l.hosts);
        // A panicking priority that must refuse traffic serves nobody.
        let mut serving = match (panic, self.shape.fail_traffic_on_panic) {
            (true, true) => self.tier(localities, &|_| false, false),
            (true, false) => self.tier(localities, &all, false),
            (false, _) => self.tier(localities, &healthy, self.shape.locality_weighted),
        };
        let mut degraded = hosts()
            .any(|host| is_degraded(host))
            .then(|| Box::new(self.tier(localities, &is_degraded, self.shape.locality_weighted)));
        if !panic {
            self.zones(localities, &mut serving, degraded.as_deref_mut());
        }
        PrioritySet { serving, degraded, total: hosts().count(), healthy: hosts().filter(|h| healthy(h)).count() }
    }

    fn tier(&mut self, localities: &[&LocalityMembers], keep: &dyn Fn(&Endpoint) -> bool, weighted: bool) -> Tier {
        let kept: Vec<Vec<Arc<Endpoint>>> =
            localities.iter().map(|l| l.hosts.iter().filter(|h| keep(h)).cloned().collect()).collect();
        let weights: Vec<f64> = localities
            .iter()
            .zip(&kept)
            .map(|(l, kept)| load::locality_weight(l.weight, kept.len(), l.hosts.len(), self.shape.overprovisioning))
            .collect();
        let use_localities = weighted && weights.iter().any(|w| *w > 0.0);
        let table = self.shape.policy.is_hash().then(|| self.table(&kept, use_localities.then_some(&weights)));
        let all = self.list(kept.iter().flatten().cloned().collect());
        let localities = (use_localities && table.is_none()).then(|| {
            let lists = kept.into_iter().map(|hosts| self.list(hosts)).collect();
            Box::new(Localities { lists, weights, cursor: self.cursor() })
        });
        Tier { all, localities, zones: None, table: table.map(Box::new) }
    }

    /// Splits the tiers of a priority by locality, where requests are to be routed by zone.
    fn zones(&mut self, localities: &[&LocalityMembers], serving: &mut Tier, degraded: Option<&mut Tier>) {
        let Some(zone) = self.zone else { return };
        let split = zone::by_locality(&zone.origin, localities);
        let Some(routing) = zone.routing(&split, self.shape.panic_threshold).map(Arc::new) else { return };
        let tiers = std::iter::once((serving, Health::Healthy)).chain(degraded.map(|tier| (tier, Health::Degraded)));
        for (tier, health) in tiers {
            let of =
                |hosts: &[&Arc<Endpoint>]| hosts.iter().filter(|h| h.health() == health).copied().cloned().collect();
            let lists = split.iter().map(|(_, hosts)| self.list(of(hosts))).collect();
            tier.zones = Some(Box::new(Zones { lists, routing: routing.clone() }));
        }
    }

    fn list(&mut self, hosts: Vec<Arc<Endpoint>>) -> HostList {
        let even = hosts.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        HostList { hosts: hosts.into(), even, cursor: self.cursor() }
    }

    /// Over the hosts in the order of the tier's list.
    fn table(&self, kept: &[Vec<Arc<Endpoint>>], locality_weights: Option<&Vec<f64>>) -> HashTable {
        let use_hostname = match self.shape.policy {
            Policy::RingHash { use_hostname, .. } | Policy::Maglev { use_hostname, .. } => use_hostname,
            Policy::RoundRobin { .. }
            | Policy::LeastRequest { .. }
            | Policy::Random
            | Policy::PeakEwma(_)
            | Policy::OriginalDst => false,
        };
        let keys: Vec<String> = kept.iter().flatten().map(|h| hash_key(h, use_hostname)).collect();
        let mut keyed = Vec::with_capacity(keys.len());
        let mut key = keys.iter();
        for (i, hosts) in kept.iter().enumerate() {
            let sum: f64 = hosts.iter().map(|h| f64::from(h.weight)).sum();
            // With locality weights a host's share is of its locality's; else of all.
            let scale = locality_weights.map_or(1.0, |w| if sum > 0.0 { w[i] / sum } else { 0.0 });
            for (host, key) in hosts.iter().zip(&mut key) {
                keyed.push(Keyed { key, weight: f64::from(host.weight) * scale });
            }
        }
        match self.shape.policy {
            Policy::RingHash { min_size, max_size, function, .. } => {
                HashTable::Ring(Ring::new(&keyed, min_size, max_size, function))
            }
            Policy::Maglev { table_size, .. } => HashTable::Maglev(Maglev::new(&keyed, table_size)),
            Policy::RoundRobin { .. }
            | Policy::LeastRequest { .. }
            | Policy::Random
            | Policy::PeakEwma(_)
            | Policy::OriginalDst => HashTable::Maglev(Maglev::default()),
        }
    }
}

/// `envoy.lb`'s `hash_key` where the endpoint has one, else its hostname or address.
fn hash_key(host: &Endpoint, use_hostname: bool) -> String {
    let metadata = host.metadata.as_ref();
    if let Some(key) = metadata.and_then(|m| m.value("envoy.lb", &["hash_key"])).and_then(|v| v.as_str()) {
        return key.to_owned();
    }
    if use_hostname && !host.hostname.is_empty() { host.hostname.to_string() } else { host.address.to_string() }
}
