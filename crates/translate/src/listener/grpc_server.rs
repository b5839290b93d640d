//! Listeners of gRPC libraries that serve without a proxy: who may connect, and what RBAC each call must pass.
//!
//! A library knows one way to serve at a time, so a permissive port is mutual TLS where clients will choose that (the workload says
//! so with a label) and plaintext elsewhere.

use std::sync::Arc;

use meltemi_model::{MtlsMode, Shared};
use meltemi_proto::envoy::config::listener::v3::{FilterChain, Listener as Message};
use meltemi_proto::envoy::config::route::v3::route::Action;
use meltemi_proto::envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_proto::envoy::config::route::v3::{
    NonForwardingAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::filters;
use crate::cluster::grpc_server_tls;
use crate::names;
use crate::security::Security;
use crate::view::View;
use crate::wire;

/// On a workload: clients that decide by themselves will speak mutual TLS to it.
const TLS_MODE: &str = "security.istio.io/tlsMode";

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerListener {
    pub name: Arc<str>,
    address: String,
    port: u32,
    mutual_tls: bool,
    security: Shared<Security>,
}

/// The server of that name, at a port on which the workload serves something of the mesh.
pub fn one(view: &View<'_>, name: &Arc<str>) -> Option<ServerListener> {
    let (address, port) = names::host_and_port(names::grpc_server_address(name)?)?;
    let targets = view.snapshot.service_targets(view.node);
    targets.iter().find(|target| target.target_port == port)?;
    let mode = view.snapshot.mtls_policy(view.node).mode_of(port);
    let expected = view.node.labels.get(TLS_MODE).is_some_and(|mode| &**mode == "istio");
    Some(ServerListener {
        name: name.clone(),
        address: address.to_owned(),
        port,
        mutual_tls: mode == MtlsMode::Strict || mode == MtlsMode::Permissive && expected,
        security: view.security(),
    })
}

pub fn render(spec: &ServerListener) -> Message {
    let mut http_filters = spec.security.proxyless_filters();
    http_filters.push(filters::router(true));
    let manager = HttpConnectionManager {
        http_filters,
        route_specifier: Some(RouteSpecifier::RouteConfig(served_here())),
        ..HttpConnectionManager::default()
    };
    let suffix = if spec.mutual_tls { "mtls" } else { "plaintext" };
    // Neither listener filters nor matches of chains: a library refuses what it does not know.
    Message {
        name: spec.name.to_string(),
        address: Some(wire::socket_address(&spec.address, spec.port)),
        filter_chains: vec![FilterChain {
            name: format!("inbound-{suffix}"),
            filters: vec![filters::network_filter(filters::HTTP_CONNECTION_MANAGER, &manager)],
            transport_socket: spec.mutual_tls.then(grpc_server_tls),
            ..FilterChain::default()
        }],
        ..Message::default()
    }
}

/// Every call is the application's own.
fn served_here() -> RouteConfiguration {
    let route = Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }),
        action: Some(Action::NonForwardingAction(NonForwardingAction {})),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "inbound".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    RouteConfiguration { name: "inbound".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}
