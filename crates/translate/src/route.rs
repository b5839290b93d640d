//! Routes: virtual hosts and what they do with a request.
//!
//! Owns the decisions ([`spec`]) and their rendering, as for listeners.

mod claims;
mod filters;
mod headers;
mod hosts;
mod matching;
mod on_demand;
mod render;
pub(crate) mod resilience;
mod retry;
mod rule;
pub(crate) mod select;
mod sidecar;
pub(crate) mod spec;

use std::sync::Arc;

use meltemi_model::{Node, NodeKind, Snapshot};
use meltemi_proto::Any;

use crate::dialect::Dialect;
use crate::gateway;
use crate::generator::Generator;
use crate::rate_limit::RateLimits;
use crate::view::View;

pub(crate) use hosts::{alternative_hosts, full_hosts};
pub(crate) use matching::header as header_matcher;
pub use on_demand::VirtualHosts;
pub(crate) use render::{configuration as route_configuration, inbound_route_configuration};
pub(crate) use sidecar::unclaimed;

/// RDS. A proxy names the route configurations that its listeners point to.
pub struct RouteConfigurations;

impl Generator for RouteConfigurations {
    type Input = spec::Configuration;

    fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
        crate::listener::route_names(snapshot, node)
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<spec::Configuration> {
        Self::select(snapshot, node, &[Arc::from(name)]).pop().map(|(_, input)| input)
    }

    fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, spec::Configuration)> {
        Self::select(snapshot, node, &Self::names(snapshot, node))
    }

    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, spec::Configuration)> {
        let view = View::new(snapshot, node);
        match node.kind {
            NodeKind::Sidecar => {
                let mut ports = sidecar::PortCache::default();
                let known = names.iter();
                known
                    .filter_map(|name| Some((name.clone(), sidecar::configuration(&view, name, &mut ports)?)))
                    .collect()
            }
            NodeKind::Router => {
                let merged = gateway::Merged::of(&view);
                let configuration =
                    |name: &Arc<str>| (name.clone(), gateway::route_configuration(&view, &merged, name));
                names.iter().map(configuration).collect()
            }
            NodeKind::Waypoint | NodeKind::Ztunnel | NodeKind::AgentGateway => Vec::new(),
        }
    }

    fn build(input: &spec::Configuration) -> Any {
        meltemi_proto::pack_route_configuration(&render::configuration(input))
    }
}

pub(crate) fn policy(view: &View<'_>) -> Arc<spec::Policy> {
    Arc::new(spec::Policy {
        attempt_count: view.profile.headers.attempt_count,
        x_forwarded_host: view.profile.headers.x_forwarded_host,
        default_retry: view.profile.default_retry.clone(),
        proxyless: view.profile.dialect == Dialect::Grpc,
        rate_limits: if view.node.is_router() { RateLimits::of(view) } else { RateLimits::default() },
    })
}
