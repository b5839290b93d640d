//! Which parts of a VirtualService apply to one proxy at one port, and where they lead.

use std::sync::Arc;

use meltemi_config::networking::{
    ConsistentHashLb, Destination as Target, HttpMatchRequest, HttpRoute, PortTrafficPolicy, TrafficPolicy,
    VirtualService,
};
use meltemi_model::{ConfigRef, Resilience, Service, Shared};

use super::matching;
use super::spec::{Destination, Hash, RuleRoutes, Selected};
use crate::listener::tcp;
use crate::view::{View, destination_cluster};

/// Where the rule is asked.
pub struct Selection<'a> {
    /// Of the listener; 0 where one route configuration serves many ports.
    pub port: u32,
    /// `mesh`, or the Gateway's `namespace/name`.
    pub gateway: &'a str,
    /// The listener terminates TLS.
    pub tls: bool,
}

/// Finds the service that a destination names.
pub type Lookup<'a> = dyn Fn(&str) -> Option<Shared<Service>> + 'a;

/// `None` where no entry of the rule applies.
pub fn rule_routes(
    view: &View<'_>,
    rule: &ConfigRef<VirtualService>,
    selection: &Selection<'_>,
    lookup: &Lookup<'_>,
) -> Option<RuleRoutes> {
    let mut selected = Vec::new();
    'entries: for (http, entry) in rule.spec.http.iter().enumerate() {
        let indexes: Vec<Option<usize>> = match entry.matches.len() {
            0 => vec![None],
            length => (0..length).map(Some).collect(),
        };
        let mut targets = None;
        for index in indexes {
            let matches = index.and_then(|index| entry.matches.get(index));
            if !applies(view, matches, selection) {
                continue;
            }
            let (destinations, mirrors, resilience, session) = targets
                .get_or_insert_with(|| {
                    let destinations =
                        entry.route.iter().map(|to| destination(view, &to.destination, selection, lookup));
                    let mirrors =
                        entry.mirror.iter().chain(entry.mirrors.iter().filter_map(|m| m.destination.as_ref()));
                    let mirrors = mirrors.map(|to| cluster(to, selection, lookup));
                    let resilience = Arc::new(resilience(view, entry, lookup));
                    let mut services = entry.route.iter().filter_map(|to| lookup(&to.destination.host));
                    let session = services.find_map(|service| view.session(&service));
                    (destinations.collect::<Arc<[_]>>(), mirrors.collect::<Arc<[_]>>(), resilience, session)
                })
                .clone();
            selected.push(Selected { http, matches: index, destinations, mirrors, resilience, session });
            // What follows a match of everything is never reached.
            if matching::is_catch_all(matches) {
                break 'entries;
            }
        }
    }
    (!selected.is_empty()).then(|| RuleRoutes {
        rule: rule.clone(),
        port: selection.port,
        tls: selection.tls,
        advertises_http3: false,
        selected,
    })
}

/// What policies turn on, feature by feature, where they say the same of all destinations: a route has one policy for them
/// all. Retries of the rule's own come before.
fn resilience(view: &View<'_>, entry: &HttpRoute, lookup: &Lookup<'_>) -> Resilience {
    let mut found = entry.route.iter().map(|to| {
        let host = &to.destination.host;
        view.resilience(lookup(host).as_deref().map_or(host, |service| &service.hostname))
    });
    let Some(mut all) = found.next() else { return Resilience::default() };
    if entry.retries.is_some() {
        all.retries = None;
    }
    found.for_each(|other| {
        all.retries.take_if(|own| other.retries.as_ref() != Some(own));
        all.anomalies.take_if(|own| other.anomalies.as_ref() != Some(own));
    });
    all
}

fn applies(view: &View<'_>, matches: Option<&HttpMatchRequest>, selection: &Selection<'_>) -> bool {
    let Some(matches) = matches else { return true };
    if matches.port != 0 && matches.port != selection.port {
        return false;
    }
    if !matches.gateways.is_empty() {
        return matches.gateways.iter().any(|name| &**name == selection.gateway);
    }
    tcp::is_subset(&matches.source_labels, &view.node.labels)
        && (matches.source_namespace.is_empty() || matches.source_namespace == view.node.namespace)
}

fn cluster(target: &Target, selection: &Selection<'_>, lookup: &Lookup<'_>) -> String {
    destination_cluster(target, lookup(&target.host).as_deref(), selection.port)
}

fn destination(view: &View<'_>, target: &Target, selection: &Selection<'_>, lookup: &Lookup<'_>) -> Destination {
    let service = lookup(&target.host).or_else(|| view.scope.service(&target.host).cloned());
    Destination {
        cluster: cluster(target, selection, lookup),
        hash: service.and_then(|service| destination_hash(view, &service, target)),
    }
}

/// The consistent hash of a VirtualService's destination: of the subset's port, the subset, the port, the rule.
fn destination_hash(view: &View<'_>, service: &Service, target: &Target) -> Option<Hash> {
    let merged = view.destination_rule(service)?;
    let rule = merged.spec();
    let port = target.port.as_ref().map(|port| port.number);
    let of_port = |policy: Option<&TrafficPolicy>| port.and_then(|port| port_hash(policy, port)?.cloned());
    let subset = rule.subsets.iter().find(|subset| subset.name == target.subset);
    let subset = subset.and_then(|subset| subset.traffic_policy.as_ref());
    let whole = rule.traffic_policy.as_ref();
    let chosen = of_port(subset)
        .or_else(|| policy_hash(subset).cloned())
        .or_else(|| of_port(whole))
        .or_else(|| policy_hash(whole).cloned())?;
    hash(&chosen)
}

/// The consistent hash of a service's port without a VirtualService.
pub fn service_hash(view: &View<'_>, service: &Service, port: u32) -> Option<Hash> {
    let merged = view.destination_rule(service)?;
    let policy = merged.spec().traffic_policy.as_ref();
    port_hash(policy, port).flatten().or_else(|| policy_hash(policy)).and_then(hash)
}

fn policy_hash(policy: Option<&TrafficPolicy>) -> Option<&ConsistentHashLb> {
    policy?.load_balancer.as_ref()?.consistent_hash.as_ref()
}

/// Outer `None`: the port has no settings; inner: they have no consistent hash.
fn port_hash(policy: Option<&TrafficPolicy>, port: u32) -> Option<Option<&ConsistentHashLb>> {
    let own = |entry: &&PortTrafficPolicy| entry.port.as_ref().is_some_and(|own| own.number == port);
    let entry = policy?.port_level_settings.iter().find(own)?;
    Some(entry.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref()))
}

fn hash(settings: &ConsistentHashLb) -> Option<Hash> {
    if let Some(name) = &settings.http_header_name {
        return Some(Hash::Header(name.clone()));
    }
    if let Some(cookie) = &settings.http_cookie {
        return Some(Hash::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl,
            attributes: cookie.attributes.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
        });
    }
    if settings.use_source_ip == Some(true) {
        return Some(Hash::SourceIp);
    }
    settings.http_query_parameter_name.clone().map(Hash::QueryParameter)
}
