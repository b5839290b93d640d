//! The filters: token buckets of the proxy's own, questions to a server, and the headers by which both learn what Envoy's actions
//! cannot read.

use std::time::Duration;

use meltemi_config::rate_limit::{RateLimitKey, RateLimitProvider, RateLimitResponse, RateLimitSource};
use meltemi_model::rate_limit;
use meltemi_proto::envoy::config::common::mutation_rules::v3::{HeaderMutation, header_mutation};
use meltemi_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use meltemi_proto::envoy::config::core::v3::{ApiVersion, HeaderValue, HeaderValueOption, RuntimeFractionalPercent};
use meltemi_proto::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::LocalRateLimitDescriptor;
use meltemi_proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use meltemi_proto::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation as HeaderMutationFilter, Mutations,
};
use meltemi_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use meltemi_proto::envoy::extensions::filters::http::ratelimit::v3::RateLimit;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use meltemi_proto::envoy::r#type::v3::fractional_percent::DenominatorType;
use meltemi_proto::envoy::r#type::v3::{FractionalPercent, HttpStatus, StatusCode, TokenBucket};

use super::action::{PATH_HEADER, PRINCIPAL_HEADER};
use super::{Group, Kind, Rule, Server};
use crate::listener::{grpc_service, http_filter};
use crate::wire;

const LOCAL: &str = "envoy.filters.http.local_ratelimit";
const GLOBAL: &str = "envoy.filters.http.ratelimit";
const HEADERS: &str = "envoy.filters.http.header_mutation";

/// Counts that a filter remembers of values that requests bring; the least recently used give way. Envoy's default is 20.
const MAX_COUNTS: u32 = 10_000;
/// Envoy's own default, stated as such.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

/// Buckets of the proxy's own.
pub fn local(group: &Group<'_>) -> HttpFilter {
    let descriptors: Vec<_> = group.rules.iter().filter_map(bucket).collect();
    let counts = descriptors.iter().any(|own| own.entries.iter().any(|entry| entry.value.is_empty()));
    let name = match group.of {
        Kind::Local(policy) => format!("{}.{}", policy.namespace, policy.name),
        Kind::Global(provider) => provider.address.to_string(),
    };
    let config = LocalRateLimit {
        stat_prefix: format!("rate_limit.{name}"),
        status: group.response.and_then(status),
        filter_enabled: Some(percent(100)),
        filter_enforced: Some(percent(if group.dry_run { 0 } else { 100 })),
        response_headers_to_add: group.response.map(response_headers).unwrap_or_default(),
        descriptors,
        // There is no other bucket.
        always_consume_default_token_bucket: Some(false),
        max_dynamic_descriptors: counts.then_some(MAX_COUNTS),
        rate_limited_as_resource_exhausted: true,
        ..LocalRateLimit::default()
    };
    http_filter(LOCAL, &config)
}

fn bucket(rule: &Rule<'_>) -> Option<LocalRateLimitDescriptor> {
    let limit = rule.rule.limit.as_ref()?;
    let interval = limit.interval.or_else(|| limit.unit.map(|unit| Duration::from_secs(unit.seconds())))?;
    let entry = |key: String, value: &str| Entry { key, value: value.to_owned() };
    let first = entry(rate_limit::RULE.to_owned(), &rule.value);
    let keys = rule.rule.by.iter().filter_map(RateLimitKey::source);
    let keys = keys.map(|source| entry(rate_limit::entry_key(source), &rate_limit::entry_value(source)));
    Some(LocalRateLimitDescriptor {
        entries: std::iter::once(first).chain(keys).collect(),
        token_bucket: Some(TokenBucket {
            max_tokens: limit.burst.unwrap_or(limit.requests),
            tokens_per_fill: Some(limit.requests),
            fill_interval: Some(wire::duration(interval)),
        }),
        ..LocalRateLimitDescriptor::default()
    })
}

/// Questions to a server.
pub fn global(group: &Group<'_>, provider: &RateLimitProvider, server: &Server, stage: u32) -> HttpFilter {
    let domain = if provider.domain.is_empty() { rate_limit::DOMAIN } else { &*provider.domain };
    let config = RateLimit {
        domain: domain.to_owned(),
        stage,
        timeout: Some(wire::duration(provider.timeout.unwrap_or(DEFAULT_TIMEOUT))),
        failure_mode_deny: provider.fail_open == Some(false),
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(grpc_service(&server.cluster, &server.host)),
            transport_api_version: ApiVersion::V3 as i32,
        }),
        rate_limited_status: group.response.and_then(status),
        response_headers_to_add: group.response.map(response_headers).unwrap_or_default(),
        filter_enforced: group.dry_run.then(|| percent(0)),
        rate_limited_as_resource_exhausted: true,
        ..RateLimit::default()
    };
    http_filter(GLOBAL, &config)
}

fn percent(numerator: u32) -> RuntimeFractionalPercent {
    let value = FractionalPercent { numerator, denominator: DenominatorType::Hundred as i32 };
    RuntimeFractionalPercent { default_value: Some(value), ..RuntimeFractionalPercent::default() }
}

/// `None` leaves Envoy's 429.
fn status(response: &RateLimitResponse) -> Option<HttpStatus> {
    let code = StatusCode::try_from(i32::try_from(response.status).ok()?).ok()?;
    (code != StatusCode::Empty).then_some(HttpStatus { code: code as i32 })
}

fn response_headers(response: &RateLimitResponse) -> Vec<HeaderValueOption> {
    response.headers.iter().map(|(name, value)| set(name, value)).collect()
}

fn set(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
    }
}

/// Puts what rules count by into headers, in the place of what a client may have put there.
pub fn derive(sources: &[RateLimitSource<'_>]) -> Option<HttpFilter> {
    let add = |source| {
        let (name, value) = header(source)?;
        Some([remove(name), mutation(header_mutation::Action::Append(set(name, value)))])
    };
    mutate(sources.iter().filter_map(|source| add(*source)).flatten().collect())
}

/// Takes them out again, as they are no business of the application's.
pub fn forget(sources: &[RateLimitSource<'_>]) -> Option<HttpFilter> {
    mutate(sources.iter().filter_map(|source| header(*source)).map(|(name, _)| remove(name)).collect())
}

/// The header of a source, and the command that fills it; nothing fills it where the client proves no identity.
fn header(source: RateLimitSource<'_>) -> Option<(&'static str, &'static str)> {
    match source {
        RateLimitSource::Path => Some((PATH_HEADER, "%PATH(NQ)%")),
        RateLimitSource::SourcePrincipal => Some((PRINCIPAL_HEADER, "%DOWNSTREAM_PEER_URI_SAN%")),
        RateLimitSource::Header(_)
        | RateLimitSource::Claim(_)
        | RateLimitSource::Method
        | RateLimitSource::Host
        | RateLimitSource::RemoteAddress
        | RateLimitSource::Value(_) => None,
    }
}

fn remove(name: &str) -> HeaderMutation {
    mutation(header_mutation::Action::Remove(name.to_owned()))
}

fn mutation(action: header_mutation::Action) -> HeaderMutation {
    HeaderMutation { action: Some(action) }
}

fn mutate(request_mutations: Vec<HeaderMutation>) -> Option<HttpFilter> {
    let mutations = Mutations { request_mutations, ..Mutations::default() };
    let filter = |mutations| {
        http_filter(HEADERS, &HeaderMutationFilter { mutations: Some(mutations), ..HeaderMutationFilter::default() })
    };
    (!mutations.request_mutations.is_empty()).then(|| filter(mutations))
}
