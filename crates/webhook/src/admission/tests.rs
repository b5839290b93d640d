use super::*;

fn review(version: &str) -> Vec<u8> {
    json!({
        "apiVersion": version,
        "kind": "AdmissionReview",
        "request": {
            "uid": "7",
            "operation": "CREATE",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "namespace": "shop",
            "object": { "metadata": { "name": "web" } },
        },
    })
    .to_string()
    .into_bytes()
}

#[test]
fn both_versions_are_read_and_answered_in_kind() {
    for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
        let asked = AdmissionReview::parse(&review(version)).unwrap();
        assert_eq!(asked.request.namespace, "shop");
        assert_eq!(asked.request.kind.kind, "Pod");
        let answered = answer(asked.version, &asked.request.uid, &AdmissionResponse::allow());
        assert_eq!(answered["apiVersion"], version);
        assert_eq!(answered["response"], json!({ "uid": "7", "allowed": true }));
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let error = AdmissionReview::parse(&review("admission.k8s.io/v2")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "apiVersion: \"admission.k8s.io/v2\" is none of admission.k8s.io/v1, admission.k8s.io/v1beta1"
    );
}

#[test]
fn what_is_not_a_question_is_refused() {
    for (body, expected) in [
        ("{", "not an AdmissionReview"),
        (r#"{"kind":"Pod"}"#, "kind: \"Pod\" is not AdmissionReview"),
        (r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#, "request: missing"),
    ] {
        let error = AdmissionReview::parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{body}: {error}");
    }
}

#[test]
fn a_refusal_says_why_and_a_patch_is_base64() {
    let refusal = answer(ReviewVersion::V1, "1", &AdmissionResponse::refuse("no"));
    assert_eq!(refusal["response"]["allowed"], false);
    assert_eq!(refusal["response"]["status"]["message"], "no");
    let patched = answer(ReviewVersion::V1, "1", &AdmissionResponse::patched(json!([])));
    assert_eq!(patched["response"]["patch"], "W10=");
    assert_eq!(patched["response"]["patchType"], "JSONPatch");
}
