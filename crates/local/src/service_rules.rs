//! What kube-proxy does on Kubernetes: a service's address leads to one of its replicas.
//!
//! Replicas outside of the mesh need it, and proxies where they dial a service by its name (ServiceEntries resolved by DNS). The
//! rules stand in each replica's own network namespace, after those of capture, so that the client's address stays what it is.
//! Cost: as many rules as services have ports times replicas, rewritten whole at a change.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use meltemi_config::kube::KubeServicePort;
use meltemi_config::{IntOrString, Object, Spec, Str};

use crate::workload::Replica;

#[cfg(test)]
mod tests;

const CHAIN: &str = "MELTEMI_SERVICES";

/// Text for `iptables-restore --noflush`: one chain, emptied and filled again.
pub(crate) fn restore_text<'a>(
    objects: &[Object],
    addresses: &BTreeMap<String, Ipv4Addr>,
    ready: impl Iterator<Item = (&'a Replica, Ipv4Addr)> + Clone,
) -> String {
    let mut text = format!("*nat\n:{CHAIN} - [0:0]\n-F {CHAIN}\n");
    for object in objects {
        let Spec::Service(service) = &object.spec else { continue };
        let meta = &object.meta;
        let fixed = service.spec.vips().find_map(|ip| ip.parse().ok());
        let Some(vip) = fixed.or_else(|| addresses.get(&format!("{}/{}", meta.namespace, meta.name)).copied()) else {
            continue;
        };
        let selected = ready
            .clone()
            .filter(|(replica, _)| *replica.namespace == *meta.namespace && selects(&service.spec.selector, replica));
        for port in service.spec.ports.iter().filter(|port| &*port.protocol != "SCTP") {
            let targets: Vec<_> =
                selected.clone().filter_map(|(replica, address)| Some((address, target(port, replica)?))).collect();
            write_port(&mut text, vip, port, &targets);
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// The jump to the chain, put in place once.
pub(crate) fn hook_text() -> String {
    format!("*nat\n:{CHAIN} - [0:0]\n-A OUTPUT -j {CHAIN}\nCOMMIT\n")
}

pub(crate) fn selects(selector: &BTreeMap<Str, Str>, replica: &Replica) -> bool {
    let has = |(key, value): (&Str, &Str)| replica.labels.get(&**key).is_some_and(|have| **have == **value);
    !selector.is_empty() && selector.iter().all(has)
}

pub(crate) fn target(port: &KubeServicePort, replica: &Replica) -> Option<u16> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::Text(name)) => {
            let named = replica.ports.iter().find(|port| *port.name == **name);
            named.map(|port| port.number).or_else(|| name.parse().ok())
        }
    }
}

/// Each target with the chance that makes all equal: 1/n, then 1/(n-1), and the last always.
fn write_port(text: &mut String, vip: Ipv4Addr, port: &KubeServicePort, targets: &[(Ipv4Addr, u16)]) {
    let protocol = if &*port.protocol == "UDP" { "udp" } else { "tcp" };
    for (index, (address, number)) in targets.iter().enumerate() {
        let left = targets.len() - index;
        let chance = if left == 1 {
            String::new()
        } else {
            format!(" -m statistic --mode random --probability {:.8}", 1.0 / left as f64)
        };
        let to = format!("-j DNAT --to-destination {address}:{number}");
        let _ = writeln!(text, "-A {CHAIN} -d {vip}/32 -p {protocol} --dport {}{chance} {to}", port.port);
    }
    if targets.is_empty() && protocol == "tcp" {
        // In the nat table nothing can be refused; an address that nobody has is as good, and ends at once.
        let _ =
            writeln!(text, "-A {CHAIN} -d {vip}/32 -p tcp --dport {} -j DNAT --to-destination 127.0.0.1:1", port.port);
    }
}
