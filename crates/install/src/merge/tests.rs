use serde_json::json;

use super::*;

#[test]
fn values_replace_lists_and_merge_maps() {
    let mut base = json!({"a": {"b": 1, "c": [1, 2]}, "d": "x"});
    overlay(&mut base, &json!({"a": {"c": [3], "e": true}, "d": null}));
    assert_eq!(base, json!({"a": {"b": 1, "c": [3], "e": true}}));
}

#[test]
fn a_strategic_patch_merges_the_lists_that_have_keys() {
    let mut base = json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}], "args": ["p"]}], "tolerations": [{"key": "k"}]});
    let patch = json!({
        "containers": [{"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}], "args": ["q"]}],
        "tolerations": [{"key": "l"}],
    });
    strategic(&mut base, &patch);
    assert_eq!(
        base,
        json!({
            "containers": [{"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}], "args": ["q"]}],
            "tolerations": [{"key": "l"}],
        })
    );
}

#[test]
fn an_entry_that_changes_its_source_keeps_no_trace_of_the_old_one_only_when_told() {
    let mut base = json!({"env": [{"name": "X", "value": "1"}]});
    strategic(
        &mut base,
        &json!({"env": [{"name": "X", "value": null, "valueFrom": {"fieldRef": {"fieldPath": "f"}}}]}),
    );
    assert_eq!(base, json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "f"}}}]}));
}
