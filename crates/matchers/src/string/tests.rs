use super::*;

#[test]
fn patterns_match_as_envoys() {
    let check = |matcher: &StringMatcher, input: &str, expected: bool| {
        assert_eq!(matcher.matches(input), expected, "{matcher:?} on {input:?}");
    };
    check(&StringMatcher::exact("abc"), "abc", true);
    check(&StringMatcher::exact("abc"), "ABC", false);
    check(&StringMatcher::exact("abc").ignoring_case(true), "ABC", true);
    check(&StringMatcher::prefix("ab"), "abc", true);
    check(&StringMatcher::prefix("abcd"), "abc", false);
    check(&StringMatcher::prefix("AB").ignoring_case(true), "abc", true);
    check(&StringMatcher::suffix("bc"), "abc", true);
    check(&StringMatcher::suffix("abcd"), "abc", false);
    check(&StringMatcher::suffix("BC").ignoring_case(true), "abc", true);
    check(&StringMatcher::contains("b"), "abc", true);
    check(&StringMatcher::contains("B").ignoring_case(true), "abc", true);
    check(&StringMatcher::contains("x"), "abc", false);
    check(&StringMatcher::contains("longer"), "abc", false);
    check(&StringMatcher::regex("a.c").unwrap(), "abc", true);
    check(&StringMatcher::regex("b").unwrap(), "abc", false);
}

#[test]
fn a_path_matcher_stops_before_query_and_fragment() {
    let matcher = PathMatcher(StringMatcher::exact("/a"));
    for (path, expected) in [("/a", true), ("/a?b", true), ("/a#b", true), ("/ab", false), ("/a/?b", false)] {
        assert_eq!(matcher.matches(path), expected, "{path}");
    }
}
