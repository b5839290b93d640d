//! What a ResiliencePolicy sends, obeyed by our proxy and by Envoy under one configuration: retries by method, and the first
//! load balancing policy of the list that is known. And anomaly detection, which is our proxy's own.

use crate::support::{Process, any, free_address, meltemi, proxies};
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A host that answers everything with one status, and counts.
fn host(status: &'static str) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    let count = Arc::new(AtomicU32::new(0));
    let served = count.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            served.fetch_add(1, Relaxed);
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (address, count)
}

fn bootstrap(listen: SocketAddr, host: SocketAddr) -> Value {
    let at =
        |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    let route = |methods: Option<&str>, on: &str| {
        let by_method =
            |regex: &str| json!({ "name": ":method", "string_match": { "safe_regex": { "regex": regex } } });
        let headers: Vec<Value> = methods.map(by_method).into_iter().collect();
        let retries = json!({ "retry_on": on, "num_retries": 2, "retry_back_off": { "base_interval": "0.001s" } });
        json!({ "match": { "prefix": "/", "headers": headers }, "route": { "cluster": "c", "retry_policy": retries } })
    };
    let routes = [
        route(
            Some("GET|HEAD|OPTIONS|TRACE|PUT|DELETE"),
            "gateway-error,reset,reset-before-request,connect-failure,refused-stream",
        ),
        route(None, "reset-before-request,connect-failure,refused-stream"),
    ];
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h",
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] } }),
    );
    let balancer = |name: &str, version: &str, message: &str, body: Value| {
        let kind = format!("envoy.extensions.load_balancing_policies.{name}.{version}.{message}");
        let config =
            json!({ "name": format!("envoy.load_balancing_policies.{name}"), "typed_config": any(&kind, body) });
        json!({ "typed_extension_config": config })
    };
    let policies = [
        balancer("peak_ewma", "v3alpha", "PeakEwma", json!({ "decay_time": "10s" })),
        balancer("least_request", "v3", "LeastRequest", json!({})),
    ];
    let budget = json!({ "budget_percent": { "value": 20.0 }, "min_retry_concurrency": 3 });
    json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": at(listen), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": manager }] }] }],
        "clusters": [{ "name": "c", "type": "STATIC", "connect_timeout": "1s",
            "circuit_breakers": { "thresholds": [{ "retry_budget": budget }] },
            "load_balancing_policy": { "policies": policies },
            "load_assignment": { "cluster_name": "c",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(host) } }] }] } }],
    } })
}

fn only_what_is_safe_is_repeated(mut command: Command, name: &'static str, dir: &Path) {
    let listen = free_address();
    let (host, served) = host("503");
    let document = bootstrap(listen, host);
    let file = match name {
        // Envoy does not read a type that it does not have from JSON; a control plane sends bytes.
        "envoy" => {
            let bootstrap: Bootstrap = meltemi_proto::json::from_value(&document).expect("a bootstrap");
            let file = dir.join("envoy.pb");
            std::fs::write(&file, meltemi_proto::encode(&bootstrap)).expect("write");
            file
        }
        _ => {
            let file = dir.join("ours.json");
            std::fs::write(&file, document.to_string()).expect("write");
            file
        }
    };
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    for (method, attempts) in [("GET", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)] {
        let before = served.load(Relaxed);
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", "-X", method]);
        let answered = curl.arg(format!("http://{listen}/")).output().expect("curl").stdout;
        assert_eq!(String::from_utf8_lossy(&answered), "503", "{name} {method}");
        assert_eq!(served.load(Relaxed) - before, attempts, "{name} {method}");
    }
}

#[test]
fn envoy_and_our_proxy_repeat_the_same_and_balance_by_what_they_know() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: no curl; scripts/install-test-deps.sh installs it");
    }
    let dir = tempfile::tempdir().expect("folder");
    proxies().into_iter().for_each(|(name, command)| only_what_is_safe_is_repeated(command, name, dir.path()));
}

/// A watched cluster of these hosts behind one route, with an admin port.
fn watched(listen: SocketAddr, admin: SocketAddr, hosts: &[SocketAddr]) -> Value {
    let mut document = bootstrap(listen, hosts[0]);
    let at =
        |address: &SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    document["admin"] = json!({ "address": at(&admin) });
    let cluster = &mut document["static_resources"]["clusters"][0];
    let asked = json!({ "sensitivity": "medium", "eject": "true", "policy": "shop/calm" });
    cluster["metadata"] = json!({ "filter_metadata": { "meltemi.anomaly_detection": asked } });
    cluster.as_object_mut().expect("an object").remove("load_balancing_policy");
    let endpoints: Vec<Value> = hosts.iter().map(|host| json!({ "endpoint": { "address": at(host) } })).collect();
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = json!(endpoints);
    let manager = &mut document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    manager["route_config"]["virtual_hosts"][0]["routes"] =
        json!([{ "match": { "prefix": "/" }, "route": { "cluster": "c" } }]);
    document
}

fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-s", "--max-time", "20"]).args(arguments).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_endpoint_that_fails_unlike_its_peers_is_told_of_and_ejected() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: no curl; scripts/install-test-deps.sh installs it");
    }
    let dir = tempfile::tempdir().expect("folder");
    let (listen, admin) = (free_address(), free_address());
    let hosts = ["200", "200", "200", "500", "200"].map(host);
    let addresses = hosts.each_ref().map(|(address, _)| *address);
    let file = dir.path().join("watched.json");
    std::fs::write(&file, watched(listen, admin, &addresses).to_string()).expect("write");
    let mut command = meltemi();
    command.arg("proxy").arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start("watched", &mut command, dir.path());
    proxy.wait_listening(listen);
    let requests = format!("http://{listen}/?n=[1-100]");
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = loop {
        curl(&["-o", "/dev/null", &requests]);
        let found: Value = serde_json::from_str(&curl(&[&format!("http://{admin}/anomalies")])).expect("JSON");
        if found["conditions"][0]["status"] == "True" {
            break found;
        }
        assert!(Instant::now() < deadline, "{found}");
    };
    let [condition] = &found["conditions"].as_array().expect("a list")[..] else { panic!("{found}") };
    let entity = json!({ "cluster": "c", "endpoint": addresses[3].to_string() });
    assert_eq!((&condition["entity"], &condition["policy"]), (&entity, &json!("shop/calm")));
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Anomalous"), &json!("ErrorsAboveNormal")));
    assert!(condition["message"].as_str().is_some_and(|text| text.starts_with("100.0 % of requests fail")), "{found}");
    let before = hosts[3].1.load(Relaxed);
    let statuses = curl(&["-o", "/dev/null", "-w", "%{http_code}\n", &requests]);
    assert_eq!(statuses.matches("200").count(), 100, "{statuses}");
    assert_eq!(hosts[3].1.load(Relaxed), before, "it is ejected");
    let stats = curl(&[&format!("http://{admin}/stats?filter=cluster.c.anomaly_detection")]);
    for line in ["anomalous_endpoints: 1", "began_errors: 1", "ejections: 1"] {
        assert!(stats.contains(&format!("cluster.c.anomaly_detection.{line}")), "{stats}");
    }
}
