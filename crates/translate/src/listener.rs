//! Listeners: what a proxy accepts connections on, and which filter chain takes each.
//!
//! Owns the decisions ([`spec`]) and their rendering. The decisions are the generator's input; rendering sees nothing else.

mod access_log;
mod filters;
mod grpc;
mod grpc_server;
mod hcm;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod render;
mod server_tls;
pub(crate) mod spec;
pub(crate) mod tcp;
mod tls;
mod tracing;

use std::sync::Arc;

use meltemi_model::{Node, NodeKind, Snapshot};
use meltemi_proto::Any;

use crate::dialect::Dialect;
use crate::gateway;
use crate::generator::Generator;
use crate::view::View;

pub(crate) use access_log::grpc_service;
pub(crate) use filters::{
    CORS as CORS_FILTER, FAULT as FAULT_FILTER, STATEFUL_SESSION as SESSION_FILTER, http_filter, network_filter,
    stateful_session_of,
};
pub(crate) use server_tls::server_tls;
pub(crate) use spec::{InboundRoute, Origin, TlsVersion};

/// What the HTTP inspector finds in plaintext. HTTP/1.0 is not among them: refusing it would be all that HTTP could do with
/// it, and as TCP it passes.
pub(crate) const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Ports of a sidecar's agent and of its statistics, on all addresses.
pub(crate) const AGENT_PORTS: [u32; 2] = [15021, 15090];

/// Where captured connections come; one that goes there by itself would go there for ever.
pub(crate) fn is_capture_port(view: &View<'_>, port: u32) -> bool {
    let mesh = &view.snapshot.mesh;
    [mesh.proxy_listen_port, mesh.proxy_inbound_listen_port].iter().any(|own| u32::try_from(*own) == Ok(port))
}

/// A proxy without privileges cannot bind the port.
pub(crate) fn is_forbidden(node: &Node, port: u32) -> bool {
    node.text("UNPRIVILEGED_POD") == Some("true") && (1..1024).contains(&port)
}

/// LDS.
pub struct Listeners;

/// What one listener is made from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    Proxy(Box<spec::Listener>),
    Api(grpc::ApiListener),
    Server(grpc_server::ServerListener),
}

impl Generator for Listeners {
    type Input = Input;

    fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
        Self::all(snapshot, node).into_iter().map(|(name, _)| name).collect()
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<Input> {
        let wanted = [Arc::from(name)];
        Self::select(snapshot, node, &wanted).pop().map(|(_, input)| input)
    }

    fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, Input)> {
        let view = View::new(snapshot, node);
        if view.profile.dialect == Dialect::Grpc {
            return grpc::all(&view);
        }
        of_proxy(&view).into_iter().map(|listener| (listener.name.clone(), Input::Proxy(Box::new(listener)))).collect()
    }

    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, Input)> {
        let view = View::new(snapshot, node);
        if view.profile.dialect == Dialect::Grpc {
            return grpc::select(&view, names);
        }
        let wanted = of_proxy(&view).into_iter().filter(|listener| names.contains(&listener.name));
        wanted.map(|listener| (listener.name.clone(), Input::Proxy(Box::new(listener)))).collect()
    }

    fn build(input: &Input) -> Any {
        meltemi_proto::pack_listener(&match input {
            Input::Proxy(spec) => render::listener(spec),
            Input::Api(spec) => grpc::render(spec),
            Input::Server(spec) => grpc_server::render(spec),
        })
    }
}

/// A sidecar's outbound listeners: those that replicas of a workload share.
pub(crate) struct Outbound;

/// A sidecar's inbound listeners.
pub(crate) struct Inbound;

macro_rules! side {
    ($side:ident, $module:ident) => {
        impl Generator for $side {
            type Input = Input;

            fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
                Self::all(snapshot, node).into_iter().map(|(name, _)| name).collect()
            }

            fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<Input> {
                Self::all(snapshot, node).into_iter().find(|(own, _)| **own == *name).map(|(_, input)| input)
            }

            fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, Input)> {
                let listeners = $module::listeners(&View::new(snapshot, node)).into_iter();
                listeners.map(|listener| (listener.name.clone(), Input::Proxy(Box::new(listener)))).collect()
            }

            fn build(input: &Input) -> Any {
                Listeners::build(input)
            }
        }
    };
}

side!(Outbound, outbound);
side!(Inbound, inbound);

fn of_proxy(view: &View<'_>) -> Vec<spec::Listener> {
    match view.node.kind {
        NodeKind::Sidecar => {
            let mut listeners = outbound::listeners(view);
            listeners.extend(inbound::listeners(view));
            listeners
        }
        NodeKind::Router => gateway::listeners(view),
        // Waypoints and node proxies are of the ambient data plane.
        NodeKind::Waypoint | NodeKind::Ztunnel | NodeKind::AgentGateway => Vec::new(),
    }
}

/// Names of the route configurations that the node's listeners ask for.
pub(crate) fn route_names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    for (_, input) in Listeners::all(snapshot, node) {
        match input {
            Input::Api(api) => names.push(api.route),
            Input::Server(_) => {}
            Input::Proxy(listener) => {
                for chain in listener.chains.iter().chain(&listener.default_chain) {
                    if let spec::Terminal::Http(spec::Http { route: spec::RouteSource::Rds(name), .. }) =
                        &chain.terminal
                    {
                        names.push(name.as_str().into());
                    }
                }
            }
        }
    }
    names.sort();
    names.dedup();
    names
}
