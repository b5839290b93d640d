//! The services that a request may be for, and which one a host name means.

use std::net::IpAddr;

use meltemi_model::{Service, Snapshot};
use serde_json::Value;

/// A service as far as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    pub hostname: String,
    pub name: String,
    pub namespace: String,
    /// None: its clients find its endpoints themselves, or outside of the mesh.
    pub address: Option<IpAddr>,
    /// Each with the workload's own port.
    pub ports: Vec<(u16, u16)>,
}

/// All services of a mesh.
pub fn of_snapshot(snapshot: &Snapshot) -> Vec<KnownService> {
    snapshot.services.ordered().iter().map(|service| known(service)).collect()
}

fn known(service: &Service) -> KnownService {
    let listed = service.addresses.iter().find_map(|address| address.parse().ok());
    let number = |port: u32| u16::try_from(port).ok();
    let port =
        |port: &meltemi_model::Port| Some((number(port.number)?, number(port.target_number().unwrap_or(port.number))?));
    KnownService {
        hostname: service.hostname.to_string(),
        name: service.name.to_string(),
        namespace: service.namespace.to_string(),
        address: listed.or(service.auto_address.map(IpAddr::from)),
        ports: service.ports.iter().filter_map(port).collect(),
    }
}

/// The services in istiod's `/debug/registryz`, which does not tell the workloads' ports.
pub fn of_registryz(page: &Value) -> Vec<KnownService> {
    let list = page.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let service = |value: &Value| {
        let ports = value["ports"].as_array().into_iter().flatten();
        let number = |port: &Value| u16::try_from(port["port"].as_u64()?).ok();
        let auto = value["autoAllocatedIPv4Address"].as_str();
        let address = value["defaultAddress"].as_str().filter(|address| *address != "0.0.0.0").or(auto);
        KnownService {
            hostname: text(&value["hostname"]),
            name: text(&value["Attributes"]["Name"]),
            namespace: text(&value["Attributes"]["Namespace"]),
            address: address.and_then(|address| address.parse().ok()),
            ports: ports.filter_map(number).map(|port| (port, port)).collect(),
        }
    };
    list.iter().map(service).collect()
}

/// The service that a host name means to a client in `namespace`: `reviews`, `reviews.shop`, `reviews.shop.svc`, or in full.
pub fn find<'a>(services: &'a [KnownService], host: &str, namespace: &str) -> Option<&'a KnownService> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let full = |service: &&KnownService| service.hostname == host;
    let short = |service: &&KnownService| {
        let rest = service.hostname.strip_prefix(&host).and_then(|rest| rest.strip_prefix('.'));
        let is_kube = service.hostname.starts_with(&format!("{}.{}.svc.", service.name, service.namespace));
        let labels = host.split('.').count();
        let own = labels == 1 && service.namespace == namespace || labels == 2 || labels == 3 && host.ends_with(".svc");
        rest.is_some() && is_kube && own
    };
    let wild = |service: &&KnownService| {
        let suffix = service.hostname.strip_prefix('*');
        suffix.is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    let found = services.iter().find(full).or_else(|| services.iter().find(short));
    found.or_else(|| services.iter().filter(wild).max_by_key(|service| service.hostname.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, namespace: &str) -> KnownService {
        KnownService {
            hostname: format!("{name}.{namespace}.svc.cluster.local"),
            name: name.into(),
            namespace: namespace.into(),
            address: None,
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_host_name_means_what_it_does_to_a_pod_of_its_namespace() {
        let wild = KnownService { hostname: "*.example.com".into(), ..service("wild", "shop") };
        let services = [service("reviews", "shop"), service("reviews", "other"), service("web", "other"), wild];
        for (host, expected) in [
            ("reviews", Some("reviews.shop.svc.cluster.local")),
            ("reviews.other", Some("reviews.other.svc.cluster.local")),
            ("reviews.other.svc", Some("reviews.other.svc.cluster.local")),
            ("Reviews.other.svc.cluster.local.", Some("reviews.other.svc.cluster.local")),
            ("web", None),
            ("rev", None),
            ("a.example.com", Some("*.example.com")),
            ("example.com", None),
        ] {
            assert_eq!(find(&services, host, "shop").map(|service| service.hostname.as_str()), expected, "{host}");
        }
    }
}
