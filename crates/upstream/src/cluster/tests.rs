use std::time::Duration;

use super::*;
use crate::testing::{self, plan, round_robin, socket};

fn cluster(plan: meltemi_plan::Cluster, registry: &Registry, previous: Option<&Cluster>) -> Arc<Cluster> {
    Cluster::new(Arc::new(plan), vec![Transport::Plain], registry, previous)
}

fn pick(cluster: &Cluster, state: &mut LbState) -> Result<Arc<Endpoint>, PickError> {
    cluster.pick(&PickContext::default(), state)
}

fn outlier() -> meltemi_plan::cluster::OutlierDetection {
    meltemi_plan::cluster::OutlierDetection {
        consecutive_5xx: 3,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_millis(20),
        base_ejection_time: Duration::from_millis(50),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 100,
        always_eject_one_host: false,
        enforcing_success_rate: 0,
        enforcing_local_origin_success_rate: 0,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        successful_health_check_uneject_host: true,
    }
}

#[test]
fn a_static_cluster_serves_at_once_and_counts() {
    let registry = Registry::new();
    let cluster = cluster(plan(ClusterKind::Static, round_robin(), Some(testing::hosts(&[1, 1, 1]))), &registry, None);
    assert!(cluster.is_warm());
    assert!(pick(&cluster, &mut LbState::default()).is_ok());
    assert_eq!(registry.total("envoy_cluster_membership_healthy", &[("envoy_cluster_name", "c")]), 3);
}

#[test]
fn an_empty_cluster_has_no_healthy_host() {
    let registry = Registry::new();
    let cluster = cluster(plan(ClusterKind::Eds, round_robin(), None), &registry, None);
    assert!(!cluster.is_warm());
    assert_eq!(pick(&cluster, &mut LbState::default()).unwrap_err(), PickError::NoHealthyHost);
    assert_eq!(registry.total("envoy_cluster_upstream_cx_none_healthy", &[]), 1);
    cluster.assign(&testing::hosts(&[1]));
    assert!(cluster.is_warm());
    assert!(pick(&cluster, &mut LbState::default()).is_ok());
}

#[tokio::test]
async fn an_ejected_host_is_passed_over_and_comes_back() {
    let registry = Registry::new();
    let mut config = plan(ClusterKind::Static, round_robin(), Some(testing::hosts(&[1, 1, 1])));
    testing::settings(&mut config).outlier = Some(outlier().into());
    let cluster = cluster(config, &registry, None);
    let background = crate::Background::default();
    cluster.start(&background);
    let bad = cluster.hosts()[0].clone();
    (0..3).for_each(|_| cluster.report(&bad, Outcome::Status(503)));
    let mut state = LbState::default();
    assert!((0..30).all(|_| pick(&cluster, &mut state).unwrap().id != bad.id));
    assert_eq!(registry.total("envoy_cluster_outlier_detection_ejections_active", &[]), 1);
    assert_eq!(registry.total("envoy_cluster_membership_healthy", &[]), 2);
    while cluster.set().healthy < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!((0..30).any(|_| pick(&cluster, &mut state).unwrap().id == bad.id));
}

#[test]
fn the_next_version_keeps_hosts_counters_and_ejections() {
    let registry = Registry::new();
    let mut config = plan(ClusterKind::Static, round_robin(), Some(testing::hosts(&[1, 1])));
    testing::settings(&mut config).outlier = Some(outlier().into());
    let first = cluster(config.clone(), &registry, None);
    let bad = first.hosts()[0].clone();
    (0..3).for_each(|_| first.report(&bad, Outcome::ConnectFailed));
    first.stats.traffic.upstream_rq_total().add(7);
    testing::settings(&mut config).connect_timeout = Duration::from_secs(1);
    let second = cluster(config, &registry, Some(&first));
    assert!(Arc::ptr_eq(&first.breakers, &second.breakers));
    drop(first);
    assert_eq!(second.stats.traffic.upstream_rq_total().value(), 7);
    let mut state = LbState::default();
    assert!((0..20).all(|_| pick(&second, &mut state).unwrap().id != bad.id));
    assert_eq!(second.set().healthy, 1);
}

#[test]
fn an_original_destination_is_where_the_connection_was_going() {
    let registry = Registry::new();
    let settings = meltemi_plan::cluster::OriginalDst { header: None, port_override: Some(15008) };
    let config = plan(ClusterKind::OriginalDst(settings), meltemi_plan::LbPolicy::ClusterProvided, None);
    let cluster = cluster(config, &registry, None);
    assert!(cluster.is_warm());
    let mut state = LbState::default();
    let context = PickContext { original_dst: Some(socket(9, 80)), ..PickContext::default() };
    assert_eq!(cluster.pick(&context, &mut state).unwrap().address, socket(9, 15008).into());
    assert_eq!(pick(&cluster, &mut state).unwrap_err(), PickError::NoDestination);
    assert_eq!(registry.total("envoy_cluster_original_dst_host_invalid", &[]), 1);
}

#[tokio::test]
async fn a_name_is_resolved_in_the_background() {
    let registry = Registry::new();
    let mut assignment = testing::hosts(&[1]);
    assignment.localities[0].endpoints[0].address = meltemi_plan::Address::Name { host: "localhost".into(), port: 81 };
    let cluster = cluster(plan(ClusterKind::StrictDns, round_robin(), Some(assignment)), &registry, None);
    assert!(!cluster.is_warm());
    let background = crate::Background::default();
    cluster.start(&background);
    tokio::time::timeout(Duration::from_secs(10), testing::warmed(&cluster, &background)).await.unwrap();
    let host = pick(&cluster, &mut LbState::default()).unwrap();
    assert_eq!((host.address.to_string().as_str(), &*host.hostname), ("127.0.0.1:81", "localhost"));
}

#[test]
fn endpoints_choose_their_transport_by_metadata() {
    let registry = Registry::new();
    let mut assignment = testing::hosts(&[1, 1]);
    let filters = [("envoy.transport_socket_match".into(), serde_json::json!({ "tlsMode": "istio" }))].into();
    assignment.localities[0].endpoints[1].metadata = Some(Arc::new(meltemi_plan::Metadata { filters }));
    let mut config = plan(ClusterKind::Static, round_robin(), Some(assignment));
    config.transport_matches.push(meltemi_plan::cluster::TransportMatch {
        name: "tlsMode-istio".into(),
        criteria: serde_json::json!({ "tlsMode": "istio" }),
        transport: meltemi_plan::cluster::TransportSocket::Plain,
    });
    let cluster = cluster(config, &registry, None);
    assert_eq!(cluster.hosts().iter().map(|h| h.transport).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_client_s_own_host_serves_it_in_the_states_that_are_allowed() {
    use meltemi_plan::cluster::OverrideHostStatus;
    let all = OverrideHostStatus { healthy: true, degraded: true, unhealthy: true, draining: true };
    let draining = OverrideHostStatus { draining: true, ..OverrideHostStatus::default() };
    let wanted: meltemi_net::Address = socket(2, 80).into();
    for (allowed, fault, is_taken) in [
        (OverrideHostStatus::default(), None, true),
        (OverrideHostStatus::default(), Some(Fault::EdsDegraded), true),
        (OverrideHostStatus::default(), Some(Fault::Outlier), false),
        (OverrideHostStatus::default(), Some(Fault::Draining), false),
        (draining, Some(Fault::Draining), true),
        (draining, Some(Fault::ActiveCheck), false),
        (all, Some(Fault::Eds), true),
        (OverrideHostStatus { healthy: false, ..all }, None, false),
    ] {
        let mut plan = plan(ClusterKind::Static, round_robin(), Some(testing::hosts(&[1, 1, 1])));
        Arc::make_mut(&mut plan.settings).lb.override_host_status = allowed;
        let cluster = cluster(plan, &Registry::new(), None);
        if let Some(fault) = fault {
            cluster.hosts().iter().find(|host| host.address == wanted).unwrap().state.set(fault, true);
            cluster.rebuild();
        }
        let mut state = LbState::seeded(3);
        let mut picks = |strict: bool| {
            let override_host = Some(OverrideHost { address: Some(&wanted), strict });
            let context = PickContext { override_host, ..PickContext::default() };
            (0..10).map(|_| cluster.pick(&context, &mut state).map(|host| host.address == wanted)).collect::<Vec<_>>()
        };
        let own = |picks: &[Result<bool, PickError>]| picks.iter().all(|picked| *picked == Ok(true));
        assert_eq!(own(&picks(false)), is_taken, "{allowed:?} {fault:?}");
        let failed = picks(true).iter().all(|picked| *picked == Err(PickError::NoHealthyHost));
        assert_eq!(failed, !is_taken, "{allowed:?} {fault:?}");
    }
    let cluster = cluster(plan(ClusterKind::Static, round_robin(), Some(testing::hosts(&[1]))), &Registry::new(), None);
    let pick = |strict| {
        let override_host = Some(OverrideHost { address: None, strict });
        cluster.pick(&PickContext { override_host, ..PickContext::default() }, &mut LbState::default()).is_ok()
    };
    assert_eq!((pick(false), pick(true)), (true, false), "no address is nobody's");
}
