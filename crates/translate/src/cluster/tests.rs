use crate::generator::Generator;
use crate::testing::{clusters, mesh, node, sidecar, with_mesh_config};
use crate::{Clusters, names};
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig, LbPolicy};
use meltemi_proto::envoy::config::core::v3::{Address, TransportSocket, address, socket_address, transport_socket};
use meltemi_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use meltemi_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use meltemi_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use meltemi_proto::prost_types::value::Kind;
use serde_json::json;

const REVIEWS: &str = "reviews.default.svc.cluster.local";

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.96.0.1
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc-x, port: 90}, {name: web, port: 91}, {name: udp, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: default, labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: critic, containers: [{name: c, image: x}]}
status: {podIP: 10.0.0.1}
---
";

fn kind(cluster: &Cluster) -> DiscoveryType {
    match cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).unwrap(),
        _ => panic!("no type"),
    }
}

fn tls(socket: Option<&TransportSocket>) -> UpstreamTlsContext {
    let Some(transport_socket::ConfigType::TypedConfig(any)) = socket.and_then(|socket| socket.config_type.as_ref())
    else {
        panic!("no transport socket")
    };
    meltemi_proto::unpack_upstream_tls_context(any).unwrap()
}

fn http(cluster: &Cluster) -> HttpProtocolOptions {
    let any = &cluster.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    any.unpack().unwrap()
}

fn is_http2(cluster: &Cluster) -> bool {
    match http(cluster).upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)))
        }
        _ => false,
    }
}

fn names_expected(context: &UpstreamTlsContext) -> Vec<String> {
    use meltemi_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let Some(ValidationContextType::CombinedValidationContext(combined)) =
        context.common_tls_context.as_ref().and_then(|common| common.validation_context_type.clone())
    else {
        panic!("no combined validation")
    };
    let matchers = combined.default_validation_context.unwrap().match_typed_subject_alt_names;
    let exact = matchers.into_iter().map(|own| match own.matcher.unwrap().match_pattern {
        Some(MatchPattern::Exact(name)) => name,
        other => panic!("{other:?}"),
    });
    exact.collect()
}

fn rule(policy: &str) -> String {
    format!(
        "{MESH}
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: default}}
spec:
  host: reviews
  {policy}
"
    )
}

fn http_cluster(policy: &str) -> Cluster {
    let snapshot = mesh(&rule(policy));
    clusters(&snapshot, &sidecar("10.9.9.9", "default")).remove(&names::outbound(80, "", REVIEWS)).unwrap()
}

#[test]
fn a_sidecar_has_a_cluster_for_each_port_and_the_fixed_ones() {
    let found = clusters(&mesh(MESH), &sidecar("10.0.0.1", "default"));
    let keys: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "BlackHoleCluster",
            "InboundPassthroughCluster",
            "PassthroughCluster",
            "inbound|8080||",
            "inbound|90||",
            "inbound|91||",
            "outbound|80||reviews.default.svc.cluster.local",
            "outbound|90||reviews.default.svc.cluster.local",
            "outbound|91||reviews.default.svc.cluster.local",
        ]
    );
    let by_port = |port| &found[&names::outbound(port, "", REVIEWS)];
    assert_eq!(kind(by_port(80)), DiscoveryType::Eds);
    assert!(is_http2(by_port(90)));
    assert!(matches!(
        http(by_port(91)).upstream_protocol_options,
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_))
    ));
    assert!(by_port(80).typed_extension_protocol_options.is_empty());
    assert_eq!(by_port(80).connect_timeout.as_ref().unwrap().seconds, 10);
    assert_eq!(by_port(80).lb_policy, LbPolicy::LeastRequest as i32);
    let breakers = &by_port(80).circuit_breakers.as_ref().unwrap().thresholds[0];
    assert_eq!((breakers.max_connections, breakers.max_retries), (Some(u32::MAX), Some(u32::MAX)));
    assert_eq!(kind(&found["InboundPassthroughCluster"]), DiscoveryType::OriginalDst);
    let bind = found["inbound|8080||"].upstream_bind_config.as_ref().unwrap();
    assert_eq!(bind.source_address.as_ref().unwrap().address, "127.0.0.6");
}

#[test]
fn a_router_has_neither_inbound_nor_passthrough() {
    let found = clusters(&mesh(MESH), &node("router", "10.0.0.9", "istio-system", json!({})));
    assert!(found.keys().all(|name| name.starts_with("outbound|") || name == "BlackHoleCluster"), "{:?}", found.keys());
    assert!(
        found[&names::outbound(91, "", REVIEWS)].typed_extension_protocol_options.is_empty(),
        "gateways do not sniff"
    );
}

#[test]
fn mtls_is_used_towards_endpoints_that_take_it() {
    let cluster = http_cluster("trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    let modes: Vec<_> = cluster.transport_socket_matches.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(modes, ["tlsMode-istio", "tlsMode-disabled"]);
    let context = tls(cluster.transport_socket_matches[0].transport_socket.as_ref());
    assert_eq!(context.sni, "outbound_.80_._.reviews.default.svc.cluster.local");
    assert_eq!(names_expected(&context), ["spiffe://cluster.local/ns/default/sa/critic"]);
    let common = context.common_tls_context.unwrap();
    assert_eq!(common.alpn_protocols, ["istio-peer-exchange", "istio"]);
    assert_eq!(common.tls_certificate_sds_secret_configs[0].name, "default");
}

#[test]
fn mtls_is_not_offered_where_policy_turns_it_off() {
    let off = "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: none, namespace: default}
spec: {mtls: {mode: DISABLE}}
";
    let name = names::outbound(80, "", REVIEWS);
    let node = sidecar("10.9.9.9", "default");
    assert!(clusters(&mesh(&format!("{MESH}{off}")), &node)[&name].transport_socket_matches.is_empty());
    let mesh_off = with_mesh_config(MESH, "enableAutoMtls: false");
    assert!(clusters(&mesh_off, &node)[&name].transport_socket_matches.is_empty());
}

#[test]
fn a_rule_s_own_tls_replaces_auto_mtls() {
    let cluster =
        http_cluster("trafficPolicy: {tls: {mode: SIMPLE, sni: x.example.com, subjectAltNames: [x.example.com]}}");
    assert!(cluster.transport_socket_matches.is_empty());
    let context = tls(cluster.transport_socket.as_ref());
    assert_eq!(context.sni, "x.example.com");
    assert_eq!(names_expected(&context), ["x.example.com"]);
    let cluster = http_cluster("trafficPolicy: {tls: {mode: SIMPLE}}");
    assert!(http(&cluster).upstream_http_protocol_options.unwrap().auto_sni);
    let cluster = http_cluster("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    assert_eq!(tls(cluster.transport_socket.as_ref()).sni, "outbound_.80_._.reviews.default.svc.cluster.local");
    let cluster = http_cluster("trafficPolicy: {tls: {mode: DISABLE}}");
    assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty());
}

#[test]
fn a_backend_with_a_policy_is_reached_by_tls_alone_whoever_calls() {
    let roots = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: roots, namespace: default}\n\
        data: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nx\\n-----END CERTIFICATE-----\\n\"}\n---\n";
    let policy = |name: &str| {
        format!(
            "{MESH}\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: p, namespace: default}}\n\
             spec: {{targetRefs: [{{group: '', kind: Service, name: reviews, sectionName: http}}], \
             validation: {{hostname: x.example.com, caCertificateRefs: [{{group: '', kind: ConfigMap, name: {name}}}]}}}}\n---\n{roots}"
        )
    };
    for (name, root) in [("roots", "configmap://default/roots-cacert"), ("gone", "invalid://-cacert")] {
        let snapshot = mesh(&policy(name));
        let router = node("router", "10.9.9.8", "edge", json!({}));
        for caller in [sidecar("10.9.9.9", "elsewhere"), router] {
            let found = clusters(&snapshot, &caller);
            let cluster = &found[&names::outbound(80, "", REVIEWS)];
            let context = tls(cluster.transport_socket.as_ref());
            assert_eq!(context.sni, "x.example.com");
            assert_eq!(names_expected(&context), ["x.example.com"]);
            let common = context.common_tls_context.unwrap();
            let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type
            else {
                panic!("no roots")
            };
            assert_eq!(combined.validation_context_sds_secret_config.unwrap().name, root);
            // Another port of the service is in the mesh as before.
            assert!(!found[&names::outbound(90, "", REVIEWS)].transport_socket_matches.is_empty());
        }
    }
}

#[test]
fn subsets_are_clusters_with_their_own_policy() {
    let snapshot = mesh(&rule(
        "trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 90}, loadBalancer: {simple: ROUND_ROBIN}}]}
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 1009}}}}}, {name: v2, labels: {version: v2}}]",
    ));
    let found = clusters(&snapshot, &sidecar("10.9.9.9", "default"));
    let policy = |port, subset: &str| found[&names::outbound(port, subset, REVIEWS)].lb_policy;
    assert_eq!(policy(80, ""), LbPolicy::Random as i32);
    assert_eq!(policy(80, "v1"), LbPolicy::Maglev as i32);
    assert_eq!(policy(80, "v2"), LbPolicy::Random as i32);
    assert_eq!(policy(90, "v2"), LbPolicy::RoundRobin as i32);
    let v1 = &found[&names::outbound(80, "v1", REVIEWS)];
    let Some(LbConfig::MaglevLbConfig(maglev)) = &v1.lb_config else { panic!() };
    assert_eq!(maglev.table_size, Some(1009));
    let context = tls(v1.transport_socket_matches[0].transport_socket.as_ref());
    assert_eq!(context.sni, "outbound_.80_.v1_.reviews.default.svc.cluster.local");
}

#[test]
fn connection_pools_and_outlier_detection_are_carried_over() {
    let cluster = http_cluster(
        "trafficPolicy:
    connectionPool:
      tcp: {maxConnections: 5, connectTimeout: 2s, idleTimeout: 7s, tcpKeepalive: {time: 30s, probes: 3}}
      http: {http1MaxPendingRequests: 6, http2MaxRequests: 7, maxRetries: 8, maxRequestsPerConnection: 9, idleTimeout: 3s, h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 4}
    outlierDetection: {consecutive5xxErrors: 3, consecutiveGatewayErrors: 0, interval: 4s, baseEjectionTime: 6s, maxEjectionPercent: 50, minHealthPercent: 20, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}
    retryBudget: {percent: 25, minRetryConcurrency: 4}",
    );
    let limits = &cluster.circuit_breakers.as_ref().unwrap().thresholds[0];
    assert_eq!(
        [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries],
        [Some(5), Some(6), Some(7), Some(8)]
    );
    let budget = limits.retry_budget.as_ref().unwrap();
    assert_eq!((budget.budget_percent.as_ref().unwrap().value, budget.min_retry_concurrency), (25.0, Some(4)));
    assert_eq!(cluster.connect_timeout.as_ref().unwrap().seconds, 2);
    let keepalive = cluster.upstream_connection_options.as_ref().unwrap().tcp_keepalive.as_ref().unwrap();
    assert_eq!((keepalive.keepalive_time, keepalive.keepalive_probes), (Some(30), Some(3)));
    assert!(is_http2(&cluster));
    let common = http(&cluster).common_http_protocol_options.unwrap();
    assert_eq!((common.idle_timeout.unwrap().seconds, common.max_requests_per_connection), (3, Some(9)));
    let outlier = cluster.outlier_detection.as_ref().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.enforcing_consecutive_5xx), (Some(3), Some(100)));
    assert_eq!(outlier.enforcing_consecutive_gateway_failure, Some(0));
    assert_eq!(outlier.consecutive_local_origin_failure, Some(2));
    assert_eq!(outlier.max_ejection_percent, Some(50));
    let panic = cluster.common_lb_config.unwrap().healthy_panic_threshold.unwrap();
    assert_eq!(panic.value, 20.0);
}

fn entry(resolution: &str, rest: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: ext, namespace: default}}
spec:
  hosts: [api.example.com]
  ports: [{{number: 443, name: tls, protocol: TLS, targetPort: 8443}}]
  location: MESH_EXTERNAL
  resolution: {resolution}
  {rest}
"
    )
}

#[test]
fn service_entries_by_resolution() {
    let name = names::outbound(443, "", "api.example.com");
    for (resolution, rest, expected, hosts) in [
        ("NONE", "", DiscoveryType::OriginalDst, None),
        ("DNS", "", DiscoveryType::StrictDns, Some(vec!["api.example.com:8443"])),
        (
            "DNS",
            "endpoints: [{address: a.x.com}, {address: b.x.com, ports: {tls: 1}}]",
            DiscoveryType::StrictDns,
            Some(vec!["a.x.com:8443", "b.x.com:1"]),
        ),
        ("DNS_ROUND_ROBIN", "", DiscoveryType::LogicalDns, Some(vec!["api.example.com:8443"])),
        ("STATIC", "endpoints: [{address: 1.2.3.4}]", DiscoveryType::Eds, None),
    ] {
        let snapshot = mesh(&entry(resolution, rest));
        let cluster = &clusters(&snapshot, &sidecar("10.9.9.9", "default"))[&name];
        assert_eq!(kind(cluster), expected, "{resolution}");
        assert!(cluster.transport_socket_matches.is_empty(), "outside the mesh there is no mTLS");
        assert_eq!(hosts_of(cluster), hosts.map(|hosts| hosts.into_iter().map(str::to_owned).collect::<Vec<_>>()));
        let resolver = cluster.typed_dns_resolver_config.as_ref().map(|config| &*config.name);
        let is_dns = resolution.starts_with("DNS");
        assert_eq!(resolver, is_dns.then_some("envoy.network.dns_resolver.cares"), "{resolution}");
        #[allow(deprecated)]
        let jitter = cluster.dns_jitter.as_ref().map(|jitter| jitter.nanos);
        assert_eq!(jitter, is_dns.then_some(100_000_000), "{resolution}");
        if resolution == "NONE" {
            let Some(LbConfig::OriginalDstLbConfig(config)) = &cluster.lb_config else { panic!() };
            assert_eq!(config.upstream_port_override, Some(8443));
        }
    }
}

fn hosts_of(cluster: &Cluster) -> Option<Vec<String>> {
    let assignment = cluster.load_assignment.as_ref()?;
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    Some(
        endpoints
            .map(|endpoint| match &endpoint.host_identifier {
                Some(HostIdentifier::Endpoint(endpoint)) => text_of(endpoint.address.as_ref().unwrap()),
                other => panic!("{other:?}"),
            })
            .collect(),
    )
}

fn text_of(address: &Address) -> String {
    match &address.address {
        Some(address::Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => format!("{}:{port}", socket.address),
            _ => panic!("no port"),
        },
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn headless_services_go_where_the_application_went() {
    let headless = MESH.replace("clusterIP: 10.96.0.1", "clusterIP: None");
    let name = names::outbound(80, "", REVIEWS);
    let cluster = &clusters(&mesh(&headless), &sidecar("10.9.9.9", "default"))[&name];
    assert_eq!(kind(cluster), DiscoveryType::OriginalDst);
    assert!(cluster.transport_socket.is_some(), "every pod takes mTLS");
    let plain = headless.replace(", security.istio.io/tlsMode: istio", "");
    let cluster = &clusters(&mesh(&plain), &sidecar("10.9.9.9", "default"))[&name];
    assert!(cluster.transport_socket.is_none());
    let gateway = node("router", "10.0.0.9", "istio-system", json!({}));
    assert_eq!(kind(&clusters(&mesh(&headless), &gateway)[&name]), DiscoveryType::Eds);
}

#[test]
fn dialects_differ_only_in_what_the_proxy_lacks() {
    let snapshot = mesh(MESH);
    let of = |dialect: &str| {
        let node = node("sidecar", "10.9.9.9", "default", json!({"DIALECT": dialect}));
        clusters(&snapshot, &node)
    };
    let name = names::outbound(80, "", REVIEWS);
    assert_eq!(of("istio-proxy")[&name].filters[0].name, "istio.metadata_exchange");
    let vanilla = &of("envoy")[&name];
    assert!(vanilla.filters.is_empty());
    let alpn =
        tls(vanilla.transport_socket_matches[0].transport_socket.as_ref()).common_tls_context.unwrap().alpn_protocols;
    assert_eq!(alpn, ["istio-http/1.1", "istio", "http/1.1"]);
    let grpc = of("grpc");
    assert!(grpc.keys().all(|name| name.starts_with("outbound|")));
    let cluster = &grpc[&name];
    assert_eq!((kind(cluster), cluster.lb_policy), (DiscoveryType::Eds, LbPolicy::RoundRobin as i32));
    assert!(cluster.transport_socket.is_none() && cluster.transport_socket_matches.is_empty());
    assert!(cluster.metadata.is_none() && cluster.filters.is_empty());
}

#[test]
fn nodes_with_equal_inputs_share_and_a_named_request_finds_the_same() {
    let snapshot = mesh(&rule("trafficPolicy: {loadBalancer: {simple: RANDOM}}"));
    let (one, two) = (sidecar("10.9.9.8", "default"), sidecar("10.9.9.9", "default"));
    let all = Clusters::all(&snapshot, &one);
    assert!(all.len() > 5);
    for (name, input) in all {
        let other = Clusters::inputs(&snapshot, &two, &name).unwrap();
        assert_eq!(input, other, "{name}");
        assert_eq!(Clusters::build(&input), Clusters::build(&other), "{name}");
    }
    assert!(Clusters::inputs(&snapshot, &one, "outbound|80||nobody").is_none());
    assert!(Clusters::inputs(&snapshot, &one, "inbound|80||").is_none());
}

/// Istio's own expectations of inbound clusters, where their data is at hand.
#[test]
fn inbound_clusters_are_istios() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/simulation/cases");
    let Ok(files) = std::fs::read_dir(folder) else {
        println!("skipped: ../shared/peer/simulation is not there");
        return;
    };
    let mut played = 0;
    for file in files {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let case: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        if case["kind"] != "inbound_clusters" {
            continue;
        }
        let snapshot = inbound_case(&case);
        let found = clusters(&snapshot, &sidecar("1.2.3.4", "default"));
        let expected = case["expect_inbound_clusters"].as_object().unwrap();
        let names: Vec<_> = found.keys().filter(|name| name.starts_with("inbound|")).collect();
        assert_eq!(
            names,
            expected.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>(),
            "{}",
            case["name"]
        );
        for (name, wanted) in expected {
            let hosts = |key: &str| {
                wanted[key]
                    .as_array()
                    .map(|list| list.iter().map(|host| host.as_str().unwrap().to_owned()).collect::<Vec<_>>())
            };
            assert_eq!(hosts_of(&found[name]), hosts("endpoints"), "{} {name}", case["name"]);
            assert_eq!(telemetry(&found[name]), hosts("telemetry_services"), "{} {name}", case["name"]);
        }
        played += 1;
    }
    assert!(played >= 5, "only {played} cases");
}

fn telemetry(cluster: &Cluster) -> Option<Vec<String>> {
    let services = cluster.metadata.as_ref()?.filter_metadata.get("istio")?.fields.get("services")?;
    let Some(Kind::ListValue(list)) = &services.kind else { panic!() };
    let host = |value: &meltemi_proto::prost_types::Value| match &value.kind {
        Some(Kind::StructValue(fields)) => match &fields.fields["host"].kind {
            Some(Kind::StringValue(host)) => host.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    Some(list.values.iter().map(host).collect())
}

/// The case's in-memory registry, as ServiceEntries with the same endpoints.
fn inbound_case(case: &serde_json::Value) -> meltemi_model::Snapshot {
    use meltemi_model::*;
    let mut snapshot =
        with_mesh_config(case["config"].as_str().unwrap(), &case.get("mesh_config").unwrap_or(&json!({})).to_string());
    let mut update = Update::default();
    for service in case["services"].as_array().unwrap() {
        let hostname: std::sync::Arc<str> = service["hostname"].as_str().unwrap().into();
        let ports = service["ports"].as_array().unwrap().iter().map(|port| Port {
            name: port["name"].as_str().unwrap().into(),
            number: port["port"].as_u64().unwrap() as u32,
            protocol: Protocol::Http,
            target: TargetPort::Same,
        });
        let key = ServiceKey::new("default", hostname.clone());
        let own = Service {
            hostname: hostname.clone(),
            namespace: "default".into(),
            name: hostname.clone(),
            ports: ports.collect(),
            ..Service::default()
        };
        let instances =
            case["instances"].as_array().unwrap().iter().filter(|instance| instance["service"] == *hostname);
        let endpoints = instances.map(|instance| {
            let port = own.port(instance["service_port"].as_u64().unwrap() as u32).unwrap();
            Shared::new(Endpoint {
                address: meltemi_model::Address::parse(instance["endpoint_addresses"][0].as_str().unwrap()),
                ports: vec![(port.name.clone(), instance["endpoint_port"].as_u64().unwrap() as u32)],
                ..Endpoint::default()
            })
        });
        let shard = EndpointShard::new(key.clone(), endpoints.collect());
        update.endpoints.insert(key.clone(), Some(Shared::new(shard)));
        update.services.insert(key, Some(Shared::new(own)));
    }
    snapshot = snapshot.next(&update).0;
    snapshot
}

#[test]
fn zone_awareness_is_said_in_every_place_of_a_rule_and_of_the_mesh() {
    use common_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
    use meltemi_proto::envoy::config::cluster::v3::cluster::common_lb_config;
    let service = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: shop}
spec: {hosts: [web.example], ports: [{name: http, number: 80, protocol: HTTP}, {name: more, number: 81, protocol: HTTP}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]}
---
";
    let zone = |policy: &str, mesh: &str, name: &str| {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: web, namespace: shop}}\nspec: {{host: web.example, {policy}}}\n"
        );
        let found = clusters(&with_mesh_config(&format!("{service}{rule}"), mesh), &sidecar("10.9.9.9", "shop"));
        match found[name].common_lb_config.as_ref()?.locality_config_specifier? {
            LocalityConfigSpecifier::ZoneAwareLbConfig(config) => Some(config),
            LocalityConfigSpecifier::LocalityWeightedLbConfig(_) => panic!("weighted"),
        }
    };
    let sized = |size| Some(ZoneAwareLbConfig { min_cluster_size: Some(size), ..ZoneAwareLbConfig::default() });
    let lb = "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 3}}";
    let whole = "outbound|80||web.example";
    assert_eq!(zone("", "{}", whole), None);
    assert_eq!(zone(&format!("trafficPolicy: {{{lb}}}"), "{}", whole), sized(3));
    let port = format!("trafficPolicy: {{portLevelSettings: [{{port: {{number: 81}}, {lb}}}]}}");
    assert_eq!([zone(&port, "{}", whole), zone(&port, "{}", "outbound|81||web.example")], [None, sized(3)]);
    let subset = format!("subsets: [{{name: v1, trafficPolicy: {{{lb}}}}}]");
    assert_eq!(zone(&subset, "{}", "outbound|80|v1|web.example"), sized(3));
    let both =
        format!("subsets: [{{name: v1, trafficPolicy: {{portLevelSettings: [{{port: {{number: 81}}, {lb}}}]}}}}]");
    assert_eq!(zone(&both, "{}", "outbound|81|v1|web.example"), sized(3));
    let mesh = "zoneAwareLbSetting: {minClusterSize: 9}";
    assert_eq!(zone("", mesh, whole), sized(9));
    assert_eq!(zone("trafficPolicy: {loadBalancer: {localityLbSetting: {enabled: true}}}", mesh, whole), None);
    let off = zone("trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {enabled: false}}}", mesh, whole).unwrap();
    assert_eq!((off.routing_enabled.map(|part| part.value), off.min_cluster_size), (Some(0.0), None));
}
