use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn what_is_written_is_read_back() {
    let value = json!({
        "kind": "ConfigMap",
        "data": {"mesh": "a: 1\nb:\n  c: 2\n", "text": "one\n\ntwo", "odd": " leading\nspace", "end": "x\n\n"},
        "list": [1, "two", {"a": ["x", "y"], "b": {}}, [], [[1, 2], "z"], "p\nq"],
        "words": ["yes", "On", "null", "1", "1e3", "0x10", "a: b", "a:", "#c", "*", "", "inf", ".5", "-", "a#b", "é", "\u{1}"],
        "times": ["12:30", "15m", "2Gi", "100%"],
        "empty": null, "flag": true, "number": 1.5,
    });
    let text = write(&value);
    assert_eq!(read(&text).unwrap(), value, "{text}");
}

#[test]
fn the_layout_is_that_of_manifests() {
    let value = json!({"metadata": {"name": "x"}, "rules": [{"verbs": ["get", "list"], "port": 80}], "data": {"a": "l1\nl2\n"}});
    let expected = "\
metadata:
  name: x
rules:
- verbs:
  - get
  - list
  port: 80
data:
  a: |
    l1
    l2
";
    assert_eq!(write(&value), expected);
}

#[test]
fn numbers_and_words_in_quotes_stay_text_for_old_readers() {
    assert_eq!(write(&json!({"a": "yes", "b": "1.20", "c": "istio"})), "a: \"yes\"\nb: \"1.20\"\nc: istio\n");
}

#[test]
fn an_empty_document_is_null() {
    for text in ["", "---\n", "# nothing\n\n"] {
        assert_eq!(read(text).unwrap(), Value::Null);
    }
}

/// Any document; of numbers those that JSON and YAML write alike.
fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof!["[a-z]{0,3}", "[ -~\n\t]{0,12}", "\\PC{0,6}", "[-?:,\\[\\]{}#&*!|>'\"%@`~0-9.eE+ \n]{0,6}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text.clone(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_document_is_read_back(value in any_value()) {
        let text = write(&value);
        prop_assert_eq!(read(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?, value, "{}", text);
    }
}
