//! A real Envoy as the judge of what we generate, where one is given by `MELTEMI_ENVOY`.

use std::process::Command;

use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, GrpcService, Node, api_config_source::ApiType, grpc_service,
};
use meltemi_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use meltemi_proto::envoy::config::route::v3::RouteConfiguration;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use meltemi_proto::{Any, json};
use meltemi_translate::simulation::http_connection_manager;

use super::mesh::Generated;

/// What Envoy says against the configuration; nothing where it accepts it.
pub fn refusal(generated: &Generated, name: &str) -> Option<String> {
    let envoy = std::env::var_os("MELTEMI_ENVOY")?;
    let file = std::env::temp_dir().join(format!("meltemi-simulation-{}-{name}.json", std::process::id()));
    std::fs::write(&file, json::to_value(&bootstrap(generated), json::Secrets::Shown).to_string()).unwrap();
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

fn bootstrap(generated: &Generated) -> Bootstrap {
    let mut clusters = generated.clusters.clone();
    for name in ["xds-grpc", "sds-grpc"] {
        clusters.push(Cluster { name: name.into(), connect_timeout: None, ..Cluster::default() });
    }
    let mut listeners = generated.listeners.clone();
    listeners
        .extend(generated.routes.iter().enumerate().map(|(index, route)| carrier(index, route, &generated.listeners)));
    Bootstrap {
        node: Some(Node {
            id: "sidecar~1.1.1.1~a.b~b.svc.cluster.local".into(),
            cluster: "c".into(),
            ..Node::default()
        }),
        static_resources: Some(StaticResources { clusters, listeners, ..StaticResources::default() }),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads()), ..DynamicResources::default() }),
        ..Bootstrap::default()
    }
}

fn ads() -> ApiConfigSource {
    let envoy = grpc_service::EnvoyGrpc { cluster_name: "xds-grpc".into(), ..Default::default() };
    ApiConfigSource {
        api_type: ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![GrpcService {
            target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    }
}

/// A listener that holds a route configuration inline, so that Envoy reads it too.
fn carrier(index: usize, route: &RouteConfiguration, listeners: &[Listener]) -> Listener {
    let manager = listeners.iter().flat_map(|l| &l.filter_chains).find_map(http_connection_manager);
    let mut manager = manager.unwrap_or_else(|| HttpConnectionManager {
        stat_prefix: "carrier".into(),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".into(),
            config_type: Some(http_filter::ConfigType::TypedConfig(Any::pack(
                &meltemi_proto::envoy::extensions::filters::http::router::v3::Router::default(),
            ))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    });
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(route.clone()));
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(filter::ConfigType::TypedConfig(Any::pack(&manager))),
    };
    let mut listener = Listener { name: format!("carrier-{index}"), ..Listener::default() };
    listener.address = Some(socket(u32::try_from(40000 + index).unwrap()));
    listener.filter_chains = vec![FilterChain { filters: vec![filter], ..FilterChain::default() }];
    listener
}

fn socket(port: u32) -> meltemi_proto::envoy::config::core::v3::Address {
    use meltemi_proto::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}
