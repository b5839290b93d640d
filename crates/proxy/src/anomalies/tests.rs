use super::*;
use crate::configurator::Configurator;
use crate::configurator::tests::{held, source};
use meltemi_plan::encoded_load_assignment;
use meltemi_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::route::v3::RouteConfiguration as RoutesProto;
use meltemi_proto::json::from_value;
use meltemi_upstream::{Fault, Outcome};
use serde_json::{Value, json};
use std::time::{Instant, UNIX_EPOCH};

fn metadata(eject: bool) -> Value {
    let asked = json!({ "sensitivity": "medium", "eject": eject.to_string(), "policy": "shop/calm" });
    json!({ "filter_metadata": { "meltemi.anomaly_detection": asked } })
}

/// A watched cluster of five endpoints, and one of its two routes watched.
fn world(registry: &Registry, eject: bool) -> (Configurator, Arc<World>) {
    let mut configurator = Configurator::new(registry.clone());
    let cluster = json!({ "name": "c", "type": "EDS", "connect_timeout": "1s", "metadata": metadata(eject),
        "eds_cluster_config": { "eds_config": { "ads": {} } } });
    let plan = meltemi_plan::cluster(&from_value::<ClusterProto>(&cluster).unwrap()).unwrap();
    configurator.set_cluster(held(plan)).unwrap();
    let endpoint = |port: u16| json!({ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } });
    let endpoints: Vec<Value> = (1..=5).map(endpoint).collect();
    let assignment = json!({ "cluster_name": "c", "endpoints": [{ "lb_endpoints": endpoints }] });
    let body = meltemi_proto::encode(&from_value::<ClusterLoadAssignment>(&assignment).unwrap());
    configurator.set_assignment(&encoded_load_assignment(&body).unwrap(), source(&body));
    let to = json!({ "cluster": "c" });
    let routes = json!({ "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
        { "match": { "path": "/unwatched" }, "route": to.clone() },
        { "match": { "prefix": "/" }, "route": to, "metadata": metadata(eject) }] }] });
    let plan = meltemi_plan::route_configuration(&from_value::<RoutesProto>(&routes).unwrap()).unwrap();
    configurator.set_routes(held(plan));
    configurator.publish();
    let world = configurator.world();
    (configurator, world)
}

fn watcher(registry: &Registry) -> Watcher {
    let stats = RouteStats::new(registry, Scope::plain("anomaly_detection"));
    Watcher { stats, endpoints: HashMap::new(), routes: BTreeMap::new() }
}

/// A second in which each endpoint answers sixty times, one of them slowly.
fn second(watched: &Watched, slow_port: Option<u16>) {
    let cluster = &watched.clusters[0];
    for host in cluster.hosts() {
        let is_slow = host.address.socket().map(|socket| socket.port()) == slow_port;
        let time = Duration::from_millis(if is_slow { 200 } else { 10 });
        let start = Instant::now();
        for _ in 0..60 {
            cluster.answered(&host, start, start + time);
            cluster.report(&host, Outcome::Status(200));
        }
    }
}

#[tokio::test]
async fn a_slow_endpoint_is_found_ejected_and_told_of() {
    let registry = Registry::new();
    let (_configurator, world) = world(&registry, true);
    let watched = Watched::of(&world);
    let mut watcher = watcher(&registry);
    let mut changes = Vec::new();
    for _ in 0..5 {
        second(&watched, Some(3));
        changes.extend(watcher.tick(&watched, UNIX_EPOCH));
    }
    let [began] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(began.entity, Entity::Endpoint { cluster: "c".into(), endpoint: "127.0.0.1:3".into() });
    assert_eq!(began.condition.message(), "answers take 200.0 ms, 10.0 ms at its peers");
    let cluster = &watched.clusters[0];
    let ejected: Vec<String> =
        cluster.hosts().iter().filter(|h| h.state.has(Fault::Outlier)).map(|h| h.address.to_string()).collect();
    assert_eq!(ejected, ["127.0.0.1:3"], "20 % of the hosts, as the one that always may be");
    let text = registry.prometheus(&Default::default());
    for line in [
        "envoy_cluster_anomaly_detection_began_latency{envoy_cluster_name=\"c\"} 1",
        "envoy_cluster_anomaly_detection_anomalous_endpoints{envoy_cluster_name=\"c\"} 1",
        "envoy_cluster_anomaly_detection_ejections{envoy_cluster_name=\"c\"} 1",
    ] {
        assert!(text.lines().any(|own| own == line), "{line} is missing");
    }
    let findings = watcher.findings(&watched);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].condition.active && &*findings[0].policy == "shop/calm");
}

#[test]
fn observing_ejects_nothing_and_ends_when_the_endpoint_recovers() {
    let registry = Registry::new();
    let (_configurator, world) = world(&registry, false);
    let watched = Watched::of(&world);
    let mut watcher = watcher(&registry);
    let mut play = |slow: Option<u16>, seconds: u32| {
        let changes = (0..seconds).flat_map(|_| {
            second(&watched, slow);
            watcher.tick(&watched, UNIX_EPOCH)
        });
        changes.map(|change| change.condition.active).collect::<Vec<_>>()
    };
    assert_eq!(play(Some(3), 10), [true]);
    assert_eq!(play(None, 20), [false]);
    assert!(watched.clusters[0].hosts().iter().all(|host| !host.state.has(Fault::Outlier)));
    let findings = watcher.findings(&watched);
    assert!(!findings[0].condition.active && findings[0].condition.last_transition.is_some());
}

#[test]
fn a_route_is_compared_with_its_past_through_changes_of_configuration() {
    let registry = Registry::new();
    let mut watcher = watcher(&registry);
    let mut play = |watched: &Watched, millis: u64, seconds: u32| {
        let watch = &watched.routes.values().next().unwrap()[0];
        let changes = (0..seconds).flat_map(|_| {
            for _ in 0..60 {
                watch.record.ended(false);
                watch.record.answered(Duration::from_millis(millis));
            }
            watcher.tick(watched, UNIX_EPOCH)
        });
        changes.map(|change| (change.entity, change.condition.active)).collect::<Vec<_>>()
    };
    let (_first, one) = world(&registry, false);
    let (_second, two) = world(&registry, false);
    let (one, two) = (Watched::of(&one), Watched::of(&two));
    assert_eq!(play(&one, 10, 60), []);
    let key = RouteKey { route_configuration: "r".into(), virtual_host: "v".into(), route: "#1".into() };
    assert_eq!(play(&two, 100, 10), [(Entity::Route(key), true)]);
    watcher.keep(&two);
    assert_eq!(watcher.findings(&two).len(), 1);
    watcher.keep(&Watched::default());
    assert!(watcher.routes.is_empty() && watcher.endpoints.is_empty());
}
