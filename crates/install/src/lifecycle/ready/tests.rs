use serde_json::json;

use super::*;

#[test]
fn a_deployment_is_ready_when_its_new_pods_are() {
    let deployment = |generation: u64, updated: u64, available: u64| {
        json!({
            "kind": "Deployment",
            "metadata": {"generation": 2},
            "spec": {"replicas": 2},
            "status": {"observedGeneration": generation, "updatedReplicas": updated, "availableReplicas": available},
        })
    };
    assert_eq!(unready(&deployment(1, 2, 2)).as_deref(), Some("is not looked at yet"));
    assert_eq!(unready(&deployment(2, 1, 2)).as_deref(), Some("has 1 of 2 pods ready"));
    assert_eq!(unready(&deployment(2, 2, 0)).as_deref(), Some("has 0 of 2 pods ready"));
    assert_eq!(unready(&deployment(2, 2, 2)), None);
    assert_eq!(unready(&json!({"kind": "Deployment", "metadata": {}})).as_deref(), Some("has 0 of 1 pods ready"));
}

#[test]
fn a_daemon_set_is_ready_on_every_node() {
    let set = |ready: u64| {
        let status = json!({"observedGeneration": 1, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberAvailable": ready});
        json!({"kind": "DaemonSet", "metadata": {"generation": 1}, "status": status})
    };
    assert_eq!(unready(&set(2)).as_deref(), Some("has 2 of 3 pods ready"));
    assert_eq!(unready(&set(3)), None);
}

#[test]
fn a_kind_is_ready_when_the_server_serves_it() {
    let definition = |status: &str| json!({"kind": "CustomResourceDefinition", "status": {"conditions": [{"type": "Established", "status": status}]}});
    assert_eq!(unready(&definition("False")).as_deref(), Some("is not established"));
    assert_eq!(unready(&definition("True")), None);
    assert_eq!(unready(&json!({"kind": "Service"})), None);
}
