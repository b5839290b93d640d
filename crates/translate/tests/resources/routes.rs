use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, rule, service, sidecar};

/// The first route of service `a` on port 80 under a rule.
fn first_route(spec: &str) -> Value {
    let documents = service("a", "10.1.0.1", 80, "http") + &service("b", "10.1.0.2", 80, "http") + &rule(spec);
    Mesh::new(&documents).routes(&sidecar(), "80", "a").remove(0)
}

fn check(spec: &str, expected: &[(&str, Value)]) {
    let route = first_route(spec);
    for (path, value) in expected {
        assert_eq!(at(&route, path), value, "{path} of\n{spec}\n{route:#}");
    }
}

const TO_B: &str = "route: [{destination: {host: b}}]";
const B: &str = "outbound|80||b.default.svc.cluster.local";

#[test]
fn matches_are_envoy_s() {
    let matched = |matches: &str| format!("http:\n- match: [{matches}]\n  {TO_B}");
    check(&matched("{uri: {exact: /x}}"), &[("match.path", json!("/x")), ("match.case_sensitive", json!(true))]);
    check(
        &matched("{uri: {prefix: /x}, ignoreUriCase: true}"),
        &[("match.prefix", json!("/x")), ("match.case_sensitive", json!(false))],
    );
    check(&matched("{uri: {regex: '/x.*'}}"), &[("match.safe_regex.regex", json!("/x.*"))]);
    check(
        &matched(
            "{headers: {b: {exact: v}, a: {}}, method: {exact: GET}, authority: {prefix: x}, scheme: {exact: http}}",
        ),
        &[
            ("match.headers.0", json!({"name": "a", "present_match": true})),
            ("match.headers.1", json!({"name": "b", "string_match": {"exact": "v"}})),
            ("match.headers.2.name", json!(":method")),
            ("match.headers.3.string_match.prefix", json!("x")),
            ("match.headers.4.name", json!(":scheme")),
        ],
    );
    check(
        &matched("{withoutHeaders: {a: {exact: v}, b: {}}}"),
        &[
            ("match.headers.0.invert_match", json!(true)),
            ("match.headers.0.treat_missing_header_as_empty", json!(true)),
            ("match.headers.1", json!({"name": "b", "invert_match": true, "present_match": true})),
        ],
    );
    check(
        &matched("{queryParams: {q: {exact: '1'}, p: {}}, statPrefix: s, name: m}"),
        &[
            ("match.query_parameters.0", json!({"name": "p", "present_match": true})),
            ("match.query_parameters.1.string_match.exact", json!("1")),
            ("stat_prefix", json!("s")),
            ("name", json!(".m")),
        ],
    );
}

#[test]
fn a_match_that_is_not_for_this_client_is_left_out() {
    for other in ["{port: 81}", "{sourceLabels: {app: other}}", "{sourceNamespace: other}", "{gateways: [default/g]}"] {
        let spec = format!(
            "gateways: [mesh, g]\nhttp:\n- match: [{other}]\n  {TO_B}\n- route: [{{destination: {{host: a}}}}]"
        );
        let route = first_route(&spec);
        assert_eq!(at(&route, "route.cluster"), "outbound|80||a.default.svc.cluster.local", "{other}");
    }
    let own = "{port: 80, sourceLabels: {app: client}, sourceNamespace: default}";
    check(&format!("http:\n- match: [{own}]\n  {TO_B}"), &[("route.cluster", json!(B))]);
}

#[test]
fn nothing_follows_a_match_of_everything() {
    let spec = format!("http:\n- match: [{{uri: {{prefix: /}}}}]\n  {TO_B}\n- {TO_B}\n");
    let documents = service("a", "10.1.0.1", 80, "http") + &service("b", "10.1.0.2", 80, "http") + &rule(&spec);
    assert_eq!(Mesh::new(&documents).routes(&sidecar(), "80", "a").len(), 1);
}

#[test]
fn a_plain_route_has_istio_s_defaults() {
    check(
        &format!("http:\n- name: named\n  {TO_B}"),
        &[
            ("name", json!("named")),
            ("route.cluster", json!(B)),
            ("route.timeout", json!("0s")),
            ("route.max_grpc_timeout", json!("0s")),
            ("route.retry_policy.num_retries", json!(2)),
            ("route.retry_policy.host_selection_retry_max_attempts", json!("5")),
            ("decorator.operation", json!("b.default.svc.cluster.local:80/*")),
            (
                "metadata.filter_metadata.istio.config",
                json!("/apis/networking.istio.io/v1/namespaces/default/virtual-service/r"),
            ),
        ],
    );
}

#[test]
fn weights_and_headers_go_to_the_clusters() {
    let spec = "http:\n- route:\n  - {destination: {host: a, subset: v1}, weight: 90, headers: {request: {set: {x: '1'}}}}\n  \
                - {destination: {host: b}, weight: 10}\n  headers: {response: {remove: [gone], add: {z: '2'}}}";
    check(
        spec,
        &[
            ("route.weighted_clusters.clusters.0.name", json!("outbound|80|v1|a.default.svc.cluster.local")),
            ("route.weighted_clusters.clusters.0.weight", json!(90)),
            ("route.weighted_clusters.clusters.0.request_headers_to_add.0.header", json!({"key": "x", "value": "1"})),
            (
                "route.weighted_clusters.clusters.0.request_headers_to_add.0.append_action",
                json!("OVERWRITE_IF_EXISTS_OR_ADD"),
            ),
            ("route.weighted_clusters.clusters.1.weight", json!(10)),
            ("response_headers_to_remove", json!(["gone"])),
            ("response_headers_to_add.0.header.key", json!("z")),
            ("decorator.operation", json!("r:80/*")),
        ],
    );
}

#[test]
fn rewrites_redirects_and_direct_responses() {
    let http = |action: &str| format!("http:\n- match: [{{uri: {{prefix: /x}}}}]\n  {action}");
    check(
        &http(&format!("rewrite: {{uri: /y, authority: h}}\n  {TO_B}")),
        &[("route.prefix_rewrite", json!("/y")), ("route.host_rewrite_literal", json!("h"))],
    );
    check(
        &http(&format!("rewrite: {{uriRegexRewrite: {{match: '^/x/(.*)', rewrite: '/\\1'}}}}\n  {TO_B}")),
        &[
            ("route.regex_rewrite.pattern.regex", json!("^/x/(.*)")),
            ("route.regex_rewrite.substitution", json!("/\\1")),
        ],
    );
    check(
        &http("redirect: {uri: /z, authority: h, port: 8443, scheme: https, redirectCode: 308}"),
        &[
            ("redirect.path_redirect", json!("/z")),
            ("redirect.host_redirect", json!("h")),
            ("redirect.port_redirect", json!(8443)),
            ("redirect.scheme_redirect", json!("https")),
            ("redirect.response_code", json!("PERMANENT_REDIRECT")),
        ],
    );
    check(&http("redirect: {authority: h, scheme: https, port: 443}"), &[("redirect.port_redirect", Value::Null)]);
    check(
        &http("directResponse: {status: 418, body: {string: tea}}"),
        &[("direct_response.status", json!(418)), ("direct_response.body.inline_string", json!("tea"))],
    );
}

#[test]
fn timeouts_retries_faults_mirrors_and_cors() {
    let http = |setting: &str| format!("http:\n- {setting}\n  {TO_B}");
    check(&http("timeout: 1.5s"), &[("route.timeout", json!("1.500s")), ("route.max_grpc_timeout", json!("1.500s"))]);
    check(
        &http("retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx,429', backoff: 10ms}"),
        &[
            ("route.retry_policy.num_retries", json!(3)),
            ("route.retry_policy.retry_on", json!("5xx,retriable-status-codes")),
            ("route.retry_policy.retriable_status_codes", json!([429])),
            ("route.retry_policy.retry_back_off.base_interval", json!("0.010s")),
        ],
    );
    check(&http("retries: {attempts: 0}"), &[("route.retry_policy", Value::Null)]);
    let fault = "fault: {delay: {percentage: {value: 0.5}, fixedDelay: 5s}, abort: {percentage: {value: 100}, httpStatus: 503}}";
    let filter = "typed_per_filter_config";
    let route = first_route(&http(fault));
    let config = &route[filter]["envoy.filters.http.fault"];
    assert_eq!(at(config, "delay.percentage"), &json!({"numerator": 5000, "denominator": "MILLION"}), "{route:#}");
    assert_eq!(at(config, "delay.fixed_delay"), "5s");
    assert_eq!(at(config, "abort.http_status"), 503);
    check(
        &http("mirror: {host: a}\n  mirrorPercentage: {value: 10}"),
        &[
            ("route.request_mirror_policies.0.cluster", json!("outbound|80||a.default.svc.cluster.local")),
            ("route.request_mirror_policies.0.runtime_fraction.default_value.numerator", json!(100_000)),
            ("route.request_mirror_policies.0.disable_shadow_host_suffix_append", json!(true)),
        ],
    );
    check(
        &http("mirror: {host: a}\n  mirrorPercentage: {value: 0}"),
        &[("route.request_mirror_policies", Value::Null)],
    );
    let cors =
        "corsPolicy: {allowOrigins: [{exact: o}], allowMethods: [GET, PUT], maxAge: 24h, unmatchedPreflights: IGNORE}";
    let route = first_route(&http(cors));
    let config = &route[filter]["envoy.filters.http.cors"];
    assert_eq!(at(config, "allow_methods"), "GET,PUT", "{route:#}");
    assert_eq!(at(config, "max_age"), "86400");
    assert_eq!(at(config, "forward_not_matching_preflights"), false);
}

#[test]
fn consistent_hash_comes_from_the_destination_rule() {
    let destination_rule = |hash: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d, namespace: default}}\n\
             spec: {{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {hash}}}}}}}\n"
        )
    };
    let cases = [
        ("{httpHeaderName: x}", json!({"header": {"header_name": "x"}})),
        ("{httpCookie: {name: c, ttl: 0s, path: /p}}", json!({"cookie": {"name": "c", "ttl": "0s", "path": "/p"}})),
        ("{useSourceIp: true}", json!({"connection_properties": {"source_ip": true}})),
        ("{httpQueryParameterName: q}", json!({"query_parameter": {"name": "q"}})),
    ];
    for (hash, expected) in cases {
        let plain = service("a", "10.1.0.1", 80, "http") + &destination_rule(hash);
        let ruled = plain.clone() + &rule("http: [{route: [{destination: {host: a}}]}]");
        for (documents, is_ruled) in [(plain, false), (ruled, true)] {
            let route = Mesh::new(&documents).routes(&sidecar(), "80", "a").remove(0);
            assert_eq!(at(&route, "route.hash_policy.0"), &expected, "{hash}");
            let predicates = at(&route, "route.retry_policy.retry_host_predicate");
            assert_eq!(predicates.is_null(), is_ruled, "with a rule the same host is wanted again, as by Istio");
        }
    }
}

#[test]
fn domains_are_istio_s_and_what_nothing_claims_follows_the_policy() {
    let documents = service("a", "10.1.0.1", 80, "http");
    let config = Mesh::new(&documents).resource(&sidecar(), meltemi_translate::type_urls::ROUTE, "80");
    assert_eq!(
        at(&config, "virtual_hosts.0.domains"),
        &json!([
            "a.default.svc.cluster.local",
            "a.default.svc.cluster.local.",
            "a",
            "a.default.svc",
            "a.default",
            "10.1.0.1"
        ])
    );
    assert_eq!(at(&config, "virtual_hosts.0.name"), "a.default.svc.cluster.local:80");
    assert_eq!(at(&config, "virtual_hosts.1.name"), "allow_any");
    assert_eq!(at(&config, "virtual_hosts.1.routes.0.route.cluster"), "PassthroughCluster");
    assert_eq!(at(&config, "ignore_port_in_host_matching"), true);
    assert_eq!(at(&config, "max_direct_response_body_size_bytes"), 1_048_576);
    let closed = Mesh::with_config("{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", &documents);
    let config = closed.resource(&sidecar(), meltemi_translate::type_urls::ROUTE, "80");
    assert_eq!(at(&config, "virtual_hosts.1.name"), "block_all");
    assert_eq!(at(&config, "virtual_hosts.1.routes.0.direct_response.status"), 502);
}

#[test]
fn a_sniffed_service_has_a_route_of_its_own() {
    let mesh = Mesh::new(&service("a", "10.1.0.1", 80, "web"));
    let config = mesh.resource(&sidecar(), meltemi_translate::type_urls::ROUTE, "a.default.svc.cluster.local:80");
    assert_eq!(at(&config, "virtual_hosts.0.domains"), &json!(["*"]));
    assert_eq!(config["virtual_hosts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_proxyless_client_gets_plain_routes_by_host_and_port() {
    let mesh = Mesh::new(&service("a", "10.1.0.1", 80, "grpc"));
    let grpc = node("sidecar", json!({"GENERATOR": "grpc", "DIALECT": ""}));
    for name in ["a.default.svc.cluster.local:80", "a:80", "a.default:80", "a"] {
        let listener = mesh.listener(&grpc, name);
        assert_eq!(listener["name"], name);
        let rds = at(&listener, "api_listener.api_listener.rds.route_config_name");
        assert_eq!(rds, "a.default.svc.cluster.local:80");
    }
    let unserved = "xds.istio.io/grpc/lds/inbound/0.0.0.0:80";
    assert_eq!(mesh.find(&grpc, meltemi_translate::type_urls::LISTENER, unserved), None);
    let config = mesh.resource(&grpc, meltemi_translate::type_urls::ROUTE, "a.default.svc.cluster.local:80");
    let route = at(&config, "virtual_hosts.0.routes.0.route");
    assert_eq!(route["max_stream_duration"]["max_stream_duration"], "0s");
    assert_eq!(route["max_grpc_timeout"], Value::Null);
}

#[test]
fn a_route_that_the_proxy_asks_for_in_vain_is_empty_or_absent() {
    let mesh = Mesh::new(&service("a", "10.1.0.1", 80, "http"));
    let unused = mesh.resource(&sidecar(), meltemi_translate::type_urls::ROUTE, "9999");
    assert_eq!(at(&unused, "virtual_hosts.0.name"), "allow_any");
    let gone = mesh.resource(&sidecar(), meltemi_translate::type_urls::ROUTE, "gone.default.svc.cluster.local:80");
    assert_eq!(gone["virtual_hosts"], Value::Null);
    assert_eq!(mesh.find(&sidecar(), meltemi_translate::type_urls::ROUTE, "http.80"), None);
}
