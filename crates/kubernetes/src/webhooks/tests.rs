use serde_json::Value;

use super::*;

fn webhook(name: &str) -> Value {
    json!({
        "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore",
        "clientConfig": { "service": { "name": "istiod", "namespace": "istio-system", "path": "/" } },
    })
}

#[test]
fn only_our_webhooks_get_our_root_and_once() {
    let webhooks = json!([webhook("rev.namespace.sidecar-injector.istio.io"), webhook("somebody.example.com")]);
    let mut found: MutatingWebhookConfiguration =
        serde_json::from_value(json!({ "metadata": { "name": "x" }, "webhooks": webhooks })).unwrap();
    assert!(found.adopt(b"root", true));
    assert!(!found.adopt(b"root", true), "nothing is written twice");
    let bundles: Vec<_> =
        found.webhooks.iter().flatten().map(|webhook| webhook.client_config.ca_bundle.clone()).collect();
    assert_eq!(bundles, [Some(ByteString(b"root".to_vec())), None]);
    let policies = found.webhooks.iter().flatten().map(|webhook| webhook.failure_policy.clone().unwrap());
    assert_eq!(
        policies.collect::<Vec<_>>(),
        ["Ignore", "Ignore"],
        "whether pods must be injected is the operator's choice"
    );
}

#[test]
fn validation_is_insisted_on_once_it_works() {
    let mut found: ValidatingWebhookConfiguration = serde_json::from_value(
        json!({ "metadata": { "name": "x" }, "webhooks": [webhook("rev.validation.istio.io")] }),
    )
    .unwrap();
    let policy = |found: &ValidatingWebhookConfiguration| found.webhooks.as_ref().unwrap()[0].failure_policy.clone();
    assert!(found.adopt(b"root", false));
    assert_eq!(policy(&found).as_deref(), Some("Ignore"));
    assert!(found.adopt(b"root", true));
    assert_eq!(policy(&found).as_deref(), Some("Fail"));
    // An installer that writes it anew begins anew.
    found.webhooks.as_mut().unwrap()[0].failure_policy = Some("Ignore".to_owned());
    assert!(found.adopt(b"root", true));
}
