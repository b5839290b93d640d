use serde_json::{Value, json};

use super::*;

fn question(object: Value) -> Vec<u8> {
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": { "uid": "u", "object": object } })
        .to_string()
        .into_bytes()
}

fn stats() -> (Registry, InjectionStats) {
    let registry = Registry::new();
    let stats = InjectionStats::new(&registry);
    (registry, stats)
}

fn counts(registry: &Registry) -> [u64; 4] {
    ["requests", "success", "failure", "skip"]
        .map(|name| registry.total(&format!("sidecar_injection_{name}_total"), &[]))
}

fn read(answered: &Answered) -> Value {
    serde_json::from_slice(&answered.body).unwrap()
}

#[test]
fn every_outcome_is_answered_and_counted() {
    for (outcome, response, expected) in [
        (
            Ok(Outcome::Injected(json!([]))),
            json!({ "uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch" }),
            [1, 1, 0, 0],
        ),
        (Ok(Outcome::Skipped), json!({ "uid": "u", "allowed": true }), [1, 1, 0, 1]),
        (
            Err(InjectError::Prometheus("x".to_owned())),
            json!({ "uid": "u", "allowed": false, "status": { "metadata": {}, "message": "invalid prometheus scrape x" } }),
            [1, 0, 1, 0],
        ),
    ] {
        let (registry, stats) = stats();
        let body = question(json!({}));
        let answered = inject(Asked { content_type: Some("application/json"), body: &body }, &stats, |_| outcome);
        assert_eq!((answered.status, &read(&answered)["response"]), (200, &response));
        assert_eq!(counts(&registry), expected);
    }
}

#[test]
fn what_is_no_review_is_refused_and_not_decided() {
    for (content_type, body, status, text) in [
        (Some("application/json"), &b""[..], 400, "no body found"),
        (None, b"{}", 415, "invalid Content-Type"),
        (Some("text/json"), b"{}", 415, "invalid Content-Type"),
        (Some("application/json; charset=utf-8"), b"{", 200, "not an AdmissionReview"),
        (Some("application/json"), br#"{"kind":"Pod","apiVersion":"v1"}"#, 200, "is not AdmissionReview"),
    ] {
        let (registry, stats) = stats();
        let answered = inject(Asked { content_type, body }, &stats, |_| panic!("decided"));
        assert_eq!(answered.status, status, "{body:?}");
        assert!(String::from_utf8_lossy(&answered.body).contains(text), "{body:?}: {answered:?}");
        assert_eq!(counts(&registry), [1, 0, 1, 0]);
    }
}

#[test]
fn validation_says_what_it_is_told() {
    let body = question(json!({ "kind": "Gateway" }));
    let asked = Asked { content_type: Some("application/json"), body: &body };
    let answered = validate(asked, |request| AdmissionResponse::refuse(request.object["kind"].to_string()));
    assert_eq!(read(&answered)["response"]["status"]["message"], "\"Gateway\"");
}
