use serde_json::json;

use super::*;

fn check(wanted: Value, live: Value, expected: &[&str]) {
    let mut found = Vec::new();
    differences(&wanted, &live, "", &mut found);
    assert_eq!(found, expected);
}

#[test]
fn what_others_add_is_no_difference_and_what_they_change_is() {
    check(json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}}), &[]);
    check(json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), &["a.b is 2, not 1"]);
    check(json!({"a": {"b": 1}}), json!({"a": {}}), &["a.b is not there"]);
    check(json!({"a": [1, 2]}), json!({"a": [1]}), &["a[1] is not there"]);
    check(json!({"a": {"b": 1}}), json!({"a": "x"}), &["a is a string, not a map"]);
    check(json!({"a": {}, "b": ""}), json!({}), &[]);
}

#[test]
fn members_of_lists_are_found_by_name() {
    let live = json!({"env": [{"name": "new", "value": "0"}, {"name": "x", "value": "1"}]});
    check(json!({"env": [{"name": "x", "value": "1"}]}), live.clone(), &[]);
    check(json!({"env": [{"name": "x", "value": "2"}]}), live, &["env[0].value is \"1\", not \"2\""]);
}

#[test]
fn amounts_are_compared_by_what_they_come_to() {
    check(json!({"cpu": "2000m", "memory": "1024Mi"}), json!({"cpu": "2", "memory": "1Gi"}), &[]);
    check(json!({"cpu": "2000m"}), json!({"cpu": "3"}), &["cpu is \"3\", not \"2000m\""]);
}
