use super::*;
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
fn one_endpoint_touches_its_service_s_clusters_alone() {
    let change = Change { endpoints: [ServiceKey::new("ns", "a.ns.svc")].into(), ..Change::default() };
    let touched = all(&change);
    assert_eq!(touched.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["cds", "eds"]);
    let eds = &touched[1].1;
    assert!(eds.includes("outbound|80||a.ns.svc"));
    assert!(eds.includes("outbound|80|v1|a.ns.svc"));
    assert!(!eds.includes("outbound|80||b.ns.svc"));
}

#[test]
fn an_endpoint_of_the_node_itself_changes_its_inbound_side() {
    let change = Change { addresses: ["1.1.1.1".into()].into(), ..Change::default() };
    assert_eq!(all(&change), [("cds", Affected::Everything), ("lds", Affected::Everything)]);
}

#[test]
fn configuration_touches_what_it_can_show_in() {
    let of = |kind| Change { configs: [Key::new(kind, "ns", "x")].into(), ..Change::default() };
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
