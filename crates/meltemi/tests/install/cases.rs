//! Install, again, otherwise, and away.

use serde_json::{Value, json};

use super::kubernetes::{Kubernetes, Run};

pub const INSTALL: [&str; 4] = ["install", "-y", "--wait=false", "-o=json"];

pub fn install(cluster: &Kubernetes, more: &[&str]) -> Run {
    cluster.meltemi(&[&INSTALL[..], more].concat()).succeeds()
}

/// The objects with which something was done.
pub fn changed(run: &Run, action: &str) -> Vec<String> {
    let report = run.json();
    let changes = report["changes"].as_array().unwrap().iter();
    let of = changes.filter(|change| change["action"] == action);
    of.map(|change| change["object"].as_str().unwrap().to_owned()).collect()
}

pub fn twice(cluster: &Kubernetes) {
    let first = install(cluster, &["--set", "profile=demo", "--set", "components.cni.enabled=true"]);
    let created = changed(&first, "created");
    assert!(created.len() >= 30, "{created:?}");
    assert!(created.contains(&"Deployment/istiod.istio-system".to_owned()), "{created:?}");
    let second = install(cluster, &["--set", "profile=demo", "--set", "components.cni.enabled=true"]);
    assert_eq!(changed(&second, "unchanged").len(), created.len(), "{}", second.out);
    assert_eq!(second.json()["changes"].as_array().unwrap().len(), created.len());
    let dry = install(cluster, &["--set", "profile=demo", "--set", "components.cni.enabled=true", "--dry-run"]);
    assert_eq!(changed(&dry, "unchanged").len(), created.len(), "{}", dry.out);
}

pub fn dry_run(cluster: &Kubernetes) {
    let before = cluster.everything();
    let run = install(cluster, &["--dry-run"]);
    assert!(!changed(&run, "created").is_empty());
    assert_eq!(run.json()["dryRun"], true);
    assert_eq!(cluster.everything(), before);
    let refused = cluster.meltemi(&["upgrade", "-y", "--wait=false"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("there is no control plane to upgrade"), "{}", refused.err);
}

pub fn prune(cluster: &Kubernetes) {
    install(cluster, &["--set", "components.egressGateways.[0].enabled=true"]);
    assert_ne!(cluster.get("deployment", "istio-egressgateway"), Value::Null);
    let run = cluster.meltemi(&["upgrade", "-y", "--wait=false", "-o", "json"]).succeeds();
    let removed = changed(&run, "removed");
    assert!(removed.contains(&"Deployment/istio-egressgateway.istio-system".to_owned()), "{removed:?}");
    assert!(removed.iter().all(|name| name.contains("istio-egressgateway")), "{removed:?}");
    assert_eq!(cluster.get("deployment", "istio-egressgateway"), Value::Null);
    assert_ne!(cluster.get("deployment", "istio-ingressgateway"), Value::Null);
}

pub fn readiness(cluster: &Kubernetes) {
    // There is no node: no pod is ever ready.
    let run = cluster.meltemi(&["install", "-y", "--readiness-timeout", "1s", "--set", "profile=minimal"]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    assert!(run.err.contains("waiting: Deployment/istiod.istio-system"), "{}", run.err);
    assert!(
        run.err.contains("error: not ready after 1 s: Deployment/istiod.istio-system has 0 of 1 pods ready"),
        "{}",
        run.err
    );
    let none = ["--set", "values.pilot.autoscaleEnabled=false", "--set", "components.pilot.k8s.replicaCount=0"];
    let waited = ["install", "-y", "--readiness-timeout", "60s", "--set", "profile=minimal"];
    cluster.meltemi(&[&waited[..], &none].concat()).succeeds();
}

pub fn verification(cluster: &Kubernetes) {
    let run = cluster.meltemi(&["verify-install"]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("Deployment/istiod.istio-system") && run.out.contains("is not there"), "{}", run.out);
    let none = [
        "--set=profile=minimal",
        "--set=values.pilot.autoscaleEnabled=false",
        "--set=components.pilot.k8s.replicaCount=0",
    ];
    install(cluster, &none);
    cluster.meltemi(&[&["verify-install"][..], &none].concat()).succeeds();
    cluster.ctl(&["-n", "istio-system", "set", "image", "deployment/istiod", "discovery=other:1"], "");
    let run = cluster.meltemi(&[&["verify-install", "-o", "json"][..], &none].concat());
    assert_eq!(run.code, 1);
    let wrong: Vec<_> =
        run.json()["objects"].as_array().unwrap().iter().filter(|it| it["problems"] != json!([])).cloned().collect();
    assert_eq!(wrong[0]["object"], "Deployment/istiod.istio-system");
    let expected = "spec.template.spec.containers[0].image is \"other:1\", not \"meltemi/meltemi:0.1.0\"";
    assert_eq!(wrong[0]["problems"][0], expected);
}

pub fn uninstall_documents(cluster: &Kubernetes) {
    let document = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n  profile: minimal\n  hub: example.com/mesh\n";
    let arguments = [&INSTALL[..], &["-f", "-"]].concat();
    cluster.meltemi_reading(document, &arguments).succeeds();
    assert_ne!(cluster.get("deployment", "istiod"), Value::Null);
    let planned = cluster.meltemi_reading(document, &["uninstall", "-f", "-", "--dry-run"]).succeeds();
    assert!(planned.out.contains("Deployment/istiod.istio-system\n"), "{}", planned.out);
    assert_ne!(cluster.get("deployment", "istiod"), Value::Null);
    let unasked = cluster.meltemi_reading("", &["uninstall", "--revision", "default"]);
    assert_eq!(unasked.code, 1);
    assert!(unasked.err.contains("nobody is here to answer"), "{}", unasked.err);
    cluster.meltemi_reading(document, &["uninstall", "-f", "-", "-y"]).succeeds();
    assert_eq!(cluster.get("deployment", "istiod"), Value::Null);
    // A namespace may hold more than the mesh.
    assert_ne!(cluster.get("namespace", "istio-system"), Value::Null);
}

pub fn webhooks(cluster: &Kubernetes) {
    install(cluster, &["--set", "profile=minimal"]);
    let name = "istio-validator-istio-system";
    let ready = json!([
        {"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": "Q0E="},
    ]);
    let patch = ready.to_string();
    cluster.ctl(&["patch", "validatingwebhookconfiguration", name, "--type=json", "-p", &patch], "");
    let again = install(cluster, &["--set", "profile=minimal"]);
    assert_eq!(changed(&again, "created"), [""; 0]);
    let webhook = &cluster.get("validatingwebhookconfiguration", name)["webhooks"][0];
    assert_eq!(webhook["failurePolicy"], "Fail");
    assert_eq!(webhook["clientConfig"]["caBundle"], "Q0E=");
    let third = install(cluster, &["--set", "profile=minimal"]);
    assert_eq!(changed(&third, "changed"), [""; 0]);
}

pub fn purge(cluster: &Kubernetes) {
    install(cluster, &["--set", "profile=minimal"]);
    let written = "\
apiVersion: v1
kind: Secret
metadata: {name: istio-ca-secret, namespace: istio-system}
type: istio.io/ca-root
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-ca-root-cert, namespace: default}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: istio-leader, namespace: istio-system}
";
    cluster.apply_as("meltemi-discovery", written);
    let service = "\
apiVersion: v1
kind: Service
metadata: {name: mine, namespace: istio-system}
spec: {ports: [{port: 80}]}
";
    cluster.apply_as("somebody", service);
    let run = cluster.meltemi(&["uninstall", "--purge", "-y", "-o", "json"]).succeeds();
    let removed = run.json()["removed"].to_string();
    for name in [
        "Secret/istio-ca-secret.istio-system",
        "ConfigMap/istio-ca-root-cert.default",
        "Lease/istio-leader.istio-system",
    ] {
        assert!(removed.contains(name), "{removed}");
    }
    assert!(!removed.contains("Namespace/"), "{removed}");
    assert_ne!(cluster.get("service", "mine"), Value::Null);
    cluster.ctl(&["delete", "namespace", "istio-system"], "");
}

/// The API server takes what old documents come to.
pub fn old_documents(cluster: &Kubernetes) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../install/src/operator/documents");
    for name in ["components-of-1.4.yaml", "tuning-of-1.5.yaml", "production.yaml"] {
        let file = format!("{folder}/{name}");
        let run = install(cluster, &["-f", &file]);
        assert!(!run.json()["notices"].as_array().unwrap().is_empty(), "{}", run.out);
        let strict = cluster.meltemi(&[&INSTALL[..], &["-f", &file, "--strict"]].concat());
        assert_eq!(strict.code, 65, "{}", strict.err);
    }
    let scaler = cluster.get("horizontalpodautoscaler", "istio-ingressgateway");
    assert_eq!((&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]), (&json!(3), &json!(10)));
    assert_eq!(cluster.get("service", "istio-ingressgateway")["spec"]["externalTrafficPolicy"], "Local");
}
