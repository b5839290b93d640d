//! Virtual hosts one by one, for sidecars that ask for a host when a request first names it (VHDS).
//!
//! Owns which part of the mesh a host's routes can come from: what is found there is the same as in the whole route
//! configuration, without a walk over the other services' domains. A resource is called `<route>/<host>`, as Envoy asks for
//! it, and has that host as its only domain: other ways to write the same service are asked for by themselves. A host that
//! nothing serves has the routes of the catch-all, so that every question has an answer.

use std::sync::Arc;

use meltemi_config::networking::VirtualService;
use meltemi_model::{ConfigRef, EgressListener, Node, Resolution, Service, Shared, Snapshot, host};
use meltemi_proto::Any;

use super::spec::{Host, OnDemandHost, Target};
use super::{hosts, render, sidecar};
use crate::generator::Generator;
use crate::names;
use crate::view::View;

/// VHDS. A proxy names the hosts that its requests name.
pub struct VirtualHosts;

impl Generator for VirtualHosts {
    type Input = OnDemandHost;

    fn names(_: &Snapshot, _: &Node) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<OnDemandHost> {
        let (route, authority) = name.split_once('/')?;
        let names::Route::Port(port) = names::Route::parse(route) else { return None };
        if authority.is_empty() || !node.on_demand() {
            return None;
        }
        let view = View::new(snapshot, node);
        let domain = without_port(authority).to_lowercase();
        let found = view.scope.egress_for_port(port).and_then(|egress| find(&view, egress, port, &domain));
        let target = match found {
            Some(Host { routes, session, .. }) => Target::Host(Box::new(routes), session),
            None => Target::Nobody(sidecar::catch_all(&view)),
        };
        Some(OnDemandHost { name: name.into(), domain, policy: super::policy(&view), target })
    }

    fn build(input: &OnDemandHost) -> Any {
        meltemi_proto::pack_virtual_host(&render::on_demand_host(input))
    }
}

/// The virtual host of the port that takes the domain: by its full name, else by the longest wildcard.
fn find(view: &View<'_>, egress: &EgressListener, port: u32, domain: &str) -> Option<Host> {
    let wanted = Wanted::new(view, domain);
    let may_have = |service: &&Shared<Service>| wanted.may_be_of(view, service);
    let services: Vec<_> = egress.services.iter().filter(may_have).cloned().collect();
    let concerns = |rule: &&ConfigRef<VirtualService>| {
        rule.spec.hosts.iter().any(|name| {
            let name = name.to_lowercase();
            host::covers(&name, domain) || services.iter().any(|service| host::overlaps(&name, &service.hostname))
        })
    };
    let rules: Vec<_> = egress.virtual_services.iter().filter(concerns).cloned().collect();
    let narrowed = EgressListener { services: services.into(), virtual_services: rules, ..egress.clone() };
    let mut found = sidecar::port_hosts(view, &narrowed, &egress.services, port);
    let exact = found.iter().position(|host| host.domains.iter().any(|own| own.eq_ignore_ascii_case(domain)));
    let place = exact.or_else(|| {
        let longest = |host: &Host| {
            let covering = host.domains.iter().filter(|own| host::is_wildcard(own) && host::covers(own, domain));
            covering.map(String::len).max()
        };
        let covering = found.iter().enumerate().filter_map(|(place, host)| Some((longest(host)?, place)));
        covering.max().map(|(_, place)| place)
    });
    place.map(|place| found.swap_remove(place))
}

/// What is asked for, with all that a service would have to be called to be it.
struct Wanted<'a> {
    domain: &'a str,
    is_address: bool,
    /// Full names that the domain can stand for.
    full: Vec<String>,
    /// The same for what is above the domain, which may be an instance of a headless service.
    parents: Vec<String>,
}

impl<'a> Wanted<'a> {
    fn new(view: &View<'_>, domain: &'a str) -> Self {
        let above = domain.match_indices('.').map(|(dot, _)| &domain[dot + 1..]);
        Self {
            domain,
            is_address: domain.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok(),
            full: hosts::full_hosts(domain, view.node),
            parents: above.flat_map(|parent| hosts::full_hosts(parent, view.node)).collect(),
        }
    }

    /// Whether the domain may be one of the service's: never a wrong no.
    fn may_be_of(&self, view: &View<'_>, service: &Service) -> bool {
        // Outside of Kubernetes a service has short names that cannot be told from the domain alone.
        if !view.node.dns_domain.contains(".svc.") {
            return true;
        }
        let any = |names: &[String]| {
            let called = |hostname: &str| names.iter().any(|name| covers(hostname, name));
            called(&service.hostname) || service.aliases.iter().any(|alias| called(&alias.hostname))
        };
        any(&self.full)
            || service.resolution == Resolution::Passthrough && any(&self.parents)
            || self.is_address && view.addresses(service).iter().any(|address| names::bracketed(address) == self.domain)
    }
}

/// [`host::covers`] whatever the case of the pattern; `name` is in lower case.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            let start = name.len().checked_sub(suffix.len());
            start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        None => pattern.eq_ignore_ascii_case(name),
    }
}

/// `host`, `host:port`, `[v6]`, `[v6]:port` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') && port.bytes().all(|b| b.is_ascii_digit()) => {
            host
        }
        _ => authority,
    }
}
