use serde_json::json;

use super::*;

#[test]
fn texts_that_look_like_something_else_are_quoted() {
    let texts = [
        "yes",
        "on",
        "no",
        "off",
        "y",
        "true",
        "null",
        "~",
        "1",
        "0x1f",
        "1e3",
        "0777",
        "1_000",
        ".5",
        "2024-01-01",
        "",
        "*",
        "- a",
        "a: b",
        "#x",
        "a\nb\n",
        "'q'",
        "{}",
    ];
    for text in texts {
        let written = yaml(&json!({ "a": text, text: 1 })).unwrap();
        let read = value(&written).unwrap();
        assert_eq!(read["a"], text, "{written}");
        assert_eq!(read[text], if text == "a" { json!(text) } else { json!(1) }, "{written}");
        // Readers of YAML 1.1 take these for booleans.
        if ["yes", "on", "no", "off", "y"].contains(&text) {
            assert!(!written.contains(&format!("a: {text}\n")), "{written}");
        }
    }
}

#[test]
fn errors_have_a_line_and_no_place_of_their_own() {
    let error = value("a: b\nc: [\n").unwrap_err();
    assert_eq!(error.line, 2);
    assert!(!error.message.contains("line"), "{error}");
}

#[test]
fn a_text_of_nothing_is_an_empty_map() {
    assert_eq!(value("# only this\n"), Ok(json!({})));
}
