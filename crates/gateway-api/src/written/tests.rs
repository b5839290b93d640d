use super::written;
use crate::class::{GATEWAY_CONTROLLER, MESH_CONTROLLER};
use crate::status::{
    AncestorStatus, Condition, GatewayStatus, ListenerStatus, PolicyStatus, RouteParentStatus, RouteStatus, Status,
};
use meltemi_config::gateway_api::ParentReference;
use serde_json::{Value, json};

fn accepted(reason: &str) -> Condition {
    Condition {
        kind: "Accepted",
        status: if reason == "Accepted" { "True" } else { "False" },
        reason: reason.into(),
        message: String::new(),
        generation: 3,
    }
}

fn route(names: &[&str]) -> Status {
    let parent = |name: &&str| RouteParentStatus {
        conditions: vec![accepted("Accepted")],
        controller_name: crate::class::GATEWAY_CONTROLLER,
        parent_ref: ParentReference { name: (*name).into(), ..ParentReference::default() },
    };
    Status::Route(RouteStatus { parents: names.iter().map(parent).collect() })
}

fn existing(controller: &str, name: &str) -> Value {
    json!({"controllerName": controller, "parentRef": {"name": name, "namespace": "a"}, "conditions": [
        {"type": "Accepted", "status": "True", "lastTransitionTime": "then"},
        {"type": "Theirs", "status": "True", "lastTransitionTime": "then"},
    ]})
}

#[test]
fn a_route_s_other_controllers_keep_their_place_and_ours_that_are_stale_leave() {
    let ours = crate::class::GATEWAY_CONTROLLER;
    let before = json!({"parents": [existing("other/one", "x"), existing(ours, "gone"), existing(ours, "b")]});
    let after = written(&before, &route(&["a", "b"]), "a", "now");
    let parents = after["parents"].as_array().unwrap();
    let names: Vec<_> = parents.iter().map(|own| own["parentRef"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x", "b", "a"]);
    assert_eq!(parents[0], before["parents"][0]);
    // The condition of another type stays, ours is as it was and keeps its time.
    assert_eq!(parents[1]["conditions"][0]["lastTransitionTime"], "then");
    assert_eq!(parents[1]["conditions"][1]["type"], "Theirs");
    assert_eq!(parents[2]["conditions"][0]["lastTransitionTime"], "now");
    assert_eq!(written(&after, &route(&["a", "b"]), "a", "later"), after);
}

#[test]
fn a_gateway_s_address_stays_and_a_passing_condition_leaves() {
    let status = |reason| {
        Status::Gateway(GatewayStatus {
            addresses: Vec::new(),
            attached_listener_sets: None,
            conditions: vec![accepted(reason)],
            listeners: Vec::new(),
        })
    };
    let passing = json!({"type": "InsecureFrontendValidationMode", "status": "True"});
    let mut before = written(&Value::Null, &status("Accepted"), "a", "then");
    before["conditions"].as_array_mut().unwrap().push(passing);
    before["addresses"] = json!([{"type": "IPAddress", "value": "1.2.3.4"}]);
    let after = written(&before, &status("ListenersNotValid"), "a", "now");
    assert_eq!(after["addresses"], before["addresses"]);
    assert_eq!(after["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(after["conditions"][0]["lastTransitionTime"], "now");
}

#[test]
fn listeners_go_on_by_name_and_those_that_are_gone_go() {
    let status = |names: &[&str]| {
        let listener = |name: &&str| ListenerStatus {
            name: (*name).into(),
            attached_routes: 1,
            supported_kinds: Vec::new(),
            conditions: vec![accepted("Accepted")],
        };
        Status::Gateway(GatewayStatus {
            addresses: Vec::new(),
            attached_listener_sets: None,
            conditions: vec![accepted("Accepted")],
            listeners: names.iter().map(listener).collect(),
        })
    };
    let before = written(&Value::Null, &status(&["old", "http"]), "a", "then");
    let after = written(&before, &status(&["http", "new"]), "a", "now");
    let listeners = after["listeners"].as_array().unwrap().iter();
    let since = listeners.map(|own| (own["name"].as_str(), own["conditions"][0]["lastTransitionTime"].as_str()));
    assert_eq!(since.collect::<Vec<_>>(), [(Some("http"), Some("then")), (Some("new"), Some("now"))]);
}

#[test]
fn ancestors_of_a_policy_go_on_by_what_they_refer_to_and_are_no_more_than_there_is_room_for() {
    let policy = |controller_name: &'static str, names: &[String]| {
        let ancestor = |name: &String| AncestorStatus {
            ancestor_ref: ParentReference { name: name.as_str().into(), ..ParentReference::default() },
            conditions: vec![accepted("Accepted")],
            controller_name,
        };
        Status::Policy(PolicyStatus { ancestors: names.iter().map(ancestor).collect() })
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let mut before = written(&Value::Null, &policy(GATEWAY_CONTROLLER, std::slice::from_ref(&a)), "x", "then");
    let other = json!({"controllerName": "example.com/other", "ancestorRef": {"name": "a"}, "conditions": []});
    before["ancestors"].as_array_mut().unwrap().push(other.clone());
    let after = written(&before, &policy(GATEWAY_CONTROLLER, &[a, b.clone()]), "x", "now");
    let since = |at: usize| after["ancestors"][at]["conditions"][0]["lastTransitionTime"].as_str();
    assert_eq!((since(0), &after["ancestors"][1], since(2)), (Some("then"), &other, Some("now")));
    let of_mesh = written(&Value::Null, &policy(MESH_CONTROLLER, &["gone".to_owned()]), "x", "then");
    let after = written(&of_mesh, &policy(MESH_CONTROLLER, &[b]), "x", "now");
    assert_eq!(after["ancestors"].as_array().unwrap().len(), 1, "rows of Services are ours, too");
    let many: Vec<String> = (0..20).map(|number| format!("g{number}")).collect();
    let after = written(&before, &policy(GATEWAY_CONTROLLER, &many), "x", "now");
    let rows = after["ancestors"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]), (16, &other));
}
