//! `envoy.filters.http.jwt_authn`.

use super::common::{
    data_source, duration, duration_or, list, names, non_empty, optional_duration, positive, required, string_matcher,
};
use super::header::header_name;
use super::retry::core_retry_policy;
use super::route::route_match;
use crate::error::{At, PlanError, Result, refuse};
use crate::jwt::{
    ClaimToHeader, Expiry, JwtAuthn, JwtCache, JwtPerRoute, JwtProvider, JwtRule, KeySource, Leniency, RemoteKeys,
    Requirement, TokenLocation,
};
use meltemi_base::intern::intern;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3::RouteMatch as ProtoMatch;
use meltemi_proto::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's defaults.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
const CACHE_DURATION: Duration = Duration::from_secs(600);
const REFETCH_AFTER_FAILURE: Duration = Duration::from_secs(1);
const CACHE_ENTRIES: usize = 100;
const CACHED_TOKEN_BYTES: usize = 4096;

/// More entries or longer tokens than that one cache would hold a worker's memory by itself.
const MOST_CACHE_ENTRIES: u32 = 100_000;
const MOST_CACHED_TOKEN_BYTES: u32 = 64 * 1024;
/// As deep as requirements may be nested.
const MOST_DEPTH: usize = 16;

pub(super) fn jwt_authn(value: &proto::JwtAuthentication) -> Result<JwtAuthn> {
    let provider =
        |(name, value): (&String, _)| provider(name, value).at(&format!("providers[{name:?}]")).map(Arc::new);
    let providers: Vec<_> = value.providers.iter().map(provider).collect::<Result<_>>()?;
    let named = |(name, value): (&String, _)| {
        let requirement = requirement(value, &providers, 0).at(&format!("requirement_map[{name:?}]"))?;
        Ok((Arc::from(name.as_str()), requirement))
    };
    let named = value.requirement_map.iter().map(named).collect::<Result<_>>()?;
    let rules = list(&value.rules, "rules", |rule| {
        use proto::requirement_rule::RequirementType;
        let requirement = match &rule.requirement_type {
            None => None,
            Some(RequirementType::Requires(own)) => Some(requirement(own, &providers, 0).at("requires")?),
            Some(RequirementType::RequirementName(name)) => Some(by_name(&named, name).at("requirement_name")?),
        };
        Ok(JwtRule { matcher: rule_match(required(&rule.r#match, "match")?).at("match")?, requirement })
    })?;
    Ok(JwtAuthn {
        providers,
        rules,
        named,
        bypass_cors_preflight: value.bypass_cors_preflight,
        strip_failure_response: value.strip_failure_response,
        stat_prefix: value.stat_prefix.as_str().into(),
    })
}

type Named = std::collections::BTreeMap<Arc<str>, Requirement>;

fn by_name(named: &Named, name: &str) -> Result<Requirement> {
    named.get(name).cloned().ok_or_else(|| PlanError::new(format!("{name:?} is not in requirement_map")))
}

/// Envoy looks at no other condition of a route.
fn rule_match(value: &ProtoMatch) -> Result<crate::route::RouteMatch> {
    let unread = [
        (value.runtime_fraction.is_some(), "runtime_fraction"),
        (value.grpc.is_some(), "grpc"),
        (value.tls_context.is_some(), "tls_context"),
        (!value.dynamic_metadata.is_empty(), "dynamic_metadata"),
        (!value.cookies.is_empty(), "cookies"),
    ];
    match unread.iter().find(|(set, _)| *set) {
        Some((_, field)) => refuse(format!("{field}: is not looked at for tokens")),
        None => route_match(value),
    }
}

pub(super) fn per_route(value: &proto::PerRouteConfig) -> Result<JwtPerRoute> {
    use proto::per_route_config::RequirementSpecifier;
    match required(&value.requirement_specifier, "requirement_specifier")? {
        RequirementSpecifier::Disabled(true) => Ok(JwtPerRoute::Disabled),
        RequirementSpecifier::Disabled(false) => refuse("disabled: must be true"),
        RequirementSpecifier::RequirementName(name) if name.is_empty() => refuse("requirement_name: is required"),
        RequirementSpecifier::RequirementName(name) => Ok(JwtPerRoute::Named(name.as_str().into())),
    }
}

fn requirement(value: &proto::JwtRequirement, providers: &[Arc<JwtProvider>], depth: usize) -> Result<Requirement> {
    use proto::jwt_requirement::RequiresType;
    if depth == MOST_DEPTH {
        return refuse(format!("is nested deeper than {MOST_DEPTH}"));
    }
    let place = |name: &str| {
        let found = providers.iter().position(|provider| &*provider.name == name);
        found.ok_or_else(|| PlanError::new(format!("provider {name:?} is not configured")))
    };
    let below = |value: &_| requirement(value, providers, depth + 1);
    Ok(match &value.requires_type {
        None => Requirement::Nothing,
        Some(RequiresType::ProviderName(name)) => {
            Requirement::Provider { provider: place(name).at("provider_name")?, audiences: Vec::new() }
        }
        Some(RequiresType::ProviderAndAudiences(both)) => Requirement::Provider {
            provider: place(&both.provider_name).at("provider_name").at("provider_and_audiences")?,
            audiences: names(&both.audiences),
        },
        Some(RequiresType::RequiresAny(any)) => any_of(&any.requirements, below).at("requires_any")?,
        Some(RequiresType::RequiresAll(all)) => {
            Requirement::All(at_least_two(&all.requirements, below).at("requires_all")?)
        }
        Some(RequiresType::AllowMissing(())) => Requirement::Lenient(Leniency::Missing),
        Some(RequiresType::AllowMissingOrFailed(())) => Requirement::Lenient(Leniency::MissingOrFailed),
        Some(RequiresType::ExtractOnlyWithoutValidation(_)) => {
            return refuse("extract_only_without_validation: a token is verified or it is not looked at");
        }
    })
}

fn at_least_two(
    values: &[proto::JwtRequirement],
    below: impl Fn(&proto::JwtRequirement) -> Result<Requirement>,
) -> Result<Vec<Requirement>> {
    if values.len() < 2 {
        return refuse("requirements: at least two are needed");
    }
    list(values, "requirements", below)
}

/// The lenient ones among the alternatives are one property of them all.
fn any_of(
    values: &[proto::JwtRequirement],
    below: impl Fn(&proto::JwtRequirement) -> Result<Requirement>,
) -> Result<Requirement> {
    let mut leniency = Leniency::None;
    let mut of = Vec::new();
    for requirement in at_least_two(values, below)? {
        match requirement {
            Requirement::Lenient(Leniency::MissingOrFailed) => leniency = Leniency::MissingOrFailed,
            Requirement::Lenient(lenient) if leniency == Leniency::None => leniency = lenient,
            Requirement::Lenient(_) => {}
            other => of.push(other),
        }
    }
    Ok(if of.is_empty() { Requirement::Lenient(leniency) } else { Requirement::Any { of, leniency } })
}

fn provider(name: &str, value: &proto::JwtProvider) -> Result<JwtProvider> {
    use proto::jwt_provider::JwksSourceSpecifier;
    let keys = match required(&value.jwks_source_specifier, "local_jwks")? {
        JwksSourceSpecifier::LocalJwks(source) => KeySource::Local(data_source(source).at("local_jwks")?),
        JwksSourceSpecifier::RemoteJwks(remote) => KeySource::Remote(remote_keys(remote).at("remote_jwks")?),
    };
    let max_lifetime = optional_duration(value.max_lifetime.as_ref()).at("max_lifetime")?;
    let header = |name: &String| (!name.is_empty()).then(|| header_name(name)).transpose();
    Ok(JwtProvider {
        name: name.into(),
        issuer: intern(&value.issuer),
        audiences: names(&value.audiences),
        subjects: value.subjects.as_ref().map(string_matcher).transpose().at("subjects")?,
        expiry: match max_lifetime {
            Some(limit) => Expiry::Within(limit),
            None if value.require_expiration => Expiry::Required,
            None => Expiry::Optional,
        },
        forward: value.forward,
        locations: locations(value)?,
        forward_payload_header: header(&value.forward_payload_header).at("forward_payload_header")?,
        pad_forward_payload_header: value.pad_forward_payload_header,
        payload_in_metadata: non_empty(&value.payload_in_metadata),
        space_delimited_claims: value
            .normalize_payload_in_metadata
            .as_ref()
            .map_or_else(Vec::new, |normal| names(&normal.space_delimited_claims)),
        header_in_metadata: non_empty(&value.header_in_metadata),
        failed_status_in_metadata: non_empty(&value.failed_status_in_metadata),
        clock_skew: match value.clock_skew_seconds {
            0 => CLOCK_SKEW,
            seconds => Duration::from_secs(seconds.into()),
        },
        cache: value.jwt_cache_config.as_ref().map(cache).transpose().at("jwt_cache_config")?,
        claim_to_headers: list(&value.claim_to_headers, "claim_to_headers", claim_to_header)?,
        clear_route_cache: value.clear_route_cache,
        keys,
    })
}

fn claim_to_header(value: &proto::JwtClaimToHeader) -> Result<ClaimToHeader> {
    let path = match (value.claim_name.as_str(), &value.claim_path[..]) {
        ("", []) => return refuse("claim_name: is required"),
        (name, []) => name.split('.').map(intern).collect(),
        ("", path) => path.iter().map(|segment| intern(&segment.key)).collect(),
        (_, _) => return refuse("claim_path: cannot be given with claim_name"),
    };
    Ok(ClaimToHeader { header: header_name(&value.header_name).at("header_name")?, path })
}

fn locations(value: &proto::JwtProvider) -> Result<Vec<TokenLocation>> {
    let mut found = list(&value.from_headers, "from_headers", |header| {
        let name = header_name(&header.name).at("name")?;
        Ok(TokenLocation::Header { name, value_prefix: intern(&header.value_prefix) })
    })?;
    found.extend(names(&value.from_params).into_iter().map(TokenLocation::Param));
    found.extend(names(&value.from_cookies).into_iter().map(TokenLocation::Cookie));
    if found.is_empty() {
        let name = http::header::AUTHORIZATION;
        found.push(TokenLocation::Header { name, value_prefix: "Bearer ".into() });
        found.push(TokenLocation::Param("access_token".into()));
    }
    Ok(found)
}

fn cache(value: &proto::JwtCacheConfig) -> Result<JwtCache> {
    let bounded = |value: u32, default: usize, most: u32, field: &str| match value {
        0 => Ok(default),
        value if value > most => refuse(format!("{field}: must not be more than {most}")),
        value => Ok(value as usize),
    };
    Ok(JwtCache {
        entries: bounded(value.jwt_cache_size, CACHE_ENTRIES, MOST_CACHE_ENTRIES, "jwt_cache_size")?,
        max_token_bytes: bounded(
            value.jwt_max_token_size,
            CACHED_TOKEN_BYTES,
            MOST_CACHED_TOKEN_BYTES,
            "jwt_max_token_size",
        )?,
    })
}

fn remote_keys(value: &proto::RemoteJwks) -> Result<RemoteKeys> {
    let uri = required(&value.http_uri, "http_uri")?;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) =
        required(&uri.http_upstream_type, "cluster").at("http_uri")?;
    let timeout = duration(required(&uri.timeout, "timeout").at("http_uri")?).and_then(positive);
    let (scheme, authority, path) = split(&uri.uri).at("uri").at("http_uri")?;
    let (retries, backoff_base, backoff_max) = match &value.retry_policy {
        Some(policy) => core_retry_policy(policy).at("retry_policy")?,
        None => (0, Duration::ZERO, Duration::ZERO),
    };
    let ahead = value.async_fetch.as_ref().map(|ahead| {
        duration_or(ahead.failed_refetch_duration.as_ref(), REFETCH_AFTER_FAILURE)
            .and_then(positive)
            .at("failed_refetch_duration")
    });
    Ok(RemoteKeys {
        cluster: cluster.as_str().into(),
        https: scheme == "https",
        authority: authority.into(),
        path: path.into(),
        timeout: timeout.at("timeout").at("http_uri")?,
        cache_duration: duration_or(value.cache_duration.as_ref(), CACHE_DURATION).at("cache_duration")?,
        ahead: ahead.transpose().at("async_fetch")?,
        retries,
        backoff_base,
        backoff_max,
    })
}

/// Scheme, authority and path.
pub(super) fn split(uri: &str) -> Result<(&str, &str, &str)> {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if authority.is_empty() || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse(format!("{uri:?} is not a URI with a host"));
    }
    Ok((scheme, authority, path))
}

#[cfg(test)]
mod tests;
