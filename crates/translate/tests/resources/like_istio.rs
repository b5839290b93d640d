//! What was found by holding both control planes' answers against each other (scripts/kubernetes/peers.sh).

use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, service, sidecar};

const LOGGED: &str = "accessLogFile: /dev/stdout";

fn destination_rule(policy: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: default}}\n\
         spec: {{host: a, trafficPolicy: {{{policy}}}}}\n"
    )
}

/// The one set of HTTP options of a cluster.
fn http_options(cluster: &Value) -> &Value {
    let options = cluster["typed_extension_protocol_options"].as_object().unwrap();
    options.values().next().unwrap()
}

#[test]
fn only_listeners_that_may_refuse_a_connection_log_it() {
    let mesh =
        Mesh::with_config(LOGGED, &(service("web", "10.1.0.1", 80, "http") + &service("db", "10.1.0.3", 5432, "tcp")));
    for (name, logs) in
        [("0.0.0.0_80", false), ("10.1.0.3_5432", false), ("virtualOutbound", true), ("virtualInbound", true)]
    {
        assert_eq!(mesh.listener(&sidecar(), name)["access_log"].is_array(), logs, "{name}");
    }
}

#[test]
fn a_listener_whose_chain_takes_everything_has_no_other() {
    let mesh = Mesh::new(&(service("web", "10.1.0.1", 80, "http") + &service("db", "10.1.0.3", 5432, "tcp")));
    assert_eq!(mesh.listener(&sidecar(), "10.1.0.3_5432")["default_filter_chain"], Value::Null);
    let http = mesh.listener(&sidecar(), "0.0.0.0_80");
    assert_eq!(at(&http, "default_filter_chain.name"), "PassthroughFilterChain");
}

#[test]
fn connections_that_would_come_back_are_not_logged() {
    let mesh = Mesh::with_config(LOGGED, &service("web", "10.1.0.1", 80, "http"));
    for (listener, trap) in
        [("virtualOutbound", "virtualOutbound-blackhole"), ("virtualInbound", "virtualInbound-blackhole")]
    {
        let listener = mesh.listener(&sidecar(), listener);
        for chain in listener["filter_chains"].as_array().unwrap() {
            let terminal = &chain["filters"].as_array().unwrap().last().unwrap()["typed_config"];
            assert_eq!(terminal["access_log"].is_array(), chain["name"] != trap, "{}", chain["name"]);
        }
    }
}

#[test]
fn handshakes_of_gateways_end_in_time() {
    let documents = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\n\
        spec: {selector: {istio: ingress}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], \
        tls: {mode: SIMPLE, credentialName: c}}]}\n";
    let router = node("router", json!({"LABELS": {"istio": "ingress"}}));
    let listener = Mesh::new(documents).listener(&router, "0.0.0.0_443");
    assert_eq!(at(&listener, "filter_chains.0.transport_socket_connect_timeout"), "15s");
}

#[test]
fn an_upgrade_to_http2_leaves_ports_that_follow_the_client() {
    let policy = destination_rule("connectionPool: {http: {h2UpgradePolicy: UPGRADE}}");
    for (port_name, expected) in [("http", "explicit_http_config"), ("plain", "use_downstream_protocol_config")] {
        let mesh = Mesh::new(&(service("a", "10.1.0.1", 80, port_name) + &policy));
        let cluster = mesh.resource(&sidecar(), type_urls::CLUSTER, "outbound|80||a.default.svc.cluster.local");
        assert!(http_options(&cluster)[expected]["http2_protocol_options"].is_object(), "{port_name}: {cluster}");
    }
}

#[test]
fn a_retry_budget_holds_on_both_sides() {
    let mesh = Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &destination_rule("retryBudget: {percent: 30}")));
    let own = node("sidecar", json!({"LABELS": {"app": "a"}}));
    for name in ["outbound|80||a.default.svc.cluster.local", "inbound|80||"] {
        let cluster = mesh.resource(&own, type_urls::CLUSTER, name);
        let threshold = at(&cluster, "circuit_breakers.thresholds.0");
        assert_eq!(at(threshold, "retry_budget.budget_percent.value"), 30.0, "{name}");
        assert_eq!(threshold["track_remaining"], Value::Null, "{name}");
    }
}

#[test]
fn a_hashed_request_without_a_rule_is_retried_at_another_host() {
    let hashed = destination_rule("loadBalancer: {consistentHash: {httpHeaderName: x-user}}");
    let mesh = Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &hashed));
    let route = mesh.routes(&sidecar(), "80", "a").remove(0);
    assert_eq!(at(&route, "route.hash_policy.0.header.header_name"), "x-user");
    let predicate = at(&route, "route.retry_policy.retry_host_predicate.0.name");
    assert_eq!(predicate, "envoy.retry_host_predicates.previous_hosts");
}

#[test]
fn a_name_for_another_service_is_no_service_of_a_passthrough_gateway() {
    let documents = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\n\
        spec: {selector: {istio: ingress}, servers: [{port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], \
        tls: {mode: AUTO_PASSTHROUGH}}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: default}\n\
        spec: {type: ExternalName, externalName: a.default.svc.cluster.local, ports: [{name: http, port: 80}]}\n"
        .to_owned()
        + &service("a", "10.1.0.1", 80, "http");
    let router = node("router", json!({"LABELS": {"istio": "ingress"}}));
    let listener = Mesh::new(&documents).listener(&router, "0.0.0.0_15443");
    let names: Vec<&Value> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| at(chain, "filter_chain_match.server_names.0"))
        .collect();
    assert_eq!(names, ["outbound_.80_._.a.default.svc.cluster.local"]);
}

#[test]
fn endpoints_say_what_workload_they_are_whatever_is_known_of_it() {
    let documents = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: vms, namespace: default}\n\
        spec: {hosts: [vms.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, \
        endpoints: [{address: 10.9.0.1, labels: {version: a}}, {address: 10.9.0.2}]}\n\
        ---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: far, namespace: default}\n\
        spec: {hosts: [far.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}\n";
    let mesh = Mesh::new(documents);
    let of = |resource: &Value, index: usize| {
        let endpoints = at(resource, "endpoints.0.lb_endpoints").clone();
        at(&endpoints[index], "metadata.filter_metadata.istio.workload").as_str().unwrap().to_owned()
    };
    let vms = mesh.resource(&sidecar(), type_urls::ENDPOINT, "outbound|80||vms.example");
    assert_eq!(of(&vms, 0), "vms-0;default;vms-0;a;Kubernetes");
    assert_eq!(of(&vms, 1), "vms-1;default;vms-1;;Kubernetes");
    let far = mesh.resource(&sidecar(), type_urls::CLUSTER, "outbound|80||far.example");
    assert_eq!(of(&far["load_assignment"], 0), "far;default;far;;Kubernetes");
}
