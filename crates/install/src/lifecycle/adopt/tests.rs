use super::*;
use crate::chart::Contents;
use crate::operator::{Operator, Request};
use crate::render::render;

fn map(manager: &str, annotations: Value) -> Value {
    let mesh = "accessLogFile: /dev/stdout\nrootNamespace: istio-system\ndefaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n  concurrency: 4\n";
    let managed = json!([{"manager": manager, "operation": "Apply"}]);
    json!({"metadata": {"managedFields": managed, "annotations": annotations}, "data": {"mesh": mesh, "meshNetworks": "networks: {n1: {endpoints: [{fromRegistry: c1}]}}"}})
}

#[test]
fn the_configuration_of_a_running_mesh_lives_on_but_for_where_it_is() {
    let expected = json!({"accessLogFile": "/dev/stdout", "defaultConfig": {"concurrency": 4}});
    let networks = json!({"n1": {"endpoints": [{"fromRegistry": "c1"}]}});
    let running = adopted(&map("istioctl", json!({})));
    assert_eq!(running, Adopted { mesh: Some(expected), networks: Some(networks) });
    assert!(adopted(&json!({"metadata": {}, "data": {"mesh": "just text"}})).is_empty());
}

#[test]
fn of_a_mesh_of_ours_only_what_was_adopted_lives_on() {
    assert!(adopted(&map(MANAGER, json!({}))).is_empty());
    let kept = json!({ADOPTED: "{\"mesh\":{\"accessLogFile\":\"/dev/stdout\"}}"});
    let expected = Adopted { mesh: Some(json!({"accessLogFile": "/dev/stdout"})), networks: None };
    assert_eq!(adopted(&map(MANAGER, kept)), expected);
}

#[test]
fn what_was_adopted_is_noted_down_in_the_mesh_configuration() {
    let operator = Operator::resolve(&Request::default()).unwrap();
    let mut rendered = render(&operator, &Contents::default()).unwrap();
    note(&mut rendered, &Adopted { mesh: Some(json!({"a": 1})), networks: None });
    let noted: Vec<_> = rendered
        .objects()
        .iter()
        .filter(|it| it.value().pointer("/metadata/annotations").is_some())
        .map(|it| it.key().to_string())
        .collect();
    assert_eq!(noted, ["ConfigMap/istio.istio-system"]);
}
