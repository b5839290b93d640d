use super::*;
use crate::world::{ActiveListener, ChainRuntime};
use meltemi_proto::envoy::config::listener::v3::Listener as Proto;
use serde_json::{Value, json};
use std::sync::Arc;

/// A world of one listener whose TCP proxy has these fields beside.
fn world(rest: Value) -> World {
    let mut proxy = json!({ "stat_prefix": "s", "cluster": "c",
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" });
    proxy.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    let document = json!({ "name": "l", "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": proxy }] }] });
    let plan = meltemi_plan::listener(&meltemi_proto::json::from_value::<Proto>(&document).unwrap()).unwrap();
    let chains = plan.chains.iter().map(|plan| ChainRuntime { plan: Arc::clone(plan), tls: None }).collect();
    let active = ActiveListener { plan: Arc::new(plan), chains, default_chain: None };
    let mut world = World::default();
    world.listeners.insert("l".into(), Arc::new(active));
    world
}

#[test]
fn calls_of_no_request_ask_for_clusters_where_connections_do() {
    let source = json!({ "odcds_config": { "resource_api_version": "V3", "ads": {} } });
    assert!(anything_waits(&world(json!({ "on_demand": source }))));
    assert!(!anything_waits(&world(json!({}))));
}
