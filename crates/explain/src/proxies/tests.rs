use super::*;
use crate::mesh::Mesh;
use crate::names;

const DOCUMENTS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {containers: [{name: web, image: x, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: other}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, sidecar.istio.io/inject: 'false'}}
    spec: {containers: [{name: web, image: x}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
";

fn mesh() -> Mesh {
    Mesh::read(&[("all.yaml".into(), DOCUMENTS.into())], None).unwrap()
}

#[test]
fn manifests_alone_give_pods_with_addresses_and_a_gateway() {
    let mesh = mesh();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    let all: Vec<String> = mesh.proxies.iter().map(|proxy| format!("{} {}", proxy.title(), proxy.pod)).collect();
    assert_eq!(
        all,
        [
            "gateway istio-ingressgateway.istio-system istio-ingressgateway-0",
            "pod web-v1.other web-v1-0",
            "sidecar web-v1.shop web-v1-0",
            "sidecar web-v1.shop web-v1-1",
        ]
    );
    let web = names::find(&mesh.services, "web", "shop").unwrap();
    assert_eq!(web.ports, [(80, 80)], "a named port is the workload's affair");
    assert!(web.address.is_some());
}

#[test]
fn addresses_do_not_depend_on_what_else_there_is() {
    let address = |text: &str| {
        let mesh = Mesh::read(&[("all.yaml".into(), text.into())], None).unwrap();
        names::find(&mesh.services, "web", "shop").unwrap().address
    };
    let more = format!(
        "{DOCUMENTS}---\napiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: shop}}\nspec: {{ports: [{{port: 1}}]}}\n"
    );
    assert_eq!(address(DOCUMENTS), address(&more));
}

#[test]
fn a_workload_is_found_by_any_of_its_names() {
    let mesh = mesh();
    let find = |name: &str, namespace: Option<&str>| {
        let found = find(&mesh.proxies, &mesh.selectors(), name, namespace)?;
        Ok::<_, NotFound>(found.iter().map(|proxy| format!("{}.{}", proxy.pod, proxy.namespace)).collect::<Vec<_>>())
    };
    let both = Ok(vec!["web-v1-0.shop".to_owned(), "web-v1-1.shop".to_owned()]);
    for (name, namespace) in [
        ("web-v1", Some("shop")),
        ("web-v1.shop", None),
        ("shop/web-v1", None),
        ("deploy/web-v1.shop", None),
        ("svc/web.shop", None),
        ("app=web,version=v1", None),
    ] {
        assert_eq!(find(name, namespace), both, "{name}");
    }
    assert_eq!(find("web-v1-1.shop", None).unwrap(), ["web-v1-1.shop"]);
    assert_eq!(find("ingressgateway", None).unwrap(), ["istio-ingressgateway-0.istio-system"]);
    let error = |name: &str, namespace| find(name, namespace).unwrap_err().to_string();
    assert_eq!(error("web-v1", None), "\"web-v1\" is in several namespaces: name one of web-v1.other, web-v1.shop");
    assert_eq!(
        error("wev-v1", Some("shop")),
        "no workload \"wev-v1\" in namespace shop; there are web-v1.other, web-v1.shop"
    );
    assert!(
        error("nothing-like-it", None).contains("there are istio-ingressgateway.istio-system"),
        "{}",
        error("nothing-like-it", None)
    );
}

#[test]
fn pods_that_were_injected_say_themselves_who_has_a_proxy() {
    let pod = |name: &str, address: &str, containers: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{containers: [{containers}]}}\nstatus: {{podIP: {address}}}\n---\n"
        )
    };
    let text = pod("app", "10.0.0.1", "{name: app, image: x}, {name: istio-proxy, image: proxy}")
        + &pod("edge", "10.0.0.2", "{name: istio-proxy, image: proxy}")
        + &pod("plain", "10.0.0.3", "{name: app, image: x}");
    let mesh = Mesh::read(&[("pods.yaml".into(), text)], None).unwrap();
    let titles: Vec<String> = mesh.proxies.iter().map(Proxy::title).collect();
    assert_eq!(titles, ["sidecar app.shop", "gateway edge.shop", "pod plain.shop"]);
    assert!(mesh.notes.is_empty(), "{:?}", mesh.notes);
}
