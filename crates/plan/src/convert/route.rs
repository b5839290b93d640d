//! Route configurations, virtual hosts and route matches.

use super::common::{
    config_source, enumeration, fingerprint, list, optional_fraction, regex, required, runtime_fraction,
    shared_metadata, string_matcher,
};
use super::filter::per_filter;
use super::header::{header_matchers, header_rules};
use super::rbac::metadata_matcher;
use super::retry::retry_policy;
use super::route_action::{direct_response, forward, mirrors, redirect};
use crate::anomaly::Watch;
use crate::common::{ConfigSource, Fraction};
use crate::error::{At, PlanError, Result, refuse};
use crate::filter::{FilterOverride, PerFilter};
use crate::header::HeaderKey;
use crate::on_demand::{OnDemandHost, Usage};
use crate::route::{
    CookieMatcher, Decorator, HostSettings, PathRule, QueryMatcher, Route, RouteAction, RouteConfiguration, RouteMatch,
    RouteSettings, RouteTracing, TlsRequirement, VirtualCluster, VirtualHost,
};
use meltemi_base::intern::{Made, Shared, Table, intern};
use meltemi_matchers::DomainTrie;
use meltemi_proto::envoy::config::route::v3 as proto;
use std::sync::Arc;

/// Envoy's default for bodies of direct responses.
const MAX_DIRECT_RESPONSE_BODY: usize = 4096;

pub fn route_configuration(value: &proto::RouteConfiguration) -> Result<RouteConfiguration> {
    let bytes = meltemi_proto::encode(value);
    crate::support::check(&bytes, "envoy.config.route.v3.RouteConfiguration")?;
    Ok(RouteConfiguration { fingerprint: fingerprint(&bytes), ..unchecked(value)? })
}

pub fn encoded_route_configuration(bytes: &[u8]) -> Result<RouteConfiguration> {
    // Decoding drops fields that are too new for our types; they are refused like any other that has no effect.
    crate::support::check(bytes, "envoy.config.route.v3.RouteConfiguration")?;
    Ok(RouteConfiguration {
        fingerprint: fingerprint(bytes),
        ..unchecked(&meltemi_proto::decode_route_configuration(bytes)?)?
    })
}

/// Without the walk for unsupported fields: the caller's resource held this one and was walked.
pub(crate) fn unchecked(value: &proto::RouteConfiguration) -> Result<RouteConfiguration> {
    let max_body = value.max_direct_response_body_size_bytes.map_or(MAX_DIRECT_RESPONSE_BODY, |bytes| bytes as usize);
    let context = HostContext { max_body };
    let mut hosts = DomainTrie::default();
    let mut virtual_hosts = Vec::with_capacity(value.virtual_hosts.len());
    for (index, host) in value.virtual_hosts.iter().enumerate() {
        let built = Arc::new(virtual_host(host, &context).at_index("virtual_hosts", index)?);
        for (at, domain) in host.domains.iter().enumerate() {
            hosts.insert(domain, built.clone()).at_index("domains", at).at_index("virtual_hosts", index)?;
        }
        virtual_hosts.push(built);
    }
    Ok(RouteConfiguration {
        name: value.name.as_str().into(),
        hosts,
        virtual_hosts,
        request_headers: header_rules(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            "request_headers",
        )?,
        response_headers: header_rules(
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            "response_headers",
        )?,
        most_specific_header_mutations_wins: value.most_specific_header_mutations_wins,
        max_direct_response_body: max_body,
        mirrors: mirrors(&value.request_mirror_policies)?,
        ignore_port: value.ignore_port_in_host_matching,
        on_demand: value.vhds.as_ref().map(from_ads).transpose().at("vhds")?.is_some(),
        vhost_header: match value.vhost_header.as_str() {
            "" => None,
            name => Some(HeaderKey::parse(name).at("vhost_header")?),
        },
        ignore_path_parameters: value.ignore_path_parameters_in_path_matching,
        validate_clusters: value.validate_clusters,
        per_filter: per_filter(&value.typed_per_filter_config)?,
        metadata: shared_metadata(value.metadata.as_ref()),
        fingerprint: 0,
    })
}

/// Hosts come on the stream that everything comes on.
fn from_ads(value: &proto::Vhds) -> Result<()> {
    match config_source(required(&value.config_source, "config_source")?).at("config_source")? {
        ConfigSource::Ads => Ok(()),
        ConfigSource::Grpc { .. } | ConfigSource::Path(_) => refuse("config_source: only ads is supported"),
    }
}

/// A virtual host that comes by itself.
pub fn encoded_virtual_host(bytes: &[u8]) -> Result<OnDemandHost> {
    crate::support::check(bytes, "envoy.config.route.v3.VirtualHost")?;
    let value = meltemi_proto::decode_virtual_host(bytes)?;
    let mut domains = DomainTrie::default();
    for (at, domain) in value.domains.iter().enumerate() {
        domains.insert(domain, ()).at_index("domains", at)?;
    }
    // The limit on bodies is the route configuration's, which it may come before; the message's own size bounds them.
    let host = virtual_host(&value, &HostContext { max_body: usize::MAX })?;
    Ok(OnDemandHost {
        name: value.name.as_str().into(),
        domains: value.domains.iter().map(|domain| domain.as_str().into()).collect(),
        host: Arc::new(VirtualHost { usage: Some(Usage::default()), ..host }),
        fingerprint: fingerprint(bytes),
    })
}

struct HostContext {
    max_body: usize,
}

fn virtual_host(value: &proto::VirtualHost, context: &HostContext) -> Result<VirtualHost> {
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    if value.domains.is_empty() {
        return refuse("domains: at least one is needed");
    }
    static KNOWN: Table<Made<HostSettings>> = Table::new();
    // Without name, domains and routes.
    let (_, common) = crate::support::split(&meltemi_proto::encode(value), &[1, 2, 3])?;
    Ok(VirtualHost {
        name: intern(&value.name),
        routes: list(&value.routes, "routes", |each| route(each, context).map(Arc::new))?.into(),
        settings: KNOWN.made_from(&common, || host_settings(value))?,
        usage: None,
    })
}

fn host_settings(value: &proto::VirtualHost) -> Result<HostSettings> {
    use proto::virtual_host::TlsRequirementType;
    Ok(HostSettings {
        require_tls: match enumeration::<TlsRequirementType>(value.require_tls).at("require_tls")? {
            TlsRequirementType::None => TlsRequirement::None,
            TlsRequirementType::ExternalOnly => TlsRequirement::ExternalOnly,
            TlsRequirementType::All => TlsRequirement::All,
        },
        request_headers: header_rules(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            "request_headers",
        )?,
        response_headers: header_rules(
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            "response_headers",
        )?,
        retry_policy: value.retry_policy.as_ref().map(retry_policy).transpose().at("retry_policy")?.map(Arc::new),
        mirrors: mirrors(&value.request_mirror_policies)?,
        rate_limits: super::rate_limit::policies(&value.rate_limits)?,
        include_request_attempt_count: value.include_request_attempt_count,
        include_attempt_count_in_response: value.include_attempt_count_in_response,
        retry_buffer_limit: buffer_limit(value.per_request_buffer_limit_bytes, value.request_body_buffer_limit),
        virtual_clusters: list(&value.virtual_clusters, "virtual_clusters", |cluster| {
            Ok(VirtualCluster {
                name: cluster.name.as_str().into(),
                headers: header_matchers(&cluster.headers, "headers")?,
            })
        })?,
        per_filter: host_per_filter(value)?,
        metadata: shared_metadata(value.metadata.as_ref()),
    })
}

fn buffer_limit(old: Option<u32>, new: Option<u64>) -> Option<u64> {
    new.or(old.map(u64::from))
}

/// The deprecated `cors` field is the cors filter's override.
fn host_per_filter(value: &proto::VirtualHost) -> Result<PerFilter> {
    let mut found = per_filter(&value.typed_per_filter_config)?;
    if let Some(cors) = &value.cors {
        let policy = super::filter::legacy_cors(cors).at("cors")?;
        found.0.push(("envoy.filters.http.cors".into(), FilterOverride::Cors(Arc::new(policy))));
    }
    Ok(found)
}

fn route(value: &proto::Route, context: &HostContext) -> Result<Route> {
    use proto::route::Action;
    static MATCHES: Table<Made<RouteMatch>> = Table::new();
    let matching = required(&value.r#match, "match")?;
    let matcher = MATCHES.made_from(&meltemi_proto::encode(matching), || route_match(matching)).at("match")?;
    let action = match value.action.as_ref() {
        Some(Action::Route(action)) => RouteAction::Forward(Box::new(forward(action, &matcher.path).at("route")?)),
        Some(Action::Redirect(action)) => RouteAction::Redirect(Box::new(redirect(action).at("redirect")?)),
        Some(Action::DirectResponse(action)) => {
            RouteAction::DirectResponse(Box::new(direct_response(action, context.max_body).at("direct_response")?))
        }
        Some(Action::NonForwardingAction(_)) => RouteAction::NonForwarding,
        Some(Action::FilterAction(_)) => return refuse("filter_action: is not supported"),
        None => return refuse("action: one of route, redirect and direct_response is required"),
    };
    let metadata = shared_metadata(value.metadata.as_ref());
    Ok(Route {
        name: intern(&value.name),
        matcher,
        action,
        watch: Watch::of(metadata.as_deref()).at("filter_metadata").at("metadata")?,
        metadata,
        decorator: value.decorator.as_ref().map(decorator).transpose().at("decorator")?,
        settings: shared_settings(value)?,
    })
}

fn shared_settings(value: &proto::Route) -> Result<Shared<RouteSettings>> {
    static KNOWN: Table<Made<RouteSettings>> = Table::new();
    // Without match, the three actions, metadata, decorator and name.
    let (_, mut common) = crate::support::split(&meltemi_proto::encode(value), &[1, 2, 3, 4, 5, 7, 14])?;
    let cors = match &value.action {
        Some(proto::route::Action::Route(action)) => action.cors.as_ref(),
        _ => None,
    };
    if let Some(cors) = cors {
        // A part of the action that becomes a part of the settings; what follows field 0 is no other field.
        common.push(0);
        common.extend_from_slice(&meltemi_proto::encode(cors));
    }
    KNOWN.made_from(&common, || route_settings(value, cors))
}

/// The deprecated `cors` of an action is the cors filter's override.
fn route_settings(value: &proto::Route, cors: Option<&proto::CorsPolicy>) -> Result<RouteSettings> {
    let mut overrides = per_filter(&value.typed_per_filter_config)?;
    if let Some(cors) = cors {
        let policy = super::filter::legacy_cors(cors).at("cors").at("route")?;
        overrides.0.push(("envoy.filters.http.cors".into(), FilterOverride::Cors(Arc::new(policy))));
    }
    Ok(RouteSettings {
        request_headers: header_rules(
            &value.request_headers_to_add,
            &value.request_headers_to_remove,
            "request_headers",
        )?,
        response_headers: header_rules(
            &value.response_headers_to_add,
            &value.response_headers_to_remove,
            "response_headers",
        )?,
        per_filter: overrides,
        tracing: value.tracing.as_ref().map(route_tracing).transpose().at("tracing")?,
        retry_buffer_limit: buffer_limit(value.per_request_buffer_limit_bytes, value.request_body_buffer_limit),
        stat_prefix: value.stat_prefix.as_str().into(),
    })
}

fn decorator(value: &proto::Decorator) -> Result<Decorator> {
    if value.operation.is_empty() {
        return refuse("operation: is required");
    }
    Ok(Decorator { operation: intern(&value.operation), propagate: value.propagate.unwrap_or(true) })
}

fn route_tracing(value: &proto::Tracing) -> Result<RouteTracing> {
    let sampling =
        |value: &Option<_>| value.as_ref().map(|set| optional_fraction(Some(set), Fraction::ALWAYS)).transpose();
    Ok(RouteTracing {
        client_sampling: sampling(&value.client_sampling).at("client_sampling")?,
        random_sampling: sampling(&value.random_sampling).at("random_sampling")?,
        overall_sampling: sampling(&value.overall_sampling).at("overall_sampling")?,
        custom_tags: list(&value.custom_tags, "custom_tags", super::tracing::custom_tag)?,
    })
}

pub(super) fn route_match(value: &proto::RouteMatch) -> Result<RouteMatch> {
    Ok(RouteMatch {
        path: path_rule(value)?,
        headers: header_matchers(&value.headers, "headers")?,
        query: list(&value.query_parameters, "query_parameters", query_matcher)?,
        cookies: list(&value.cookies, "cookies", |cookie| {
            if cookie.name.is_empty() {
                return refuse("name: is required");
            }
            Ok(CookieMatcher {
                name: cookie.name.as_str().into(),
                value: string_matcher(required(&cookie.string_match, "string_match")?).at("string_match")?,
                invert: cookie.invert_match,
            })
        })?,
        fraction: value.runtime_fraction.as_ref().map(runtime_fraction).transpose().at("runtime_fraction")?,
        grpc: value.grpc.is_some(),
        tls_presented: value.tls_context.as_ref().and_then(|tls| tls.presented),
        tls_validated: value.tls_context.as_ref().and_then(|tls| tls.validated),
        dynamic_metadata: list(&value.dynamic_metadata, "dynamic_metadata", metadata_matcher)?,
    })
}

fn path_rule(value: &proto::RouteMatch) -> Result<PathRule> {
    use proto::route_match::PathSpecifier;
    let ignore_case = !value.case_sensitive.unwrap_or(true);
    Ok(match required(&value.path_specifier, "path_specifier")? {
        PathSpecifier::Prefix(prefix) => PathRule::Prefix { prefix: prefix.as_str().into(), ignore_case },
        PathSpecifier::Path(path) => PathRule::Exact { path: path.as_str().into(), ignore_case },
        PathSpecifier::SafeRegex(pattern) => PathRule::Regex(regex(pattern).at("safe_regex")?),
        PathSpecifier::ConnectMatcher(_) => PathRule::Connect,
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let fine =
                prefix.len() > 1 && prefix.starts_with('/') && !prefix.ends_with('/') && !prefix.contains(['?', '#']);
            if !fine {
                return refuse("path_separated_prefix: must start with / and not end with it, without ? and #");
            }
            PathRule::SeparatedPrefix { prefix: prefix.as_str().into(), ignore_case }
        }
        PathSpecifier::PathMatchPolicy(_) => return refuse("path_match_policy: is not supported"),
    })
}

pub(super) fn query_matcher(value: &proto::QueryParameterMatcher) -> Result<QueryMatcher> {
    use proto::query_parameter_matcher::QueryParameterMatchSpecifier as Kind;
    if value.name.is_empty() || value.name.len() > 1024 {
        return Err(PlanError::new("must have 1 to 1024 bytes").under("name"));
    }
    let (matcher, absent) = match value.query_parameter_match_specifier.as_ref() {
        None => (None, false),
        Some(Kind::PresentMatch(present)) => (None, !present),
        Some(Kind::StringMatch(matcher)) => (Some(string_matcher(matcher).at("string_match")?), false),
    };
    Ok(QueryMatcher { name: value.name.as_str().into(), value: matcher, absent })
}

#[cfg(test)]
mod tests;
