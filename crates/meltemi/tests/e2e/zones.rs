//! Zone aware routing, by our proxy and by Envoy under one configuration.

use crate::support::{Process, answering, any, free_address, get, proxies};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

const REQUESTS: usize = 400;

/// The statuses that hosts of the proxy's own zone and of the other zone answer with.
const OWN: u16 = 204;
const OTHER: u16 = 205;

/// A cluster with hosts in the proxy's own zone and in the other.
fn cluster(name: &str, own: &[SocketAddr], other: &[SocketAddr], rest: Value) -> Value {
    let group = |zone: &str, hosts: &[SocketAddr]| {
        let at = |host: &SocketAddr| {
            let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": host.port() } });
            json!({ "endpoint": { "address": address } })
        };
        let endpoints: Vec<Value> = hosts.iter().map(at).collect();
        json!({ "locality": { "region": "r", "zone": zone }, "lb_endpoints": endpoints })
    };
    let mut cluster = json!({ "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [group("own", own), group("other", other)] } });
    let Value::Object(rest) = rest else { panic!("an object") };
    cluster.as_object_mut().expect("an object").extend(rest);
    cluster
}

fn zone_aware(config: Value) -> Value {
    json!({ "common_lb_config": { "zone_aware_lb_config": config } })
}

/// The part of requests that stays in the own zone, in percent, by the name of the cluster.
const CASES: &[(&str, usize)] = &[("direct", 100), ("half", 50), ("small", 25), ("off", 25), ("forced", 100)];

fn clusters() -> Vec<Value> {
    let own = [answering(OWN)];
    let other = [answering(OTHER), answering(OTHER), answering(OTHER)];
    let forced = any(
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
        json!({ "locality_lb_config": { "zone_aware_lb_config": { "min_cluster_size": 1, "force_local_zone": {} } } }),
    );
    let forced = json!({ "load_balancing_policy": { "policies": [{ "typed_extension_config": {
        "name": "envoy.load_balancing_policies.least_request", "typed_config": forced } }] } });
    // Where the origin's hosts are is all that counts of it.
    let nobody: Vec<SocketAddr> = (0..4).map(|_| free_address()).collect();
    let mut random = zone_aware(json!({ "min_cluster_size": 1 }));
    random["lb_policy"] = json!("RANDOM");
    vec![
        cluster("origin", &nobody[..2], &nobody[2..], json!({})),
        cluster("direct", &own, &other[..1], zone_aware(json!({ "min_cluster_size": 2 }))),
        cluster("half", &own, &other, random),
        cluster("small", &own, &other, json!({})),
        cluster("off", &own, &other, zone_aware(json!({ "min_cluster_size": 1, "routing_enabled": { "value": 0 } }))),
        cluster("forced", &own, &other, forced),
    ]
}

fn bootstrap(listen: SocketAddr) -> Value {
    let route =
        |(name, _): &(&str, usize)| json!({ "match": { "prefix": format!("/{name}") }, "route": { "cluster": name } });
    let routes: Vec<Value> = CASES.iter().map(route).collect();
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h",
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] } }),
    );
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": listen.port() } });
    json!({
        "node": { "id": "n", "cluster": "c", "locality": { "region": "r", "zone": "own" } },
        "cluster_manager": { "local_cluster_name": "origin" },
        "static_resources": {
            "listeners": [{ "name": "l", "address": address, "filter_chains": [{ "filters": [{ "name": "f", "typed_config": manager }] }] }],
            "clusters": clusters(),
        },
    })
}

fn requests_stay_in_the_zone(mut command: Command, name: &'static str, dir: &Path) {
    let listen = free_address();
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, bootstrap(listen).to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    for (cluster, percent) in CASES {
        let status = |_| get(listen, "a", &format!("/{cluster}")).expect("an answer").status;
        let statuses: Vec<u16> = (0..REQUESTS).map(status).collect();
        assert!(statuses.iter().all(|status| [OWN, OTHER].contains(status)), "{name} {cluster}: {statuses:?}");
        let stayed = statuses.iter().filter(|status| **status == OWN).count();
        let expected = REQUESTS * percent / 100;
        // More than five standard deviations of what is chance; what is not is exact.
        let tolerance = if *percent == 100 { 0 } else { 50 };
        assert!(stayed.abs_diff(expected) <= tolerance, "{name} {cluster}: {stayed} of {REQUESTS}, not {expected}");
    }
}

#[test]
fn requests_stay_in_their_zone_as_envoys_do() {
    let dir = tempfile::tempdir().expect("folder");
    proxies().into_iter().for_each(|(name, command)| requests_stay_in_the_zone(command, name, dir.path()));
}
