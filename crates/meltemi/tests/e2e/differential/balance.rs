//! Which endpoint serves: consistent hashing, subsets, priorities, weights by header, locality, limits. Only what is the same
//! for the same request.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, manager, merge, socket};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

const CLUSTERS: usize = 5;
const PROBES: usize = 40;

const ZONES: &[&str] = &["east", "west", "north"];
const VERSIONS: &[&str] = &["v1", "v2"];

fn endpoint(random: &mut Random, address: SocketAddr, subsets: bool) -> Value {
    let mut endpoint = json!({ "endpoint": { "address": socket(address) } });
    let mut labels = json!({});
    if random.chance(80) {
        labels["zone"] = json!(random.pick(ZONES));
    }
    if random.chance(70) {
        labels["version"] = json!(random.pick(VERSIONS));
    }
    endpoint["metadata"] = json!({ "filter_metadata": { "envoy.lb": labels } });
    if random.chance(40) {
        endpoint["load_balancing_weight"] = json!(1 + random.below(5));
    }
    if !subsets && random.chance(15) {
        endpoint["health_status"] = json!(random.pick(&["UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"]));
    }
    if random.chance(30) {
        endpoint["endpoint"]["hostname"] = json!(format!("host-{}.example", address.ip()));
    }
    endpoint
}

fn add_cluster(plan: &mut Plan<'_>, random: &mut Random, number: usize) {
    let name = format!("balance-{number}");
    let mut addresses = random.some(&plan.setup.backends.plain, 75);
    if addresses.is_empty() {
        addresses.push(plan.setup.backends.plain[0]);
    }
    let mut localities: Vec<Value> = Vec::new();
    let subsets = random.chance(60);
    let groups = if random.chance(60) { 1 } else { 2 };
    for group in 0..groups {
        let mine = addresses.iter().skip(group).step_by(groups).copied().collect::<Vec<_>>();
        let ends: Vec<Value> = mine.into_iter().map(|address| endpoint(random, address, subsets)).collect();
        localities.push(json!({ "locality": { "region": "r", "zone": format!("z{group}") }, "priority": group, "lb_endpoints": ends }));
    }
    let mut cluster = json!({
        "name": name, "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": name, "endpoints": localities },
        "common_lb_config": { "healthy_panic_threshold": { "value": *random.pick(&[&0, &50]) } },
    });
    if random.chance(50) {
        cluster["lb_policy"] = json!("RING_HASH");
        cluster["ring_hash_lb_config"] = json!({ "minimum_ring_size": 8 << random.below(6) });
        if random.chance(30) {
            cluster["ring_hash_lb_config"]["hash_function"] = json!("MURMUR_HASH_2");
        }
    } else {
        cluster["lb_policy"] = json!("MAGLEV");
        cluster["maglev_lb_config"] = json!({ "table_size": random.pick(&[&11, &101, &65537]) });
    }
    if subsets {
        cluster["lb_subset_config"] = subset_config(random);
    }
    plan.cluster(cluster);
}

fn subset_config(random: &mut Random) -> Value {
    let mut config = json!({
        "fallback_policy": random.pick(&["NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"]),
        "subset_selectors": [],
    });
    let fallback = ["NOT_DEFINED", "NO_FALLBACK", "ANY_ENDPOINT", "DEFAULT_SUBSET"];
    for keys in [json!(["zone"]), json!(["version"]), json!(["version", "zone"])] {
        if random.chance(60) {
            let selector = json!({ "keys": keys, "fallback_policy": random.pick(&fallback) });
            config["subset_selectors"].as_array_mut().expect("a list").push(selector);
        }
    }
    if random.chance(50) {
        config["default_subset"] = json!({ "zone": random.pick(ZONES) });
    }
    config["panic_mode_any"] = json!(random.chance(20));
    config
}

fn hash_policies(random: &mut Random) -> Value {
    let one = |random: &mut Random| {
        let mut policy = match random.below(6) {
            0 | 1 => {
                json!({ "header": { "header_name": random.pick(&["x-key", ":path", ":authority", "x-missing"]) } })
            }
            2 => json!({ "cookie": { "name": "session" } }),
            3 => {
                let mut cookie = json!({ "name": "made", "ttl": random.pick(&["0s", "90s"]) });
                if random.chance(50) {
                    cookie["path"] = json!("/p");
                }
                if random.chance(40) {
                    cookie["attributes"] =
                        json!([{ "name": "SameSite", "value": "Strict" }, { "name": "Secure", "value": "" }]);
                }
                json!({ "cookie": cookie })
            }
            4 => json!({ "connection_properties": { "source_ip": true } }),
            _ => json!({ "query_parameter": { "name": "k" } }),
        };
        if policy.get("header").is_some() && random.chance(20) {
            policy["header"]["regex_rewrite"] = json!({ "pattern": { "regex": "^(.).*$" }, "substitution": "\\1" });
        }
        policy["terminal"] = json!(random.chance(25));
        policy
    };
    let mut policies: Vec<Value> = (0..1 + random.below(3)).map(|_| one(random)).collect();
    // Without any key the choice is random: one is always there.
    policies.push(json!({ "query_parameter": { "name": "k" } }));
    Value::Array(policies)
}

fn wanted_labels(random: &mut Random) -> Value {
    let mut labels = json!({});
    if random.chance(70) {
        labels["zone"] = json!(random.pick(ZONES));
    }
    if random.chance(50) {
        labels["version"] = json!(random.pick(&["v1", "v2", "v9"]));
    }
    json!({ "filter_metadata": { "envoy.lb": labels } })
}

fn route(random: &mut Random, number: usize) -> Value {
    let mut action = json!({ "cluster": format!("balance-{number}"), "hash_policy": hash_policies(random) });
    if random.chance(70) {
        action["metadata_match"] = wanted_labels(random);
    }
    if random.chance(20) {
        // By hash or by header: the same for the same request.
        action.as_object_mut().expect("an object").remove("cluster");
        let other = (number + 1) % CLUSTERS;
        let mut weighted = json!({ "clusters": [
            { "name": format!("balance-{number}"), "weight": 1 + random.below(9),
              "response_headers_to_add": [{ "header": { "key": "x-weighted", "value": "first" } }] },
            { "name": format!("balance-{other}"), "weight": 1 + random.below(9), "metadata_match": wanted_labels(random) },
        ] });
        let by =
            if random.chance(50) { json!({ "header_name": "x-random" }) } else { json!({ "use_hash_policy": true }) };
        merge(&mut weighted, by);
        if weighted.get("use_hash_policy").is_some() {
            action["hash_policy"] = json!([{ "connection_properties": { "source_ip": true } }]);
        }
        action["weighted_clusters"] = weighted;
    }
    if random.chance(20) {
        action["auto_host_rewrite"] = json!(true);
    }
    json!({ "name": format!("to-{number}"), "match": { "prefix": format!("/{number}") }, "route": action })
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    (0..CLUSTERS).for_each(|number| add_cluster(plan, random, number));
    let routes: Vec<Value> = (0..CLUSTERS).map(|number| route(random, number)).collect();
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let settings = json!({ "use_remote_address": random.chance(50) });
    let manager = manager::manager(hosts, manager::filters(Vec::new()), settings);
    let listener = plan.listener(manager::listener(manager));
    for _ in 0..PROBES {
        let key = random.below(1000);
        let mut text = format!(
            "GET /{}/p{key}?k={} HTTP/1.1\r\nhost: h{key}.example\r\nx-test-id: @ID@\r\n",
            random.below(CLUSTERS),
            key / 3
        );
        text += &format!(
            "x-key: key-{key}\r\nx-random: {}\r\ncookie: session=s{key}; made=m{key}\r\n",
            random.below(100_000)
        );
        if random.chance(30) {
            text += &format!("x-key: second-{key}\r\n");
        }
        if random.chance(20) {
            text += "x-forwarded-for: 7.7.7.7\r\n";
        }
        let action = Action::Http1 { bytes: text + "\r\n", answers: 1 };
        plan.probe(Probe::new("balance", listener, Ipv4Addr::LOCALHOST, action), random.below(3) as u8);
    }
}
