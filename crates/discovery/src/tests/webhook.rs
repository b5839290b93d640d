//! The port for webhooks, as an API server uses it.

use super::*;
use base64::Engine as _;

const INJECTOR: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: istio-system}
data:
  config: |
    policy: enabled
    templates:
      sidecar: |
        metadata: {labels: {template: TEMPLATE}}
        spec: {containers: [{name: istio-proxy, image: '{{ .Values.global.hub }}/proxy'}]}
  values: '{\"global\": {\"hub\": \"here\"}}'
";

fn question(pod: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": { "uid": "7", "operation": "CREATE", "namespace": "shop", "object": pod },
    })
    .to_string()
}

fn web() -> Value {
    json!({ "metadata": { "name": "web", "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "web" }] } })
}

const JSON: &str = "content-type: application/json";

/// Status and body of an answer; `head` is method and path, and perhaps a header in the next line.
async fn ask(mesh: &Mesh, head: &str, body: &str) -> (u16, String) {
    let anchors = TrustSlot::new(TrustAnchors::from_pem(mesh.authority.root_pem().as_bytes(), &[]).unwrap());
    let tls = ClientTls::new(ClientOptions {
        validation: Some(Validation { anchors, ..Validation::default() }),
        sni: Some("istiod.istio-system.svc".to_owned()),
        ..ClientOptions::default()
    })
    .unwrap();
    let stream = TcpStream::connect(mesh.addresses.webhook.unwrap()).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(tls.config()).connect(tls.server_name(), stream).await.unwrap();
    let (line, header) = head.split_once('\n').unwrap_or((head, "accept: */*"));
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\n{header}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    // What is refused before its end is not read to its end.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn post(mesh: &Mesh, path: &str, body: &str) -> Value {
    let (status, body) = ask(mesh, &format!("POST {path}\n{JSON}"), body).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The patch of an answer that allows.
fn patch(answer: &Value) -> String {
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("7"), &json!(true)), "{answer}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn until_patched(mesh: &Mesh, expected: &str) -> String {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        let patch = patch(&post(mesh, "/inject", &question(&web())).await);
        if patch.contains(expected) {
            return patch;
        }
        assert!(tokio::time::Instant::now() < end, "{expected} is never in {patch}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_injected_by_default_and_by_what_the_config_map_comes_to_be() {
    let mesh = Mesh::start().await;
    assert_eq!(ask(&mesh, "GET /ready", "").await, (200, String::new()));
    let answer = post(&mesh, "/inject/cluster/c1/net/n--slash--1", &question(&web())).await;
    let by_default = patch(&answer);
    for expected in ["istio-init", "istio-proxy", "{\"name\":\"ISTIO_META_CLUSTER_ID\",\"value\":\"c1\"}", "n/1"] {
        assert!(by_default.contains(expected), "{expected}: {by_default}");
    }
    mesh.write("injector.yaml", &INJECTOR.replace("TEMPLATE", "first"));
    assert!(until_patched(&mesh, "first").await.contains("here/proxy"));
    mesh.write("injector.yaml", &INJECTOR.replace("TEMPLATE", "second"));
    until_patched(&mesh, "second").await;
    // What is wrong does not come into force, and takes nothing out of it.
    mesh.write("injector.yaml", &INJECTOR.replace("policy: enabled", "policy: maybe"));
    mesh.write("marker.yaml", &endpoints("other", &["127.0.2.9"]));
    until_known(&mesh, "127.0.2.9").await;
    until_patched(&mesh, "second").await;
    mesh.stop().await;
}

/// A configuration in a folder.
const CONFIG: &str = "
policy: enabled
templates:
  sidecar: |
    metadata: {labels: {template: TEMPLATE}}
    spec: {containers: [{name: istio-proxy, image: '{{ .Values.global.hub }}/proxy'}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_takes_the_place_of_the_config_map() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = Mesh::start_with(|options| options.webhook.folder = folder.path().to_owned()).await;
    mesh.write("injector.yaml", &INJECTOR.replace("TEMPLATE", "of-the-map"));
    until_patched(&mesh, "of-the-map").await;

    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("config", &CONFIG.replace("TEMPLATE", "of-the-folder"));
    // What is not whole does not come into force.
    let question = question(&web());
    assert!(patch(&post(&mesh, "/inject", &question).await).contains("of-the-map"));
    write("values", r#"{"global": {"hub": "there"}}"#);
    let patched = patch(&post(&mesh, "/inject", &question).await);
    assert!(patched.contains("of-the-folder") && patched.contains("there/proxy"), "{patched}");
    write("config", &CONFIG.replace("TEMPLATE", "changed-later"));
    assert!(patch(&post(&mesh, "/inject", &question).await).contains("changed-later"));
    // Nor what is wrong.
    write("config", "policy: maybe");
    assert!(patch(&post(&mesh, "/inject", &question).await).contains("changed-later"));
    std::fs::remove_file(folder.path().join("config")).unwrap();
    assert!(patch(&post(&mesh, "/inject", &question).await).contains("of-the-map"));
    mesh.stop().await;
}

/// Until a document that was written later is in force.
async fn until_known(mesh: &Mesh, address: &str) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !mesh.get(mesh.addresses.http, "/debug/endpointz").await.contains(address) {
        assert!(tokio::time::Instant::now() < end, "{address} never comes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_decides_on_native_sidecars_and_proxy_configs() {
    let cluster = "
apiVersion: v1
kind: Node
metadata: {name: new}
status: {nodeInfo: {kubeletVersion: v1.36.0}}
---
apiVersion: v1
kind: Node
metadata: {name: old}
status: {nodeInfo: {kubeletVersion: v1.32.1}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: mesh, namespace: istio-system}
spec: {concurrency: 2, environmentVariables: {OF: mesh}}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, concurrency: 7}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: other, namespace: shop}
spec: {selector: {matchLabels: {app: other}}, concurrency: 9}
";
    let mesh = Mesh::start_over(|dir| std::fs::write(dir.join("cluster.yaml"), cluster).unwrap(), |_| {}).await;
    let asked = async |node: &str| {
        let mut pod = web();
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        patch(&post(&mesh, "/inject", &question(&pod)).await)
    };
    for (node, is_native) in [("", false), ("new", true), ("old", false)] {
        let patch = asked(node).await;
        assert_eq!(patch.contains("\"restartPolicy\":\"Always\""), is_native, "{node}: {patch}");
        assert!(patch.contains(r#"{\"concurrency\":7,\"proxyMetadata\":{\"OF\":\"mesh\"}}"#), "{patch}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_validated_and_counted() {
    let mesh = Mesh::start().await;
    let review = |spec: Value| {
        let question = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "7",
                "operation": "CREATE",
                "kind": { "group": "networking.istio.io", "version": "v1", "kind": "VirtualService" },
                "namespace": "shop",
                "object": { "metadata": { "name": "web" }, "spec": spec },
            },
        });
        question.to_string()
    };
    let fine = review(json!({ "hosts": ["web"], "http": [{ "route": [{ "destination": { "host": "web" } }] }] }));
    assert_eq!(post(&mesh, "/validate", &fine).await["response"]["allowed"], true);
    let answer = post(&mesh, "/validate", &review(json!({ "hosts": [] }))).await;
    assert_eq!(answer["response"]["allowed"], false, "{answer}");
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    for expected in ["galley_validation_passed{", "galley_validation_failed{"] {
        let of_kind = |line: &&str| line.starts_with(expected) && line.contains("resource=\"virtualservices\"");
        assert_eq!(metrics.lines().find(of_kind).and_then(|line| line.rsplit(' ').next()), Some("1"), "{metrics}");
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_requests_are_refused_and_counted() {
    let mesh = Mesh::start().await;
    let mut wrong = web();
    wrong["metadata"]["annotations"]["status.sidecar.istio.io/port"] = json!("web");
    let answer = post(&mesh, "/inject", &question(&wrong)).await;
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("invalid value 'web' for annotation 'status.sidecar.istio.io/port'"), "{message}");
    for (head, body, status) in [
        ("GET /inject".to_owned(), "", 405),
        ("POST /nothing".to_owned(), "{}", 404),
        ("POST /inject".to_owned(), "{}", 415),
        (format!("POST /inject\n{JSON}"), "", 400),
    ] {
        assert_eq!(ask(&mesh, &head, body).await.0, status, "{head}");
    }
    let much = " ".repeat(meltemi_webhook::server::MAX_BODY_BYTES + 1);
    assert_eq!(ask(&mesh, &format!("POST /inject\n{JSON}"), &much).await.0, 413);
    let metrics = mesh.get(mesh.addresses.monitoring, "/metrics").await;
    for expected in
        ["sidecar_injection_requests_total 4", "sidecar_injection_failure_total 4", "sidecar_injection_success_total 0"]
    {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    mesh.stop().await;
}
