use super::*;
use meltemi_proto::envoy::config::cluster::v3::Cluster as ClusterProto;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::listener::v3::Listener as ListenerProto;
use meltemi_proto::envoy::config::route::v3::RouteConfiguration as RoutesProto;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

pub(crate) fn held<P>(plan: P) -> Held<P> {
    Held { plan: Arc::new(plan), source: source(&[]) }
}

pub(crate) fn source(body: &[u8]) -> Source {
    Source { body: body.into(), version: "1".into(), updated: SystemTime::UNIX_EPOCH, fixed: false }
}

fn fixed<P>(held: Held<P>) -> Held<P> {
    Held { source: Source { fixed: true, ..held.source }, ..held }
}

pub(super) fn fixture() -> Configurator {
    Configurator::new(Registry::new())
}

/// An EDS cluster; the connect timeout tells versions apart.
pub(super) fn eds(name: &str, seconds: u32) -> Held<ClusterPlan> {
    let document = json!({
        "name": name, "type": "EDS", "connect_timeout": format!("{seconds}s"),
        "eds_cluster_config": { "eds_config": { "ads": {} } },
    });
    held(meltemi_plan::cluster(&from_value::<ClusterProto>(&document).unwrap()).unwrap())
}

pub(super) fn assign(configurator: &mut Configurator, cluster: &str, port: u16) {
    let document = json!({ "cluster_name": cluster, "endpoints": [{ "lb_endpoints": [
        { "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } }] }] });
    let body = meltemi_proto::encode(&from_value::<ClusterLoadAssignment>(&document).unwrap());
    configurator.set_assignment(&encoded_load_assignment(&body).unwrap(), source(&body));
}

/// A route configuration with one route to a cluster.
fn routes(name: &str, cluster: &str) -> Held<RouteConfiguration> {
    let document = json!({ "name": name, "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
        { "match": { "prefix": "/" }, "route": { "cluster": cluster } }] }] });
    held(meltemi_plan::route_configuration(&from_value::<RoutesProto>(&document).unwrap()).unwrap())
}

/// A listener whose routes are a subscription, with more fields.
fn listener(name: &str, rds: &str, extra: Value) -> Held<Listener> {
    let mut document = json!({
        "name": name, "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "s",
            "rds": { "route_config_name": rds, "config_source": { "ads": {} } },
            "http_filters": [{ "name": "r", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        } }] }],
    });
    for (key, value) in extra.as_object().unwrap() {
        document[key] = value.clone();
    }
    held(meltemi_plan::listener(&from_value::<ListenerProto>(&document).unwrap()).unwrap())
}

fn connect_seconds(world: &World, cluster: &str) -> Option<u64> {
    world.clusters.get(cluster).map(|cluster| cluster.plan.connect_timeout.as_secs())
}

#[tokio::test]
async fn a_cluster_is_replaced_when_its_successor_has_hosts() {
    let mut configurator = fixture();
    assert!(configurator.set_cluster(eds("c", 1)).unwrap().is_some(), "its hosts must still come");
    configurator.publish();
    assert_eq!(connect_seconds(&configurator.world(), "c"), None);

    assign(&mut configurator, "c", 1);
    configurator.publish();
    assert_eq!(connect_seconds(&configurator.world(), "c"), Some(1));

    // The endpoints are known by now, so the successor has them from the start.
    assert!(configurator.set_cluster(eds("c", 2)).unwrap().is_none());
    configurator.publish();
    assert_eq!(connect_seconds(&configurator.world(), "c"), Some(2));
}

#[tokio::test]
async fn an_equal_cluster_keeps_its_runtime() {
    let mut configurator = fixture();
    configurator.set_cluster(eds("c", 1)).unwrap();
    assign(&mut configurator, "c", 1);
    configurator.publish();
    let before = configurator.world();
    configurator.set_cluster(eds("c", 1)).unwrap();
    configurator.publish();
    assert!(Arc::ptr_eq(&before, &configurator.world()), "nothing changed, nothing is published");
    assign(&mut configurator, "c", 2);
    configurator.publish();
    assert!(Arc::ptr_eq(&before, &configurator.world()), "an endpoint update publishes nothing");
}

#[tokio::test]
async fn routes_wait_for_clusters_that_warm_for_the_first_time() {
    let mut configurator = fixture();
    configurator.set_cluster(eds("old", 1)).unwrap();
    assign(&mut configurator, "old", 1);
    configurator.set_routes(routes("r", "old"));
    configurator.publish();

    configurator.set_cluster(eds("new", 1)).unwrap();
    configurator.set_routes(routes("r", "new"));
    configurator.publish();
    let target = |world: &World| clusters_of_routes(&world.routes["r"]).next().unwrap().to_string();
    assert_eq!(target(&configurator.world()), "old");

    assign(&mut configurator, "new", 1);
    configurator.publish();
    assert_eq!(target(&configurator.world()), "new");
}

#[tokio::test]
async fn a_listener_waits_for_its_routes_and_then_keeps_serving() {
    let mut configurator = fixture();
    configurator.set_listener(listener("l", "r", json!({}))).unwrap();
    assert_eq!(configurator.wanted().routes.iter().map(|name| &**name).collect::<Vec<_>>(), ["r"]);
    configurator.publish();
    assert!(configurator.world().listeners.is_empty());
    assert!(!configurator.is_settled());

    configurator.set_routes(routes("r", "nobody"));
    configurator.publish();
    let first = configurator.world();
    assert!(configurator.is_settled());

    // A successor whose routes are not there leaves the first in force.
    configurator.set_listener(listener("l", "other", json!({}))).unwrap();
    configurator.publish();
    assert!(Arc::ptr_eq(&first.listeners["l"], &configurator.world().listeners["l"]));
    configurator.set_routes(routes("other", "nobody"));
    configurator.publish();
    assert!(!Arc::ptr_eq(&first.listeners["l"], &configurator.world().listeners["l"]));

    configurator.remove_listener("l");
    configurator.publish();
    assert!(configurator.world().listeners.is_empty());
}

#[tokio::test]
async fn what_the_bootstrap_gave_is_not_removed() {
    let mut configurator = fixture();
    configurator.set_routes(routes("r", "nobody"));
    configurator.set_listener(fixed(listener("l", "r", json!({})))).unwrap();
    configurator.set_cluster(fixed(eds("c", 1))).unwrap();
    assign(&mut configurator, "c", 1);
    configurator.remove_listener("l");
    configurator.remove_cluster("c");
    configurator.publish();
    let world = configurator.world();
    assert!(world.listeners.contains_key("l"));
    assert!(world.clusters.get("c").is_some());
}

/// A listener at a port of the local host, which needs no routes.
fn at(name: &str, port: u16, extra: Value) -> Held<Listener> {
    let mut document = json!({
        "name": name, "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "s", "cluster": "c",
        } }] }],
    });
    for (key, value) in extra.as_object().unwrap() {
        document[key] = value.clone();
    }
    held(meltemi_plan::listener(&from_value::<ListenerProto>(&document).unwrap()).unwrap())
}

#[tokio::test]
async fn two_listeners_of_one_address_are_refused() {
    let mut configurator = fixture();
    configurator.set_listener(at("first", 80, json!({}))).unwrap();
    let second = configurator.set_listener(at("second", 80, json!({}))).unwrap_err();
    assert_eq!(second, "has duplicate address 127.0.0.1:80, which listener \"first\" has");
    let more = json!({ "additional_addresses": [{ "address": { "socket_address": {
        "address": "127.0.0.1", "port_value": 80 } } }] });
    assert!(configurator.set_listener(at("second", 81, more)).is_err());

    // The same name again is a new version of the same listener.
    configurator.set_listener(at("first", 80, json!({ "stat_prefix": "other" }))).unwrap();
    // Once the first is gone or has moved, its address is free.
    configurator.set_listener(at("first", 82, json!({}))).unwrap();
    configurator.set_listener(at("second", 80, json!({}))).unwrap();
    configurator.remove_listener("second");
    configurator.set_listener(at("third", 80, json!({}))).unwrap();
}

#[tokio::test]
async fn ports_to_be_chosen_are_not_the_same() {
    let mut configurator = fixture();
    configurator.set_listener(at("first", 0, json!({}))).unwrap();
    configurator.set_listener(at("second", 0, json!({}))).unwrap();
}

#[tokio::test]
async fn an_access_log_that_cannot_be_opened_is_refused() {
    let log = |path: &str| {
        json!({ "access_log": [{ "name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path } }] })
    };
    let mut configurator = fixture();
    let refused = configurator.set_listener(at("l", 80, log("/nowhere/log"))).unwrap_err();
    assert!(refused.starts_with("unable to open file \"/nowhere/log\""), "{refused}");
    configurator.set_listener(at("l", 80, log("/dev/null"))).unwrap();
}
