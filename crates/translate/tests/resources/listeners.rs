use meltemi_model::{Node, NodeDescription, Options};
use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, service, sidecar};

fn filter_names(filters: &Value) -> Vec<&str> {
    filters.as_array().unwrap().iter().map(|filter| filter["name"].as_str().unwrap()).collect()
}

pub fn manager(chain: &Value) -> &Value {
    let filters = chain["filters"].as_array().unwrap();
    let manager = filters.iter().find(|f| f["name"] == "envoy.filters.network.http_connection_manager").unwrap();
    &manager["typed_config"]
}

/// A workload of service `own`, that the sidecar is.
fn workload(port_name: &str, policy: Option<&str>) -> (Mesh, meltemi_model::Node) {
    let mut documents = service("own", "10.1.0.9", 8080, port_name);
    if let Some(mode) = policy {
        documents += &format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: default}}\n\
             spec: {{mtls: {{mode: {mode}}}}}\n"
        );
    }
    (Mesh::new(&documents), node("sidecar", json!({"LABELS": {"app": "own"}})))
}

#[test]
fn a_sidecar_has_istio_s_listeners() {
    let documents = service("web", "10.1.0.1", 80, "http")
        + &service("web2", "10.1.0.2", 80, "http2")
        + &service("db", "10.1.0.3", 5432, "tcp")
        + &service("any", "10.1.0.4", 9000, "x")
        + &service("dns", "10.1.0.5", 5353, "udp-x");
    let mesh = Mesh::new(&documents);
    assert_eq!(
        mesh.names(&sidecar(), type_urls::LISTENER),
        ["0.0.0.0_80", "10.1.0.3_5432", "10.1.0.4_9000", "virtualOutbound", "virtualInbound"]
    );
    let db = mesh.listener(&sidecar(), "10.1.0.3_5432");
    assert_eq!(db["bind_to_port"], false);
    assert_eq!(
        at(&db, "filter_chains.0.filters.1.typed_config.cluster"),
        "outbound|5432||db.default.svc.cluster.local"
    );
    assert_eq!(db["default_filter_chain"], Value::Null);
    assert_eq!(db["traffic_direction"], "OUTBOUND");
    let http = mesh.listener(&sidecar(), "0.0.0.0_80");
    assert_eq!(at(&http, "filter_chains.0.filter_chain_match.application_protocols"), &json!(["http/1.1", "h2c"]));
    assert_eq!(at(&http, "filter_chains.0.filter_chain_match.transport_protocol"), "raw_buffer");
    assert_eq!(filter_names(&http["listener_filters"]), ["envoy.filters.listener.http_inspector"]);
    let sniffed = mesh.listener(&sidecar(), "10.1.0.4_9000");
    let rds = at(manager(at(&sniffed, "filter_chains.0")), "rds.route_config_name");
    assert_eq!(rds, "any.default.svc.cluster.local:9000");
    assert_eq!(
        at(&sniffed, "default_filter_chain.filters.1.typed_config.cluster"),
        "outbound|9000||any.default.svc.cluster.local"
    );
    let outbound = mesh.listener(&sidecar(), "virtualOutbound");
    assert_eq!(outbound["use_original_dst"], true);
    assert_eq!(at(&outbound, "address.socket_address.port_value"), 15001);
}

/// Where each chain for a port leads: its name and the first of its filters.
fn chains_of_port(listener: &Value, port: u16) -> Vec<&str> {
    let chains = listener["filter_chains"].as_array().unwrap().iter();
    let of_port = chains.filter(|chain| at(chain, "filter_chain_match.destination_port") == &json!(port));
    of_port.map(|chain| chain["name"].as_str().unwrap()).collect()
}

#[test]
fn nothing_leads_to_the_ports_of_the_proxy_itself() {
    let own = node("sidecar", json!({"LABELS": {"app": "own"}}));
    let policy = |port: u16| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: default}}\n\
             spec: {{selector: {{matchLabels: {{app: own}}}}, portLevelMtls: {{{port}: {{mode: STRICT}}}}}}\n"
        )
    };
    for port in [15001, 15006, 15021, 15090] {
        let trap: &[&str] = if port == 15006 { &["virtualInbound-blackhole"] } else { &[] };
        let served = Mesh::new(&service("own", "10.1.0.9", port, "http"));
        assert_eq!(chains_of_port(&served.listener(&own, "virtualInbound"), port), trap, "{port}");
        let undeclared = Mesh::new(&policy(port)).listener(&own, "virtualInbound");
        let others = chains_of_port(&undeclared, port).len() - trap.len();
        assert_eq!(others == 0, port < 15021, "{port}");
    }
    let other = Mesh::new(&service("own", "10.1.0.9", 15007, "http"));
    assert!(!chains_of_port(&other.listener(&own, "virtualInbound"), 15007).is_empty());
}

#[test]
fn a_sidecar_s_own_listeners_leave_out_what_the_proxy_cannot_have() {
    let sidecar = |port: u16, fields: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: default}}\n\
             spec: {{ingress: [{{port: {{number: {port}, protocol: HTTP, name: http}}, captureMode: NONE, {fields}\
             defaultEndpoint: '127.0.0.1:9'}}]}}\n"
        )
    };
    let names = |documents: &str, unprivileged: bool| {
        let metadata = json!({"LABELS": {"app": "own"}, "UNPRIVILEGED_POD": unprivileged.to_string()});
        Mesh::new(documents).names(&node("sidecar", metadata), type_urls::LISTENER)
    };
    let has =
        |documents: &str, unprivileged: bool, name: &str| names(documents, unprivileged).iter().any(|own| own == name);
    assert!(has(&sidecar(80, ""), false, "10.0.0.1_80"));
    assert!(!has(&sidecar(80, ""), true, "10.0.0.1_80"));
    assert!(has(&sidecar(8080, ""), true, "10.0.0.1_8080"));
    assert!(!has(&sidecar(15090, ""), false, "10.0.0.1_15090"));
    assert!(has(&sidecar(15090, "bind: 127.0.0.1, "), false, "127.0.0.1_15090"));
}

#[test]
fn http_filters_stand_in_istio_s_order() {
    let (mesh, node) = workload("http", None);
    let inbound = mesh.listener(&node, "virtualInbound");
    let chain =
        inbound["filter_chains"].as_array().unwrap().iter().find(|chain| chain["name"] == "0.0.0.0_8080").unwrap();
    assert_eq!(filter_names(&chain["filters"])[0], "istio.metadata_exchange");
    let hcm = manager(chain);
    assert_eq!(
        filter_names(&hcm["http_filters"]),
        [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.fault",
            "envoy.filters.http.cors",
            "istio.stats",
            "envoy.filters.http.router"
        ]
    );
    assert_eq!(hcm["server_name"], "istio-envoy");
    assert_eq!(hcm["forward_client_cert_details"], "APPEND_FORWARD");
    assert_eq!(hcm["set_current_client_cert_details"], json!({"subject": true, "dns": true, "uri": true}));
    assert_eq!(hcm["use_remote_address"], false);
    assert_eq!(hcm["normalize_path"], true);
    assert_eq!(hcm["stream_idle_timeout"], "0s");
    assert_eq!(hcm["stat_prefix"], "inbound_0.0.0.0_8080;");
    assert_eq!(at(hcm, "route_config.name"), "inbound|8080||");
    assert_eq!(at(hcm, "route_config.virtual_hosts.0.name"), "inbound|http|8080");
    let route = at(hcm, "route_config.virtual_hosts.0.routes.0");
    assert_eq!(at(route, "decorator.operation"), "own.default.svc.cluster.local:8080/*");
    assert_eq!(at(route, "route.retry_policy.retry_on"), "reset-before-request");
    let outbound = mesh.listener(&node, "0.0.0.0_8080");
    assert_eq!(
        filter_names(&manager(at(&outbound, "filter_chains.0"))["http_filters"])[..3],
        ["istio.metadata_exchange", "envoy.filters.http.grpc_stats", "istio.alpn"]
    );
}

#[test]
fn vanilla_envoy_gets_no_filter_of_istio_s() {
    let (mesh, _) = workload("http", None);
    let envoy = node("sidecar", json!({"LABELS": {"app": "own"}, "DIALECT": "envoy"}));
    for name in mesh.names(&envoy, type_urls::LISTENER) {
        let text = mesh.listener(&envoy, &name).to_string();
        for extension in ["istio.metadata_exchange", "istio.stats", "istio.alpn", "peer_metadata", "stats.PluginConfig"]
        {
            assert!(!text.contains(extension), "{extension} in {name}");
        }
    }
}

#[test]
fn the_mtls_mode_decides_the_chains() {
    // Per chain of the port: transport, first ALPN, whether it terminates TLS, whether it is HTTP.
    let cases: [(&str, Option<&str>, Value); 6] = [
        ("http", None, json!([["tls", "istio", true, true], ["raw_buffer", null, false, true]])),
        ("http", Some("STRICT"), json!([["tls", null, true, true]])),
        ("http", Some("DISABLE"), json!([["raw_buffer", null, false, true]])),
        (
            "tcp",
            None,
            json!([["tls", "istio", true, false], ["tls", null, false, false], ["raw_buffer", null, false, false]]),
        ),
        ("x", Some("STRICT"), json!([["tls", "istio-http/1.0", true, true], ["tls", null, true, false]])),
        (
            "x",
            None,
            json!([
                ["tls", "istio-http/1.0", true, true],
                ["raw_buffer", "http/1.1", false, true],
                ["tls", "istio-peer-exchange", true, false],
                ["raw_buffer", null, false, false],
                ["tls", null, false, false]
            ]),
        ),
    ];
    for (protocol, mode, expected) in cases {
        let (mesh, node) = workload(protocol, mode);
        let inbound = mesh.listener(&node, "virtualInbound");
        let chains =
            inbound["filter_chains"].as_array().unwrap().iter().filter(|chain| chain["name"] == "0.0.0.0_8080");
        let found: Vec<Value> = chains
            .map(|chain| {
                let matches = &chain["filter_chain_match"];
                let http = chain["filters"].to_string().contains("HttpConnectionManager");
                json!([
                    matches["transport_protocol"],
                    matches["application_protocols"][0],
                    !chain["transport_socket"].is_null(),
                    http
                ])
            })
            .collect();
        assert_eq!(Value::Array(found), expected, "{protocol} {mode:?}");
    }
}

#[test]
fn mesh_tls_takes_its_secrets_from_the_agent() {
    let (mesh, node) = workload("http", Some("STRICT"));
    let inbound = mesh.listener(&node, "virtualInbound");
    let chain =
        inbound["filter_chains"].as_array().unwrap().iter().find(|chain| chain["name"] == "0.0.0.0_8080").unwrap();
    let tls = at(chain, "transport_socket.typed_config");
    assert_eq!(tls["require_client_certificate"], true);
    let common = &tls["common_tls_context"];
    assert_eq!(common["alpn_protocols"], json!(["h2", "http/1.1"]));
    let secret = at(common, "tls_certificate_sds_secret_configs.0");
    assert_eq!(secret["name"], "default");
    let agent = at(secret, "sds_config.api_config_source.grpc_services.0.envoy_grpc.cluster_name");
    assert_eq!(agent, "sds-grpc");
    let combined = &common["combined_validation_context"];
    assert_eq!(at(combined, "validation_context_sds_secret_config.name"), "ROOTCA");
    assert_eq!(at(combined, "default_validation_context.match_subject_alt_names.0.prefix"), "spiffe://cluster.local/");
    assert_eq!(at(common, "tls_params.tls_minimum_protocol_version"), "TLSv1_2");
}

#[test]
fn a_headless_service_has_a_listener_for_each_other_instance() {
    let documents = "apiVersion: v1\nkind: Service\nmetadata: {name: h, namespace: default}\n\
        spec: {clusterIP: None, ports: [{name: tcp, port: 5000}], selector: {app: h}}\n\
        ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        metadata: {name: h-1, namespace: default, labels: {kubernetes.io/service-name: h}}\n\
        ports: [{name: tcp, port: 5000}]\n\
        endpoints: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.2]}, {addresses: [10.0.0.3]}]\n";
    let mesh = Mesh::new(documents);
    let outbound: Vec<_> =
        mesh.names(&sidecar(), type_urls::LISTENER).into_iter().filter(|name| !name.starts_with("virtual")).collect();
    assert_eq!(outbound, ["10.0.0.2_5000", "10.0.0.3_5000"], "10.0.0.1 is the client itself");
}

/// A headless service of one port, with these instances in each family.
fn headless(port: &str, families: &[(&str, &[&str])]) -> String {
    let mut documents = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: h, namespace: default}}\n\
         spec: {{clusterIP: None, ports: [{{name: {port}, port: 5000}}], selector: {{app: h}}}}\n"
    );
    for (family, addresses) in families {
        let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{addresses: ['{address}']}}")).collect();
        documents += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {family}\n\
             metadata: {{name: h-{}, namespace: default, labels: {{kubernetes.io/service-name: h}}}}\n\
             ports: [{{name: {port}, port: 5000}}]\nendpoints: [{}]\n",
            family.to_lowercase(),
            endpoints.join(", ")
        );
    }
    documents
}

fn dual_stack() -> Node {
    let id = "sidecar~10.0.0.1~client.default~default.svc.cluster.local".to_owned();
    let metadata = json!({"DIALECT": "istio-proxy", "NAMESPACE": "default", "INSTANCE_IPS": "10.0.0.1,2001:db8::1"});
    let metadata = metadata.as_object().cloned().unwrap();
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap()
}

#[test]
fn a_dual_stack_client_has_listeners_for_all_addresses_of_others_and_none_of_its_own() {
    let families = [("IPv4", &["10.0.0.1", "10.0.0.2"][..]), ("IPv6", &["2001:db8::1", "2001:db8::2"])];
    let mesh = Mesh::new(&headless("tcp", &families));
    let names = mesh.names(&dual_stack(), type_urls::LISTENER);
    let outbound: Vec<_> = names.iter().filter(|name| name.ends_with("_5000")).collect();
    assert_eq!(outbound, ["10.0.0.2_5000", "2001:db8::2_5000"]);
}

#[test]
fn instances_of_a_headless_service_may_share_a_listener_with_a_chain_for_each() {
    let options = || Options { headless_filter_chains: true, ..Options::default() };
    let families = [("IPv4", &["10.0.0.1", "10.0.0.2", "10.0.0.3"][..])];
    for port in ["tcp", "tls"] {
        let mesh = Mesh::with_options(options(), "{}", &headless(port, &families));
        let names = mesh.names(&sidecar(), type_urls::LISTENER);
        assert!(names.iter().all(|name| name == "0.0.0.0_5000" || name.starts_with("virtual")), "{names:?}");
        let listener = mesh.listener(&sidecar(), "0.0.0.0_5000");
        let chains = listener["filter_chains"].as_array().unwrap();
        let matches: Vec<_> = chains.iter().map(|chain| chain["filter_chain_match"].clone()).collect();
        let range = |address: &str| json!({"prefix_ranges": [{"address_prefix": address, "prefix_len": 32}]});
        assert_eq!(matches, [range("10.0.0.2"), range("10.0.0.3")], "{port}: 10.0.0.1 is the client itself");
        assert_eq!(at(&listener, "default_filter_chain.name"), "PassthroughFilterChain");
        let all = mesh.all(&sidecar(), type_urls::LISTENER, "0.0.0.0_5000");
        assert_eq!(all, listener, "of a wildcard subscription, too");
    }
    let sniffed = Mesh::with_options(options(), "{}", &headless("some", &families));
    let names = sniffed.names(&sidecar(), type_urls::LISTENER);
    assert!(names.contains(&"10.0.0.2_5000".to_owned()), "what is sniffed is told apart as before: {names:?}");
    let nobody = Mesh::with_options(options(), "{}", &headless("tcp", &[("IPv4", &[])]));
    assert_eq!(nobody.find(&sidecar(), type_urls::LISTENER, "0.0.0.0_5000"), None);
}

#[test]
fn services_that_meet_on_an_address_share_its_listener() {
    let entry = |name: &str, host: &str, protocol: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{hosts: [{host}], ports: [{{number: 443, name: p, protocol: {protocol}}}], resolution: DNS}}\n"
        )
    };
    let documents = entry("one", "one.example.com", "TLS")
        + &entry("two", "two.example.com", "TLS")
        + &entry("web", "web.example.com", "HTTP");
    let listener = Mesh::new(&documents).listener(&sidecar(), "0.0.0.0_443");
    let names: Vec<_> = listener["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| at(chain, "filter_chain_match.server_names.0").as_str().unwrap_or("-").to_owned())
        .collect();
    assert_eq!(names, ["one.example.com", "two.example.com", "-"]);
    assert_eq!(
        filter_names(&listener["listener_filters"]),
        ["envoy.filters.listener.tls_inspector", "envoy.filters.listener.http_inspector"]
    );
}

#[test]
fn access_logs_and_tracing_follow_the_mesh() {
    let documents = service("web", "10.1.0.1", 80, "http") + &service("otel", "10.1.0.2", 4317, "grpc");
    let config = "accessLogFile: /dev/stdout\naccessLogEncoding: JSON\n\
        defaultProviders: {tracing: [o]}\ndefaultConfig: {tracing: {sampling: 25}}\n\
        extensionProviders:\n- name: o\n  opentelemetry: {service: otel.default.svc.cluster.local, port: 4317}\n";
    let mesh = Mesh::with_config(config, &documents);
    let listener = mesh.listener(&sidecar(), "0.0.0.0_80");
    let hcm = manager(at(&listener, "filter_chains.0"));
    let fields = at(hcm, "access_log.0.typed_config.log_format.json_format");
    assert_eq!(fields["upstream_cluster"], "%UPSTREAM_CLUSTER_RAW%");
    assert_eq!(fields.as_object().unwrap().len(), 24);
    let outbound = mesh.listener(&sidecar(), "virtualOutbound");
    assert_eq!(at(&outbound, "access_log.0.filter.response_flag_filter.flags"), &json!(["NR"]));
    assert_eq!(at(hcm, "tracing.random_sampling.value"), 25.0);
    let provider = at(hcm, "tracing.provider.typed_config.grpc_service.envoy_grpc.cluster_name");
    assert_eq!(provider, "outbound|4317||otel.default.svc.cluster.local");
    let plain = Mesh::with_config("accessLogFile: /dev/stdout", &documents).listener(&sidecar(), "0.0.0.0_80");
    let text = at(
        manager(at(&plain, "filter_chains.0")),
        "access_log.0.typed_config.log_format.text_format_source.inline_string",
    );
    assert!(text.as_str().unwrap().starts_with("[%START_TIME%] \"%REQ(:METHOD)%"), "{text}");
}

#[test]
fn replicas_share_their_outbound_listeners_and_keep_their_own_inbound_side() {
    let (mesh, node) = workload("http", None);
    let mut replica = node.clone();
    replica.ip_addresses = vec!["10.0.0.2".into()];
    let names = mesh.names(&node, type_urls::LISTENER);
    assert_eq!(names, mesh.names(&replica, type_urls::LISTENER));
    assert_eq!(mesh.listener(&node, "virtualInbound"), mesh.listener(&replica, "virtualInbound"));
}

#[test]
fn every_address_of_a_service_entry_is_captured() {
    let documents = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: default}\n\
        spec: {hosts: [db.example.com], addresses: [1.2.3.4, 1.2.3.5/32, 10.9.0.0/16, 10.8.0.0/16],\n\
        ports: [{number: 5432, name: tcp, protocol: TCP}], resolution: STATIC, endpoints: [{address: 9.9.9.9}]}\n";
    let mesh = Mesh::new(documents);
    let outbound: Vec<_> =
        mesh.names(&sidecar(), type_urls::LISTENER).into_iter().filter(|name| !name.starts_with("virtual")).collect();
    assert_eq!(outbound, ["0.0.0.0_5432", "1.2.3.4_5432", "1.2.3.5_5432"]);
    let ranges = mesh.listener(&sidecar(), "0.0.0.0_5432");
    let prefixes: Vec<_> = ranges["filter_chains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|chain| at(chain, "filter_chain_match.prefix_ranges.0.address_prefix").clone())
        .collect();
    assert_eq!(prefixes, [json!("10.9.0.0"), json!("10.8.0.0")]);
}

#[test]
fn a_sidecar_s_own_ports_lead_to_what_it_imports() {
    let documents = service("a", "10.1.0.1", 80, "http")
        + &service("b", "10.1.0.2", 80, "http")
        + "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: s, namespace: default}\n\
           spec:\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n  ingress:\n  - port: {number: 9080, protocol: HTTP, name: http}\n    \
           defaultEndpoint: 127.0.0.1:8080\n  egress:\n  - port: {number: 80, protocol: HTTP, name: http}\n    hosts: [./a.default.svc.cluster.local]\n";
    let mesh = Mesh::new(&documents);
    assert_eq!(mesh.names(&sidecar(), type_urls::LISTENER), ["0.0.0.0_80", "virtualOutbound", "virtualInbound"]);
    let config = mesh.resource(&sidecar(), type_urls::ROUTE, "80");
    let names: Vec<_> = config["virtual_hosts"].as_array().unwrap().iter().map(|host| host["name"].clone()).collect();
    assert_eq!(names, [json!("a.default.svc.cluster.local:80"), json!("block_all")]);
    let inbound = mesh.listener(&sidecar(), "virtualInbound").to_string();
    assert!(inbound.contains("inbound|9080||"), "{inbound}");
    let outbound = mesh.listener(&sidecar(), "virtualOutbound");
    assert_eq!(at(&outbound, "filter_chains.1.filters.1.typed_config.cluster"), "BlackHoleCluster");
}

#[test]
fn a_sidecar_s_http_proxy_port_takes_what_it_imports_on_every_port() {
    let egress = |port: &str| {
        service("a", "10.1.0.1", 80, "http")
            + &service("b", "10.1.0.2", 9090, "http")
            + &format!(
                "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: s, namespace: default}}\n\
                 spec:\n  egress:\n  - {{port: {{number: 3128, protocol: {port}, name: proxy}}, bind: 127.0.0.1, hosts: [./*]}}\n"
            )
    };
    let mesh = Mesh::new(&egress("HTTP"));
    assert_eq!(mesh.names(&sidecar(), type_urls::LISTENER), ["virtualOutbound", "virtualInbound"], "nobody's port");
    let mesh = Mesh::new(&egress("http_proxy"));
    assert_eq!(mesh.names(&sidecar(), type_urls::LISTENER), ["127.0.0.1_3128", "virtualOutbound", "virtualInbound"]);
    let listener = mesh.listener(&sidecar(), "127.0.0.1_3128");
    assert!(at(&listener, "filter_chains.0.filter_chain_match").is_null(), "nothing is sniffed: {listener}");
    assert_eq!(at(manager(at(&listener, "filter_chains.0")), "rds.route_config_name"), "3128");
    let asks = node("sidecar", json!({"LABELS": {"app": "client"}, "ON_DEMAND": "true"}));
    for client in [sidecar(), asks] {
        let config = mesh.resource(&client, type_urls::ROUTE, "3128");
        let hosts = config["virtual_hosts"].as_array().unwrap();
        let names: Vec<_> = hosts.iter().map(|host| host["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a.default.svc.cluster.local:80", "b.default.svc.cluster.local:9090", "allow_any"]);
        assert_eq!(at(&hosts[1], "routes.0.route.cluster"), "outbound|9090||b.default.svc.cluster.local");
        assert!(hosts[1]["domains"].as_array().unwrap().contains(&json!("b.default.svc.cluster.local:9090")));
        assert_ne!(config["ignore_port_in_host_matching"], true, "the port tells the services' ports apart");
    }
}

#[test]
fn settings_of_the_mesh_and_the_proxy_reach_the_connection_manager() {
    let documents = service("web", "10.1.0.1", 80, "http");
    let outbound = |mesh: &str, metadata: Value| {
        let mut with = metadata.as_object().cloned().unwrap();
        with.insert("LABELS".into(), json!({"app": "client"}));
        let node = node("sidecar", Value::Object(with));
        let listener = Mesh::with_config(mesh, &documents).listener(&node, "0.0.0.0_80");
        manager(at(&listener, "filter_chains.0")).clone()
    };
    let headers = "defaultConfig: {proxyHeaders: {server: {disabled: true}, requestId: {disabled: true}, \
                   xForwardedPort: {enabled: true}, envoyDebugHeaders: {disabled: true}}}";
    let cases: [(&str, Value, &str, Value); 9] = [
        ("{}", json!({}), "server_name", Value::Null),
        (headers, json!({}), "server_header_transformation", json!("PASS_THROUGH")),
        (headers, json!({}), "generate_request_id", json!(false)),
        (headers, json!({}), "append_x_forwarded_port", json!(true)),
        (headers, json!({"PROXY_CONFIG": {"proxyHeaders": {}}}), "generate_request_id", Value::Null),
        ("pathNormalization: {normalization: MERGE_SLASHES}", json!({}), "merge_slashes", json!(true)),
        ("pathNormalization: {normalization: NONE}", json!({}), "normalize_path", json!(false)),
        ("{}", json!({"IDLE_TIMEOUT": "30s"}), "common_http_protocol_options.idle_timeout", json!("30s")),
        ("{enableTracing: false}", json!({}), "tracing", Value::Null),
    ];
    for (mesh, metadata, path, expected) in cases {
        assert_eq!(at(&outbound(mesh, metadata.clone()), path), &expected, "{path} with {mesh} and {metadata}");
    }
    let tags = outbound("{}", json!({"MESH_ID": "m"}))["tracing"]["custom_tags"].to_string();
    assert!(tags.contains(r#""tag":"istio.mesh_id""#) && tags.contains(r#""value":"m""#), "{tags}");
}

#[test]
fn an_explicit_proxy_port_is_a_listener_of_its_own() {
    let mesh = Mesh::with_config("{proxyHttpPort: 15080}", &service("web", "10.1.0.1", 80, "http"));
    let listener = mesh.listener(&sidecar(), "127.0.0.1_15080");
    let hcm = manager(at(&listener, "filter_chains.0"));
    assert_eq!(at(hcm, "rds.route_config_name"), "http_proxy");
    assert_eq!(at(hcm, "http_protocol_options.allow_absolute_url"), true);
    let config = mesh.resource(&sidecar(), type_urls::ROUTE, "http_proxy");
    let domains = at(&config, "virtual_hosts.0.domains").to_string();
    assert!(domains.contains(r#""web""#) && domains.contains(r#""web:80""#), "{domains}");
}
