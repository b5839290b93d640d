use super::*;

#[test]
fn a_configuration_as_the_chart_writes_it_is_read() {
    let config = InjectorConfig::parse(
        "policy: enabled\ndefaultTemplates: []\nalwaysInjectSelector:\n  []\nneverInjectSelector:\n- matchExpressions:\n  \
         - {key: batch, operator: Exists}\ninjectedAnnotations:\ntemplate: '{{ Template_Version }}'\ntemplates:\n  custom: |\n    \
         metadata: {}\n",
    )
    .unwrap();
    assert_eq!(config.default_templates, ["sidecar"]);
    assert_eq!(config.templates["custom"], "metadata: {}\n");
    assert!(config.injected_annotations.is_empty());
}

#[test]
fn unknown_fields_and_policies_are_refused() {
    let error = InjectorConfig::parse("policy: enabled\npolcy: x\n").unwrap_err();
    assert!(error.contains("polcy"), "{error}");
    let error = InjectorConfig::parse("policy: sometimes\n").unwrap_err();
    assert!(error.contains("sometimes"), "{error}");
}

#[test]
fn a_selector_needs_all_that_it_says_and_an_empty_one_selects_nothing() {
    let selects = |text: &str| {
        let selector: LabelSelector = serde_saphyr::from_str(text).unwrap();
        selector.selects(&|key| (key == "app").then(|| "web".to_owned()))
    };
    assert!(!selects("{}"));
    assert!(selects("matchLabels: {app: web}"));
    assert!(!selects("matchLabels: {app: web, tier: front}"));
    assert!(selects("matchExpressions: [{key: app, operator: In, values: [web, api]}]"));
    assert!(!selects("matchExpressions: [{key: app, operator: NotIn, values: [web]}]"));
    assert!(selects("matchExpressions: [{key: tier, operator: NotIn, values: [web]}]"));
    assert!(selects("matchExpressions: [{key: app, operator: Exists}]"));
    assert!(selects("matchExpressions: [{key: tier, operator: DoesNotExist}]"));
    assert!(!selects("{matchLabels: {app: web}, matchExpressions: [{key: app, operator: DoesNotExist}]}"));
}
