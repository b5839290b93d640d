//! Route configurations of gateway servers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use meltemi_config::networking::VirtualService;
use meltemi_model::{ConfigRef, ObjectKey, PersistentSession, host};

use super::intersection;
use super::merge::{Bound, Merged, without_namespace};
use super::misdirected::Neighbours;
use crate::names;
use crate::route::select::{Selection, rule_routes};
use crate::route::spec::{CatchAll, Configuration, Host, Routes, RuleRoutes};
use crate::view::View;

/// A virtual host as it collects the rules of several servers.
#[derive(Default)]
struct Draft {
    rules: Vec<Arc<RuleRoutes>>,
    require_tls: bool,
    port: u32,
}

pub(crate) fn configuration(view: &View<'_>, merged: &Merged, name: &str) -> Configuration {
    let servers = merged.by_route.get(name).map(Vec::as_slice).unwrap_or_default();
    let first_port = servers.first().map_or(0, |bound| bound.port());
    let neighbours = Neighbours::of(merged, name);
    let mut drafts = drafts(view, servers);
    drafts.retain(|hostname, _| !neighbours.has(hostname));
    let unrouted = unrouted(&drafts, &neighbours);
    let mut hosts = hosts(view, drafts);
    if !unrouted.is_empty() {
        hosts.push(answering("blackhole", first_port, unrouted, Routes::Rules(Vec::new())));
    }
    if !neighbours.is_empty() {
        hosts.push(answering("misdirected", first_port, neighbours.domains(), Routes::Misdirected));
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Configuration {
        on_demand: false,
        name: name.into(),
        policy: crate::route::policy(view),
        hosts,
        catch_all: CatchAll::None,
        ignore_port: true,
    }
}

/// Domains that answer 404 by name: all, where nothing is routed at all; and the server's own that nothing routes, lest a wildcard
/// of another server takes them.
fn unrouted(drafts: &BTreeMap<String, Draft>, neighbours: &Neighbours) -> Vec<String> {
    if !neighbours.is_empty() {
        return neighbours.own().filter(|host| !drafts.contains_key(*host)).cloned().collect();
    }
    if drafts.is_empty() { vec!["*".into()] } else { Vec::new() }
}

fn answering(name: &str, port: u32, domains: Vec<String>, routes: Routes) -> Host {
    Host { name: names::domain(name, port), domains, routes, require_tls: false, session: None }
}

fn drafts(view: &View<'_>, servers: &[Bound]) -> BTreeMap<String, Draft> {
    let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
    // Several servers of one Gateway share a rule's routes.
    let mut built: BTreeMap<(Arc<str>, ObjectKey), Option<Arc<RuleRoutes>>> = BTreeMap::new();
    for bound in servers {
        let port = bound.port();
        let tls = bound.server().tls.is_some();
        for rule in view.snapshot.virtual_services_for_gateway(&bound.gateway_name, &view.node.namespace) {
            let hosts = shared_hosts(&bound.hosts, &rule);
            if hosts.is_empty() {
                continue;
            }
            let key = (bound.gateway_name.clone(), rule.key());
            let routes = built.entry(key).or_insert_with(|| {
                let selection = Selection { port, gateway: &bound.gateway_name, tls };
                let routes = rule_routes(view, &rule, &selection, &lookup(view, &rule));
                routes.map(|routes| Arc::new(RuleRoutes { advertises_http3: bound.quic, ..routes }))
            });
            let Some(routes) = routes else { continue };
            for hostname in hosts {
                let draft = drafts.entry(hostname.to_lowercase()).or_insert_with(|| Draft { port, ..Draft::default() });
                draft.rules.push(routes.clone());
                draft.require_tls |= bound.redirects();
            }
        }
        if bound.redirects() {
            for hostname in &bound.hosts {
                let hostname = without_namespace(hostname).to_lowercase();
                drafts.entry(hostname).or_insert_with(|| Draft { port, ..Draft::default() }).require_tls = true;
            }
        }
    }
    drafts
}

fn shared_hosts(server: &[Arc<str>], rule: &ConfigRef<VirtualService>) -> Vec<String> {
    let own: Vec<&str> = server
        .iter()
        .filter_map(|host| match host.split_once('/') {
            Some((namespace, host)) => (namespace == &*rule.namespace).then_some(host),
            None => Some(&**host),
        })
        .collect();
    intersection(&own, &rule.spec.hosts)
}

/// A rule's destination is first looked for in the rule's own namespace.
fn lookup<'a>(
    view: &'a View<'a>,
    rule: &'a ConfigRef<VirtualService>,
) -> impl Fn(&str) -> Option<meltemi_model::Shared<meltemi_model::Service>> + 'a {
    move |hostname| {
        let key = meltemi_model::ServiceKey::new(rule.namespace.clone(), hostname);
        let own = view.snapshot.services.get(&key).filter(|service| service.export_to.includes(&view.node.namespace));
        own.or_else(|| view.scope.service(hostname)).cloned()
    }
}

/// Hosts with the very same routes share a virtual host, so that a rule for a hundred hosts costs one. A host that is a service
/// has that service's sessions.
fn hosts(view: &View<'_>, drafts: BTreeMap<String, Draft>) -> Vec<Host> {
    let mut drafts: Vec<_> = drafts.into_iter().collect();
    drafts.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
    let mut hosts: Vec<Host> = Vec::new();
    // Rules of one generation are the same exactly where they are the same allocation.
    let mut known: HashMap<(bool, Option<PersistentSession>, Vec<*const RuleRoutes>), usize> = HashMap::new();
    for (hostname, draft) in drafts {
        let session = view.scope.service(&hostname).and_then(|service| view.session(service));
        let same = (draft.require_tls, session.clone(), draft.rules.iter().map(Arc::as_ptr).collect());
        match known.get(&same) {
            Some(index) => hosts[*index].domains.push(hostname),
            None => {
                known.insert(same, hosts.len());
                hosts.push(Host {
                    name: names::domain(&hostname, draft.port),
                    domains: vec![hostname],
                    routes: Routes::Rules(draft.rules),
                    require_tls: draft.require_tls,
                    session,
                });
            }
        }
    }
    hosts
}
