//! Filters that admit connections, and what they count: the same by our proxy and by Envoy.

use crate::static_proxy::{Proxy, any, cluster, http_listener, with_both};
use crate::support::{free_address, get};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

fn rules(stat_prefix: &str, action: &str, shadow: &str) -> Value {
    let all = |action: &str| json!({ "action": action, "policies": { "all": { "permissions": [{ "any": true }], "principals": [{ "any": true }] } } });
    let config = json!({ "stat_prefix": stat_prefix, "rules": all(action), "shadow_rules": all(shadow), "shadow_rules_stat_prefix": "dry_" });
    any("extensions.filters.network.rbac.v3.RBAC", config)
}

/// Asks a service that is not there.
fn service(stat_prefix: &str, open: bool) -> Value {
    let config = json!({ "stat_prefix": stat_prefix, "failure_mode_allow": open, "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "nobody" }, "timeout": "2s" } });
    any("extensions.filters.network.ext_authz.v3.ExtAuthz", config)
}

fn listener(at: SocketAddr, guard: &Value) -> Value {
    let echo = any("extensions.filters.network.echo.v3.Echo", json!({}));
    let address = json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } });
    json!({ "name": at.to_string(), "address": address, "filter_chains": [{ "filters": [
        { "name": "guard", "typed_config": guard }, { "name": "echo", "typed_config": echo }] }] })
}

/// The same rules over requests.
fn http(at: SocketAddr) -> Value {
    let all = json!({ "all": { "permissions": [{ "any": true }], "principals": [{ "any": true }] } });
    let config = json!({ "rules_stat_prefix": "own_", "rules": { "policies": all },
        "shadow_rules_stat_prefix": "dry_", "shadow_rules": { "action": "DENY", "policies": all } });
    let filter = json!({ "name": "rbac", "typed_config": any("extensions.filters.http.rbac.v3.RBAC", config) });
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 211 } });
    let hosts = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    http_listener(at, &[filter], json!({ "route_config": hosts }))
}

/// Whether a byte comes back.
fn echoes(at: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(at).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
}

fn counts(name: &'static str, dir: &Path) {
    let guards = [
        (rules("a", "ALLOW", "DENY"), true),
        (rules("b.", "DENY", "ALLOW"), false),
        (service("c", true), true),
        (service("d", false), false),
    ];
    let ports = guards.each_ref().map(|_| free_address());
    let requests = free_address();
    let of_connections = ports.iter().zip(&guards).map(|(at, (guard, _))| listener(*at, guard));
    let listeners = of_connections.chain([http(requests)]).collect();
    let http2 = json!({ "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
        any("extensions.upstreams.http.v3.HttpProtocolOptions", json!({ "explicit_http_config": { "http2_protocol_options": {} } })) } });
    let proxy = Proxy::start(name, dir, listeners, json!([cluster("nobody", free_address(), http2)]));
    for (at, (guard, admitted)) in ports.into_iter().zip(&guards) {
        assert_eq!(echoes(at), *admitted, "{name}: {guard}");
    }
    assert_eq!(get(requests, "a", "/").expect("an answer").status, 211, "{name}");
    for (counter, expected) in [
        ("http.h.rbac.own_.allowed", 1),
        ("http.h.rbac.own_.denied", 0),
        ("http.h.rbac.dry_.shadow_denied", 1),
        ("a.rbac.allowed", 1),
        ("a.rbac.denied", 0),
        ("a.rbac.dry_.shadow_allowed", 0),
        ("a.rbac.dry_.shadow_denied", 1),
        ("b.rbac.denied", 1),
        ("b.rbac.dry_.shadow_allowed", 1),
        ("ext_authz.c.total", 1),
        ("ext_authz.c.error", 1),
        ("ext_authz.c.failure_mode_allowed", 1),
        ("ext_authz.c.cx_closed", 0),
        ("ext_authz.c.active", 0),
        ("ext_authz.d.error", 1),
        ("ext_authz.d.failure_mode_allowed", 0),
        ("ext_authz.d.cx_closed", 1),
        ("ext_authz.d.ok", 0),
    ] {
        proxy.until_stat(counter, expected);
    }
}

#[test]
fn filters_that_admit_connections_count_as_envoys_do() {
    with_both(counts);
}
