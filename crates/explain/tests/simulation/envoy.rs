//! A real Envoy as the judge of what we generate, where one is given by `MELTEMI_ENVOY`.

use std::process::Command;

use meltemi_explain::Sent;
use meltemi_proto::json::{Secrets, any_to_value};
use serde_json::{Value, json};

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// What Envoy says against the configuration; nothing where it accepts it.
pub fn refusal(sent: &Sent, name: &str) -> Option<String> {
    let envoy = std::env::var_os("MELTEMI_ENVOY")?;
    let file = std::env::temp_dir().join(format!("meltemi-simulation-{}-{name}.json", std::process::id()));
    std::fs::write(&file, bootstrap(sent).to_string()).unwrap();
    let output = Command::new(envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
    if output.status.success() {
        std::fs::remove_file(&file).unwrap();
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| line.contains("rror"))
        .collect::<Vec<_>>()
        .join(" | ");
    Some(format!("envoy refuses {}: {text}", file.display()))
}

fn bootstrap(sent: &Sent) -> Value {
    let shown = |body| {
        let mut value = any_to_value(body, Secrets::Shown);
        value.as_object_mut().unwrap().shift_remove("@type");
        value
    };
    let mut clusters: Vec<Value> = sent.clusters.iter().map(|cluster| shown(&cluster.body)).collect();
    clusters.extend(["xds-grpc", "sds-grpc"].map(|name| json!({"name": name})));
    let mut listeners: Vec<Value> = sent.listeners.iter().map(|listener| shown(&listener.body)).collect();
    let carried = sent.routes.iter().enumerate();
    let carriers: Vec<Value> = carried.map(|(index, routes)| carrier(index, shown(&routes.body), &listeners)).collect();
    listeners.extend(carriers);
    let ads = json!({"api_type": "GRPC", "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]});
    json!({
        "node": {"id": "sidecar~1.1.1.1~a.b~b.svc.cluster.local", "cluster": "c"},
        "static_resources": {"clusters": clusters, "listeners": listeners},
        "dynamic_resources": {"ads_config": ads},
    })
}

/// A listener that holds a route configuration inline, so that Envoy reads it too.
fn carrier(index: usize, routes: Value, listeners: &[Value]) -> Value {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let chains = listeners.iter().flat_map(|listener| list(&listener["filter_chains"]));
    let filter = chains.flat_map(|chain| list(&chain["filters"])).find(|filter| filter["name"] == MANAGER);
    let mut manager = filter.map_or_else(plain_manager, |filter| filter["typed_config"].clone());
    let fields = manager.as_object_mut().unwrap();
    fields.shift_remove("rds");
    fields.insert("route_config".into(), routes);
    json!({
        "name": format!("carrier-{index}"),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 40000 + index}},
        "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
    })
}

fn plain_manager() -> Value {
    let types = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "carrier",
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{types}.http.router.v3.Router")},
        }],
    })
}
