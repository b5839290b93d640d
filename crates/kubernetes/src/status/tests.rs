use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-05-05T05:05:05.5Z".parse().unwrap()
}

fn condition(kind: &str, status: &str, since: Option<&str>) -> Value {
    let mut condition =
        json!({ "type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": 2 });
    if let Some(since) = since {
        condition["lastTransitionTime"] = since.into();
    }
    condition
}

#[test]
fn a_condition_has_the_time_since_when_it_says_so() {
    let before = json!({ "conditions": [
        condition("Accepted", "True", Some("2026-01-01T00:00:00Z")),
        condition("Programmed", "Unknown", Some("1970-01-01T00:00:00Z")),
        condition("Somebodys", "True", Some("2026-01-01T00:00:00Z")),
    ] });
    let ours = json!({ "conditions": [condition("Programmed", "True", None), condition("Accepted", "True", None)] });
    let expected = json!({ "conditions": [
        condition("Accepted", "True", Some("2026-01-01T00:00:00Z")),
        condition("Programmed", "True", Some("2026-05-05T05:05:05Z")),
        condition("Somebodys", "True", Some("2026-01-01T00:00:00Z")),
    ] });
    let after = merged(&before, &ours, now()).unwrap();
    assert_eq!(after, expected);
    assert_eq!(merged(&after, &ours, "2027-01-01T00:00:00Z".parse().unwrap()), None, "nothing is written twice");
}

#[test]
fn listeners_go_on_by_name_and_those_that_are_gone_go() {
    let listener = |name: &str, since: Option<&str>| {
        json!({
            "name": name, "attachedRoutes": 1, "conditions": [condition("Accepted", "True", since)],
        })
    };
    let before = json!({ "listeners": [
        listener("old", Some("2026-01-01T00:00:00Z")), listener("http", Some("2026-01-01T00:00:00Z")),
    ] });
    let after = merged(&before, &json!({ "listeners": [listener("http", None), listener("new", None)] }), now());
    let expected = json!({ "listeners": [
        listener("http", Some("2026-01-01T00:00:00Z")), listener("new", Some("2026-05-05T05:05:05Z")),
    ] });
    assert_eq!(after, Some(expected));
}

#[test]
fn rows_of_other_controllers_stay_and_ours_that_are_gone_go() {
    let row = |controller: &str, gateway: &str, since: Option<&str>| {
        json!({
            "controllerName": controller, "parentRef": { "name": gateway },
            "conditions": [condition("Accepted", "True", since)],
        })
    };
    let (own, other, then) = ("istio.io/gateway-controller", "example.com/other", Some("2026-01-01T00:00:00Z"));
    let before = json!({ "parents": [row(own, "a", then), row(other, "b", then), row(own, "gone", then)] });
    let ours = json!({ "parents": [row(own, "a", None), row(own, "b", None)] });
    let expected =
        json!({ "parents": [row(other, "b", then), row(own, "a", then), row(own, "b", Some("2026-05-05T05:05:05Z"))] });
    assert_eq!(merged(&before, &ours, now()), Some(expected));
    let none = json!({ "parents": [] });
    assert_eq!(merged(&json!({ "parents": [row(own, "a", then)] }), &none, now()), Some(json!({ "parents": [] })));
    for nothing in [json!({}), Value::Null, none.clone()] {
        assert_eq!(merged(&nothing, &none, now()), None, "{nothing}: nothing to say of a route of others");
    }
}

#[test]
fn ancestors_of_a_policy_go_on_by_what_they_refer_to_and_are_no_more_than_there_is_room_for() {
    let row = |controller: &str, gateway: &str, since: Option<&str>| {
        json!({
            "controllerName": controller, "ancestorRef": { "name": gateway },
            "conditions": [condition("Accepted", "True", since)],
        })
    };
    let (own, other, then) = ("istio.io/gateway-controller", "example.com/other", Some("2026-01-01T00:00:00Z"));
    let before = json!({ "ancestors": [row(own, "a", then), row(other, "a", then)] });
    let after = merged(&before, &json!({ "ancestors": [row(own, "a", None), row(own, "b", None)] }), now()).unwrap();
    let since = Some("2026-05-05T05:05:05Z");
    assert_eq!(after, json!({ "ancestors": [row(other, "a", then), row(own, "a", then), row(own, "b", since)] }));
    let of_mesh = "istio.io/mesh-controller";
    let before_mesh = json!({ "ancestors": [row(of_mesh, "gone", then)] });
    let after = merged(&before_mesh, &json!({ "ancestors": [row(of_mesh, "b", None)] }), now()).unwrap();
    assert_eq!(after, json!({ "ancestors": [row(of_mesh, "b", since)] }), "rows of Services are ours, too");
    let many: Vec<Value> = (0..20).map(|number| row(own, &format!("g{number}"), None)).collect();
    let after = merged(&before, &json!({ "ancestors": many }), now()).unwrap();
    let rows = after["ancestors"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]), (16, &row(other, "a", then)));
}
