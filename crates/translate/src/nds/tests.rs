use super::*;
use crate::testing::{mesh, node, sidecar};
use serde_json::json;

#[test]
fn names_are_those_that_a_workload_may_ask_for() {
    let snapshot = mesh(
        "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {hostname: db-0, subdomain: db, containers: [{name: c, image: x}]}
status: {podIP: 10.0.0.1}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: shop}
spec: {hosts: [api.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: range, namespace: shop}
spec: {hosts: [range.example.com], addresses: [10.5.0.0/16], ports: [{number: 443, name: tls, protocol: TLS}], resolution: NONE}
",
    );
    let asking = node("sidecar", "10.9.9.9", "shop", json!({"DNS_CAPTURE": "true"}));
    let input = NameTables::inputs(&snapshot, &asking, NAME).unwrap();
    let table: NameTable = NameTables::build(&input).unpack().unwrap();
    let rows: Vec<_> =
        table.table.iter().map(|(host, info)| format!("{host} {} {}", info.shortname, info.ips.join(","))).collect();
    let auto = &snapshot
        .services
        .get(&meltemi_model::ServiceKey::new("shop", "api.example.com"))
        .unwrap()
        .auto_address
        .unwrap();
    assert_eq!(
        rows,
        [
            "alias.shop.svc.cluster.local alias 10.96.0.1".to_owned(),
            format!("api.example.com  {auto}"),
            "db-0.db.shop.svc.cluster.local db-0.db 10.0.0.1".to_owned(),
            "db.shop.svc.cluster.local db 10.0.0.1".to_owned(),
            "web.shop.svc.cluster.local web 10.96.0.1".to_owned(),
        ]
    );
    assert!(NameTables::names(&snapshot, &sidecar("10.9.9.9", "shop")).is_empty(), "only proxies that answer DNS ask");
}
