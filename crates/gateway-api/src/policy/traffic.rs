//! XBackendTrafficPolicy.

use super::{Applied, Conditions, Context, Effect, Source, TargetKind, ancestor, find, ignored, is_ignored, reference};
use crate::class::MESH_CONTROLLER;
use crate::status::{PolicyStatus, Status};
use meltemi_config::gateway_api::{RetryConstraint, XBackendTrafficPolicy};
use meltemi_config::networking::RetryBudget;
use meltemi_config::{Key, Kind, Meta};
use std::time::Duration;

const KIND: &str = "XBackendTrafficPolicy";
/// The CRD's defaults.
const INTERVAL: Duration = Duration::from_secs(10);
const CONCURRENCY: u32 = 10;
const PERCENT: i32 = 20;

/// What the policy does, and its status.
pub fn policy(
    context: &Context<'_>,
    (meta, spec): (&Meta, &XBackendTrafficPolicy),
    applied: &mut Vec<Applied>,
) -> Option<(Key, Status)> {
    let key = Key { kind: Kind::XBackendTrafficPolicy, namespace: meta.namespace.clone(), name: meta.name.clone() };
    if is_ignored(meta) {
        return Some((key, ignored(meta, &spec.target_refs, false)));
    }
    let mut conditions = Conditions::new(false);
    if spec.session_persistence.is_some() {
        conditions.accepted.message =
            "Configuration is valid, but Istio does not support the following fields: sessionPersistence".into();
    }
    let retry_budget = spec.retry_constraint.as_ref().map(budget);
    let mut ancestors = Vec::new();
    for wanted in &spec.target_refs {
        let found = find(context, &meta.namespace, wanted).and_then(|found| match found.target.kind {
            TargetKind::Service => Ok(found),
            _ => Err(format!("unsupported reference kind: {}", wanted.kind)),
        });
        match found {
            Ok(found) => applied.extend(found.hosts.into_iter().map(|host| Applied {
                source: Source::of(KIND, meta),
                target: found.target.clone(),
                host,
                effect: Effect::Traffic { retry_budget: retry_budget.clone() },
            })),
            Err(why) => conditions.refuse("TargetNotFound", format!("targetRefs invalid: {why}")),
        }
        ancestors.push(ancestor(reference(wanted, false), MESH_CONTROLLER, &conditions, meta.generation));
    }
    Some((key, Status::Policy(PolicyStatus { ancestors })))
}

fn budget(constraint: &RetryConstraint) -> RetryBudget {
    let budget = constraint.budget.as_ref();
    let percent = budget.and_then(|budget| budget.percent).unwrap_or(PERCENT);
    let least = constraint.min_retry_rate.as_ref().and_then(|rate| rate.count);
    RetryBudget {
        percent: Some(f64::from(percent).into()),
        budget_interval: Some(budget.and_then(|budget| budget.interval).unwrap_or(INTERVAL)),
        min_retry_concurrency: least.unwrap_or(CONCURRENCY),
    }
}
