use super::*;

#[test]
fn both_spellings_name_a_claim_and_a_header_is_none() {
    let cases: [(&str, Option<&[&str]>); 8] = [
        ("@request.auth.claims.group", Some(&["group"])),
        ("@request.auth.claims.a.b", Some(&["a", "b"])),
        ("@request.auth.claims[a.b][c]", Some(&["a.b", "c"])),
        ("@Request.Auth.Claims.x", Some(&["x"])),
        ("@request.auth.claimsx", None),
        ("@request.auth.claims.", None),
        ("@request.auth.claims[]", None),
        ("x-header", None),
    ];
    for (name, expected) in cases {
        let expected = expected.map(|parts| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(path(name), expected, "{name}");
    }
}

#[test]
fn a_claim_matches_as_text_or_in_a_list() {
    let matcher = matcher(&["group".into()], &StringMatch::exact("admin"), true);
    assert!(matcher.invert);
    assert_eq!(matcher.path.len(), 2);
    let Some(MatchPattern::OrMatch(either)) = matcher.value.unwrap().match_pattern else { panic!("not an or-match") };
    assert!(matches!(either.value_matchers[0].match_pattern, Some(MatchPattern::ListMatch(_))));
    assert!(matches!(either.value_matchers[1].match_pattern, Some(MatchPattern::StringMatch(_))));
}
