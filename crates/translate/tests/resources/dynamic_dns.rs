//! `resolution: DYNAMIC_DNS` and `ALLOW_ANY_DYNAMIC_DNS`: clusters and filters of dynamic forward proxying, as istiod has them.

use super::listeners::manager;
use super::mesh::{Mesh, at, node};
use meltemi_translate::type_urls;
use serde_json::{Value, json};

const ENTRY: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: any, namespace: default}
spec:
  hosts: ['*.example.com']
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}, {number: 90, name: grpc, protocol: GRPC}]
---
";
const CACHE: &str = "*.example.com_dfp_dns_cache";

fn client(metadata: Value) -> meltemi_model::Node {
    let mut all = json!({"LABELS": {"app": "client"}});
    all.as_object_mut().unwrap().extend(metadata.as_object().cloned().unwrap());
    node("sidecar", all)
}

/// The names of a connection manager's filters and, of those that resolve, the caches.
fn caches(manager: &Value) -> Vec<String> {
    let filters = manager["http_filters"].as_array().unwrap();
    assert_eq!(filters.last().unwrap()["name"], "envoy.filters.http.router");
    let resolving = filters.iter().filter(|filter| filter["name"] == "envoy.filters.http.dynamic_forward_proxy");
    resolving.map(|filter| at(filter, "typed_config.dns_cache_config.name").as_str().unwrap().to_owned()).collect()
}

#[test]
fn hosts_of_a_dynamic_service_are_resolved_by_request() {
    for dialect in ["istio-proxy", "envoy"] {
        let mesh = Mesh::new(ENTRY);
        let client = client(json!({ "DIALECT": dialect }));
        for (port, unchecked) in [(80, false), (443, false), (90, true)] {
            let name = format!("outbound|{port}||*.example.com");
            let cluster = mesh.resource(&client, type_urls::CLUSTER, &name);
            assert_eq!(cluster["lb_policy"], "CLUSTER_PROVIDED", "{name}");
            let kind = &cluster["cluster_type"];
            assert_eq!(kind["name"], "envoy.clusters.dynamic_forward_proxy");
            let config = json!({ "name": CACHE, "dns_lookup_family": "V4_ONLY" });
            assert_eq!(at(kind, "typed_config.dns_cache_config"), &config);
            assert_eq!(kind["typed_config"]["allow_insecure_cluster_options"] == true, unchecked, "{name}");
        }
        let http = mesh.listener(&client, "0.0.0.0_80");
        assert_eq!(caches(manager(at(&http, "filter_chains.0"))), [CACHE]);
        let tls = mesh.listener(&client, "0.0.0.0_443");
        assert_eq!(at(&tls, "filter_chains.0.filter_chain_match.server_names.0"), "*.example.com");
        let filters = at(&tls, "filter_chains.0.filters").as_array().unwrap();
        let forward = &filters[filters.len() - 2];
        assert_eq!(forward["name"], "envoy.extensions.filters.network.sni_dynamic_forward_proxy");
        assert_eq!(at(forward, "typed_config.port_value"), 443);
        assert_eq!(at(forward, "typed_config.dns_cache_config.name"), CACHE);
        let routes = mesh.resource(&client, type_urls::ROUTE, "80");
        assert_eq!(at(&routes, "virtual_hosts.0.domains.0"), "*.example.com");
        assert_eq!(at(&routes, "virtual_hosts.0.routes.0.route.cluster"), "outbound|80||*.example.com");
    }
}

#[test]
fn a_listener_resolves_for_every_service_that_joined_it() {
    let other = ENTRY.replace("name: any", "name: other").replace("*.example.com", "*.example.org");
    let fixed = ENTRY
        .replace("name: any", "name: fixed")
        .replace("'*.example.com'", "fixed.example.net")
        .replace("DYNAMIC_DNS", "DNS");
    let mesh = Mesh::new(&[&fixed, ENTRY, &other].concat());
    let listener = mesh.listener(&client(json!({})), "0.0.0.0_80");
    let mut found = caches(manager(at(&listener, "filter_chains.0")));
    found.sort();
    assert_eq!(found, [CACHE, "*.example.org_dfp_dns_cache"]);
}

#[test]
fn tls_to_a_dynamic_service_takes_its_names_from_requests() {
    let rule = |tls: &str| {
        format!(
            "{ENTRY}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: any, namespace: default}}\n\
             spec: {{host: '*.example.com', trafficPolicy: {{tls: {tls}}}, subsets: [{{name: v1}}]}}\n"
        )
    };
    let options = "typed_extension_protocol_options";
    for (tls, sni, checked, unchecked) in [
        ("{mode: SIMPLE}", true, true, false),
        ("{mode: SIMPLE, subjectAltNames: [a.example.com]}", true, true, false),
        ("{mode: SIMPLE, sni: a.example.com}", false, true, true),
        ("{mode: SIMPLE, insecureSkipVerify: true}", true, false, true),
        ("{mode: ISTIO_MUTUAL}", true, true, false),
    ] {
        let mesh = Mesh::new(&rule(tls));
        let names = mesh.names(&client(json!({})), type_urls::CLUSTER);
        assert!(!names.iter().any(|name| name.contains("|v1|")), "there are no subsets: {names:?}");
        let cluster = mesh.resource(&client(json!({})), type_urls::CLUSTER, "outbound|80||*.example.com");
        let all = cluster[options].as_object().unwrap().values().next().unwrap();
        let auto = &all["upstream_http_protocol_options"];
        assert_eq!((auto["auto_sni"] == true, auto["auto_san_validation"] == true), (sni, checked), "{tls}: {all}");
        assert_eq!(
            at(&cluster, "cluster_type.typed_config.allow_insecure_cluster_options") == true,
            unchecked,
            "{tls}"
        );
        assert_eq!(cluster["lb_policy"], "CLUSTER_PROVIDED");
    }
}

#[test]
fn tls_to_hosts_of_nobody_is_the_meshs() {
    for (tls, socket, unchecked) in [
        ("{mode: SIMPLE}", true, false),
        ("{mode: SIMPLE, insecureSkipVerify: true}", true, true),
        ("{mode: ISTIO_MUTUAL}", true, false),
        ("{mode: DISABLE}", false, true),
    ] {
        let policy = format!("outboundTrafficPolicy: {{mode: ALLOW_ANY_DYNAMIC_DNS, tls: {tls}}}");
        let mesh = Mesh::with_config(&policy, ENTRY);
        let cluster = mesh.resource(&client(json!({})), type_urls::CLUSTER, "AllowAnyDynamicDNSCluster");
        assert_eq!(cluster["transport_socket"]["name"] == "envoy.transport_sockets.tls", socket, "{tls}: {cluster}");
        let insecure = at(&cluster, "cluster_type.typed_config.allow_insecure_cluster_options") == true;
        assert_eq!(insecure, unchecked, "{tls}: {cluster}");
        let all = cluster["typed_extension_protocol_options"].as_object().unwrap().values().next().unwrap();
        assert_eq!(at(all, "upstream_http_protocol_options.auto_sni") == true, socket, "{tls}: {all}");
    }
}

#[test]
fn hosts_of_nobody_are_resolved_where_the_mesh_says_so() {
    const POLICY: &str = "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}";
    const OWN: &str = "allow_any_dfp_dns_cache";
    let mesh = Mesh::with_config(POLICY, ENTRY);
    for (metadata, resolver) in [
        (json!({}), Value::Null),
        (json!({"DNS_CAPTURE": "true"}), Value::Null),
        (json!({"DIALECT": "envoy", "DNS_CAPTURE": "true"}), json!(15053)),
    ] {
        let client = client(metadata);
        let cluster = mesh.resource(&client, type_urls::CLUSTER, "AllowAnyDynamicDNSCluster");
        let cache = at(&cluster, "cluster_type.typed_config.dns_cache_config");
        assert_eq!((&cache["name"], &cache["max_hosts"]), (&json!(OWN), &json!(1024)));
        let asked = at(cache, "typed_dns_resolver_config.typed_config.resolvers.0.socket_address.port_value");
        assert_eq!(asked, &resolver);
        let listener = mesh.listener(&client, "0.0.0.0_80");
        assert_eq!(caches(manager(at(&listener, "filter_chains.0"))), [CACHE, OWN]);
        let outbound = mesh.listener(&client, "virtualOutbound");
        let http = at(&outbound, "filter_chains.1");
        assert_eq!(http["name"], "virtualOutbound-catchall-tcp-http");
        assert_eq!(at(http, "filter_chain_match.application_protocols"), &json!(["http/1.1", "h2c"]));
        assert_eq!(caches(manager(http)), [OWN]);
        assert_eq!(
            at(manager(http), "route_config.virtual_hosts.0.routes.0.route.cluster"),
            "AllowAnyDynamicDNSCluster"
        );
        assert_eq!(at(&outbound, "listener_filters.0.name"), "envoy.filters.listener.http_inspector");
        let passthrough = at(&outbound, "filter_chains.2.filters").as_array().unwrap();
        assert_eq!(at(passthrough.last().unwrap(), "typed_config.cluster"), "PassthroughCluster");
        let routes = mesh.resource(&client, type_urls::ROUTE, "80");
        let hosts = routes["virtual_hosts"].as_array().unwrap();
        let last = hosts.last().unwrap();
        assert_eq!(last["name"], "allow_any_dynamic_dns");
        assert_eq!(at(last, "routes.0.route.cluster"), "AllowAnyDynamicDNSCluster");
    }
    let asks = client(json!({"ON_DEMAND": "true"}));
    assert!(mesh.names(&asks, type_urls::CLUSTER).contains(&"AllowAnyDynamicDNSCluster".to_owned()));
    let host = mesh.resource(&asks, type_urls::VIRTUAL_HOST, "80/nobody.example.net");
    assert_eq!(at(&host, "routes.0.route.cluster"), "AllowAnyDynamicDNSCluster");
    let plain = Mesh::new(ENTRY);
    assert!(!plain.names(&asks, type_urls::CLUSTER).contains(&"AllowAnyDynamicDNSCluster".to_owned()));
}
