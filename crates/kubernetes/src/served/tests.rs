use serde_json::{Value, json};

use super::*;

fn definition(name: &str, versions: &[(&str, bool)], established: &str) -> Definition {
    let versions: Vec<Value> =
        versions.iter().map(|(name, served)| json!({ "name": name, "served": served, "schema": {} })).collect();
    let value = json!({
        "metadata": { "name": name },
        "spec": { "group": "g", "versions": versions },
        "status": { "conditions": [{ "type": "Established", "status": established }] },
    });
    serde_json::from_value(value).unwrap()
}

#[test]
fn of_the_versions_that_are_served_the_preferred_one_is_watched() {
    let name = "virtualservices.networking.istio.io";
    for (versions, expected) in [
        (&[("v1", true), ("v1beta1", true)] as &[_], Some("v1")),
        (&[("v1alpha3", true), ("v1beta1", true)], Some("v1beta1")),
        (&[("v1", false), ("v1alpha3", true)], Some("v1alpha3")),
        (&[("v1", false)], None),
        (&[("v9", true)], None),
    ] {
        let found = version(&definition(name, versions, "True"));
        assert_eq!(found, Some((Kind::VirtualService, expected)), "{versions:?}");
    }
}

#[test]
fn a_definition_that_is_not_in_force_serves_nothing_and_others_are_not_ours() {
    let versions = &[("v1", true)];
    let gateway = definition("gateways.gateway.networking.k8s.io", versions, "False");
    assert_eq!(version(&gateway), Some((Kind::KubernetesGateway, None)));
    assert_eq!(version(&definition("gateways.example.com", versions, "True")), None);
}

#[test]
fn a_definition_that_is_just_made_is_read() {
    let value = json!({
        "metadata": { "name": "virtualservices.networking.istio.io" },
        "spec": { "versions": [{ "name": "v1", "served": true }] },
        "status": { "conditions": null, "acceptedNames": { "plural": "", "kind": "" }, "storedVersions": null },
    });
    let definition: Definition = serde_json::from_value(value).unwrap();
    assert_eq!(version(&definition), Some((Kind::VirtualService, None)));
}
