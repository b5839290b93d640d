//! Subsets of a cluster's hosts by their metadata, for routes that ask for one (`metadata_match`).
//!
//! One set for each combination of values that hosts have under a selector's keys, built with the cluster's set; choosing one
//! costs a hash look-up, and only clusters with subsets pay it.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meltemi_plan::cluster::{LbSubsets, SubsetFallback};
use meltemi_plan::common::Value;

use crate::endpoint::Endpoint;
use crate::set::{EndpointSet, LocalityMembers, Shape};
use crate::zone::Zone;

/// Combinations at once; hosts with more are only found by falling back.
const LIMIT: usize = 4096;

/// Keys with their values in canonical text.
type Combination = BTreeMap<String, String>;

/// The subsets of one version of a cluster's members.
#[derive(Debug, Default)]
pub(crate) struct Subsets {
    sets: HashMap<Combination, Arc<EndpointSet>>,
    /// Of the selectors that have one of their own, by their keys, sorted.
    fallbacks: HashMap<Vec<String>, SubsetFallback>,
    fallback: Option<SubsetFallback>,
    default: Arc<EndpointSet>,
    panic_mode_any: bool,
}

impl Subsets {
    pub fn new(config: &LbSubsets, members: &[LocalityMembers], shape: &Shape, zone: Option<&Zone>) -> Self {
        let mut out = Self {
            fallback: Some(config.fallback),
            default: select(members, shape, zone, |host| holds(host, &config.default_subset)),
            panic_mode_any: config.panic_mode_any,
            ..Self::default()
        };
        for selector in &config.selectors {
            let mut keys: Vec<String> = selector.keys.iter().map(ToString::to_string).collect();
            keys.sort();
            let hosts = members.iter().flat_map(|l| &l.hosts);
            for combination in hosts.flat_map(|host| combinations(host, &keys, config.list_as_any)) {
                if out.sets.len() < LIMIT && !out.sets.contains_key(&combination) {
                    let set = select(members, shape, zone, |host| {
                        combinations(host, &keys, config.list_as_any).contains(&combination)
                    });
                    out.sets.insert(combination, set);
                }
            }
            if let Some(fallback) = selector.fallback {
                out.fallbacks.insert(keys, fallback);
            }
        }
        out
    }

    /// The hosts for a route's criteria; `all` are the cluster's.
    pub fn choose(&self, criteria: Option<&Value>, all: &Arc<EndpointSet>) -> Arc<EndpointSet> {
        let wanted: Combination = criteria
            .and_then(Value::as_object)
            .map(|fields| fields.iter().map(|(k, v)| (k.clone(), v.to_string())).collect())
            .unwrap_or_default();
        if let Some(set) = self.sets.get(&wanted).filter(|set| !set.is_empty()) {
            return set.clone();
        }
        let keys: Vec<String> = wanted.into_keys().collect();
        let instead = |fallback| match fallback {
            SubsetFallback::None => Arc::default(),
            SubsetFallback::AnyEndpoint => all.clone(),
            SubsetFallback::DefaultSubset => self.default.clone(),
        };
        if let Some(of_selector) = self.fallbacks.get(&keys) {
            return instead(*of_selector);
        }
        // `panic_mode_any` helps a fallback of the cluster that has no hosts; without a fallback there is nothing to help.
        match self.fallback.unwrap_or(SubsetFallback::None) {
            SubsetFallback::None => Arc::default(),
            fallback => {
                let chosen: Arc<EndpointSet> = instead(fallback);
                if self.panic_mode_any && chosen.is_empty() { all.clone() } else { chosen }
            }
        }
    }
}

fn select(
    members: &[LocalityMembers],
    shape: &Shape,
    zone: Option<&Zone>,
    keep: impl Fn(&Endpoint) -> bool,
) -> Arc<EndpointSet> {
    let kept: Vec<LocalityMembers> = members
        .iter()
        .map(|l| LocalityMembers { hosts: l.hosts.iter().filter(|h| keep(h)).cloned().collect(), ..l.clone() })
        .collect();
    let mut set = EndpointSet::zoned(&kept, shape, zone);
    set.is_subset = true;
    Arc::new(set)
}

fn holds(host: &Endpoint, wanted: &Value) -> bool {
    host.metadata.as_ref().map_or(wanted.as_object().is_none_or(|w| w.is_empty()), |m| m.holds("envoy.lb", wanted))
}

/// The values a host has under `keys`: none if one is missing, several if lists count as any of their elements.
fn combinations(host: &Endpoint, keys: &[String], list_as_any: bool) -> Vec<Combination> {
    let mut all = vec![Combination::new()];
    for key in keys {
        let value = host.metadata.as_ref().and_then(|m| m.value("envoy.lb", &[key.as_str()]));
        let values: Vec<String> = match value {
            None => return Vec::new(),
            Some(Value::Array(items)) if list_as_any => items.iter().map(ToString::to_string).collect(),
            Some(value) => vec![value.to_string()],
        };
        let with = |known: &Combination, value: &String| {
            let mut next = known.clone();
            next.insert(key.clone(), value.clone());
            next
        };
        all = all.iter().flat_map(|known| values.iter().map(|value| with(known, value)).collect::<Vec<_>>()).collect();
        all.truncate(LIMIT);
    }
    all
}
