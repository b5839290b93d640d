use serde_json::json;

use super::*;

#[test]
fn what_is_not_there_and_what_is_empty_are_one() {
    let row = json!({ "controllerName": "example.com/other" });
    let none = json!({ "parents": [] });
    for nothing in [json!({}), Value::Null, none.clone(), json!({ "parents": null })] {
        assert!(says_the_same(&nothing, &none), "{nothing}: nothing to say of a route of others");
    }
    let some = json!({ "parents": [row] });
    assert!(!says_the_same(&some, &none) && !says_the_same(&none, &some) && says_the_same(&some, &some));
}

#[test]
fn times_are_whole_seconds() {
    assert_eq!(time("2026-05-05T05:05:05.5Z".parse().unwrap()), "2026-05-05T05:05:05Z");
}
