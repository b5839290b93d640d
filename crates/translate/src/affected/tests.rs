use super::*;
use crate::testing::mesh;
use meltemi_config::Key;
use meltemi_model::{NodeDescription, ServiceKey};

fn node() -> Node {
    Node::new(NodeDescription { id: "sidecar~1.1.1.1~a.ns~ns.svc.cluster.local".into(), ..Default::default() }).unwrap()
}

fn all(change: &Change) -> Vec<(&'static str, Affected)> {
    let types = [
        ("cds", type_urls::CLUSTER),
        ("eds", type_urls::ENDPOINT),
        ("lds", type_urls::LISTENER),
        ("rds", type_urls::ROUTE),
        ("sds", type_urls::SECRET),
    ];
    let touched = types.map(|(name, url)| (name, affected(change, &Snapshot::default(), &node(), url)));
    touched.into_iter().filter(|(_, affected)| *affected != Affected::Nothing).collect()
}

#[test]
fn one_endpoint_touches_the_assignments_of_its_service_alone() {
    let snapshot = mesh(
        "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: ns}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: ns}
spec: {hosts: [dns.example.com], resolution: DNS, ports: [{name: http, number: 80, protocol: HTTP}]}
",
    );
    let of = |host: &str| Change { endpoints: [ServiceKey::new("ns", host)].into(), ..Change::default() };
    let types = |change: &Change| -> Vec<(&str, Affected)> {
        let types = [("cds", type_urls::CLUSTER), ("eds", type_urls::ENDPOINT), ("lds", type_urls::LISTENER)];
        let touched = types.map(|(name, url)| (name, affected(change, &snapshot, &node(), url)));
        touched.into_iter().filter(|(_, affected)| *affected != Affected::Nothing).collect()
    };
    let change = of("a.ns.svc.cluster.local");
    let touched = types(&change);
    assert_eq!(touched.len(), 1, "{touched:?}");
    let (kind, eds) = &touched[0];
    assert_eq!(*kind, "eds");
    assert!(eds.includes("outbound|80||a.ns.svc.cluster.local"));
    assert!(eds.includes("outbound|80|v1|a.ns.svc.cluster.local"));
    assert!(!eds.includes("outbound|80||b.ns.svc.cluster.local"));
    // Identities are in the cluster, and so is what it resolves itself.
    let identities = Change { summaries: change.endpoints.clone(), ..change };
    for change in [identities, of("dns.example.com")] {
        assert_eq!(types(&change).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cds", "eds"]);
    }
}

#[test]
fn what_a_sidecar_does_not_import_costs_its_proxies_nothing() {
    let service = |name: &str, ns: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {ns}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let rule = |ns: &str, host: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: {ns}}}\nspec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: far.c.svc.cluster.local}}}}]}}]}}\n"
        )
    };
    let sidecar = "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: ns}\nspec: {egress: [{hosts: [\"b/*\"]}]}\n";
    let yaml = [&service("a", "b"), &service("far", "c"), &service("other", "d"), &rule("b", "a"), sidecar].concat();
    let snapshot = mesh(&yaml);
    let services = |ns: &str, host: &str| Change { services: [ServiceKey::new(ns, host)].into(), ..Change::default() };
    let rules = |ns: &str, host: &str| Change {
        configs: [Key::new(Kind::VirtualService, ns, "r")].into(),
        route_hosts: [host.into()].into(),
        ..Change::default()
    };
    let touched = |change: &Change| {
        let types = [type_urls::CLUSTER, type_urls::LISTENER, type_urls::ROUTE, type_urls::NAME_TABLE];
        types.iter().filter(|url| affected(change, &snapshot, &node(), url) != Affected::Nothing).count()
    };
    let own = "own.ns.svc.cluster.local";
    for (change, expected) in [
        (services("b", "a.b.svc.cluster.local"), 4),
        (services("b", "gone.b.svc.cluster.local"), 4),
        (services("c", "far.c.svc.cluster.local"), 4),
        (services("ns", own), 4),
        (services("d", "other.d.svc.cluster.local"), 0),
        (rules("b", "a.b.svc.cluster.local"), 3),
        (rules("d", "other.d.svc.cluster.local"), 0),
        (rules("d", "*"), 3),
    ] {
        assert_eq!(touched(&change), expected, "{change:?}");
    }
}

#[test]
fn an_endpoint_of_the_node_itself_changes_its_inbound_side() {
    let change = Change { addresses: ["1.1.1.1".into()].into(), ..Change::default() };
    assert_eq!(all(&change), [("cds", Affected::Everything), ("lds", Affected::Everything)]);
}

#[test]
fn configuration_touches_what_it_can_show_in() {
    let of = |kind| Change {
        configs: [Key::new(kind, "ns", "x")].into(),
        route_hosts: ["x.ns.svc".into()].into(),
        ..Change::default()
    };
    let cases = [
        (Kind::VirtualService, vec!["lds", "rds"]),
        (Kind::PeerAuthentication, vec!["cds", "eds", "lds"]),
        (Kind::Secret, vec!["sds"]),
        (Kind::Sidecar, vec!["cds", "eds", "lds", "rds", "sds"]),
    ];
    for (kind, expected) in cases {
        assert_eq!(all(&of(kind)).iter().map(|(name, _)| *name).collect::<Vec<_>>(), expected, "{kind}");
    }
    let rule = Change { destination_hosts: ["*.ns.svc".into()].into(), ..Change::default() };
    assert!(affected(&rule, &Snapshot::default(), &node(), type_urls::CLUSTER).includes("outbound|80||a.ns.svc"));
}
