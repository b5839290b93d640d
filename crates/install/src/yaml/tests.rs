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
