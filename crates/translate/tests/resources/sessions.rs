//! Persistent sessions and draining endpoints, as istiod makes them of labels.

use meltemi_model::{Options, Sessions};
use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, rule, sidecar};

const CLUSTER: &str = "outbound|80||a.default.svc.cluster.local";
const FILTER: &str = "envoy.filters.http.stateful_session";

/// Services `a`, with these labels, and `b`; of `a` one endpoint serves, one drains and one says by a label that it does.
fn mesh(labels: &str, more: &str, enabled: bool) -> Mesh {
    let service = |name: &str, address: &str, labels: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default, labels: {{{labels}}}}}\n\
             spec: {{clusterIP: {address}, ports: [{{name: http, port: 80}}], selector: {{app: {name}}}}}\n"
        )
    };
    let pod = "---\napiVersion: v1\nkind: Pod\n\
               metadata: {name: leaving, namespace: default, labels: {app: a, istio.io/draining: 'true'}}\n\
               spec: {containers: [{name: a, image: a}]}\nstatus: {podIP: 10.2.0.3, phase: Running}\n";
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
                 metadata: {name: a-1, namespace: default, labels: {kubernetes.io/service-name: a}}\n\
                 ports: [{name: http, port: 8080}]\nendpoints:\n\
                 - {addresses: [10.2.0.1], conditions: {ready: true}}\n\
                 - {addresses: [10.2.0.2], conditions: {ready: false, serving: true, terminating: true}}\n\
                 - {addresses: [10.2.0.3], conditions: {ready: true}, targetRef: {kind: Pod, name: leaving, namespace: default}}\n";
    let documents = [&service("a", "10.1.0.1", labels), &service("b", "10.1.0.2", ""), pod, slice, more].concat();
    let sessions = Sessions { enabled, ..Sessions::default() };
    Mesh::with_options(Options { sessions, ..Options::default() }, "{}", &documents)
}

/// The session state in an override.
fn state(overrides: &Value) -> Value {
    let mut state = at(&overrides[FILTER], "stateful_session.session_state.typed_config").clone();
    if let Some(fields) = state.as_object_mut() {
        fields.remove("@type");
    }
    state
}

fn host(mesh: &Mesh) -> Value {
    let config = mesh.resource(&sidecar(), type_urls::ROUTE, "80");
    let hosts = config["virtual_hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["name"] == "a.default.svc.cluster.local:80").unwrap().clone()
}

#[test]
fn hosts_and_routes_have_the_sessions_of_their_service() {
    let cookie = json!({ "cookie": { "name": "mine", "path": "/" } });
    let labelled = "istio.io/persistent-session: mine";
    let plain = mesh(labelled, "", true);
    assert_eq!(state(&host(&plain)["typed_per_filter_config"]), cookie);
    let header = mesh("istio.io/persistent-session-header: x-mine", "", true);
    assert_eq!(state(&host(&header)["typed_per_filter_config"]), json!({ "name": "x-mine" }));
    let ruled = mesh(
        labelled,
        &rule(
            "http:\n- match: [{uri: {prefix: /b}}]\n  route: [{destination: {host: b}}]\n- route: [{destination: {host: a}}]",
        ),
        true,
    );
    let routes = host(&ruled)["routes"].clone();
    let states = [0, 1].map(|at| state(&routes[at]["typed_per_filter_config"]));
    assert_eq!(states, [Value::Null, cookie.clone()]);
    assert_eq!(state(&host(&ruled)["typed_per_filter_config"]), cookie);
    assert_eq!(host(&mesh(labelled, "", false))["typed_per_filter_config"], Value::Null, "not enabled");
    assert_eq!(host(&mesh("", "", true))["typed_per_filter_config"], Value::Null);
}

#[test]
fn a_gateways_host_has_the_sessions_of_the_service_that_it_is() {
    let more = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: default}\n\
                spec:\n  selector: {istio: ingressgateway}\n  servers:\n  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}\n\
                ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: r, namespace: default}\n\
                spec:\n  hosts: [a.default.svc.cluster.local, b.default.svc.cluster.local, a.example]\n  gateways: [g]\n  \
                http: [{route: [{destination: {host: b}}]}]\n";
    let mesh = mesh("istio.io/persistent-session: mine", more, true);
    let gateway = node("router", json!({"LABELS": {"istio": "ingressgateway"}}));
    let config = mesh.resource(&gateway, type_urls::ROUTE, "http.80");
    let hosts = config["virtual_hosts"].as_array().unwrap();
    let found: Vec<_> =
        hosts.iter().map(|own| (own["domains"].clone(), state(&own["typed_per_filter_config"]))).collect();
    let expected = [
        (json!(["a.default.svc.cluster.local"]), json!({ "cookie": { "name": "mine", "path": "/" } })),
        (json!(["b.default.svc.cluster.local", "a.example"]), Value::Null),
    ];
    assert_eq!(found, expected);
}

#[test]
fn outbound_listeners_have_the_filter_before_the_router() {
    let names = |mesh: &Mesh| {
        let listener = mesh.listener(&sidecar(), "0.0.0.0_80");
        let text = listener.to_string();
        (text.contains(FILTER), text.find(FILTER) < text.find("envoy.filters.http.router"))
    };
    assert_eq!(names(&mesh("", "", true)), (true, true));
    assert!(!names(&mesh("", "", false)).0);
    let inbound = mesh("", "", true).listener(&sidecar(), "virtualInbound");
    assert!(!inbound.to_string().contains(FILTER));
    let grpc = node("sidecar", json!({"GENERATOR": "grpc", "DIALECT": ""}));
    let api = mesh("istio.io/persistent-session: mine", "", true).listener(&grpc, "a.default.svc.cluster.local:80");
    assert!(api.to_string().contains(FILTER));
}

#[test]
fn draining_endpoints_are_told_of_where_sessions_reach_them() {
    let endpoints = |labels: &str| -> Vec<(String, String)> {
        let assignment = mesh(labels, "", true).resource(&sidecar(), type_urls::ENDPOINT, CLUSTER);
        let all = at(&assignment, "endpoints.0.lb_endpoints").as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap_or("UNKNOWN").to_owned();
        let of = |own: &Value| (text(at(own, "endpoint.address.socket_address.address")), text(&own["health_status"]));
        let mut all: Vec<_> = all.iter().map(of).collect();
        all.sort();
        all
    };
    let told = |status: &str, last: &str| (format!("10.2.0.{last}"), status.to_owned());
    assert_eq!(endpoints(""), [told("HEALTHY", "1")]);
    let all = [told("HEALTHY", "1"), told("DRAINING", "2"), told("DRAINING", "3")];
    assert_eq!(endpoints("istio.io/persistent-session: mine"), all);
    // As istiod does: sessions by header do not reach them.
    assert_eq!(endpoints("istio.io/persistent-session-header: x-mine"), [told("HEALTHY", "1")]);
    let allowed = |labels: &str| {
        let cluster = mesh(labels, "", true).resource(&sidecar(), type_urls::CLUSTER, CLUSTER);
        at(&cluster, "common_lb_config.override_host_status.statuses").clone()
    };
    assert_eq!(allowed("istio.io/persistent-session: mine"), json!(["HEALTHY", "DRAINING", "UNKNOWN", "DEGRADED"]));
    assert_eq!(allowed(""), Value::Null);
}
