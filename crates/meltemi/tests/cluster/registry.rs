//! What discovery reads.

use std::time::Duration;

use meltemi_xds::WILDCARD;
use meltemi_xds::types::{CLUSTER, ENDPOINT};
use serde_json::Value;

use crate::client::{Proxy, block_on, node};
use crate::documents::{definition, service, slice};
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const ISTIO: &str = "networking.istio.io";

/// The names of the objects of a kind that are in force, as discovery's page has them.
fn names(discovery: &Discovery, kind: &str) -> Vec<String> {
    let Value::Array(all) = discovery.json("/debug/configz?kinds=all") else { panic!("a list") };
    let of_kind = all.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

fn watching(discovery: &Discovery, cluster: &str) -> Proxy {
    let proxy = Proxy::plain(discovery.grpc, node("sidecar", "default", "client"));
    proxy.subscribe(CLUSTER, &[WILDCARD]);
    proxy.subscribe(ENDPOINT, &[cluster]);
    proxy
}

pub fn services(cluster: &Kubernetes) {
    cluster.namespace("reach");
    cluster.apply(&service("reach", "before", &["10.1.0.1"]));
    let discovery = Discovery::start(cluster, &[]);
    let name = "outbound|80||before.reach.svc.cluster.local";
    block_on(async {
        let mut proxy = watching(&discovery, name);
        proxy
            .until("the endpoint", |proxy| proxy.has(CLUSTER, name) && proxy.endpoints(name) == ["10.1.0.1:8080"])
            .await;
        cluster.apply(&slice("reach", "before", &["10.1.0.1", "10.1.0.2"]));
        proxy.until("the second", |proxy| proxy.endpoints(name) == ["10.1.0.1:8080", "10.1.0.2:8080"]).await;

        // By a selector: the slice is then made by Kubernetes itself, from pods on nodes that are there.
        cluster.apply(
            "apiVersion: v1\nkind: Node\nmetadata: {name: nowhere}\n---\n\
             apiVersion: v1\nkind: Service\nmetadata: {name: selecting, namespace: reach}\n\
             spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}\n---\n\
             apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: reach, labels: {app: web}}\n\
             spec: {nodeName: nowhere, containers: [{name: c, image: c, ports: [{name: web, containerPort: 9090}]}]}\n",
        );
        let status = r#"{"status": {"phase": "Running", "podIP": "10.1.9.9", "podIPs": [{"ip": "10.1.9.9"}],
            "conditions": [{"type": "Ready", "status": "True"}]}}"#;
        cluster.ctl(&["patch", "pod", "web", "-n", "reach", "--subresource=status", "--type=merge", "-p", status]);
        let selecting = "outbound|80||selecting.reach.svc.cluster.local";
        proxy.subscribe(ENDPOINT, &[selecting]);
        proxy.until("the pod", |proxy| proxy.endpoints(selecting) == ["10.1.9.9:9090"]).await;

        cluster.ctl(&["delete", "service", "before", "-n", "reach"]);
        proxy.until("its end", |proxy| !proxy.has(CLUSTER, name)).await;
    });
}

pub fn definitions(cluster: &Kubernetes) {
    cluster.namespace("kinds");
    let route = "apiVersion: networking.istio.io/v1beta1\nkind: VirtualService\nmetadata: {name: early, namespace: kinds}\n\
                 spec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n";
    let discovery = Discovery::start(cluster, &[]);
    assert!(names(&discovery, "VirtualService").is_empty());
    // An older one, which has no v1.
    cluster.apply(&definition(ISTIO, "VirtualService", "virtualservices", &["v1beta1", "v1alpha3"], "Namespaced"));
    until("the definition", || cluster.try_ctl(&["apply", "-f", "-"], route).status.success().then_some(()));
    until("the route", || (names(&discovery, "VirtualService") == ["early"]).then_some(()));
    cluster.apply(&definition(ISTIO, "VirtualService", "virtualservices", &["v1beta1", "v1"], "Namespaced"));
    until("the newer version", || {
        let stored = cluster.ctl(&[
            "get",
            "crd",
            "virtualservices.networking.istio.io",
            "-o",
            "jsonpath={.spec.versions[*].name}",
        ]);
        (stored.contains("v1 ") || stored.ends_with("v1")).then_some(())
    });
    let late = route.replace("v1beta1", "v1").replace("early", "late");
    until("version v1", || cluster.try_ctl(&["apply", "-f", "-"], &late).status.success().then_some(()));
    until("both routes", || (names(&discovery, "VirtualService") == ["early", "late"]).then_some(()));
    cluster.ctl(&["delete", "crd", "virtualservices.networking.istio.io"]);
    until("the end of both", || names(&discovery, "VirtualService").is_empty().then_some(()));
    assert_eq!(discovery.text("/ready"), "");
}

pub fn wrong_objects(cluster: &Kubernetes) {
    cluster.namespace("wrong");
    cluster.apply(&definition(ISTIO, "DestinationRule", "destinationrules", &["v1"], "Namespaced"));
    let rule = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: wrong}}\nspec: {spec}\n"
        )
    };
    until("the definition", || {
        cluster.try_ctl(&["apply", "-f", "-"], &rule("good", "{host: a}")).status.success().then_some(())
    });
    cluster.apply(&rule("misspelt", "{hots: a}"));
    let discovery = Discovery::start(cluster, &[]);
    until("the good one", || (names(&discovery, "DestinationRule") == ["good"]).then_some(()));
    let line = until("the report", || {
        discovery.output().lines().find(|line| line.contains("wrong/misspelt")).map(str::to_owned)
    });
    assert!(line.contains("spec.hots"), "{line}");
    // In the object's own status, too.
    until("the verdict", || {
        let object = cluster.get("destinationrules.networking.istio.io", "wrong", "misspelt")?;
        let condition = object["status"]["conditions"].get(0)?.clone();
        (condition["type"] == "PassedAnalysis" && condition["status"] == "False").then_some(())
    });
    // What was good stays in force when it becomes wrong.
    cluster.apply(&rule("good", "{host: a, trafficPolice: {}}"));
    until("the second report", || discovery.output().contains("spec.trafficPolice").then_some(()));
    assert_eq!(names(&discovery, "DestinationRule"), ["good"]);
    cluster.apply(&rule("misspelt", "{host: b}"));
    until("the repaired one", || (names(&discovery, "DestinationRule") == ["good", "misspelt"]).then_some(()));
    until("the verdict's end", || {
        let object = cluster.get("destinationrules.networking.istio.io", "wrong", "misspelt")?;
        (object["status"]["conditions"][0]["status"] == "True").then_some(())
    });
    cluster.ctl(&["delete", "crd", "destinationrules.networking.istio.io"]);
}

fn mesh_map(name: &str, mesh: &str) -> String {
    let lines: String = mesh.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: istio-system}}\ndata:\n  mesh: |\n{lines}"
    )
}

pub fn mesh_configuration(cluster: &Kubernetes) {
    for name in ["chosen", "left-out"] {
        cluster.namespace(name);
        cluster.apply(&service(name, "web", &["10.2.0.1"]));
    }
    cluster.ctl(&["label", "namespace", "chosen", "mesh=on", "--overwrite"]);
    cluster.apply(&mesh_map("istio", "connectTimeout: 3s"));
    cluster.apply(&mesh_map("istio-canary", "connectTimeout: 7s"));
    let (discovery, canary) = (Discovery::start(cluster, &[]), Discovery::start(cluster, &["--revision", "canary"]));
    assert_eq!(discovery.json("/debug/mesh")["connectTimeout"], "3s");
    assert_eq!(canary.json("/debug/mesh")["connectTimeout"], "7s");
    let (inside, outside) =
        ("outbound|80||web.chosen.svc.cluster.local", "outbound|80||web.left-out.svc.cluster.local");
    block_on(async {
        let mut proxy = watching(&discovery, inside);
        proxy.until("both", |proxy| proxy.has(CLUSTER, inside) && proxy.has(CLUSTER, outside)).await;
        cluster.apply(&mesh_map("istio", "connectTimeout: 5s\ndiscoverySelectors:\n- matchLabels: {mesh: \"on\"}"));
        proxy.until("one alone", |proxy| proxy.has(CLUSTER, inside) && !proxy.has(CLUSTER, outside)).await;
        assert_eq!(discovery.json("/debug/mesh")["connectTimeout"], "5s");
        cluster.ctl(&["label", "namespace", "left-out", "mesh=on"]);
        proxy.until("the newly chosen", |proxy| proxy.has(CLUSTER, outside)).await;
        cluster.apply(&mesh_map("istio", "connectTimeout: nonsense"));
        until("the refusal", || discovery.output().contains("connectTimeout").then_some(()));
        assert_eq!(discovery.json("/debug/mesh")["connectTimeout"], "5s", "what was in force stays");
    });
    assert_eq!(canary.json("/debug/mesh")["connectTimeout"], "7s");
    cluster.ctl(&["delete", "configmap", "istio", "istio-canary", "-n", "istio-system"]);
}

pub fn outage(cluster: &Kubernetes) {
    /// What an API server that is replaced takes, and more.
    const OUTAGE: Duration = Duration::from_secs(20);
    cluster.namespace("outage");
    cluster.apply(&service("outage", "web", &["10.3.0.1"]));
    let discovery = Discovery::start(cluster, &[]);
    let name = "outbound|80||web.outage.svc.cluster.local";
    block_on(async {
        let mut old = watching(&discovery, name);
        old.until("the endpoint", |proxy| proxy.endpoints(name) == ["10.3.0.1:8080"]).await;
        cluster.api("stop");
        until("the outage", || discovery.output().contains("cannot be followed").then_some(()));
        let mut waiting = Discovery::launch(cluster, &[]);
        tokio::time::sleep(OUTAGE).await;
        let mut new = watching(&discovery, name);
        new.until("what was known", |proxy| proxy.endpoints(name) == ["10.3.0.1:8080"]).await;
        assert!(!waiting.output().contains("discovery is ready"), "nobody serves what it has not read");
        cluster.api("start");
        cluster.apply(&slice("outage", "web", &["10.3.0.2"]));
        for proxy in [&mut old, &mut new] {
            proxy.until("the change", |proxy| proxy.endpoints(name) == ["10.3.0.2:8080"]).await;
        }
        until("its end", || discovery.output().contains("followed again").then_some(()));
        waiting.wait();
        assert!(names(&waiting, "Service").contains(&"web".to_owned()));
    });
}
