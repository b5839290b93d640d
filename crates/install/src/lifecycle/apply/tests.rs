use serde_json::json;

use super::*;
use crate::operator::Request;

#[test]
fn objects_of_a_mesh_are_known_by_their_labels() {
    let labelled = |labels: Value| is_of_a_mesh(&json!({"kind": "Deployment", "metadata": {"labels": labels}}));
    assert!(labelled(json!({"operator.istio.io/component": "Pilot"})));
    assert!(labelled(json!({"app.kubernetes.io/part-of": "istio"})));
    assert!(labelled(json!({"app": "istiod"})));
    assert!(!labelled(json!({"app": "shop"})));
    assert!(!is_of_a_mesh(&json!({"kind": "Deployment", "metadata": {}})));
    let definition = |group: &str| {
        is_of_a_mesh(&json!({"kind": "CustomResourceDefinition", "metadata": {}, "spec": {"group": group}}))
    };
    assert!(definition("networking.istio.io"));
    assert!(!definition("example.com"));
}

#[test]
fn a_webhook_that_was_ready_does_not_fail_open_again() {
    let webhook = |policy: &str| json!({"kind": "ValidatingWebhookConfiguration", "webhooks": [{"name": "rev.validation.istio.io", "failurePolicy": policy}]});
    assert_eq!(carried_over(&webhook("Ignore"), Some(&webhook("Fail"))), webhook("Fail"));
    assert_eq!(carried_over(&webhook("Fail"), Some(&webhook("Ignore"))), webhook("Fail"));
    assert_eq!(carried_over(&webhook("Ignore"), None), webhook("Ignore"));
}

#[test]
fn what_holds_users_documents_is_not_pruned() {
    assert!(is_pruned("Deployment"));
    for kind in ["CustomResourceDefinition", "Namespace", "Secret"] {
        assert!(!is_pruned(kind), "{kind}");
    }
}

#[test]
fn a_running_ztunnel_goes_unless_the_mesh_stays_ambient() {
    let labels = |settings: &[&str]| {
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        labels_of_made(&Operator::resolve(&Request { settings, ..Request::default() }).unwrap())
    };
    let selector = labels(&[]);
    assert!(selector.contains(",Ztunnel)"), "{selector}");
    assert!(selector.ends_with("istio.io/rev=default"), "{selector}");
    for stays in ["profile=ambient", "values.pilot.env.PILOT_ENABLE_AMBIENT=true"] {
        assert!(!labels(&[stays]).contains("Ztunnel"), "{stays}");
    }
}
