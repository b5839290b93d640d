//! Locality: which endpoints come first, and how much weight each locality gets.

use meltemi_config::mesh::MeshConfig;
use meltemi_config::networking::{LocalityDistribute, LocalityFailover, LocalityLbSetting, TrafficPolicy};
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
    /// The proxy's own; empty in the view of settings alone.
    locality: Locality,
}

impl LocalityView {
    /// What applies to a cluster of this service, wherever the proxy is. `None`: localities do not matter.
    pub fn settings(mesh: &MeshConfig, service: &Service, policy: Option<&TrafficPolicy>) -> Option<Self> {
        let own =
            policy.and_then(|policy| policy.load_balancer.as_ref()).and_then(|lb| lb.locality_lb_setting.as_ref());
        let order: &[&str] = match service.distribution {
            TrafficDistribution::Any => &[],
            TrafficDistribution::PreferSameZone => &[NETWORK, REGION, ZONE],
            TrafficDistribution::PreferSameNode => &[NETWORK, REGION, ZONE, SUB_ZONE, HOST],
        };
        let near = LocalityLbSetting {
            failover_priority: order.iter().map(|key| Arc::from(*key)).collect(),
            ..LocalityLbSetting::default()
        };
        let (settings, forced) = match (own, order) {
            (Some(own), _) => (own, false),
            (None, []) => (mesh.locality_lb_setting.as_ref()?, false),
            (None, _) => (&near, true),
        };
        if settings.enabled == Some(false) {
            return None;
        }
        // Without outlier detection a proxy would never notice that it should fail over.
        let detects = forced || policy.is_some_and(|policy| policy.outlier_detection.is_some());
        if settings.distribute.is_empty() && !detects {
            return None;
        }
        let wanted = |entry: &Arc<str>| match entry.split_once('=') {
            Some((key, value)) => (Arc::from(key), Some(Arc::from(value))),
            None => (entry.clone(), None),
        };
        let view = Self { distribute: settings.distribute.clone(), ..Self::default() };
        if !settings.distribute.is_empty() {
            return Some(view);
        }
        Some(Self {
            failover: settings.failover.clone(),
            failover_priority: settings.failover_priority.iter().map(wanted).collect(),
            ..view
        })
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
        !self.distribute.is_empty() || !self.failover.is_empty() || !self.failover_priority.is_empty()
    }

    /// Gives groups their weights, or splits and orders them by priority.
    pub fn apply(&self, groups: Vec<Group<'_>>) -> Vec<LocalityLbEndpoints> {
        if !self.distribute.is_empty() {
            return self.distribute(groups);
        }
        let groups = if self.failover_priority.is_empty() { groups } else { self.by_labels(groups) };
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
                _ => {
                    let target = self.failover.iter().find(|rule| *rule.from == *self.locality.region);
                    if target.is_some_and(|rule| *rule.to == *group.locality.region) { 3 } else { 4 }
                }
            };
            group.rendered.priority = group.rendered.priority * 5 + distance;
        }
        compact(groups)
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
