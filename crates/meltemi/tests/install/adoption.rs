//! What was there before.

use serde_json::{Value, json};

use super::cases::{INSTALL, changed, install};
use super::kubernetes::Kubernetes;

/// A part of what istioctl leaves in a cluster.
const RUNNING: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: istio
  namespace: istio-system
  labels: {istio.io/rev: default, operator.istio.io/component: Pilot}
data:
  mesh: |-
    accessLogFile: /dev/stdout
    defaultConfig:
      discoveryAddress: istiod.istio-system.svc:15012
      concurrency: 4
    trustDomain: shop.example
  meshNetworks: 'networks: {n1: {endpoints: [{fromRegistry: c1}], gateways: [{address: 1.2.3.4, port: 15443}]}}'
---
apiVersion: v1
kind: Secret
metadata: {name: istio-ca-secret, namespace: istio-system}
type: istio.io/ca-root
stringData: {ca-key.pem: key, ca-cert.pem: certificate}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: istiod
  namespace: istio-system
  labels: {app: istiod, istio: pilot, istio.io/rev: default, operator.istio.io/component: Pilot}
spec:
  selector: {matchLabels: {istio: pilot}}
  template:
    metadata: {labels: {app: istiod, istio: pilot}}
    spec:
      serviceAccountName: istiod
      containers: [{name: discovery, image: "docker.io/istio/pilot:1.30.0", args: [discovery]}]
"#;

pub fn takeover(cluster: &Kubernetes) {
    cluster.apply_as("istioctl", RUNNING);
    let run = install(cluster, &["--set", "meshConfig.accessLogFile=/dev/stderr", "--set", "profile=minimal"]);
    let report = run.json();
    let expected = json!([
        "ConfigMap/istio.istio-system: its mesh configuration lives on",
        "Secret/istio-ca-secret.istio-system: its authority goes on to sign",
        "injection goes on in shop",
    ]);
    assert_eq!(report["adopted"], expected);
    let changes = report["changes"].as_array().unwrap();
    let deployment = changes.iter().find(|it| it["object"] == "Deployment/istiod.istio-system").unwrap();
    assert!(deployment["taken_over"].to_string().contains("istioctl"), "{deployment}");

    let map = cluster.get("configmap", "istio");
    let mesh = map["data"]["mesh"].as_str().unwrap();
    for line in ["trustDomain: shop.example", "concurrency: 4", "accessLogFile: /dev/stderr"] {
        assert!(mesh.contains(line), "{mesh}");
    }
    assert!(map["data"]["meshNetworks"].as_str().unwrap().contains("fromRegistry: c1"), "{map}");
    let deployment = cluster.get("deployment", "istiod");
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "meltemi/meltemi:0.1.0");
    assert_eq!(cluster.get("secret", "istio-ca-secret")["data"]["ca-key.pem"], "a2V5");

    // What was adopted once lives on in later installs.
    let again = install(cluster, &["--set", "meshConfig.accessLogFile=/dev/stderr", "--set", "profile=minimal"]);
    assert_eq!(changed(&again, "changed"), [""; 0], "{}", again.out);
    cluster.ctl(&["delete", "namespace", "shop", "istio-system"], "");
}

pub fn strangers(cluster: &Kubernetes) {
    let service = "\
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Service
metadata: {name: istiod, namespace: istio-system}
spec: {selector: {app: other, istio: other}, ports: [{port: 80, name: web}]}
";
    cluster.apply_as("somebody", service);
    let refused = cluster.meltemi(&[&INSTALL[..], &["--set", "profile=minimal"]].concat());
    assert_eq!(refused.code, 1, "{}", refused.out);
    assert!(
        refused.err.contains("Service/istiod.istio-system is not of a mesh") && refused.err.contains("somebody"),
        "{}",
        refused.err
    );
    assert_eq!(cluster.get("service", "istiod")["spec"]["selector"]["app"], "other");
    let forced = install(cluster, &["--set", "profile=minimal", "--force"]);
    assert_eq!(cluster.get("service", "istiod")["spec"]["selector"]["app"], "istiod");
    assert_ne!(forced.json()["changes"], Value::Null);
    cluster.ctl(&["delete", "namespace", "istio-system"], "");
}
