//! The chains of a TCP or TLS port: by VirtualService where one matches, else straight to the service.

use std::collections::BTreeSet;

use meltemi_config::networking::{DestinationRule, RouteDestination, VirtualService};
use meltemi_config::wire::Str;
use meltemi_model::{ConfigRef, Labels, Protocol, Service, host};

use super::spec::{Chain, Match, Origin, Tcp, Terminal, Tunnel};
use crate::dynamic_dns::{self, DnsCache};
use crate::names;
use crate::view::{View, consistent_hash_source_ip, destination_cluster};

/// A port on which TCP is accepted, as the routes of its services see it.
pub struct Port<'a> {
    pub service: &'a Service,
    pub number: u32,
    pub protocol: Protocol,
    /// The primary address bound.
    pub bind: &'a str,
    /// Ranges that stand for the service, where it has no single address.
    pub cidrs: &'a [String],
    /// The ranges are instances of a headless service, which nothing else tells apart.
    pub per_instance: bool,
}

/// Of the sidecar's outbound listener on `port`.
pub fn chains(view: &View<'_>, port: &Port<'_>, rules: &[ConfigRef<VirtualService>]) -> Vec<Chain> {
    let matching: Vec<_> = rules
        .iter()
        .filter(|rule| rule.spec.hosts.iter().any(|name| host::covers(name, &port.service.hostname)))
        .collect();
    if port.protocol.is_tls() { tls_chains(view, port, &matching) } else { tcp_chains(view, port, &matching) }
}

fn tls_chains(view: &View<'_>, port: &Port<'_>, rules: &[&ConfigRef<VirtualService>]) -> Vec<Chain> {
    let mut chains = Vec::new();
    let mut seen = BTreeSet::new();
    for rule in rules {
        let routes = rule.spec.tls.iter().filter(|tls| !tls.route.is_empty());
        for (route, matches) in routes.flat_map(|tls| tls.matches.iter().map(move |m| (&tls.route, m))) {
            let scope = L4Scope {
                port: matches.port,
                labels: &matches.source_labels,
                namespace: &matches.source_namespace,
                gateways: &matches.gateways,
            };
            let key = (matches.sni_hosts.join(","), matches.destination_subnets.join(","));
            if !scope.applies(view, port.number) || !seen.insert(key) {
                continue;
            }
            let cidrs = match matches.destination_subnets.as_slice() {
                [] => port.cidrs.to_vec(),
                own => own.iter().map(ToString::to_string).collect(),
            };
            let sni = matches.sni_hosts.iter().map(ToString::to_string).collect();
            let tcp = routed(view, route, port.number, rule);
            chains.push(chain(sni, cidrs, tcp, Some(origin(rule))));
        }
    }
    if chains.is_empty() {
        chains.push(chain(service_sni(view, port), port.cidrs.to_vec(), direct(view, port), None));
    }
    chains
}

/// A TLS service without an address of its own is told apart by name.
fn service_sni(view: &View<'_>, port: &Port<'_>) -> Vec<String> {
    if port.per_instance {
        return Vec::new();
    }
    let addresses = view.addresses(port.service);
    let wildcard = view.profile.addresses.wildcards()[0];
    let by_address = addresses.iter().any(|address| !address.contains('/'));
    let shares_listener = !by_address && port.bind == wildcard;
    if !port.cidrs.is_empty() || shares_listener || dynamic_dns::is_dynamic(port.service) {
        let mut names = vec![port.service.hostname.to_string()];
        for alias in &port.service.aliases {
            names.push(alias.hostname.to_string());
            names.extend(crate::route::alternative_hosts(&alias.hostname, None, &view.node.dns_domain));
        }
        return names;
    }
    Vec::new()
}

fn tcp_chains(view: &View<'_>, port: &Port<'_>, rules: &[&ConfigRef<VirtualService>]) -> Vec<Chain> {
    let mut chains = Vec::new();
    for rule in rules {
        for tcp in rule.spec.tcp.iter().filter(|tcp| !tcp.route.is_empty()) {
            let mut subnets = Vec::new();
            let mut everything = tcp.matches.is_empty();
            for matches in &tcp.matches {
                let scope = L4Scope {
                    port: matches.port,
                    labels: &matches.source_labels,
                    namespace: &matches.source_namespace,
                    gateways: &matches.gateways,
                };
                if scope.applies(view, port.number) {
                    everything |= matches.destination_subnets.is_empty();
                    subnets.extend(matches.destination_subnets.iter().map(ToString::to_string));
                }
            }
            if everything {
                let to = routed(view, &tcp.route, port.number, rule);
                chains.push(chain(Vec::new(), port.cidrs.to_vec(), to, Some(origin(rule))));
                return chains;
            }
            if !subnets.is_empty() {
                let same = subnets.iter().collect::<BTreeSet<_>>() == port.cidrs.iter().collect::<BTreeSet<_>>();
                chains.push(chain(Vec::new(), subnets, routed(view, &tcp.route, port.number, rule), None));
                if same {
                    return chains;
                }
            }
        }
    }
    chains.push(chain(Vec::new(), port.cidrs.to_vec(), direct(view, port), None));
    chains
}

/// What of an L4 match depends on the client.
struct L4Scope<'a> {
    port: u32,
    labels: &'a std::collections::BTreeMap<Str, Str>,
    namespace: &'a str,
    gateways: &'a [Str],
}

impl L4Scope<'_> {
    fn applies(&self, view: &View<'_>, port: u32) -> bool {
        (self.gateways.is_empty() || self.gateways.iter().any(|name| &**name == names::MESH_GATEWAY))
            && is_subset(self.labels, &view.node.labels)
            && (self.port == 0 || self.port == port)
            && (self.namespace.is_empty() || self.namespace == &*view.node.namespace)
    }
}

/// True when every pair of the selector is a label.
pub fn is_subset(selector: &std::collections::BTreeMap<Str, Str>, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn chain(server_names: Vec<String>, prefixes: Vec<String>, tcp: Tcp, origin: Option<Origin>) -> Chain {
    Chain {
        name: String::new(),
        matches: Match { server_names, prefixes, ..Match::default() },
        tls: None,
        exchange_metadata: false,
        report: true,
        terminal: Terminal::Tcp(tcp),
        origin,
    }
}

pub fn origin(rule: &ConfigRef<VirtualService>) -> Origin {
    Origin::networking("virtual-service", &rule.namespace, &rule.name)
}

/// To the service itself.
fn direct(view: &View<'_>, port: &Port<'_>) -> Tcp {
    // A listener of a Sidecar's own port leads to the only port that the service has.
    let number = match port.service.ports.as_slice() {
        [only] => only.number,
        _ => port.number,
    };
    let cluster = names::outbound(number, "", &port.service.hostname);
    let rule = view.destination_rule(port.service);
    let mut tcp = to_destination(view, cluster.clone(), rule.as_ref().map(|rule| rule.spec()), "");
    tcp.stat_prefix = view.outbound_stat_prefix(&cluster, port.service, "", number);
    tcp.mongo = port.protocol == Protocol::Mongo;
    if dynamic_dns::is_dynamic(port.service) {
        let cache = DnsCache::of_service(port.service, view.node.has_ipv4(), view.node.has_ipv6());
        tcp.sni_forward = Some((cache, port.number));
    }
    tcp
}

/// To the destinations of a VirtualService's route.
pub fn routed(view: &View<'_>, routes: &[RouteDestination], port: u32, rule: &ConfigRef<VirtualService>) -> Tcp {
    let service = |route: &RouteDestination| view.scope.service(&route.destination.host);
    let first = routes.first().and_then(service);
    let policy = first.and_then(|service| view.destination_rule(service));
    let policy = policy.as_ref().map(|policy| policy.spec());
    if let [only] = routes {
        let cluster = destination_cluster(&only.destination, first.map(|s| &**s), port);
        let mut tcp = to_destination(view, cluster.clone(), policy, &only.destination.subset);
        if let Some(service) = first {
            let number = only.destination.port.as_ref().map_or(port, |port| port.number);
            tcp.stat_prefix = view.outbound_stat_prefix(&cluster, service, &only.destination.subset, number);
        }
        return tcp;
    }
    let mut tcp = to_destination(view, String::new(), policy, "");
    tcp.stat_prefix = format!("{}.{}", rule.name, rule.namespace);
    tcp.clusters = routes
        .iter()
        .filter_map(|route| {
            let weight = u32::try_from(route.weight).ok().filter(|weight| *weight > 0)?;
            Some((destination_cluster(&route.destination, service(route).map(|s| &**s), port), weight))
        })
        .collect();
    tcp
}

fn to_destination(view: &View<'_>, cluster: String, rule: Option<&DestinationRule>, subset: &str) -> Tcp {
    let policy = rule.and_then(|rule| rule.traffic_policy.as_ref());
    let pool = policy.and_then(|policy| policy.connection_pool.as_ref()).and_then(|pool| pool.tcp.as_ref());
    let tunnel = match rule.and_then(|rule| rule.subsets.iter().find(|s| *s.name == *subset && !subset.is_empty())) {
        Some(own) => own.traffic_policy.as_ref().and_then(|policy| policy.tunnel.as_ref()),
        None => policy.and_then(|policy| policy.tunnel.as_ref()),
    };
    Tcp {
        idle_timeout: pool.and_then(|pool| pool.idle_timeout).or(view.profile.idle_timeout),
        max_connection_duration: pool.and_then(|pool| pool.max_connection_duration),
        hash_source_ip: rule.is_some_and(|rule| consistent_hash_source_ip(rule, subset)),
        tunnel: tunnel.map(|tunnel| Tunnel {
            target: names::domain(&tunnel.target_host, tunnel.target_port),
            post: &*tunnel.protocol == "POST",
        }),
        ..Tcp::to(cluster)
    }
}

/// The service addressed by SNI through an AUTO_PASSTHROUGH server, without its policy's tunnel.
pub fn passthrough(view: &View<'_>, cluster: String, service: &Service, subset: &str) -> Tcp {
    let rule = view.destination_rule(service);
    let mut tcp = to_destination(view, cluster, rule.as_ref().map(|rule| rule.spec()), subset);
    (tcp.tunnel, tcp.unopened) = (None, true);
    tcp
}

/// For chains that the caller names.
pub fn named(name: &str, matches: Match, tcp: Tcp) -> Chain {
    Chain { name: name.into(), matches, ..chain(Vec::new(), Vec::new(), tcp, None) }
}
