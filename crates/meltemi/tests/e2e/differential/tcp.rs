//! TCP proxies: where connections go, how they end, what is logged, and the network filters before them.

use super::client::{Action, Probe, Step};
use super::random::Random;
use super::{Plan, cluster, log, manager, socket};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const LISTENERS: usize = 3;
const PROBES: usize = 8;
const CLUSTERS: &[&str] =
    &["tcp-one", "tcp-one", "tcp-hash", "tcp-refused", "tcp-empty", "tcp-absent", "tcp-full", "tcp-mixed"];

fn proxy(random: &mut Random) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "access_log": log::config(),
    });
    if random.chance(20) {
        config["weighted_clusters"] = json!({ "clusters": [
            { "name": "tcp-one", "weight": 5 }, { "name": "tcp-one", "weight": 5 }] });
    } else {
        config["cluster"] = json!(random.pick(CLUSTERS));
    }
    if random.chance(50) {
        config["idle_timeout"] = json!("0.300s");
    }
    if random.chance(40) {
        config["max_connect_attempts"] = json!(1 + random.below(3));
    }
    if random.chance(40) {
        config["max_downstream_connection_duration"] = json!("0.400s");
    }
    if config["cluster"] == "tcp-hash" {
        config["hash_policy"] = json!([{ "source_ip": {} }]);
    }
    json!({ "name": "envoy.filters.network.tcp_proxy", "typed_config": config })
}

fn rbac(random: &mut Random) -> Value {
    let permission = match random.below(3) {
        0 => json!({ "any": true }),
        1 => json!({ "destination_ip": { "address_prefix": "127.0.0.1", "prefix_len": 32 } }),
        _ => json!({ "destination_port": 4444 }),
    };
    let principal = match random.below(3) {
        0 => json!({ "any": true }),
        1 => json!({ "direct_remote_ip": { "address_prefix": "127.91.0.0", "prefix_len": 16 } }),
        _ => json!({ "not_id": { "source_ip": { "address_prefix": "127.90.0.0", "prefix_len": 16 } } }),
    };
    json!({ "name": "envoy.filters.network.rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
        "stat_prefix": "tcp",
        "rules": { "action": random.pick(&["ALLOW", "DENY"]), "policies": {
            "only": { "permissions": [permission], "principals": [principal] } } } } })
}

/// A service that refuses clients of one network.
fn authorization(random: &mut Random) -> Value {
    json!({ "name": "envoy.filters.network.ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
        "stat_prefix": "tcp", "transport_api_version": "V3", "failure_mode_allow": random.chance(30),
        "grpc_service": { "timeout": "2s", "envoy_grpc": { "cluster_name": random.pick(&["tcp-authz", "tcp-authz", "tcp-refused"]) } } } })
}

/// The listener, and whether rules guard it.
fn add_listener(plan: &mut Plan<'_>, random: &mut Random) -> (usize, bool) {
    let guard = |random: &mut Random| if random.chance(70) { rbac(random) } else { authorization(random) };
    let mut filters: Vec<Value> = (0..random.below(3)).map(|_| guard(random)).collect();
    let guarded = !filters.is_empty();
    filters.push(match if guarded { 0 } else { random.below(10) } {
        0 => json!({ "name": "envoy.filters.network.echo", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo" } }),
        1 => json!({ "name": "envoy.filters.network.direct_response", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config",
            "response": { "inline_string": "direct\n" } } }),
        _ => proxy(random),
    });
    (plan.listener(json!({ "filter_chains": [{ "name": "only", "filters": filters }] })), guarded)
}

/// `guarded`: Envoy applies the rules to the first bytes, we to the connection, so something is sent first, and the filter
/// behind does nothing before.
fn steps(random: &mut Random, guarded: bool) -> Vec<Step> {
    let send = |text: &str| Step::Send(text.to_owned());
    if guarded {
        return vec![send("first"), Step::Pause(100), Step::Finish, Step::ReadToEnd];
    }
    match random.below(7) {
        0 => vec![Step::Expect(6), send("hello"), Step::Finish, Step::ReadToEnd],
        1 => vec![send("first"), Step::Finish, Step::ReadToEnd],
        2 => vec![Step::Expect(6), send("close"), Step::ReadToEnd],
        3 => vec![Step::Expect(6), send("reset"), Step::ReadToEnd],
        4 => vec![Step::Expect(6), Step::Pause(600), Step::ReadToEnd],
        5 => vec![Step::Finish, Step::ReadToEnd],
        _ => vec![
            Step::Expect(6),
            send("one"),
            Step::Pause(150),
            send("two"),
            Step::Pause(150),
            Step::Finish,
            Step::ReadToEnd,
        ],
    }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let backends = &plan.setup.backends;
    let mixed = json!({ "load_assignment": { "endpoints": [
        { "priority": 0, "lb_endpoints": [{ "endpoint": { "address": socket(backends.tcp[1]) }, "health_status": "UNHEALTHY" }] },
        { "priority": 1, "lb_endpoints": [{ "endpoint": { "address": socket(backends.tcp[2]) } }] } ] } });
    let full = json!({ "circuit_breakers": { "thresholds": [{ "max_connections": 0 }] } });
    let hash = json!({ "lb_policy": "RING_HASH", "ring_hash_lb_config": { "minimum_ring_size": 64 } });
    let clusters = [
        cluster("tcp-one", &[backends.tcp[0]], json!({})),
        cluster("tcp-hash", &backends.tcp, hash),
        cluster("tcp-refused", &[backends.refused], json!({})),
        cluster("tcp-empty", &[], json!({})),
        cluster("tcp-full", &[backends.tcp[0]], full),
        cluster("tcp-mixed", &[], mixed),
        cluster("tcp-authz", &[plan.setup.services.grpc], manager::http2()),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..LISTENERS {
        let (listener, guarded) = add_listener(plan, random);
        for _ in 0..PROBES {
            let to = if random.chance(70) { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 3, 3, 3) };
            plan.probe(Probe::new("tcp", listener, to, Action::Tcp(steps(random, guarded))), random.below(3) as u8);
        }
    }
}
