use serde_json::json;

use super::*;

#[test]
fn a_pod_says_which_revision_injected_it() {
    let pod = |status: Value| json!({"metadata": {"annotations": {"sidecar.istio.io/status": status.to_string()}}});
    assert_eq!(injected_by(&pod(json!({"revision": "canary"}))).as_deref(), Some("canary"));
    assert_eq!(injected_by(&pod(json!({}))).as_deref(), Some("default"));
    assert_eq!(injected_by(&json!({"metadata": {}})), None);
}
