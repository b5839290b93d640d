use super::*;
use meltemi_model::{Address, Health, Protocol, Resolution, Snapshot, TlsMode};

fn objects(yaml: &str) -> Vec<Object> {
    meltemi_config::objects("test.yaml", yaml).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn load(yaml: &str) -> (Registry, Snapshot) {
    let mut registry = Registry::default();
    let update = registry.load(&objects(yaml));
    (registry, Snapshot::build(Options::default(), &update))
}

fn key(namespace: &str, hostname: &str) -> ServiceKey {
    ServiceKey::new(namespace, hostname)
}

/// `address:port` with `!` where not healthy, in order.
fn endpoints(snapshot: &Snapshot, key: &ServiceKey, port: &str) -> Vec<String> {
    let mut found: Vec<String> = snapshot
        .endpoints
        .of(key)
        .iter()
        .filter_map(|endpoint| {
            let mark = if endpoint.health == Health::Healthy { "" } else { "!" };
            Some(format!("{}:{}{mark}", endpoint.address, endpoint.port(port)?))
        })
        .collect();
    found.sort();
    found
}

const WEB: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: web}
  - {name: tcp-raw, port: 90, targetPort: 9090}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1, security.istio.io/tlsMode: istio}}
spec:
  serviceAccountName: seller
  nodeName: n1
  containers: [{name: c, image: x, ports: [{name: web, containerPort: 8080}]}]
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web, version: v2}}
spec:
  containers: [{name: c, image: x, ports: [{name: web, containerPort: 8081}]}]
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'False'}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: eu, topology.kubernetes.io/zone: a}}
";

#[test]
fn without_slices_pods_that_a_service_selects_are_its_endpoints() {
    let (_, snapshot) = load(WEB);
    let web = key("shop", "web.shop.svc.cluster.local");
    assert_eq!(endpoints(&snapshot, &web, "http"), ["10.0.0.1:8080", "10.0.0.2:8081!"]);
    assert_eq!(endpoints(&snapshot, &web, "tcp-raw"), ["10.0.0.1:9090", "10.0.0.2:9090!"]);
    let service = snapshot.services.get(&web).unwrap();
    assert_eq!(service.addresses, [Arc::from("10.96.0.1")]);
    assert_eq!(service.port(80).unwrap().protocol, Protocol::Http);
    let first = snapshot.endpoints.of(&web).iter().find(|e| e.address == Address::parse("10.0.0.1")).unwrap();
    assert_eq!((first.tls_mode, &*first.service_account, &*first.node_name), (TlsMode::Istio, "seller", "n1"));
    assert_eq!(first.locality.to_string(), "eu/a");
    assert_eq!(first.identity("td").unwrap(), "spiffe://td/ns/shop/sa/seller");
}

#[test]
fn without_slices_a_service_has_the_addresses_of_its_families() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: h-1, namespace: shop, labels: {app: h}}\n\
               spec: {containers: [{name: c, image: x}]}\n\
               status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: '2001:db8::1'}]}\n";
    for (families, expected) in [
        ("", &["10.0.0.1:80"][..]),
        (", ipFamilyPolicy: SingleStack", &["10.0.0.1:80"]),
        (", ipFamilyPolicy: PreferDualStack", &["10.0.0.1:80", "2001:db8::1:80"]),
        (", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]", &["10.0.0.1:80", "2001:db8::1:80"]),
        (", ipFamilies: [IPv6]", &["2001:db8::1:80"]),
    ] {
        let service = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: h, namespace: shop}}\n\
             spec: {{clusterIP: None, selector: {{app: h}}, ports: [{{name: tcp, port: 80}}]{families}}}\n"
        );
        let (_, snapshot) = load(&(service + pod));
        assert_eq!(endpoints(&snapshot, &key("shop", "h.shop.svc.cluster.local"), "tcp"), expected, "{families}");
    }
}

#[test]
fn slices_decide_over_pods_and_pods_describe_their_endpoints() {
    let yaml = format!(
        "{WEB}---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-x, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints:
- {{addresses: [10.0.0.1], conditions: {{ready: true}}}}
- {{addresses: [10.0.0.7], conditions: {{ready: false}}}}
- {{addresses: [10.0.0.8], conditions: {{ready: false, serving: true, terminating: true}}}}
- {{addresses: [10.0.0.9], conditions: {{ready: false, serving: false, terminating: true}}}}
"
    );
    let (_, snapshot) = load(&yaml);
    let web = key("shop", "web.shop.svc.cluster.local");
    assert_eq!(endpoints(&snapshot, &web, "http"), ["10.0.0.1:8080", "10.0.0.7:8080!", "10.0.0.8:8080!"]);
    let first = snapshot.endpoints.of(&web).iter().find(|e| e.address == Address::parse("10.0.0.1")).unwrap();
    assert_eq!(first.labels.get("version").map(|v| &**v), Some("v1"));
}

#[test]
fn a_changed_pod_touches_only_the_services_that_it_serves() {
    let yaml = format!(
        "{WEB}---
apiVersion: v1
kind: Service
metadata: {{name: other, namespace: shop}}
spec: {{clusterIP: 10.96.0.2, selector: {{app: other}}, ports: [{{name: http, port: 80}}]}}
"
    );
    let (mut registry, snapshot) = load(&yaml);
    let mut pod = objects(&yaml).into_iter().find(|object| &*object.meta.name == "web-1").unwrap();
    let Spec::Pod(spec) = &pod.spec else { panic!() };
    let mut spec = (**spec).clone();
    spec.status.pod_ip = "10.0.0.3".into();
    pod.spec = Spec::Pod(Arc::new(spec));
    let update = registry.apply([(pod.key(), Some(pod.clone()))]);
    let web = key("shop", "web.shop.svc.cluster.local");
    assert_eq!(update.endpoints.keys().collect::<Vec<_>>(), [&web]);
    let (next, change) = snapshot.next(&update);
    assert!(change.is_endpoints_only(), "{change:?}");
    assert!(change.summaries.is_empty());
    assert_eq!(change.addresses.len(), 2);
    assert_eq!(endpoints(&next, &web, "http"), ["10.0.0.2:8081!", "10.0.0.3:8080"]);
    let (last, change) = next.next(&registry.apply([(pod.key(), None)]));
    assert_eq!(endpoints(&last, &web, "http"), ["10.0.0.2:8081!"]);
    assert_eq!(change.summaries.len(), 1, "an identity went");
}

#[test]
fn kinds_of_service() {
    let (_, snapshot) = load(
        r"
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: a}
spec: {clusterIP: None, selector: {app: x}, ports: [{name: tcp, port: 70}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: a}
spec: {type: ExternalName, externalName: headless.a.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: a}
spec: {ports: [{name: http, port: 70}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: a}
spec:
  hosts: [api.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
  location: MESH_EXTERNAL
",
    );
    let get = |host: &str| snapshot.services.get(&key("a", host)).unwrap();
    let headless = get("headless.a.svc.cluster.local");
    assert_eq!(headless.resolution, Resolution::Passthrough);
    assert_eq!(headless.aliases, [key("a", "alias.a.svc.cluster.local")]);
    assert_eq!(get("alias.a.svc.cluster.local").resolution, Resolution::Alias);
    assert!(get("plain.a.svc.cluster.local").auto_address.is_some(), "nobody else assigns an address");
    let dns = get("api.example.com");
    assert_eq!((dns.resolution, dns.mesh_external), (Resolution::DnsLb, true));
    assert_eq!(endpoints(&snapshot, &key("a", "api.example.com"), "tls"), ["api.example.com:443"]);
}

#[test]
fn a_service_entry_selects_workload_entries_and_pods() {
    let yaml = format!(
        "{WEB}---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: se, namespace: shop}}
spec:
  hosts: [web.example.com]
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  resolution: STATIC
  location: MESH_INTERNAL
  workloadSelector: {{labels: {{app: web}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: vm, namespace: shop}}
spec: {{address: 10.1.0.1, labels: {{app: web}}, ports: {{http: 8888}}, serviceAccount: vm}}
"
    );
    let (mut registry, snapshot) = load(&yaml);
    let entry = key("shop", "web.example.com");
    assert_eq!(endpoints(&snapshot, &entry, "http"), ["10.0.0.1:8080", "10.0.0.2:8080!", "10.1.0.1:8888"]);
    // A Service selects WorkloadEntries too.
    let web = key("shop", "web.shop.svc.cluster.local");
    assert!(endpoints(&snapshot, &web, "http").contains(&"10.1.0.1:8888".to_owned()));
    let vm = Key::new(meltemi_config::Kind::WorkloadEntry, "shop", "vm");
    let (next, _) = snapshot.next(&registry.apply([(vm, None)]));
    assert_eq!(endpoints(&next, &entry, "http"), ["10.0.0.1:8080", "10.0.0.2:8080!"]);
}

#[test]
fn entries_of_one_host_act_as_one_service_at_istios_address() {
    let entry = |name: &str, number: u32| {
        format!(
            "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}}}
spec: {{hosts: [istio.io], ports: [{{number: {number}, name: p{number}, protocol: TCP}}], resolution: DNS}}
---
"
        )
    };
    let (mut registry, snapshot) = load(&(entry("istio-http", 80) + &entry("istio-https", 443)));
    let istio = key("default", "istio.io");
    let service = snapshot.services.get(&istio).unwrap();
    assert_eq!(service.ports.iter().map(|port| port.number).collect::<Vec<_>>(), [80, 443]);
    assert_eq!(service.auto_address.unwrap().to_string(), "240.240.91.120", "what Istio allocates");
    let removed = Key::new(meltemi_config::Kind::ServiceEntry, "default", "istio-http");
    let (next, _) = snapshot.next(&registry.apply([(removed, None)]));
    assert_eq!(next.services.get(&istio).unwrap().ports.len(), 1);
}

#[test]
fn a_removed_service_goes_with_its_endpoints() {
    let (mut registry, snapshot) = load(WEB);
    let web = Key::new(meltemi_config::Kind::Service, "shop", "web");
    let (next, change) = snapshot.next(&registry.apply([(web, None)]));
    assert!(next.services.is_empty() && next.endpoints.iter().next().is_none());
    assert_eq!(change.services.len(), 1);
    let (_, again) = next.next(&Update::default());
    assert!(again.is_empty());
}

/// A change of the Gateway API's objects comes as changes of Istio's kinds, and of nothing else.
#[test]
fn a_route_of_the_gateway_api_comes_and_goes_with_what_it_needs() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{name: http, port: 80}]}\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web, namespace: shop}\n\
        spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n";
    let mut registry = Registry::default();
    let mut apply = |text: &str, there: bool| {
        let changed = objects(text).into_iter().map(|object| (object.key(), there.then_some(object)));
        let update = registry.apply(changed.collect::<Vec<_>>());
        update.virtual_services.iter().map(|(key, new)| (key.to_string(), new.is_some())).collect::<Vec<_>>()
    };
    // Its parent is not there yet.
    assert_eq!(apply(route, true), []);
    let name = "shop/shop~web.shop.svc.cluster.local".to_owned();
    assert_eq!(apply(service, true), [(name.clone(), true)]);
    assert_eq!(apply(service, true), []);
    assert_eq!(apply(route, false), [(name, false)]);
    assert_eq!(apply(service, false), []);
}

#[test]
fn an_ingress_comes_when_the_mesh_s_settings_say_that_it_is_ours() {
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web, namespace: shop}\n\
        spec: {rules: [{host: a.b, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]}\n";
    let mut registry = Registry::default();
    let changes = |update: &Update| {
        let gateways = update.gateways.iter().map(|(key, new)| (key.to_string(), new.is_some()));
        let rules = update.virtual_services.iter().map(|(key, new)| (key.to_string(), new.is_some()));
        gateways.chain(rules).collect::<Vec<_>>()
    };
    assert_eq!(changes(&registry.load(&objects(ingress))), [], "by default a class must be named");
    let mesh = |text: &str| Shared::new(meltemi_config::parse_mesh_config("mesh", text).unwrap().value);
    let names = [
        "istio-system/web-istio-autogenerated-k8s-ingress-shop".to_owned(),
        "shop/a-b-web-istio-autogenerated-k8s-ingress".to_owned(),
    ];
    let each = |there: bool| names.clone().map(|name| (name, there)).to_vec();
    assert_eq!(changes(&registry.set_mesh(&mesh("ingressControllerMode: DEFAULT"))), each(true));
    assert_eq!(changes(&registry.set_mesh(&mesh("ingressControllerMode: DEFAULT\nprotocolDetectionTimeout: 1s"))), []);
    assert_eq!(changes(&registry.set_mesh(&mesh("ingressControllerMode: \"OFF\""))), each(false));
}

#[test]
fn a_policy_for_a_backend_becomes_a_rule_with_its_roots() {
    let policy = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{name: http, port: 80}]}\n---\n\
        apiVersion: v1\nkind: ConfigMap\nmetadata: {name: roots, namespace: shop}\ndata: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nx\\n-----END CERTIFICATE-----\\n\"}\n---\n\
        apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: web, namespace: shop}\n\
        spec: {targetRefs: [{group: '', kind: Service, name: web}], validation: {hostname: a.b, caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]}}\n";
    let mut registry = Registry::default();
    let update = registry.load(&objects(policy));
    let rules: Vec<_> = update.destination_rules.iter().map(|(key, new)| (key.to_string(), new.is_some())).collect();
    assert_eq!(rules, [("shop/web~istio-autogenerated-k8s-gateway".to_owned(), true)]);
    let secrets: Vec<_> = update.secrets.iter().map(|(key, new)| (key.to_string(), new.is_some())).collect();
    assert_eq!(secrets, [("shop/configmap/roots".to_owned(), true)]);
    // Without its roots the rule stays, and nobody is reached by it.
    let gone = registry.apply([(Key::new(meltemi_config::Kind::ConfigMap, "shop", "roots"), None)]);
    let (_, rule) = &gone.destination_rules[0];
    let tls = rule.as_ref().unwrap().spec.traffic_policy.as_ref().unwrap().tls.clone().unwrap();
    assert_eq!(&*tls.credential_name, "invalid://");
    assert_eq!(gone.secrets.iter().map(|(_, new)| new.is_some()).collect::<Vec<_>>(), [false]);
}
