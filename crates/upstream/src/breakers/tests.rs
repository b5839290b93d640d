use super::RoutingPriority::{Default as Normal, High};
use super::*;

fn breakers(thresholds: Thresholds) -> (Registry, Arc<Breakers>) {
    let registry = Registry::new();
    let breakers = Breakers::new(&registry, "c", thresholds, Thresholds::default());
    (registry, breakers)
}

#[test]
fn permits_are_limited_and_given_back() {
    let (registry, breakers) = breakers(Thresholds { requests: 2, ..Thresholds::default() });
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
    let (_registry, breakers) = breakers(Thresholds { connections: 0, ..Thresholds::default() });
    assert!(breakers.acquire(Normal, Resource::Connection).is_none());
    assert!(breakers.acquire(High, Resource::Connection).is_some());
}

#[test]
fn a_retry_budget_follows_active_requests() {
    let retry_budget = Some(RetryBudget { percent: 20.0, min_concurrency: 3 });
    let (_registry, breakers) = breakers(Thresholds { retry_budget, ..Thresholds::default() });
    let granted = |active: u32| {
        let requests: Vec<_> = (0..active).map(|_| breakers.acquire(Normal, Resource::Request)).collect();
        let retries: Vec<_> = std::iter::from_fn(|| breakers.acquire(Normal, Resource::Retry)).collect();
        assert_eq!(requests.len(), active as usize);
        retries.len()
    };
    assert_eq!([0, 15, 20, 100].map(granted), [3, 3, 4, 20]);
}
