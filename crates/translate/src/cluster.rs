//! Clusters (CDS): where traffic can go and how connections there behave.
//!
//! Owns what a proxy's clusters are and how each is rendered. `inputs` decides, `build` renders. Endpoints reach a cluster only
//! through their summary (identities, mTLS ability), except where Envoy wants them in the cluster (DNS). One input per
//! cluster, a few words to hash; rendering happens once for all proxies with equal inputs.

mod fixed;
mod grpc;
mod inbound;
mod input;
mod load_balancer;
mod metadata;
mod outbound;
mod policy;
mod protocol;
mod tls;

use crate::dialect::Dialect;
use crate::dynamic_dns::DnsCache;
use crate::generator::Generator;
use crate::names;
use crate::security::authorizer_clusters;
use crate::view::View;
use input::Gather;
use meltemi_model::{Node, NodeKind, Snapshot};
use meltemi_proto::{Any, pack_cluster};
use std::collections::HashSet;
use std::sync::Arc;

pub use grpc::server_tls as grpc_server_tls;
pub use input::{Common, InboundCluster, OutboundCluster, PassthroughKind, ProxyClass};

/// The generator of clusters.
pub struct Clusters;

/// Everything one cluster depends on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum ClusterInput {
    BlackHole(Common),
    Passthrough(PassthroughKind, Common),
    AllowAnyDynamicDns(Common, DnsCache),
    Outbound(Box<OutboundCluster>),
    Inbound(Box<InboundCluster>),
}

impl Generator for Clusters {
    type Input = ClusterInput;

    fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
        Self::all(snapshot, node).into_iter().map(|(name, _)| name).collect()
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<ClusterInput> {
        one(&Gather::new(snapshot, node), name)
    }

    fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, ClusterInput)> {
        let gather = Gather::new(snapshot, node);
        let mut found = Vec::new();
        if node.on_demand() {
            let view = View::new(snapshot, node);
            let security = view.security();
            let authorizers = authorizer_clusters(&view);
            let own = view.profile.own_clusters().chain(security.clusters()).chain(&authorizers);
            found.extend(own.filter_map(|name| Some((name.clone(), one(&gather, name)?))));
        } else {
            for service in &gather.scope.services {
                gather.outbound(service, &mut found);
            }
        }
        if gather.common.dialect == Dialect::Grpc {
            return found;
        }
        if node.kind == NodeKind::Router && gather.has_auto_passthrough() {
            for service in &gather.scope.services {
                gather.sni_dnat(service, &mut found);
            }
        }
        found.push((names::BLACK_HOLE_CLUSTER.into(), ClusterInput::BlackHole(gather.common.clone())));
        if node.kind == NodeKind::Sidecar {
            let outbound = ClusterInput::Passthrough(PassthroughKind::Outbound, gather.common.clone());
            found.push((names::PASSTHROUGH_CLUSTER.into(), outbound));
            if let Some(input) = gather.allow_any_dynamic_dns() {
                found.push((names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER.into(), input));
            }
            gather.inbound(&mut found);
            let inbound = ClusterInput::Passthrough(PassthroughKind::Inbound, gather.common.clone());
            found.push((names::INBOUND_PASSTHROUGH_CLUSTER.into(), inbound));
        }
        let mut seen = HashSet::new();
        found.retain(|(name, _)| seen.insert(name.clone()));
        found
    }

    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, ClusterInput)> {
        let gather = Gather::new(snapshot, node);
        names.iter().filter_map(|name| Some((name.clone(), one(&gather, name)?))).collect()
    }

    fn build(input: &ClusterInput) -> Any {
        pack_cluster(&match input {
            ClusterInput::BlackHole(common) => fixed::black_hole(common),
            ClusterInput::Passthrough(kind, common) => fixed::passthrough(*kind, common),
            ClusterInput::AllowAnyDynamicDns(common, cache) => fixed::allow_any_dynamic_dns(common, cache),
            ClusterInput::Outbound(input) if input.common.dialect == Dialect::Grpc => grpc::build(input),
            ClusterInput::Outbound(input) => outbound::build(input),
            ClusterInput::Inbound(input) => inbound::build(input),
        })
    }
}

fn one(gather: &Gather<'_>, name: &str) -> Option<ClusterInput> {
    let mut found = Vec::new();
    let sidecar = gather.node.kind == NodeKind::Sidecar && gather.common.dialect != Dialect::Grpc;
    match names::Cluster::parse(name) {
        names::Cluster::Outbound { host, .. } => gather.outbound(gather.scope.service(host)?, &mut found),
        names::Cluster::OutboundSni { host, .. } if gather.has_auto_passthrough() => {
            gather.sni_dnat(gather.scope.service(host)?, &mut found);
        }
        names::Cluster::Inbound { .. } if sidecar => gather.inbound(&mut found),
        names::Cluster::Fixed(fixed) => {
            let common = gather.common.clone();
            return match fixed {
                names::BLACK_HOLE_CLUSTER => Some(ClusterInput::BlackHole(common)),
                names::PASSTHROUGH_CLUSTER if sidecar => {
                    Some(ClusterInput::Passthrough(PassthroughKind::Outbound, common))
                }
                names::INBOUND_PASSTHROUGH_CLUSTER if sidecar => {
                    Some(ClusterInput::Passthrough(PassthroughKind::Inbound, common))
                }
                names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER if sidecar => gather.allow_any_dynamic_dns(),
                _ => None,
            };
        }
        _ => {}
    }
    found.into_iter().find(|(own, _)| &**own == name).map(|(_, input)| input)
}

#[cfg(test)]
mod tests;
