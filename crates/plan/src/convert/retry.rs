//! Retry policies.

use super::common::{
    duration, enumeration, list, optional_duration, required, resolve, structure, unknown_type, unpack,
};
use super::header::header_matchers;
use crate::error::{At, PlanError, Result, refuse};
use crate::header::HeaderKey;
use crate::route::{RateLimitedBackoff, ResetFormat, RetryOn, RetryPolicy};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::route::v3 as proto;
use meltemi_proto::envoy::extensions::retry as extension;
use proto::retry_policy as part;
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
        rate_limited_backoff: value
            .rate_limited_retry_back_off
            .as_ref()
            .map(rate_limited)
            .transpose()
            .at("rate_limited_retry_back_off")?,
        avoid_previous_hosts: false,
        omit_host_metadata: None,
        previous_priorities: None,
        host_selection_attempts: match value.host_selection_retry_max_attempts {
            0 => 1,
            attempts => u32::try_from(attempts)
                .map_err(|_| PlanError::new("is out of range").under("host_selection_retry_max_attempts"))?,
        },
        refresh_cluster: value.refresh_cluster_on_retry,
    };
    for (index, predicate) in value.retry_host_predicate.iter().enumerate() {
        host_predicate(predicate, &mut policy).at_index("retry_host_predicate", index)?;
    }
    if let Some(priority) = &value.retry_priority {
        policy.previous_priorities = Some(retry_priority(priority).at("retry_priority")?);
    }
    Ok(policy)
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

fn rate_limited(value: &part::RateLimitedRetryBackOff) -> Result<RateLimitedBackoff> {
    if value.reset_headers.is_empty() {
        return refuse("reset_headers: at least one is needed");
    }
    Ok(RateLimitedBackoff {
        headers: list(&value.reset_headers, "reset_headers", |header| {
            let format = match enumeration::<part::ResetHeaderFormat>(header.format).at("format")? {
                part::ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                part::ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            };
            Ok((HeaderKey::parse(&header.name).at("name")?, format))
        })?,
        max: optional_duration(value.max_interval.as_ref()).at("max_interval")?.unwrap_or(Duration::from_secs(300)),
    })
}

fn typed(config: Option<&Any>, name: &str) -> Result<Any> {
    match config {
        Some(any) => resolve(any),
        None => refuse(format!("typed_config: is required for {name:?}")),
    }
}

fn host_predicate(value: &part::RetryHostPredicate, policy: &mut RetryPolicy) -> Result<()> {
    use extension::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
    use extension::host::omit_host_metadata::v3::OmitHostMetadataConfig;
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
    } else if any.is::<OmitHostMetadataConfig>() {
        let config: OmitHostMetadataConfig = unpack(&any)?;
        policy.omit_host_metadata =
            config.metadata_match.as_ref().and_then(|metadata| metadata.filter_metadata.get("envoy.lb")).map(structure);
    } else if any.is::<OmitCanaryHostsPredicate>() {
        policy.omit_host_metadata = Some(serde_json::json!({ "canary": true }));
    } else {
        return unknown_type(&any).at("typed_config");
    }
    Ok(())
}

fn retry_priority(value: &part::RetryPriority) -> Result<u32> {
    use extension::priority::previous_priorities::v3::PreviousPrioritiesConfig;
    let config = value.config_type.as_ref().map(|part::retry_priority::ConfigType::TypedConfig(any)| any);
    let any = typed(config, &value.name)?;
    if !any.is::<PreviousPrioritiesConfig>() {
        return unknown_type(&any).at("typed_config");
    }
    let config: PreviousPrioritiesConfig = unpack(&any)?;
    u32::try_from(config.update_frequency)
        .ok()
        .filter(|frequency| *frequency > 0)
        .ok_or_else(|| PlanError::new("must be greater than zero").under("typed_config.update_frequency"))
}
