use super::*;
use meltemi_model::NodeDescription;
use serde_json::json;

fn node(ip: &str, app: &str, metadata: Value) -> Node {
    let mut metadata = metadata.as_object().cloned().unwrap();
    metadata.insert("LABELS".into(), json!({ "app": app }));
    let id = format!("sidecar~{ip}~{app}-{ip}.ns~ns.svc.cluster.local");
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap()
}

fn facets(node: &Node, labels: LabelUse, selected: &[&str]) -> Facets {
    Facets::of(node, labels, &selected.iter().map(|key| (*key).into()).collect()).unwrap()
}

#[test]
fn replicas_share_and_what_shows_in_the_resources_separates() {
    let workload = json!({"WORKLOAD_NAME": "a"});
    let one = node("1.1.1.1", "a", workload.clone());
    let replica = node("1.1.1.2", "a", workload.clone());
    let other = node("1.1.1.3", "b", workload.clone());
    let timed = node("1.1.1.4", "a", json!({"WORKLOAD_NAME": "a", "IDLE_TIMEOUT": "5s"}));
    assert_eq!(facets(&one, LabelUse::All, &[]), facets(&replica, LabelUse::All, &[]));
    assert_ne!(facets(&one, LabelUse::All, &[]), facets(&other, LabelUse::All, &[]));
    assert_eq!(facets(&one, LabelUse::Selectors, &[]), facets(&other, LabelUse::Selectors, &[]));
    assert_ne!(facets(&one, LabelUse::Selectors, &["app"]), facets(&other, LabelUse::Selectors, &["app"]));
    assert_ne!(facets(&one, LabelUse::All, &[]), facets(&timed, LabelUse::All, &[]));
}

#[test]
fn a_node_made_from_facets_has_the_same_facets() {
    let original = node("1.1.1.1", "a", json!({"WORKLOAD_NAME": "a", "DNS_CAPTURE": "true", "DIALECT": "istio-proxy"}));
    let of = facets(&original, LabelUse::All, &[]);
    assert_eq!(facets(&of.node(), LabelUse::All, &[]), of);
    assert!(of.node().dns_capture());
}

#[test]
fn answers_are_kept_for_one_state_of_the_mesh() {
    let batches = Batches::default();
    let snapshot = Snapshot::default();
    let of = facets(&node("1.1.1.1", "a", json!({})), LabelUse::All, &[]);
    let question = || Question { type_url: "t", names: None, facets: of.clone() };
    let mut made = 0;
    let mut ask = |snapshot: &Snapshot| {
        batches.selected_labels(snapshot);
        batches.get_or_make(snapshot, question(), |_| {
            made += 1;
            Vec::new()
        });
    };
    ask(&snapshot);
    ask(&snapshot.clone());
    ask(&Snapshot::default());
    assert_eq!(made, 2);
}
