use super::*;

fn installed(policy: &str, bundle: &str) -> Value {
    let service = json!({"name": "istiod", "namespace": "istio-system", "path": "/validate"});
    json!({"metadata": {"name": "istio-validator-istio-system"}, "webhooks": [
        {"name": "rev.validation.istio.io", "failurePolicy": policy, "clientConfig": {"service": service, "caBundle": bundle}},
        {"name": "validation.istio.io", "failurePolicy": policy, "clientConfig": {"service": service, "caBundle": bundle}},
    ]})
}

#[test]
fn roots_are_given_at_once_and_nothing_is_refused_unasked_until_a_probe_came_back() {
    let first = desired(&installed("Ignore", ""), "Qg==", Readiness::Unknown).expect("a change");
    assert_eq!(first, installed("Ignore", "Qg=="));
    assert_eq!(desired(&first, "Qg==", Readiness::Unknown), None);
    let ready = desired(&first, "Qg==", Readiness::Refuses).expect("a change");
    assert_eq!(ready, installed("Fail", "Qg=="));
    assert_eq!(desired(&ready, "Qg==", Readiness::Refuses), None);
}

#[test]
fn a_restart_does_not_open_what_was_closed_and_new_roots_replace_the_old() {
    assert_eq!(desired(&installed("Fail", "Qg=="), "Qg==", Readiness::Unknown), None);
    assert_eq!(desired(&installed("Fail", "Qg=="), "Qw==", Readiness::Unknown), Some(installed("Fail", "Qw==")));
}

#[test]
fn a_webhook_at_a_url_keeps_the_roots_that_were_written_for_it() {
    let at_url = |bundle: &str| json!({"webhooks": [{"failurePolicy": "Fail", "clientConfig": {"url": "https://a/validate", "caBundle": bundle}}]});
    assert_eq!(desired(&at_url("Qg=="), "Qw==", Readiness::Refuses), None);
    assert_eq!(desired(&at_url(""), "Qw==", Readiness::Refuses), Some(at_url("Qw==")));
}

#[test]
fn only_a_refusal_by_a_webhook_proves_that_questions_arrive() {
    let denied = "admission webhook \"rev.validation.istio.io\" denied the request: configuration is invalid";
    assert_eq!(Readiness::of_probe(Some(denied)), Readiness::Refuses);
    assert_eq!(
        Readiness::of_probe(Some("Internal error: failed calling webhook: no endpoints available")),
        Readiness::Unknown
    );
    assert_eq!(Readiness::of_probe(Some("the server could not find the requested resource")), Readiness::Refuses);
    assert_eq!(Readiness::of_probe(None), Readiness::Unknown);
}
