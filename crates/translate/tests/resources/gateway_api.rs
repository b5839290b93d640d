//! Routes of the Gateway API as Envoy gets them: where they differ from VirtualServices that say the same.

use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, service, sidecar};

const B: &str = "outbound|80||b.default.svc.cluster.local";

fn route(namespace: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: {namespace}}}\n\
         spec:\n  parentRefs: [{{group: '', kind: Service, name: a, namespace: default}}]\n  rules:\n{rules}\n"
    )
}

fn mesh(namespace: &str, rules: &str) -> Mesh {
    let services = service("a", "10.1.0.1", 80, "http") + &service("b", "10.1.0.2", 80, "http");
    Mesh::new(&(services + &route(namespace, rules)))
}

/// The first route of service `a` on port 80 under these rules.
fn first_route(rules: &str) -> Value {
    mesh("default", rules).routes(&sidecar(), "80", "a").remove(0)
}

fn check(rules: &str, expected: &[(&str, Value)]) {
    let route = first_route(rules);
    for (path, value) in expected {
        assert_eq!(at(&route, path), value, "{path} of\n{rules}\n{route:#}");
    }
}

const TO_B: &str = "backendRefs: [{name: b, port: 80}]";

#[test]
fn prefixes_are_of_segments_and_missing_backends_are_500() {
    let at_path = |path: &str| format!("  - {{matches: [{{path: {path}}}], {TO_B}}}");
    check(
        &at_path("{value: /x/}"),
        &[
            ("name", json!("default.r.0")),
            ("match.path_separated_prefix", json!("/x")),
            ("route.cluster", json!(B)),
            ("route.cluster_not_found_response_code", json!("INTERNAL_SERVER_ERROR")),
        ],
    );
    check(&at_path("{value: /}"), &[("match.prefix", json!("/"))]);
    check(&at_path("{type: Exact, value: /x}"), &[("match.path", json!("/x"))]);
    check("  - {}", &[("direct_response.status", json!(500))]);
}

#[test]
fn a_prefix_can_be_replaced_by_nothing() {
    let rewritten = |to: &str| {
        format!(
            "  - matches: [{{path: {{value: /x.y}}}}]\n    filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: {to}}}}}}}]\n    {TO_B}"
        )
    };
    check(&rewritten("/z/"), &[("route.prefix_rewrite", json!("/z"))]);
    let rewrite = json!({"pattern": {"regex": r"^/x\.y(/?)(.*)"}, "substitution": r"/\2"});
    check(&rewritten("/"), &[("route.regex_rewrite", rewrite.clone()), ("route.prefix_rewrite", Value::Null)]);
    check(&rewritten("''"), &[("route.regex_rewrite", rewrite)]);
}

#[test]
fn retries_timeouts_and_mirrors_are_as_asked() {
    let rules = format!(
        "  - timeouts: {{request: 10s, backendRequest: 2s}}\n    retry: {{codes: [500, 503], attempts: 3, backoff: 100ms}}\n    \
         filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: b, port: 80}}, fraction: {{numerator: 1, denominator: 8}}}}}}]\n    {TO_B}"
    );
    check(
        &rules,
        &[
            ("route.timeout", json!("10s")),
            ("route.retry_policy.num_retries", json!(3)),
            ("route.retry_policy.per_try_timeout", json!("2s")),
            ("route.retry_policy.retry_back_off.base_interval", json!("0.100s")),
            ("route.retry_policy.retriable_status_codes", json!([500, 503])),
            ("route.request_mirror_policies.0.cluster", json!(B)),
            ("route.request_mirror_policies.0.runtime_fraction.default_value.numerator", json!(125_000)),
        ],
    );
}

/// A route counts for everyone where it is of the service's namespace, else for the clients of its own.
#[test]
fn a_consumer_s_route_is_for_its_own_namespace() {
    let client = |namespace: &str| node("sidecar", json!({"NAMESPACE": namespace, "LABELS": {"app": "client"}}));
    let domain = "a.default.svc.cluster.local";
    for (route, client_namespace, counts) in
        [("default", "other", true), ("other", "other", true), ("other", "default", false), ("other", "third", false)]
    {
        let rules = "  - backendRefs: [{name: b, namespace: default, port: 80}]";
        let routes = mesh(route, rules).routes(&client(client_namespace), "80", domain);
        let found = at(&routes[0], "route.cluster") == B;
        assert_eq!(found, counts, "a route in {route} for a client in {client_namespace}");
    }
}
