use meltemi_config::kube::Pod;
use meltemi_config::networking::VirtualService;
use serde_json::{Value, json};

use super::*;

fn reader(revision: &str) -> Reader {
    Reader { revision: revision.to_owned(), namespace: "istio-system".to_owned() }
}

fn decode(reader: &Reader, kind: Kind, object: Value) -> Option<Decoded> {
    let served = (kind, kind.info().versions[0]);
    reader.decode(served, &Names::of(&reader.revision), serde_json::from_value(object).unwrap())
}

fn route(labels: Value, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {
            "name": "r", "namespace": "shop", "labels": labels, "resourceVersion": "7", "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{ "manager": "kubectl", "operation": "Apply" }],
        },
        "spec": spec,
    })
}

fn simple() -> Value {
    json!({ "hosts": ["a"], "http": [{ "route": [{ "destination": { "host": "a" } }] }] })
}

#[test]
fn an_object_is_read_with_its_metadata() {
    let Some(Decoded::Taken(object, problems)) = decode(&reader(""), Kind::VirtualService, route(json!({}), simple()))
    else {
        panic!("refused")
    };
    assert_eq!(problems, []);
    assert_eq!((&*object.meta.resource_version, object.meta.generation), ("7", 3));
    assert_eq!(object.meta.creation_timestamp.unwrap().to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(&*object.spec_as::<VirtualService>().unwrap().hosts[0], "a");
}

#[test]
fn what_is_wrong_is_said_with_object_and_path() {
    let spec = json!({ "hosts": ["a"], "http": [{ "rout": [] }] });
    let Some(Decoded::Refused((key, _), problems)) = decode(&reader(""), Kind::VirtualService, route(json!({}), spec))
    else {
        panic!("taken")
    };
    assert_eq!(key, Key::new(Kind::VirtualService, "shop", "r"));
    let error = problems.iter().find(|problem| problem.severity == Severity::Error).unwrap();
    assert_eq!((error.path.as_str(), error.object.as_ref()), ("spec.http[0].rout", Some(&key)));
}

#[test]
fn a_pod_of_a_newer_server_is_read() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "namespace": "shop" },
        "spec": { "containers": [{ "name": "c", "new": 1 }], "new": {}, "serviceAccountName": "web" },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "new": [] },
    });
    let Some(Decoded::Taken(object, _)) = decode(&reader(""), Kind::Pod, pod) else { panic!("refused") };
    assert_eq!(object.spec_as::<Pod>().unwrap().spec.effective_service_account(), "web");
}

#[test]
fn configuration_of_another_revision_is_not_ours() {
    for (own, label, ours) in [
        ("", json!({}), true),
        ("canary", json!({}), true),
        ("canary", json!({ "istio.io/rev": "canary" }), true),
        ("canary", json!({ "istio.io/rev": "default" }), false),
        ("", json!({ "istio.io/rev": "default" }), true),
        ("", json!({ "istio.io/rev": "canary" }), false),
    ] {
        let decoded = decode(&reader(own), Kind::VirtualService, route(label.clone(), simple())).unwrap();
        assert_eq!(matches!(decoded, Decoded::Taken(..)), ours, "{own} {label}");
    }
    let meta = json!({ "name": "p", "namespace": "a", "labels": { "istio.io/rev": "canary" } });
    let pod = json!({ "metadata": meta, "spec": { "containers": [{ "name": "c" }] } });
    let decoded = decode(&reader(""), Kind::Pod, pod);
    assert!(matches!(decoded, Some(Decoded::Taken(..))), "pods are everybody's: {decoded:?}");
}

#[test]
fn the_mesh_configuration_is_that_of_the_revision() {
    let map = |namespace: &str, name: &str| {
        let object =
            json!({ "metadata": { "name": name, "namespace": namespace }, "data": { "mesh": "{}", "x": "y" } });
        move |revision: &str| decode(&reader(revision), Kind::ConfigMap, object.clone()).map(|decoded| decoded.key())
    };
    let mesh = Key::mesh_config_map();
    assert_eq!(map("istio-system", "istio")(""), Some(mesh.clone()));
    assert_eq!(map("istio-system", "istio-canary")("canary"), Some(mesh));
    assert_eq!(map("istio-system", "istio")("canary"), None, "another revision's");
    assert_eq!(map("shop", "istio")("canary"), Some(Key::new(Kind::ConfigMap, "shop", "istio")));
    let Some(Decoded::Taken(object, _)) = decode(
        &reader("canary"),
        Kind::ConfigMap,
        json!({ "metadata": { "name": "istio-canary", "namespace": "istio-system" }, "data": { "mesh": "{}", "x": "y" } }),
    ) else {
        panic!("refused")
    };
    assert_eq!(object.mesh_config(), Some("{}"));
}
