//! Retry policies.

use super::common::{duration, list, optional_duration, required, resolve, unknown_type};
use super::header::header_matchers;
use crate::error::{At, PlanError, Result, refuse};
use crate::route::{RetryOn, RetryPolicy};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3 as proto;
use meltemi_proto::envoy::extensions::retry as extension;
use proto::retry_policy as part;
use std::num::NonZeroU32;
use std::time::Duration;

/// Envoy's default base of the back-off; the maximum is ten times the base.
const BACKOFF_BASE: Duration = Duration::from_millis(25);

pub(crate) fn retry_policy(value: &proto::RetryPolicy) -> Result<RetryPolicy> {
    let (backoff_base, backoff_max) = backoff(value.retry_back_off.as_ref()).at("retry_back_off")?;
    let mut policy = RetryPolicy {
        on: RetryOn::parse(&value.retry_on),
        num_retries: value.num_retries.unwrap_or(1),
        per_try_timeout: nonzero(value.per_try_timeout.as_ref()).at("per_try_timeout")?,
        per_try_idle_timeout: nonzero(value.per_try_idle_timeout.as_ref()).at("per_try_idle_timeout")?,
        retriable_status_codes: list(&value.retriable_status_codes, "retriable_status_codes", |code| {
            u16::try_from(*code).map_err(|_| PlanError::new("is not a status code"))
        })?,
        retriable_headers: header_matchers(&value.retriable_headers, "retriable_headers")?,
        retriable_request_headers: header_matchers(&value.retriable_request_headers, "retriable_request_headers")?,
        backoff_base,
        backoff_max,
        avoid_previous_hosts: false,
        host_selection_attempts: match value.host_selection_retry_max_attempts {
            0 => 1,
            attempts => u32::try_from(attempts)
                .map_err(|_| PlanError::new("is out of range").under("host_selection_retry_max_attempts"))?,
        },
        avoid_previous_priorities: value.retry_priority.as_ref().map(priority).transpose().at("retry_priority")?,
    };
    for (index, predicate) in value.retry_host_predicate.iter().enumerate() {
        host_predicate(predicate, &mut policy).at_index("retry_host_predicate", index)?;
    }
    Ok(policy)
}

/// Of `core.v3.RetryPolicy`: how often again, and the back-off's base and maximum.
pub(crate) fn core_retry_policy(value: &core::RetryPolicy) -> Result<(u32, Duration, Duration)> {
    const BASE: Duration = Duration::from_secs(1);
    let (base, max) = match &value.retry_back_off {
        None => (BASE, BASE * 10),
        Some(strategy) => {
            let own = part::RetryBackOff { base_interval: strategy.base_interval, max_interval: strategy.max_interval };
            backoff(Some(&own)).at("retry_back_off")?
        }
    };
    Ok((value.num_retries.unwrap_or(1), base, max))
}

fn nonzero(value: Option<&meltemi_proto::prost_types::Duration>) -> Result<Option<Duration>> {
    Ok(optional_duration(value)?.filter(|duration| !duration.is_zero()))
}

fn backoff(value: Option<&part::RetryBackOff>) -> Result<(Duration, Duration)> {
    let Some(value) = value else { return Ok((BACKOFF_BASE, BACKOFF_BASE * 10)) };
    let base = duration(required(&value.base_interval, "base_interval")?).at("base_interval")?;
    // Envoy rounds a base below one millisecond up.
    let base = base.max(Duration::from_millis(1));
    let max = match &value.max_interval {
        Some(max) => duration(max).at("max_interval")?.max(Duration::from_millis(1)),
        None => base.saturating_mul(10),
    };
    if max < base {
        return refuse("max_interval: must not be less than base_interval");
    }
    Ok((base, max))
}

fn typed(config: Option<&Any>, name: &str) -> Result<Any> {
    match config {
        Some(any) => resolve(any),
        None => refuse(format!("typed_config: is required for {name:?}")),
    }
}

fn host_predicate(value: &part::RetryHostPredicate, policy: &mut RetryPolicy) -> Result<()> {
    use extension::host::previous_hosts::v3::PreviousHostsPredicate;
    let config = value.config_type.as_ref().map(|part::retry_host_predicate::ConfigType::TypedConfig(any)| any);
    // Istio's older control planes name the predicate without a config.
    if config.is_none() && value.name == "envoy.retry_host_predicates.previous_hosts" {
        policy.avoid_previous_hosts = true;
        return Ok(());
    }
    let any = typed(config, &value.name)?;
    if any.is::<PreviousHostsPredicate>() {
        policy.avoid_previous_hosts = true;
    } else {
        return unknown_type(&any).at("typed_config");
    }
    Ok(())
}

/// After how many attempts the priorities of all attempts so far are left out.
fn priority(value: &part::RetryPriority) -> Result<NonZeroU32> {
    use extension::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let part::retry_priority::ConfigType::TypedConfig(any) = required(&value.config_type, "typed_config")?;
    let any = resolve(any).at("typed_config")?;
    if !any.is::<PreviousPrioritiesConfig>() {
        return unknown_type(&any).at("typed_config");
    }
    let config: PreviousPrioritiesConfig = any.unpack().map_err(PlanError::from).at("typed_config")?;
    let frequency = u32::try_from(config.update_frequency).ok().and_then(NonZeroU32::new);
    frequency.ok_or_else(|| PlanError::new("must be greater than zero").under("typed_config.update_frequency"))
}
