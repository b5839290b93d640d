//! memquota and quota of Mixer: accepted, and said what became of them.

use std::time::Duration;

use super::Validation;
use crate::mixer::{Dimension, MemQuota, Quota, dimension};
use crate::path::Path;

/// Envoy refills no bucket more often.
const SHORTEST: Duration = Duration::from_millis(50);

pub(super) fn mem_quota(spec: &MemQuota, at: &Path<'_>, v: &mut Validation) {
    v.warn(
        at,
        "memquota was removed from Istio with Mixer; it limits the workloads of its namespace (in the root namespace, of the \
         mesh), whatever rule and QuotaSpecBinding said, and each proxy counts for itself; write a RateLimitPolicy of \
         meltemi.io/v1alpha1 instead",
    );
    if !spec.min_deduplication_duration.is_empty() {
        v.warn(&at.field("minDeduplicationDuration"), "has no effect: no request is counted twice");
    }
    let quotas = at.field("quotas");
    for (i, quota) in spec.quotas.iter().enumerate() {
        let at = quotas.index(i);
        v.require(&at.field("name"), !quota.quota().is_empty(), "required");
        amount(quota.max_amount, &at.field("maxAmount"), v);
        match quota.valid_duration {
            Some(duration) => interval(duration, &at.field("validDuration"), v),
            None => v.error(&at.field("validDuration"), "required"),
        }
        let overrides = at.field("overrides");
        for (i, own) in quota.overrides.iter().enumerate() {
            let at = overrides.index(i);
            amount(own.max_amount, &at.field("maxAmount"), v);
            if let Some(duration) = own.valid_duration {
                interval(duration, &at.field("validDuration"), v);
            }
            if own.dimensions.keys().any(|name| &**name != "destination") {
                v.warn(
                    &at.field("dimensions"),
                    "the override is left out unless a quota says that each of these is a label of the destination",
                );
            }
        }
    }
}

fn amount(amount: i64, at: &Path<'_>, v: &mut Validation) {
    v.require(at, (1..=i64::from(u32::MAX)).contains(&amount), "must be between 1 and 4294967295");
}

fn interval(duration: Duration, at: &Path<'_>, v: &mut Validation) {
    v.require(at, duration >= SHORTEST, "must be at least 50ms");
}

pub(super) fn quota(spec: &Quota, at: &Path<'_>, v: &mut Validation) {
    let dimensions = at.field("dimensions");
    for (name, expression) in &spec.dimensions {
        let at = dimensions.field(name);
        match dimension(expression) {
            Some(Dimension::Workload(_)) => {}
            Some(Dimension::Key(key)) if key.source_principal => v.warn(
                &at,
                "requests are counted by the identity that the client's certificate proves; those without are not counted",
            ),
            Some(Dimension::Key(_)) => {
                v.warn(&at, "requests that lack it are not counted; what follows | has no effect");
            }
            None => v.warn(&at, format_args!("{expression:?} is left out: nothing is counted by it")),
        }
    }
}
