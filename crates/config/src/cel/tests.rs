use super::{Budget, Expression, Value};

fn expression(text: &str) -> Result<(), String> {
    Expression::parse(text).map(drop)
}

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

/// What an expression comes to, written as an expression that must be equal to it; or the failure.
fn comes_to(text: &str, wanted: &str) {
    let value = |text: &str| {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let variables = [("x", Value::Int(3)), ("s", Value::text("h\u{e4}llo"))];
        assert_eq!(expression.unknown(&["x", "s"]), None, "{text}");
        expression.evaluate(&variables, &Budget::default())
    };
    match (value(text), wanted.strip_prefix("error: ")) {
        (Err(failure), Some(wanted)) => assert_eq!(failure.0, wanted, "{text}"),
        (Ok(found), None) => {
            let wanted = value(wanted).unwrap_or_else(|failure| panic!("{wanted}: {failure}"));
            assert!(found.equals(&wanted) && found.kind() == wanted.kind(), "{text}: {found:?}, not {wanted:?}");
        }
        (found, _) => panic!("{text}: {found:?}, not {wanted}"),
    }
}

#[test]
fn expressions_come_to_values() {
    for (text, wanted) in [
        ("1 + 2 * 3 - 4 / 2 % 2", "7"),
        ("-x + 5 == 2 && !false", "true"),
        ("x > 2 ? 'a' : 'b'", "'a'"),
        ("1 == 1.0 && 1u == 1 && 'a' != 1", "true"),
        ("[1, 2] + [3] == [1, 2, 3]", "true"),
        ("{'a': 1, 'b': 2}.b + {'a': 1}['a']", "3"),
        ("'b' in {'a': 1} || 2 in [1, 2]", "true"),
        ("has({'a': 1}.a) && !has({'a': 1}.b)", "true"),
        ("[1, 2, 3].filter(i, i > 1).map(i, i * x)", "[6, 9]"),
        ("[1, 2, 3].map(i, i != 2, i + 1)", "[2, 4]"),
        ("[1, 2, 2].exists_one(i, i == 2) || [1, 2].existsOne(i, i == 2)", "true"),
        ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", "true"),
        ("[[1], [2]].all(x, x.exists(y, y > 0)) && x == 3", "true"),
        ("r'\\d' + '\\x41\\u00e4\\n'", "'\\\\dA\u{e4}\\n'"),
        ("b'\\xff' == bytes('a') || b'abc' == bytes('abc')", "true"),
        ("0x1F == 31 && -0x10 == -16 && 1e2 == 100.0", "true"),
        ("-9223372036854775808 < 0", "true"),
        ("type(1) == int && type('') == string && type([]) != map", "true"),
    ] {
        comes_to(text, wanted);
    }
}

#[test]
fn an_error_does_not_count_where_the_other_side_decides() {
    comes_to("1 / 0 > 0 || true", "true");
    comes_to("false && 1 / 0 > 0", "false");
    comes_to("1 / 0 > 0 || false", "error: division by zero");
    comes_to("[1, 0].exists(i, 1 / i > 0)", "true");
    comes_to("[0, 1].all(i, 1 / i > 5)", "false");
    comes_to("[0].all(i, 1 / i > 5)", "error: division by zero");
    comes_to("[0, 1].exists_one(i, 1 / i > 0)", "error: division by zero");
    comes_to("'a' && true", "error: no such overload: _&&_(string)");
}

#[test]
fn what_cannot_be_computed_is_an_error() {
    for (text, wanted) in [
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("1u - 2u", "error: unsigned integer overflow"),
        ("1 + 1u", "error: no such overload: _+_(int, uint)"),
        ("1 < 'a'", "error: no such overload: _<_(int, string)"),
        ("[1][1]", "error: index out of bounds"),
        ("{'a': 1}.b", "error: no such key: b"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("{'a': 1, 'a': 2}", "error: a key stands twice"),
        ("x ? 1 : 2", "error: no such overload: _?_:_(int)"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("duration('1')", "error: type conversion error from 'string' to 'google.protobuf.Duration'"),
        ("'a'.matches('(')", "error: \"(\" is no regular expression"),
        ("'abc'.substring(4)", "error: index out of range: 4"),
        ("'abc'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1"),
    ] {
        comes_to(text, wanted);
    }
}

#[test]
fn texts_are_counted_in_characters() {
    for (text, wanted) in [
        ("s.size() + size(s)", "10"),
        ("s.substring(1, 3) + s.charAt(5) + s.charAt(0)", "'\u{e4}lh'"),
        ("s.indexOf('l') * 10 + s.lastIndexOf('l')", "23"),
        ("'abcabc'.indexOf('a', 1) == 3 && 'abc'.indexOf('x') == -1 && 'abc'.indexOf('') == 0", "true"),
        ("'a.b.c'.split('.') == ['a', 'b', 'c'] && 'a.b.c'.split('.', 2) == ['a', 'b.c']", "true"),
        ("s.split('').size() == 5 && ['a', 'b'].join('-') == 'a-b' && ['a', 'b'].join() == 'ab'", "true"),
        ("'a-a-a'.replace('a', 'bb', 2)", "'bb-bb-a'"),
        ("' aB\\t'.trim().lowerAscii() + 'aB'.upperAscii()", "'abAB'"),
        ("'abc123'.find('[0-9]+') + 'a1b2'.findAll('[0-9]').join(',')", "'1231,2'"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b') && matches('abc', '^a.c$')", "true"),
    ] {
        comes_to(text, wanted);
    }
}

#[test]
fn times_urls_and_addresses_are_values() {
    for (text, wanted) in [
        ("duration('1h30m') > duration('89m') && duration('-1s') < duration('0s')", "true"),
        ("duration('90s').getMinutes() + duration('1.5s').getMilliseconds()", "501"),
        ("string(duration('90s'))", "'90s'"),
        ("timestamp('2026-01-02T03:04:05Z').getFullYear() + timestamp('2026-01-02T00:00:00Z').getMonth()", "2026"),
        ("timestamp('2026-01-02T03:04:05Z') - timestamp('2026-01-02T03:04:00Z') == duration('5s')", "true"),
        ("timestamp('2026-01-02T23:30:00Z').getDate('+01:00')", "3"),
        ("url('https://user@a.b:80/x?y=1&y=2#z').getHost() + url('https://[::1]:80/').getHostname()", "'a.b:80::1'"),
        ("url('https://a:80/x%20y').getPort() + url('https://a/x%20y').getEscapedPath()", "'80/x%20y'"),
        ("url('http://a/?b=1&b=%20').getQuery()['b'] == ['1', ' ']", "true"),
        ("isURL('/a') && isURL('mailto:a') && !isURL('a') && !isURL('http://a:b/') && !isURL('http://#%a#@')", "true"),
        ("url('a.b')", "error: URL parse error during conversion from string: \"a.b\" is no URL"),
        ("isIP('::1') && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4') && ip('10.0.0.1').family() == 4", "true"),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('0.0.0.0/0')", "true"),
        ("cidr('10.1.0.0/8').masked() == cidr('10.0.0.0/8') && cidr('::/0').prefixLength() == 0", "true"),
    ] {
        comes_to(text, wanted);
    }
}

#[test]
fn lists_can_be_summed_up() {
    comes_to("[3, 1, 2].sum() * 100 + [3, 1, 2].min() * 10 + [3, 1, 2].max()", "613");
    comes_to("[1, 2, 2].isSorted() && ![2, 1].isSorted() && [1, 2, 1].lastIndexOf(1) == 2", "true");
    comes_to("[].max()", "error: min or max called on an empty list");
}

#[test]
fn names_that_nobody_knows_are_found() {
    let unknown = |text: &str| Expression::parse(text).expect("an expression").unknown(&["self"]);
    assert_eq!(unknown("self.a.all(x, x > 0)"), None);
    assert_eq!(unknown("self.all(x, y > x)"), Some("undeclared reference to \"y\"".into()));
    assert_eq!(unknown("self.all(x, true) && x"), Some("undeclared reference to \"x\"".into()));
    assert_eq!(unknown("quantity(self)"), Some("no function \"quantity\"".into()));
    assert_eq!(unknown("a.B{c: 1}"), Some("messages cannot be made here".into()));
    assert!(Expression::parse("has(self.a) && self.b == oldSelf").is_ok_and(|e| e.names("oldSelf") && !e.names("a")));
}

#[test]
fn a_tree_is_not_deeper_than_evaluation_can_go() {
    assert!(expression(&format!("a{}", ".b".repeat(1_000))).is_err());
    let deepest = format!("{}0{}", "[".repeat(200), "]".repeat(200));
    let deepest = format!("{deepest} == {deepest}{}", " + 1".repeat(50));
    let value = Expression::parse(&deepest).map(|expression| expression.evaluate(&[], &Budget::default()));
    assert!(value.is_ok_and(|value| value.is_err()));
    assert_eq!(expression(&vec!["a.b"; 10_000].join(" || ")), Ok(()));
}
