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
        identity: &proxy.identity(&mesh.snapshot).unwrap_or_default(),
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
    let problem = "its endpoints do not take it: there it is closed: no filter chain takes the connection \
                   (PeerAuthentication shop/default spec.mtls)";
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

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-writes, namespace: shop}
spec: {action: DENY, rules: [{to: [{operation: {methods: [PATCH]}}]}, {to: [{operation: {methods: [PUT]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
  - from: [{source: {requestPrincipals: [issuer/*]}}]
    when: [{key: 'request.auth.claims[scope]', values: [write]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: later, namespace: shop, annotations: {istio.io/dry-run: 'true'}}
spec: {action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: other}, {issuer: issuer, audiences: [shop]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec: {action: CUSTOM, provider: {name: door}, rules: [{to: [{operation: {paths: [/admin*]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask-nobody, namespace: shop}
spec:
  selector: {matchLabels: {app: frontend}}
  action: CUSTOM
  provider: {name: nobody}
  rules: [{to: [{operation: {paths: [/secret]}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
";

const SETTINGS: &str =
    "extensionProviders:\n- name: door\n  envoyExtAuthzHttp: {service: catalog.shop.svc.cluster.local, port: 8080}\n";

fn guarded() -> Mesh {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let files = [file("routing.yaml", ROUTING), file("services.yaml", SERVICES), file("policies.yaml", POLICIES)];
    let mesh = Mesh::read(&files, Some(&file("mesh.yaml", SETTINGS))).unwrap();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    mesh
}

/// What the sidecar of a catalog says to whoever has this identity.
fn arrives(mesh: &Mesh, principal: &str, edit: impl FnOnce(&mut Request)) -> Report {
    let proxy = crate::proxies::find(&mesh.proxies, &mesh.selectors(), "catalog-v1", None).unwrap()[0];
    let address = proxy.node.as_ref().unwrap().ip_addresses[0].parse().unwrap();
    ask(mesh, "catalog-v1", |request| {
        (request.inbound, request.security) = (true, crate::Security::Mtls);
        request.destination = std::net::SocketAddr::new(address, 8080);
        request.principal = principal.to_owned();
        edit(request);
    })
}

const FRONTEND: &str = "spiffe://cluster.local/ns/shop/sa/frontend";
const STRANGER: &str = "spiffe://cluster.local/ns/shop/sa/stranger";

#[test]
fn the_rule_that_decides_a_request_is_told_with_its_line() {
    let mesh = guarded();
    let denied = arrives(&mesh, FRONTEND, |request| request.method = "PUT".into());
    assert_eq!(
        denied.verdict,
        "answered 403: DENY: AuthorizationPolicy shop/no-writes spec.rules[1] matches, so it is refused"
    );
    assert!(!denied.is_served);
    let step = denied.steps.iter().find(|step| step.kind == "policies").unwrap();
    let place = step.places.iter().find(|place| place.title().contains("no-writes")).unwrap();
    assert_eq!(
        place.source.as_ref().unwrap().line,
        line(POLICIES, "action: DENY, rules: [{to: [{operation: {methods: [PATCH]")
    );

    let allowed = arrives(&mesh, FRONTEND, |_| {});
    assert!(allowed.is_served, "{}", allowed.text(false));
    let text = allowed.text(false);
    assert!(text.contains("ALLOW: AuthorizationPolicy shop/readers spec.rules[0] matches"), "{text}");
    assert!(
        text.contains("DENY: AuthorizationPolicy shop/later spec.rules[0] matches, and would refuse it (dry run)"),
        "{text}"
    );
    let json = allowed.json();
    let policies = json["policies"].as_array().unwrap();
    let of = |action: &str, dry_run: bool| {
        policies.iter().find(|one| one["action"] == action && one["dry_run"] == dry_run).cloned().unwrap_or_default()
    };
    assert_eq!(of("ALLOW", false)["policy"]["name"], "readers", "{json:#}");
    assert_eq!(
        (&of("DENY", true)["policy"]["name"], &of("DENY", true)["answer"]),
        (&"later".into(), &"refused".into())
    );

    let nobody = arrives(&mesh, STRANGER, |_| {});
    assert_eq!(nobody.verdict, "answered 403: ALLOW: no rule matches, so it is refused");
    let unknown = arrives(&mesh, "", |_| {});
    assert!(unknown.notes.iter().any(|note| note.contains("--principal")), "{:?}", unknown.notes);
}

#[test]
fn tokens_count_by_their_claims() {
    let mesh = guarded();
    let with = |claims: Value| {
        let claims = claims.as_object().cloned().unwrap();
        arrives(&mesh, STRANGER, |request| request.claims = claims)
    };
    let taken = with(serde_json::json!({ "iss": "issuer", "sub": "me", "aud": ["shop"], "scope": "read write" }));
    assert!(taken.is_served, "{}", taken.text(false));
    let text = taken.text(false);
    assert!(text.contains("tokens: RequestAuthentication shop/jwt spec.jwtRules[1] matches"), "{text}");
    let read = with(serde_json::json!({ "iss": "issuer", "sub": "me", "aud": ["shop"], "scope": "read" }));
    assert!(read.verdict.starts_with("answered 403: ALLOW: no rule matches"), "{}", read.verdict);
    let stranger = with(serde_json::json!({ "iss": "nobody" }));
    assert!(stranger.verdict.starts_with("answered 401: tokens: none of issuer \"nobody\""), "{}", stranger.verdict);
    let audience = with(serde_json::json!({ "iss": "issuer", "aud": "bank" }));
    assert!(audience.verdict.starts_with("answered 403: tokens: it is for none of shop"), "{}", audience.verdict);
}

#[test]
fn a_custom_policy_names_its_provider_and_one_without_a_provider_refuses() {
    let mesh = guarded();
    let asked = arrives(&mesh, FRONTEND, |request| request.path = "/admin/x".into());
    assert!(asked.verdict.ends_with("if provider door allows it"), "{}", asked.text(false));
    let json = asked.json();
    assert_eq!((&json["policies"][0]["action"], &json["policies"][0]["provider"]), (&"CUSTOM".into(), &"door".into()));
    assert_eq!(json["policies"][0]["policy"]["name"], "ask", "{json:#}");
}

#[test]
fn endpoints_tell_what_their_policies_say_to_the_caller() {
    let mesh = guarded();
    let frontend = ask(&mesh, "frontend", |_| {});
    assert!(frontend.is_served, "{}", frontend.text(false));
    let text = frontend.text(false);
    assert!(text.contains("there passed by ALLOW: AuthorizationPolicy shop/readers spec.rules[0] matches"), "{text}");
    let denied = ask(&mesh, "frontend", |request| request.method = "PUT".into());
    assert!(!denied.is_served, "{}", denied.text(false));
    let candidate = &denied.upstreams[0].endpoints[0];
    let problem = candidate.problem.as_deref().unwrap();
    assert!(problem.starts_with("answered 403: DENY: AuthorizationPolicy shop/no-writes spec.rules[1]"), "{problem}");
    assert_eq!(denied.json()["clusters"][0]["endpoints"][0]["policies"][1]["action"], "DENY");
}
