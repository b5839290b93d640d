//! Foreign clients through our proxy: curl, wrk and h2load.

use crate::support::{Backend, Process, free_address, meltemi};
use serde_json::json;
use std::net::SocketAddr;
use std::process::Command;

/// Our proxy in front of a backend, HTTP/1 and HTTP/2 on one port.
fn start(dir: &std::path::Path, backend: SocketAddr) -> (Process, SocketAddr) {
    let listen = free_address();
    let socket = |a: SocketAddr| json!({ "socket_address": { "address": a.ip().to_string(), "port_value": a.port() } });
    let config = json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": socket(listen), "filter_chains": [{ "filters": [
            { "name": "envoy.filters.network.http_connection_manager", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "l", "codec_type": "AUTO",
                "route_config": { "virtual_hosts": [{ "name": "v", "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "b" } }] }] },
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }] } }] }] }],
        "clusters": [{ "name": "b", "type": "STATIC", "load_assignment": { "cluster_name": "b",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(backend) } }] }] } }],
    } });
    let file = dir.join("config.json");
    std::fs::write(&file, config.to_string()).expect("write");
    let mut command = meltemi();
    command.args(["proxy", "-c"]).arg(&file).args(["--concurrency", "1"]);
    let mut process = Process::start("meltemi", &mut command, dir);
    process.wait_listening(listen);
    (process, listen)
}

/// The tool's output, or None where the machine does not have it.
fn run(tool: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            println!("skipped: no {tool}; scripts/install-test-deps.sh installs it");
            None
        }
    }
}

#[test]
fn curl_wrk_and_h2load_are_served_without_an_error() {
    let dir = tempfile::tempdir().expect("folder");
    let backend = Backend::start("b");
    let (proxy, address) = start(dir.path(), backend.address);
    let url = format!("http://{address}/");
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let written = ["-s", "-o", "/dev/null", "-w", "%{http_code}", version, &url];
        if let Some(status) = run("curl", &written) {
            // As Envoy: HTTP/1.0 is not served unless the listener says so.
            let expected = if version == "--http1.0" { "426" } else { "200" };
            assert_eq!(status, expected, "curl {version}\n{}", proxy.output());
        }
    }
    if let Some(output) = run("wrk", &["-t1", "-c8", "-d1s", &url]) {
        assert!(output.contains("requests in"), "{output}");
        assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
    }
    if let Some(output) = run("h2load", &["-n2000", "-c4", "-m10", &url]) {
        assert!(output.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{output}");
    }
}
