//! Endpoints (EDS): the load assignment of each cluster, grouped by locality, with weights, health and priorities.
//!
//! Owns which endpoints a proxy is told of. The input holds the service's shard by reference, so that an endpoint change costs
//! the clusters of that service and nothing else; a proxy's own locality is in it only where it matters.

mod build;
mod locality;

use crate::dialect::Dialect;
use crate::generator::Generator;
use crate::names;
use meltemi_config::networking::{ClientTlsMode, TrafficPolicy};
use meltemi_model::destination_rule::{for_port, for_subset};
use meltemi_model::{
    Endpoint, EndpointShard, Labels, MtlsMode, Node, NodeKind, Port, Protocol, Resolution, Service, ServiceTarget,
    Shared, SidecarScope, Snapshot,
};
use meltemi_proto::{Any, pack_load_assignment};
use std::sync::Arc;

pub(crate) use build::render_dns;
pub use locality::LocalityView;

/// The generator of load assignments.
pub struct Assignments;

/// Everything one load assignment depends on.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct AssignmentInput {
    pub name: Arc<str>,
    /// `None`: nothing of that name, and so an empty assignment.
    pub found: Option<Found>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Found {
    pub shard: Shared<EndpointShard>,
    pub port_name: Arc<str>,
    pub subset: Labels,
    /// Endpoints, by place in the shard, to which mTLS is off by policy.
    pub mtls_disabled: Vec<usize>,
    /// What the DestinationRule says of TLS, where it does.
    pub mtls: Option<bool>,
    pub locality: Option<LocalityView>,
    /// Only endpoints on this node.
    pub node_name: Option<Arc<str>>,
    pub with_unhealthy: bool,
    /// Endpoints that drain are told of, as draining.
    pub with_draining: bool,
    /// The label of endpoints that drain ([`Sessions::draining_label`](meltemi_model::Sessions)).
    pub draining_label: Arc<str>,
    /// Only endpoints that take mTLS (for clusters of TLS passed through by SNI).
    pub mtls_only: bool,
    pub telemetry: bool,
    /// Only endpoints of this workload.
    pub workload: Option<Workload>,
}

/// The proxy's own workload: pods of one replica set in one region, which can be expected to get the same traffic each.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    name: Arc<str>,
    /// The values of [`HASHES`].
    hashes: [Option<Arc<str>>; 2],
    /// `None`: the proxy does not say where it is.
    region: Option<Arc<str>>,
}

/// Labels of pods that tell replica sets apart.
const HASHES: [&str; 2] = ["pod-template-hash", "rollouts-pod-template-hash"];

impl Workload {
    fn of(node: &Node) -> Self {
        Self {
            name: node.text("WORKLOAD_NAME").unwrap_or_default().into(),
            hashes: hashes(&node.labels),
            region: (!node.locality.is_empty()).then(|| node.locality.region.clone()),
        }
    }

    fn has(&self, endpoint: &Endpoint) -> bool {
        endpoint.workload_name == self.name
            && hashes(&endpoint.labels) == self.hashes
            && self.region.as_ref().is_none_or(|region| *region == endpoint.locality.region)
    }
}

fn hashes(labels: &Labels) -> [Option<Arc<str>>; 2] {
    HASHES.map(|key| labels.get(key).cloned())
}

impl Generator for Assignments {
    type Input = AssignmentInput;

    /// Of a wildcard subscription: every EDS cluster.
    fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
        Self::all(snapshot, node).into_iter().map(|(name, _)| name).collect()
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<AssignmentInput> {
        input(snapshot, node, &snapshot.scope(node), name)
    }

    fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, AssignmentInput)> {
        let scope = snapshot.scope(node);
        let services = scope.services.iter().filter(|service| is_eds(service, node));
        let mut names: Vec<Arc<str>> = Vec::new();
        for service in services {
            let rule = snapshot.destination_rule(node, service);
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                names.push(names::outbound(port.number, "", &service.hostname).into());
                let subsets = rule.iter().flat_map(|rule| &rule.spec().subsets);
                names.extend(
                    subsets.map(|subset| Arc::from(names::outbound(port.number, &subset.name, &service.hostname))),
                );
            }
        }
        names.into_iter().filter_map(|name| Some((name.clone(), input(snapshot, node, &scope, &name)?))).collect()
    }

    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, AssignmentInput)> {
        let scope = snapshot.scope(node);
        names.iter().filter_map(|name| Some((name.clone(), input(snapshot, node, &scope, name)?))).collect()
    }

    fn build(input: &AssignmentInput) -> Any {
        pack_load_assignment(&build::assignment(input))
    }
}

/// The service whose endpoints a cluster of this name has.
pub fn service_of<'a>(scope: &'a SidecarScope, name: &str) -> Option<&'a Shared<Service>> {
    match names::Cluster::parse(name) {
        names::Cluster::Outbound { host, .. } | names::Cluster::OutboundSni { host, .. } => scope.service(host),
        names::Cluster::Inbound { .. } | names::Cluster::Fixed(_) => None,
    }
}

fn is_eds(service: &Service, node: &Node) -> bool {
    match service.resolution {
        Resolution::ClientSideLb => true,
        // Gateways and gRPC have no original destination and balance over the endpoints.
        Resolution::Passthrough => node.kind != NodeKind::Sidecar || Dialect::of(node) == Dialect::Grpc,
        Resolution::DnsLb | Resolution::DnsRoundRobin | Resolution::DynamicDns | Resolution::Alias => false,
    }
}

/// None where there is no such cluster. A proxy that still has it, because a route of its still names it, keeps the endpoints
/// that it knows; an empty assignment would take them before the route is gone.
fn input(snapshot: &Snapshot, node: &Node, scope: &SidecarScope, name: &str) -> Option<AssignmentInput> {
    let (number, subset, mtls_only) = match names::Cluster::parse(name) {
        names::Cluster::Fixed(names::LOCAL_CLUSTER) => return Some(local(snapshot, node)),
        names::Cluster::Outbound { port, subset, .. } => (port, subset, false),
        names::Cluster::OutboundSni { port, subset, .. } => (port, subset, true),
        names::Cluster::Inbound { .. } | names::Cluster::Fixed(_) => return None,
    };
    let service = service_of(scope, name).filter(|service| is_eds(service, node))?;
    let port = service.port(number)?;
    let rule = snapshot.destination_rule(node, service);
    let policy = for_port(rule.as_ref().and_then(|rule| rule.spec().traffic_policy.as_ref()), number);
    let (labels, policy) = match subset {
        "" => (Labels::new(), policy),
        name => {
            let subset = rule.as_ref().and_then(|rule| rule.subset(name))?;
            (subset.labels.clone(), for_subset(policy, subset, number))
        }
    };
    let shard = snapshot.endpoints.get(&service.key()).cloned();
    let found = shard.map(|shard| found(snapshot, node, service, Wanted { port, labels, policy, mtls_only, shard }));
    Some(AssignmentInput { name: name.into(), found })
}

/// The proxy's own workload as its first service knows it; no policy for clients applies. Empty where it has no service.
fn local(snapshot: &Snapshot, node: &Node) -> AssignmentInput {
    let target = snapshot.service_targets(node).into_iter().next();
    let found = target.and_then(|ServiceTarget { service, port, .. }| {
        let shard = snapshot.endpoints.get(&service.key()).cloned()?;
        let wanted = Wanted { port: &port, labels: Labels::new(), policy: None, mtls_only: false, shard };
        let found = found(snapshot, node, &service, wanted);
        Some(Found { locality: None, node_name: None, workload: Some(Workload::of(node)), ..found })
    });
    AssignmentInput { name: names::LOCAL_CLUSTER.into(), found }
}

/// What the name of an assignment asks for.
struct Wanted<'a> {
    port: &'a Port,
    labels: Labels,
    policy: Option<TrafficPolicy>,
    mtls_only: bool,
    shard: Shared<EndpointShard>,
}

fn found(snapshot: &Snapshot, node: &Node, service: &Service, wanted: Wanted<'_>) -> Found {
    let Wanted { port, labels, policy, mtls_only, shard } = wanted;
    let outlier = policy.as_ref().and_then(|policy| policy.outlier_detection.as_ref());
    Found {
        port_name: port.name.clone(),
        subset: labels,
        mtls_disabled: mtls_disabled(snapshot, &shard, port),
        mtls: declared_mtls(policy.as_ref()),
        locality: LocalityView::of(snapshot, node, service, policy.as_ref()),
        node_name: service.node_local.then(|| node.node_name().into()),
        with_draining: snapshot.options.sessions.keep_draining(service),
        draining_label: snapshot.options.sessions.draining_label.clone(),
        with_unhealthy: outlier.is_none_or(|outlier| outlier.min_health_percent <= 0),
        mtls_only,
        telemetry: Dialect::of(node) != Dialect::Grpc,
        workload: None,
        shard,
    }
}

/// Whether a rule's own TLS settings make endpoints mTLS ones.
pub fn declared_mtls(policy: Option<&TrafficPolicy>) -> Option<bool> {
    policy.and_then(|policy| policy.tls.as_ref()).map(|tls| tls.mode == ClientTlsMode::IstioMutual)
}

/// The endpoints whose port has mTLS turned off by PeerAuthentication.
pub fn mtls_disabled(snapshot: &Snapshot, shard: &EndpointShard, port: &Port) -> Vec<usize> {
    let root = snapshot.root_namespace();
    let mut found = Vec::new();
    for (index, endpoint) in shard.endpoints.iter().enumerate() {
        if !snapshot.client_authentication().may_disable(&endpoint.namespace, root) {
            continue;
        }
        let target = endpoint.port(&port.name).unwrap_or_default();
        if snapshot.mtls_of_server(&endpoint.namespace, &endpoint.labels).mode_of(target) == MtlsMode::Disable {
            found.push(index);
        }
    }
    found
}

#[cfg(test)]
mod tests;
