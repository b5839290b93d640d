//! What the replica that leads writes.

use serde_json::Value;

use crate::documents::{definition, service};
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const LEASE: &str = "meltemi-leader";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

fn holder(cluster: &Kubernetes) -> Option<String> {
    let lease = cluster.get("lease", "istio-system", LEASE)?;
    lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty()).map(str::to_owned)
}

pub fn led_by(cluster: &Kubernetes, replica: &str) {
    until(replica, || holder(cluster).filter(|holder| holder.starts_with(replica)));
}

pub fn takeover(cluster: &Kubernetes) {
    let first = Discovery::start(cluster, &["--podName", "istiod-first"]);
    led_by(cluster, "istiod-first_");
    let second = Discovery::start(cluster, &["--podName", "istiod-second"]);
    assert!(first.output().contains("leads=true") && !second.output().contains("leads=true"));
    first.kill();
    led_by(cluster, "istiod-second_");
    // What the first would have written is written now.
    cluster.namespace("takeover");
    until("the roots", || cluster.get("configmap", "takeover", "istio-ca-root-cert").map(drop));
    let third = Discovery::start(cluster, &["--podName", "istiod-third"]);
    drop(second);
    led_by(cluster, "istiod-third_");
    drop(third);
}

const CLASS: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: istio}\n\
    spec: {controllerName: istio.io/gateway-controller}\n";
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: statuses}\n\
    spec:\n  gatewayClassName: istio\n  addresses: [{type: Hostname, value: gw.statuses.svc.cluster.local}]\n  \
    listeners: [{name: http, port: 80, protocol: HTTP}]\n";
const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: route, namespace: statuses}\n\
    spec:\n  parentRefs: [{name: gw}]\n  rules: [{backendRefs: [{name: missing, port: 80}]}]\n";

fn condition(status: &Value, kind: &str) -> Option<(String, String)> {
    let found = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    found["lastTransitionTime"].as_str()?;
    Some((text("status"), text("reason")))
}

pub fn statuses(cluster: &Kubernetes) {
    cluster.namespace("statuses");
    for (kind, plural, scope) in [
        ("GatewayClass", "gatewayclasses", "Cluster"),
        ("Gateway", "gateways", "Namespaced"),
        ("HTTPRoute", "httproutes", "Namespaced"),
    ] {
        cluster.apply(&definition(GATEWAY_API, kind, plural, &["v1"], scope));
    }
    let all = format!("{CLASS}---\n{GATEWAY}---\n{ROUTE}");
    until("the definitions", || cluster.try_ctl(&["apply", "-f", "-"], &all).status.success().then_some(()));
    cluster.apply(&service("statuses", "gw", &["10.4.0.1"]));
    // Another controller's row, which is not ours to touch.
    let other = r#"{"status": {"parents": [{"controllerName": "example.com/other", "parentRef": {"name": "x"},
        "conditions": []}]}}"#;
    let route = "httproutes.gateway.networking.k8s.io";
    cluster.ctl(&["patch", route, "route", "-n", "statuses", "--subresource=status", "--type=merge", "-p", other]);
    let _discovery = Discovery::start(cluster, &[]);
    let true_ = |reason: &str| Some(("True".to_owned(), reason.to_owned()));
    until("the class", || {
        let class = cluster.get("gatewayclasses.gateway.networking.k8s.io", "", "istio")?;
        (condition(&class["status"], "Accepted") == true_("Accepted")).then_some(())
    });
    let gateway = until("the gateway", || {
        let gateway = cluster.get("gateways.gateway.networking.k8s.io", "statuses", "gw")?;
        (condition(&gateway["status"], "Programmed") == true_("Programmed")).then_some(gateway)
    });
    assert_eq!(gateway["status"]["listeners"][0]["attachedRoutes"], 1, "{gateway}");
    let rows = until("the route", || {
        let route = cluster.get(route, "statuses", "route")?;
        Some(route["status"]["parents"].as_array()?.clone()).filter(|rows| rows.len() == 2)
    });
    assert_eq!(rows[0]["controllerName"], "example.com/other");
    assert_eq!(condition(&rows[1], "Accepted"), true_("Accepted"));
    assert_eq!(condition(&rows[1], "ResolvedRefs"), Some(("False".to_owned(), "BackendNotFound".to_owned())));
    let before = gateway["metadata"]["resourceVersion"].clone();
    cluster.apply(&service("statuses", "missing", &["10.4.0.2"]));
    until("the backend", || {
        let route = cluster.get(route, "statuses", "route")?;
        (condition(&route["status"]["parents"][1], "ResolvedRefs") == true_("ResolvedRefs")).then_some(())
    });
    let gateway = cluster.get("gateways.gateway.networking.k8s.io", "statuses", "gw").expect("the gateway");
    assert_eq!(gateway["metadata"]["resourceVersion"], before, "what says the same is not written again");
    for plural in ["gatewayclasses", "gateways", "httproutes"] {
        cluster.ctl(&["delete", "crd", &format!("{plural}.{GATEWAY_API}")]);
    }
}

pub fn webhooks(cluster: &Kubernetes) {
    let configuration = |kind: &str, name: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: {kind}WebhookConfiguration\n\
             metadata: {{name: hooked, labels: {{istio.io/rev: hooked}}}}\n\
             webhooks:\n- name: {name}\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Ignore\n  \
             clientConfig: {{service: {{name: istiod, namespace: istio-system, path: /}}}}\n  \
             rules: [{{apiGroups: [example.com], apiVersions: [\"*\"], operations: [CREATE], resources: [things]}}]\n"
        )
    };
    cluster.apply(&configuration("Mutating", "rev.sidecar-injector.istio.io"));
    let _discovery = Discovery::start(cluster, &["--revision", "hooked"]);
    cluster.apply(&configuration("Validating", "rev.validation.istio.io"));
    for kind in ["mutatingwebhookconfiguration", "validatingwebhookconfiguration"] {
        let hooked = until(kind, || {
            let found = cluster.get(kind, "", "hooked")?;
            found["webhooks"][0]["clientConfig"]["caBundle"].is_string().then_some(found)
        });
        // Nobody answers there: it must not be insisted on.
        assert_eq!(hooked["webhooks"][0]["failurePolicy"], "Ignore");
        // Whoever writes another root into it finds ours again.
        let patch = r#"[{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "b3RoZXI="}]"#;
        let root = hooked["webhooks"][0]["clientConfig"]["caBundle"].clone();
        cluster.try_ctl(&["patch", kind, "hooked", "--type=json", "-p", patch], "");
        until("our root again", || {
            let found = cluster.get(kind, "", "hooked")?;
            (found["webhooks"][0]["clientConfig"]["caBundle"] == root).then_some(())
        });
        cluster.ctl(&["delete", kind, "hooked"]);
    }
}
