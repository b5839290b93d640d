//! How much of the traffic each priority takes: health scaling, spill-over and panic, as Envoy computes them.
//!
//! Pure integer arithmetic over counts; recomputed when an endpoint's health changes, never per request.
//! Source: Envoy, "Priority levels", "Panic threshold" and "Degraded endpoints".

#[cfg(test)]
mod tests;

/// Hosts of one priority, counted (or weighed, with `weighted_priority_health`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub total: u64,
    pub healthy: u64,
    pub degraded: u64,
    /// Left out of every percentage: not yet health checked while the cluster warms.
    pub excluded: u64,
}

/// The part of 100 that each priority takes, and whether it serves all hosts regardless of health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads {
    pub healthy: Vec<u32>,
    pub degraded: Vec<u32>,
    pub panic: Vec<bool>,
    /// How much each priority could take, of 100: its healthy and its degraded hosts.
    available: Vec<(u32, u32)>,
}

/// `overprovisioning` is in percent (140), `panic_threshold` too (50; 0 disables panic).
pub fn loads(priorities: &[Census], overprovisioning: u32, panic_threshold: u32) -> Loads {
    let availability = |hosts: fn(&Census) -> u64| -> Vec<u32> {
        let one = |c: &Census| match c.total.saturating_sub(c.excluded) {
            0 => 0,
            total => (u64::from(overprovisioning) * hosts(c) / total).min(100) as u32,
        };
        priorities.iter().map(one).collect()
    };
    let healthy = availability(|c| c.healthy);
    let degraded = availability(|c| c.degraded);
    let normalised = healthy.iter().chain(&degraded).sum::<u32>().min(100);

    let mut out = Loads {
        healthy: vec![0; priorities.len()],
        degraded: vec![0; priorities.len()],
        panic: vec![false; priorities.len()],
        available: healthy.iter().copied().zip(degraded.iter().copied()).collect(),
    };
    if priorities.is_empty() {
        return out;
    }
    if normalised > 0 {
        spread(&mut out, &healthy, &degraded, normalised);
    }
    if panic_threshold == 0 && normalised == 0 {
        // Nothing to choose and no panic: somebody must get the 100, and answers that it has no host.
        out.healthy[0] = 100;
        return out;
    }
    for (panic, census) in out.panic.iter_mut().zip(priorities) {
        *panic = normalised < 100 && in_panic(census, panic_threshold);
    }
    if out.panic.iter().all(|p| *p) {
        total_panic(&mut out, priorities);
    }
    out
}

fn spread(out: &mut Loads, healthy: &[u32], degraded: &[u32], normalised: u32) {
    let mut remaining = 100;
    let mut share = |loads: &mut [u32], availability: &[u32]| {
        let mut first = None;
        for (i, available) in availability.iter().enumerate() {
            if first.is_none() && *available > 0 {
                first = Some(i);
            }
            loads[i] = remaining.min(available * 100 / normalised);
            remaining -= loads[i];
        }
        first
    };
    let first_healthy = share(&mut out.healthy, healthy);
    let first_degraded = share(&mut out.degraded, degraded);
    // What rounding left goes to the first that has any.
    match (first_healthy, first_degraded) {
        (Some(i), _) => out.healthy[i] += remaining,
        (None, Some(i)) => out.degraded[i] += remaining,
        (None, None) => {}
    }
}

/// Whether so few hosts are usable that health is ignored; `threshold` in percent.
pub(crate) fn in_panic(census: &Census, threshold: u32) -> bool {
    let total = census.total.saturating_sub(census.excluded);
    let percent = |n: u64| if total == 0 { 0.0 } else { 100.0 * n as f64 / total as f64 };
    percent(census.healthy) + percent(census.degraded) < f64::from(threshold.min(100))
}

/// Every priority is in panic: the load follows the number of hosts.
fn total_panic(out: &mut Loads, priorities: &[Census]) {
    out.degraded.fill(0);
    let total: u64 = priorities.iter().map(|c| c.total).sum();
    if total == 0 {
        out.healthy.fill(0);
        out.healthy[0] = 100;
        return;
    }
    let mut remaining = 100;
    for (load, census) in out.healthy.iter_mut().zip(priorities) {
        *load = (100 * census.total / total) as u32;
        remaining -= *load;
    }
    if let Some(first) = priorities.iter().position(|c| c.total > 0) {
        out.healthy[first] += remaining;
    }
}

/// A locality's weight scaled by how much of it is available (`overprovisioning` in percent).
pub fn locality_weight(weight: u32, available: usize, total: usize, overprovisioning: u32) -> f64 {
    if total == 0 || available == 0 {
        return 0.0;
    }
    let ratio = available as f64 / total as f64 * f64::from(overprovisioning) / 100.0;
    f64::from(weight) * ratio.min(1.0)
}

impl Loads {
    /// As if these priorities had no host to offer; `None` when no other has.
    pub fn without(&self, left: impl Fn(usize) -> bool) -> Option<Self> {
        let offered = |part: fn(&(u32, u32)) -> u32| -> Vec<u32> {
            self.available.iter().enumerate().map(|(i, both)| if left(i) { 0 } else { part(both) }).collect()
        };
        let (healthy, degraded) = (offered(|both| both.0), offered(|both| both.1));
        let normalised = healthy.iter().chain(&degraded).sum::<u32>().min(100);
        if normalised == 0 {
            return None;
        }
        let none = vec![0; self.available.len()];
        let mut out = Self {
            healthy: none.clone(),
            degraded: none,
            panic: self.panic.clone(),
            available: self.available.clone(),
        };
        spread(&mut out, &healthy, &degraded, normalised);
        Some(out)
    }

    /// The priority, and whether its degraded hosts, for a uniformly distributed `roll`.
    pub fn choose(&self, roll: u64) -> (usize, bool) {
        let target = (roll % 100 + 1) as u32;
        let mut sum = 0;
        for (loads, degraded) in [(&self.healthy, false), (&self.degraded, true)] {
            for (i, load) in loads.iter().enumerate() {
                sum += load;
                if target <= sum {
                    return (i, degraded);
                }
            }
        }
        (0, false)
    }
}
