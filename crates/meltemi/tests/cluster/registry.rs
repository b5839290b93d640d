//! What discovery reads.

use std::time::Duration;

use meltemi_xds::WILDCARD;
use meltemi_xds::types::{CLUSTER, ENDPOINT};
use serde_json::Value;

use crate::client::{Proxy, block_on, node};
use crate::documents::{ours, ours_without, service, slice};
use crate::kubernetes::{Kubernetes, until};
use crate::process::Discovery;

const ROUTES: &str = "virtualservices.networking.istio.io";
const RULES: &str = "destinationrules.networking.istio.io";

/// The names of the objects of a kind that are in force, as discovery's page has them.
pub fn names(discovery: &Discovery, kind: &str) -> Vec<String> {
    let Value::Array(all) = discovery.json("/debug/configz?kinds=all") else { panic!("a list") };
    let of_kind = all.iter().filter(|object| object["kind"] == kind);
    of_kind.map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

pub fn watching(discovery: &Discovery, cluster: &str) -> Proxy {
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
    cluster.apply(&ours_without(ROUTES, "v1"));
    until("the definition", || cluster.try_ctl(&["apply", "-f", "-"], route).status.success().then_some(()));
    until("the route", || (names(&discovery, "VirtualService") == ["early"]).then_some(()));
    cluster.apply(&ours(ROUTES));
    until("the newer version", || {
        let versions = cluster.ctl(&["get", "crd", ROUTES, "-o", "jsonpath={.spec.versions[*].name}"]);
        versions.split(' ').any(|version| version == "v1").then_some(())
    });
    let late = route.replace("v1beta1", "v1").replace("early", "late");
    until("version v1", || cluster.try_ctl(&["apply", "-f", "-"], &late).status.success().then_some(()));
    until("both routes", || (names(&discovery, "VirtualService") == ["early", "late"]).then_some(()));
    cluster.ctl(&["delete", "crd", ROUTES]);
    until("the end of both", || names(&discovery, "VirtualService").is_empty().then_some(()));
    assert_eq!(discovery.text("/ready"), "");
}

pub fn tags(cluster: &Kubernetes) {
    const WEBHOOK: &str = "istio-revision-tag-steady";
    let tag = |revision: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\n\
             metadata: {{name: {WEBHOOK}, labels: {{istio.io/tag: steady, istio.io/rev: {revision}}}}}\n"
        )
    };
    let route = |name: &str, label: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: {name}, namespace: tags, labels: {{istio.io/rev: {label}}}}}\n\
             spec: {{hosts: [a], http: [{{route: [{{destination: {{host: a}}}}]}}]}}\n"
        )
    };
    cluster.namespace("tags");
    cluster.apply(&ours(ROUTES));
    until("the definition", || {
        cluster.try_ctl(&["apply", "-f", "-"], &route("tagged", "steady")).status.success().then_some(())
    });
    cluster.apply(&route("named", "1-26"));
    cluster.apply(&tag("1-26"));
    let discovery = Discovery::start(cluster, &["--revision", "1-26"]);
    assert_eq!(names(&discovery, "VirtualService"), ["named", "tagged"]);
    cluster.apply(&tag("1-27"));
    until("the tag's move", || (names(&discovery, "VirtualService") == ["named"]).then_some(()));
    cluster.apply(&tag("1-26"));
    until("its return", || (names(&discovery, "VirtualService") == ["named", "tagged"]).then_some(()));
    cluster.ctl(&["delete", "mutatingwebhookconfiguration", WEBHOOK]);
    until("its end", || (names(&discovery, "VirtualService") == ["named"]).then_some(()));
    cluster.ctl(&["delete", "crd", ROUTES]);
}

pub fn wrong_objects(cluster: &Kubernetes) {
    cluster.namespace("wrong");
    cluster.apply(&ours(RULES));
    until("the definition", || {
        cluster.try_ctl(&["apply", "-f", "-"], &rule("good", "{host: a}")).status.success().then_some(())
    });
    cluster.apply(&rule("twice", TWICE));
    let discovery = Discovery::start(cluster, &[]);
    until("the good one", || (names(&discovery, "DestinationRule") == ["good"]).then_some(()));
    let line =
        until("the report", || discovery.output().lines().find(|line| line.contains("wrong/twice")).map(str::to_owned));
    assert!(line.contains("spec.subsets[1].name"), "{line}");
    // In the object's own status, too.
    judged(cluster, "twice", "False");
    // What was good stays in force when it becomes wrong.
    cluster.apply(&rule("good", TWICE));
    until("the second report", || discovery.output().contains("wrong/good").then_some(()));
    assert_eq!(names(&discovery, "DestinationRule"), ["good"]);
    cluster.apply(&rule("twice", "{host: b}"));
    until("the repaired one", || (names(&discovery, "DestinationRule") == ["good", "twice"]).then_some(()));
    judged(cluster, "twice", "True");
    // What nobody saw repaired is judged anew by whoever leads next.
    judged(cluster, "good", "False");
    discovery.kill();
    cluster.apply(&rule("good", "{host: c}"));
    let _next = Discovery::start(cluster, &[]);
    judged(cluster, "good", "True");
    cluster.ctl(&["delete", "crd", RULES]);
}

/// What our definition takes, and validation does not.
const TWICE: &str = "{host: a, subsets: [{name: v1}, {name: v1}]}";

fn rule(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: wrong}}\nspec: {spec}\n"
    )
}

fn judged(cluster: &Kubernetes, name: &str, status: &str) {
    until(&format!("{name}: {status}"), || {
        let object = cluster.get(RULES, "wrong", name)?;
        let condition = object["status"]["conditions"].get(0)?.clone();
        (condition["type"] == "PassedAnalysis" && condition["status"] == status).then_some(())
    });
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
