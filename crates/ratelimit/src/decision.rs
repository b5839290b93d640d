//! From counts to an answer: codes, what remains, until when, and what is counted of it. Pure.

use meltemi_config::rate_limit::RateLimitUnit;
use meltemi_proto::envoy::config::core::v3::HeaderValue;
use meltemi_proto::envoy::service::ratelimit::v3::RateLimitResponse;
use meltemi_proto::envoy::service::ratelimit::v3::rate_limit_response::{
    Code, DescriptorStatus, RateLimit, rate_limit::Unit,
};
use meltemi_proto::prost_types;

use crate::limits::{Limit, Window};

/// Of a limit in percent: hits above it are near the limit.
const NEAR_LIMIT_PERCENT: u64 = 80;

/// A descriptor with what was found for it.
#[derive(Clone, Debug)]
pub(crate) enum Judged<'a> {
    /// No limit is for it, or another limit replaces its own.
    Free,
    Unlimited,
    Counted {
        limit: &'a Limit,
        window: Window,
        count: Count,
    },
}

/// The hits of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// These included.
    pub after: u64,
    pub hits: u64,
}

/// The answer to a request whose descriptors were judged so. `now` in seconds since 1970.
pub(crate) fn respond(judged: &[Judged<'_>], now: u64, headers: bool) -> RateLimitResponse {
    let statuses: Vec<_> = judged.iter().map(|one| status(one, now)).collect();
    let over = |one: &(&Judged<'_>, &DescriptorStatus)| one.1.code == Code::OverLimit as i32 && !is_quota(one.0);
    let refused = judged.iter().zip(&statuses).any(|one| over(&one));
    let mut quotas = judged.iter().zip(&statuses).filter(|(one, _)| is_quota(one)).peekable();
    let spent = quotas.peek().is_some() && quotas.all(|(_, status)| status.code == Code::OverLimit as i32);
    let code = if refused || spent { Code::OverLimit } else { Code::Ok };
    let closest = judged.iter().zip(&statuses).filter(|_| headers).filter(|(_, status)| status.current_limit.is_some());
    let closest = closest.min_by_key(|one| (!over(one), one.1.limit_remaining));
    let response_headers_to_add = closest.map(|(_, status)| header_values(status)).unwrap_or_default();
    RateLimitResponse { overall_code: code as i32, statuses, response_headers_to_add, ..Default::default() }
}

fn is_quota(judged: &Judged<'_>) -> bool {
    matches!(judged, Judged::Counted { limit, .. } if limit.quota)
}

fn status(judged: &Judged<'_>, now: u64) -> DescriptorStatus {
    match judged {
        Judged::Free => DescriptorStatus { code: Code::Ok as i32, ..DescriptorStatus::default() },
        Judged::Unlimited => {
            DescriptorStatus { code: Code::Ok as i32, limit_remaining: u32::MAX, ..DescriptorStatus::default() }
        }
        Judged::Counted { limit, window, count } => {
            let over = count.after > u64::from(window.requests);
            record(limit, *window, *count);
            let remaining = u64::from(window.requests).saturating_sub(count.after);
            let until_reset = window.unit.seconds() - now % window.unit.seconds();
            DescriptorStatus {
                code: if over && !limit.shadow { Code::OverLimit } else { Code::Ok } as i32,
                current_limit: Some(RateLimit {
                    name: limit.name.to_string(),
                    requests_per_unit: window.requests,
                    unit: wire_unit(window.unit) as i32,
                }),
                limit_remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
                duration_until_reset: Some(prost_types::Duration {
                    seconds: i64::try_from(until_reset).unwrap_or(i64::MAX),
                    nanos: 0,
                }),
                quota: None,
            }
        }
    }
}

/// Hits are over the limit, near it or within it, each for itself: a request may bring several.
fn record(limit: &Limit, window: Window, count: Count) {
    let most = u64::from(window.requests);
    let near = most * NEAR_LIMIT_PERCENT / 100;
    let before = count.after.saturating_sub(count.hits);
    let hits_above = |level: u64| count.after.saturating_sub(level.max(before));
    let over = hits_above(most);
    limit.stats.over_limit(over);
    limit.stats.near_limit(hits_above(near) - over);
    if count.after <= most {
        limit.stats.within_limit(count.hits);
    } else if limit.shadow {
        limit.stats.shadow_mode(over);
    }
}

fn header_values(status: &DescriptorStatus) -> Vec<HeaderValue> {
    let limit = status.current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit);
    let reset = status.duration_until_reset.map_or(0, |duration| duration.seconds);
    let header = |key: &str, value: String| HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() };
    vec![
        header("RateLimit-Limit", limit.to_string()),
        header("RateLimit-Remaining", status.limit_remaining.to_string()),
        header("RateLimit-Reset", reset.to_string()),
    ]
}

fn wire_unit(unit: RateLimitUnit) -> Unit {
    match unit {
        RateLimitUnit::Second => Unit::Second,
        RateLimitUnit::Minute => Unit::Minute,
        RateLimitUnit::Hour => Unit::Hour,
        RateLimitUnit::Day => Unit::Day,
        RateLimitUnit::Week => Unit::Week,
        RateLimitUnit::Month => Unit::Month,
        RateLimitUnit::Year => Unit::Year,
    }
}

/// The unit of a limit that a request brings with it; `None` for what is no unit.
pub(crate) fn unit_of_wire(unit: i32) -> Option<RateLimitUnit> {
    RateLimitUnit::ALL.into_iter().find(|own| wire_unit(*own) as i32 == unit)
}

#[cfg(test)]
mod tests;
