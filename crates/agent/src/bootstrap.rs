//! Envoy bootstraps, written as JSON: the whole one that a supervised Envoy reads, with Istio's static resource names.

use crate::environment::{Role, Settings};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Linux's numbers for `setsockopt`, which Envoy takes as they are.
const SOL_SOCKET: u32 = 1;
const SO_MARK: u32 = 36;

const LOCAL_CLUSTER: &str = "local_cluster";

/// The Unix sockets that Envoy finds its control plane and its secrets on.
#[derive(Clone, Debug)]
pub struct Sockets {
    pub xds: PathBuf,
    pub sds: PathBuf,
}

impl Sockets {
    pub fn below(directory: &Path) -> Self {
        Self { xds: directory.join("XDS"), sds: directory.join("SDS") }
    }
}

/// `envoy.config.core.v3.Node` in JSON.
pub fn node(settings: &Settings) -> Value {
    let mut node = json!({
        "id": settings.node_id(),
        "cluster": settings.node_cluster(),
        "metadata": settings.metadata,
    });
    if let Some(locality) = &settings.locality {
        let mut parts = locality.splitn(3, '/');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        node["locality"] = json!({ "region": part(), "zone": part(), "sub_zone": part() });
    }
    node
}

/// Istio ends a cluster's name in statistics so that names with dots can be told from what follows.
fn stat_name(cluster: &str) -> String {
    format!("{cluster};")
}

/// Istio's label of a cluster, and Envoy's own tags but that of clusters, which ends at the first dot.
fn stats_tags() -> Value {
    let own = [
        "envoy.response_code",
        "envoy.response_code_class",
        "envoy.http_conn_manager_prefix",
        "envoy.listener_address",
        "envoy.tcp_prefix",
        "envoy.virtual_host",
        "envoy.virtual_cluster",
        "envoy.worker_id",
        "envoy.grpc_bridge_service",
        "envoy.grpc_bridge_method",
        "envoy.http_user_agent",
        "envoy.ssl_cipher",
        "envoy.rds_route_config",
    ];
    let cluster = json!({ "tag_name": "cluster_name", "regex": "^cluster\\.((.*?);\\.)" });
    own.iter().map(|name| json!({ "tag_name": name })).chain([cluster]).collect()
}

fn pipe_cluster(name: &str, path: &Path) -> Value {
    json!({
        "name": name,
        "alt_stat_name": stat_name(name),
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": path } } } }] }],
        },
    })
}

fn loopback_cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name,
        "alt_stat_name": stat_name(name),
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address("127.0.0.1", port) } }] }],
        },
    })
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": address, "port_value": port } })
}

/// The proxy's own workload, by which it balances over zones; `None` unless `ISTIO_META_ENABLE_SELF_DISCOVERY` is set.
fn local_cluster(settings: &Settings) -> Option<Value> {
    let enabled = settings.metadata.get("ENABLE_SELF_DISCOVERY").and_then(Value::as_str);
    if !enabled.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1") {
        return None;
    }
    Some(json!({
        "name": LOCAL_CLUSTER,
        "alt_stat_name": stat_name(LOCAL_CLUSTER),
        "type": "EDS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": { "zone_aware_lb_config": { "min_cluster_size": "1" } },
        "eds_cluster_config": {
            "eds_config": { "ads": {}, "resource_api_version": "V3" },
            "service_name": LOCAL_CLUSTER,
        },
    }))
}

/// A listener that passes one path to one cluster, as Istio's bootstrap has them for metrics and readiness.
fn path_listener(port: u16, path: &str, cluster: &str) -> Value {
    json!({
        "address": socket_address("0.0.0.0", port),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "agent",
                "route_config": { "virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": path }, "route": { "cluster": cluster } }],
                }] },
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }] }],
    })
}

/// The bootstrap of an Envoy that this agent supervises.
pub fn envoy(settings: &Settings, sockets: &Sockets) -> Value {
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    let mut node = node(settings);
    // A stock Envoy has none of Istio's filters; discovery chooses the dialect by this key.
    node["metadata"]["DIALECT"] = json!("envoy");
    let mut bootstrap = json!({
        "node": node,
        "admin": { "address": socket_address("127.0.0.1", settings.admin_port) },
        "stats_config": { "use_all_default_tags": false, "stats_tags": stats_tags() },
        "layered_runtime": { "layers": [
            { "name": "global config", "static_layer": {
                "overload.global_downstream_max_connections": "2147483647",
                "re2.max_program_size.error_level": "32768",
            } },
            { "name": "admin", "admin_layer": {} },
        ] },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": {
            "clusters": [
                loopback_cluster("prometheus_stats", settings.admin_port),
                loopback_cluster("agent", settings.status_port),
                pipe_cluster("sds-grpc", &sockets.sds),
                pipe_cluster("xds-grpc", &sockets.xds),
            ],
            "listeners": [
                path_listener(settings.prometheus_port, "/stats/prometheus", "prometheus_stats"),
                path_listener(settings.readiness_port, "/healthz/ready", "agent"),
            ],
        },
    });
    if let Some(mark) = settings.socket_mark {
        bootstrap["cluster_manager"] = json!({ "upstream_bind_config": { "socket_options": [{
            "description": "keeps what Envoy itself connects to out of capture",
            "level": SOL_SOCKET,
            "name": SO_MARK,
            "int_value": mark,
            "state": "STATE_PREBIND",
        }] } });
    }
    add_local_cluster(&mut bootstrap, settings);
    bootstrap
}

fn add_local_cluster(bootstrap: &mut Value, settings: &Settings) {
    let Some(cluster) = local_cluster(settings) else { return };
    bootstrap["cluster_manager"]["local_cluster_name"] = json!(LOCAL_CLUSTER);
    match &mut bootstrap["static_resources"]["clusters"] {
        Value::Array(clusters) => clusters.push(cluster),
        absent => *absent = json!([cluster]),
    }
}

/// The bootstrap of our own proxy: the node, the admin port and ADS, and nothing that it would have to say it takes no notice of. Its secrets, readiness and metrics come from the agent
/// in the same process, not from static resources.
pub fn own(settings: &Settings) -> Value {
    let ads = json!({ "ads": {} });
    let mut node = node(settings);
    node["metadata"]["DIALECT"] = json!("istio-proxy");
    // It asks for hosts and clusters when traffic first needs them, unless `ISTIO_META_ON_DEMAND` says otherwise.
    if settings.role == Role::Sidecar && settings.metadata.get("ON_DEMAND").is_none() {
        node["metadata"]["ON_DEMAND"] = json!("true");
    }
    let mut bootstrap = json!({
        "node": node,
        "admin": { "address": socket_address("127.0.0.1", settings.admin_port) },
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
    });
    add_local_cluster(&mut bootstrap, settings);
    bootstrap
}

#[cfg(test)]
mod tests;
