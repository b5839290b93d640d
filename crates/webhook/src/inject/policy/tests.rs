use serde_json::json;

use super::*;

const ALWAYS: &str = "alwaysInjectSelector: [{matchLabels: {want: it}}]\n";
const NEVER: &str = "neverInjectSelector: [{matchLabels: {skip: it}}]\n";

fn check(config: &str, pod: Value, expected: bool) {
    let config = InjectorConfig::parse(config).unwrap();
    assert_eq!(is_required(&config, &pod), expected, "{pod}");
}

fn labelled(labels: Value) -> Value {
    json!({ "metadata": { "namespace": "shop", "labels": labels }, "spec": {} })
}

#[test]
fn the_policy_decides_for_pods_that_say_nothing() {
    check("policy: enabled", labelled(json!({})), true);
    check("policy: disabled", labelled(json!({})), false);
}

#[test]
fn a_pods_own_word_wins_and_the_label_over_the_annotation() {
    check("policy: disabled", labelled(json!({ "sidecar.istio.io/inject": "true" })), true);
    let both = json!({
        "metadata": {
            "labels": { "sidecar.istio.io/inject": "false" },
            "annotations": { "sidecar.istio.io/inject": "true" },
        },
        "spec": {},
    });
    check("policy: enabled", both, false);
    check("policy: enabled", labelled(json!({ "sidecar.istio.io/inject": "yes" })), true);
    let said = labelled(json!({ "sidecar.istio.io/inject": "true", "skip": "it" }));
    check(&format!("policy: disabled\n{NEVER}"), said, true);
}

#[test]
fn never_wins_over_always_and_both_over_the_policy() {
    let both = format!("policy: enabled\n{ALWAYS}{NEVER}");
    check(&both, labelled(json!({ "want": "it", "skip": "it" })), false);
    check(&format!("policy: disabled\n{ALWAYS}"), labelled(json!({ "want": "it" })), true);
    check(&both, labelled(json!({ "skip": "it" })), false);
}

#[test]
fn the_hosts_network_and_kubernetes_own_namespaces_are_left_alone() {
    let said = json!({ "sidecar.istio.io/inject": "true" });
    check("policy: enabled", json!({ "metadata": { "labels": said }, "spec": { "hostNetwork": true } }), false);
    for namespace in IGNORED_NAMESPACES {
        check("policy: enabled", json!({ "metadata": { "namespace": namespace, "labels": said }, "spec": {} }), false);
    }
}
