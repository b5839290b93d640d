use serde_json::json;

use super::*;

#[test]
fn of_a_pod_only_what_endpoints_are_made_of_is_kept() {
    let metadata = json!({
        "name": "web-1", "namespace": "shop", "uid": "u", "generateName": "web-", "managedFields": [{ "manager": "m" }],
        "annotations": { "sidecar.istio.io/status": "{…}", "networking.istio.io/tunnel": "http", "a.io/b": "c" },
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r", "controller": true }],
    });
    let data = json!({
        "spec": {
            "containers": [{ "name": "app", "image": "i", "env": [{ "name": "A", "value": "b" }],
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP", "hostPort": 1 }] }],
            "serviceAccountName": "web", "tolerations": [], "somethingNew": {},
        },
        "status": {
            "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }], "startTime": "2026-01-01T00:00:00Z",
            "conditions": [
                { "type": "Ready", "status": "True", "lastProbeTime": null },
                { "type": "ContainersReady", "status": "True" },
            ],
        },
    });
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "u",
            "annotations": { "networking.istio.io/tunnel": "http" },
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "web", "controller": true }],
        },
        "spec": {
            "containers": [{ "name": "app",
                "ports": [{ "name": "http", "containerPort": 8080, "protocol": "TCP" }] }],
            "serviceAccountName": "web",
        },
        "status": {
            "podIP": "10.1.2.3", "podIPs": [{ "ip": "10.1.2.3" }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    assert_eq!(trimmed(Kind::Pod, "v1", metadata, data), expected);
}

#[test]
fn of_other_kinds_only_notes_and_the_status_are_dropped() {
    let metadata = json!({
        "name": "r", "namespace": "shop",
        "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{…}", "a.io/b": "c" },
    });
    let data = json!({ "spec": { "hosts": ["a"], "somethingNew": 1 }, "status": { "conditions": [] } });
    let expected = json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": { "name": "r", "namespace": "shop", "annotations": { "a.io/b": "c" } },
        "spec": { "hosts": ["a"], "somethingNew": 1 },
    });
    assert_eq!(trimmed(Kind::VirtualService, "v1beta1", metadata, data), expected);
}

#[test]
fn heartbeats_of_a_node_leave_it_as_it_was() {
    let beat = |time: &str| {
        let status = json!({ "conditions": [{ "type": "Ready", "lastHeartbeatTime": time }],
            "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] });
        trimmed(Kind::Node, "v1", json!({ "name": "n" }), json!({ "spec": {}, "status": status }))
    };
    assert_eq!(beat("1"), beat("2"));
}
