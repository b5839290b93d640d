use super::*;
use crate::operator::{Operator, Request};
use crate::path::find;

#[test]
fn every_profile_resolves_without_a_refusal() {
    for profile in PROFILES {
        let request = Request { settings: vec![format!("profile={}", profile.name)], ..Request::default() };
        let operator = Operator::resolve(&request).unwrap_or_else(|errors| panic!("{}: {errors:?}", profile.name));
        let expected = usize::from(profile.name.contains("ambient"));
        assert_eq!(operator.notices.len(), expected, "{}: {:?}", profile.name, operator.notices);
    }
}

#[test]
fn every_field_of_a_profile_is_known() {
    for profile in PROFILES {
        let text =
            format!("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n{}", indent(profile.text));
        let documents = vec![Source { name: profile.name.to_owned(), text }];
        let operator = Operator::resolve(&Request { documents, ..Request::default() }).unwrap();
        assert_eq!(operator.notices, [], "{}", profile.name);
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

#[test]
fn profiles_lie_over_the_default() {
    let spec = Profile::named("demo").unwrap().spec().unwrap();
    assert_eq!(find(&spec, "components.pilot.enabled"), Some(&Value::Bool(true)));
    assert_eq!(spec["components"]["egressGateways"][0]["enabled"], Value::Bool(true));
}

#[test]
fn a_name_that_is_none_is_refused_and_production_is_the_default() {
    let refused = Operator::resolve(&Request { settings: vec!["profile=defualt".to_owned()], ..Request::default() });
    assert!(refused.unwrap_err()[0].to_string().starts_with("spec.profile: \"defualt\": one of ambient, default"));
    let request = Request { settings: vec!["profile=production".to_owned()], ..Request::default() };
    let notices = Operator::resolve(&request).unwrap().notices;
    assert!(notices[0].message.contains("the default is meant for production"), "{notices:?}");
}
