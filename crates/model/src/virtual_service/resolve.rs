//! Short names of hosts and gateways made whole.

use crate::host;
use meltemi_config::Str;
use meltemi_config::networking::{Destination, VirtualService};

/// `mesh`, or `namespace/name` from any of the ways to write it: `name`, `./name`, `ns/name`, `name.ns.svc.domain`.
pub fn gateway_name(name: &str, namespace: &str) -> String {
    if name == super::MESH {
        return name.to_owned();
    }
    if let Some((own, rest)) = name.split_once('/') {
        return if own == "." { format!("{namespace}/{rest}") } else { name.to_owned() };
    }
    match name.split_once('.') {
        None => format!("{namespace}/{name}"),
        // The legacy form: what follows the first dot is the namespace.
        Some((short, rest)) => {
            let namespace = rest.split('.').next().unwrap_or_default();
            format!("{namespace}/{short}")
        }
    }
}

pub(super) fn names(spec: &VirtualService, namespace: &str, domain: &str) -> VirtualService {
    let mut out = spec.clone();
    let whole = |name: &mut Str| *name = host::fqdn(name, namespace, domain).into();
    let gateways =
        |names: &mut Vec<Str>| names.iter_mut().for_each(|name| *name = gateway_name(name, namespace).into());
    let destination = |to: &mut Destination| whole(&mut to.host);
    out.hosts.iter_mut().for_each(whole);
    gateways(&mut out.gateways);
    for route in &mut out.http {
        route.matches.iter_mut().for_each(|rule| gateways(&mut rule.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
        route.mirror.iter_mut().for_each(destination);
        route.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut()).for_each(destination);
    }
    for route in &mut out.tls {
        route.matches.iter_mut().for_each(|rule| gateways(&mut rule.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
    }
    for route in &mut out.tcp {
        route.matches.iter_mut().for_each(|rule| gateways(&mut rule.gateways));
        route.route.iter_mut().for_each(|to| destination(&mut to.destination));
    }
    out
}
