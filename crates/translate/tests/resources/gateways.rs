use meltemi_model::Options;
use meltemi_translate::type_urls;
use serde_json::{Value, json};

use crate::mesh::{Mesh, at, node, service};

fn router() -> meltemi_model::Node {
    node("router", json!({"LABELS": {"istio": "ingressgateway"}}))
}

fn gateway(servers: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: default}}\n\
         spec:\n  selector: {{istio: ingressgateway}}\n  servers:\n{servers}\n"
    )
}

fn rule(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: default}}\n\
         spec: {{gateways: [g], {spec}}}\n"
    )
}

const HTTP: &str = "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.example.com']}";
const TO_A: &str = "http: [{route: [{destination: {host: a}}]}]";

fn mesh(servers: &str, spec: &str) -> Mesh {
    Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &gateway(servers) + &rule(spec)))
}

#[test]
fn a_plain_server_routes_the_hosts_that_it_shares_with_the_rule() {
    let mesh = mesh(HTTP, &format!("hosts: [x.example.com, other.org], {TO_A}"));
    assert_eq!(mesh.names(&router(), type_urls::LISTENER), ["0.0.0.0_80"]);
    let listener = mesh.listener(&router(), "0.0.0.0_80");
    let hcm = at(&listener, "filter_chains.0.filters.0.typed_config");
    assert_eq!(at(hcm, "rds.route_config_name"), "http.80");
    assert_eq!(hcm["use_remote_address"], true);
    assert_eq!(hcm["forward_client_cert_details"], "SANITIZE_SET");
    assert_eq!(hcm["server_name"], "istio-envoy");
    let config = mesh.resource(&router(), type_urls::ROUTE, "http.80");
    assert_eq!(config["virtual_hosts"].as_array().unwrap().len(), 1);
    assert_eq!(at(&config, "virtual_hosts.0.name"), "x.example.com:80");
    assert_eq!(at(&config, "virtual_hosts.0.routes.0.route.cluster"), "outbound|80||a.default.svc.cluster.local");
}

#[test]
fn hosts_with_the_same_routes_share_a_virtual_host() {
    let mesh = mesh(HTTP, &format!("hosts: [x.example.com, yy.example.com], {TO_A}"));
    let config = mesh.resource(&router(), type_urls::ROUTE, "http.80");
    assert_eq!(at(&config, "virtual_hosts.0.domains"), &json!(["yy.example.com", "x.example.com"]));
}

#[test]
fn a_gateway_without_rules_answers_404() {
    let mesh = Mesh::new(&gateway(HTTP));
    let config = mesh.resource(&router(), type_urls::ROUTE, "http.80");
    assert_eq!(at(&config, "virtual_hosts.0.name"), "blackhole:80");
    assert_eq!(at(&config, "virtual_hosts.0.routes"), &Value::Null);
}

#[test]
fn https_servers_are_told_apart_by_sni_and_name_their_secrets() {
    let servers = "  - {port: {number: 443, name: one, protocol: HTTPS}, hosts: [x.example.com], tls: {mode: SIMPLE, credentialName: one}}\n  \
                   - {port: {number: 443, name: two, protocol: HTTPS}, hosts: [y.example.com], tls: {mode: MUTUAL, credentialName: two, minProtocolVersion: TLSV1_3}}";
    let mesh = mesh(servers, &format!("hosts: ['*'], {TO_A}"));
    let listener = mesh.listener(&router(), "0.0.0.0_443");
    assert_eq!(at(&listener, "listener_filters.0.name"), "envoy.filters.listener.tls_inspector");
    let expected = [("x.example.com", "one", false), ("y.example.com", "two", true)];
    for (index, (host, secret, mutual)) in expected.into_iter().enumerate() {
        let chain = &listener["filter_chains"][index];
        assert_eq!(at(chain, "filter_chain_match.server_names.0"), host);
        let tls = at(chain, "transport_socket.typed_config");
        assert_eq!(tls["require_client_certificate"], mutual);
        let certificate = at(tls, "common_tls_context.tls_certificate_sds_secret_configs.0");
        assert_eq!(certificate["name"], format!("kubernetes://{secret}"));
        assert!(certificate["sds_config"]["ads"].is_object(), "{certificate}");
        let ca = at(tls, "common_tls_context.combined_validation_context.validation_context_sds_secret_config.name");
        assert_eq!(ca, &if mutual { json!("kubernetes://two-cacert") } else { Value::Null });
        let rds = at(chain, "filters.0.typed_config.rds.route_config_name");
        assert_eq!(rds, &json!(format!("https.443.{secret}.g.default")));
        let config = mesh.resource(&router(), type_urls::ROUTE, rds.as_str().unwrap());
        assert_eq!(virtual_host(&config, &format!("{host}:443"))["domains"], json!([host]));
    }
}

#[test]
fn a_redirecting_server_requires_tls() {
    let servers =
        "  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [x.example.com], tls: {httpsRedirect: true}}";
    let mesh = mesh(servers, &format!("hosts: [x.example.com], {TO_A}"));
    let config = mesh.resource(&router(), type_urls::ROUTE, "http.80");
    assert_eq!(at(&config, "virtual_hosts.0.require_tls"), "ALL");
}

#[test]
fn tls_passes_by_sni_and_tcp_by_port() {
    let servers = "  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.example.com'], tls: {mode: PASSTHROUGH}}\n  \
                   - {port: {number: 5000, name: tcp, protocol: TCP}, hosts: ['*']}";
    let spec = "hosts: [x.example.com], tls: [{match: [{sniHosts: [x.example.com]}], route: [{destination: {host: a}}]}], \
                tcp: [{match: [{port: 5000}], route: [{destination: {host: a, port: {number: 80}}}]}]";
    let mesh = mesh(servers, spec);
    let passthrough = mesh.listener(&router(), "0.0.0.0_443");
    assert_eq!(at(&passthrough, "filter_chains.0.filter_chain_match.server_names"), &json!(["x.example.com"]));
    assert_eq!(at(&passthrough, "filter_chains.0.transport_socket"), &Value::Null);
    let tcp = mesh.listener(&router(), "0.0.0.0_5000");
    let filters = at(&tcp, "filter_chains.0.filters").as_array().unwrap();
    assert_eq!(filters.last().unwrap()["typed_config"]["cluster"], "outbound|80||a.default.svc.cluster.local");
}

#[test]
fn auto_passthrough_has_a_chain_for_each_service_by_its_sni() {
    let servers =
        "  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}";
    let mesh = Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &gateway(servers)));
    let listener = mesh.listener(&router(), "0.0.0.0_15443");
    let name = "outbound_.80_._.a.default.svc.cluster.local";
    assert_eq!(at(&listener, "filter_chains.0.filter_chain_match.server_names.0"), name);
    let filters = at(&listener, "filter_chains.0.filters").as_array().unwrap();
    assert_eq!(filters.last().unwrap()["typed_config"]["cluster"], name);
}

/// An ALLOW policy about requests would deny whatever comes from another network.
#[test]
fn policies_of_a_gateway_are_not_about_what_passes_it_unopened() {
    let servers = "  - {port: {number: 15443, name: tls, protocol: TLS}, hosts: ['*.local'], tls: {mode: AUTO_PASSTHROUGH}}\n  \
         - {port: {number: 443, name: own, protocol: TLS}, hosts: ['x.example.com'], tls: {mode: PASSTHROUGH}}";
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: default}\n\
                  spec: {rules: [{to: [{operation: {paths: [/x]}}]}]}\n";
    let spec =
        "hosts: [x.example.com], tls: [{match: [{sniHosts: [x.example.com]}], route: [{destination: {host: a}}]}]";
    let mesh = Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &gateway(servers) + policy + &rule(spec)));
    let authorizes = |name: &str| {
        let listener = mesh.listener(&router(), name);
        let filters = at(&listener, "filter_chains.0.filters").as_array().unwrap();
        filters.iter().any(|filter| filter["name"] == "envoy.filters.network.rbac")
    };
    assert!(!authorizes("0.0.0.0_15443"));
    assert!(authorizes("0.0.0.0_443"));
}

#[test]
fn the_port_is_that_of_the_gateway_s_workload() {
    let documents = gateway(HTTP)
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: ingress, namespace: default}\n\
           spec: {clusterIP: 10.1.0.8, ports: [{name: http2, port: 80, targetPort: 8080}], selector: {istio: ingressgateway}}\n";
    let mesh = Mesh::new(&documents);
    assert_eq!(mesh.names(&router(), type_urls::LISTENER), ["0.0.0.0_8080"]);
    assert_eq!(mesh.names(&router(), type_urls::ROUTE), ["http.8080"]);
}

#[test]
fn a_claim_of_a_token_is_matched_in_metadata_and_not_as_a_header() {
    let spec = "hosts: [x.example.com], http: [{match: [{headers: {'@request.auth.claims.group': {exact: admin}}}], \
                route: [{destination: {host: a}}]}]";
    let config = mesh(HTTP, spec).resource(&router(), type_urls::ROUTE, "http.80");
    let matches = at(&config, "virtual_hosts.0.routes.0.match");
    assert_eq!(matches["headers"], Value::Null);
    assert_eq!(at(matches, "dynamic_metadata.0.filter"), "envoy.filters.http.jwt_authn");
    assert_eq!(at(matches, "dynamic_metadata.0.path.1.key"), "group");
}

/// A service of the gateway with 443 over TCP and, perhaps, over UDP.
fn gateway_service(udp: bool) -> String {
    let udp = if udp { "\n  - {name: h3, port: 443, targetPort: 8443, protocol: UDP}" } else { "" };
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: ingress, namespace: default}}\nspec:\n  selector: {{istio: ingressgateway}}\n  \
         ports:\n  - {{name: https, port: 443, targetPort: 8443}}{udp}\n"
    )
}

const HTTPS: &str = "  - {port: {number: 443, name: one, protocol: HTTPS}, hosts: [x.example.com], tls: {mode: SIMPLE, credentialName: one}}\n  \
                       - {port: {number: 443, name: two, protocol: HTTPS}, hosts: [y.example.com], tls: {mode: MUTUAL, credentialName: two}}\n  \
                       - {port: {number: 443, name: old, protocol: HTTPS}, hosts: [z.example.com], tls: {mode: SIMPLE, credentialName: old, maxProtocolVersion: TLSV1_2}}\n  \
                       - {port: {number: 443, name: tls, protocol: TLS}, hosts: [p.example.com], tls: {mode: PASSTHROUGH}}";

fn quic_mesh(enabled: bool, udp: bool) -> Mesh {
    let options = Options { quic_listeners: enabled, ..Options::default() };
    let rule = rule(&format!("hosts: ['*'], {TO_A}"));
    let documents = service("a", "10.1.0.1", 80, "http") + &gateway(HTTPS) + &rule + &gateway_service(udp);
    Mesh::with_options(options, "{}", &documents)
}

#[test]
fn https_servers_get_an_http3_listener_where_it_is_wanted_and_the_service_has_the_port() {
    for (enabled, udp) in [(false, true), (true, false)] {
        let mesh = quic_mesh(enabled, udp);
        assert_eq!(mesh.names(&router(), type_urls::LISTENER), ["0.0.0.0_8443"], "{enabled} {udp}");
        let routes = mesh.routes(&router(), "https.443.one.g.default", "x.example.com");
        assert_eq!(routes[0]["response_headers_to_add"], Value::Null);
    }
    let mesh = quic_mesh(true, true);
    assert_eq!(mesh.names(&router(), type_urls::LISTENER), ["0.0.0.0_8443", "udp_0.0.0.0_8443"]);
    let listener = mesh.listener(&router(), "udp_0.0.0.0_8443");
    let socket = at(&listener, "address.socket_address");
    assert_eq!((&socket["protocol"], &socket["port_value"]), (&json!("UDP"), &json!(8443)));
    let config = json!({ "downstream_socket_config": {}, "quic_options": {} });
    assert_eq!((&listener["udp_listener_config"], &listener["listener_filters"]), (&config, &Value::Null));
    let chains = listener["filter_chains"].as_array().unwrap();
    assert_eq!(chains.len(), 2, "neither TLS 1.2 alone nor what passes through: {chains:?}");
    for (chain, (host, secret, mutual)) in
        chains.iter().zip([("x.example.com", "one", false), ("y.example.com", "two", true)])
    {
        assert_eq!(at(chain, "filter_chain_match.server_names"), &json!([host]));
        assert_eq!(at(chain, "transport_socket.name"), "envoy.transport_sockets.quic");
        let tls = at(chain, "transport_socket.typed_config.downstream_tls_context");
        assert_eq!(tls["require_client_certificate"], mutual);
        assert_eq!(at(tls, "common_tls_context.alpn_protocols"), &json!(["h3"]));
        let certificate = at(tls, "common_tls_context.tls_certificate_sds_secret_configs.0.name");
        assert_eq!(certificate, &json!(format!("kubernetes://{secret}")));
        let hcm = at(chain, "filters.0.typed_config");
        assert_eq!((&hcm["codec_type"], &hcm["http3_protocol_options"]), (&json!("HTTP3"), &json!({})));
        assert_eq!(at(hcm, "rds.route_config_name"), &json!(format!("https.443.{secret}.g.default")));
    }
    for (server, host, expected) in
        [("one", "x.example.com", json!("h3=\":443\"; ma=86400")), ("old", "z.example.com", Value::Null)]
    {
        let routes = mesh.routes(&router(), &format!("https.443.{server}.g.default"), host);
        assert_eq!(at(&routes[0], "response_headers_to_add.0.header.value"), &expected, "{server}");
    }
}

fn https(name: &str, host: &str) -> String {
    format!(
        "  - {{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: ['{host}'], tls: {{mode: SIMPLE, credentialName: same}}}}\n"
    )
}

/// Two servers of port 443, with a rule for all hosts and one for single ones; a third server takes `*.other.org` unopened.
fn shared_port(second: &str) -> Mesh {
    let unopened =
        "  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*.other.org'], tls: {mode: PASSTHROUGH}}";
    let servers = gateway(&(https("one", "x.example.com") + &https("two", second) + unopened));
    let rules = rule(&format!("hosts: ['*.example.com'], {TO_A}"))
        + &rule(&format!("hosts: [x.example.com, z.example.com], {TO_A}")).replace("name: r,", "name: single,");
    Mesh::new(&(service("a", "10.1.0.1", 80, "http") + &servers + &rules))
}

fn virtual_host<'a>(config: &'a Value, name: &str) -> &'a Value {
    let hosts = config["virtual_hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["name"] == name).unwrap_or_else(|| panic!("no {name} in {config}"))
}

#[test]
fn a_host_of_another_server_of_the_port_is_misdirected() {
    let mesh = shared_port("y.example.com");
    let one = mesh.resource(&router(), type_urls::ROUTE, "https.443.one.g.default");
    let misdirected = virtual_host(&one, "misdirected:443");
    assert_eq!(misdirected["domains"], json!(["*.other.org", "y.example.com"]));
    assert_eq!(at(misdirected, "routes.0.direct_response.status"), &json!(421));
    assert_eq!(at(virtual_host(&one, "x.example.com:443"), "domains"), &json!(["x.example.com"]));
}

#[test]
fn a_wildcard_server_keeps_what_no_other_names() {
    let mesh = shared_port("*.example.com");
    let wildcard = mesh.resource(&router(), type_urls::ROUTE, "https.443.two.g.default");
    assert_eq!(virtual_host(&wildcard, "misdirected:443")["domains"], json!(["*.other.org", "x.example.com"]));
    for routed in ["*.example.com:443", "z.example.com:443"] {
        assert_eq!(
            at(virtual_host(&wildcard, routed), "routes.0.route.cluster"),
            "outbound|80||a.default.svc.cluster.local"
        );
    }
    let one = mesh.resource(&router(), type_urls::ROUTE, "https.443.one.g.default");
    assert_eq!(virtual_host(&one, "misdirected:443")["domains"], json!(["*.example.com", "*.other.org"]));
}

#[test]
fn a_host_of_the_server_itself_that_nothing_routes_is_not_misdirected() {
    let mesh = Mesh::new(&gateway(&(https("one", "x.example.com") + &https("two", "*.example.com"))));
    let one = mesh.resource(&router(), type_urls::ROUTE, "https.443.one.g.default");
    assert_eq!(virtual_host(&one, "blackhole:443")["domains"], json!(["x.example.com"]));
    assert_eq!(virtual_host(&one, "misdirected:443")["domains"], json!(["*.example.com"]));
}

#[test]
fn plain_servers_share_all_hosts_of_their_port() {
    let servers = "  - {port: {number: 80, name: one, protocol: HTTP}, hosts: [x.example.com]}\n  \
                   - {port: {number: 80, name: two, protocol: HTTP}, hosts: [y.example.com]}";
    let config =
        mesh(servers, &format!("hosts: [x.example.com], {TO_A}")).resource(&router(), type_urls::ROUTE, "http.80");
    assert_eq!(config["virtual_hosts"].as_array().unwrap().len(), 1);
}
