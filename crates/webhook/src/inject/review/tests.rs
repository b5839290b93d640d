use super::*;
use crate::inject::testing::{NoCluster, injector, request};

#[test]
fn a_path_names_variables() {
    let check = |path: &str, expected: &[(&str, &str)]| {
        let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(variables(path), expected, "{path}");
    };
    check("/inject", &[]);
    check("/inject/", &[]);
    check("/inject/cluster/c1/net/n1", &[("ISTIO_META_CLUSTER_ID", "c1"), ("ISTIO_META_NETWORK", "n1")]);
    check("/inject/cluster/a--slash--b/env1/v1/", &[("ISTIO_META_CLUSTER_ID", "a/b"), ("ENV1", "v1")]);
    check("/inject/cluster/c1/net", &[("ISTIO_META_CLUSTER_ID", "c1")]);
    check(
        "/inject/:ENV:cluster=c1:ENV:net=n1=x:ENV:=no:ENV:none",
        &[("ISTIO_META_CLUSTER_ID", "c1"), ("ISTIO_META_NETWORK", "n1=x")],
    );
}

fn injected(path: &str, pod: Value) -> Value {
    let request = request(pod);
    let outcome = injector("policy: enabled").review(&request, path, Platform::default(), &NoCluster).unwrap();
    let Outcome::Injected(patch) = outcome else { panic!("not injected") };
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut pod = request.object;
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let proxy = pod::container(pod, names::PROXY_CONTAINER).unwrap();
    let found: Vec<_> = proxy["env"].as_array().unwrap().iter().filter(|variable| variable["name"] == name).collect();
    assert!(found.len() < 2, "{name} twice");
    found.first().and_then(|variable| variable["value"].as_str())
}

#[test]
fn the_path_wins_over_the_template_and_the_pods_network_over_the_path() {
    let pod = || json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web" }] } });
    let of_path = injected("/inject/cluster/c1/net/n1", pod());
    assert_eq!(variable(&of_path, "ISTIO_META_CLUSTER_ID"), Some("c1"));
    assert_eq!(variable(&of_path, "ISTIO_META_NETWORK"), Some("n1"));
    assert_eq!(of_path["metadata"]["labels"]["topology.istio.io/network"], "n1");
    let mut labelled = pod();
    labelled["metadata"]["labels"]["topology.istio.io/network"] = json!("n2");
    assert_eq!(variable(&injected("/inject/net/n1", labelled), "ISTIO_META_NETWORK"), Some("n2"));
    assert_eq!(variable(&injected("/inject", pod()), "ISTIO_META_CLUSTER_ID"), Some("Kubernetes"));
}

#[test]
fn the_namespace_is_the_requests_and_not_written_into_the_pod() {
    let pod = json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "web" }] } });
    let injected = injected("/inject", pod);
    assert_eq!(variable(&injected, "ISTIO_META_OWNER"), Some("kubernetes://apis/v1/namespaces/shop/pods/web"));
    assert!(injected["metadata"].get("namespace").is_none());
}

#[test]
fn fields_that_are_not_known_stay() {
    let pod = json!({ "metadata": { "name": "web" }, "spec": { "future": { "a": [1] }, "containers": [{ "name": "web", "next": 0 }] } });
    let injected = injected("/inject", pod);
    assert_eq!(injected["spec"]["future"], json!({ "a": [1] }));
    assert_eq!(pod::container(&injected, "web").unwrap()["next"], 0);
}

struct OneConfig;

impl Cluster for OneConfig {
    fn nodes(&self) -> Vec<Node> {
        vec![
            Node { name: "old".to_owned(), kubelet_version: "v1.28.3".to_owned() },
            Node { name: "new".to_owned(), kubelet_version: "v1.36.0+x".to_owned() },
        ]
    }

    fn namespace_annotations(&self, _: &str) -> Option<BTreeMap<String, String>> {
        Some(BTreeMap::from([("openshift.io/sa.scc.uid-range".to_owned(), "100/10".to_owned())]))
    }

    fn proxy_configs(&self, root: &str, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String> {
        assert_eq!(root, "istio-system");
        assert_eq!((namespace, labels.get("app").map(String::as_str)), ("shop", Some("web")));
        vec!["concurrency: 3".to_owned(), "proxyMetadata: {A: b}".to_owned()]
    }
}

#[test]
fn proxy_configs_of_the_cluster_are_under_that_of_the_pod() {
    let pod = json!({
        "metadata": { "name": "web", "labels": { "app": "web" }, "annotations": { "proxy.istio.io/config": "concurrency: 5" } },
        "spec": { "containers": [{ "name": "web" }] },
    });
    let platform = Platform { is_openshift: true, ..Platform::default() };
    let request = request(pod);
    let Outcome::Injected(patch) =
        injector("policy: enabled").review(&request, "/inject", platform, &OneConfig).unwrap()
    else {
        panic!("not injected")
    };
    let mut pod = request.object;
    json_patch::patch(&mut pod, &serde_json::from_value::<json_patch::Patch>(patch).unwrap()).unwrap();
    assert_eq!(variable(&pod, "PROXY_CONFIG"), Some("{\"concurrency\":5,\"proxyMetadata\":{\"A\":\"b\"}}\n"));
    assert_eq!(variable(&pod, "A"), Some("b"));
    let proxy = pod::container(&pod, names::PROXY_CONTAINER).unwrap();
    assert_eq!(proxy["securityContext"]["runAsUser"], 109);
}

#[test]
fn native_sidecars_need_every_node_or_the_pods_own_to_know_them() {
    let nodes = OneConfig.nodes();
    for (mode, node, expected) in [
        ("auto", "", false),
        ("auto", "new", true),
        ("auto", "old", false),
        ("auto", "unknown", false),
        ("true", "old", true),
        ("false", "new", false),
    ] {
        assert_eq!(NativeSidecars::parse(mode).unwrap().for_pod(node, &nodes), expected, "{mode} {node}");
    }
    assert!(NativeSidecars::parse("yes").unwrap_err().contains("\"yes\" is none of true, false, auto"));
    let strange = Node { name: "n".to_owned(), kubelet_version: "edge".to_owned() };
    assert!(!NativeSidecars::Auto.for_pod("", &[strange]));
}

#[test]
fn pods_that_are_not_wanted_are_skipped() {
    let skipped = request(json!({ "metadata": { "labels": { "sidecar.istio.io/inject": "false" } }, "spec": {} }));
    let outcome = injector("policy: enabled").review(&skipped, "/inject", Platform::default(), &NoCluster).unwrap();
    assert_eq!(outcome, Outcome::Skipped);
}

#[test]
fn what_is_no_pod_is_refused() {
    for (object, expected) in [
        (json!(null), "object: not a map"),
        (json!("pod"), "object: not a map"),
        (json!({ "metadata": [] }), "metadata: not a map"),
        (json!({ "spec": "none" }), "spec: not a map"),
    ] {
        let refused = injector("policy: enabled").review(&request(object), "/inject", Platform::default(), &NoCluster);
        assert_eq!(refused.unwrap_err().to_string(), expected);
    }
}
