//! Which services a node serves, and on which of its ports.

use super::Snapshot;
use crate::labels::{pairs, selects};
use crate::node::Node;
use crate::service::{Port, Service, TargetPort};
use crate::shared::Shared;
use std::collections::BTreeSet;

/// One port of one service that the node itself serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceTarget {
    pub service: Shared<Service>,
    pub port: Port,
    /// The port on the workload.
    pub target_port: u32,
}

/// Services with an endpoint at one of the node's addresses; then, so that a workload that is not ready yet has its
/// listeners, services of its namespace that select its labels.
pub(super) fn of(snapshot: &Snapshot, node: &Node) -> Vec<ServiceTarget> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for address in &node.ip_addresses {
        for key in snapshot.endpoints.services_at(address) {
            let Some(service) = snapshot.services.get(key) else { continue };
            for endpoint in snapshot.endpoints.of(key) {
                if endpoint.address.host() != Some(address) {
                    continue;
                }
                for port in &service.ports {
                    let Some(target_port) = endpoint.port(&port.name) else { continue };
                    // By name: a number may stand for a port of TCP and one of UDP.
                    if seen.insert((key.clone(), port.name.clone(), target_port)) {
                        found.push(ServiceTarget { service: service.clone(), port: port.clone(), target_port });
                    }
                }
            }
        }
    }
    let known: BTreeSet<_> = found.iter().map(|target| target.service.key()).collect();
    // Without labels nothing says that the node is a workload of the service.
    if !node.labels.is_empty() {
        for service in snapshot.services.in_namespace(&node.namespace) {
            let selected = !service.selector.is_empty()
                && !known.contains(&service.key())
                && selects(pairs(&service.selector), &node.labels);
            if selected {
                found.extend(service.ports.iter().filter_map(|port| {
                    let target_port = match &port.target {
                        TargetPort::Name(name) => node.pod_port(name)?,
                        _ => port.target_number()?,
                    };
                    Some(ServiceTarget { service: service.clone(), port: port.clone(), target_port })
                }));
            }
        }
    }
    found.sort_by(|a, b| {
        let order = |target: &ServiceTarget| {
            let service = &target.service;
            (
                service.creation,
                service.hostname.clone(),
                service.namespace.clone(),
                target.target_port,
                target.port.number,
            )
        };
        order(a).cmp(&order(b))
    });
    found
}
