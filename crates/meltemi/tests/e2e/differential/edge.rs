//! What a connection manager makes of a request before it is routed: paths, hosts, forwarding headers, limits; and which host a
//! retry goes to.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, merge};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const PROBES: usize = 40;

const PATHS: &[&str] = &[
    "/a/b",
    "/a%2Fb",
    "/a%2fb?x=%2F",
    "/a%00b",
    "/a%5Cb",
    "/a\\b",
    "/a//b",
    "/a/../b",
    "/a/%2e%2e/b",
    "/a%2F../b",
    "/%61/b",
    "/a/b/",
    "/q?kind=one&kind=two",
    "/q?kind",
    "/q?other=1",
];
const HOSTS: &[&str] = &["edge.example", "edge.example:80", "edge.example.", "EDGE.example", "edge.example.:8080"];
const FORWARDED: &[&str] = &["7.1.1.1", "7.1.1.1, 10.0.0.1", "10.1.1.1", "7.1.1.1,8.1.1.1,9.1.1.1", "nobody"];

fn settings(random: &mut Random) -> Value {
    let mut settings = json!({
        "normalize_path": random.chance(60),
        "merge_slashes": random.chance(40),
        "path_with_escaped_slashes_action":
            random.pick(&["KEEP_UNCHANGED", "UNESCAPE_AND_FORWARD"]),
        "use_remote_address": random.chance(50),
        "xff_num_trusted_hops": random.below(3),
        "common_http_protocol_options": {
            "headers_with_underscores_action": random.pick(&["ALLOW", "DROP_HEADER"]),
        },
    });
    for (key, value) in [
        ("skip_xff_append", json!(true)),
        ("append_x_forwarded_port", json!(true)),
        ("via", json!("edge")),
        ("scheme_header_transformation", json!({ "scheme_to_overwrite": "https" })),
        ("preserve_external_request_id", json!(true)),
        ("generate_request_id", json!(false)),
        ("strip_trailing_host_dot", json!(true)),
        ("max_request_headers_kb", json!(2)),
    ] {
        if random.chance(30) {
            settings[key] = value;
        }
    }
    match random.below(3) {
        0 => settings["strip_any_host_port"] = json!(true),
        1 => settings["strip_matching_host_port"] = json!(true),
        _ => {}
    }
    if random.chance(30) {
        merge(&mut settings, json!({ "common_http_protocol_options": { "max_headers_count": 12 } }));
    }
    settings
}

fn routes(random: &mut Random) -> Value {
    let to = |name: &str, matched: Value| json!({ "name": name, "match": matched, "route": { "cluster": "edge-one" } });
    let mut again = json!({ "name": "again", "match": { "prefix": "/again" }, "route": {
        "cluster": "edge-many",
        "hash_policy": [{ "header": { "header_name": "x-key" } }],
        "retry_policy": {
            "retry_on": random.pick(&["5xx", "retriable-headers", "gateway-error,retriable-headers"]),
            "num_retries": 1 + random.below(3),
            "retriable_headers": [{ "name": "x-backend-header", "string_match": { "exact": random.pick(&["original", "other"]) } }],
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" },
        } } });
    if random.chance(60) {
        let predicate = json!({ "name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" } });
        let retry = json!({ "retry_host_predicate": [predicate], "host_selection_retry_max_attempts": "5" });
        merge(&mut again["route"]["retry_policy"], retry);
    }
    if random.chance(30) {
        again["route"]["retry_policy"]["retriable_request_headers"] =
            json!([{ "name": "x-again", "present_match": true }]);
    }
    let kind = random.pick(&["one", "two"]);
    json!([
        again,
        to(
            "query",
            json!({ "path": "/q", "query_parameters": [{ "name": "kind", "string_match": { "exact": kind } }] })
        ),
        to("cookie", json!({ "prefix": "/", "cookies": [{ "name": "mine", "string_match": { "prefix": "y" } }] })),
        to("a", json!({ "prefix": "/a" })),
        to("b", json!({ "path": "/b" })),
        to("rest", json!({ "prefix": "/" })),
    ])
}

fn request(random: &mut Random) -> String {
    let again = random.chance(25);
    let path = if again { "/again" } else { random.pick(PATHS) };
    let mut text = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nx-test-id: @ID@\r\n", random.pick(HOSTS));
    if again {
        text += &format!("x-key: {}\r\n", random.below(50));
        text += random.pick(&["x-want: fail=1\r\n", "x-want: fail=2\r\n", "x-want: status=502\r\n", ""]);
    }
    if random.chance(50) {
        text += &format!("x-forwarded-for: {}\r\n", random.pick(FORWARDED));
    }
    for line in [
        "x-again: yes",
        "x_odd: one",
        "cookie: mine=yes; other=1",
        "cookie: mine=no",
        "x-forwarded-proto: https",
        "x-request-id: 0b5fb5a4-6d3c-4c4b-8a5e-0c2a4a0e7a01",
        "via: 1.1 before",
    ] {
        if random.chance(20) {
            text += &format!("{line}\r\n");
        }
    }
    if random.chance(15) {
        text += &format!("x-long: {}\r\n", "v".repeat(3000));
    }
    if random.chance(15) {
        text += &"x-many: v\r\n".repeat(15);
    }
    text + "\r\n"
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let domain = random.pick(&["*", "edge.example"]);
    let hosts = json!([{ "name": "edge", "domains": [domain], "routes": routes(random) }]);
    let manager = manager::manager(hosts, manager::filters(Vec::new()), settings(random));
    let listener = plan.listener(manager::listener(manager));
    let backends = &plan.setup.backends.plain;
    let policy = random.pick(&["RING_HASH", "MAGLEV"]);
    let clusters = [
        cluster("edge-one", &backends[..1], json!({})),
        cluster(
            "edge-many",
            &backends[..4],
            json!({ "lb_policy": policy,
            "circuit_breakers": { "thresholds": [{ "max_retries": 1000 }] } }),
        ),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..PROBES {
        let action = Action::Http1 { bytes: request(random), answers: 1 };
        plan.probe(Probe::new("edge", listener, Ipv4Addr::LOCALHOST, action), random.below(3) as u8);
    }
}
