use serde_json::json;

use super::*;

fn check(kind: &str, name: &str, labels: Value, expected: (&str, &str, &str)) {
    let pod = json!({ "metadata": {
        "generateName": "x-",
        "namespace": "shop",
        "labels": labels,
        "ownerReferences": [{ "apiVersion": "apps/v1", "kind": kind, "name": name, "controller": true }],
    } });
    let workload = Workload::of_pod(&pod);
    assert_eq!((&*workload.kind, &*workload.api_version, &*workload.name), expected);
    assert_eq!(workload.namespace, "shop");
}

#[test]
fn what_is_behind_a_controller_is_found_by_its_traces() {
    check("ReplicaSet", "web-abc", json!({ "pod-template-hash": "abc" }), ("Deployment", "apps/v1", "web"));
    check("ReplicaSet", "web-abc", json!({ "pod-template-hash": "xyz" }), ("ReplicaSet", "apps/v1", "web-abc"));
    check("ReplicaSet", "web-abc", json!({ "rollouts-pod-template-hash": "abc" }), ("Rollout", "v1alpha1", "web"));
    check(
        "ReplicationController",
        "web-1",
        json!({ "deploymentconfig": "web" }),
        ("DeploymentConfig", "apps/v1", "web"),
    );
    check("Job", "nightly-28123456", json!({}), ("CronJob", "batch/v1", "nightly"));
    check("Job", "nightly-1234567", json!({}), ("Job", "apps/v1", "nightly-1234567"));
    check("StatefulSet", "db", json!({}), ("StatefulSet", "apps/v1", "db"));
}

#[test]
fn a_pod_of_nobody_is_its_own_workload() {
    let named = Workload::of_pod(
        &json!({ "metadata": { "name": "lonely", "ownerReferences": [{ "kind": "Node", "controller": true }] } }),
    );
    assert_eq!((&*named.kind, &*named.api_version, &*named.name), ("Pod", "v1", "lonely"));
}
