//! What ResiliencePolicies make of routes and clusters.

use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, rule, service, sidecar};

fn policy(spec: &str) -> String {
    format!(
        "---\napiVersion: meltemi.io/v1alpha1\nkind: ResiliencePolicy\n\
         metadata: {{name: calm, namespace: default}}\nspec: {spec}\n"
    )
}

fn destination_rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, namespace: default}}\n\
         spec: {{host: a, trafficPolicy: {policy}}}\n"
    )
}

fn mesh(more: &[String]) -> Mesh {
    Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &service("b", "10.1.0.2", 80, "http") + &more.concat()))
}

fn cluster(mesh: &Mesh) -> Value {
    mesh.resource(&sidecar(), type_urls::CLUSTER, "outbound|80||a.default.svc.cluster.local")
}

/// Of each route: the pattern of its method, what it retries, and how often.
fn retries(routes: &[Value]) -> Vec<(&str, &str, u64)> {
    let of = |route: &'_ Value, path: &str| at(route, path).as_str().unwrap_or_default().to_owned().leak() as &str;
    let headers = |route: &Value| route["match"]["headers"].as_array().map_or(0, Vec::len);
    routes
        .iter()
        .map(|route| {
            let last = headers(route).saturating_sub(1);
            let method = of(route, &format!("match.headers.{last}.string_match.safe_regex.regex"));
            let retries = at(route, "route.retry_policy.num_retries").as_u64().unwrap_or_default();
            (method, of(route, "route.retry_policy.retry_on"), retries)
        })
        .collect()
}

const METHODS: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";
const REPEATABLE: &str = "gateway-error,reset,reset-before-request,connect-failure,refused-stream";
const UNSEEN: &str = "reset-before-request,connect-failure,refused-stream";
const ISTIO: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";

#[test]
fn idempotent_methods_have_a_route_of_their_own() {
    let on = policy("{automaticRetries: {maxAttempts: 4}}");
    let routes = mesh(&[on]).routes(&sidecar(), "80", "a");
    assert_eq!(retries(&routes), [(METHODS, REPEATABLE, 3), ("", UNSEEN, 3)]);
    assert_eq!(at(&routes[0], "match.headers.0.name"), ":method");
    for route in &routes {
        assert_eq!(at(route, "route.cluster"), "outbound|80||a.default.svc.cluster.local");
        assert_eq!(at(route, "name"), "default");
        assert_eq!(at(route, "metadata.filter_metadata")["meltemi.automatic_retries"]["policy"], "default/calm");
        let predicate = "route.retry_policy.retry_host_predicate.0.name";
        assert_eq!(at(route, predicate), "envoy.retry_host_predicates.previous_hosts");
    }
    let once = mesh(&[policy("{automaticRetries: {maxAttempts: 1}}")]).routes(&sidecar(), "80", "a");
    assert_eq!(retries(&once), [(METHODS, "", 0), ("", "", 0)]);
}

#[test]
fn each_rule_is_split_in_its_place_and_its_own_retries_stay() {
    let rules = rule(
        "http:\n- match: [{headers: {x: {exact: v}}}]\n  route: [{destination: {host: a}}]\n\
         - match: [{uri: {prefix: /own}}]\n  route: [{destination: {host: a}}]\n  retries: {attempts: 7, retryOn: 5xx}\n\
         - match: [{uri: {prefix: /none}}]\n  route: [{destination: {host: a}}]\n  retries: {attempts: 0}\n\
         - match: [{uri: {prefix: /moved}}]\n  redirect: {uri: /}\n\
         - match: [{uri: {prefix: /both}}]\n  route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 1}]\n\
         - route: [{destination: {host: a}}]",
    );
    let routes = mesh(&[rules.clone(), policy("{hosts: [a], automaticRetries: {}}")]).routes(&sidecar(), "80", "a");
    let split = [(METHODS, REPEATABLE, 2), ("", UNSEEN, 2)];
    let expected = [split[0], split[1], ("", "5xx", 7), ("", "", 0), ("", "", 0), ("", ISTIO, 2), split[0], split[1]];
    assert_eq!(retries(&routes), expected);
    // Where every destination has it, so has the route to several.
    let routes = mesh(&[rules, policy("{hosts: [a, b], automaticRetries: {}}")]).routes(&sidecar(), "80", "a");
    assert_eq!(retries(&routes)[5..7], split);
}

#[test]
fn a_proxyless_client_keeps_its_plain_route() {
    let grpc = node("sidecar", json!({"GENERATOR": "grpc", "DIALECT": ""}));
    let on = policy("{automaticRetries: {}, adaptiveLoadBalancing: {}, anomalyDetection: {}}");
    let name = "outbound|80||a.default.svc.cluster.local";
    for url in [type_urls::ROUTE, type_urls::CLUSTER] {
        assert_eq!(mesh(std::slice::from_ref(&on)).find(&grpc, url, name), mesh(&[]).find(&grpc, url, name));
    }
}

#[test]
fn the_budget_is_the_cluster_s_unless_the_rule_has_a_limit() {
    let on = policy("{automaticRetries: {budget: {percent: 10, minConcurrency: 1}}}");
    let budget = |more: &[String]| at(&cluster(&mesh(more)), "circuit_breakers.thresholds.0.retry_budget").clone();
    let own = json!({"budget_percent": {"value": 10}, "min_retry_concurrency": 1});
    assert_eq!(budget(std::slice::from_ref(&on)), own);
    let default = json!({"budget_percent": {"value": 20}, "min_retry_concurrency": 3});
    assert_eq!(budget(&[policy("{automaticRetries: {}}")]), default);
    assert_eq!(budget(&[]), Value::Null);
    assert_eq!(budget(&[policy("{automaticRetries: {enabled: false}}")]), Value::Null);
    let rule = destination_rule("{retryBudget: {percent: 33, minRetryConcurrency: 5}}");
    assert_eq!(budget(&[on.clone(), rule])["min_retry_concurrency"], 5);
    let rule = destination_rule("{connectionPool: {http: {maxRetries: 9}}}");
    assert_eq!(budget(&[on, rule]), Value::Null);
}

#[test]
fn adaptive_balancing_is_peak_ewma_else_least_request_unless_the_rule_chooses() {
    let on = policy("{adaptiveLoadBalancing: {windowSize: 5m}}");
    let found = cluster(&mesh(std::slice::from_ref(&on)));
    let policies = |found: &Value| at(found, "load_balancing_policy.policies").as_array().cloned().unwrap_or_default();
    let types: Vec<_> =
        policies(&found).iter().map(|own| at(own, "typed_extension_config.typed_config.@type").clone()).collect();
    let url = |name: &str| format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
    assert_eq!(types, [url("peak_ewma.v3alpha.PeakEwma"), url("least_request.v3.LeastRequest")]);
    assert_eq!(at(&policies(&found)[0], "typed_extension_config.typed_config.decay_time"), "100s");
    for chosen in ["{simple: ROUND_ROBIN}", "{consistentHash: {useSourceIp: true}}", "{warmup: {duration: 10s}}"] {
        let rule = destination_rule(&format!("{{loadBalancer: {chosen}}}"));
        assert_eq!(policies(&cluster(&mesh(&[on.clone(), rule]))), Vec::<Value>::new(), "{chosen}");
    }
    let other = destination_rule("{connectionPool: {tcp: {maxConnections: 5}}}");
    assert_eq!(policies(&cluster(&mesh(&[on, other]))).len(), 2);
}

#[test]
fn what_is_watched_stands_in_the_metadata_of_clusters_and_routes() {
    let key = "meltemi.anomaly_detection";
    let watched = |more: &[String]| {
        let mesh = mesh(more);
        let of = |resource: &Value| at(resource, "metadata.filter_metadata")[key].clone();
        let routes: Vec<Value> = mesh.routes(&sidecar(), "80", "a").iter().map(of).collect();
        (of(&cluster(&mesh)), routes)
    };
    let asked =
        |sensitivity: &str, eject: &str| json!({"sensitivity": sensitivity, "eject": eject, "policy": "default/calm"});
    let default = asked("medium", "false");
    assert_eq!(watched(&[policy("{anomalyDetection: {}}")]), (default.clone(), vec![default]));
    let eject = asked("high", "true");
    let on = policy("{anomalyDetection: {sensitivity: high, action: EJECT}, automaticRetries: {}}");
    assert_eq!(watched(&[on]), (eject.clone(), vec![eject.clone(), eject]));
    assert_eq!(watched(&[policy("{anomalyDetection: {enabled: false}}")]), (Value::Null, vec![Value::Null]));
    assert_eq!(watched(&[policy("{hosts: [b], anomalyDetection: {}}")]), (Value::Null, vec![Value::Null]));
    let future = "---\napiVersion: networking.istio.io/v1alpha3\nkind: Telemetry\nmetadata: {name: calm, namespace: default}\n\
                  spec: {anomalyDetection: {enabled: true, sensitivity: low}}\n";
    let low = asked("low", "true");
    assert_eq!(watched(&[future.to_owned()]), (low.clone(), vec![low]));
}
