//! Each decision on the way, and what comes of them.

use meltemi_config::nearest;
use meltemi_plan::hcm::RouteSource;
use meltemi_plan::{Listener, Route, RouteAction, RouteConfiguration, VirtualHost};
use meltemi_translate::names;
use serde_json::Value;

use super::route::{self, answered, redirected};
use super::{Passed, Question, Step, Upstream, miss, policies, words};
use crate::policy::Decision;
use crate::request::Request;
use crate::sent::{Resource, chains};
use crate::walk::{Facts, Failure, Outcome, as_routed, route_request, wants_mesh_certificate};

/// As many of what did not fit are told of one step.
const MAX_PASSED: usize = 20;

pub(super) fn all(
    question: &Question<'_>,
    request: &Request,
    outcome: &Outcome<'_>,
    decisions: &[Decision],
) -> Vec<Step> {
    let mut steps = vec![listener(question, request, outcome)];
    let Some(Ok(plan)) = outcome.listener.map(|listener| &listener.plan) else { return steps };
    steps.push(chain(question, request, outcome, plan));
    steps.extend(policies::step(question, decisions));
    if outcome.manager.is_none() || matches!(outcome.failure, Some(Failure::Tls | Failure::Mtls | Failure::Protocol)) {
        return steps;
    }
    steps.push(routes(outcome));
    let Some(config) = outcome.routes else { return steps };
    let routed = outcome.manager.map_or_else(|| request.clone(), |manager| as_routed(request, manager));
    steps.push(host(question, &routed, outcome, config));
    if let Some(host) = outcome.host
        && outcome.failure != Some(Failure::TlsRedirect)
    {
        steps.push(the_route(question, &routed, outcome, (config, host)));
    }
    steps
}

fn listener(question: &Question<'_>, request: &Request, outcome: &Outcome<'_>) -> Step {
    let port = request.destination.port();
    let Some(resource) = outcome.listener else {
        let mut ports: Vec<u16> = question.sent.listeners.iter().filter_map(bound).map(|at| at.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let why = format!("no listener takes {}; there are some for port {}", request.destination, ports.join(", "));
        return Step { kind: "listener", why, ..Step::default() };
    };
    let why = match (outcome.refused.filter(|_| resource.plan.is_err()), bound(resource)) {
        (Some(error), _) => format!("the proxy refuses it: {error}"),
        _ if request.inbound => "takes all that comes in for the workload".to_owned(),
        (_, Some(at)) if at == request.destination => "is bound to that very address".to_owned(),
        (_, Some(at)) if at.port() == port => {
            format!("takes port {port} of every address that has no listener of its own")
        }
        _ => format!("no other listener takes {}", request.destination),
    };
    let places = if request.inbound { Vec::new() } else { gateways(question, port) };
    Step { kind: "listener", name: resource.name.to_string(), why, places, ..Step::default() }
}

fn bound(resource: &Resource<Listener>) -> Option<std::net::SocketAddr> {
    resource.plan.as_ref().ok()?.address.socket()
}

/// The Gateways that a gateway's port comes from.
fn gateways(question: &Question<'_>, port: u16) -> Vec<crate::origin::Place> {
    if !question.proxy.starts_with("gateway ") {
        return Vec::new();
    }
    question.origins.gateways(question.labels, port)
}

fn chain(question: &Question<'_>, request: &Request, outcome: &Outcome<'_>, listener: &Listener) -> Step {
    let facts = Facts::of(listener, request);
    let chosen = outcome.chain;
    let others = chains(listener).filter(|chain| chosen.is_none_or(|chosen| !std::sync::Arc::ptr_eq(chosen, chain)));
    let passed = others.map(|chain| Passed {
        name: if chain.name.is_empty() { "(without a name)".to_owned() } else { chain.name.to_string() },
        reason: miss::chain(chain, &facts, request),
        place: None,
    });
    let passed: Vec<Passed> = passed.take(MAX_PASSED).collect();
    let policy = || question.origins.peer_authentication(question.namespace, question.root_namespace, question.labels);
    let policy = if request.inbound { policy() } else { None };
    let Some(chain) = chosen else {
        let why = "none takes the connection: it is closed".to_owned();
        return Step { kind: "filter chain", why, places: policy.into_iter().collect(), passed, ..Step::default() };
    };
    let wanted = words::criteria(&chain.criteria);
    let is_default = listener.default_chain.as_ref().is_some_and(|default| std::sync::Arc::ptr_eq(default, chain));
    let why = match (is_default, wanted.is_empty()) {
        (true, _) => "no other one fits".to_owned(),
        (false, true) => "takes any connection".to_owned(),
        (false, false) => format!("takes {wanted}"),
    };
    let mut places: Vec<_> = question
        .origins
        .of_metadata(Some(&chain.metadata))
        .and_then(|key| question.origins.place(&key, ""))
        .into_iter()
        .collect();
    places.extend(policy);
    let mut facts = vec![("TLS", terminated(outcome, request))];
    if let Some(tcp) = outcome.tcp {
        facts.push(("idle timeout", words::limit(tcp.idle_timeout)));
    }
    Step { kind: "filter chain", name: chain.name.to_string(), why, places, facts, passed, is_found: true }
}

fn terminated(outcome: &Outcome<'_>, request: &Request) -> String {
    let Some(tls) = outcome.chain.and_then(|chain| chain.tls.as_ref()) else { return "is not ended here".to_owned() };
    if wants_mesh_certificate(tls, &request.mtls_secret) {
        return "mutual TLS of the mesh is ended here".to_owned();
    }
    let client = if tls.require_client_certificate { ", a client certificate is asked for" } else { "" };
    match tls.common.certificates.first() {
        Some(meltemi_plan::tls::SecretRef::Sds { name, .. }) => {
            format!("is ended here with certificate {name}{client}")
        }
        _ => format!("is ended here{client}"),
    }
}

fn routes(outcome: &Outcome<'_>) -> Step {
    let count = |config: &RouteConfiguration| format!("{} virtual hosts", config.virtual_hosts.len());
    let inline = outcome.manager.is_some_and(|manager| matches!(manager.route, RouteSource::Inline(_)));
    let (name, why) = match (outcome.rds, outcome.routes) {
        (Some(name), Some(config)) => (name, count(config)),
        (Some(name), None) => match outcome.refused {
            Some(error) => (name, format!("the proxy refuses them: {error}")),
            None => (name, "the control plane has no routes of that name".to_owned()),
        },
        (None, Some(config)) if inline => ("", format!("part of the listener, {}", count(config))),
        (None, _) => ("", "none".to_owned()),
    };
    Step { kind: "routes", name: name.to_owned(), why, ..Step::default() }
}

fn host(question: &Question<'_>, request: &Request, outcome: &Outcome<'_>, config: &RouteConfiguration) -> Step {
    let step = Step { kind: "virtual host", ..Step::default() };
    let Some(host) = outcome.host else {
        let known = config.virtual_hosts.iter().map(|host| &*host.name);
        let near = nearest(&request.host, known.clone());
        let listed = || known.take(8).collect::<Vec<_>>().join(", ");
        let hint = near.map_or_else(|| format!("there are {}", listed()), |near| format!("did you mean {near}?"));
        return Step { why: format!("no virtual host has the host {:?}; {hint}", request.host), ..step };
    };
    let domain = domains(question, outcome, &host.name).into_iter().filter(|domain| takes(domain, config, request));
    let why = match domain.max_by_key(|domain| (*domain != "*", !domain.contains('*'), domain.len())) {
        Some(domain) => format!("has {domain:?} among its domains"),
        None => format!("takes host {:?}", request.host),
    };
    let why = match outcome.failure {
        Some(Failure::TlsRedirect) => format!("{why}; it wants TLS and sends plain requests to https"),
        _ => why,
    };
    let service = host.name.rsplit_once(':').map_or(&*host.name, |(name, _)| name);
    let places = question.origins.of_host(service).into_iter().collect();
    Step { name: host.name.to_string(), why, places, ..step }
}

/// The domains of a virtual host, as they were sent.
fn domains(question: &Question<'_>, outcome: &Outcome<'_>, name: &str) -> Vec<String> {
    let Some(resource) = outcome.rds.and_then(|rds| question.sent.route(rds)) else { return Vec::new() };
    let json = resource.json();
    let hosts = json["virtual_hosts"].as_array().cloned().unwrap_or_default();
    let domains = hosts.iter().find(|host| host["name"] == *name).map(|host| host["domains"].clone());
    let list = domains.as_ref().and_then(Value::as_array).cloned().unwrap_or_default();
    list.iter().filter_map(|domain| domain.as_str().map(str::to_owned)).collect()
}

/// Whether a domain takes the request's host, by the look-up that the routes make.
fn takes(domain: &str, config: &RouteConfiguration, request: &Request) -> bool {
    let mut trie = meltemi_matchers::DomainTrie::default();
    let bare = meltemi_plan::route::find::without_port(&request.host);
    let host = if config.ignore_port { bare } else { &request.host };
    trie.insert(domain, ()).is_ok() && trie.find(host).is_some()
}

fn the_route(
    question: &Question<'_>,
    request: &Request,
    outcome: &Outcome<'_>,
    (config, host): (&RouteConfiguration, &VirtualHost),
) -> Step {
    let view = route_request(request);
    let is_chosen = |route: &Route| outcome.route.is_some_and(|chosen| std::ptr::eq(&**chosen, route));
    let before = host.routes.iter().take_while(|route| !is_chosen(route));
    let passed = before.filter_map(|route| {
        let reason = miss::route(config.mismatch(route, &view)?, request);
        Some(Passed { name: title(route), reason, place: question.origins.of_route(host, route) })
    });
    let passed: Vec<Passed> = passed.take(MAX_PASSED).collect();
    let step = Step { kind: "route", passed, ..Step::default() };
    let Some(route) = outcome.route else {
        return Step { why: format!("none of the {} routes takes it", host.routes.len()), ..step };
    };
    Step {
        name: title(route),
        why: format!("takes {}", words::conditions(&route.matcher)),
        places: question.origins.of_route(host, route).into_iter().collect(),
        facts: route::facts(host, route),
        ..step
    }
}

fn title(route: &Route) -> String {
    if route.name.is_empty() { "(without a name)".to_owned() } else { route.name.to_string() }
}

/// What becomes of the request, and whether that is what somebody who sends it may hope for.
pub(super) fn verdict(request: &Request, outcome: &Outcome<'_>, upstreams: &[Upstream]) -> (String, bool) {
    if let Some(failure) = outcome.failure {
        return (failed(failure, request), false);
    }
    match outcome.route.map(|route| &route.action) {
        Some(RouteAction::Redirect(redirect)) => return (format!("redirected: {}", redirected(redirect)), true),
        Some(RouteAction::DirectResponse(response)) => {
            return (format!("answered by the proxy itself: {}", answered(response)), response.status < 400);
        }
        Some(RouteAction::NonForwarding) => return ("taken, and forwarded nowhere".to_owned(), false),
        Some(RouteAction::Forward(_)) | None => {}
    }
    let named: Vec<String> =
        upstreams.iter().map(|upstream| destination(upstream, request, upstreams.len() > 1)).collect();
    let broken = upstreams.iter().filter(|upstream| upstream.problem.is_some()).count();
    match (named.len(), broken) {
        (0, _) => ("taken, and forwarded nowhere".to_owned(), false),
        (1, 1) => (format!("fails: goes {}, and {}", named[0], problem(&upstreams[0])), false),
        (all, broken) if all == broken => ("fails: none of its clusters serves anybody".to_owned(), false),
        (_, 0) => (format!("goes {}", named.join(", ")), true),
        (_, _) => {
            let wrong: Vec<&Upstream> = upstreams.iter().filter(|upstream| upstream.problem.is_some()).collect();
            let share: f64 = wrong.iter().map(|upstream| upstream.share).sum();
            (format!("{} of it fails: goes {}", words::percent(share), named.join(", ")), false)
        }
    }
}

fn problem(upstream: &Upstream) -> &str {
    upstream.problem.as_deref().unwrap_or_default()
}

/// `catalog.shop.svc.cluster.local:8080 subset v1`, with its share where there are several.
fn destination(upstream: &Upstream, request: &Request, shared: bool) -> String {
    let text = match names::Cluster::parse(&upstream.cluster) {
        names::Cluster::Outbound { port, subset, host } | names::Cluster::OutboundSni { port, subset, host } => {
            let subset = if subset.is_empty() { String::new() } else { format!(" subset {subset}") };
            format!("{host}:{port}{subset}")
        }
        names::Cluster::Inbound { port } => format!("the workload itself, port {port}"),
        names::Cluster::Fixed(names::PASSTHROUGH_CLUSTER | names::INBOUND_PASSTHROUGH_CLUSTER) => {
            format!("{}, as it was sent ({})", request.destination, upstream.cluster)
        }
        names::Cluster::Fixed(name) => name.to_owned(),
    };
    if shared { format!("{} to {text}", words::percent(upstream.share)) } else { format!("to {text}") }
}

pub(super) fn failed(failure: Failure, request: &Request) -> String {
    let what = match failure {
        Failure::NoListener => "refused: no listener takes the connection",
        Failure::NoFilterChain => "closed: no filter chain takes the connection",
        Failure::MultipleFilterChains => "refused: two filter chains ask for the same, so the listener is not in force",
        Failure::Tls => "fails: the listener wants TLS, the client speaks plaintext",
        Failure::Mtls if request.security == crate::request::Security::Mtls => {
            "fails: the client speaks the mesh's mutual TLS, the listener has another certificate"
        }
        Failure::Mtls => "fails: the listener wants a certificate of the mesh, the client has none",
        Failure::Protocol => "fails: the listener speaks plain HTTP, the client does not",
        Failure::NoVirtualHost => "answered 404: no virtual host has the request's host",
        Failure::TlsRedirect => "redirected: 301 to https",
        Failure::NoRoute => "answered 404: no route of the virtual host takes the request",
    };
    what.to_owned()
}
