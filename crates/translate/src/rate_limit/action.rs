//! A rule as a virtual host's `rate_limits` entry: which requests, and what makes their descriptor.
//!
//! An action that finds nothing leaves the request uncounted by the rule.

use meltemi_config::rate_limit::{RateLimitKey, RateLimitSource, claim_path};
use meltemi_model::rate_limit;
use meltemi_proto::envoy::config::route::v3::RateLimit;
use meltemi_proto::envoy::config::route::v3::rate_limit::Action;
use meltemi_proto::envoy::config::route::v3::rate_limit::action::{
    ActionSpecifier, GenericKey, HeaderValueMatch, MetaData, RemoteAddress, RequestHeaders, meta_data,
};
use meltemi_proto::envoy::r#type::metadata::v3::MetadataKey;
use meltemi_proto::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};

use super::{Rule, matching};
use crate::authentication::{FILTER, PAYLOAD};

/// The header in which the request's path is, without the query.
pub const PATH_HEADER: &str = "x-meltemi-rate-limit-path";
/// The header in which the client's proven identity is.
pub const PRINCIPAL_HEADER: &str = "x-meltemi-rate-limit-principal";

pub fn rate_limit(rule: &Rule<'_>, stage: u32) -> RateLimit {
    let keys = rule.rule.by.iter().filter_map(RateLimitKey::source).map(key);
    let actions = std::iter::once(matched(rule)).chain(keys);
    RateLimit {
        stage: (stage > 0).then_some(stage),
        actions: actions.map(|own| Action { action_specifier: Some(own) }).collect(),
        ..RateLimit::default()
    }
}

/// The rule's own entry, where the request matches.
fn matched(rule: &Rule<'_>) -> ActionSpecifier {
    let headers = rule.rule.matches.as_ref().map(matching::headers).unwrap_or_default();
    let (descriptor_key, descriptor_value) = (rate_limit::RULE.to_owned(), rule.value.clone());
    if headers.is_empty() {
        return ActionSpecifier::GenericKey(GenericKey { descriptor_key, descriptor_value, ..GenericKey::default() });
    }
    ActionSpecifier::HeaderValueMatch(HeaderValueMatch {
        descriptor_key,
        descriptor_value,
        headers,
        ..HeaderValueMatch::default()
    })
}

fn key(source: RateLimitSource<'_>) -> ActionSpecifier {
    let descriptor_key = rate_limit::entry_key(source);
    let header = |name: &str, descriptor_key| {
        ActionSpecifier::RequestHeaders(RequestHeaders {
            header_name: name.to_owned(),
            descriptor_key,
            skip_if_absent: false,
        })
    };
    match source {
        RateLimitSource::Header(name) => header(name, descriptor_key),
        RateLimitSource::Path => header(PATH_HEADER, descriptor_key),
        RateLimitSource::SourcePrincipal => header(PRINCIPAL_HEADER, descriptor_key),
        RateLimitSource::Method => header(":method", descriptor_key),
        RateLimitSource::Host => header(":authority", descriptor_key),
        RateLimitSource::RemoteAddress => ActionSpecifier::RemoteAddress(RemoteAddress {}),
        RateLimitSource::Value(value) => ActionSpecifier::GenericKey(GenericKey {
            descriptor_key,
            descriptor_value: value.to_string(),
            ..GenericKey::default()
        }),
        RateLimitSource::Claim(claim) => ActionSpecifier::Metadata(MetaData {
            descriptor_key,
            metadata_key: Some(claim_key(claim)),
            source: meta_data::Source::Dynamic as i32,
            ..MetaData::default()
        }),
    }
}

/// Where the JWT filter leaves a verified claim.
fn claim_key(claim: &str) -> MetadataKey {
    let names = claim_path(claim).unwrap_or_default();
    let segment = |name: &str| PathSegment { segment: Some(path_segment::Segment::Key(name.to_owned())) };
    MetadataKey { key: FILTER.into(), path: std::iter::once(PAYLOAD).chain(names).map(segment).collect() }
}
