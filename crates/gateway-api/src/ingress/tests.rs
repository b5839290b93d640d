use super::*;
use meltemi_config::mesh::{IngressControllerMode, MeshConfig};
use serde_json::{Value, json};

fn catalogue(text: &str) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for object in meltemi_config::objects("test.yaml", text).unwrap() {
        catalogue.take(&object.key(), Some(&object));
    }
    catalogue
}

fn any() -> IngressSettings {
    IngressSettings { mode: IngressControllerMode::Default, ..IngressSettings::default() }
}

fn ingress(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{{spec}}}\n"
    )
}

fn path(path: &str, service: &str) -> String {
    format!("{{{path}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}")
}

/// `path service` of each route of each host, with the gateways.
fn routes(text: &str) -> Value {
    let services = virtual_services(&catalogue(text), "x", &any());
    let route = |route: &meltemi_config::networking::HttpRoute| {
        let uri = route.matches.first().and_then(|own| own.uri.as_ref());
        let to = &route.route[0].destination;
        format!("{} {}", uri.map_or("-".into(), |uri| format!("{:?}", uri.kind())), to.host.split('.').next().unwrap())
    };
    let one = |config: &Config<VirtualService>| {
        let http: Vec<_> = config.spec.http.iter().map(route).collect();
        json!([config.spec.hosts[0], config.spec.gateways.len(), http])
    };
    services.iter().map(one).collect()
}

#[test]
fn the_longer_path_is_first_then_the_exact_one_and_the_default_backend_last() {
    let paths = [
        path("path: /a, pathType: Prefix", "one"),
        path("path: /a, pathType: Exact", "two"),
        path("path: /a/b/*, pathType: ImplementationSpecific", "three"),
    ];
    let text = ingress(
        "a",
        &format!(
            "defaultBackend: {{service: {{name: rest, port: {{number: 80}}}}}}, rules: [{{host: h.x, http: {{paths: [{}]}}}}]",
            paths.join(", ")
        ),
    );
    assert_eq!(
        routes(&text),
        json!([
            ["*", 1, ["- rest"]],
            ["h.x", 1, ["Prefix(\"/a/b\") three", "Exact(\"/a\") two", "Prefix(\"/a\") one", "- rest"]],
        ])
    );
}

#[test]
fn hosts_of_several_ingresses_are_one_and_each_certificate_serves() {
    let rule = |service: &str| {
        format!("rules: [{{host: h.x, http: {{paths: [{}]}}}}]", path("path: /, pathType: Prefix", service))
    };
    let secret = "tls: [{hosts: [h.x], secretName: s}]";
    let text = ingress("a", &rule("one"))
        + &ingress("b", &rule("two"))
        + &ingress("c", &format!("{secret}, {}", rule("three")));
    assert_eq!(routes(&text), json!([["h.x", 2, ["Prefix(\"/\") one", "Prefix(\"/\") two", "Prefix(\"/\") three"]]]));
    let made = gateways(&catalogue(&text), &any());
    let ports: Vec<usize> = made.iter().map(|gateway| gateway.spec.servers.len()).collect();
    assert_eq!(ports, [1, 1, 2]);
    assert_eq!(made[0].spec.selector[&Str::from("istio")], "ingressgateway".into());
}

#[test]
fn the_annotation_decides_then_the_class_then_the_mode() {
    let default = "spec: {defaultBackend: {service: {name: s, port: {number: 80}}}";
    let object = |name: &str, annotation: &str, class: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{annotation}}}}}\n{default}{class}}}\n"
        )
    };
    let classes = "---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: mine}
spec: {controller: istio.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: theirs}
spec: {controller: example.com/other}
";
    let text = object("annotated", "kubernetes.io/ingress.class: istio", "")
        + &object("other", "kubernetes.io/ingress.class: nginx", "")
        + &object("plain", "", "")
        + &object("classed", "", ", ingressClassName: mine")
        + &object("foreign", "", ", ingressClassName: theirs")
        + &object("gone", "", ", ingressClassName: nobodys")
        + classes;
    let catalogue = catalogue(&text);
    let taken = |mode| {
        let settings = IngressSettings { mode, ..IngressSettings::default() };
        ours(&catalogue, &settings).map(|(meta, _)| meta.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(taken(IngressControllerMode::Off), [""; 0]);
    assert_eq!(taken(IngressControllerMode::Strict), ["annotated", "classed"]);
    assert_eq!(taken(IngressControllerMode::Default), ["annotated", "classed", "gone", "plain"]);
}

#[test]
fn the_status_tells_the_addresses_of_the_ingress_service() {
    let service = "---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-system}
spec: {type: LoadBalancer, ports: [{port: 80}], externalIPs: [10.1.1.1]}
status: {loadBalancer: {ingress: [{hostname: lb.example.com}, {ip: 1.2.3.4}]}}
";
    let text = ingress("a", "defaultBackend: {service: {name: s, port: {number: 80}}}") + service;
    let mesh = MeshConfig { ingress_service: "edge".into(), ..MeshConfig::default() };
    let settings = IngressSettings { mode: IngressControllerMode::Default, ..IngressSettings::of(&mesh) };
    assert_eq!(settings.selector()[&Str::from("istio")], "edge".into());
    let found = statuses(&catalogue(&text), &settings);
    let status = found.values().next().map(|status| json!(status)).unwrap();
    let addresses = json!([{"ip": "1.2.3.4"}, {"ip": "10.1.1.1"}, {"hostname": "lb.example.com"}]);
    assert_eq!(status, json!({"loadBalancer": {"ingress": addresses}}));
}

#[test]
fn without_an_ingress_service_the_status_tells_the_node_of_a_running_gateway() {
    let pod = |name: &str, label: &str, node: &str, phase: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: istio-system, labels: {{istio: {label}}}}}\n\
             spec: {{nodeName: {node}, containers: [{{name: a}}]}}\nstatus: {{phase: {phase}}}\n"
        )
    };
    let node = |name: &str, addresses: &str| {
        format!("---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{addresses}]}}\n")
    };
    let text = pod("a", "ingressgateway", "one", "Pending")
        + &pod("b", "egressgateway", "one", "Running")
        + &pod("c", "ingressgateway", "unknown", "Running")
        + &pod("d", "ingressgateway", "two", "Running")
        + &node("one", "{type: ExternalIP, address: 1.1.1.1}")
        + &node(
            "two",
            "{type: InternalIP, address: 10.0.0.2}, {type: ExternalIP, address: 2.2.2.2}, \
                        {type: ExternalIP, address: 2.2.2.2}, {type: ExternalIP, address: ''}",
        );
    let objects = meltemi_config::objects("test.yaml", &text).unwrap();
    let named = |kind: Kind| objects.iter().filter(move |object| object.kind() == kind);
    let told = |service: &str| {
        let mesh = MeshConfig { ingress_service: service.into(), ..MeshConfig::default() };
        let mut settings = IngressSettings { mode: IngressControllerMode::Default, ..IngressSettings::of(&mesh) };
        let node = |name: &str| named(Kind::Node).find(|object| *object.meta.name == *name);
        settings.nodes = node_addresses(&settings, named(Kind::Pod), node);
        let ingress = ingress("a", "defaultBackend: {service: {name: s, port: {number: 80}}}");
        statuses(&catalogue(&ingress), &settings).values().next().map(|status| json!(status)).unwrap()
    };
    assert_eq!(told(""), json!({"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}]}}));
    assert_eq!(told("gone"), json!({"loadBalancer": {}}));
}

#[test]
fn a_path_that_is_not_typed_is_read_as_of_old() {
    let paths = ["/regex1.*", "/regex2*", "/*", "/plain"]
        .map(|text| path(&format!("path: {text}, pathType: ImplementationSpecific"), "s"));
    let text = ingress("a", &format!("rules: [{{http: {{paths: [{}]}}}}]", paths.join(", ")));
    assert_eq!(
        routes(&text),
        json!([["*", 1, ["Exact(\"/regex2*\") s", "Prefix(\"/regex1\") s", "Exact(\"/plain\") s", "- s"]]])
    );
}
