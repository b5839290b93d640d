//! ResiliencePolicy, in both spellings.

use std::time::Duration;

use super::{Validation, common};
use crate::names;
use crate::path::Path;
use crate::resilience::{AutomaticRetries, AutomaticRetryBudget, FutureFeatures, ResiliencePolicy};

/// More attempts than this only make an outage worse.
const MAX_ATTEMPTS: u32 = 10;
const WINDOWS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// What stands in a document of another group is read, and said to belong elsewhere.
pub(super) fn future_features(spec: &FutureFeatures, at: &Path<'_>, v: &mut Validation) {
    v.warn(
        at,
        "Telemetry of networking.istio.io is read as a ResiliencePolicy of meltemi.io/v1alpha1 for the whole namespace; \
         write that instead",
    );
    features(&spec.policy(), at, v);
}

pub(super) fn resilience_policy(spec: &ResiliencePolicy, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    let hosts = at.field("hosts");
    for (i, host) in spec.hosts.iter().enumerate() {
        v.check(&hosts.index(i), names::wildcard_domain(host));
    }
    features(spec, at, v);
}

fn features(spec: &ResiliencePolicy, at: &Path<'_>, v: &mut Validation) {
    if let Some(retries) = &spec.automatic_retries {
        automatic_retries(retries, &at.field("automaticRetries"), v);
    }
    if let Some(balancing) = &spec.adaptive_load_balancing {
        let at = at.field("adaptiveLoadBalancing");
        let at = at.field("windowSize");
        common::duration(balancing.window_size, &at, v);
        let fits = balancing.window_size.is_none_or(|window| WINDOWS.contains(&window));
        v.require(&at, fits, "must be between 1s and 1h");
    }
    let named =
        [spec.automatic_retries.is_some(), spec.adaptive_load_balancing.is_some(), spec.anomaly_detection.is_some()];
    if !named.contains(&true) {
        v.warn(at, "none of automaticRetries, adaptiveLoadBalancing and anomalyDetection is set: it has no effect");
    }
}

fn automatic_retries(retries: &AutomaticRetries, at: &Path<'_>, v: &mut Validation) {
    let attempts = retries.max_attempts.is_none_or(|attempts| (1..=MAX_ATTEMPTS).contains(&attempts));
    v.require(
        &at.field("maxAttempts"),
        attempts,
        format_args!("must be between 1 and {MAX_ATTEMPTS}, the first attempt included"),
    );
    let Some(AutomaticRetryBudget { percent, .. }) = &retries.budget else { return };
    if let Some(percent) = percent {
        let at = at.field("budget");
        common::percent(percent.value(), &at.field("percent"), v);
    }
}
