use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn paths_are_read_in_all_forms() {
    let key = |text: &str| Step::Key(text.to_owned());
    assert_eq!(parse("a.b").unwrap(), [key("a"), key("b")]);
    assert_eq!(parse("a.[0].b").unwrap(), [key("a"), Step::Index(0), key("b")]);
    assert_eq!(parse("a[0].b").unwrap(), [key("a"), Step::Index(0), key("b")]);
    assert_eq!(parse("a.[name:x.y].b").unwrap(), [key("a"), Step::Member("name".into(), "x.y".into()), key("b")]);
    assert_eq!(parse("a.[:v]").unwrap(), [key("a"), Step::Leaf("v".into())]);
    assert_eq!(parse("a.[30m]").unwrap(), [key("a"), Step::Leaf("30m".into())]);
    assert_eq!(parse(r"a.[n:x\.y]").unwrap(), [key("a"), Step::Member("n".into(), "x.y".into())]);
    assert_eq!(parse("a.[-1]").unwrap(), [key("a"), Step::Append]);
    assert_eq!(parse(r"labels.a\.b/c").unwrap(), [key("labels"), key("a.b/c")]);
}

#[test]
fn what_is_no_path_is_refused() {
    for text in ["", "a..b", "a.", ".a", "a.[].b"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
}

fn check(before: Value, path: &str, value: Value, after: Value) {
    let mut root = before;
    set(&mut root, &parse(path).unwrap(), value).unwrap();
    assert_eq!(root, after, "{path}");
}

#[test]
fn values_are_set_where_the_path_leads() {
    check(json!({}), "a.b", json!(1), json!({"a": {"b": 1}}));
    check(json!({"a": null}), "a.b", json!(1), json!({"a": {"b": 1}}));
    check(json!({}), "a.[0].b", json!(1), json!({"a": [{"b": 1}]}));
    check(
        json!({"a": [{"n": "x"}, {"n": "y"}]}),
        "a.[n:y].v",
        json!(2),
        json!({"a": [{"n": "x"}, {"n": "y", "v": 2}]}),
    );
    check(json!({"a": ["x", "y"]}), "a.[:y]", json!("z"), json!({"a": ["x", "z"]}));
    check(json!({"a": [1]}), "a.[-1]", json!(2), json!({"a": [1, 2]}));
    check(json!({"a": [{"port": 80}]}), "a.[port:80].port", json!(81), json!({"a": [{"port": 81}]}));
}

#[test]
fn values_are_read_as_helm_reads_them() {
    for (text, value) in [
        ("1", json!(1)),
        ("-1.5", json!(-1.5)),
        ("007", json!("007")),
        ("inf", json!("inf")),
        ("True", json!(true)),
        ("FALSE", json!(false)),
        ("null", Value::Null),
        ("", json!("")),
        ("a=b", json!("a=b")),
        (r"a\,b", json!("a,b")),
        ("{a,b}", json!(["a", "b"])),
        ("{1, true,x}", json!([1, true, "x"])),
        (r"{a\,b,c}", json!(["a,b", "c"])),
        ("{a,{b,c}}", json!(["a", ["b", "c"]])),
        ("[1,2]", json!([1, 2])),
        (r#"{"a":{"b":1}}"#, json!({"a": {"b": 1}})),
        ("[a", json!("[a")),
        (r#""1""#, json!("1")),
    ] {
        assert_eq!(scalar(text), value, "{text}");
    }
}

#[test]
fn null_removes() {
    check(json!({"a": {"b": 1, "c": 2}}), "a.b", Value::Null, json!({"a": {"c": 2}}));
    check(json!({"a": ["x", "y"]}), "a.[0]", Value::Null, json!({"a": ["y"]}));
}

#[test]
fn a_path_that_does_not_fit_says_where() {
    let mut root = json!({"a": {"b": "text"}, "list": []});
    let mut error = |path: &str, value: Value| set(&mut root, &parse(path).unwrap(), value).unwrap_err().to_string();
    assert_eq!(error("a.b.c", json!(1)), "a.b: is a string, not a map");
    assert_eq!(error("a.[0]", json!(1)), "a: is a map, not a list");
    assert_eq!(error("list.[name:x].y", json!(1)), "list[name:x]: nothing there");
    assert_eq!(error("list.[5]", json!(1)), "list[5]: nothing there");
    assert_eq!(error("list.[0]", Value::Null), "list[0]: nothing there");
}

#[test]
fn values_of_set_have_their_types() {
    assert_eq!(scalar("true"), json!(true));
    assert_eq!(scalar("3"), json!(3));
    assert_eq!(scalar("1.5"), json!(1.5));
    assert_eq!(scalar("1.20.3"), json!("1.20.3"));
    assert_eq!(scalar("inf"), json!("inf"));
    assert_eq!(scalar("[1,2]"), json!([1, 2]));
    assert_eq!(scalar("{a,b}"), json!(["a", "b"]));
    assert_eq!(scalar("null"), json!(null));
}

proptest! {
    #[test]
    fn a_path_that_is_written_is_read_back(keys in prop::collection::vec("[a-z./-]{1,6}", 1..4), index in 0_usize..9) {
        let mut steps: Vec<Step> = keys.into_iter().map(Step::Key).collect();
        steps.push(Step::Index(index));
        steps.push(Step::Member("name".to_owned(), "a.b".to_owned()));
        prop_assert_eq!(parse(&text(&steps)), Ok(steps));
    }

    #[test]
    fn no_text_breaks_the_reader(path in "\\PC{0,20}", value in "\\PC{0,8}") {
        if let Ok(steps) = parse(&path) {
            let mut root = json!({"a": [{"name": "x"}], "b": {"c": 1}});
            let _ = set(&mut root, &steps, scalar(&value));
        }
    }
}
