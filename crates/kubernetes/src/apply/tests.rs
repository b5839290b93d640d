use kube::core::Status;
use serde_json::json;

use super::*;

fn refusal(status: Value) -> String {
    let status: Status = serde_json::from_value(status).unwrap();
    ClusterError::from(kube::Error::Api(Box::new(status))).to_string()
}

#[test]
fn a_conflict_names_the_fields_and_who_manages_them() {
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"helm\"", "field": ".data.mesh"});
    let conflict =
        json!({"status": "Failure", "code": 409, "reason": "Conflict", "message": "m", "details": {"causes": [cause]}});
    assert_eq!(refusal(conflict), "others manage .data.mesh: conflict with \"helm\"");
}

#[test]
fn what_is_not_there_and_what_is_refused_are_told_apart() {
    assert_eq!(
        refusal(json!({"status": "Failure", "code": 404, "message": "no"})),
        "the API server has no such kind or object"
    );
    assert_eq!(refusal(json!({"status": "Failure", "code": 403, "message": "no"})), "the API server refuses: no");
}

#[test]
fn kinds_are_addressed_by_group_and_version() {
    let deployment = Resource::of_kind("Deployment").unwrap().api();
    assert_eq!((&*deployment.group, &*deployment.version, &*deployment.plural), ("apps", "v1", "deployments"));
    let service = Resource::of_kind("Service").unwrap().api();
    assert_eq!((&*service.group, &*service.version), ("", "v1"));
    assert!(Resource::of_kind("Gateway").is_none());
}

#[test]
fn objects_are_the_same_whatever_the_server_notes_of_them() {
    let before = json!({"metadata": {"name": "a", "resourceVersion": "1", "managedFields": [1]}, "data": {"x": "1"}});
    let after = json!({"metadata": {"name": "a", "resourceVersion": "2", "managedFields": [2]}, "data": {"x": "1"}});
    assert!(same(&before, &after));
    assert!(!same(&before, &json!({"metadata": {"name": "a"}, "data": {"x": "2"}})));
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_said() {
    let error = Cluster::connect(Some(Path::new("/nowhere/config")), None).await.err().unwrap().to_string();
    let expected = "no cluster is known here: there is no /nowhere/config; --kubeconfig names another file";
    assert_eq!(error, expected);
}
