//! What of a node's resources a change can touch, so that a push looks at nothing else.
//!
//! Owns a bound from above: what is named here may turn out equal, what is not named here is the same as before.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_config::Kind;
use meltemi_model::{Change, Node, Protocol, Resolution, Snapshot, host};

use crate::{names, type_urls};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    Nothing,
    /// Resources of services with these host names or patterns.
    Hosts(BTreeSet<Arc<str>>),
    Everything,
}

impl Affected {
    /// Whether the resource of this name may differ.
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Hosts(hosts) => {
                let host = match names::Cluster::parse(name) {
                    names::Cluster::Outbound { host, .. } | names::Cluster::OutboundSni { host, .. } => host,
                    // Inbound clusters name no service; they change with the node's own services.
                    names::Cluster::Inbound { .. } | names::Cluster::Fixed(_) => return true,
                };
                hosts.contains(host) || hosts.iter().any(|pattern| host::covers(pattern, host))
            }
        }
    }

    fn of(hosts: BTreeSet<Arc<str>>) -> Self {
        if hosts.is_empty() { Self::Nothing } else { Self::Hosts(hosts) }
    }
}

/// `snapshot` is the one after the change.
pub fn affected(change: &Change, snapshot: &Snapshot, node: &Node, type_url: &str) -> Affected {
    let own_services = node.ip_addresses.iter().any(|address| change.addresses.contains(address));
    if change.full || has(change, Kind::Sidecar) {
        return Affected::Everything;
    }
    match type_url {
        type_urls::CLUSTER => clusters(change, snapshot, node, own_services),
        type_urls::ENDPOINT => endpoints(change),
        type_urls::LISTENER => listeners(change, snapshot, node, own_services),
        type_urls::ROUTE => routes(change, own_services && node.is_router()),
        type_urls::SECRET => whole(has(change, Kind::Secret) || has(change, Kind::Gateway)),
        type_urls::NAME_TABLE => whole(!change.services.is_empty() || any_headless(change, snapshot, &[])),
        _ => Affected::Everything,
    }
}

fn whole(touched: bool) -> Affected {
    if touched { Affected::Everything } else { Affected::Nothing }
}

fn has(change: &Change, kind: Kind) -> bool {
    change.configs.iter().any(|key| key.kind == kind)
}

fn clusters(change: &Change, snapshot: &Snapshot, node: &Node, own_services: bool) -> Affected {
    // What a VirtualService sends to is imported with it, where a Sidecar bounds the imports.
    let imports = has(change, Kind::VirtualService) && snapshot.scope(node).sidecar.is_some();
    if own_services || imports || has(change, Kind::PeerAuthentication) || has(change, Kind::Gateway) {
        return Affected::Everything;
    }
    hosts(change)
}

fn endpoints(change: &Change) -> Affected {
    if has(change, Kind::PeerAuthentication) { Affected::Everything } else { hosts(change) }
}

/// Of changed services, endpoints and DestinationRules.
fn hosts(change: &Change) -> Affected {
    let services = change.services.iter().chain(&change.endpoints).map(|key| key.hostname.clone());
    Affected::of(services.chain(change.destination_hosts.iter().cloned()).collect())
}

fn listeners(change: &Change, snapshot: &Snapshot, node: &Node, own_services: bool) -> Affected {
    let configs = [Kind::VirtualService, Kind::DestinationRule, Kind::PeerAuthentication, Kind::Gateway];
    let configured = configs.into_iter().any(|kind| has(change, kind));
    // TCP to a headless service has a listener for each instance.
    let sniffed = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::GrpcWeb];
    whole(
        own_services
            || configured
            || !change.services.is_empty()
            || node.is_sidecar() && any_headless(change, snapshot, &sniffed),
    )
}

fn routes(change: &Change, own_ports: bool) -> Affected {
    let configs = [Kind::VirtualService, Kind::DestinationRule, Kind::Gateway];
    whole(own_ports || !change.services.is_empty() || configs.into_iter().any(|kind| has(change, kind)))
}

/// Endpoints of a service changed that clients address one by one, on a port that is none of `except`.
fn any_headless(change: &Change, snapshot: &Snapshot, except: &[Protocol]) -> bool {
    change.endpoints.iter().filter_map(|key| snapshot.services.get(key)).any(|service| {
        service.resolution == Resolution::Passthrough
            && service.ports.iter().any(|port| !except.contains(&port.protocol))
    })
}

#[cfg(test)]
mod tests;
