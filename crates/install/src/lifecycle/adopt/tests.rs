use super::*;
use crate::chart::Contents;
use crate::operator::{Operator, Request};
use crate::render::render;

fn map(manager: &str, annotations: Value) -> Value {
    let mesh = "accessLogFile: /dev/stdout\nrootNamespace: istio-system\ndefaultConfig:\n  discoveryAddress: istiod.istio-system.svc:15012\n  concurrency: 4\n";
    let managed = json!([{"manager": manager, "operation": "Apply"}]);
    json!({"metadata": {"managedFields": managed, "annotations": annotations}, "data": {"mesh": mesh}})
}

#[test]
fn the_configuration_of_a_running_mesh_lives_on_but_for_where_it_is() {
    let expected = json!({"accessLogFile": "/dev/stdout", "defaultConfig": {"concurrency": 4}});
    assert_eq!(mesh(&map("istioctl", json!({}))), Some(expected));
    assert_eq!(mesh(&json!({"metadata": {}, "data": {"mesh": "just text"}})), None);
}

#[test]
fn of_a_mesh_of_ours_only_what_was_adopted_lives_on() {
    assert_eq!(mesh(&map(MANAGER, json!({}))), None);
    let kept = json!({ADOPTED: "{\"accessLogFile\":\"/dev/stdout\"}"});
    assert_eq!(mesh(&map(MANAGER, kept)), Some(json!({"accessLogFile": "/dev/stdout"})));
}

#[test]
fn what_was_adopted_is_noted_down_in_the_mesh_configuration() {
    let operator = Operator::resolve(&Request::default()).unwrap();
    let mut rendered = render(&operator, &Contents::default()).unwrap();
    note(&mut rendered, &json!({"a": 1}));
    let noted: Vec<_> = rendered
        .objects()
        .iter()
        .filter(|it| it.value().pointer("/metadata/annotations").is_some())
        .map(|it| it.key().to_string())
        .collect();
    assert_eq!(noted, ["ConfigMap/istio.istio-system"]);
}
