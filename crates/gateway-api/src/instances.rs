//! Whether the services of a Gateway lead anywhere: istiod's reading of addresses and of what is wrong with them.

use crate::catalogue::Catalogue;
use crate::error::{Problem, reason};
use crate::ingress::external_addresses;
use crate::status::Draft;
use meltemi_config::kube::ServiceType;
use meltemi_model::{ServiceKey, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

/// On a Service: it was deployed for a Gateway, so that endpoints are only late.
const MANAGED: &str = "gateway.istio.io/managed";

/// A service as a Gateway's status sees it.
#[derive(Clone, Debug, Default)]
pub struct GatewayService {
    /// Service ports, each with the ports of its endpoints on the workloads.
    pub ports: BTreeMap<u32, Vec<u32>>,
    /// Its addresses in the mesh.
    pub addresses: Vec<String>,
    /// Its addresses outside, as the load balancer gave them.
    pub external: Vec<String>,
    pub is_load_balancer: bool,
    /// It was deployed for a Gateway.
    pub managed: bool,
}

/// The services of the mesh.
pub trait Services {
    /// A service by its host name, in one namespace.
    fn find(&self, namespace: &str, hostname: &str) -> Option<GatewayService>;
    /// The namespaces that have a service of this host name.
    fn namespaces(&self, hostname: &str) -> Vec<String>;
}

impl Services for Snapshot {
    fn find(&self, namespace: &str, hostname: &str) -> Option<GatewayService> {
        let key = ServiceKey::new(namespace, hostname);
        let service = self.services.get(&key)?;
        let endpoints = self.endpoints.of(&key);
        let of_port = |name: &str| endpoints.iter().filter_map(|endpoint| endpoint.port(name)).collect();
        Some(GatewayService {
            ports: service.ports.iter().map(|port| (port.number, of_port(&port.name))).collect(),
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            external: Vec::new(),
            is_load_balancer: false,
            managed: service.labels.contains_key(MANAGED),
        })
    }

    fn namespaces(&self, hostname: &str) -> Vec<String> {
        self.services.with_hostname(hostname).map(|service| service.namespace.to_string()).collect()
    }
}

/// The services of the mesh, with what their documents say of addresses outside.
pub struct Addressed<'a> {
    pub services: &'a dyn Services,
    pub catalogue: &'a Catalogue,
    /// Completes the names of Services.
    pub domain: &'a str,
}

impl Services for Addressed<'_> {
    fn find(&self, namespace: &str, hostname: &str) -> Option<GatewayService> {
        let mut found = self.services.find(namespace, hostname)?;
        if let Some(service) = self.catalogue.service_of(hostname, namespace, self.domain) {
            found.external.extend(external_addresses(service).iter().map(ToString::to_string));
            found.is_load_balancer |= service.spec.service_type == ServiceType::LoadBalancer;
        }
        Some(found)
    }

    fn namespaces(&self, hostname: &str) -> Vec<String> {
        self.services.namespaces(hostname)
    }
}

/// What a Gateway's services come to.
#[derive(Debug, Default)]
pub struct Reach {
    /// `host:port` of the services that have endpoints.
    pub internal: BTreeSet<String>,
    pub addresses: BTreeSet<String>,
    pub external: BTreeSet<String>,
    pending: BTreeSet<String>,
    warnings: Vec<String>,
    unusable: bool,
}

impl Reach {
    /// Of these services in a namespace, on these ports.
    pub fn of(services: &dyn Services, namespace: &str, hosts: &[String], ports: &BTreeSet<u32>) -> Self {
        let mut reach = Self::default();
        for host in hosts {
            match services.find(namespace, host) {
                Some(service) => ports.iter().for_each(|port| reach.add(host, &service, *port)),
                None => reach.missing(services, namespace, host),
            }
        }
        reach.warnings.sort();
        reach
    }

    fn missing(&mut self, services: &dyn Services, namespace: &str, host: &str) {
        let mut others: Vec<_> = services.namespaces(host).into_iter().map(|other| format!("{other:?}")).collect();
        others.sort();
        self.warnings.push(if others.is_empty() {
            format!("hostname {host:?} not found")
        } else {
            let others = others.join(", ");
            format!("hostname {host:?} not found in namespace {namespace:?}, but it was found in namespace(s) {others}")
        });
        self.unusable = true;
    }

    fn add(&mut self, host: &str, service: &GatewayService, port: u32) {
        if service.ports.get(&port).is_some_and(|endpoints| !endpoints.is_empty()) {
            self.internal.insert(format!("{host}:{port}"));
            self.addresses.extend(service.addresses.iter().cloned());
            if !service.external.is_empty() {
                self.external.extend(service.external.iter().cloned());
            } else if service.is_load_balancer && self.pending.insert(host.to_owned()) {
                self.warnings.push(format!("address pending for hostname {host:?}"));
            }
            return;
        }
        if service.ports.values().all(Vec::is_empty) {
            return self.warnings.push(format!("no instances found for hostname {host:?}"));
        }
        let hints = service.ports.iter().filter(|(_, endpoints)| endpoints.contains(&port));
        let hints: Vec<String> = hints.map(|(port, _)| port.to_string()).collect();
        if !hints.is_empty() {
            self.warnings.push(format!(
                "port {port} not found for hostname {host:?} (hint: the service port should be specified, not the workload \
                 port. Did you mean one of these ports: [{}]?)",
                hints.join(" ")
            ));
            self.unusable = true;
        } else if !service.managed || !service.ports.contains_key(&port) {
            self.warnings.push(format!("port {port} not found for hostname {host:?}"));
            self.unusable = true;
        }
    }

    /// The condition `Programmed` of a Gateway or ListenerSet with these services.
    pub fn programmed(&self, hosts: &[String]) -> Draft {
        let mut draft = Draft::new("Programmed", "Resource programmed");
        let internal = readable(&self.internal);
        if !internal.is_empty() {
            draft.message = format!("Resource programmed, assigned to service(s) {internal}");
        }
        if hosts.is_empty() {
            let message = "Failed to assign to any requested addresses";
            draft.problem = Some(Problem::new(reason::UNSUPPORTED_ADDRESS, message));
        } else if !self.warnings.is_empty() {
            let warnings = self.warnings.join("; ");
            let message = if internal.is_empty() {
                format!("Failed to assign to any requested addresses: {warnings}")
            } else {
                format!(
                    "Assigned to service(s) {internal}, but failed to assign to all requested addresses: {warnings}"
                )
            };
            let reason = if self.unusable { "AddressNotUsable" } else { "AddressNotAssigned" };
            draft.problem = Some(Problem::new(reason, message));
        }
        draft
    }

    /// What the Gateway is told to be reached by: addresses outside, else host names.
    pub fn reported(&self, only_addresses: Option<bool>) -> Vec<String> {
        if !self.external.is_empty() {
            return self.external.iter().cloned().collect();
        }
        let mut all: Vec<String> = match only_addresses {
            Some(false) => Vec::new(),
            _ => self.addresses.iter().cloned().collect(),
        };
        if only_addresses != Some(true) {
            let hosts = self.internal.iter().filter_map(|own| own.rsplit_once(':').map(|(host, _)| host));
            for host in hosts.filter(|host| !self.pending.contains(*host)) {
                if !all.iter().any(|own| own == host) {
                    all.push(host.to_owned());
                }
            }
        }
        all
    }
}

fn readable(list: &BTreeSet<String>) -> String {
    let list: Vec<&str> = list.iter().map(String::as_str).collect();
    match list.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [one, two] => format!("{one} and {two}"),
        [most @ .., last] => format!("{}, and {last}", most.join(", ")),
    }
}
