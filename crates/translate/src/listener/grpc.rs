//! Listeners of gRPC libraries that are their own proxy: one API listener for each `host:port` that a client dials, and those
//! of servers by the name that they ask for.

use std::sync::Arc;

use meltemi_model::{PersistentSession, Service};
use meltemi_proto::envoy::config::listener::v3::{ApiListener as ApiMessage, Listener as Message};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::{Input, filters, grpc_server, hcm};
use crate::names;
use crate::view::View;
use crate::wire;

/// One service port under the name by which the client asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiListener {
    pub name: Arc<str>,
    pub address: Arc<str>,
    pub port: u32,
    /// `host:port` of the route configuration, by full host name.
    pub route: Arc<str>,
    pub session: Option<PersistentSession>,
}

pub fn all(view: &View<'_>) -> Vec<(Arc<str>, Input)> {
    let services = view.scope.services.iter();
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port.number)));
    let listeners = ports.map(|(service, port)| {
        let name: Arc<str> = names::domain(&service.hostname, port).into();
        (name.clone(), Input::Api(api_listener(view, name, service, port)))
    });
    listeners.collect()
}

/// The named ones that exist, each under the name that was asked for: full, short, or without a port where the service has
/// one port only.
pub fn select(view: &View<'_>, wanted: &[Arc<str>]) -> Vec<(Arc<str>, Input)> {
    let input = |name: &Arc<str>| match names::grpc_server_address(name) {
        Some(_) => grpc_server::one(view, name).map(Input::Server),
        None => one(view, name).map(Input::Api),
    };
    wanted.iter().filter_map(|name| Some((name.clone(), input(name)?))).collect()
}

fn one(view: &View<'_>, name: &Arc<str>) -> Option<ApiListener> {
    let (host, port) = match names::host_and_port(name) {
        Some((host, port)) => (host, Some(port)),
        None => (&**name, None),
    };
    let service =
        crate::route::full_hosts(host, view.node).iter().find_map(|full| view.scope.service(full).cloned())?;
    let port = match port {
        Some(port) => service.port(port)?.number,
        None => match service.ports.as_slice() {
            [only] => only.number,
            _ => return None,
        },
    };
    Some(api_listener(view, name.clone(), &service, port))
}

fn api_listener(view: &View<'_>, name: Arc<str>, service: &Service, port: u32) -> ApiListener {
    let address = view.addresses(service).first().cloned().unwrap_or_else(|| "0.0.0.0".into());
    let route = names::domain(&service.hostname, port).into();
    ApiListener { name, address, port, route, session: view.session(service) }
}

pub fn render(spec: &ApiListener) -> Message {
    let sessions = spec.session.iter().map(filters::stateful_session_with);
    let manager = HttpConnectionManager {
        http_filters: sessions.chain([filters::fault(), filters::router(true)]).collect(),
        route_specifier: Some(RouteSpecifier::Rds(hcm::rds(&spec.route))),
        ..HttpConnectionManager::default()
    };
    Message {
        name: spec.name.to_string(),
        address: Some(wire::socket_address(&spec.address, spec.port)),
        api_listener: Some(ApiMessage { api_listener: Some(meltemi_proto::pack_http_connection_manager(&manager)) }),
        ..Message::default()
    }
}
