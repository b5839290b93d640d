//! Policies for backends as DestinationRules: BackendTLSPolicy, XBackendTrafficPolicy, and the TLS of an XBackend.
//!
//! Owns which policies take effect and what is said of each; those for one host of one object become one rule, under which a
//! rule of the users' own is kept (`model::destination_rule`).

mod backend;
mod gateways;
mod rule;
mod tls;
mod traffic;

pub use backend::external;
pub use gateways::of_routes;

use crate::catalogue::Catalogue;
use crate::class::MESH_CONTROLLER;
use crate::error::Problem;
use crate::reference::{CONFIG_MAP, GroupKind, SECRET, SERVICE, SERVICE_ENTRY};
use crate::status::{AncestorStatus, Condition, Draft, PolicyStatus, Status};
use meltemi_config::gateway_api::{
    BackendTlsPolicy, LocalPolicyTarget, ParentReference, XBackend, XBackendTrafficPolicy,
};
use meltemi_config::networking::{ClientTlsSettings, DestinationRule, RetryBudget};
use meltemi_config::{Key, Meta, Str};
use meltemi_model::service::Creation;
use meltemi_model::{ConfigRef, ObjectKey};
use std::collections::{BTreeMap, BTreeSet};

/// On a policy: `true` leaves it to others.
const IGNORE: &str = "istio.io/ignore-policy-attachment";

/// What has a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetKind {
    Service,
    ServiceEntry,
    Backend,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub kind: TargetKind,
    pub key: ObjectKey,
}

/// The object that says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    creation: Creation,
    namespace: Str,
    name: Str,
    kind: &'static str,
}

impl Source {
    fn of(kind: &'static str, meta: &Meta) -> Self {
        let creation = meltemi_model::config::creation(meta);
        Self { creation, namespace: meta.namespace.clone(), name: meta.name.clone(), kind }
    }
}

#[derive(Clone, Debug)]
enum Effect {
    /// For one port, or for all.
    Tls {
        port: Option<u32>,
        settings: ClientTlsSettings,
    },
    Traffic {
        retry_budget: Option<RetryBudget>,
    },
}

/// What one policy does to one host of a target.
#[derive(Clone, Debug)]
struct Applied {
    source: Source,
    target: Target,
    host: Str,
    effect: Effect,
}

/// What came of all policies.
#[derive(Debug, Default)]
pub struct Outcome {
    pub rules: BTreeMap<ObjectKey, ConfigRef<DestinationRule>>,
    pub statuses: BTreeMap<Key, Status>,
}

/// What policies are judged by.
pub struct Context<'a> {
    pub catalogue: &'a Catalogue,
    /// Completes the names of Services.
    pub domain: &'a str,
    /// Which Gateways have routes to an object.
    pub gateways: &'a Gateways,
}

/// By target: the Gateways whose routes send to it.
pub type Gateways = BTreeMap<Target, BTreeSet<ObjectKey>>;

/// Every policy, with its effect and its status.
pub fn all(context: &Context<'_>) -> Outcome {
    let mut applied = Vec::new();
    let mut statuses = BTreeMap::new();
    for (meta, spec) in context.catalogue.all::<XBackendTrafficPolicy>() {
        statuses.extend(traffic::policy(context, (meta, spec), &mut applied));
    }
    for (meta, spec) in context.catalogue.all::<BackendTlsPolicy>() {
        statuses.extend(tls::policy(context, (meta, spec), &mut applied));
    }
    for (meta, spec) in context.catalogue.all::<XBackend>() {
        statuses.extend(backend::resource(context, (meta, spec), &mut applied));
    }
    Outcome { rules: rule::merged(applied), statuses }
}

fn is_ignored(meta: &Meta) -> bool {
    meta.annotations.get(IGNORE).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The conditions of a policy, which grow worse from one target to the next.
#[derive(Clone, Debug)]
struct Conditions {
    accepted: Draft,
    /// Absent where the kind names nothing else.
    resolved: Option<Draft>,
}

impl Conditions {
    fn new(resolves: bool) -> Self {
        let fine = |reason| Draft::new(reason, "Configuration is valid");
        Self { accepted: fine("Accepted"), resolved: resolves.then(|| fine("ResolvedRefs")) }
    }

    fn refuse(&mut self, reason: &'static str, message: String) {
        self.accepted.problem = Some(Problem::new(reason, message));
    }

    fn unresolved(&mut self, reason: &'static str, message: String) {
        if let Some(resolved) = &mut self.resolved {
            resolved.problem = Some(Problem::new(reason, message));
        }
    }

    fn finish(&self, generation: i64) -> Vec<Condition> {
        let each = [("Accepted", Some(&self.accepted)), ("ResolvedRefs", self.resolved.as_ref())];
        each.into_iter().filter_map(|(kind, draft)| Some(draft?.clone().finish(kind, generation))).collect()
    }
}

/// A status for each target of a policy that is left to others.
fn ignored(meta: &Meta, targets: &[LocalPolicyTarget], sections: bool) -> Status {
    let mut conditions = Conditions::new(false);
    conditions.refuse("IgnoredByIstio", format!("Ignored by Istio due to annotation {IGNORE}=true"));
    let one = |target| ancestor(reference(target, sections), MESH_CONTROLLER, &conditions, meta.generation);
    Status::Policy(PolicyStatus { ancestors: targets.iter().map(one).collect() })
}

fn ancestor(
    ancestor_ref: ParentReference,
    controller_name: &'static str,
    conditions: &Conditions,
    generation: i64,
) -> AncestorStatus {
    AncestorStatus { ancestor_ref, conditions: conditions.finish(generation), controller_name }
}

fn reference(target: &LocalPolicyTarget, sections: bool) -> ParentReference {
    ParentReference {
        group: Some(target.group.clone()),
        kind: Some(target.kind.clone()),
        name: target.name.clone(),
        section_name: target.section_name.clone().filter(|_| sections),
        ..ParentReference::default()
    }
}

/// What a target is, if a policy can be for it: its hosts, and its ports by name.
struct Found {
    target: Target,
    hosts: Vec<Str>,
    ports: Vec<(Str, u32)>,
}

/// The target in the namespace of the policy; else why there is none.
fn find(context: &Context<'_>, namespace: &str, wanted: &LocalPolicyTarget) -> Result<Found, String> {
    let kind = GroupKind { group: &wanted.group, kind: &wanted.kind };
    let key = ObjectKey::new(namespace, wanted.name.clone());
    let missing = || missing(namespace, &wanted.name, &wanted.kind);
    match kind {
        SERVICE => {
            let (_, service) = context.catalogue.service(namespace, &wanted.name).ok_or_else(missing)?;
            Ok(Found {
                target: Target { kind: TargetKind::Service, key },
                hosts: vec![format!("{}.{namespace}.svc.{}", wanted.name, context.domain).into()],
                ports: service.spec.ports.iter().map(|port| (port.name.clone(), port.port)).collect(),
            })
        }
        SERVICE_ENTRY => {
            let (_, entry) = context.catalogue.service_entry(namespace, &wanted.name).ok_or_else(missing)?;
            Ok(Found {
                target: Target { kind: TargetKind::ServiceEntry, key },
                hosts: entry.hosts.clone(),
                ports: entry.ports.iter().map(|port| (port.name.clone(), port.number)).collect(),
            })
        }
        CONFIG_MAP | SECRET => Err(format!("unsupported reference kind: {}", wanted.kind)),
        _ => Err(format!("unsupported kind {}", wanted.kind)),
    }
}

fn missing(namespace: &str, name: &str, kind: &str) -> String {
    format!("reference {namespace}/{name} (of kind {kind}) not found")
}
