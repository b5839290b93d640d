use crate::testing::{snapshot, update};
use crate::virtual_service::{destinations, gateway_name};
use crate::{ObjectKey, Snapshot};

fn rule(namespace: &str, name: &str, created: u32, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec:
  {spec}
"
    )
}

fn names(snapshot: &Snapshot, gateway: &str, namespace: &str) -> Vec<String> {
    snapshot.virtual_services_for_gateway(gateway, namespace).iter().map(|config| config.name.to_string()).collect()
}

const TO: &str = "http: [{route: [{destination: {host: web}}]}]";

#[test]
fn names_are_made_whole() {
    for (name, expected) in [
        ("mesh", "mesh"),
        ("gw", "ns/gw"),
        ("./gw", "ns/gw"),
        ("other/gw", "other/gw"),
        ("gw.other.svc.cluster.local", "other/gw"),
        ("gw.other", "other/gw"),
    ] {
        assert_eq!(gateway_name(name, "ns"), expected);
    }
    let snapshot = snapshot(
        &rule(
            "a",
            "vs",
            0,
            "hosts: [web, '*.x.com']
  gateways: [mesh, gw]
  http: [{match: [{gateways: [gw]}], route: [{destination: {host: web}}], mirror: {host: shadow.b.svc.cluster.local}}]",
        ),
        &[],
    );
    let vs = snapshot.virtual_services.get(&ObjectKey::new("a", "vs")).unwrap();
    assert_eq!(vs.spec.hosts.iter().map(|h| &**h).collect::<Vec<_>>(), ["web.a.svc.cluster.local", "*.x.com"]);
    assert_eq!(vs.spec.gateways.iter().map(|g| &**g).collect::<Vec<_>>(), ["mesh", "a/gw"]);
    assert_eq!(&*vs.spec.http[0].matches[0].gateways[0], "a/gw");
    let to: Vec<_> = destinations(&vs.spec).into_keys().map(|host| host.to_string()).collect();
    assert_eq!(to, ["shadow.b.svc.cluster.local", "web.a.svc.cluster.local"]);
}

#[test]
fn who_sees_what_and_in_which_order() {
    let yaml = rule("a", "young", 9, &format!("hosts: [x]\n  {TO}"))
        + &rule("a", "old", 1, &format!("hosts: [x]\n  {TO}"))
        + &rule("a", "private", 5, &format!("hosts: [x]\n  exportTo: ['.']\n  {TO}"))
        + &rule("b", "to-a", 7, &format!("hosts: [x]\n  exportTo: [a]\n  {TO}"))
        + &rule("b", "edge", 0, &format!("hosts: [x]\n  gateways: [gw]\n  {TO}"));
    let snapshot = snapshot(&yaml, &[]);
    assert_eq!(names(&snapshot, "mesh", "a"), ["private", "to-a", "old", "young"]);
    assert_eq!(names(&snapshot, "mesh", "c"), ["old", "young"]);
    assert_eq!(names(&snapshot, "b/gw", "c"), ["edge"]);
}

#[test]
fn a_delegate_s_routes_take_the_place_of_the_root_s() {
    let root = rule(
        "a",
        "root",
        0,
        "hosts: [x.com]
  http:
  - {name: r, match: [{uri: {prefix: /shop}}], delegate: {name: leaf, namespace: b}, timeout: 3s}
  - {route: [{destination: {host: rest}}]}",
    );
    let leaf = |host: &str| {
        rule(
            "b",
            "leaf",
            0,
            &format!(
                "http:
  - {{name: l, match: [{{uri: {{exact: /shop/1}}}}], route: [{{destination: {{host: {host}}}}}]}}
  - {{match: [{{uri: {{prefix: /other}}}}], route: [{{destination: {{host: never}}}}]}}"
            ),
        )
    };
    let before = snapshot(&(root.clone() + &leaf("one")), &[]);
    let key = ObjectKey::new("a", "root");
    let spec = &before.virtual_services.get(&key).unwrap().spec;
    assert_eq!(spec.http.len(), 2, "a route that no request could reach is dropped");
    assert_eq!((&*spec.http[0].name, &*spec.http[0].route[0].destination.host), ("r-l", "one.b.svc.cluster.local"));
    assert_eq!(spec.http[0].timeout.unwrap().as_secs(), 3);
    assert_eq!(&*spec.http[0].matches[0].uri.as_ref().unwrap().exact.clone().unwrap(), "/shop/1");
    let (after, change) = before.next(&update(&leaf("two")));
    let spec = &after.virtual_services.get(&key).unwrap().spec;
    assert_eq!(&*spec.http[0].route[0].destination.host, "two.b.svc.cluster.local");
    assert!(change.route_hosts.contains("*"));
    let (gone, _) = after.next(&crate::Update {
        virtual_services: vec![(ObjectKey::new("b", "leaf"), None)],
        ..crate::Update::default()
    });
    assert_eq!(gone.virtual_services.get(&key).unwrap().spec.http.len(), 1);
}
