use crate::Assignments;
use crate::generator::Generator;
use crate::names;
use crate::testing::{assignment, mesh, node, sidecar, with_mesh_config};
use meltemi_model::Snapshot;
use meltemi_proto::envoy::config::core::v3::address;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use serde_json::json;

const HOST: &str = "web.shop.svc.cluster.local";

fn pod(name: &str, ip: &str, version: &str, locality: &str, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: web, version: {version}, istio-locality: {locality}, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: seller, containers: [{{name: c, image: x}}]}}
status: {{podIP: {ip}, conditions: [{{type: Ready, status: '{ready}'}}]}}
"
    )
}

fn shop(rest: &str) -> Snapshot {
    mesh(&documents(rest))
}

fn documents(rest: &str) -> String {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
";
    let pods = pod("a", "10.0.0.1", "v1", "eu.a.x", true)
        + &pod("b", "10.0.0.2", "v1", "eu.b.x", true)
        + &pod("c", "10.0.0.3", "v2", "us.a.x", true)
        + &pod("d", "10.0.0.4", "v2", "eu.a.x", false);
    format!("{service}{pods}---\n{rest}")
}

fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web, namespace: shop}}
spec:
  host: web
  {spec}
"
    )
}

/// `priority locality weight: addresses`.
fn summary(assignment: &ClusterLoadAssignment) -> Vec<String> {
    let line = |group: &meltemi_proto::envoy::config::endpoint::v3::LocalityLbEndpoints| {
        let locality = group.locality.as_ref().unwrap();
        let addresses: Vec<_> = group.lb_endpoints.iter().map(address_of).collect();
        let weight = group.load_balancing_weight.unwrap_or_default();
        format!("{} {}/{} {weight}: {}", group.priority, locality.region, locality.zone, addresses.join(" "))
    };
    assignment.endpoints.iter().map(line).collect()
}

fn address_of(endpoint: &meltemi_proto::envoy::config::endpoint::v3::LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(own)) = &endpoint.host_identifier else { panic!() };
    let Some(address::Address::SocketAddress(socket)) = &own.address.as_ref().unwrap().address else { panic!() };
    let mark = if endpoint.health_status == 1 { "" } else { "!" };
    format!("{}{mark}", socket.address)
}

fn of(snapshot: &Snapshot, subset: &str) -> Vec<String> {
    let client = node("sidecar", "10.9.9.9", "shop", json!({"LABELS": {"istio-locality": "eu.a.x"}}));
    summary(&assignment(snapshot, &client, &names::outbound(80, subset, HOST)))
}

#[test]
fn endpoints_are_grouped_by_locality() {
    assert_eq!(of(&shop(""), ""), ["0 eu/a 2: 10.0.0.1 10.0.0.4!", "0 eu/b 1: 10.0.0.2", "0 us/a 1: 10.0.0.3"]);
}

#[test]
fn a_subset_has_the_endpoints_with_its_labels() {
    let snapshot = shop(&rule("subsets: [{name: v2, labels: {version: v2}}]"));
    assert_eq!(of(&snapshot, "v2"), ["0 eu/a 1: 10.0.0.4!", "0 us/a 1: 10.0.0.3"]);
    let unknown = Assignments::inputs(&snapshot, &sidecar("10.9.9.9", "shop"), &names::outbound(80, "nobody", HOST));
    assert!(unknown.is_none(), "no assignment is better than an empty one");
}

#[test]
fn with_outlier_detection_near_localities_come_first() {
    let snapshot = shop(&rule("trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}"));
    assert_eq!(of(&snapshot, ""), ["0 eu/a 2: 10.0.0.1 10.0.0.4!", "1 eu/b 1: 10.0.0.2", "2 us/a 1: 10.0.0.3"]);
}

#[test]
fn the_user_can_order_by_labels() {
    let snapshot = shop(&rule(
        "trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1}
    loadBalancer: {localityLbSetting: {failoverPriority: ['version=v2', topology.kubernetes.io/region]}}",
    ));
    assert_eq!(
        of(&snapshot, ""),
        ["0 eu/a 1: 10.0.0.4!", "1 us/a 1: 10.0.0.3", "2 eu/a 1: 10.0.0.1", "2 eu/b 1: 10.0.0.2"]
    );
}

#[test]
fn a_service_can_ask_for_its_own_zone() {
    let near = "spec: {trafficDistribution: PreferClose, clusterIP: 10.96.0.1,";
    let snapshot = mesh(&documents("").replace("spec: {clusterIP: 10.96.0.1,", near));
    assert_eq!(of(&snapshot, ""), ["0 eu/a 2: 10.0.0.1 10.0.0.4!", "1 eu/b 1: 10.0.0.2", "2 us/a 1: 10.0.0.3"]);
}

#[test]
fn the_user_can_set_shares() {
    let snapshot = shop(&rule(
        "trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: 'eu/a/*', to: {'eu/a/*': 80, 'eu/b/*': 20}}]}}}",
    ));
    assert_eq!(of(&snapshot, ""), ["0 eu/a 8000: 10.0.0.1 10.0.0.4!", "0 eu/b 2000: 10.0.0.2"]);
}

#[test]
fn zones_of_the_own_region_are_left_to_the_proxy_and_other_regions_come_after() {
    let by_zone = |settings: &str| {
        let policy = format!("trafficPolicy: {{loadBalancer: {{zoneAwareLbSetting: {settings}}}}}");
        of(&shop(&rule(&policy)), "")
    };
    let regions = ["0 eu/a 2: 10.0.0.1 10.0.0.4!", "0 eu/b 1: 10.0.0.2", "1 us/a 1: 10.0.0.3"];
    assert_eq!(by_zone("{}"), regions);
    assert_eq!(by_zone("{failover: [{from: eu, to: us}]}"), regions);
    let off = ["0 eu/a 2: 10.0.0.1 10.0.0.4!", "0 eu/b 1: 10.0.0.2", "0 us/a 1: 10.0.0.3"];
    assert_eq!(by_zone("{enabled: false}"), off);
    assert_eq!(
        by_zone("{failoverPriority: ['version=v2']}"),
        ["0 eu/a 1: 10.0.0.4!", "1 us/a 1: 10.0.0.3", "2 eu/a 1: 10.0.0.1", "2 eu/b 1: 10.0.0.2"]
    );
    let mesh = "zoneAwareLbSetting: {}\nlocalityLbSetting: {enabled: true}";
    assert_eq!(of(&with_mesh_config(&documents(""), mesh), ""), regions, "the mesh's, before its locality setting");
}

#[test]
fn a_proxy_can_ask_for_its_own_workload() {
    let workload = |ip: &str, name: &str| {
        let node = node("sidecar", ip, "shop", json!({ "WORKLOAD_NAME": name, "LABELS": {"app": "web"} }));
        summary(&assignment(&shop(""), &node, "local_cluster"))
    };
    assert_eq!(workload("10.0.0.1", "a"), ["0 eu/a 1: 10.0.0.1"], "pods of the same name only");
    assert!(workload("10.9.9.9", "z").is_empty());
    let nobody = node("sidecar", "10.9.9.9", "other", json!({}));
    assert!(assignment(&shop(""), &nobody, "local_cluster").endpoints.is_empty(), "empty, not absent");
}

#[test]
fn endpoints_say_whether_they_take_mtls() {
    let tls = |snapshot: &Snapshot| {
        let found = assignment(snapshot, &sidecar("10.9.9.9", "shop"), &names::outbound(80, "", HOST));
        let endpoint = found.endpoints[0].lb_endpoints[0].metadata.clone().unwrap();
        let istio = &endpoint.filter_metadata["istio"].fields["workload"];
        assert!(format!("{istio:?}").contains("a;shop;web;v1;Kubernetes"), "{istio:?}");
        endpoint.filter_metadata.contains_key("envoy.transport_socket_match")
    };
    assert!(tls(&shop("")));
    let port = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {PORT: {mode: DISABLE}}}
";
    assert!(!tls(&shop(&port.replace("PORT", "8080"))));
    assert!(tls(&shop(&port.replace("PORT", "9999"))));
    assert!(!tls(&shop(&rule("trafficPolicy: {tls: {mode: DISABLE}}"))));
}

#[test]
fn only_what_matters_is_in_the_input() {
    let snapshot = shop("");
    let name = names::outbound(80, "", HOST);
    let near = node("sidecar", "10.9.9.8", "shop", json!({"LABELS": {"istio-locality": "eu.a.x"}}));
    let far = node("sidecar", "10.9.9.9", "default", json!({"LABELS": {"istio-locality": "us.a.x"}}));
    let input = |snapshot: &Snapshot, node| Assignments::inputs(snapshot, node, &name).unwrap();
    assert_eq!(input(&snapshot, &near), input(&snapshot, &far), "without failover, where the proxy is does not matter");
    let failing_over = shop(&rule("trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}"));
    assert_ne!(input(&failing_over, &near), input(&failing_over, &far));
}
