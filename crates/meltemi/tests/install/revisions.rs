//! Several control planes beside one another, and names that stand for them.

use serde_json::{Value, json};

use super::cases::{changed, install};
use super::kubernetes::Kubernetes;

pub fn canary(cluster: &Kubernetes) {
    install(cluster, &[]);
    let run = install(cluster, &["--revision", "canary", "--set", "profile=minimal"]);
    assert_eq!(changed(&run, "changed"), [""; 0], "{}", run.out);
    assert_eq!(changed(&run, "removed"), [""; 0], "{}", run.out);
    let revisions = cluster.meltemi(&["revision", "list", "-o", "json"]).succeeds().json();
    let names: Vec<_> = revisions.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["canary", "default"]);
    assert_eq!(revisions[0]["control_planes"][0]["name"], "istiod-canary");
    let described = cluster.meltemi(&["revision", "describe", "canary"]).succeeds();
    assert!(described.out.contains("istio-system/istiod-canary, 0 of 1 ready"), "{}", described.out);
    let unknown = cluster.meltemi(&["revision", "describe", "none"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("there is no revision none; there are: canary, default"), "{}", unknown.err);

    cluster.meltemi(&["uninstall", "--revision", "canary", "-y"]).succeeds();
    assert_eq!(cluster.get("deployment", "istiod-canary"), Value::Null);
    assert_ne!(cluster.get("deployment", "istiod"), Value::Null);
    assert_ne!(cluster.get("deployment", "istio-ingressgateway"), Value::Null);
    let again = install(cluster, &[]);
    assert_eq!(changed(&again, "created"), [""; 0], "{}", again.out);
}

pub fn tags(cluster: &Kubernetes) {
    let missing = cluster.meltemi(&["tag", "set", "prod", "--revision", "a"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("there is no revision a in this cluster"), "{}", missing.err);
    install(cluster, &["--revision", "a", "--set", "profile=minimal"]);
    install(cluster, &["--revision", "b", "--set", "profile=minimal"]);
    cluster.meltemi(&["tag", "set", "prod", "--revision", "a"]).succeeds();
    cluster.ctl(&["create", "namespace", "shop"], "");
    cluster.ctl(&["label", "namespace", "shop", "istio.io/rev=prod"], "");
    let listed = cluster.meltemi(&["tag", "list", "-o", "json"]).succeeds().json();
    assert_eq!(listed, json!([{"name": "prod", "revision": "a", "namespaces": ["shop"]}]));

    let taken = cluster.meltemi(&["tag", "set", "prod", "--revision", "b"]);
    assert_eq!(taken.code, 1);
    assert!(taken.err.contains("prod stands for revision a; --overwrite changes that"), "{}", taken.err);
    cluster.meltemi(&["tag", "set", "prod", "--revision", "b", "--overwrite"]).succeeds();
    let webhook = cluster.get("mutatingwebhookconfiguration", "istio-revision-tag-prod");
    assert_eq!(webhook["webhooks"][0]["clientConfig"]["service"]["name"], "istiod-b");
    // An installation does not prune tags.
    install(cluster, &["--revision", "b", "--set", "profile=minimal"]);
    assert_eq!(
        cluster.meltemi(&["tag", "list"]).succeeds().out,
        "TAG    REVISION   NAMESPACES\nprod   b          shop\n"
    );

    let used = cluster.meltemi(&["tag", "remove", "prod"]);
    assert_eq!(used.code, 1);
    assert!(used.err.contains("Namespaces shop are injected by prod"), "{}", used.err);
    cluster.meltemi(&["tag", "remove", "prod", "-y"]).succeeds();
    assert_eq!(cluster.meltemi(&["tag", "list", "-o", "json"]).succeeds().json(), json!([]));
    cluster.ctl(&["delete", "namespace", "shop"], "");
}
