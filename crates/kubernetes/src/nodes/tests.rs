use super::*;

mod server;

use server::Server;

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

fn broken() -> Pod {
    Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u1".into(),
        resource_version: "7".into(),
        ..Pod::default()
    }
}

fn document(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "uid": "u1", "resourceVersion": "6"},
        "spec": {"containers": [{"name": "app"}]}
    })
}

fn status(code: u16) -> serde_json::Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": if code == 404 { "NotFound" } else { "Because" }, "code": code})
}

#[tokio::test]
async fn a_pod_is_there_or_is_not_or_cannot_be_asked_for() {
    let server = Server::start([(200, document("web-0")), (404, status(404)), (403, status(403))]).await;
    let client = server.client();
    assert_eq!(client.pod("shop", "web-0").await.unwrap().unwrap().name, "web-0");
    assert_eq!(client.pod("shop", "web-1").await.unwrap(), None);
    assert!(client.pod("shop", "web-2").await.unwrap_err().to_string().contains("no"));
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.head).collect();
    let path = |i: u32| format!("GET /api/v1/namespaces/shop/pods/web-{i}");
    assert_eq!(paths, [path(0), path(1), path(2)]);
}

#[tokio::test]
async fn only_the_pod_that_was_looked_at_is_deleted() {
    let server = Server::start([(200, document("web-0"))]).await;
    server.client().delete(&broken()).await.unwrap();
    let request = server.requests().remove(0);
    assert_eq!(request.head, "DELETE /api/v1/namespaces/shop/pods/web-0?");
    assert_eq!(request.body["preconditions"], json!({"uid": "u1", "resourceVersion": "7"}));
}

#[tokio::test]
async fn a_label_needs_no_right_to_the_pod_itself() {
    let server = Server::start([(200, document("web-0"))]).await;
    server.client().label(&broken(), "broken", "true").await.unwrap();
    let request = server.requests().remove(0);
    assert_eq!(request.head, "PATCH /api/v1/namespaces/shop/pods/web-0/status?");
    assert_eq!(request.body, json!({"metadata": {"labels": {"broken": "true"}}}));
}

#[tokio::test]
async fn a_taint_is_taken_off_whatever_others_do_meanwhile() {
    let node = |version: &str, others: serde_json::Value| {
        let mut taints = vec![json!({"key": "cni.istio.io/not-ready", "effect": "NoSchedule"})];
        taints.extend(others.as_array().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "resourceVersion": version},
            "spec": {"taints": taints}})
    };
    let other = json!([{"key": "disk", "effect": "NoExecute"}]);
    let answers =
        [(200, node("1", json!([]))), (409, status(409)), (200, node("2", other.clone())), (200, node("3", other))];
    let server = Server::start(answers).await;
    assert!(server.client().remove_taint("cni.istio.io/not-ready").await.unwrap());
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    assert_eq!(requests[3].head, "PATCH /api/v1/nodes/n1?");
    assert_eq!(requests[3].body["metadata"]["resourceVersion"], "2");
    assert_eq!(requests[3].body["spec"]["taints"], json!([{"key": "disk", "effect": "NoExecute"}]));
}

#[tokio::test]
async fn the_nodes_pods_are_followed() {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": [document("web-0")]});
    let gone = json!({"type": "DELETED", "object": document("web-0")});
    let server = Server::start([(200, list), (200, gone)]).await;
    let (sender, mut changes) = tokio::sync::mpsc::channel(4);
    let client = server.client();
    let selectors = Selectors { labels: "app=web".into(), fields: "status.phase=Pending".into() };
    let watching = tokio::spawn(async move { client.watch(&selectors, sender).await });
    let patience = Duration::from_secs(20);
    let mut next = async || {
        tokio::time::timeout(patience, changes.recv()).await.unwrap_or_else(|_| {
            panic!("no change after {:?}", server.requests());
        })
    };
    assert!(matches!(next().await, Some(Change::Seen(pod)) if pod.name == "web-0"));
    let expected = Change::Gone { namespace: "shop".into(), name: "web-0".into() };
    assert_eq!(next().await, Some(expected));
    watching.abort();
    let asked = &server.requests()[0].head;
    assert!(asked.contains("fieldSelector=status.phase%3DPending%2Cspec.nodeName%3Dn1"), "{asked}");
    assert!(asked.contains("labelSelector=app%3Dweb"), "{asked}");
}
