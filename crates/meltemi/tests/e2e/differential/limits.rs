//! Rate limits by descriptors: buckets of the proxy's own, and a service that counts.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, merge};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

const PROBES: usize = 30;
/// Each has a bucket of its own, so that no probe takes the token of another.
const USERS: usize = PROBES;

fn action(random: &mut Random) -> Value {
    match random.below(12) {
        0 => json!({ "source_cluster": {} }),
        1 => json!({ "destination_cluster": {} }),
        2 => json!({ "remote_address": {} }),
        3 => json!({ "masked_remote_address": { "v4_prefix_mask_len": random.pick(&[&8, &20]) } }),
        4 => json!({ "generic_key": { "descriptor_value": "generic", "descriptor_key": random.pick(&["", "own"]) } }),
        5 => json!({ "header_value_match": { "descriptor_value": "matched", "expect_match": random.chance(60),
            "headers": [{ "name": "x-one", "string_match": { "exact": "one" } }] } }),
        6 => {
            json!({ "query_parameter_value_match": { "descriptor_value": "matched", "query_parameters": [{ "name": "q", "present_match": true }] } })
        }
        7 => {
            json!({ "query_parameters": { "query_parameter_name": "q", "descriptor_key": "q", "skip_if_absent": random.chance(50) } })
        }
        8 => {
            json!({ "metadata": { "descriptor_key": "m", "source": "ROUTE_ENTRY", "metadata_key": { "key": "one", "path": [{ "key": "two" }] },
            "default_value": random.pick(&["", "default"]), "skip_if_absent": random.chance(50) } })
        }
        9 => json!({ "request_headers": { "header_name": ":path", "descriptor_key": "path" } }),
        _ => {
            json!({ "request_headers": { "header_name": "x-want-limit", "descriptor_key": "want", "skip_if_absent": random.chance(50) } })
        }
    }
}

fn policies(random: &mut Random, staged: bool) -> Value {
    let policy = |random: &mut Random| {
        let actions: Vec<Value> = (0..1 + random.below(3)).map(|_| action(random)).collect();
        let mut policy = json!({ "actions": actions });
        if staged && random.chance(30) {
            policy["stage"] = json!(random.below(2));
        }
        policy
    };
    (0..random.below(3)).map(|_| policy(random)).collect()
}

fn service(random: &mut Random) -> Value {
    let mut config = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": "domain", "timeout": "5s",
        "rate_limit_service": { "transport_api_version": "V3", "grpc_service": { "envoy_grpc": {
            "cluster_name": random.pick(&["limits-grpc", "limits-grpc", "limits-grpc", "limits-refused"]) } } } });
    let mut maybe = |percent: usize, more: Value| {
        if random.chance(percent) {
            merge(&mut config, more);
        }
    };
    maybe(30, json!({ "failure_mode_deny": true }));
    maybe(30, json!({ "rate_limited_as_resource_exhausted": true }));
    maybe(50, json!({ "enable_x_ratelimit_headers": "DRAFT_VERSION_03" }));
    maybe(20, json!({ "disable_x_envoy_ratelimited_header": true }));
    maybe(20, json!({ "rate_limited_status": { "code": "ServiceUnavailable" } }));
    maybe(30, json!({ "response_headers_to_add": [{ "header": { "key": "x-limited", "value": "yes" } }] }));
    maybe(10, json!({ "request_type": "internal" }));
    config
}

/// Two requests of each user, then no more.
fn local(random: &mut Random) -> Value {
    let bucket = |tokens: usize| json!({ "max_tokens": tokens, "fill_interval": "3600s" });
    let descriptor =
        |user: usize| json!({ "entries": [{ "key": "user", "value": format!("u{user}") }], "token_bucket": bucket(2) });
    // One that stands for each user, or one for each.
    let descriptors: Vec<Value> = match random.chance(50) {
        true => vec![json!({ "entries": [{ "key": "user" }], "token_bucket": bucket(2) })],
        false => (0..USERS).map(descriptor).collect(),
    };
    let always = json!({ "default_value": { "numerator": 100 } });
    json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "local", "token_bucket": bucket(100_000), "filter_enabled": always, "filter_enforced": always,
        "always_consume_default_token_bucket": random.chance(50),
        "rate_limits": [{ "actions": [{ "request_headers": { "header_name": "x-user", "descriptor_key": "user" } }] }],
        "max_dynamic_descriptors": USERS, "descriptors": descriptors })
}

fn per_route(random: &mut Random) -> Value {
    let mut own = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
        "vh_rate_limits": random.pick(&["OVERRIDE", "INCLUDE", "IGNORE"]) });
    if random.chance(30) {
        own["domain"] = json!("route");
    }
    if random.chance(30) {
        own["rate_limits"] = policies(random, false);
    }
    json!({ "envoy.filters.http.ratelimit": own })
}

fn request(random: &mut Random, user: usize) -> String {
    let path = random.pick(&["/a", "/a?q=1", "/b", "/c"]);
    let mut text = format!("GET {path} HTTP/1.1\r\nhost: limits.example\r\nx-test-id: @ID@\r\n");
    if random.chance(60) {
        text += &format!("x-user: u{user}\r\n");
    }
    if random.chance(70) {
        text += &format!("x-want-limit: {}\r\n", random.pick(&["ok", "over", "error", "headers"]));
    }
    for line in ["x-one: one", "content-type: application/grpc"] {
        if random.chance(30) {
            text += &format!("{line}\r\n");
        }
    }
    text + "\r\n"
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let route = |random: &mut Random, prefix: &str| {
        let mut route = json!({ "name": prefix, "match": { "prefix": prefix }, "route": { "cluster": "limits-one", "rate_limits": policies(random, true),
            "include_vh_rate_limits": random.chance(30) }, "metadata": { "filter_metadata": { "one": { random.pick(&["two", "other"]): "three" } } } });
        if random.chance(30) {
            route["typed_per_filter_config"] = per_route(random);
        }
        route
    };
    let routes = [route(random, "/a"), route(random, "/b"), route(random, "/c")];
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes, "rate_limits": policies(random, true) }]);
    let filters = vec![("local_ratelimit", local(random)), ("ratelimit", service(random))];
    let manager = manager::manager(hosts, manager::filters(filters), json!({}));
    let listener = plan.listener(manager::listener(manager));
    let (backends, services) = (&plan.setup.backends, &plan.setup.services);
    let addresses: [(&str, SocketAddr); 2] = [("limits-one", backends.plain[0]), ("limits-refused", backends.refused)];
    for (name, address) in addresses {
        plan.cluster(cluster(name, &[address], json!({})));
    }
    plan.cluster(cluster("limits-grpc", &[services.grpc], manager::http2()));
    for user in 0..PROBES {
        let one = request(random, user);
        let action = Action::Http1 { bytes: one.repeat(3), answers: 3 };
        plan.probe(Probe::new("limits", listener, Ipv4Addr::LOCALHOST, action), 0);
    }
}
