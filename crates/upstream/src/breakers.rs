//! Circuit breakers: how much of a cluster may be in use at once, per routing priority, over all workers.
//!
//! Checked at checkout with relaxed atomics: like Envoy's, a limit may be overshot by as many as there are workers. A granted
//! use is a [`Permit`] that gives back on drop.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use meltemi_plan::cluster::{CircuitBreakers, Thresholds};
use meltemi_telemetry::{Group, Registry, Spec};

use crate::stats::Names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connection,
    Pending,
    Request,
    Retry,
}

static GAUGES: &[Spec] =
    &[Spec::gauge("cx_open"), Spec::gauge("rq_pending_open"), Spec::gauge("rq_open"), Spec::gauge("rq_retry_open")];

#[derive(Debug)]
struct Level {
    thresholds: Thresholds,
    used: [AtomicU32; 4],
    open: Group,
}

impl Level {
    fn new(thresholds: Thresholds, open: Group) -> Self {
        Self { thresholds, used: [const { AtomicU32::new(0) }; 4], open }
    }

    fn used(&self, resource: Resource) -> u32 {
        self.used[resource as usize].load(Relaxed)
    }

    fn limit(&self, resource: Resource) -> u32 {
        match (resource, &self.thresholds.retry_budget) {
            (Resource::Connection, _) => self.thresholds.max_connections,
            (Resource::Pending, _) => self.thresholds.max_pending_requests,
            (Resource::Request, _) => self.thresholds.max_requests,
            (Resource::Retry, None) => self.thresholds.max_retries,
            (Resource::Retry, Some(budget)) => {
                let active = self.used(Resource::Request) + self.used(Resource::Pending);
                ((f64::from(active) * budget.percent / 100.0) as u32).max(budget.min_concurrency)
            }
        }
    }

    /// A budget moves with the load, so that its gauge would not balance; it shows no gauge.
    fn has_gauge(&self, resource: Resource) -> bool {
        resource != Resource::Retry || self.thresholds.retry_budget.is_none()
    }
}

/// Routing priorities, Envoy's `RoutingPriority`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingPriority {
    #[default]
    Default,
    High,
}

/// Shared by every worker and by successive versions of a cluster whose thresholds did not change.
#[derive(Debug)]
pub struct Breakers {
    levels: [Level; 2],
}

impl Breakers {
    pub(crate) fn new(registry: &Registry, names: &Names, config: &CircuitBreakers) -> Arc<Self> {
        let level = |part, prometheus, thresholds: &Thresholds| {
            Level::new(thresholds.clone(), registry.group(names.part(part, prometheus), GAUGES))
        };
        let (default, high) = (&config.default, &config.high);
        Arc::new(Self {
            levels: [
                level("circuit_breakers.default.", "envoy_cluster_circuit_breakers_default_", default),
                level("circuit_breakers.high.", "envoy_cluster_circuit_breakers_high_", high),
            ],
        })
    }

    /// Under new thresholds: what is in use goes on counting only if they are equal.
    pub fn next(previous: &Arc<Self>, config: &CircuitBreakers) -> Arc<Self> {
        let [default, high] = &previous.levels;
        if default.thresholds == config.default && high.thresholds == config.high {
            return previous.clone();
        }
        let level = |old: &Level, thresholds: &Thresholds| Level::new(thresholds.clone(), old.open.clone());
        Arc::new(Self { levels: [level(default, &config.default), level(high, &config.high)] })
    }

    fn level(&self, priority: RoutingPriority) -> &Level {
        &self.levels[priority as usize]
    }

    pub fn thresholds(&self, priority: RoutingPriority) -> &Thresholds {
        &self.level(priority).thresholds
    }

    pub fn used(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.level(priority).used(resource)
    }

    /// Whether one more would be refused.
    pub fn is_open(&self, priority: RoutingPriority, resource: Resource) -> bool {
        let level = self.level(priority);
        level.used(resource) >= level.limit(resource)
    }

    /// One unit of `resource`, or `None` when the limit is reached (response flag `UO`).
    pub fn acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        (!self.is_open(priority, resource)).then(|| self.acquire_unchecked(priority, resource))
    }

    /// One unit whatever the limit: Envoy opens one connection even when `max_connections` is 0 or used up by others, if the
    /// worker has none to the host.
    pub fn acquire_unchecked(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        let level = self.level(priority);
        let before = level.used[resource as usize].fetch_add(1, Relaxed);
        if level.has_gauge(resource) && before + 1 == level.limit(resource) {
            level.open.add(resource as usize, 1);
        }
        Permit { breakers: self.clone(), priority, resource }
    }

    fn release(&self, priority: RoutingPriority, resource: Resource) {
        let level = self.level(priority);
        let before = level.used[resource as usize].fetch_sub(1, Relaxed);
        if level.has_gauge(resource) && before == level.limit(resource) {
            level.open.sub(resource as usize, 1);
        }
    }
}

/// A unit of a resource in use.
#[derive(Debug)]
pub struct Permit {
    breakers: Arc<Breakers>,
    priority: RoutingPriority,
    resource: Resource,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.breakers.release(self.priority, self.resource);
    }
}
