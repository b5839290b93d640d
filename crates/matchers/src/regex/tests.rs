use super::*;

#[test]
fn a_full_regex_matches_only_the_whole_input() {
    let check = |pattern: &str, input: &str, expected: bool| {
        assert_eq!(FullRegex::new(pattern).unwrap().matches(input.as_bytes()), expected, "{pattern} on {input}");
    };
    check("a|ab", "ab", true);
    check("a+", "aaa", true);
    check("a+", "aaab", false);
    check("/status/[0-9]+", "/status/200", true);
    check("", "", true);
    check("", "a", false);
}

#[test]
fn no_byte_keeps_a_regex_from_matching() {
    let check = |pattern: &str, input: &[u8], expected: bool| {
        assert_eq!(FullRegex::new(pattern).unwrap().matches(input), expected, "{pattern} on {input:?}");
    };
    check(".+", b"/\xff", true);
    check(".*admin.*", b"\xc3admin", true);
    check("(?i)[^/]+ADMIN", b"\x80admin", true);
    check("é", "é".as_bytes(), true);
    check("[a-z]+", b"a\xff", false);
}

#[test]
fn bad_patterns_are_refused() {
    for pattern in ["(", "a)(b", "[", "(?<n", "a{5000}{5000}"] {
        assert!(FullRegex::new(pattern).is_err(), "{pattern}");
    }
}

#[test]
fn rewrites_replace_every_match() {
    let check = |pattern: &str, substitution: &str, input: &str, expected: &str| {
        assert_eq!(RegexRewrite::new(pattern, substitution).unwrap().apply_str(input), expected);
    };
    check("^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo");
    check("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz");
    check("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz");
    check("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb");
    check("a", r"\\", "xax", r"x\x");
}

#[test]
fn bad_substitutions_are_refused() {
    for substitution in [r"\1", r"\x", r"tail\"] {
        assert!(RegexRewrite::new("a", substitution).is_err(), "{substitution}");
    }
}
