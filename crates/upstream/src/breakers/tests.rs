use super::RoutingPriority::{Default as Normal, High};
use meltemi_plan::cluster::RetryBudget;
use meltemi_telemetry::Registry;

use super::*;
use crate::stats::{ClusterStats, Names};

fn envoy_defaults() -> Thresholds {
    Thresholds {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        retry_budget: None,
        track_remaining: false,
    }
}

fn breakers(thresholds: Thresholds) -> (Registry, Arc<Breakers>) {
    let registry = Registry::new();
    let config = CircuitBreakers { default: thresholds, high: envoy_defaults(), per_host_max_connections: None };
    let stats = ClusterStats::new(&registry, &Names::new(&"c".into())).membership;
    let breakers = Breakers::new(config.into(), stats);
    (registry, breakers)
}

#[test]
fn permits_are_limited_and_given_back() {
    let (registry, breakers) = breakers(Thresholds { max_requests: 2, ..envoy_defaults() });
    let open = || registry.total("envoy_cluster_circuit_breakers_default_rq_open", &[]);
    let first = breakers.acquire(Normal, Resource::Request);
    assert_eq!(open(), 0);
    let second = breakers.acquire(Normal, Resource::Request);
    assert!(first.is_some() && second.is_some());
    assert_eq!(open(), 1);
    assert!(breakers.acquire(Normal, Resource::Request).is_none());
    let over = breakers.acquire_unchecked(Normal, Resource::Request);
    assert_eq!((breakers.used(Normal, Resource::Request), open()), (3, 1));
    drop((first, second, over));
    assert_eq!((breakers.used(Normal, Resource::Request), open()), (0, 0));
    assert!(breakers.acquire(Normal, Resource::Request).is_some());
}

#[test]
fn priorities_are_apart() {
    let (_registry, breakers) = breakers(Thresholds { max_connections: 0, ..envoy_defaults() });
    assert!(breakers.acquire(Normal, Resource::Connection).is_none());
    assert!(breakers.acquire(High, Resource::Connection).is_some());
}

#[test]
fn a_retry_budget_follows_active_requests() {
    let retry_budget = Some(RetryBudget { percent: 20.0, min_concurrency: 3 });
    let (_registry, breakers) = breakers(Thresholds { retry_budget, ..envoy_defaults() });
    let granted = |active: u32| {
        let requests: Vec<_> = (0..active).map(|_| breakers.acquire(Normal, Resource::Request)).collect();
        let retries: Vec<_> = std::iter::from_fn(|| breakers.acquire(Normal, Resource::Retry)).collect();
        assert_eq!(requests.len(), active as usize);
        retries.len()
    };
    assert_eq!([0, 15, 20, 100].map(granted), [3, 3, 4, 20]);
}
