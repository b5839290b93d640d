use std::time::Duration;

use meltemi_plan::cluster::LocalityLb;
use meltemi_plan::{ClusterKind, LocalityEndpoints};
use meltemi_telemetry::Registry;

use super::*;
use crate::balance::{LbState, PickContext};
use crate::cluster::{Cluster, Transport};
use crate::endpoint::Fault;
use crate::tasks::Background;
use crate::testing;

fn in_zone(zone: &str, hosts: std::ops::Range<u8>) -> LocalityEndpoints {
    let endpoints = hosts.map(|host| testing::endpoint(testing::socket(host, 80), 1)).collect();
    LocalityEndpoints { locality: Arc::new(at(zone)), ..testing::locality(0, None, endpoints) }
}

fn at(zone: &str) -> Locality {
    Locality { region: "r".into(), zone: zone.into(), sub_zone: "".into() }
}

fn members(localities: Vec<LocalityEndpoints>) -> Vec<LocalityMembers> {
    let plan = testing::plan(ClusterKind::Static, testing::round_robin(), None);
    let groups = crate::adapt::groups(&plan, &testing::assignment(localities));
    crate::members::update(&[], &groups, Default::default()).members
}

/// Hosts of zones a, b and so on, as many as `counts` says.
fn zones(counts: &[u8]) -> Vec<LocalityEndpoints> {
    let mut next = 1;
    let one = |(index, count): (usize, &u8)| {
        let zone = ["a", "b", "c", "d"][index];
        let locality = in_zone(zone, next..next + count);
        next += count;
        (*count > 0).then_some(locality)
    };
    counts.iter().enumerate().filter_map(one).collect()
}

fn zone(origin: &[u8], settings: ZoneAware) -> Zone {
    let origin = Origin::new(Arc::new(at("a")), &members(zones(origin)));
    let scope = crate::stats::Names::new(&"c".into()).part("", "envoy_cluster_");
    Zone { settings, origin: Arc::new(origin), stats: ZoneStats::new(&Registry::new(), scope) }
}

fn small() -> ZoneAware {
    ZoneAware { min_cluster_size: 1, ..ZoneAware::default() }
}

/// The routing of a proxy in zone a, whose cluster and the upstream have so many hosts in zones a, b and so on.
fn routing(origin: &[u8], upstream: &[u8], settings: ZoneAware) -> Option<Routing> {
    let zone = zone(origin, settings);
    let members = members(zones(upstream));
    let members: Vec<_> = members.iter().collect();
    zone.routing(&by_locality(&zone.origin, &members), 50)
}

#[test]
fn traffic_stays_where_the_upstream_has_its_share_and_else_goes_where_capacity_is_left() {
    let check = |origin: &[u8], upstream: &[u8], expected: (bool, u64, &[u64])| {
        let found = routing(origin, upstream, small()).unwrap();
        assert_eq!((found.direct, found.local_part, &*found.residual), expected, "{origin:?} to {upstream:?}");
    };
    check(&[1, 1], &[1, 1], (true, 10_000, &[0, 0]));
    check(&[1, 1], &[3, 1], (true, 15_000, &[0, 0]));
    // Half of the requests come from here, a quarter of the hosts are here: half of them stay.
    check(&[2, 2], &[1, 3], (false, 5000, &[0, 2500]));
    // Envoy's own example: 40, 40 and 20 percent to 25, 50 and 25.
    check(&[2, 2, 1], &[1, 2, 1], (false, 6250, &[0, 1000, 1500]));
    // Nothing here: by what is left elsewhere, and every locality counts.
    check(&[1, 1, 0], &[0, 1, 1], (false, 0, &[0, 5000]));
}

#[test]
fn zones_do_not_matter_where_the_comparison_has_no_ground() {
    assert!(routing(&[1, 1], &[2, 0], small()).is_none(), "the upstream is in one zone");
    assert!(routing(&[2, 0], &[1, 1], small()).is_none(), "the origin is in one zone");
    assert!(routing(&[0, 1, 1], &[1, 1], small()).is_none(), "the origin is not in the proxy's zone");
    let settings = |size| ZoneAware { min_cluster_size: size, ..ZoneAware::default() };
    assert!(routing(&[1, 1], &[2, 3], settings(6)).is_none(), "the upstream is too small");
    assert!(routing(&[1, 1], &[2, 3], settings(5)).is_some());
}

#[test]
fn the_own_zone_may_be_forced() {
    let forced = |least| ZoneAware { force_local_zone: Some(least), ..small() };
    assert!(routing(&[3, 1], &[1, 3], forced(1)).unwrap().direct);
    assert!(!routing(&[3, 1], &[1, 3], forced(2)).unwrap().direct);
    assert!(routing(&[3, 0], &[1, 3], forced(1)).unwrap().direct, "the origin need not be elsewhere");
}

#[test]
fn weights_count_if_they_are_to() {
    let mut heavy = zones(&[1, 3]);
    heavy[0].endpoints[0].weight = 9;
    let members = members(heavy);
    let members: Vec<_> = members.iter().collect();
    let direct = |by_weight| {
        let zone = zone(&[1, 1], ZoneAware { by_weight, ..small() });
        zone.routing(&by_locality(&zone.origin, &members), 50).unwrap().direct
    };
    assert_eq!([direct(false), direct(true)], [false, true]);
}

#[test]
fn a_panicking_origin_is_ignored_or_fails_traffic() {
    let check = |fail_traffic_on_panic, expected| {
        let origin = members(zones(&[4, 4]));
        // Two of four in the own zone are left, one of four elsewhere.
        let failing = origin[0].hosts.iter().take(2).chain(origin[1].hosts.iter().take(3));
        failing.for_each(|host| {
            host.state.set(Fault::Outlier, true);
        });
        let settings = ZoneAware { fail_traffic_on_panic, ..small() };
        let zone = Zone { origin: Arc::new(Origin::new(Arc::new(at("a")), &origin)), ..zone(&[], settings) };
        let upstream = members(zones(&[1, 1]));
        let upstream: Vec<_> = upstream.iter().collect();
        let routing = zone.routing(&by_locality(&zone.origin, &upstream), 50).unwrap();
        assert_eq!(routing.choose(|| 0), expected);
    };
    check(false, Choice::Anywhere);
    check(true, Choice::Nowhere);
}

#[test]
fn a_part_of_requests_may_be_left_out() {
    let settings = ZoneAware { routing_enabled: 30, ..small() };
    let routing = routing(&[1, 1], &[1, 1], settings).unwrap();
    assert_eq!([routing.choose(|| 29), routing.choose(|| 30)], [Choice::Locality(0), Choice::Anywhere]);
}

fn cluster(name: &str, plan: meltemi_plan::Cluster, registry: &Registry) -> Arc<Cluster> {
    let plan = meltemi_plan::Cluster { name: name.into(), ..plan };
    Cluster::new(Arc::new(plan), vec![Transport::Plain], registry, None)
}

fn static_plan(counts: &[u8]) -> meltemi_plan::Cluster {
    let assignment = testing::assignment(zones(counts));
    let mut plan = testing::plan(ClusterKind::Static, testing::round_robin(), Some(assignment));
    let mut settings = (*plan.settings).clone();
    settings.lb.locality = LocalityLb::ZoneAware(small());
    plan.settings = Arc::new(settings);
    plan
}

/// The number of picks, of 4000, that went to zone a.
fn own(cluster: &Cluster, state: &mut LbState) -> usize {
    let pick = |_| cluster.pick(&PickContext::default(), state).unwrap();
    (0..4000).map(pick).filter(|host| *host.locality == at("a")).count()
}

/// Waits until requests see another set than `before`.
async fn another(cluster: &Cluster, before: &Arc<crate::set::EndpointSet>) {
    let waiting = async {
        while Arc::ptr_eq(before, &cluster.set()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("the cluster follows");
}

#[tokio::test]
async fn clusters_follow_the_one_that_the_proxy_is_part_of() {
    let registry = Registry::new();
    let background = Background::with_local(Some(Local::new("own".into(), at("a"))));
    let upstream = cluster("up", static_plan(&[1, 3]), &registry);
    upstream.start(&background);
    let mut state = LbState::seeded(7);
    let found = own(&upstream, &mut state);
    assert!((900..1100).contains(&found), "without an origin every host gets the same: {found}");

    let origin = cluster("own", static_plan(&[2, 2]), &registry);
    let before = upstream.set();
    origin.start(&background);
    another(&upstream, &before).await;
    let found = own(&upstream, &mut state);
    assert!((1900..2100).contains(&found), "half of what comes from here stays here: {found}");

    let before = upstream.set();
    origin.assign(&testing::assignment(zones(&[1, 3])));
    another(&upstream, &before).await;
    assert_eq!(own(&upstream, &mut state), 4000, "all stays");
    let text = registry.prometheus(&Default::default());
    let counted = |name: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("envoy_cluster_{name}{{")));
        lines.next().and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    assert_eq!(counted("lb_zone_routing_all_directly"), 4000);
    assert_eq!(counted("lb_zone_routing_sampled") + counted("lb_zone_routing_cross_zone"), 4000);
}
