//! Retry policies, with Istio's defaults where nothing is said.

use meltemi_config::networking::HttpRetry;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::route::v3::RetryPolicy;
use meltemi_proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use meltemi_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use meltemi_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use crate::wire::duration;

const DEFAULT_ATTEMPTS: u32 = 2;
/// Failures before the upstream can have acted.
const DEFAULT_OUTBOUND: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
/// The application closed an idle connection as the request was on its way.
const DEFAULT_INBOUND: &str = "reset-before-request";

/// `None` in, Istio's default out; zero attempts, no policy.
pub fn outbound(retry: Option<&HttpRetry>, consistent_hash: bool) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        retry_on: DEFAULT_OUTBOUND.into(),
        num_retries: Some(DEFAULT_ATTEMPTS),
        host_selection_retry_max_attempts: 5,
        // With a hash the same host is wanted again.
        retry_host_predicate: if consistent_hash { Vec::new() } else { vec![previous_hosts()] },
        ..RetryPolicy::default()
    };
    let Some(retry) = retry else { return Some(policy) };
    set_common(&mut policy, retry)?;
    policy.per_try_timeout = retry.per_try_timeout.map(duration);
    match retry.retry_ignore_previous_hosts {
        Some(true) => policy.retry_host_predicate = vec![previous_hosts()],
        Some(false) => policy.retry_host_predicate.clear(),
        None => {}
    }
    if retry.retry_remote_localities == Some(true) {
        policy.retry_priority = Some(previous_priorities());
    }
    Some(policy)
}

pub fn inbound(retry: Option<&HttpRetry>) -> Option<RetryPolicy> {
    let mut policy =
        RetryPolicy { retry_on: DEFAULT_INBOUND.into(), num_retries: Some(DEFAULT_ATTEMPTS), ..RetryPolicy::default() };
    if let Some(retry) = retry {
        set_common(&mut policy, retry)?;
    }
    Some(policy)
}

fn set_common(policy: &mut RetryPolicy, retry: &HttpRetry) -> Option<()> {
    let attempts = u32::try_from(retry.attempts).ok().filter(|attempts| *attempts > 0)?;
    policy.num_retries = Some(attempts);
    if !retry.retry_on.is_empty() {
        (policy.retry_on, policy.retriable_status_codes) = conditions(&retry.retry_on);
    }
    policy.retry_back_off =
        retry.backoff.map(|base| RetryBackOff { base_interval: Some(duration(base)), max_interval: None });
    Some(())
}

/// Status codes stand between the conditions in Istio's list and beside them in Envoy's.
fn conditions(list: &str) -> (String, Vec<u32>) {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if (100..600).contains(&code) => codes.push(code),
            _ => names.push(part),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    (names.join(","), codes)
}

fn previous_hosts() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(Any::pack(&PreviousHostsPredicate::default()))),
    }
}

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".into(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(Any::pack(&PreviousPrioritiesConfig {
            update_frequency: 2,
        }))),
    }
}

#[cfg(test)]
mod tests;
