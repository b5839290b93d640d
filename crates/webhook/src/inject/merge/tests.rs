use serde_json::json;

use super::*;

fn check(original: Value, patch: Value, expected: Value) {
    assert_eq!(strategic_merge(&original, &patch, Shape::named("PodSpec")), Ok(expected));
}

#[test]
fn containers_merge_by_name_and_new_ones_come_first() {
    check(
        json!({ "containers": [{ "name": "app", "image": "a" }, { "name": "proxy", "image": "old", "tty": true }] }),
        json!({ "containers": [{ "name": "other" }, { "name": "proxy", "image": "new" }] }),
        json!({ "containers": [{ "name": "other" }, { "name": "app", "image": "a" },
            { "name": "proxy", "image": "new", "tty": true }] }),
    );
}

#[test]
fn lists_without_a_key_are_replaced() {
    check(
        json!({ "containers": [{ "name": "app", "args": ["a", "b"] }] }),
        json!({ "containers": [{ "name": "app", "args": ["c"] }] }),
        json!({ "containers": [{ "name": "app", "args": ["c"] }] }),
    );
}

#[test]
fn null_deletes_and_leaves_no_null_behind() {
    check(
        json!({ "nodeName": "n", "hostname": "h" }),
        json!({ "nodeName": null, "subdomain": null, "volumes": [{ "name": "v", "emptyDir": null }] }),
        json!({ "hostname": "h", "volumes": [{ "name": "v" }] }),
    );
}

#[test]
fn directives_replace_delete_and_retain() {
    check(
        json!({ "nodeSelector": { "a": "1" } }),
        json!({ "nodeSelector": { "$patch": "replace", "b": "2" } }),
        json!({ "nodeSelector": { "b": "2" } }),
    );
    check(
        json!({ "containers": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "containers": [{ "name": "a", "$patch": "delete" }] }),
        json!({ "containers": [{ "name": "b" }] }),
    );
    check(
        json!({ "containers": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "containers": [{ "$patch": "replace" }, { "name": "c" }] }),
        json!({ "containers": [{ "name": "c" }] }),
    );
    check(
        json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }),
        json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "csi"], "csi": { "driver": "d" } }] }),
        json!({ "volumes": [{ "name": "v", "csi": { "driver": "d" } }] }),
    );
    check(
        json!({ "containers": [{ "name": "a" }, { "name": "b" }] }),
        json!({ "$setElementOrder/containers": [{ "name": "b" }, { "name": "a" }] }),
        json!({ "containers": [{ "name": "b" }, { "name": "a" }] }),
    );
}

#[test]
fn a_directive_without_meaning_is_refused_with_its_path() {
    let patch = json!({ "nodeSelector": { "$patch": "swap" } });
    let error = strategic_merge(&json!({ "nodeSelector": {} }), &patch, Shape::named("PodSpec")).unwrap_err();
    assert_eq!(error.to_string(), "nodeSelector.$patch: \"swap\" is none of replace, merge, delete");
    let patch = json!({ "containers": [{ "image": "i" }] });
    let error = strategic_merge(&json!({ "containers": [] }), &patch, Shape::named("PodSpec")).unwrap_err();
    assert_eq!(error.to_string(), "containers: \"name\", by which the list merges, is missing");
}
