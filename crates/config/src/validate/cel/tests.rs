use super::expression;

#[test]
fn expressions_are_taken() {
    for text in [
        "response.code >= 400",
        "connection.mtls && request.url_path.contains('v1beta3')",
        "response.code",
        "a ? b : c ? d : e",
        "!has(response.flags) || -x in [1, 2u, 0xFF, .5, 1e3, 1.5E-3,]",
        "{'a': 1, b: [2], \"c\": r'\\d+'}['a'] == b'\\x00\\377'",
        "request.headers['x-a'].startsWith(\"\"\"a\nb\"\"\") // why\n && true",
        "xs.all(x, x.exists(y, y > 0)) && m.map(k, k != '', k).size() > 0",
        ".google.rpc.Status{code: 1, message: 'a'}.code == 1",
        "a.package.namespace == null",
        "--1 < 2 && !!a",
    ] {
        assert_eq!(expression(text), Ok(()), "{text}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_what_was_found() {
    for (text, wrong) in [
        (")++++", "expected an operand, found `)`"),
        ("", "expected an operand, found the end"),
        ("a b", "unexpected `b`"),
        ("a = b", "unexpected '='"),
        ("10.0.0.0/8", "unexpected a value"),
        ("1.5s", "unexpected `s`"),
        ("f(a,)", "expected an argument, found `)`"),
        ("a ? b", "expected :, found the end"),
        ("a.", "expected a field, found the end"),
        ("'a", "a text without its end"),
        ("'\\q'", "an unknown escape in a text"),
        ("has(a)", "has() needs a field, as in has(a.b)"),
        ("xs.all(1, true)", "the first argument of all() must be the name of a variable"),
        ("for + 1", "expected an operand, found `for`"),
        ("a & b", "unexpected '&'"),
        ("[1, 2", "expected ], found the end"),
        ("a.in", "expected a field, found `in`"),
    ] {
        assert_eq!(expression(text), Err(wrong.to_owned()), "{text}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep = |n: usize| format!("{}a{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(expression(&deep(200)), Ok(()));
    assert!(expression(&deep(300)).is_err());
    assert!(expression(&"(".repeat(100_000)).is_err());
}
