//! Rate limits of routes, and the filters that count by them.

use super::common::{enumeration, list, optional_duration, required, runtime_fraction};
use super::ext_authz::grpc_target;
use super::filter::token_bucket;
use super::header::{header_adds, header_matchers, header_name};
use super::route::query_matcher;
use crate::common::Fraction;
use crate::error::{At, PlanError, Result, refuse};
use crate::header::HeaderKey;
use crate::rate_limit::{
    DescriptorAction, HostPolicies, LocalDescriptor, RateLimit, RateLimitPerRoute, RateLimitPolicy, RequestKind,
};
use meltemi_base::intern::intern;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3 as route;
use meltemi_proto::envoy::extensions::common::ratelimit::v3 as common;
use meltemi_proto::envoy::extensions::filters::http::ratelimit::v3 as proto;
use meltemi_proto::envoy::r#type::v3::HttpStatus;
use route::rate_limit::action::{self, ActionSpecifier};
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(20);
const MOST_STAGE: u32 = 10;

pub(super) fn policies(values: &[route::RateLimit]) -> Result<Vec<RateLimitPolicy>> {
    list(values, "rate_limits", |value| {
        if value.actions.is_empty() {
            return refuse("actions: at least one is needed");
        }
        Ok(RateLimitPolicy { stage: stage(value.stage.unwrap_or(0))?, actions: list(&value.actions, "actions", one)? })
    })
}

/// A filter's own, which know no stages.
pub(super) fn own_policies(values: &[route::RateLimit]) -> Result<Vec<RateLimitPolicy>> {
    match values.iter().position(|value| value.stage.is_some() || !value.disable_key.is_empty()) {
        Some(index) => refuse("stage and disable_key are of routes alone").at_index("rate_limits", index),
        None => policies(values),
    }
}

fn stage(value: u32) -> Result<u32> {
    if value > MOST_STAGE { refuse(format!("stage: must not be more than {MOST_STAGE}")) } else { Ok(value) }
}

fn or(text: &str, default: &str) -> Arc<str> {
    intern(if text.is_empty() { default } else { text })
}

/// A value that is a format would be another text in Envoy.
fn literal(text: &str, field: &str) -> Result<Arc<str>> {
    match text {
        "" => refuse(format!("{field}: is required")),
        text if text.contains('%') => refuse(format!("{field}: formats are not supported")),
        text => Ok(intern(text)),
    }
}

fn needed(text: &str, field: &str) -> Result<Arc<str>> {
    if text.is_empty() { refuse(format!("{field}: is required")) } else { Ok(intern(text)) }
}

fn one(value: &route::rate_limit::Action) -> Result<DescriptorAction> {
    Ok(match required(&value.action_specifier, "action_specifier")? {
        ActionSpecifier::SourceCluster(_) => DescriptorAction::SourceCluster,
        ActionSpecifier::DestinationCluster(_) => DescriptorAction::DestinationCluster,
        ActionSpecifier::RemoteAddress(_) => DescriptorAction::RemoteAddress,
        ActionSpecifier::RequestHeaders(own) => request_headers(own).at("request_headers")?,
        ActionSpecifier::QueryParameters(own) => DescriptorAction::QueryParameter {
            name: needed(&own.query_parameter_name, "query_parameter_name").at("query_parameters")?,
            key: needed(&own.descriptor_key, "descriptor_key").at("query_parameters")?,
            skip_if_absent: own.skip_if_absent,
        },
        ActionSpecifier::MaskedRemoteAddress(own) => masked(own).at("masked_remote_address")?,
        ActionSpecifier::GenericKey(own) => DescriptorAction::GenericKey {
            key: or(&own.descriptor_key, "generic_key"),
            value: literal(&own.descriptor_value, "descriptor_value").at("generic_key")?,
        },
        ActionSpecifier::HeaderValueMatch(own) => DescriptorAction::HeaderMatch {
            key: or(&own.descriptor_key, "header_match"),
            value: literal(&own.descriptor_value, "descriptor_value").at("header_value_match")?,
            expect: own.expect_match.unwrap_or(true),
            headers: header_matchers(&own.headers, "headers").at("header_value_match")?,
        },
        ActionSpecifier::QueryParameterValueMatch(own) => DescriptorAction::QueryMatch {
            key: or(&own.descriptor_key, "query_match"),
            value: literal(&own.descriptor_value, "descriptor_value").at("query_parameter_value_match")?,
            expect: own.expect_match.unwrap_or(true),
            parameters: list(&own.query_parameters, "query_parameters", query_matcher)
                .at("query_parameter_value_match")?,
        },
        ActionSpecifier::Metadata(own) => metadata(own).at("metadata")?,
        ActionSpecifier::DynamicMetadata(_) => return refuse("dynamic_metadata: use metadata"),
        ActionSpecifier::Extension(_) => return refuse("extension: is not supported"),
        ActionSpecifier::RemoteAddressMatch(_) => return refuse("remote_address_match: is not supported"),
    })
}

fn request_headers(value: &action::RequestHeaders) -> Result<DescriptorAction> {
    let header = if value.header_name.starts_with(':') {
        HeaderKey::parse(&value.header_name)
    } else {
        header_name(&value.header_name).map(HeaderKey::Name)
    };
    Ok(DescriptorAction::RequestHeader {
        header: header.at("header_name")?,
        key: needed(&value.descriptor_key, "descriptor_key")?,
        skip_if_absent: value.skip_if_absent,
    })
}

fn masked(value: &action::MaskedRemoteAddress) -> Result<DescriptorAction> {
    let length = |value: Option<u32>, most: u8, field: &str| match value {
        None => Ok(most),
        Some(length) => u8::try_from(length)
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| PlanError::new(format!("must not be more than {most}")).under(field)),
    };
    Ok(DescriptorAction::MaskedRemoteAddress {
        v4: length(value.v4_prefix_mask_len, 32, "v4_prefix_mask_len")?,
        v6: length(value.v6_prefix_mask_len, 128, "v6_prefix_mask_len")?,
    })
}

fn metadata(value: &action::MetaData) -> Result<DescriptorAction> {
    use meltemi_proto::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    let key = required(&value.metadata_key, "metadata_key")?;
    let path = list(&key.path, "path", |segment| match required(&segment.segment, "key")? {
        Segment::Key(key) => Ok(Arc::from(key.as_str())),
        Segment::Index(_) => refuse("index: is not supported"),
    });
    Ok(DescriptorAction::Metadata {
        key: needed(&value.descriptor_key, "descriptor_key")?,
        of_route: enumeration::<action::meta_data::Source>(value.source).at("source")?
            == action::meta_data::Source::RouteEntry,
        namespace: needed(&key.key, "key").at("metadata_key")?,
        path: path.at("metadata_key")?,
        default: intern(&value.default_value),
        skip_if_absent: value.skip_if_absent,
    })
}

pub(super) fn descriptor(value: &common::LocalRateLimitDescriptor) -> Result<LocalDescriptor> {
    if value.entries.is_empty() {
        return refuse("entries: at least one is needed");
    }
    let entries = list(&value.entries, "entries", |entry| Ok((needed(&entry.key, "key")?, intern(&entry.value))))?;
    let bucket = token_bucket(required(&value.token_bucket, "token_bucket")?).at("token_bucket")?;
    Ok(LocalDescriptor { entries, bucket })
}

pub(super) fn host_policies(value: i32) -> Result<HostPolicies> {
    use common::VhRateLimitsOptions as Options;
    Ok(match enumeration::<Options>(value)? {
        Options::Override => HostPolicies::Override,
        Options::Include => HostPolicies::Include,
        Options::Ignore => HostPolicies::Ignore,
    })
}

pub(super) fn filter(value: &proto::RateLimit) -> Result<RateLimit> {
    use proto::rate_limit::XRateLimitHeadersRfcVersion as Version;
    let config = required(&value.rate_limit_service, "rate_limit_service")?;
    if config.transport_api_version != core::ApiVersion::V3 as i32 {
        return refuse("rate_limit_service.transport_api_version: must be V3");
    }
    let grpc = required(&config.grpc_service, "grpc_service").at("rate_limit_service")?;
    let mut service = grpc_target(grpc, TIMEOUT).at("grpc_service").at("rate_limit_service")?;
    // The filter's own timeout is what Envoy goes by.
    service.timeout = match optional_duration(value.timeout.as_ref()).at("timeout")? {
        None => TIMEOUT,
        Some(Duration::ZERO) => return refuse("timeout: must be greater than zero"),
        Some(own) => own,
    };
    let gate = |gate: &Option<_>| gate.as_ref().map_or(Ok(Fraction::ALWAYS), runtime_fraction);
    Ok(RateLimit {
        domain: needed(&value.domain, "domain")?,
        stage: stage(value.stage)?,
        requests: match value.request_type.as_str() {
            "internal" => RequestKind::Internal,
            "external" => RequestKind::External,
            "" | "both" => RequestKind::Both,
            _ => return refuse("request_type: must be internal, external or both"),
        },
        service,
        failure_mode_deny: value.failure_mode_deny,
        resource_exhausted: value.rate_limited_as_resource_exhausted,
        quota_headers: enumeration::<Version>(value.enable_x_ratelimit_headers).at("enable_x_ratelimit_headers")?
            == Version::DraftVersion03,
        marks_limited: !value.disable_x_envoy_ratelimited_header,
        status: status(value.rate_limited_status.as_ref(), 429),
        status_on_error: status(value.status_on_error.as_ref(), 500),
        response_headers: header_adds(&value.response_headers_to_add, "response_headers_to_add")?,
        enabled: gate(&value.filter_enabled).at("filter_enabled")?,
        enforced: gate(&value.filter_enforced).at("filter_enforced")?,
        stat_prefix: value.stat_prefix.as_str().into(),
    })
}

/// Envoy falls back where what is given is no error.
fn status(value: Option<&HttpStatus>, default: u16) -> u16 {
    value.and_then(|status| u16::try_from(status.code).ok()).filter(|code| (400..600).contains(code)).unwrap_or(default)
}

pub(super) fn per_route(value: &proto::RateLimitPerRoute) -> Result<RateLimitPerRoute> {
    use proto::rate_limit_per_route::VhRateLimitsOptions as Options;
    Ok(RateLimitPerRoute {
        host_policies: match enumeration::<Options>(value.vh_rate_limits).at("vh_rate_limits")? {
            Options::Override => HostPolicies::Override,
            Options::Include => HostPolicies::Include,
            Options::Ignore => HostPolicies::Ignore,
        },
        policies: own_policies(&value.rate_limits)?,
        domain: value.domain.as_str().into(),
    })
}

#[cfg(test)]
mod tests;
