//! What a sidecar gets that asks for virtual hosts and clusters when traffic first needs them.

use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, rule, service, sidecar};

fn on_demand() -> meltemi_model::Node {
    node("sidecar", json!({"LABELS": {"app": "client"}, "ON_DEMAND": "true"}))
}

/// Every way in which a host can come to its routes.
fn everything() -> String {
    let more = "
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {clusterIP: 10.1.0.9, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: members, namespace: default}
spec: {clusterIP: None, selector: {app: members}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: default}
spec: {hosts: [api.example.com, '*.wild.example.com'], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: addressed, namespace: default}
spec:
  hosts: [db.example.com]
  addresses: [240.0.0.7]
  resolution: STATIC
  endpoints: [{address: 1.2.3.4}]
  ports: [{number: 80, name: http, protocol: HTTP}]
---
# Its full name is what the service far of namespace other is also called.
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shadow, namespace: default}
spec: {hosts: [far.other], resolution: NONE, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: several, namespace: default}
spec:
  hosts: [b, c, nowhere.example.com]
  http: [{match: [{uri: {prefix: /far}}], route: [{destination: {host: far.other.svc.cluster.local}}]}, {route: [{destination: {host: b}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wild, namespace: default}
spec:
  hosts: ['*.example.com']
  http: [{name: by-wildcard, route: [{destination: {host: a}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: default}
spec: {host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
---
apiVersion: meltemi.io/v1alpha1
kind: ResiliencePolicy
metadata: {name: all, namespace: default}
spec: {hosts: [a, c, api.example.com], automaticRetries: {}, anomalyDetection: {}}
";
    let services =
        ["a", "b", "c"].iter().zip(1..).map(|(name, last)| service(name, &format!("10.1.0.{last}"), 80, "http"));
    services.collect::<String>() + more
}

fn find<'a>(hosts: &'a [Value], asked: &str) -> Option<&'a Value> {
    let domains = |host: &'a Value| host["domains"].as_array().unwrap().iter().map(|domain| domain.as_str().unwrap());
    let exact = hosts.iter().find(|host| domains(host).any(|domain| domain == asked));
    let covering = |host: &'a Value| {
        let suffixes = domains(host).filter_map(|domain| domain.strip_prefix('*'));
        suffixes.filter(|suffix| asked.ends_with(suffix)).map(str::len).max()
    };
    exact.or_else(|| hosts.iter().filter(|host| covering(host).is_some()).max_by_key(|host| covering(host)))
}

#[test]
fn a_host_asked_for_by_itself_has_the_routes_that_it_has_among_all() {
    let mesh = Mesh::new(&everything());
    for port in ["80", "8080"] {
        let whole = mesh.resource(&sidecar(), type_urls::ROUTE, port);
        let hosts = whole["virtual_hosts"].as_array().unwrap();
        let mut asked: Vec<String> = hosts
            .iter()
            .flat_map(|host| host["domains"].as_array().unwrap().clone())
            .map(|d| d.as_str().unwrap().to_owned())
            .collect();
        assert!(port != "80" || asked.len() > 30, "only {asked:?}");
        // In the place of each pattern a host that it covers.
        asked.iter_mut().for_each(|domain| *domain = domain.replace('*', "some"));
        asked.extend(
            ["unknown.org", "some.members", "deep.some.members.default", "1.2.3.4", "A.DEFAULT", "x.wild.example.com"]
                .map(str::to_owned),
        );
        for domain in asked {
            let name = format!("{port}/{domain}");
            let host = mesh.resource(&on_demand(), type_urls::VIRTUAL_HOST, &name);
            let expected = find(hosts, &domain.to_lowercase()).unwrap_or_else(|| panic!("nothing for {domain}"));
            assert_eq!(host["routes"], expected["routes"], "{name}");
            assert_eq!((&host["name"], &host["domains"]), (&json!(name), &json!([domain.to_lowercase()])));
        }
    }
}

#[test]
fn only_what_is_asked_for_is_sent() {
    let mesh = Mesh::new(&(everything() + &rule("http: [{route: [{destination: {host: b}}]}]")));
    let clusters = mesh.names(&on_demand(), type_urls::CLUSTER);
    assert_eq!(clusters, ["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"]);
    let asked = mesh.resource(&on_demand(), type_urls::CLUSTER, "outbound|80||a.default.svc.cluster.local");
    assert_eq!(asked, mesh.resource(&sidecar(), type_urls::CLUSTER, "outbound|80||a.default.svc.cluster.local"));

    let routes = mesh.resource(&on_demand(), type_urls::ROUTE, "80");
    assert_eq!(routes["virtual_hosts"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(at(&routes, "vhds.config_source.ads"), &json!({}));
    let listener = mesh.listener(&on_demand(), "0.0.0.0_80").to_string();
    assert!(listener.contains("envoy.filters.http.on_demand"), "{listener}");
    assert!(!mesh.listener(&sidecar(), "0.0.0.0_80").to_string().contains("on_demand"));
    assert!(mesh.find(&sidecar(), type_urls::VIRTUAL_HOST, "80/a").is_none(), "nobody else is asked");
}

#[test]
fn a_host_with_a_port_is_the_host() {
    let mesh = Mesh::new(&everything());
    let host = mesh.resource(&on_demand(), type_urls::VIRTUAL_HOST, "80/a:80");
    assert_eq!(host["domains"], json!(["a"]));
    for nothing in ["80", "80/", "http.80/a", "a.default.svc.cluster.local:80/a"] {
        assert!(mesh.find(&on_demand(), type_urls::VIRTUAL_HOST, nothing).is_none(), "{nothing}");
    }
}

#[test]
fn what_nothing_serves_is_let_out_or_refused() {
    let route = |mode: &str| {
        let mesh = Mesh::with_config(&format!("outboundTrafficPolicy: {{mode: {mode}}}"), &everything());
        mesh.resource(&on_demand(), type_urls::VIRTUAL_HOST, "80/unknown.org")["routes"][0].clone()
    };
    assert_eq!(at(&route("ALLOW_ANY"), "route.cluster"), &json!("PassthroughCluster"));
    assert_eq!(at(&route("REGISTRY_ONLY"), "direct_response.status"), &json!(502));
}
