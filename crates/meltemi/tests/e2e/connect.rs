//! CONNECT: a tunnel that the proxy ends, by curl through our proxy and through Envoy under one configuration.

use crate::support::{Backend, Process, envoy, free_address, meltemi};
use serde_json::json;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

fn bootstrap(listen: SocketAddr, backend: SocketAddr) -> serde_json::Value {
    let at =
        |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    let any = |kind: &str, mut body: serde_json::Value| {
        body["@type"] = json!(format!("type.googleapis.com/{kind}"));
        body
    };
    let tunnel = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "tunnels",
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
                { "match": { "connect_matcher": {}, "headers": [{ "name": ":authority", "string_match": { "exact": "refused.example:80" } }] },
                  "direct_response": { "status": 403 } },
                { "match": { "connect_matcher": {} }, "route": { "cluster": "backend", "upgrade_configs": tunnel } },
                { "match": { "prefix": "/" }, "direct_response": { "status": 204 } },
            ] }] },
        }),
    );
    json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": at(listen), "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": manager }] }] }],
        "clusters": [{ "name": "backend", "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
            "cluster_name": "backend", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(backend) } }] }] } }],
    } })
}

fn a_tunnel_leads_to_the_backend(mut command: Command, name: &'static str, dir: &Path) {
    let (listen, backend) = (free_address(), Backend::start("behind"));
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, bootstrap(listen, backend.address).to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "-w", "\n%{http_connect} %{http_code}"]).args(arguments);
        let output = command.output().expect("curl");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let via = format!("http://{listen}");
    // Two requests over one tunnel, then a body that needs it to carry both ways.
    let two = curl(&["-p", "-x", &via, "http://far.example/one", "http://far.example/two"]);
    assert!(two.contains("GET /one") && two.contains("GET /two") && two.contains("200 200"), "{name}: {two}");
    let long = "x".repeat(100_000);
    let post = curl(&["-p", "-x", &via, "-d", &long, "http://far.example/long"]);
    assert!(
        post.contains("POST /long") && post.ends_with("200 200"),
        "{name}: {}",
        &post[post.len().saturating_sub(200)..]
    );
    let refused = curl(&["-p", "-x", &via, "http://refused.example/"]);
    assert!(refused.contains("403"), "{name}: {refused}");
    let plain = curl(&[&via]);
    assert!(plain.ends_with("000 204"), "{name}: {plain}");
}

#[test]
fn connect_is_terminated_as_envoy_does() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: no curl; scripts/install-test-deps.sh installs it");
    }
    let dir = tempfile::tempdir().expect("folder");
    let mut ours = meltemi();
    ours.arg("proxy");
    a_tunnel_leads_to_the_backend(ours, "ours", dir.path());
    match envoy() {
        Ok(envoy) => {
            let mut command = Command::new(envoy);
            command.args(["--log-level", "warning", "--use-dynamic-base-id"]);
            a_tunnel_leads_to_the_backend(command, "envoy", dir.path());
        }
        Err(reason) => println!("{reason}"),
    }
}
