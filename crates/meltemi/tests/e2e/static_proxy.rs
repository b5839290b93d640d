//! A proxy over a bootstrap file, ours or Envoy, with its admin port: what tests that hold both to the same have in common.

use crate::support::{Process, envoy, envoy_proxy, free_address, get, own_proxy};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy.
pub struct Proxy {
    pub process: Process,
    pub name: &'static str,
    admin: SocketAddr,
}

/// Runs a test with our proxy, and with Envoy where there is one.
pub fn with_both(test: impl Fn(&'static str, &Path)) {
    for name in ["ours", "envoy"] {
        let peer = if name == "envoy" { envoy().map(drop) } else { Ok(()) };
        if let Err(reason) = peer {
            println!("{reason}");
            continue;
        }
        let dir = tempfile::tempdir().expect("folder");
        test(name, dir.path());
    }
}

impl Proxy {
    /// Starts a proxy with these listeners and clusters, and waits until it serves.
    pub fn start(name: &'static str, dir: &Path, listeners: Value, clusters: Value) -> Self {
        Self::start_with(name, dir, listeners, clusters, json!({}))
    }

    /// The same, with these fields of the bootstrap beside.
    pub fn start_with(name: &'static str, dir: &Path, listeners: Value, clusters: Value, rest: Value) -> Self {
        let admin = free_address();
        let mut document = json!({
            "admin": { "address": address(admin) },
            "static_resources": { "listeners": listeners, "clusters": clusters },
        });
        let Value::Object(rest) = rest else { panic!("an object") };
        document.as_object_mut().expect("an object").extend(rest);
        let file = dir.join("bootstrap.json");
        std::fs::write(&file, document.to_string()).expect("write");
        let mut command = match envoy_proxy() {
            Ok(mut command) if name == "envoy" => {
                command.args(["--file-flush-interval-msec", "20"]);
                command
            }
            _ => own_proxy(),
        };
        command.arg("-c").arg(&file).args(["--concurrency", "1"]);
        let mut process = Process::start(name, &mut command, dir);
        process.wait_listening(admin);
        let proxy = Self { process, name, admin };
        proxy.until("ready", || match get(admin, "admin", "/ready") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        proxy
    }

    /// A statistic by Envoy's name; 0 where there is none yet.
    pub fn stat(&self, name: &str) -> u64 {
        let text = get(self.admin, "admin", "/stats").expect("statistics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(0, |value| value.trim().parse().expect("a number"))
    }

    /// Waits for a statistic to have a value.
    pub fn until_stat(&self, name: &str, expected: u64) {
        self.until(name, || match self.stat(name) {
            found if found == expected => Ok(()),
            found => Err(format!("{found}, not {expected}")),
        });
    }

    pub fn until(&self, what: &str, holds: impl Fn() -> Result<(), String>) {
        let end = Instant::now() + PATIENCE;
        while let Err(reason) = holds() {
            assert!(Instant::now() < end, "{}: {what}: {reason}\n{}", self.name, self.process.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn address(at: SocketAddr) -> Value {
    json!({ "socket_address": { "address": at.ip().to_string(), "port_value": at.port() } })
}

/// A message with its type.
pub fn any(kind: &str, mut body: Value) -> Value {
    body["@type"] = json!(format!("type.googleapis.com/envoy.{kind}"));
    body
}

/// A cluster of one host, with these fields beside.
pub fn cluster(name: &str, host: SocketAddr, rest: Value) -> Value {
    let mut cluster = json!({ "name": name, "connect_timeout": "5s", "load_assignment": { "cluster_name": name,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(host) } }] }] } });
    let Value::Object(rest) = rest else { panic!("an object") };
    cluster.as_object_mut().expect("an object").extend(rest);
    cluster
}

/// Routes by path prefix to clusters of the same name. Every response says its flags.
pub fn routes(clusters: &[&str]) -> Value {
    let route = |name: &&str| json!({ "match": { "prefix": format!("/{name}") }, "route": { "cluster": name } });
    let routes: Vec<Value> = clusters.iter().map(route).collect();
    let flags = json!([{ "header": { "key": "x-flags", "value": "%RESPONSE_FLAGS%" } }]);
    json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes, "response_headers_to_add": flags }] })
}

/// A listener with an HTTP connection manager, these filters in front of its router, and these fields beside.
pub fn http_listener(at: SocketAddr, filters: &[Value], rest: Value) -> Value {
    let router =
        json!({ "name": "router", "typed_config": any("extensions.filters.http.router.v3.Router", json!({})) });
    let filters: Vec<Value> = filters.iter().cloned().chain([router]).collect();
    let mut manager = any(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h", "http_filters": filters }),
    );
    let Value::Object(rest) = rest else { panic!("an object") };
    manager.as_object_mut().expect("an object").extend(rest);
    json!({ "name": at.to_string(), "address": address(at),
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] })
}

/// An access log of one line a request or connection, in a file.
pub fn access_log(file: &Path, format: &str) -> Value {
    let sink =
        json!({ "path": file, "log_format": { "text_format_source": { "inline_string": format!("{format}\n") } } });
    json!([{ "name": "log", "typed_config": any("extensions.access_loggers.file.v3.FileAccessLog", sink) }])
}
