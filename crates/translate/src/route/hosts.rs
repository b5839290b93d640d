//! The names by which applications call a service: its host name, the shorter forms that DNS search lists allow, its addresses.

use std::net::IpAddr;

use meltemi_model::{Node, RegistryKind, Resolution, Service};

use crate::names;
use crate::view::View;

/// All domains of a service's virtual host, and those of them that are only other ways to write it: an alternative gives way
/// to another service whose full name it is. With `port`, each form also stands with that port.
pub struct Domains {
    pub all: Vec<String>,
    pub alternatives: Vec<String>,
}

pub fn of_service(view: &View<'_>, service: &Service, port: Option<u32>) -> Domains {
    let mut domains = Domains { all: Vec::new(), alternatives: Vec::new() };
    let aliases = service.aliases.iter().map(|alias| &*alias.hostname);
    for name in std::iter::once(&*service.hostname).chain(aliases) {
        push(&mut domains.all, name, port);
        let alternatives = alternative_hosts(name, port, &view.node.dns_domain);
        domains.all.extend(alternatives.iter().cloned());
        domains.alternatives.extend(alternatives);
    }
    if service.resolution == Resolution::Passthrough && service.registry == RegistryKind::Kubernetes {
        // Instances of a headless service have names of their own below it.
        let instances: Vec<_> = domains.all.iter().map(|domain| format!("*.{domain}")).collect();
        domains.all.extend(instances);
    }
    for address in view.addresses(service) {
        if address.parse::<IpAddr>().is_ok_and(|address| !address.is_unspecified()) {
            push(&mut domains.all, &address, port);
        }
    }
    domains
}

fn push(domains: &mut Vec<String>, name: &str, port: Option<u32>) {
    domains.push(names::bracketed(name));
    domains.extend(port.map(|port| names::domain(name, port)));
}

/// The other ways to write a host name in a proxy whose DNS domain is `dns_domain`: with the final dot of an absolute name,
/// and without what the search list supplies.
pub fn alternative_hosts(hostname: &str, port: Option<u32>, dns_domain: &str) -> Vec<String> {
    let mut hosts = Vec::new();
    if hostname.parse::<IpAddr>().is_err() {
        hosts.push(format!("{hostname}."));
    }
    hosts.extend(port.map(|port| names::domain(&format!("{hostname}."), port)));
    let Some((namespace, domain)) = dns_domain.split_once(".svc.") else {
        hosts.extend(without_shared_suffix(hostname, dns_domain, port));
        return hosts;
    };
    let Some(qualified) = hostname.strip_suffix(domain).and_then(|rest| rest.strip_suffix(".svc.")) else {
        return hosts;
    };
    let Some((name, own_namespace)) = qualified.split_once('.') else { return hosts };
    let with_svc = format!("{qualified}.svc");
    if own_namespace == namespace {
        [name, &with_svc, qualified].into_iter().for_each(|host| push(&mut hosts, host, port));
    } else {
        [qualified, &with_svc].into_iter().for_each(|host| push(&mut hosts, host, port));
    }
    hosts
}

/// Outside of Kubernetes: the part that the proxy's domain does not share, and that part with one label more.
fn without_shared_suffix(hostname: &str, dns_domain: &str, port: Option<u32>) -> Vec<String> {
    let labels: Vec<&str> = hostname.split('.').collect();
    let shared = labels.iter().rev().zip(dns_domain.rsplit('.')).take_while(|(a, b)| **a == *b).count();
    if shared == 0 || dns_domain.is_empty() {
        return Vec::new();
    }
    let (unique, common) = labels.split_at(labels.len() - shared);
    let mut hosts = Vec::new();
    let short = unique.join(".");
    if short.is_empty() {
        return hosts;
    }
    push(&mut hosts, &short, port);
    if let ([_, _], Some(first)) = (unique, common.first()) {
        push(&mut hosts, &format!("{short}.{first}"), port);
    }
    hosts
}

/// The full host names that a name, as an application writes it, can mean.
pub fn full_hosts(name: &str, node: &Node) -> Vec<String> {
    let mut hosts = vec![name.trim_end_matches('.').to_owned()];
    if !name.contains('.') {
        hosts.push(format!("{name}.{}", node.dns_domain));
    } else if let Some((_, domain)) = node.dns_domain.split_once(".svc.") {
        let base = name.strip_suffix(".svc").unwrap_or(name);
        hosts.push(format!("{base}.svc.{domain}"));
    }
    hosts
}

#[cfg(test)]
mod tests;
