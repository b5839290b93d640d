use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<Str, Str> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn requirement(key: &str, operator: &str, values: &[&str]) -> MeshLabelSelector {
    let values = values.iter().map(|value| (*value).into()).collect();
    let requirement = LabelSelectorRequirement { key: key.into(), operator: operator.into(), values };
    MeshLabelSelector { match_expressions: vec![requirement], ..MeshLabelSelector::default() }
}

#[test]
fn operators_mean_what_they_mean_in_kubernetes() {
    let own = labels(&[("env", "prod"), ("team", "a")]);
    for (selector, expected) in [
        (MeshLabelSelector::default(), true),
        (MeshLabelSelector { match_labels: labels(&[("env", "prod")]), ..Default::default() }, true),
        (MeshLabelSelector { match_labels: labels(&[("env", "prod"), ("team", "b")]), ..Default::default() }, false),
        (requirement("env", "In", &["test", "prod"]), true),
        (requirement("env", "In", &["test"]), false),
        (requirement("gone", "In", &["test"]), false),
        (requirement("env", "NotIn", &["prod"]), false),
        (requirement("gone", "NotIn", &["prod"]), true),
        (requirement("env", "Exists", &[]), true),
        (requirement("gone", "Exists", &[]), false),
        (requirement("env", "DoesNotExist", &[]), false),
        (requirement("gone", "DoesNotExist", &[]), true),
        (requirement("env", "Gt", &["1"]), false),
    ] {
        assert_eq!(selects(&selector, &own), expected, "{selector:?}");
    }
}
