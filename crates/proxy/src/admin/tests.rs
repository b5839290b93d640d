use crate::boot::AdminPort;
use crate::{Options, Proxy};
use meltemi_plan::Address;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One listener with a route of its own to one cluster, and a certificate that no context names.
fn bootstrap() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let tls = json!({ "certificate_chain": { "inline_string": certificate.pem() },
        "private_key": { "inline_string": key.serialize_pem() } });
    json!({
        "layered_runtime": { "layers": [{ "name": "base", "static_layer": { "a": { "b": 1 } } }] },
        "static_resources": {
            "clusters": [{ "name": "c", "connect_timeout": "1s", "load_assignment": { "cluster_name": "c", "endpoints": [
                { "lb_endpoints": [{ "endpoint": { "address": address(1) } }] }] } }],
            "secrets": [{ "name": "own", "tls_certificate": tls }],
            "listeners": [{ "name": "l", "address": address(0), "filter_chains": [{
                "transport_socket": { "name": "tls", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "common_tls_context": { "tls_certificates": [tls.clone()],
                        "validation_context": { "trusted_ca": { "inline_string": certificate.pem() } } } } },
                "filters": [{ "name": "hcm", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "s",
                    "http_filters": [{ "name": "r", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
                    "route_config": { "name": "inline", "virtual_hosts": [{ "name": "v", "domains": ["*"], "routes": [
                        { "match": { "prefix": "/" }, "route": { "cluster": "c" } }] }] },
                } }],
            }] }],
        },
    })
}

/// The admin port of a proxy that does not run.
struct Fixture(String);

impl Fixture {
    async fn new() -> Self {
        let proxy = Proxy::new(Options::new(&from_value::<Bootstrap>(&bootstrap()).unwrap()).unwrap()).unwrap();
        let state = proxy.state();
        let port = AdminPort::bind(&Address::Socket(([127, 0, 0, 1], 0).into())).await.unwrap();
        let address = port.address();
        tokio::spawn(port.serve(state));
        Self(address)
    }

    /// Head and body of the answer.
    async fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.0).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.ask(&format!("GET {path}")).await.1).unwrap()
    }

    async fn check(&self, request: &str, status: u16, text: &str) {
        let (head, body) = self.ask(request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert!(body.contains(text), "{request}: {body}");
    }
}

#[tokio::test]
async fn who_asks_for_what_there_is_not_is_told_what_there_is() {
    let admin = Fixture::new().await;
    admin.check("GET /bogus", 404, "invalid path. admin commands are:\n").await;
    admin.check("GET /reset_counters", 405, "Method GET not allowed, POST required.").await;
    admin.check("GET /help", 200, "  /reopen_logs (POST): ").await;
    admin.check("POST /help", 200, "admin commands are:\n").await;
    let (head, _) = admin.ask("GET /help").await;
    for line in ["cache-control: no-cache, max-age=0", "x-content-type-options: nosniff", "server: envoy"] {
        assert!(head.contains(line), "{head}");
    }
}

#[tokio::test]
async fn commands_about_the_process() {
    let admin = Fixture::new().await;
    admin.check("GET /hot_restart_version", 200, "disabled").await;
    admin.check("POST /runtime_modify?a=b", 503, "No admin layer specified").await;
    admin.check("POST /cpuprofiler?enable=y", 501, "profiler").await;
    admin.check("POST /reset_counters", 200, "OK").await;
    admin.check("POST /reopen_logs", 200, "OK").await;
    admin.check("GET /init_dump", 200, "{}").await;
    assert_eq!(admin.json("/runtime").await["entries"]["a.b"]["final_value"], "1");
    assert!(admin.json("/memory").await["heap_size"].as_str().unwrap().parse::<u64>().unwrap() > 0);
}

#[tokio::test]
async fn statistics_by_kind_and_wrong_questions() {
    let admin = Fixture::new().await;
    admin.check("GET /stats?type=Gauges&filter=membership", 200, "cluster.c.membership_total: 1\n").await;
    let (_, counters) = admin.ask("GET /stats?type=Counters&filter=membership").await;
    assert_eq!(counters, "cluster.c.membership_change: 1\n");
    let (_, used) = admin.ask("GET /stats?usedonly&filter=membership_degraded").await;
    assert_eq!(used, "cluster.c.membership_degraded: 0\n");
    admin
        .check("GET /stats?filter=%5Ecluster.c.membership_total&invert_filter", 200, "cluster.c.membership_change")
        .await;
    admin.check("GET /stats?format=bogus", 400, "usage: /stats?format=").await;
    admin.check("GET /stats?type=bogus", 400, "usage: /stats?type=").await;
    admin.check("GET /stats?filter=(", 400, "filter").await;
}

#[tokio::test]
async fn clusters_are_filtered_and_told_whole() {
    let admin = Fixture::new().await;
    for line in ["c::added_via_api::false\n", "c::127.0.0.1:1::canary::false\n", "c::127.0.0.1:1::success_rate::-1\n"] {
        admin.check("GET /clusters", 200, line).await;
    }
    assert_eq!(admin.ask("GET /clusters?filter=other").await.1, "");
    admin.check("GET /clusters?filter=(", 400, "filter").await;
}

#[tokio::test]
async fn static_resources_are_dumped_whole() {
    let admin = Fixture::new().await;
    let dump = admin.json("/config_dump?include_eds").await;
    let section = |name: &str| {
        let kind = format!("type.googleapis.com/envoy.admin.v3.{name}");
        dump["configs"].as_array().unwrap().iter().find(|section| section["@type"] == kind).unwrap()
    };
    let cluster = &section("ClustersConfigDump")["static_clusters"][0];
    assert_eq!(cluster["cluster"]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert_eq!(cluster["cluster"]["connect_timeout"], "1s");
    assert!(cluster["last_updated"].is_string());
    let listener = &section("ListenersConfigDump")["static_listeners"][0]["listener"];
    assert_eq!(listener["filter_chains"][0]["filters"][0]["name"], "hcm");
    let routes = &section("RoutesConfigDump")["static_route_configs"][0]["route_config"];
    assert_eq!(routes["@type"], "type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    assert_eq!(routes["virtual_hosts"][0]["name"], "v");
    let endpoints = &section("EndpointsConfigDump")["static_endpoint_configs"][0]["endpoint_config"];
    assert_eq!(endpoints["cluster_name"], "c");
    let secrets = section("SecretsConfigDump");
    let secret = &secrets["static_secrets"][0];
    assert_eq!(secret["name"], "own");
    assert!(secret["secret"]["tls_certificate"]["certificate_chain"]["inline_string"].is_string());
    assert_eq!(secret["secret"]["tls_certificate"]["private_key"]["inline_string"], "[redacted]");
    assert_eq!(secrets["dynamic_active_secrets"], json!([]));
    assert!(!dump.to_string().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn a_dump_is_cut_by_resource_name_and_mask() {
    let admin = Fixture::new().await;
    let expected = json!({ "configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump.StaticListener",
        "listener": { "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "l" },
    }] });
    assert_eq!(admin.json("/config_dump?resource=static_listeners&mask=listener.name").await, expected);
    let named = admin.json("/config_dump?name_regex=nothing").await;
    assert_eq!(named["configs"][1]["static_clusters"], json!([]));
    admin.check("GET /config_dump?resource=bogus", 404, "bogus not found in config dump").await;
    admin.check("GET /config_dump?mask=bogus", 400, "FieldMask bogus could not be").await;
    admin.check("GET /config_dump?name_regex=(", 400, "name_regex").await;
}

#[tokio::test]
async fn certificates_of_contexts_are_told_with_their_roots() {
    let admin = Fixture::new().await;
    let certificates = admin.json("/certs").await;
    let [context] = &certificates["certificates"].as_array().unwrap()[..] else { panic!("{certificates}") };
    for list in ["cert_chain", "ca_cert"] {
        let details = &context[list][0];
        assert_eq!(details["path"], "<inline>", "{list}");
        assert_eq!(details["subject_alt_names"], json!([{ "dns": "a.example" }]));
        for time in ["valid_from", "expiration_time"] {
            assert!(details[time].as_str().unwrap().ends_with("00:00:00Z"), "{details}");
        }
        assert!(details["days_until_expiration"].is_string());
        assert!(!details["serial_number"].as_str().unwrap().is_empty());
    }
}
