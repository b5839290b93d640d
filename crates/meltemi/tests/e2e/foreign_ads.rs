//! Our proxy under a control plane that is not ours: an ADS server of PyPI's xds-protos, delta and state of the world.

use crate::control_plane::eventually;
use crate::support::{Backend, Process, cache, free_address, get, meltemi};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

fn python() -> Result<PathBuf, String> {
    let path = cache().join("venv/bin/python");
    if path.exists() {
        Ok(path)
    } else {
        Err("skipped: no xds-protos; scripts/install-test-deps.sh installs it".to_owned())
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// A listener with subscribed routes to a cluster with subscribed endpoints.
fn resources(listen: SocketAddr, backend: SocketAddr, prefix: &str) -> Vec<Value> {
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let prefix_of = |name: &str| format!("type.googleapis.com/envoy.{name}");
    vec![
        json!({ "@type": prefix_of("config.cluster.v3.Cluster"), "name": "shop", "type": "EDS", "connect_timeout": "1s",
            "eds_cluster_config": { "eds_config": ads, "service_name": "shop-service" } }),
        json!({ "@type": prefix_of("config.endpoint.v3.ClusterLoadAssignment"), "cluster_name": "shop-service",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(backend) } }] }] }),
        json!({ "@type": prefix_of("config.listener.v3.Listener"), "name": "web", "address": socket(listen), "filter_chains": [
            { "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": {
                "@type": prefix_of("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "web", "rds": { "route_config_name": "web-routes", "config_source": ads },
                "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                    "@type": prefix_of("extensions.filters.http.router.v3.Router") } }] } }] }] }),
        json!({ "@type": prefix_of("config.route.v3.RouteConfiguration"), "name": "web-routes", "virtual_hosts": [
            { "name": "all", "domains": ["*"], "routes": [{ "match": { "prefix": prefix }, "route": { "cluster": "shop" } }] }] }),
    ]
}

fn bootstrap(ads: SocketAddr, api_type: &str) -> Value {
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": { "id": "proxy-1", "cluster": "test" },
        "dynamic_resources": { "lds_config": source, "cds_config": source,
            "ads_config": { "api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "ads" } }] } },
        "static_resources": { "clusters": [{ "name": "ads", "type": "STATIC",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} } } },
            "load_assignment": { "cluster_name": "ads", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": socket(ads) } }] }] } }] },
    })
}

fn write(path: &Path, resources: &[Value]) {
    // Written beside and moved, so that the server never reads half of it.
    let part = path.with_extension("part");
    std::fs::write(&part, Value::Array(resources.to_vec()).to_string()).expect("write");
    std::fs::rename(part, path).expect("rename");
}

fn our_proxy_obeys(api_type: &str) -> Result<(), String> {
    let python = python()?;
    let dir = tempfile::tempdir().expect("folder");
    let (ads, listen) = (free_address(), free_address());
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let file = dir.path().join("resources.json");
    write(&file, &resources(listen, one.address, "/"));
    let mut command = Command::new(python);
    command.args([
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/peers.py"),
        "ads-server",
        &ads.port().to_string(),
    ]);
    command.arg(&file);
    let mut server = Process::start("ads-server", &mut command, dir.path());
    server.wait_listening(ads);
    let boot = dir.path().join("bootstrap.json");
    std::fs::write(&boot, bootstrap(ads, api_type).to_string()).expect("write");
    let mut command = meltemi();
    command.args(["proxy", "-c"]).arg(&boot).args(["--concurrency", "1"]);
    let mut proxy = Process::start("meltemi", &mut command, dir.path());
    proxy.wait_listening(listen);
    let served =
        |path: &str| get(listen, "any", path).map(|a| (a.status, a.text().lines().next().unwrap_or("").to_owned()));
    let expect = |path: &str, status: u16, text: &str| match served(path) {
        Ok((found, body)) if found == status && body.contains(text) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    eventually("the first answer", || expect("/a", 200, "backend one"));
    write(&file, &resources(listen, two.address, "/"));
    eventually("new endpoints", || expect("/a", 200, "backend two"));
    write(&file, &resources(listen, two.address, "/only"));
    eventually("new routes", || expect("/a", 404, ""));
    assert_eq!(served("/only").map(|(status, _)| status), Ok(200));
    // A field that nobody honours is refused by its path, and what was there goes on serving.
    let mut refused = resources(listen, one.address, "/only");
    refused[3]["virtual_hosts"][0]["routes"][0]["match"] = json!({ "path_match_policy": { "name": "unknown",
        "typed_config": { "@type": "type.googleapis.com/google.protobuf.Struct", "value": {} } } });
    write(&file, &refused);
    eventually("a rejection", || {
        let output = server.output();
        let nack = output.lines().find(|line| line.contains("RouteConfiguration NACK"));
        match nack {
            Some(line) if line.contains("path_match_policy") => Ok(()),
            other => Err(format!("{other:?} in {output}")),
        }
    });
    assert_eq!(served("/only").map(|(status, _)| status), Ok(200));
    Ok(())
}

#[test]
fn our_proxy_obeys_a_foreign_control_plane_on_delta_ads() {
    if let Err(reason) = our_proxy_obeys("DELTA_GRPC") {
        println!("{reason}");
    }
}

#[test]
fn our_proxy_obeys_a_foreign_control_plane_on_state_of_the_world_ads() {
    if let Err(reason) = our_proxy_obeys("GRPC") {
        println!("{reason}");
    }
}
