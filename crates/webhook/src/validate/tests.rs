use std::cell::RefCell;

use meltemi_config::ALWAYS_REJECT;

use super::*;
use crate::admission::GroupVersionKind;

fn request(group: &str, version: &str, kind: &str, object: Value) -> AdmissionRequest {
    AdmissionRequest {
        uid: "1".to_owned(),
        operation: "CREATE".to_owned(),
        kind: GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind: kind.to_owned() },
        namespace: "shop".to_owned(),
        object,
        ..AdmissionRequest::default()
    }
}

fn gateway(metadata: Value, spec: Value) -> AdmissionRequest {
    let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec});
    request("networking.istio.io", "v1", "Gateway", object)
}

fn servers() -> Value {
    json!({"servers": [{"hosts": ["a.example"], "port": {"number": 80, "protocol": "HTTP", "name": "http"}}]})
}

#[test]
fn what_is_valid_passes_and_what_is_not_is_told_by_field() {
    assert_eq!(admit(&gateway(json!({"name": "a"}), servers())), AdmissionResponse::allow());
    let mut spec = servers();
    spec["servers"][0]["port"]["number"] = json!(70000);
    let refused = admit(&gateway(json!({"name": "a"}), spec));
    assert!(!refused.allowed);
    assert!(
        refused.message.starts_with("configuration is invalid: spec.servers[0].port.number: "),
        "{}",
        refused.message
    );
    let mut spec = servers();
    spec["servers"][0]["prot"] = json!({});
    let refused = admit(&gateway(json!({"name": "a"}), spec));
    let wanted = "error decoding configuration: spec.servers[0].prot: unknown field; did you mean `port`?";
    assert_eq!((refused.allowed, refused.message.as_str()), (false, wanted));
}

#[test]
fn a_field_beside_the_spec_is_refused() {
    let mut request = gateway(json!({"name": "a"}), servers());
    request.object["sepc"] = json!({});
    assert!(admit(&request).message.contains("sepc: unknown field"), "{:?}", admit(&request));
}

#[test]
fn warnings_are_shown_to_who_asked_and_are_bounded() {
    let mut spec = servers();
    spec["servers"][0]["defaultEndpoint"] = json!("127.0.0.1:80");
    let response = admit(&gateway(json!({"name": "a"}), spec.clone()));
    assert!(response.allowed);
    assert_eq!(response.warnings.len(), 1);
    assert!(response.warnings[0].starts_with("spec.servers[0].defaultEndpoint: "), "{:?}", response.warnings);
    let many: Vec<_> = (0..40)
        .map(|i| {
            let mut server = spec["servers"][0].clone();
            server["port"] = json!({"number": 8000 + i, "protocol": "HTTP", "name": format!("http-{i}")});
            server
        })
        .collect();
    let response = admit(&gateway(json!({"name": "a"}), json!({"servers": many})));
    assert!(response.allowed);
    assert_eq!(response.warnings.len(), MAX_WARNINGS + 1);
    assert!(response.warnings[MAX_WARNINGS].starts_with("and 24 more"), "{:?}", response.warnings.last());
    assert_eq!(bounded(vec!["x".repeat(1000)])[0].chars().count(), MAX_WARNING_CHARS);
}

#[test]
fn the_probe_of_the_way_here_is_refused() {
    let object = probe("istio-system", "default");
    let refused = admit(&request("networking.istio.io", "v1", "Gateway", object));
    assert!(!refused.allowed);
    assert!(refused.message.contains(ALWAYS_REJECT), "{}", refused.message);
    let valid = gateway(json!({"name": "a", "annotations": {ALWAYS_REJECT: "true"}}), servers());
    assert!(!admit(&valid).allowed);
}

#[test]
fn what_is_wrong_may_be_deleted_and_may_lose_its_finalizers() {
    let mut request = gateway(json!({"name": "a"}), json!({"servers": [{}]}));
    assert!(!admit(&request).allowed);
    request.operation = "DELETE".to_owned();
    assert!(admit(&request).allowed);
    request.operation = "UPDATE".to_owned();
    request.object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(admit(&request).allowed);
}

#[test]
fn a_name_that_is_yet_to_be_made_and_metadata_of_newer_servers_are_no_error() {
    let metadata = json!({"generateName": "a-", "managedFields": [{}], "somethingNew": 1, "finalizers": ["x/y"]});
    assert_eq!(admit(&gateway(metadata, servers())), AdmissionResponse::allow());
    let refused = admit(&gateway(json!({}), servers()));
    assert!(!refused.allowed, "{refused:?}");
}

#[test]
fn a_version_that_is_newer_than_we_are_has_the_same_schema() {
    let mut request = gateway(json!({"name": "a"}), servers());
    request.kind.version = "v2".to_owned();
    request.object["apiVersion"] = json!("networking.istio.io/v2");
    assert_eq!(admit(&request), AdmissionResponse::allow());
}

#[test]
fn kinds_that_nobody_knows_are_refused() {
    let refused = admit(&request("networking.istio.io", "v1", "Gatway", json!({"metadata": {"name": "a"}})));
    assert_eq!(refused.message, "unrecognized type networking.istio.io/v1, Kind=Gatway");
    assert!(!refused.allowed);
}

#[test]
fn groups_that_istio_had_once_are_told_what_took_their_place() {
    for (group, kind, instead) in [
        ("authentication.istio.io", "Policy", "PeerAuthentication"),
        ("authentication.istio.io", "MeshPolicy", "root namespace"),
        ("rbac.istio.io", "ServiceRoleBinding", "AuthorizationPolicy"),
        ("rbac.istio.io", "ClusterRbacConfig", "AuthorizationPolicy"),
        ("config.istio.io", "handler", "Telemetry"),
        ("config.istio.io", "memquota", "RateLimitPolicy"),
        ("config.istio.io", "prometheus", "extensionProviders"),
    ] {
        let refused = admit(&request(group, "v1alpha1", kind, json!({"metadata": {"name": "a"}})));
        assert!(!refused.allowed, "{kind}");
        assert!(refused.message.contains(instead), "{kind}: {}", refused.message);
    }
}

#[test]
fn each_question_is_counted_by_how_it_ended_but_not_a_failed_trial() {
    let counted = RefCell::new(Vec::new());
    let ask = |request: &AdmissionRequest| {
        let _ = admit_and_count(request, &|outcome: &Outcome| {
            counted.borrow_mut().push((outcome.resource, outcome.failure.map(Failure::as_str)));
        });
    };
    ask(&gateway(json!({"name": "a"}), servers()));
    ask(&gateway(json!({"name": "a"}), json!({"servers": [{}]})));
    ask(&gateway(json!({"name": "a"}), json!({"servers": 1})));
    ask(&request("networking.istio.io", "v1", "Nothing", json!({})));
    let trial = AdmissionRequest { dry_run: true, ..gateway(json!({"name": "a"}), json!({"servers": [{}]})) };
    ask(&trial);
    let expected = [
        ("gateways", None),
        ("gateways", Some("invalid_resource")),
        ("gateways", Some("crd_conversion_error")),
        ("unknown", Some("unknown_type")),
    ];
    assert_eq!(*counted.borrow(), expected);
}
