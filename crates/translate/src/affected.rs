//! What of a node's resources a change can touch, so that a push looks at nothing else.
//!
//! Owns a bound from above: what is named here may turn out equal, what is not named here is the same as before. A node whose
//! Sidecar imports none of what changed is told nothing, at the cost of a few look-ups.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_config::Kind;
use meltemi_model::{Change, Node, Protocol, Resolution, ServiceKey, Snapshot, host};

use crate::{names, type_urls};

/// Kinds of which routes of gateways say what to count.
const LIMITS: [Kind; 3] = [Kind::RateLimitPolicy, Kind::MemQuota, Kind::Quota];

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
    if change.full || has(change, Kind::Sidecar) {
        return Affected::Everything;
    }
    let seen = Seen::new(change, snapshot, node);
    match type_url {
        type_urls::CLUSTER => seen.clusters(),
        type_urls::ENDPOINT => seen.endpoints(),
        type_urls::LISTENER => seen.listeners(),
        type_urls::ROUTE | type_urls::VIRTUAL_HOST => seen.routes(),
        type_urls::SECRET => whole(has(change, Kind::Secret) || has(change, Kind::Gateway)),
        type_urls::NAME_TABLE => whole(!seen.services.is_empty() || seen.any_headless(&[])),
        _ => Affected::Everything,
    }
}

fn whole(touched: bool) -> Affected {
    if touched { Affected::Everything } else { Affected::Nothing }
}

fn has(change: &Change, kind: Kind) -> bool {
    change.configs.iter().any(|key| key.kind == kind)
}

/// A change as one node sees it.
struct Seen<'a> {
    change: &'a Change,
    snapshot: &'a Snapshot,
    node: &'a Node,
    /// Changed services that the node reaches or may be a workload of.
    services: Vec<&'a ServiceKey>,
    /// Whether a changed VirtualService is, or was, one of the node's.
    rules: bool,
    /// The node is a workload of other services than before.
    own: bool,
}

impl<'a> Seen<'a> {
    fn new(change: &'a Change, snapshot: &'a Snapshot, node: &'a Node) -> Self {
        let has_rules = has(change, Kind::VirtualService);
        let scope = (has_rules || !change.services.is_empty()).then(|| snapshot.scope(node));
        let involves = |key: &&ServiceKey| {
            let serves =
                || node.ip_addresses.iter().any(|ip| snapshot.endpoints.services_at(ip).any(|own| own == *key));
            key.namespace == node.namespace
                || scope.as_ref().is_none_or(|scope| scope.involves_service(key))
                || serves()
        };
        let rules = has_rules && {
            let hosts: Vec<Arc<str>> = change.route_hosts.iter().cloned().collect();
            // A delegate shows through a root of any namespace.
            let anywhere = !node.is_sidecar() || change.route_hosts.contains("*");
            let keys = change.configs.iter().filter(|key| key.kind == Kind::VirtualService);
            anywhere
                || keys.into_iter().any(|key| scope.as_ref().is_none_or(|s| s.involves_rules(&key.namespace, &hosts)))
        };
        Self {
            change,
            snapshot,
            node,
            services: change.services.iter().filter(involves).collect(),
            rules,
            own: node.ip_addresses.iter().any(|address| change.addresses.contains(address)),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        has(self.change, kind)
    }

    /// Whether a changed AuthorizationPolicy, RequestAuthentication or RateLimitPolicy is, or was, one of the node's.
    fn selected(&self) -> bool {
        if self.change.selections.is_empty() {
            return false;
        }
        let (workload, root) = (self.snapshot.workload(self.node), self.snapshot.root_namespace());
        self.change.selections.iter().any(|selection| selection.selects(&workload, root))
    }

    fn clusters(&self) -> Affected {
        // What a VirtualService sends to is imported with it, where a Sidecar bounds the imports.
        let imports = self.rules && self.snapshot.scope(self.node).sidecar.is_some();
        let whole = [Kind::PeerAuthentication, Kind::Gateway, Kind::ResiliencePolicy, Kind::FutureFeatures];
        // A sidecar that asks on demand gets the clusters that its policies need unasked.
        let policies = self.node.on_demand() && self.selected();
        if self.own || imports || policies || whole.into_iter().any(|kind| self.has(kind)) {
            return Affected::Everything;
        }
        // Of endpoints a cluster has the identities, and all of them where it resolves names itself.
        let in_cluster = |key: &&ServiceKey| {
            let service = self.snapshot.services.get(key);
            self.change.summaries.contains(*key)
                || service.is_none_or(|service| service.resolution != Resolution::ClientSideLb)
        };
        self.hosts(self.change.endpoints.iter().filter(in_cluster))
    }

    fn endpoints(&self) -> Affected {
        if self.has(Kind::PeerAuthentication) {
            return Affected::Everything;
        }
        self.hosts(self.change.endpoints.iter())
    }

    /// Of changed services, these with changed endpoints, and those of DestinationRules.
    fn hosts(&self, endpoints: impl Iterator<Item = &'a ServiceKey>) -> Affected {
        let services = self.services.iter().copied().chain(endpoints).map(|key| key.hostname.clone());
        Affected::of(services.chain(self.change.destination_hosts.iter().cloned()).collect())
    }

    fn listeners(&self) -> Affected {
        let configs = [Kind::DestinationRule, Kind::PeerAuthentication, Kind::Gateway];
        let configured = self.rules || configs.into_iter().any(|kind| self.has(kind));
        // TCP to a headless service has a listener for each instance.
        let sniffed = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::GrpcWeb];
        whole(
            self.own
                || configured
                || self.selected()
                || !self.services.is_empty()
                || self.node.is_sidecar() && self.any_headless(&sniffed),
        )
    }

    fn routes(&self) -> Affected {
        let kinds = [Kind::DestinationRule, Kind::Gateway, Kind::ResiliencePolicy, Kind::FutureFeatures];
        let configured = self.rules || kinds.into_iter().any(|kind| self.has(kind));
        let limited = self.node.is_router() && LIMITS.into_iter().any(|kind| self.has(kind)) && self.selected();
        whole(self.own && self.node.is_router() || limited || !self.services.is_empty() || configured)
    }

    /// Endpoints of a service changed that clients address one by one, on a port that is none of `except`.
    fn any_headless(&self, except: &[Protocol]) -> bool {
        let services = self.change.endpoints.iter().filter_map(|key| self.snapshot.services.get(key));
        services.into_iter().any(|service| {
            service.resolution == Resolution::Passthrough
                && service.ports.iter().any(|port| !except.contains(&port.protocol))
        })
    }
}

#[cfg(test)]
mod tests;
