//! Fault injection and CORS as per-route filter configuration.

use meltemi_config::GRPC_STATUSES;
use meltemi_config::networking::{CorsPolicy, FaultAbort, HttpFaultInjection, Percent, UnmatchedPreflights};
use meltemi_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use meltemi_proto::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use meltemi_proto::envoy::extensions::filters::http::cors::v3 as cors;
use meltemi_proto::envoy::extensions::filters::http::fault::v3::{FaultAbort as AbortMessage, HttpFault, fault_abort};
use meltemi_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::matching;
use crate::wire::{duration, exact};

/// Parts of a million, which is as fine as Envoy draws.
pub fn percent(percent: &Percent) -> FractionalPercent {
    // A value is 0 to 100 by validation; the cast saturates on anything else.
    let numerator = (percent.value.value() * 10_000.0) as u32;
    FractionalPercent { numerator, denominator: DenominatorType::Million as i32 }
}

pub fn whole_percent(percent: u32) -> FractionalPercent {
    FractionalPercent { numerator: percent, denominator: DenominatorType::Hundred as i32 }
}

/// `None` where neither part can be expressed.
pub fn fault(fault: &HttpFaultInjection) -> Option<HttpFault> {
    let delay = fault.delay.as_ref().and_then(|delay| {
        let percentage = match &delay.percentage {
            Some(value) => percent(value),
            None => whole_percent(u32::try_from(delay.percent).unwrap_or_default()),
        };
        let fixed = fault_delay::FaultDelaySecifier::FixedDelay(duration(delay.fixed_delay?));
        Some(FaultDelay { percentage: Some(percentage), fault_delay_secifier: Some(fixed) })
    });
    let abort = fault.abort.as_ref().and_then(abort);
    (delay.is_some() || abort.is_some()).then(|| HttpFault { delay, abort, ..HttpFault::default() })
}

fn abort(abort: &FaultAbort) -> Option<AbortMessage> {
    let error = match (abort.http_status, &abort.grpc_status) {
        (Some(status), _) => fault_abort::ErrorType::HttpStatus(u32::try_from(status).ok()?),
        (None, Some(name)) => fault_abort::ErrorType::GrpcStatus(grpc_status(name)?),
        (None, None) => return None,
    };
    Some(AbortMessage {
        percentage: abort.percentage.as_ref().map(percent),
        error_type: Some(error),
        ..AbortMessage::default()
    })
}

fn grpc_status(name: &str) -> Option<u32> {
    let code = GRPC_STATUSES.iter().position(|known| *known == name)?;
    u32::try_from(code).ok()
}

pub fn cors(policy: &CorsPolicy) -> cors::CorsPolicy {
    let listed = policy.allow_origins.iter().filter_map(matching::string_matcher);
    let origins = if policy.allow_origins.is_empty() {
        policy.allow_origin.iter().map(|origin| exact(origin)).collect()
    } else {
        listed.collect()
    };
    cors::CorsPolicy {
        allow_origin_string_match: origins,
        allow_methods: policy.allow_methods.join(","),
        allow_headers: policy.allow_headers.join(","),
        expose_headers: policy.expose_headers.join(","),
        max_age: policy.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: policy.allow_credentials,
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(whole_percent(100)),
            ..RuntimeFractionalPercent::default()
        }),
        forward_not_matching_preflights: Some(policy.unmatched_preflights != UnmatchedPreflights::Ignore),
        ..cors::CorsPolicy::default()
    }
}
