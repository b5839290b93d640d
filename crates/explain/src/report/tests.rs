use super::*;
use crate::mesh::Mesh;
use crate::request::Protocol;

const ROUTING: &str = include_str!("../../../../samples/shop/routing.yaml");
const SERVICES: &str = include_str!("../../../../samples/shop/services.yaml");

fn shop() -> Mesh {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mesh = Mesh::read(&[file("routing.yaml", ROUTING), file("services.yaml", SERVICES)], None).unwrap();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    mesh
}

/// The line of a text in a file.
fn line(file: &str, text: &str) -> u32 {
    let at = file.lines().position(|line| line.contains(text)).unwrap();
    u32::try_from(at + 1).unwrap()
}

fn ask(mesh: &Mesh, from: &str, edit: impl FnOnce(&mut Request)) -> Report {
    let proxy = crate::proxies::find(&mesh.proxies, &mesh.selectors(), from, None).unwrap()[0];
    let service = crate::names::find(&mesh.services, "catalog", "shop").unwrap();
    let mut request = Request::to((service.address.unwrap(), 8080).into());
    request.host = "catalog:8080".into();
    edit(&mut request);
    let sent = mesh.sent(proxy.node.as_ref().unwrap());
    let question = Question {
        proxy: &proxy.title(),
        namespace: &proxy.namespace,
        labels: &proxy.labels,
        root_namespace: mesh.snapshot.root_namespace(),
        sent: &sent,
        origins: &mesh.origins,
        mesh: Some(mesh),
    };
    explain(&question, &request)
}

#[test]
fn a_request_is_followed_to_its_endpoints_and_its_lines() {
    let report = ask(&shop(), "frontend", |_| {});
    assert_eq!(report.names["error"], Value::Null);
    assert_eq!(report.names["route_config"], "8080");
    assert_eq!(report.names["virtual_host"], "catalog.shop.svc.cluster.local:8080");
    assert_eq!(report.names["route"], "everyone");
    assert!(report.is_served, "{}", report.text(false));
    let json = report.json();
    assert_eq!((&json["timeout"], &json["clusters"][0]["share_percent"]), (&"5s".into(), &90.0.into()));
    assert_eq!(json["retries"], "up to 2, 2s a try, on reset, connect-failure, refused-stream");
    let route = report.steps.iter().find(|step| step.kind == "route").unwrap();
    assert_eq!(route.places[0].title(), "VirtualService shop/catalog spec.http[1]");
    assert_eq!(route.places[0].source.as_ref().unwrap().line, line(ROUTING, "name: everyone"));
    assert_eq!(route.passed[0].reason, "it wants header end-user \"tester\", the request has none");
    assert_eq!(route.passed[0].place.as_ref().unwrap().title(), "VirtualService shop/catalog spec.http[0].match[0]");
    let v1 = &report.upstreams[0];
    assert_eq!(v1.places[0].title(), "DestinationRule shop/catalog spec.subsets[0]");
    assert_eq!(v1.places[0].source.as_ref().unwrap().line, line(ROUTING, "- name: v1"));
    assert_eq!(v1.endpoints[0].workload, "catalog-v1.shop");
    assert_eq!(v1.endpoints[0].security, "mutual TLS");
    assert!(
        report.verdict.starts_with("goes 90% to catalog.shop.svc.cluster.local:8080 subset v1, 10% to "),
        "{}",
        report.verdict
    );
}

#[test]
fn a_header_takes_the_other_route() {
    let report = ask(&shop(), "frontend", |request| request.headers.push(("End-User".into(), "tester".into())));
    assert_eq!(report.names["route"], "testers");
    assert_eq!(report.names["cluster"], "outbound|8080|v3|catalog.shop.svc.cluster.local");
}

#[test]
fn text_has_the_end_first_and_the_way_below() {
    let text = ask(&shop(), "frontend", |_| {}).text(false);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("GET http://catalog:8080/ to 10."), "{text}");
    assert!(lines[1].starts_with("goes 90% to "), "{text}");
    assert!(text.contains("\n  filter chain"), "{text}");
    assert!(text.contains("from VirtualService shop/catalog spec.http[1]  routing.yaml:"), "{text}");
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn what_fails_is_told_with_its_reason() {
    let mesh = shop();
    let stranger = ask(&mesh, "frontend", |request| request.host = "catalogue:8080".into());
    assert_eq!(stranger.names["virtual_host"], "allow_any", "{}", stranger.text(false));
    assert!(stranger.verdict.contains("PassthroughCluster"), "{}", stranger.verdict);
    let inbound = ask(&mesh, "catalog-v1", |request| request.inbound = true);
    assert_eq!(inbound.names["error"], "ErrNoFilterChain", "{}", inbound.text(false));
    let gateway = ask(&mesh, "istio-ingressgateway", |request| request.destination.set_port(9));
    assert_eq!(gateway.names["error"], "ErrNoListener");
    assert!(gateway.steps[0].why.contains("there are some for port 8080"), "{}", gateway.steps[0].why);
}

#[test]
fn a_gateway_s_port_is_told_with_its_gateway() {
    let report = ask(&shop(), "istio-ingressgateway", |request| {
        request.destination.set_port(8080);
        request.host = "shop.example.com".into();
        request.path = "/catalog/1".into();
    });
    assert_eq!(report.steps[0].places[0].title(), "Gateway shop/shop spec.servers[0]", "{}", report.text(false));
    assert_eq!(report.names["route"], "catalog");
    assert_eq!(report.upstreams.len(), 2);
}

#[test]
fn a_subset_that_nobody_declares_is_told() {
    let file = |name: &str, text: String| (name.to_owned(), text);
    let routing = ROUTING.replacen("subset: v1\n      weight: 90", "subset: v9\n      weight: 90", 1);
    let mesh = Mesh::read(&[file("routing.yaml", routing), file("services.yaml", SERVICES.into())], None).unwrap();
    let report = ask(&mesh, "frontend", |_| {});
    let problem = report.upstreams[0].problem.as_deref().unwrap();
    assert_eq!(problem, "no DestinationRule of catalog.shop.svc.cluster.local has a subset v9; there are v1, v2, v3");
    assert!(!report.is_served && report.verdict.starts_with("90% of it fails"), "{}", report.verdict);
}

#[test]
fn tcp_goes_by_its_address() {
    let mesh = shop();
    let ledger = crate::names::find(&mesh.services, "ledger", "shop").unwrap();
    let port = ledger.ports[0].0;
    let report = ask(&mesh, "frontend", |request| {
        request.destination = (ledger.address.unwrap(), port).into();
        request.protocol = Protocol::Tcp;
    });
    assert_eq!(
        report.names["cluster"],
        format!("outbound|{port}||ledger.shop.svc.cluster.local"),
        "{}",
        report.text(false)
    );
}

#[test]
fn a_route_of_a_delegate_is_told_where_the_delegate_is_written() {
    let routing = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: shop}
spec:
  hosts: [catalog]
  http:
  - name: own
    match: [{uri: {prefix: /own}}]
    route: [{destination: {host: catalog}}]
  - name: rest
    match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}]
    delegate: {name: leaf}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec:
  http:
  - name: tested
    match: [{headers: {x: {exact: '1'}}}]
    route: [{destination: {host: catalog}}]
  - name: all
    route: [{destination: {host: catalog}}]
";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let mesh = Mesh::read(&[file("routing.yaml", routing), file("services.yaml", SERVICES)], None).unwrap();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    let place = |path: &str| {
        let report = ask(&mesh, "frontend", |request| request.path = path.into());
        let step = report.steps.iter().find(|step| step.kind == "route").unwrap().clone();
        (step.name, step.places.first().map(Place::title))
    };
    let named = |name: &str, title: &str| (name.to_owned(), Some(title.to_owned()));
    assert_eq!(place("/own"), named("own", "VirtualService shop/root spec.http[0].match[0]"));
    assert_eq!(place("/a/1"), named("rest-all", "VirtualService shop/leaf spec.http[1]"));
    assert_eq!(place("/b"), named("rest-all", "VirtualService shop/leaf spec.http[1]"));
    let tested = ask(&mesh, "frontend", |request| {
        request.path = "/b".into();
        request.headers.push(("x".into(), "1".into()));
    });
    let step = tested.steps.iter().find(|step| step.kind == "route").unwrap();
    assert_eq!(step.places[0].title(), "VirtualService shop/leaf spec.http[0].match[0]");
}

#[test]
fn an_endpoint_that_refuses_what_is_sent_to_it_is_told() {
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain, namespace: shop}
spec: {host: stock, trafficPolicy: {tls: {mode: DISABLE}}}
";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [file("routing.yaml", ROUTING), file("services.yaml", SERVICES), file("plain.yaml", rule)];
    let mesh = Mesh::read(&files, None).unwrap();
    let stock = crate::names::find(&mesh.services, "stock", "shop").unwrap();
    let report = ask(&mesh, "catalog-v1", |request| {
        request.destination = (stock.address.unwrap(), stock.ports[0].0).into();
        request.host = "stock:8080".into();
    });
    let upstream = &report.upstreams[0];
    let problem = "its endpoints do not take it: there it is closed: no filter chain takes the connection";
    assert_eq!(upstream.problem.as_deref(), Some(problem), "{}", report.text(false));
    assert_eq!(upstream.places[0].title(), "DestinationRule shop/plain spec.trafficPolicy");
    assert!(!report.is_served);
}

#[test]
fn a_service_that_a_sidecar_hides_is_told() {
    let sidecar = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: shop}
spec: {egress: [{hosts: ['./stock.shop.svc.cluster.local']}]}
";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [file("routing.yaml", ROUTING), file("services.yaml", SERVICES), file("narrow.yaml", sidecar)];
    let mesh = Mesh::read(&files, None).unwrap();
    let report = ask(&mesh, "frontend", |_| {});
    let note = "catalog.shop.svc.cluster.local is a service of the mesh that this workload does not see: Sidecar shop/narrow \
                spec.egress at narrow.yaml:5, or what the service is exported to";
    assert!(report.notes.iter().any(|own| own == note), "{:?}", report.notes);
    assert!(ask(&shop(), "frontend", |_| {}).notes.is_empty());
}

#[test]
fn a_rule_of_the_gateway_api_is_told_by_its_own_lines() {
    const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-path, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog}]
  rules:
  - backendRefs: [{name: catalog, port: 8080}]
  - matches:
    - path: {value: /other}
    - path: {value: /books}
    backendRefs: [{name: catalog, port: 8080}]
";
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [file("routing.yaml", ROUTING), file("services.yaml", SERVICES), file("route.yaml", ROUTE)];
    let mesh = Mesh::read(&files, None).unwrap();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    let report = ask(&mesh, "frontend", |request| request.path = "/books/1".into());
    let route = report.steps.iter().find(|step| step.kind == "route").unwrap();
    assert_eq!(report.names["route"], "shop.by-path.1");
    assert_eq!(route.places[0].title(), "HTTPRoute shop/by-path spec.rules[1].matches[1]");
    let source = route.places[0].source.as_ref().unwrap();
    assert_eq!((&*source.file, source.line), ("route.yaml", line(ROUTE, "/books")));
}

#[test]
fn the_policies_that_a_request_is_held_against_are_named() {
    let policy = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
        )
    };
    let policies = [
        policy("AuthorizationPolicy", "readers", "rules: [{}]"),
        policy("AuthorizationPolicy", "no-writes", "action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]"),
        policy("AuthorizationPolicy", "other", "selector: {matchLabels: {app: nobody}}, rules: [{}]"),
        policy("RequestAuthentication", "jwt", "jwtRules: [{issuer: i}]"),
        policy("RateLimitPolicy", "api", "rules: [{limit: {requests: 5, unit: SECOND}}]")
            .replace("security.istio.io/v1", "meltemi.io/v1alpha1"),
    ];
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files =
        [file("routing.yaml", ROUTING), file("services.yaml", SERVICES), file("policies.yaml", &policies.concat())];
    let mesh = Mesh::read(&files, None).unwrap();
    let report = ask(&mesh, "frontend", |_| {});
    let fact = |report: &Report| report.upstreams[0].facts.iter().find(|(name, _)| *name == "policies").cloned();
    assert_eq!(
        fact(&report).unwrap().1,
        "tokens of shop/jwt, DENY shop/no-writes, ALLOW shop/readers, limits of shop/api"
    );
    assert_eq!(fact(&ask(&shop(), "frontend", |_| {})), None);
}
