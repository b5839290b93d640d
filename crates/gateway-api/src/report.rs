//! The status of every object of the Gateway API that is ours.

use crate::catalogue::Catalogue;
use crate::class::{Controller, GATEWAY_CONTROLLER};
use crate::error::{Problem, reason};
use crate::gateway::{Outcome, SetOutcome};
use crate::instances::{Addressed, Reach, Services};
use crate::listener::Report;
use crate::parent::{Bound, ParentKind, text};
use crate::route::{self, Context, Rules};
use crate::status::{
    Address, ClassStatus, Condition, Draft, GatewayStatus, ListenerSetStatus, ListenerStatus, RouteParentStatus,
    RouteStatus, Status, SupportedFeature,
};
use crate::{Settings, feature, gateway, ingress, l4, policy};
use meltemi_config::gateway_api::{
    FrontendValidationMode, GatewayClass, GrpcRoute, HttpRoute, KubernetesGateway, ParentReference, TcpRoute, TlsRoute,
};
use meltemi_config::{Key, Kind, Meta, Str};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// On a Gateway: whether addresses or host names are reported.
const ADDRESS_TYPE: &str = "networking.istio.io/address-type";

/// How many routes are attached to a listener.
type Attached = BTreeMap<(Key, Str), u32>;

/// The status of every object that is ours. `services` are those of the mesh.
pub fn statuses(catalogue: &Catalogue, settings: &Settings, services: &dyn Services) -> BTreeMap<Key, Status> {
    let domain = &*settings.domain;
    let services: &dyn Services = &Addressed { services, catalogue, domain };
    let gateways = gateway::all(catalogue, domain);
    let made = gateways.iter().flat_map(|gateway| &gateway.made);
    let context = Context { catalogue, domain, parents: crate::parent::Parents::of(made) };
    let mut all = BTreeMap::new();
    let mut attached = Attached::new();
    routes(&context, &mut all, &mut attached);
    for (meta, spec) in catalogue.all::<GatewayClass>() {
        if Controller::of_name(&spec.controller_name).is_some() {
            let accepted = Draft::new("Accepted", "Handled by Istio controller").finish("Accepted", meta.generation);
            let supported_features = feature::SUPPORTED.iter().map(|name| SupportedFeature { name }).collect();
            let status = ClassStatus { conditions: vec![accepted], supported_features };
            all.insert(key(Kind::GatewayClass, meta), Status::GatewayClass(status));
        }
    }
    for outcome in &gateways {
        let status = match outcome.controller {
            Controller::Remote => remote_status(outcome),
            _ => gateway_status(outcome, services, &attached),
        };
        all.insert(key(Kind::KubernetesGateway, outcome.meta), Status::Gateway(status));
        for set in &outcome.sets {
            let status = set_status(outcome, set, services, &attached);
            all.insert(key(Kind::ListenerSet, set.meta), Status::ListenerSet(status));
        }
    }
    let gateways_of = policy::of_routes(catalogue);
    all.extend(policy::all(&policy::Context { catalogue, domain, gateways: &gateways_of }).statuses);
    all.extend(ingress::statuses(catalogue, &settings.ingress));
    all
}

fn key(kind: Kind, meta: &Meta) -> Key {
    Key { kind, namespace: meta.namespace.clone(), name: meta.name.clone() }
}

fn routes(context: &Context<'_>, all: &mut BTreeMap<Key, Status>, attached: &mut Attached) {
    let mut add = |kind, meta: &Meta, status: RouteStatus, bound: &[Bound<'_>]| {
        all.insert(key(kind, meta), Status::Route(status));
        for own in bound.iter().filter(|own| own.denied.is_none() && !own.is_mesh()) {
            let kind =
                if own.key.kind == ParentKind::ListenerSet { Kind::ListenerSet } else { Kind::KubernetesGateway };
            let parent = (Key::new(kind, own.key.namespace, own.key.name), own.parent.section.clone());
            *attached.entry(parent).or_default() += 1;
        }
    };
    macro_rules! report {
        ($type:ty, $kind:expr, $view:path, $bindings:path) => {
            for (meta, spec) in context.catalogue.all::<$type>() {
                let route = $view(meta, spec);
                let found = $bindings(context, &route, spec);
                let problems = (problem(&found.mesh), problem(&found.gateway));
                add($kind, meta, route_status(meta, &found.parents, problems), &found.parents);
            }
        };
    }
    report!(HttpRoute, Kind::HttpRoute, route::http_view, route::http_bindings);
    report!(GrpcRoute, Kind::GrpcRoute, route::http_view, route::http_bindings);
    report!(TcpRoute, Kind::TcpRoute, l4::tcp_view, l4::tcp_bindings);
    report!(TlsRoute, Kind::TlsRoute, l4::tls_view, l4::tls_bindings);
}

fn problem<T>(rules: &Rules<T>) -> Option<Problem> {
    rules.problem.clone()
}

/// One entry for each reference, whatever the number of its listeners.
fn route_status(meta: &Meta, bound: &[Bound<'_>], problems: (Option<Problem>, Option<Problem>)) -> RouteStatus {
    let mut references: Vec<&ParentReference> = Vec::new();
    for own in bound {
        if !references.contains(&own.reference) {
            references.push(own.reference);
        }
    }
    references.sort_by_cached_key(|reference| std::cmp::Reverse(text(reference, &meta.namespace)));
    let (mesh, gateway) = problems;
    let one = |reference: &ParentReference| {
        let own: Vec<_> = bound.iter().filter(|own| own.reference == reference).collect();
        let is_mesh = own.iter().any(|own| own.is_mesh());
        let problem = if is_mesh { mesh.clone() } else { gateway.clone() };
        RouteParentStatus {
            parent_ref: reference.clone(),
            controller_name: GATEWAY_CONTROLLER,
            conditions: vec![
                accepted(&own).finish("Accepted", meta.generation),
                Draft { problem, ..Draft::new("ResolvedRefs", "All references resolved") }
                    .finish("ResolvedRefs", meta.generation),
            ],
        }
    };
    RouteStatus { parents: references.into_iter().map(one).collect() }
}

/// A reference is accepted if one listener takes the route; else the least that is wrong counts.
fn accepted(own: &[&Bound<'_>]) -> Draft {
    let taken = own.iter().filter(|bound| bound.denied.is_none()).count();
    let mut draft = Draft::new("Accepted", "Route was valid");
    if taken > 1 {
        draft.message = format!("Route was valid, bound to {taken} parents");
    }
    if taken > 0 {
        return draft;
    }
    let rank = |problem: &Problem| match problem.reason {
        reason::NOT_ALLOWED_BY_LISTENERS => 1,
        reason::NO_MATCHING_LISTENER_HOSTNAME => 2,
        _ => 3,
    };
    let denials: Vec<&Problem> = own.iter().filter_map(|bound| bound.denied.as_ref()).collect();
    let least = denials.iter().map(|problem| rank(problem)).min();
    let counting: Vec<_> = denials.into_iter().filter(|problem| Some(rank(problem)) == least).collect();
    if let Some(first) = counting.first() {
        let messages: Vec<&str> = counting.iter().map(|problem| problem.message.as_str()).collect();
        draft.problem = Some(Problem::new(first.reason, messages.join("; ")));
    }
    draft
}

fn listener_statuses(owner: &Key, reports: &[Report], attached: &Attached) -> Vec<ListenerStatus> {
    let one = |report: &Report| ListenerStatus {
        name: report.name.clone(),
        attached_routes: attached.get(&(owner.clone(), report.name.clone())).copied().unwrap_or_default(),
        supported_kinds: report.supported.iter().map(|kind| (*kind).into()).collect(),
        conditions: report.conditions.clone(),
    };
    reports.iter().map(one).collect()
}

/// Ports of servers, whether they are in order or not.
fn ports<'a>(reports: impl IntoIterator<Item = &'a Report>) -> BTreeSet<u32> {
    let servers = reports.into_iter().filter_map(|report| report.server.as_ref());
    servers.filter_map(|server| server.port.as_ref().map(|port| port.number)).collect()
}

fn gateway_status(outcome: &Outcome<'_>, services: &dyn Services, attached: &Attached) -> GatewayStatus {
    let meta = outcome.meta;
    let sets: Vec<_> = outcome.sets.iter().filter(|set| set.is_valid()).collect();
    let added = sets.iter().flat_map(|set| &set.listeners).filter(|report| report.valid);
    let ports = ports(outcome.listeners.iter().chain(added));
    let reach = Reach::of(services, &meta.namespace, &outcome.services, &ports);
    let mut accepted = Draft::new("Accepted", "Resource accepted");
    let valid = outcome.listeners.iter().filter(|report| report.valid).count();
    if let Some(problem) = &outcome.problem {
        accepted.problem = Some(problem.clone());
    } else if valid == 0 && !outcome.spec.listeners.is_empty() {
        accepted.problem = Some(Problem::new("ListenersNotValid", "None of the Gateway's listeners are valid"));
    } else if valid < outcome.spec.listeners.len() {
        accepted = Draft::new("ListenersNotValid", "One or more of the Gateway's listeners are invalid");
    }
    let resolved =
        Draft { problem: outcome.backend_problem.clone(), ..Draft::new("ResolvedRefs", "All references resolved") };
    let insecure = is_insecure(outcome.spec).then(|| {
        let message = "Gateway is operating in AllowInsecureFallback mode for frontend validation";
        Draft::new("ConfigurationChanged", message).finish("InsecureFrontendValidationMode", meta.generation)
    });
    let conditions: Vec<Condition> = [
        Some(accepted.finish("Accepted", meta.generation)),
        insecure,
        Some(reach.programmed(&outcome.services).finish("Programmed", meta.generation)),
        Some(resolved.finish("ResolvedRefs", meta.generation)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let usual = if outcome.controller.has_suffix() { "Hostname" } else { "" };
    let by_annotation = meta.annotations.get(ADDRESS_TYPE).map_or(usual, |kind| kind);
    let only_addresses = match by_annotation {
        "Hostname" => Some(false),
        "IPAddress" => Some(true),
        _ => None,
    };
    GatewayStatus {
        addresses: reach.reported(only_addresses).into_iter().map(address).collect(),
        attached_listener_sets: u32::try_from(sets.len()).ok().filter(|count| *count > 0),
        listeners: listener_statuses(&key(Kind::KubernetesGateway, meta), &outcome.listeners, attached),
        conditions,
    }
}

fn address(value: String) -> Address {
    let kind = if value.parse::<IpAddr>().is_ok() { "IPAddress" } else { "Hostname" };
    Address { kind: kind.into(), value: value.into() }
}

fn is_insecure(spec: &KubernetesGateway) -> bool {
    let frontend = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let all = frontend
        .into_iter()
        .flat_map(|tls| std::iter::once(&tls.default).chain(tls.per_port.iter().map(|port| &port.tls)));
    all.filter_map(|tls| tls.validation.as_ref())
        .any(|validation| validation.mode == FrontendValidationMode::AllowInsecureFallback)
}

/// Of a gateway in another cluster, of which only the address counts.
fn remote_status(outcome: &Outcome<'_>) -> GatewayStatus {
    let generation = outcome.meta.generation;
    let own = outcome.spec.addresses.iter();
    let message = "This Gateway is remote; Istio will not program it";
    GatewayStatus {
        addresses: own
            .map(|address| Address {
                kind: address.address_type.clone().unwrap_or("IPAddress".into()),
                value: address.value.clone(),
            })
            .collect(),
        attached_listener_sets: None,
        listeners: Vec::new(),
        conditions: vec![
            Draft::new("Accepted", "Resource accepted").finish("Accepted", generation),
            Draft::new("Programmed", message).finish("Programmed", generation),
        ],
    }
}

fn set_status(
    outcome: &Outcome<'_>,
    set: &SetOutcome<'_>,
    services: &dyn Services,
    attached: &Attached,
) -> ListenerSetStatus {
    let generation = set.meta.generation;
    let two = |accepted: Draft, programmed: Draft| {
        vec![accepted.finish("Accepted", generation), programmed.finish("Programmed", generation)]
    };
    if let Some(problem) = &set.refused {
        let draft = || Draft { problem: Some(problem.clone()), ..Draft::new("Accepted", "") };
        return ListenerSetStatus { conditions: two(draft(), draft()), listeners: Vec::new() };
    }
    let reach = Reach::of(services, &outcome.meta.namespace, &outcome.services, &ports(&set.listeners));
    let mut accepted = Draft::new("Accepted", "Resource accepted");
    let mut programmed = reach.programmed(&outcome.services);
    // Without services there was no look at the listeners.
    let looked = !(outcome.services.is_empty() && outcome.problem.is_some());
    if looked && !set.is_valid() {
        let problem = Problem::new("ListenersNotValid", "None of the ListenerSet's listeners are valid");
        accepted.problem = Some(problem.clone());
        programmed.problem = Some(problem);
    }
    if let Some(problem) = &outcome.problem {
        accepted.problem = Some(Problem::new(problem.reason, format!("Parent not accepted: {}", problem.message)));
    }
    ListenerSetStatus {
        conditions: two(accepted, programmed),
        listeners: listener_statuses(&key(Kind::ListenerSet, set.meta), &set.listeners, attached),
    }
}
