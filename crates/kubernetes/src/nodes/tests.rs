use super::*;

#[test]
fn a_pod_is_what_matters_of_it_and_holds_no_secrets() {
    let pod = Pod::from_document(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
            "labels": {"app": "web"}, "annotations": {"sidecar.istio.io/status": "{}"}},
        "spec": {
            "initContainers": [{"name": "istio-validation"}],
            "containers": [
                {"name": "app", "env": [{"name": "DISABLE_ENVOY", "value": "true"}, {"name": "PASSWORD", "value": "hunter2"}]},
                {"name": "istio-proxy", "args": ["proxy", "sidecar"], "securityContext": {"runAsUser": 1337},
                 "env": [{"name": "ISTIO_META_DNS_CAPTURE", "value": "true"}, {"name": "TOKEN", "value": "hunter2"}]}
            ]
        },
        "status": {
            "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}],
            "initContainerStatuses": [
                {"name": "istio-validation", "image": "", "imageID": "", "ready": false, "restartCount": 1,
                 "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                 "lastState": {"terminated": {"exitCode": 126, "reason": "Error"}}},
                {"name": "done", "image": "", "imageID": "", "ready": true, "restartCount": 1,
                 "state": {"terminated": {"exitCode": 0, "reason": "Completed"}},
                 "lastState": {"terminated": {"exitCode": 126, "reason": "Error"}}}
            ]
        }
    }))
    .unwrap();
    let names: Vec<_> = pod.containers.iter().map(|container| &*container.name).collect();
    assert_eq!(names, ["istio-validation", "app", "istio-proxy"]);
    assert_eq!(pod.containers[2].arguments, ["proxy", "sidecar"]);
    assert_eq!(pod.containers[2].user, Some(1337));
    assert_eq!(pod.addresses, ["10.1.2.3", "fd00::3"]);
    assert_eq!(
        pod.failures,
        [Failure { container: "istio-validation".into(), exit_code: 126, message: String::new() }]
    );
    let text = serde_json::to_string(&pod).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("DISABLE_ENVOY"), "{text}");
    assert!(text.contains("ISTIO_META_DNS_CAPTURE"), "{text}");
}

#[test]
fn a_document_that_is_no_pod_is_refused() {
    let error = Pod::from_document(json!({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": 7}})).unwrap_err();
    assert!(error.to_string().contains("7"), "{error}");
}

#[test]
fn only_the_taint_that_is_named_goes() {
    let node = |taints: serde_json::Value| -> core::Node {
        serde_json::from_value(json!({"metadata": {"resourceVersion": "9"}, "spec": {"taints": taints}})).unwrap()
    };
    let ours = json!({"key": "cni.istio.io/not-ready", "effect": "NoSchedule"});
    let other = json!({"key": "disk", "effect": "NoExecute"});
    let patch = without_taint(&node(json!([ours, other])), "cni.istio.io/not-ready");
    assert_eq!(patch, Some(json!({"metadata": {"resourceVersion": "9"}, "spec": {"taints": [other]}})));
    assert_eq!(without_taint(&node(json!([other])), "cni.istio.io/not-ready"), None);
}
