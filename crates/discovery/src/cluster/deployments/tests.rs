use meltemi_kubernetes::apply::Held;
use serde_json::json;

use super::*;

fn held(kind: &'static str, name: &str, owner: &str, manager: &str) -> (Place, Held) {
    let object = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {
            "name": name, "namespace": "ns",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Gateway", "name": "edge", "uid": owner}],
            "managedFields": [{"manager": manager, "operation": "Apply"}],
        },
    });
    (place(&object).unwrap(), Held::of_document(object).unwrap())
}

#[test]
fn what_we_applied_and_is_not_wanted_any_more_goes_and_nothing_else_does() {
    let held: Labelled = [
        held("Service", "edge-istio", "u1", MANAGER),
        held("Service", "old-name", "u1", MANAGER),
        held("PodDisruptionBudget", "edge-istio", "u1", MANAGER),
        // Of somebody who uses our label.
        held("Deployment", "theirs", "u1", "helm"),
        held("Deployment", "other-istio", "u2", MANAGER),
    ]
    .into();
    let service = json!({"kind": "Service", "metadata": {"name": "edge-istio", "namespace": "ns"}});
    let wanted = BTreeSet::from([place(&service).unwrap()]);
    let owned = owned(&held, "u1");
    assert_eq!(owned.len(), 4);
    let gone: Vec<_> = unwanted(&owned, &wanted).into_iter().map(|place| (place.kind, &*place.name)).collect();
    assert_eq!(gone, [("PodDisruptionBudget", "edge-istio"), ("Service", "old-name")]);
}

#[test]
fn every_kind_that_is_deployed_can_be_reached() {
    for kind in KINDS {
        assert!(Resource::of_kind(kind).is_some_and(|resource| resource.namespaced), "{kind}");
    }
}
