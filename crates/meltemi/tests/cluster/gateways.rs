//! What is deployed for Gateways of the Gateway API.

use serde_json::Value;

use crate::documents::{definition, service, slice};
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const GROUP: &str = "gateway.networking.k8s.io";
const NAMESPACE: &str = "deployed";
const MANAGER: &str = "istio.io/gateway-controller";
const VERSION: &str = "gateway.istio.io/controller-version";

fn gateway(name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: {GROUP}/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {NAMESPACE}, annotations: {{{annotations}}}}}\n\
         spec: {{gatewayClassName: istio, listeners: [{{name: http, port: 80, protocol: HTTP}}]{spec}}}\n"
    )
}

fn overlays(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: overlays, namespace: {NAMESPACE}}}\ndata: {{{data}}}\n")
}

fn get(cluster: &Kubernetes, kind: &str, name: &str) -> Option<Value> {
    cluster.get(kind, NAMESPACE, name)
}

fn gone(cluster: &Kubernetes, kind: &str, name: &str) {
    until(&format!("the end of {kind} {name}"), || get(cluster, kind, name).is_none().then_some(()));
}

pub fn deployments(cluster: &Kubernetes) {
    for (kind, plural, scope) in [("GatewayClass", "gatewayclasses", "Cluster"), ("Gateway", "gateways", "Namespaced")]
    {
        cluster.apply(&definition(GROUP, kind, plural, &["v1"], scope));
    }
    cluster.namespace(NAMESPACE);
    cluster.apply(&service(NAMESPACE, "taken-istio", &["10.4.0.9"]));
    let discovery = Discovery::start(cluster, &[]);
    for (class, controller) in [("istio", MANAGER), ("istio-remote", "istio.io/unmanaged-gateway")] {
        let made = until(class, || {
            let class = cluster.get(&format!("gatewayclasses.{GROUP}"), "", class)?;
            class["status"]["conditions"][0]["status"].is_string().then_some(class)
        });
        assert_eq!(made["spec"]["controllerName"], controller);
        assert_eq!(made["status"]["conditions"][0]["status"], "True", "{made}");
    }
    cluster.apply(&gateway("edge", "", ""));
    cluster.apply(&gateway("taken", "", ""));
    cluster.apply(&gateway("newer", &format!("{VERSION}: '9'"), ""));
    made(cluster);
    others_are_left_alone(cluster);
    kept(cluster);
    overlaid(cluster);
    addressed(cluster);
    cluster.ctl(&["delete", &format!("gateways.{GROUP}"), "edge", "-n", NAMESPACE]);
    gone(cluster, "deployment", "edge-istio");
    gone(cluster, "service", "edge-istio");
    drop(discovery);
    for plural in ["gatewayclasses", "gateways"] {
        cluster.ctl(&["delete", "crd", &format!("{plural}.{GROUP}")]);
    }
}

fn made(cluster: &Kubernetes) {
    let gateway = get(cluster, &format!("gateways.{GROUP}"), "edge").expect("a Gateway");
    for kind in ["serviceaccount", "deployment", "service"] {
        let object = until(kind, || get(cluster, kind, "edge-istio"));
        let meta = &object["metadata"];
        assert_eq!(meta["ownerReferences"][0]["uid"], gateway["metadata"]["uid"], "{kind}");
        assert_eq!(meta["labels"]["gateway.istio.io/managed"], "istio.io-gateway-controller", "{kind}");
    }
    let fields = cluster.ctl(&["get", "service", "edge-istio", "-n", NAMESPACE, "-o", "yaml", "--show-managed-fields"]);
    assert!(fields.contains(&format!("manager: {MANAGER}")), "{fields}");
}

fn others_are_left_alone(cluster: &Kubernetes) {
    until("the deployment beside", || get(cluster, "deployment", "taken-istio"));
    let theirs = get(cluster, "service", "taken-istio").expect("a service");
    assert!(theirs["metadata"]["labels"].is_null() && theirs["metadata"]["ownerReferences"].is_null(), "{theirs}");
    // It comes after those two in the order of names, and is seen with them.
    assert!(get(cluster, "deployment", "newer-istio").is_none());
}

/// What is taken away or changed is as it was; what nobody asked for stays changed.
fn kept(cluster: &Kubernetes) {
    cluster.ctl(&["delete", "service", "edge-istio", "-n", NAMESPACE]);
    until("the service again", || get(cluster, "service", "edge-istio"));
    let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let before = image(&get(cluster, "deployment", "edge-istio").expect("a deployment"));
    cluster.ctl(&["set", "image", "deployment/edge-istio", "istio-proxy=other:1", "-n", NAMESPACE]);
    cluster.ctl(&["scale", "deployment/edge-istio", "--replicas=3", "-n", NAMESPACE]);
    let deployment = until("the image again", || {
        get(cluster, "deployment", "edge-istio").filter(|deployment| image(deployment) == before)
    });
    assert_eq!(deployment["spec"]["replicas"], 3);
}

fn overlaid(cluster: &Kubernetes) {
    cluster.apply(&overlays("podDisruptionBudget: 'spec: {minAvailable: 1}', service: 'spec: {type: ClusterIP}'"));
    let reference = ", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: overlays}}";
    cluster.apply(&gateway("edge", "", reference));
    until("the budget", || get(cluster, "poddisruptionbudget", "edge-istio"));
    let of_type = |kind: &'static str| {
        move || get(cluster, "service", "edge-istio").filter(|service| service["spec"]["type"] == kind)
    };
    until("the type", of_type("ClusterIP"));
    cluster.apply(&overlays("serviceAccount: 'metadata: {annotations: {a: b}}'"));
    gone(cluster, "poddisruptionbudget", "edge-istio");
    until("the type again", of_type("LoadBalancer"));
}

fn addressed(cluster: &Kubernetes) {
    cluster.apply(&slice(NAMESPACE, "edge-istio", &["10.4.0.5"]));
    let address = r#"{"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}"#;
    cluster.ctl(&[
        "patch",
        "service",
        "edge-istio",
        "-n",
        NAMESPACE,
        "--subresource=status",
        "--type=merge",
        "-p",
        address,
    ]);
    until("the address", || {
        let gateway = get(cluster, &format!("gateways.{GROUP}"), "edge")?;
        (gateway["status"]["addresses"][0]["value"] == "192.0.2.7").then_some(())
    });
}
