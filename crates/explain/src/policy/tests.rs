use super::*;

#[test]
fn rules_are_found_by_the_names_that_translation_gives_them() {
    let title = |name: &str| Rule::of_name(name).map(|rule| rule.title());
    let expected = Some("AuthorizationPolicy shop/readers spec.rules[2]".to_owned());
    assert_eq!(title("ns[shop]-policy[readers]-rule[2]"), expected);
    assert_eq!(title("istio-ext-authz-door-ns[shop]-policy[readers]-rule[2]"), expected);
    assert_eq!(title("ns[shop]-policy[readers]-rule[2]-deny-due-to-bad-CUSTOM-action"), expected);
    for other in ["", "mine", "ns[shop]", "ns[shop]-policy[readers]-rule[x]"] {
        assert_eq!(title(other), None, "{other:?}");
    }
}

#[test]
fn audit_tells_only_what_it_matched_and_connections_are_closed() {
    assert_eq!(said(RbacAction::Log, true, None, true), None);
    let audited = said(RbacAction::Log, true, Some("ns[a]-policy[b]-rule[0]"), true).unwrap();
    assert_eq!(audited.text(), "AUDIT: AuthorizationPolicy a/b spec.rules[0] matches");
    let closed = said(RbacAction::Deny, false, Some("ns[a]-policy[b]-rule[0]"), false).unwrap();
    assert!(closed.is_refusal() && closed.text().ends_with("so the connection is closed"), "{}", closed.text());
    let broken = said(RbacAction::Deny, false, Some(&format!("ns[a]-policy[b]-rule[0]{BAD_CUSTOM}")), true).unwrap();
    assert!(broken.text().starts_with("CUSTOM without its provider: "), "{}", broken.text());
    assert_eq!(summary(&[]), None);
    assert!(summary(std::slice::from_ref(&audited)).unwrap().starts_with("passed by AUDIT"));
    assert!(summary(&[audited, closed]).unwrap().starts_with("refused by DENY"));
}
