//! External authorization, over gRPC and over HTTP, with rules in shadow that turn it on.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, merge};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

const LISTENERS: usize = 2;
const PROBES: usize = 40;
const KIND: &str = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3";

fn list(names: &[&str]) -> Value {
    json!({ "patterns": names.iter().map(|name| json!({ "exact": name, "ignore_case": true })).collect::<Vec<_>>() })
}

fn grpc(random: &mut Random) -> Value {
    let mut config = json!({ "grpc_service": { "timeout": "2s", "envoy_grpc": { "cluster_name": random.pick(&["authz-grpc", "authz-grpc", "authz-grpc", "authz-refused", "authz-absent"]) } } });
    if random.chance(30) {
        config["disallowed_headers"] = list(&["x-secret"]);
    }
    if random.chance(20) {
        config["allowed_headers"] = list(&["x-authz", "x-one", ":path"]);
    }
    config
}

fn http(random: &mut Random) -> Value {
    let mut service = json!({
        "server_uri": { "uri": "http://authz.example", "timeout": "2s", "cluster": random.pick(&["authz-http", "authz-http", "authz-http", "authz-refused"]) },
        "authorization_response": { "allowed_client_headers": list(&["x-down", "x-told"]) } });
    let mut maybe = |percent: usize, more: Value| {
        if random.chance(percent) {
            merge(&mut service, more);
        }
    };
    maybe(40, json!({ "path_prefix": "/check" }));
    maybe(30, json!({ "authorization_request": { "headers_to_add": [{ "key": "x-added", "value": "added" }] } }));
    maybe(80, json!({ "authorization_response": { "allowed_upstream_headers": list(&["x-told", "x-up"]) } }));
    maybe(30, json!({ "authorization_response": { "allowed_upstream_headers_to_append": list(&["x-one"]) } }));
    maybe(40, json!({ "authorization_response": { "allowed_client_headers_on_success": list(&["x-both"]) } }));
    json!({ "http_service": service, "allowed_headers": list(&["x-authz", "x-two"]) })
}

fn authorization(random: &mut Random) -> Value {
    let mut config = if random.chance(60) { grpc(random) } else { http(random) };
    config["@type"] = json!(format!("{KIND}.ExtAuthz"));
    config["transport_api_version"] = json!("V3");
    let mut maybe = |percent: usize, more: Value| {
        if random.chance(percent) {
            merge(&mut config, more);
        }
    };
    maybe(30, json!({ "failure_mode_allow": true }));
    maybe(50, json!({ "failure_mode_allow_header_add": true }));
    maybe(50, json!({ "clear_route_cache": true }));
    maybe(30, json!({ "status_on_error": { "code": "ServiceUnavailable" } }));
    maybe(20, json!({ "max_denied_response_body_bytes": 4 }));
    maybe(30, json!({ "metadata_context_namespaces": ["envoy.filters.http.rbac", "absent"] }));
    maybe(40, json!({ "with_request_body": { "max_request_bytes": 8 } }));
    let with_body = config.get("with_request_body").is_some();
    if with_body && random.chance(60) {
        config["with_request_body"]["allow_partial_message"] = json!(true);
    }
    config
}

fn shadow(random: &mut Random) -> Value {
    json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "shadow_rules_stat_prefix": "istio_ext_authz_",
        "shadow_rules": { "action": "DENY", "policies": { "istio-ext-authz-ns[a]-policy[b]-rule[0]": {
            "permissions": [{ "url_path": { "path": { "prefix": random.pick(&["/a", "/"]) } } }], "principals": [{ "any": true }] } } } })
}

fn enabled(config: &mut Value) {
    config["filter_enabled_metadata"] = json!({ "filter": "envoy.filters.http.rbac",
        "path": [{ "key": "istio_ext_authz_shadow_effective_policy_id" }], "value": { "string_match": { "prefix": "istio-ext-authz" } } });
}

fn per_route(random: &mut Random) -> Value {
    let mut own = match random.below(3) {
        0 => json!({ "disabled": true }),
        1 => {
            json!({ "check_settings": { "context_extensions": { "route": "c" }, "disable_request_body_buffering": true } })
        }
        _ => json!({ "check_settings": { "context_extensions": { "route": "c" } } }),
    };
    own["@type"] = json!(format!("{KIND}.ExtAuthzPerRoute"));
    json!({ "envoy.filters.http.ext_authz": own })
}

fn request(random: &mut Random) -> String {
    let method = random.pick(&["GET", "POST", "POST", "HEAD"]);
    let path = random.pick(&["/a?q=1&r=2", "/b", "/c", "/c?r=1"]);
    let words = ["ok", "deny", "login", "bare", "deny,bare", "remove", "query", "path", "metadata", "error"];
    let mut chosen = random.some(&words, 15).join(",");
    if random.chance(3) {
        chosen += ",slow";
    }
    let mut text =
        format!("{method} {path} HTTP/1.1\r\nhost: authz.example\r\nx-test-id: @ID@\r\nx-authz: {chosen}\r\n");
    for line in [
        "x-one: one",
        "x-two: two",
        "x-three: three",
        "x-four: four",
        "x-gone: gone",
        "x-secret: s",
        "authorization: Basic eA==",
        "content-type: application/grpc",
    ] {
        if random.chance(30) {
            text += &format!("{line}\r\n");
        }
    }
    match method {
        "POST" if random.chance(30) => {
            text + "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        }
        "POST" if random.chance(50) => text + "content-length: 5\r\n\r\nhello",
        "POST" => text + "content-length: 11\r\n\r\nhello world",
        _ => text + "\r\n",
    }
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    for _ in 0..LISTENERS {
        add_listener(plan, random);
    }
    let (backends, services) = (&plan.setup.backends, &plan.setup.services);
    let addresses: [(&str, SocketAddr); 4] = [
        ("authz-one", backends.plain[0]),
        ("authz-two", backends.plain[1]),
        ("authz-http", services.http),
        ("authz-refused", backends.refused),
    ];
    for (name, address) in addresses {
        plan.cluster(cluster(name, &[address], json!({})));
    }
    plan.cluster(cluster("authz-grpc", &[services.grpc], manager::http2()));
}

fn add_listener(plan: &mut Plan<'_>, random: &mut Random) {
    let mut config = authorization(random);
    let mut filters = Vec::new();
    if random.chance(40) {
        filters.push(("rbac", shadow(random)));
        if random.chance(70) {
            enabled(&mut config);
        }
    }
    filters.push(("ext_authz", config));
    let mut routes = vec![
        json!({ "name": "changed", "match": { "path": "/changed" }, "route": { "cluster": "authz-two" } }),
        json!({ "name": "by-header", "match": { "prefix": "/", "headers": [{ "name": "x-up", "present_match": true }] }, "route": { "cluster": "authz-two" } }),
    ];
    let mut c = json!({ "name": "c", "match": { "prefix": "/c" }, "route": { "cluster": "authz-one" } });
    if random.chance(60) {
        c["typed_per_filter_config"] = per_route(random);
    }
    routes.push(c);
    routes.push(json!({ "name": "rest", "match": { "prefix": "/" }, "route": { "cluster": "authz-one" } }));
    let hosts = json!([{ "name": "all", "domains": ["*"], "routes": routes }]);
    let manager = manager::manager(hosts, manager::filters(filters), json!({}));
    let listener = plan.listener(manager::listener(manager));
    for _ in 0..PROBES {
        let action = Action::Http1 { bytes: request(random), answers: 1 };
        plan.probe(Probe::new("authz", listener, Ipv4Addr::LOCALHOST, action), 0);
    }
}
