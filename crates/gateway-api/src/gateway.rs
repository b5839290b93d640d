//! Gateways and ListenerSets: each listener as an Istio Gateway with one server, so that routes can be bound to it alone.

use crate::catalogue::Catalogue;
use crate::class::Controller;
use crate::conflict::{Conflicts, conflicts, effective_port};
use crate::credential::{Owner, client_certificate};
use crate::error::{Problem, reason};
use crate::listener::{self, Report, named_labels, supported_kinds};
use crate::parent::{Parent, ParentKind};
use crate::reference::{GATEWAY, GroupKind, LISTENER_SET};
use meltemi_config::gateway_api::{FromNamespaces, KubernetesGateway, Listener, ListenerSet};
use meltemi_config::kube::ConfigMap;
use meltemi_config::networking::{Gateway, Server};
use meltemi_config::{Meta, Str};
use meltemi_model::{Config, ObjectKey, config, semantics};
use std::sync::Arc;

/// On a Gateway: the name of its Service, where that is not made of its own and its class's.
pub const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";
/// On a Gateway: the service account of its pods.
pub const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// On a Gateway, of old: the type of its Service.
pub const SERVICE_TYPE: &str = "networking.istio.io/service-type";

/// A listener's Gateway in Istio's form, and what routes see of it.
#[derive(Clone, Debug)]
pub struct Made {
    pub kind: ParentKind,
    pub key: ObjectKey,
    pub parent: Parent,
    pub config: Config<Gateway>,
    /// Only then in force.
    pub valid: bool,
}

/// What came of a Gateway.
pub struct Outcome<'a> {
    pub meta: &'a Meta,
    pub spec: &'a KubernetesGateway,
    pub controller: Controller,
    /// Host names of the services by which it is reached.
    pub services: Vec<String>,
    /// What is wrong with the Gateway as a whole.
    pub problem: Option<Problem>,
    /// Of the certificate for backends.
    pub backend_problem: Option<Problem>,
    pub listeners: Vec<Report>,
    pub sets: Vec<SetOutcome<'a>>,
    pub made: Vec<Made>,
}

/// What came of a ListenerSet.
pub struct SetOutcome<'a> {
    pub meta: &'a Meta,
    /// The parent does not take it; it has no listeners then.
    pub refused: Option<Problem>,
    pub listeners: Vec<Report>,
}

impl SetOutcome<'_> {
    pub fn is_valid(&self) -> bool {
        self.listeners.iter().any(|listener| listener.valid && listener.server.is_some())
    }
}

/// Every Gateway of ours.
pub fn all<'a>(catalogue: &'a Catalogue, domain: &str) -> Vec<Outcome<'a>> {
    let of_one = |(meta, spec): (&'a Meta, &'a KubernetesGateway)| {
        let controller = Controller::of_class(catalogue, &spec.gateway_class_name)?;
        let mut outcome = outcome(catalogue, domain, (meta, spec), controller);
        if controller != Controller::Remote {
            listeners(catalogue, &mut outcome);
        }
        Some(outcome)
    };
    catalogue.all::<KubernetesGateway>().filter_map(of_one).collect()
}

fn outcome<'a>(
    catalogue: &Catalogue,
    domain: &str,
    (meta, spec): (&'a Meta, &'a KubernetesGateway),
    controller: Controller,
) -> Outcome<'a> {
    let (services, problem) = services(domain, meta, (spec, controller));
    let owner = Owner { catalogue, kind: GATEWAY, meta };
    let parameters = || if services.is_empty() { None } else { parameters(catalogue, meta, spec) };
    Outcome {
        problem: problem.or_else(parameters),
        backend_problem: client_certificate(owner, spec.tls.as_ref()),
        meta,
        spec,
        controller,
        services,
        listeners: Vec::new(),
        sets: Vec::new(),
        made: Vec::new(),
    }
}

/// Whether pods are deployed for the Gateway. A host name as address says that it is served by what is there.
pub fn is_managed(spec: &KubernetesGateway) -> bool {
    match spec.addresses.as_slice() {
        [] => true,
        [only] => only.address_type.as_deref().is_none_or(|kind| kind == "IPAddress"),
        _ => false,
    }
}

pub fn default_name(meta: &Meta, (spec, controller): (&KubernetesGateway, Controller)) -> String {
    if controller.has_suffix() { format!("{}-{}", meta.name, spec.gateway_class_name) } else { meta.name.to_string() }
}

/// The host names of the Gateway's services, and what is wrong with its addresses.
fn services(
    domain: &str,
    meta: &Meta,
    (spec, controller): (&KubernetesGateway, Controller),
) -> (Vec<String>, Option<Problem>) {
    if is_managed(spec) {
        let own = meta.annotations.get(NAME_OVERRIDE).map(ToString::to_string);
        let name = own.unwrap_or_else(|| default_name(meta, (spec, controller)));
        return (vec![format!("{name}.{}.svc.{domain}", meta.namespace)], None);
    }
    let (mut services, mut skipped) = (Vec::new(), Vec::new());
    for address in &spec.addresses {
        let value = &*address.value;
        if address.address_type.as_deref().is_some_and(|kind| kind != "Hostname") {
            skipped.push(value);
        } else if value.contains('.') {
            services.push(value.to_owned());
        } else {
            services.push(format!("{value}.{}.svc.{domain}", meta.namespace));
        }
    }
    let problem = if !skipped.is_empty() {
        let message = format!("only Hostname is supported, ignoring [{}]", skipped.join(" "));
        Some(Problem::new(reason::UNSUPPORTED_ADDRESS, message))
    } else if meta.annotations.contains_key(SERVICE_TYPE) {
        let message = format!("annotation {SERVICE_TYPE} is deprecated, use Spec.Infrastructure.Routeability");
        Some(Problem::new("DeprecatedField", message))
    } else {
        None
    };
    (services, problem)
}

/// What is wrong with the ConfigMap that is laid over what is deployed.
pub fn parameters(catalogue: &Catalogue, meta: &Meta, spec: &KubernetesGateway) -> Option<Problem> {
    let reference = spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    let (group, kind, name) = (&reference.group, &reference.kind, &reference.name);
    let message = if !group.is_empty() || &**kind != "ConfigMap" {
        format!("Unsupported parametersRef group/kind {group}/{kind}, only ConfigMap is supported")
    } else if catalogue.get::<ConfigMap>(&meta.namespace, name).is_none() {
        format!("parametersRef ConfigMap {}/{name} does not exist", meta.namespace)
    } else {
        return None;
    };
    Some(Problem::new("InvalidParameters", message))
}

/// Fills in what the listeners of the Gateway and of its sets become.
fn listeners<'a>(catalogue: &'a Catalogue, outcome: &mut Outcome<'a>) {
    let attached = attached(catalogue, outcome);
    if outcome.services.is_empty() && outcome.problem.is_some() {
        outcome.sets = attached.into_iter().map(|(meta, _, refused)| unserved(meta, refused)).collect();
        return;
    }
    let lost = lost(outcome, &attached);
    let owner = Owner { catalogue, kind: GATEWAY, meta: outcome.meta };
    let key = key_of(outcome.meta);
    for listener in &outcome.spec.listeners {
        let report = report(owner, (ParentKind::Gateway, &key), listener, outcome, &lost);
        outcome.made.extend(made(owner, outcome, listener, &report));
        outcome.listeners.push(report);
    }
    for (meta, spec, refused) in attached {
        let owner = Owner { catalogue, kind: LISTENER_SET, meta };
        let key = key_of(meta);
        let mut set = unserved(meta, refused);
        let listeners = if set.refused.is_some() { &[][..] } else { &spec.listeners };
        for listener in listeners {
            let listener = &Listener { port: effective_port(listener), ..listener.clone() };
            let report = report(owner, (ParentKind::ListenerSet, &key), listener, outcome, &lost);
            // A set adds nothing of a listener that is not valid.
            outcome.made.extend(made(owner, outcome, listener, &report).filter(|made| made.valid));
            set.listeners.push(report);
        }
        outcome.sets.push(set);
    }
}

fn unserved(meta: &Meta, refused: Option<Problem>) -> SetOutcome<'_> {
    SetOutcome { meta, refused, listeners: Vec::new() }
}

fn key_of(meta: &Meta) -> ObjectKey {
    ObjectKey { namespace: meta.namespace.clone(), name: meta.name.clone() }
}

type Attached<'a> = (&'a Meta, &'a ListenerSet, Option<Problem>);

/// The sets that name the Gateway, the oldest first.
pub fn sets<'a>(catalogue: &'a Catalogue, parent: &Meta) -> Vec<(&'a Meta, &'a ListenerSet)> {
    let names = |(meta, spec): &(&Meta, &ListenerSet)| {
        let reference = &spec.parent_ref;
        GroupKind::of(reference.group.as_ref(), reference.kind.as_ref(), GATEWAY) == GATEWAY
            && reference.name == parent.name
            && *reference.namespace.as_ref().unwrap_or(&meta.namespace) == parent.namespace
    };
    let mut sets: Vec<_> = catalogue.all::<ListenerSet>().filter(names).collect();
    sets.sort_by_key(|(meta, _)| config::creation(meta));
    sets
}

/// The sets that name the Gateway, and why it does not take one.
fn attached<'a>(catalogue: &'a Catalogue, outcome: &Outcome<'a>) -> Vec<Attached<'a>> {
    let refusal = |meta: &Meta| {
        if !outcome.controller.takes_sets() {
            let message =
                format!("The {:?} GatewayClass does not support ListenerSet", outcome.spec.gateway_class_name);
            return Some(Problem::new("NotAllowed", message));
        }
        let message = "The parent Gateway does not allow this reference; check the 'spec.allowedRoutes'";
        let allowed = allows(catalogue, outcome.spec, outcome.meta, meta);
        (!allowed).then(|| Problem::new("NotAllowed", message))
    };
    sets(catalogue, outcome.meta).into_iter().map(|(meta, spec)| (meta, spec, refusal(meta))).collect()
}

/// Whether the Gateway takes a set.
pub fn allows(catalogue: &Catalogue, spec: &KubernetesGateway, parent: &Meta, set: &Meta) -> bool {
    let allowed = spec.allowed_listeners.as_ref();
    let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else { return false };
    match namespaces.from.unwrap_or(FromNamespaces::Selector) {
        FromNamespaces::All => true,
        FromNamespaces::Same => set.namespace == parent.namespace,
        FromNamespaces::None => false,
        FromNamespaces::Selector => {
            let namespace = catalogue.namespace(&set.namespace);
            let labels = namespace.map(|meta| named_labels(&meta.name, &meta.labels));
            namespaces.selector.as_ref().zip(labels).is_some_and(|(selector, labels)| selector.selects(&labels))
        }
    }
}

fn lost(outcome: &Outcome<'_>, attached: &[Attached<'_>]) -> Conflicts {
    let own = (ParentKind::Gateway, key_of(outcome.meta));
    let own = outcome.spec.listeners.iter().map(|listener| (own.clone(), listener));
    let taken = attached.iter().filter(|(_, _, refused)| refused.is_none());
    let added = taken.flat_map(|(meta, spec, _)| {
        let key = (ParentKind::ListenerSet, key_of(meta));
        spec.listeners.iter().map(move |listener| (key.clone(), listener))
    });
    conflicts(own.chain(added))
}

fn report(
    owner: Owner<'_>,
    (kind, key): (ParentKind, &ObjectKey),
    listener: &Listener,
    outcome: &Outcome<'_>,
    lost: &Conflicts,
) -> Report {
    match lost.get(&((kind, key.clone()), listener.name.clone())) {
        Some(reason) => listener::conflicted(owner, listener, reason),
        None => {
            let place = listener::Place {
                tls: outcome.spec.tls.as_ref(),
                controller: outcome.controller,
                set: kind == ParentKind::ListenerSet,
            };
            listener::convert(owner, listener, place)
        }
    }
}

/// Whether routes of the listener become rules of a proxy: those of HBONE are the ambient mesh's.
fn takes_routes(controller: Controller, listener: &Listener) -> bool {
    match controller {
        Controller::Gateway => true,
        Controller::EastWest => listener.port != listener::HBONE_PORT,
        Controller::Waypoint | Controller::Remote => false,
    }
}

/// A listener's server as a Gateway of Istio's.
fn made(owner: Owner<'_>, outcome: &Outcome<'_>, listener: &Listener, report: &Report) -> Option<Made> {
    let server: &Server = report.server.as_ref().filter(|_| takes_routes(outcome.controller, listener))?;
    let meta = owner.meta;
    let set = owner.kind == LISTENER_SET;
    let account = is_managed(outcome.spec).then(|| match outcome.meta.annotations.get(SERVICE_ACCOUNT) {
        Some(name) => name.to_string(),
        None => default_name(outcome.meta, (outcome.spec, outcome.controller)),
    });
    let parents = format!("{}/{}/{}.{}", owner.kind.kind, meta.name, listener.name, meta.namespace);
    let mut annotations = vec![
        (semantics::PARENTS, parents),
        (semantics::GATEWAY, semantics::GATEWAY_VALUE.to_owned()),
        (semantics::GATEWAY_SERVICE, outcome.services.join(",")),
        (semantics::SERVICE_ACCOUNT, account.unwrap_or_default()),
    ];
    if set {
        annotations.push((semantics::PARENT_NAMESPACE, outcome.meta.namespace.to_string()));
    }
    let name: Str = format!("{}~{}~{}", meta.name, semantics::AUTOGENERATED, listener.name).into();
    Some(Made {
        kind: if set { ParentKind::ListenerSet } else { ParentKind::Gateway },
        key: key_of(meta),
        parent: Parent {
            internal_name: format!("{}/{name}", meta.namespace).into(),
            allowed: supported_kinds(listener).0,
            hosts: server.hosts.clone(),
            hostname: listener.hostname.clone().unwrap_or_default(),
            section: listener.name.clone(),
            port: listener.port,
            protocol: listener.protocol.clone(),
        },
        config: Config {
            name,
            namespace: meta.namespace.clone(),
            labels: Default::default(),
            annotations: annotations.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
            creation: config::creation(meta),
            spec: Arc::new(Gateway { servers: vec![server.clone()], ..Gateway::default() }),
        },
        valid: report.valid,
    })
}
