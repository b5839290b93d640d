use super::written;
use crate::status::{Condition, GatewayStatus, RouteParentStatus, RouteStatus, Status};
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
