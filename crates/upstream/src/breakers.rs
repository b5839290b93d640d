//! Circuit breakers: how much of a cluster may be in use at once, per routing priority, over all workers.
//!
//! Checked at checkout with relaxed atomics: like Envoy's, a limit may be overshot by as many as there are workers. A granted
//! use is a [`Permit`] that gives back on drop.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use meltemi_plan::cluster::{CircuitBreakers, Thresholds};
use meltemi_telemetry::metrics::Cell;

use crate::stats::MembershipStats;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    Connection,
    Pending,
    Request,
    Retry,
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
    config: Arc<CircuitBreakers>,
    /// By priority and resource.
    used: [[AtomicU32; 4]; 2],
    stats: MembershipStats,
}

impl Breakers {
    pub(crate) fn new(config: Arc<CircuitBreakers>, stats: MembershipStats) -> Arc<Self> {
        Arc::new(Self { config, used: [const { [const { AtomicU32::new(0) }; 4] }; 2], stats })
    }

    /// Under new thresholds: what is in use goes on counting only if they are equal.
    pub fn next(previous: &Arc<Self>, config: &Arc<CircuitBreakers>) -> Arc<Self> {
        let (old, new) = (&previous.config, config);
        if old.default == new.default && old.high == new.high {
            return previous.clone();
        }
        Self::new(config.clone(), previous.stats.clone())
    }

    pub fn thresholds(&self, priority: RoutingPriority) -> &Thresholds {
        match priority {
            RoutingPriority::Default => &self.config.default,
            RoutingPriority::High => &self.config.high,
        }
    }

    fn limit(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        let thresholds = self.thresholds(priority);
        match (resource, &thresholds.retry_budget) {
            (Resource::Connection, _) => thresholds.max_connections,
            (Resource::Pending, _) => thresholds.max_pending_requests,
            (Resource::Request, _) => thresholds.max_requests,
            (Resource::Retry, None) => thresholds.max_retries,
            (Resource::Retry, Some(budget)) => {
                let active = self.used(priority, Resource::Request) + self.used(priority, Resource::Pending);
                ((f64::from(active) * budget.percent / 100.0) as u32).max(budget.min_concurrency)
            }
        }
    }

    /// What shows that a limit is reached. A budget moves with the load, so that its gauge would not balance; it has none.
    fn gauge(&self, priority: RoutingPriority, resource: Resource) -> Option<Cell<'_>> {
        use {Resource::*, RoutingPriority::*};
        let stats = &self.stats;
        Some(match (priority, resource) {
            (_, Retry) if self.thresholds(priority).retry_budget.is_some() => return None,
            (Default, Connection) => stats.default_cx_open(),
            (Default, Pending) => stats.default_rq_pending_open(),
            (Default, Request) => stats.default_rq_open(),
            (Default, Retry) => stats.default_rq_retry_open(),
            (High, Connection) => stats.high_cx_open(),
            (High, Pending) => stats.high_rq_pending_open(),
            (High, Request) => stats.high_rq_open(),
            (High, Retry) => stats.high_rq_retry_open(),
        })
    }

    fn cell(&self, priority: RoutingPriority, resource: Resource) -> &AtomicU32 {
        &self.used[priority as usize][resource as usize]
    }

    pub fn used(&self, priority: RoutingPriority, resource: Resource) -> u32 {
        self.cell(priority, resource).load(Relaxed)
    }

    /// Whether one more would be refused.
    pub fn is_open(&self, priority: RoutingPriority, resource: Resource) -> bool {
        self.used(priority, resource) >= self.limit(priority, resource)
    }

    /// One unit of `resource`, or `None` when the limit is reached (response flag `UO`).
    pub fn acquire(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Option<Permit> {
        (!self.is_open(priority, resource)).then(|| self.acquire_unchecked(priority, resource))
    }

    /// One unit whatever the limit: Envoy opens one connection even when `max_connections` is 0 or used up by others, if the
    /// worker has none to the host.
    pub fn acquire_unchecked(self: &Arc<Self>, priority: RoutingPriority, resource: Resource) -> Permit {
        let before = self.cell(priority, resource).fetch_add(1, Relaxed);
        if before + 1 == self.limit(priority, resource) {
            self.gauge(priority, resource).inspect(|gauge| gauge.inc());
        }
        Permit { breakers: self.clone(), priority, resource }
    }

    fn release(&self, priority: RoutingPriority, resource: Resource) {
        let before = self.cell(priority, resource).fetch_sub(1, Relaxed);
        if before == self.limit(priority, resource) {
            self.gauge(priority, resource).inspect(|gauge| gauge.dec());
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
