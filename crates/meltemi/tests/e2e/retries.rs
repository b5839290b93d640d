//! Retries in other priorities, by our proxy and by Envoy under one configuration.

use crate::support::{Process, answering, any, free_address, proxies};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

fn bootstrap(listen: SocketAddr, hosts: [SocketAddr; 3]) -> Value {
    let at =
        |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    let previous = any(
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        json!({ "update_frequency": 1 }),
    );
    let route = |prefix: &str, retries: u32, elsewhere: bool| {
        let mut policy =
            json!({ "retry_on": "5xx", "num_retries": retries, "retry_back_off": { "base_interval": "0.001s" } });
        if elsewhere {
            policy["retry_priority"] =
                json!({ "name": "envoy.retry_priorities.previous_priorities", "typed_config": previous });
        }
        json!({ "match": { "prefix": prefix }, "route": { "cluster": "c", "retry_policy": policy } })
    };
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h",
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
                "routes": [route("/once", 1, true), route("/twice", 2, true), route("/there", 2, false)] }] } }),
    );
    let localities: Vec<Value> = hosts
        .iter()
        .enumerate()
        .map(|(priority, host)| {
            json!({ "priority": priority, "locality": { "zone": priority.to_string() }, "lb_endpoints": [{ "endpoint": { "address": at(*host) } }] })
        })
        .collect();
    json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": at(listen), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": manager }] }] }],
        "clusters": [{ "name": "c", "type": "STATIC", "connect_timeout": "1s",
            "load_assignment": { "cluster_name": "c", "endpoints": localities } }],
    } })
}

fn a_retry_goes_to_another_priority(mut command: Command, name: &'static str, dir: &Path) {
    let listen = free_address();
    // One whose port is closed, one that fails, one that answers.
    let document = bootstrap(listen, [free_address(), answering(503), answering(204)]);
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, document.to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    for _ in 0..5 {
        for (path, status) in [("once", "503"), ("twice", "204"), ("there", "503")] {
            let mut curl = Command::new("curl");
            curl.args([
                "-s",
                "--max-time",
                "10",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                &format!("http://{listen}/{path}"),
            ]);
            let answered = curl.output().expect("curl").stdout;
            assert_eq!(String::from_utf8_lossy(&answered), status, "{name} {path}");
        }
    }
}

#[test]
fn a_retry_goes_to_another_priority_as_envoys_do() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: no curl; scripts/install-test-deps.sh installs it");
    }
    let dir = tempfile::tempdir().expect("folder");
    proxies().into_iter().for_each(|(name, command)| a_retry_goes_to_another_priority(command, name, dir.path()));
}
