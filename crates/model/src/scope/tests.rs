use crate::testing::{hosts, node, snapshot};
use crate::{OutboundPolicy, Snapshot};

fn sidecar(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  {spec}
"
    )
}

fn route(namespace: &str, host: &str, to: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: vs, namespace: {namespace}}}
spec: {{hosts: ['{host}'], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}
"
    )
}

const SERVICES: &[&str] =
    &["a/web.a.svc.cluster.local:80,90", "b/db.b.svc.cluster.local:70", "c/log.c.svc.cluster.local"];

fn seen(snapshot: &Snapshot, namespace: &str) -> Vec<String> {
    hosts(&snapshot.scope(&node("sidecar", namespace, &[("app", "x")])).services)
}

#[test]
fn without_a_sidecar_everything_exported_is_seen() {
    let snapshot = snapshot("", SERVICES);
    assert_eq!(seen(&snapshot, "a").len(), 3);
    let scope = snapshot.scope(&node("sidecar", "a", &[]));
    assert_eq!((scope.egress.len(), scope.outbound_policy), (1, OutboundPolicy::AllowAny));
}

#[test]
fn a_sidecar_imports_what_its_hosts_name() {
    let egress = |hosts: &str| sidecar("a", "s", &format!("egress: [{{hosts: [{hosts}]}}]"));
    for (hosts, expected) in [
        ("'./*'", vec!["a/web.a.svc.cluster.local:80,90"]),
        ("'b/*'", vec!["b/db.b.svc.cluster.local:70"]),
        ("'*/log.c.svc.cluster.local'", vec!["c/log.c.svc.cluster.local:80"]),
        ("'*/*.a.svc.cluster.local'", vec!["a/web.a.svc.cluster.local:80,90"]),
        ("'~/*'", vec![]),
    ] {
        assert_eq!(seen(&snapshot(&egress(hosts), SERVICES), "a"), expected, "{hosts}");
    }
}

#[test]
fn a_listener_s_port_narrows_and_several_add_up() {
    let yaml = sidecar(
        "a",
        "s",
        "egress:
  - {port: {number: 90, protocol: HTTP, name: p}, hosts: ['./*']}
  - {hosts: ['b/*']}
  outboundTrafficPolicy: {mode: REGISTRY_ONLY}",
    );
    let snapshot = snapshot(&yaml, SERVICES);
    assert_eq!(seen(&snapshot, "a"), ["a/web.a.svc.cluster.local:90", "b/db.b.svc.cluster.local:70"]);
    let scope = snapshot.scope(&node("sidecar", "a", &[]));
    assert_eq!(scope.outbound_policy, OutboundPolicy::RegistryOnly);
    assert_eq!(scope.egress_for_port(90).unwrap().services.len(), 1);
    assert_eq!(hosts(&scope.egress_for_port(70).unwrap().services), ["b/db.b.svc.cluster.local:70"]);
}

#[test]
fn destinations_of_imported_rules_come_along() {
    let yaml = sidecar("a", "s", "egress: [{hosts: ['./*']}]") + &route("a", "web", "db.b.svc.cluster.local");
    let snapshot = snapshot(&yaml, SERVICES);
    assert_eq!(seen(&snapshot, "a"), ["a/web.a.svc.cluster.local:80,90", "b/db.b.svc.cluster.local:70"]);
    let scope = snapshot.scope(&node("sidecar", "a", &[]));
    assert_eq!(scope.egress[0].services.len(), 1, "but the listener itself serves only what it names");
    assert_eq!(scope.egress[0].virtual_services.len(), 1);
}

#[test]
fn the_narrowest_sidecar_applies() {
    let yaml = sidecar("istio-system", "default", "egress: [{hosts: ['c/*']}]")
        + &sidecar("a", "all", "egress: [{hosts: ['b/*']}]")
        + &sidecar("a", "some", "workloadSelector: {labels: {app: x}}\n  egress: [{hosts: ['./*']}]");
    let snapshot = snapshot(&yaml, SERVICES);
    let of = |namespace: &str, labels: &[(&str, &str)]| {
        snapshot.scope(&node("sidecar", namespace, labels)).sidecar.as_ref().map(|sidecar| sidecar.name.to_string())
    };
    assert_eq!(of("a", &[("app", "x")]).unwrap(), "some");
    assert_eq!(of("a", &[("app", "y")]).unwrap(), "all");
    assert_eq!(of("b", &[]).unwrap(), "default");
    let router = snapshot.scope(&node("router", "a", &[("app", "x")]));
    assert!(router.sidecar.is_none(), "gateways see everything");
}

#[test]
fn one_service_for_a_host_name() {
    let services = ["ext:b/x.com:80", "ext:c/x.com:81", "ext:b/y.com", "d/y.com:82"];
    let snapshot = snapshot("", &services);
    assert_eq!(seen(&snapshot, "c"), ["c/x.com:81", "d/y.com:82"]);
    assert_eq!(seen(&snapshot, "e"), ["b/x.com:80", "d/y.com:82"]);
}
