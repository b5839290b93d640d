//! The name table (NDS): what the DNS proxy beside a workload answers.
//!
//! One resource a proxy; equal for proxies that see the same services. Headless services answer with their endpoints, and
//! each pod with a name of its own.

use crate::generator::Generator;
use meltemi_model::{Node, RegistryKind, Resolution, Service, Snapshot};
use meltemi_proto::Any;
use meltemi_proto::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The one resource's name: Istio leaves it empty.
pub const NAME: &str = "";

pub struct NameTables;

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NameTableInput {
    names: BTreeMap<Arc<str>, Name>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    addresses: Vec<Arc<str>>,
    registry: RegistryKind,
    /// Of Kubernetes services: the proxy also answers `name`, `name.namespace`, `name.namespace.svc`.
    short: Option<(Arc<str>, Arc<str>)>,
}

impl Generator for NameTables {
    type Input = NameTableInput;

    fn names(_snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>> {
        if node.dns_capture() { vec![NAME.into()] } else { Vec::new() }
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<NameTableInput> {
        if name != NAME || !node.dns_capture() {
            return None;
        }
        let mut names = BTreeMap::new();
        for service in &snapshot.scope(node).services {
            add(snapshot, node, service, &mut names);
        }
        Some(NameTableInput { names })
    }

    fn build(input: &NameTableInput) -> Any {
        let table = input.names.iter().map(|(host, name)| {
            let (shortname, namespace) = name.short.clone().unwrap_or_default();
            let info = NameInfo {
                ips: name.addresses.iter().map(|address| address.to_string()).collect(),
                registry: name.registry.name().into(),
                shortname: shortname.to_string(),
                namespace: namespace.to_string(),
            };
            (host.to_string(), info)
        });
        Any::pack(&NameTable { table: table.collect() })
    }
}

fn add(snapshot: &Snapshot, node: &Node, service: &Service, names: &mut BTreeMap<Arc<str>, Name>) {
    let mut addresses: Vec<Arc<str>> = service
        .effective_addresses(node.dns_auto_allocate())
        .into_iter()
        // A range is no answer.
        .filter(|address| address.parse::<IpAddr>().is_ok())
        .collect();
    let kubernetes = service.registry == RegistryKind::Kubernetes;
    if addresses.is_empty() && kubernetes && service.resolution == Resolution::Passthrough {
        addresses = headless(snapshot, node, service, names);
    }
    if addresses.is_empty() {
        return;
    }
    let short = kubernetes.then(|| (service.name.clone(), service.namespace.clone()));
    let name = Name { addresses, registry: service.registry, short };
    for alias in &service.aliases {
        // Without a cluster's DNS nobody else would answer for an ExternalName.
        let first = alias.hostname.split('.').next().unwrap_or_default();
        let short = Some((Arc::from(first), alias.namespace.clone()));
        names.insert(alias.hostname.clone(), Name { short, registry: RegistryKind::Kubernetes, ..name.clone() });
    }
    names.insert(service.hostname.clone(), name);
}

/// The addresses of a headless service's endpoints; adds the names of its pods.
fn headless(
    snapshot: &Snapshot,
    node: &Node,
    service: &Service,
    names: &mut BTreeMap<Arc<str>, Name>,
) -> Vec<Arc<str>> {
    let mut addresses = Vec::new();
    for endpoint in snapshot.endpoints.of(&service.key()) {
        let reachable =
            endpoint.network.is_empty() || node.network().is_empty() || *endpoint.network == *node.network();
        let Some(address) = endpoint.address.host().filter(|address| reachable && address.parse::<IpAddr>().is_ok())
        else {
            continue;
        };
        if endpoint.is_healthy() && !addresses.contains(address) {
            addresses.push(address.clone());
        }
        if let Some(pod) = &endpoint.hostname {
            let short: Arc<str> = format!("{pod}.{}", service.name).into();
            let name = names.entry(format!("{pod}.{}", service.hostname).into()).or_insert_with(|| Name {
                addresses: Vec::new(),
                registry: service.registry,
                short: Some((short, service.namespace.clone())),
            });
            if !name.addresses.contains(address) {
                name.addresses.push(address.clone());
            }
        }
    }
    addresses
}

#[cfg(test)]
mod tests;
