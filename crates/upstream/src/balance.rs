//! Choosing a host: one set, one worker's cursors, one request's wishes.
//!
//! Costs one random number for the priority when there are several, and a cursor step, two random probes, one heap operation
//! or one table look-up. Nothing is allocated but when a set is new to the worker.

#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::edf::Edf;
use crate::endpoint::Endpoint;
use crate::latency::PeakEwma;
use crate::set::{EndpointSet, HostList, Localities, Policy, PrioritySet, Tier};
use crate::zone::Choice;
use meltemi_net::Address;

/// What a request asks of the choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// From the route's hash policies.
    pub hash: Option<u64>,
    /// Where the connection was going before it was captured, or what `x-envoy-original-dst-host` says.
    pub original_dst: Option<std::net::SocketAddr>,
    /// The host that a client's session has.
    pub override_host: Option<OverrideHost<'a>>,
    /// Hosts of earlier attempts, avoided while the retries below last (`previous_hosts` predicate).
    pub previous: &'a [u64],
    /// Envoy's `host_selection_retry_max_attempts`.
    pub reselect: usize,
    /// Every so many attempts, the priorities of all hosts of earlier attempts are left out (`previous_priorities`).
    pub leave_priorities: Option<NonZeroU32>,
    /// The metadata that hosts must have, where the cluster has subsets.
    pub metadata: Option<&'a meltemi_plan::common::Value>,
}

/// A host that is used if it is there and its state allows.
#[derive(Clone, Copy, Debug)]
pub struct OverrideHost<'a> {
    /// `None`: what the client sent is no address.
    pub address: Option<&'a Address>,
    /// No other host will do.
    pub strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// Response flag `UH`.
    #[error("no healthy upstream")]
    NoHealthyHost,
    /// An original-destination cluster without a destination; also `UH`.
    #[error("no original destination")]
    NoDestination,
}

#[derive(Debug, Default)]
enum Cursor {
    #[default]
    Unset,
    Index(usize),
    Edf(Edf),
}

/// Sets that a worker remembers its place in; more than one only where a cluster has subsets.
const PLACES: usize = 32;

/// How much dearer than usual the better of two hosts must be for two others to be drawn, and how often at most.
const DEAR: f64 = 4.0;
const REDRAWS: usize = 2;
/// Of one choice in the usual cost: when all hosts become dear, some thirty choices later that is usual.
const USUAL_WEIGHT: f64 = 1.0 / 32.0;

/// One worker's place in one cluster's sets.
#[derive(Debug)]
pub struct LbState {
    rng: SmallRng,
    /// Of the set in use.
    cursors: Vec<Cursor>,
    /// The set that the cursors belong to; kept so that its address is not reused while we compare by it.
    set: Option<Arc<EndpointSet>>,
    /// Other subsets of the cluster, the last used last.
    others: Vec<(Arc<EndpointSet>, Vec<Cursor>)>,
    /// Of the hosts chosen by cost of late; `None` before the first.
    usual_cost: Option<f64>,
}

impl Default for LbState {
    fn default() -> Self {
        Self::seeded(rand::random())
    }
}

impl LbState {
    pub fn seeded(seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        Self { rng, cursors: Vec::new(), set: None, others: Vec::new(), usual_cost: None }
    }

    fn adopt(&mut self, set: &Arc<EndpointSet>) {
        if self.set.as_ref().is_some_and(|s| Arc::ptr_eq(s, set)) {
            return;
        }
        if let Some(last) = self.set.replace(set.clone()) {
            let cursors = std::mem::take(&mut self.cursors);
            // Only subsets come back; what an update replaced is dropped with it.
            if last.is_subset && set.is_subset {
                self.others.push((last, cursors));
            } else {
                self.others.clear();
            }
        }
        match self.others.iter().position(|(s, _)| Arc::ptr_eq(s, set)) {
            Some(at) => self.cursors = self.others.remove(at).1,
            None => self.cursors.resize_with(set.cursors, Cursor::default),
        }
        if self.others.len() > PLACES {
            self.others.remove(0);
        }
    }

    /// Chooses a host of `set`.
    pub fn pick(
        &mut self,
        set: &Arc<EndpointSet>,
        policy: Policy,
        context: &PickContext<'_>,
    ) -> Result<Arc<Endpoint>, PickError> {
        self.adopt(set);
        let mut host = self.pick_once(set, policy, context, 0)?;
        for attempt in 1..=context.reselect {
            if !context.previous.contains(&host.id) {
                break;
            }
            host = self.pick_once(set, policy, context, attempt)?;
        }
        Ok(host)
    }

    fn pick_once(
        &mut self,
        set: &EndpointSet,
        policy: Policy,
        context: &PickContext<'_>,
        attempt: usize,
    ) -> Result<Arc<Endpoint>, PickError> {
        let hash = context.hash.filter(|_| policy.is_hash());
        let tier = match &*set.priorities {
            [] => return Err(PickError::NoHealthyHost),
            [only] if set.loads.degraded[0] == 0 => &only.serving,
            priorities => {
                let roll = hash.unwrap_or_else(|| self.rng.next_u64());
                let (priority, degraded) = match context.leave_priorities {
                    Some(every) if !context.previous.is_empty() => {
                        set.loads_without(context.previous, every).choose(roll)
                    }
                    Some(_) | None => set.loads.choose(roll),
                };
                match &priorities[priority] {
                    PrioritySet { degraded: Some(tier), .. } if degraded => tier,
                    // Without degraded hosts none of them can be meant.
                    PrioritySet { serving, .. } => serving,
                }
            }
        };
        let found = match (&tier.table, &tier.localities) {
            (Some(table), _) => {
                let hash = hash.unwrap_or_else(|| self.rng.next_u64());
                table.find(hash, attempt).and_then(|i| tier.all.hosts.get(i).cloned())
            }
            (None, Some(localities)) => {
                let list = self.locality(localities, tier);
                self.pick_in(list, policy)
            }
            (None, None) => self.pick_by_zone(tier, policy),
        };
        found.ok_or(PickError::NoHealthyHost)
    }

    fn pick_by_zone(&mut self, tier: &Tier, policy: Policy) -> Option<Arc<Endpoint>> {
        let Some(zones) = &tier.zones else { return self.pick_in(&tier.all, policy) };
        match zones.routing.choose(|| self.rng.next_u64()) {
            Choice::Anywhere => self.pick_in(&tier.all, policy),
            Choice::Nowhere => None,
            Choice::Locality(place) => self.pick_in(zones.lists.get(place)?, policy),
        }
    }

    fn locality<'a>(&mut self, localities: &'a Localities, tier: &'a Tier) -> &'a HostList {
        let weight = |i: usize| localities.weights[i];
        let edf = self.edf(localities.cursor, || localities.weights.clone());
        edf.pick(weight).and_then(|i| localities.lists.get(i)).unwrap_or(&tier.all)
    }

    fn edf(&mut self, cursor: usize, weights: impl FnOnce() -> Vec<f64>) -> &mut Edf {
        let slot = &mut self.cursors[cursor];
        if !matches!(slot, Cursor::Edf(_)) {
            *slot = Cursor::Edf(Edf::new(weights(), &mut self.rng));
        }
        match slot {
            Cursor::Edf(edf) => edf,
            Cursor::Unset | Cursor::Index(_) => unreachable!("just set"),
        }
    }

    fn pick_in(&mut self, list: &HostList, policy: Policy) -> Option<Arc<Endpoint>> {
        let hosts = &list.hosts;
        if hosts.len() <= 1 {
            return hosts.first().cloned();
        }
        let now = policy.slow_start().map(|start| (start, Instant::now()));
        // Only while some host is in its window do weights of equal hosts differ.
        let warming = now.is_some_and(|(start, now)| hosts.iter().any(|h| now - h.state.since < start.window));
        let even = list.even && !warming;
        let factor = |host: &Endpoint| now.map_or(1.0, |(start, now)| start.factor(now - host.state.since));
        let index = match policy {
            Policy::LeastRequest { choices, .. } if even => self.least_of(choices, hosts),
            Policy::LeastRequest { active_request_bias, .. } => {
                let weight = |i: usize| biased_weight(&hosts[i], active_request_bias) * factor(&hosts[i]);
                self.edf(list.cursor, || (0..hosts.len()).map(weight).collect()).pick(weight)?
            }
            Policy::Random => self.below(hosts.len()),
            Policy::PeakEwma(settings) => self.quicker_of_two(settings, hosts),
            // A table always answers before; what is left is round robin.
            Policy::RoundRobin { .. } | Policy::RingHash { .. } | Policy::Maglev { .. } | Policy::OriginalDst
                if even =>
            {
                self.step(list.cursor, hosts.len())
            }
            Policy::RoundRobin { .. } | Policy::RingHash { .. } | Policy::Maglev { .. } | Policy::OriginalDst => {
                let weight = |i: usize| f64::from(hosts[i].weight) * factor(&hosts[i]);
                self.edf(list.cursor, || (0..hosts.len()).map(weight).collect()).pick(weight)?
            }
        };
        Some(hosts[index].clone())
    }

    /// The next index, from a random start so that workers do not all begin with the first host.
    fn step(&mut self, cursor: usize, len: usize) -> usize {
        let index = match self.cursors[cursor] {
            Cursor::Index(index) => index,
            Cursor::Unset | Cursor::Edf(_) => self.below(len),
        };
        self.cursors[cursor] = Cursor::Index((index + 1) % len);
        index
    }

    /// Power of `choices`: the fewest active requests among random candidates; the first wins a tie.
    fn least_of(&mut self, choices: u32, hosts: &[Arc<Endpoint>]) -> usize {
        let mut best = self.below(hosts.len());
        if choices == u32::MAX {
            // A full scan, from a random start so that ties do not all go to the first.
            let start = best;
            for i in (0..hosts.len()).map(|i| (start + i) % hosts.len()) {
                if hosts[i].active_requests() < hosts[best].active_requests() {
                    best = i;
                }
            }
            return best;
        }
        for _ in 1..choices {
            let other = self.below(hosts.len());
            if hosts[other].active_requests() < hosts[best].active_requests() {
                best = other;
            }
        }
        best
    }

    /// Power of two choices: of two different hosts the one with the shorter expected wait for its weight. Where both are far
    /// dearer than what was chosen of late, as happens often among few hosts of which two are bad, others are drawn.
    fn quicker_of_two(&mut self, settings: PeakEwma, hosts: &[Arc<Endpoint>]) -> usize {
        let now = Instant::now();
        let cost = |host: &Endpoint| {
            settings.cost(&host.state.latency, host.active_requests(), now) / f64::from(host.weight.max(1))
        };
        let (mut best, mut least) = self.quicker_pair(hosts, &cost);
        for _ in 0..REDRAWS {
            if self.usual_cost.is_none_or(|usual| least <= usual * DEAR) {
                break;
            }
            let (again, cost) = self.quicker_pair(hosts, &cost);
            if cost < least {
                (best, least) = (again, cost);
            }
        }
        let usual = self.usual_cost.get_or_insert(least);
        *usual += (least - *usual) * USUAL_WEIGHT;
        best
    }

    fn quicker_pair(&mut self, hosts: &[Arc<Endpoint>], cost: &impl Fn(&Endpoint) -> f64) -> (usize, f64) {
        let one = self.below(hosts.len());
        let other = self.below(hosts.len() - 1);
        let other = other + usize::from(other >= one);
        let (cost_of_one, cost_of_other) = (cost(&hosts[one]), cost(&hosts[other]));
        if cost_of_other < cost_of_one { (other, cost_of_other) } else { (one, cost_of_one) }
    }

    fn below(&mut self, len: usize) -> usize {
        // Lemire's multiply-shift; the bias for a few hosts in 2^64 is nothing.
        ((u128::from(self.rng.next_u64()) * len as u128) >> 64) as usize
    }
}

/// Envoy's least request weight: `weight / (active + 1) ^ bias`.
fn biased_weight(host: &Endpoint, bias: f64) -> f64 {
    let active = f64::from(host.active_requests()) + 1.0;
    let divisor = if bias == 1.0 { active } else { active.powf(bias) };
    f64::from(host.weight) / divisor
}
