//! Locality: which endpoints come first, and how much weight each locality gets.

use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{
    LocalityDistribute, LocalityFailover, LocalityLbSetting, TrafficPolicy, ZoneAwareLbSetting,
};
use meltemi_model::{Endpoint, Labels, Locality, Node, Service, Snapshot, TrafficDistribution};
use meltemi_proto::envoy::config::endpoint::v3::LocalityLbEndpoints;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const NETWORK: &str = "topology.istio.io/network";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";
const SUB_ZONE: &str = "topology.istio.io/subzone";
const HOST: &str = "kubernetes.io/hostname";

/// The locality settings of one cluster, with what of the proxy they look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalityView {
    distribute: Vec<LocalityDistribute>,
    failover: Vec<LocalityFailover>,
    /// Labels in order of weight, with the value the endpoint must have where the rule or the proxy names one.
    failover_priority: Vec<(Arc<str>, Option<Arc<str>>)>,
    zone: Option<ZoneAware>,
    /// The proxy's own; empty in the view of settings alone.
    locality: Locality,
}

/// What a cluster says of zone aware routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ZoneAware {
    pub enabled: bool,
    /// `None`: Envoy's own default.
    pub min_cluster_size: Option<u64>,
}

/// A label to compare, with the value to have if the rule names one.
fn wanted(entry: &Arc<str>) -> (Arc<str>, Option<Arc<str>>) {
    match entry.split_once('=') {
        Some((key, value)) => (key.into(), Some(value.into())),
        None => (entry.clone(), None),
    }
}

impl LocalityView {
    /// What applies to a cluster of this service, wherever the proxy is. `None`: localities do not matter. A rule comes before
    /// the service's own preference, and that before the mesh's; of two settings in one place zone awareness wins.
    pub fn settings(mesh: &MeshConfig, service: &Service, policy: Option<&TrafficPolicy>) -> Option<Self> {
        let own = policy.and_then(|policy| policy.load_balancer.as_ref());
        let order: &[&str] = match service.distribution {
            TrafficDistribution::Any => &[],
            TrafficDistribution::PreferSameZone => &[NETWORK, REGION, ZONE],
            TrafficDistribution::PreferSameNode => &[NETWORK, REGION, ZONE, SUB_ZONE, HOST],
        };
        // Without outlier detection a proxy would never notice that it should fail over.
        let detects = policy.is_some_and(|policy| policy.outlier_detection.is_some());
        if let Some(zone) = own.and_then(|lb| lb.zone_aware_lb_setting.as_ref()) {
            return Some(Self::by_zone(zone));
        }
        if let Some(own) = own.and_then(|lb| lb.locality_lb_setting.as_ref()) {
            return Self::by_setting(own, detects);
        }
        if !order.is_empty() {
            let failover_priority = order.iter().map(|key| Arc::from(*key)).collect();
            return Self::by_setting(&LocalityLbSetting { failover_priority, ..LocalityLbSetting::default() }, true);
        }
        if let Some(zone) = &mesh.zone_aware_lb_setting {
            return Some(Self::by_zone(zone));
        }
        Self::by_setting(mesh.locality_lb_setting.as_ref()?, detects)
    }

    fn by_setting(settings: &LocalityLbSetting, detects: bool) -> Option<Self> {
        if settings.enabled == Some(false) {
            return None;
        }
        if !settings.distribute.is_empty() {
            return Some(Self { distribute: settings.distribute.clone(), ..Self::default() });
        }
        detects.then(|| Self {
            failover: settings.failover.clone(),
            failover_priority: settings.failover_priority.iter().map(wanted).collect(),
            ..Self::default()
        })
    }

    /// Zones of the proxy's region are the proxy's to balance; other regions only come after it. Turned off, the cluster still
    /// says so, or a proxy that knows its own cluster would balance them by default.
    fn by_zone(settings: &ZoneAwareLbSetting) -> Self {
        let enabled = settings.enabled != Some(false);
        let min_cluster_size = settings.min_cluster_size;
        let view = Self { zone: Some(ZoneAware { enabled, min_cluster_size }), ..Self::default() };
        if !enabled {
            return view;
        }
        Self {
            failover: settings.failover.clone(),
            failover_priority: settings.failover_priority.iter().map(wanted).collect(),
            ..view
        }
    }

    /// As seen from a proxy.
    pub fn of(snapshot: &Snapshot, node: &Node, service: &Service, policy: Option<&TrafficPolicy>) -> Option<Self> {
        let mut view = Self::settings(&snapshot.mesh, service, policy)?;
        let own = proxy_locality(snapshot, node);
        for (key, value) in &mut view.failover_priority {
            if value.is_none() {
                *value = Some(
                    topology(key, &own, node.network(), node.node_name())
                        .or_else(|| node.labels.get(&**key).cloned())
                        .unwrap_or_default(),
                );
            }
        }
        view.locality = own;
        Some(view)
    }

    /// Localities share traffic by weight, so the cluster must say that weights count.
    pub fn is_weighted(&self) -> bool {
        let weighs = !self.distribute.is_empty() || !self.failover.is_empty() || !self.failover_priority.is_empty();
        self.zone.is_none() && weighs
    }

    pub fn zone(&self) -> Option<ZoneAware> {
        self.zone
    }

    /// Gives groups their weights, or splits and orders them by priority.
    pub fn apply(&self, groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        if !self.distribute.is_empty() {
            return self.distribute(groups);
        }
        if self.zone.is_some_and(|zone| !zone.enabled) {
            return groups.into_iter().map(|group| group.rendered).collect();
        }
        let groups = if self.failover_priority.is_empty() { groups } else { self.by_labels(groups) };
        if self.zone.is_some() {
            return self.by_region(groups);
        }
        if self.failover_priority.is_empty() || !self.failover.is_empty() {
            return self.by_locality(groups);
        }
        compact(groups)
    }

    /// Weights by the first `distribute` entry whose `from` the proxy is in. Localities without an entry get nothing.
    fn distribute(&self, groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        let Some(rule) = self.distribute.iter().find(|rule| self.locality.matches(&rule.from)) else {
            return groups.into_iter().map(|group| group.rendered).collect();
        };
        let mut groups = groups;
        let mut claimed: BTreeSet<usize> = BTreeSet::new();
        // The more specific pattern claims its localities first.
        let mut targets: Vec<_> = rule.to.iter().collect();
        targets.sort_by_key(|(pattern, _)| {
            std::cmp::Reverse((!pattern.ends_with('*'), pattern.matches('/').count(), pattern.len()))
        });
        for (pattern, weight) in targets {
            let matched: Vec<usize> = (0..groups.len())
                .filter(|index| !claimed.contains(index) && groups[*index].locality.matches(pattern))
                .collect();
            let total: u64 = matched.iter().map(|index| u64::from(groups[*index].weight())).sum();
            for index in matched {
                claimed.insert(index);
                // In proportion to the endpoints, in hundredths so that small shares survive rounding.
                let share =
                    (u64::from(*weight) * 100 * u64::from(groups[index].weight())).checked_div(total).unwrap_or(0);
                let share = u32::try_from(share).unwrap_or(u32::MAX).max(u32::from(*weight > 0));
                groups[index].rendered.load_balancing_weight = Some(share);
            }
        }
        let kept = groups
            .into_iter()
            .enumerate()
            .filter(|(index, group)| claimed.contains(index) && group.rendered.load_balancing_weight != Some(0));
        kept.map(|(_, group)| group.rendered).collect()
    }

    /// Splits each group by how many of the priority labels, from the first on, an endpoint shares with the proxy.
    fn by_labels<'a>(&self, groups: Vec<Group<'a>>) -> Vec<Group<'a>> {
        let mut out = Vec::new();
        for group in groups {
            let mut split: BTreeMap<u32, Group<'a>> = BTreeMap::new();
            for (index, endpoint) in group.endpoints.iter().enumerate() {
                let priority = self.label_priority(endpoint);
                let own = split.entry(priority).or_insert_with(|| Group::empty(&group.locality, priority));
                own.endpoints.push(endpoint);
                own.rendered.lb_endpoints.push(group.rendered.lb_endpoints[index].clone());
            }
            out.extend(split.into_values().map(Group::weighed));
        }
        out
    }

    fn label_priority(&self, endpoint: &Endpoint) -> u32 {
        let shared = self.failover_priority.iter().take_while(|(key, value)| {
            let own = topology(key, &endpoint.locality, &endpoint.network, &endpoint.node_name)
                .or_else(|| label(&endpoint.labels, key));
            own == *value
        });
        (self.failover_priority.len() - shared.count()) as u32
    }

    /// Same sub-zone, zone, region, then the region to fail over to, then the rest.
    fn by_locality(&self, mut groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        for group in &mut groups {
            let shared = self.locality.shared_levels(&group.locality);
            let distance = match shared {
                3 => 0,
                2 => 1,
                1 => 2,
                _ if self.fails_over_to(&group.locality) => 3,
                _ => 4,
            };
            group.rendered.priority = group.rendered.priority * 5 + distance;
        }
        compact(groups)
    }

    /// Same region, then the region to fail over to, then the rest.
    fn by_region(&self, mut groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        for group in &mut groups {
            let distance = match &group.locality {
                locality if locality.region == self.locality.region => 0,
                locality if self.fails_over_to(locality) => 1,
                _ => 2,
            };
            group.rendered.priority = group.rendered.priority * 3 + distance;
        }
        compact(groups)
    }

    fn fails_over_to(&self, locality: &Locality) -> bool {
        let target = self.failover.iter().find(|rule| *rule.from == *self.locality.region);
        target.is_some_and(|rule| *rule.to == *locality.region)
    }
}

/// Priorities without gaps, as Envoy wants them.
fn compact(groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
    let used: BTreeSet<u32> = groups.iter().map(|group| group.rendered.priority).collect();
    let place: BTreeMap<u32, u32> = used.into_iter().zip(0u32..).collect();
    let mut out: Vec<_> = groups.into_iter().map(|group| group.rendered).collect();
    for group in &mut out {
        group.priority = place[&group.priority];
    }
    out.sort_by_key(|group| group.priority);
    out
}

/// The endpoints of one locality, rendered beside what they are rendered from.
pub struct Group<'a> {
    pub locality: Locality,
    pub endpoints: Vec<&'a Endpoint>,
    pub rendered: LocalityLbEndpoints,
}

impl Group<'_> {
    pub fn empty(locality: &Locality, priority: u32) -> Self {
        let rendered = LocalityLbEndpoints {
            locality: Some(super::build::locality(locality)),
            priority,
            ..LocalityLbEndpoints::default()
        };
        Self { locality: locality.clone(), endpoints: Vec::new(), rendered }
    }

    /// A locality's weight is the sum of its endpoints'.
    pub fn weighed(mut self) -> Self {
        self.rendered.load_balancing_weight = Some(self.weight());
        self
    }

    fn weight(&self) -> u32 {
        let weights = self.rendered.lb_endpoints.iter().filter_map(|endpoint| endpoint.load_balancing_weight);
        weights.fold(0, u32::saturating_add)
    }
}

/// The proxy's locality: what it says, else what the registry knows of its address.
fn proxy_locality(snapshot: &Snapshot, node: &Node) -> Locality {
    if !node.locality.is_empty() {
        return node.locality.clone();
    }
    let address = node.ip_addresses.first();
    let endpoints = address.into_iter().flat_map(|address| {
        let keys = snapshot.endpoints.services_at(address);
        keys.flat_map(|key| snapshot.endpoints.of(key)).filter(move |endpoint| endpoint.address.host() == Some(address))
    });
    endpoints.map(|endpoint| endpoint.locality.clone()).find(|locality| !locality.is_empty()).unwrap_or_default()
}

fn topology(key: &str, locality: &Locality, network: &str, node: &str) -> Option<Arc<str>> {
    match key {
        NETWORK => Some(network.into()),
        REGION => Some(locality.region.clone()),
        ZONE => Some(locality.zone.clone()),
        SUB_ZONE => Some(locality.sub_zone.clone()),
        HOST => Some(node.into()),
        _ => None,
    }
}

fn label(labels: &Labels, key: &str) -> Option<Arc<str>> {
    labels.get(key).cloned().or_else(|| Some("".into()))
}
