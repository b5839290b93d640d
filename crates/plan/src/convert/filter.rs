//! HTTP filters and their overrides.

use super::common::{
    config_source, duration, duration_or, list, names, non_empty, optional_fraction, positive, required, resolve,
    runtime_fraction, string_matcher, unknown_type, unpack,
};
use super::header::{header_adds, header_matchers, header_mutation};
use super::{dynamic_forward, ext_authz, istio, jwt, rate_limit, rbac, session};
use crate::common::{ConfigSource, Fraction};
use crate::error::{At, PlanError, Result, refuse};
use crate::filter::{
    CorsPolicy, Fault, FaultAbort, FaultAbortBy, FaultDelay, FaultDelayBy, FilterOverride, HeaderMutationFilter,
    HealthCheckFilter, HttpFilter, HttpFilterConfig, LocalRateLimit, PerFilter, RbacFilter, RouterFilter, TokenBucket,
};
use crate::on_demand::OnDemand;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3 as route;
use meltemi_proto::envoy::extensions::filters::common::fault::v3 as common_fault;
use meltemi_proto::envoy::extensions::filters::http as ext;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_proto::envoy::r#type::v3 as kind;
use meltemi_proto::{Any, prost_types};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The chain of a connection manager, which must end in the router, and what the connection manager does in the place of the
/// on-demand filter.
pub(crate) fn http_filters(values: &[hcm::HttpFilter], field: &str) -> Result<(Vec<HttpFilter>, Option<OnDemand>)> {
    let mut filters = Vec::with_capacity(values.len());
    let mut waits = None;
    for (index, value) in values.iter().enumerate() {
        if let Some(config) = on_demand_filter(value).at_index(field, index)? {
            waits = Some(config).filter(|_| !value.disabled).or(waits);
            continue;
        }
        if let Some(filter) = http_filter(value).at_index(field, index)? {
            filters.push(filter);
        }
    }
    let routers = filters.iter().filter(|filter| matches!(filter.config, HttpFilterConfig::Router(_))).count();
    let ends = filters.last().is_some_and(|filter| matches!(filter.config, HttpFilterConfig::Router(_)));
    if routers != 1 || !ends {
        return Err(PlanError::new("must end with envoy.filters.http.router, and only there").under(field));
    }
    Ok((filters, waits))
}

fn on_demand_filter(value: &hcm::HttpFilter) -> Result<Option<OnDemand>> {
    let Some(hcm::http_filter::ConfigType::TypedConfig(any)) = &value.config_type else { return Ok(None) };
    let any = resolve(any).at("typed_config")?;
    if !any.is::<ext::on_demand::v3::OnDemand>() {
        return Ok(None);
    }
    let config: ext::on_demand::v3::OnDemand = unpack(&any).at("typed_config")?;
    let Some(clusters) = &config.odcds else {
        return Ok(Some(OnDemand { clusters: false, timeout: OnDemand::TIMEOUT }));
    };
    on_demand_clusters(clusters.source.as_ref(), clusters.timeout.as_ref(), "source")
        .at("odcds")
        .at("typed_config")
        .map(Some)
}

/// Clusters that come on the stream that everything comes on.
pub(crate) fn on_demand_clusters(
    source: Option<&core::ConfigSource>,
    timeout: Option<&prost_types::Duration>,
    field: &str,
) -> Result<OnDemand> {
    match config_source(source.ok_or_else(|| PlanError::new("is required").under(field))?).at(field)? {
        ConfigSource::Ads => {}
        ConfigSource::Grpc { .. } | ConfigSource::Path(_) => return refuse(format!("{field}: only ads is supported")),
    }
    let timeout = duration_or(timeout, OnDemand::TIMEOUT).and_then(positive).at("timeout")?;
    Ok(OnDemand { clusters: true, timeout })
}

/// `None`: an optional filter of a type that is not known.
pub(crate) fn http_filter(value: &hcm::HttpFilter) -> Result<Option<HttpFilter>> {
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    let any = match value.config_type.as_ref() {
        Some(hcm::http_filter::ConfigType::TypedConfig(any)) => resolve(any).at("typed_config")?,
        Some(hcm::http_filter::ConfigType::ConfigDiscovery(_)) => return refuse("config_discovery: is not supported"),
        None => return refuse("typed_config: is required"),
    };
    match config(&any).at("typed_config")? {
        Some(config) => Ok(Some(HttpFilter { name: value.name.as_str().into(), disabled: value.disabled, config })),
        None if value.is_optional => Ok(None),
        None => unknown_type(&any).at("typed_config"),
    }
}

fn config(any: &Any) -> Result<Option<HttpFilterConfig>> {
    use meltemi_proto::io::istio::http::peer_metadata;
    use meltemi_proto::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
    Ok(Some(if any.is::<ext::router::v3::Router>() {
        HttpFilterConfig::Router(Arc::new(router(&unpack(any)?)?))
    } else if any.is::<ext::fault::v3::HttpFault>() {
        HttpFilterConfig::Fault(Arc::new(fault(&unpack(any)?)?))
    } else if any.is::<ext::cors::v3::Cors>() {
        HttpFilterConfig::Cors
    } else if any.is::<meltemi_proto::stats::PluginConfig>() {
        HttpFilterConfig::IstioStats(Arc::new(istio::stats(&unpack(any)?)?))
    } else if any.is::<alpn::FilterConfig>() {
        HttpFilterConfig::IstioAlpn(Arc::new(istio::alpn(&unpack(any)?)?))
    } else if any.is::<peer_metadata::Config>() {
        HttpFilterConfig::PeerMetadata(Arc::new(istio::peer_metadata(&unpack(any)?)?))
    } else if any.is::<ext::grpc_stats::v3::FilterConfig>() {
        unpack::<ext::grpc_stats::v3::FilterConfig>(any)?;
        HttpFilterConfig::GrpcStats
    } else if any.is::<ext::rbac::v3::Rbac>() {
        HttpFilterConfig::Rbac(Arc::new(rbac_filter(&unpack(any)?)?))
    } else if any.is::<ext::stateful_session::v3::StatefulSession>() {
        HttpFilterConfig::StatefulSession(Arc::new(session::stateful_session(&unpack(any)?)?))
    } else if any.is::<ext::header_mutation::v3::HeaderMutation>() {
        let config: ext::header_mutation::v3::HeaderMutation = unpack(any)?;
        let mutations = required(&config.mutations, "mutations")?;
        HttpFilterConfig::HeaderMutation(Arc::new(header_mutations(mutations).at("mutations")?))
    } else if any.is::<ext::local_ratelimit::v3::LocalRateLimit>() {
        HttpFilterConfig::LocalRateLimit(Arc::new(local_rate_limit(&unpack(any)?)?))
    } else if any.is::<ext::health_check::v3::HealthCheck>() {
        HttpFilterConfig::HealthCheck(Arc::new(health_check(&unpack(any)?)?))
    } else if any.is::<ext::ratelimit::v3::RateLimit>() {
        HttpFilterConfig::RateLimit(Arc::new(rate_limit::filter(&unpack(any)?)?))
    } else if any.is::<ext::ext_authz::v3::ExtAuthz>() {
        HttpFilterConfig::ExtAuthz(Arc::new(ext_authz::ext_authz(&unpack(any)?)?))
    } else if any.is::<ext::jwt_authn::v3::JwtAuthentication>() {
        HttpFilterConfig::JwtAuthn(Arc::new(jwt::jwt_authn(&unpack(any)?)?))
    } else if any.is::<ext::dynamic_forward_proxy::v3::FilterConfig>() {
        HttpFilterConfig::DynamicForward(dynamic_forward::http_filter(&unpack(any)?)?)
    } else {
        return Ok(None);
    }))
}

/// Overrides, in order of filter name.
pub(crate) fn per_filter(values: &BTreeMap<String, Any>) -> Result<PerFilter> {
    let mut found = Vec::new();
    for (name, any) in values {
        if let Some(config) = filter_override(any).at(&format!("typed_per_filter_config[{name:?}]"))? {
            found.push((Arc::from(name.as_str()), config));
        }
    }
    Ok(PerFilter(found))
}

fn filter_override(any: &Any) -> Result<Option<FilterOverride>> {
    let any = resolve(any)?;
    if !any.is::<route::FilterConfig>() {
        return match typed_override(&any)? {
            Some(config) => Ok(Some(config)),
            None => unknown_type(&any),
        };
    }
    let wrapper: route::FilterConfig = unpack(&any)?;
    if wrapper.disabled {
        return Ok(Some(FilterOverride::Disabled));
    }
    let Some(config) = &wrapper.config else { return Ok(Some(FilterOverride::Enabled)) };
    let config = resolve(config).at("config")?;
    match typed_override(&config).at("config")? {
        Some(config) => Ok(Some(config)),
        None if wrapper.is_optional => Ok(None),
        None => unknown_type(&config).at("config"),
    }
}

fn typed_override(any: &Any) -> Result<Option<FilterOverride>> {
    Ok(Some(if any.is::<ext::fault::v3::HttpFault>() {
        FilterOverride::Fault(Arc::new(fault(&unpack(any)?)?))
    } else if any.is::<ext::cors::v3::CorsPolicy>() {
        FilterOverride::Cors(Arc::new(cors(&unpack(any)?)?))
    } else if any.is::<ext::rbac::v3::RbacPerRoute>() {
        let config: ext::rbac::v3::RbacPerRoute = unpack(any)?;
        FilterOverride::Rbac(config.rbac.as_ref().map(rbac_filter).transpose().at("rbac")?.map(Arc::new))
    } else if any.is::<ext::stateful_session::v3::StatefulSessionPerRoute>() {
        session::per_route(&unpack(any)?)?
    } else if any.is::<ext::header_mutation::v3::HeaderMutationPerRoute>() {
        let config: ext::header_mutation::v3::HeaderMutationPerRoute = unpack(any)?;
        let mutations = required(&config.mutations, "mutations")?;
        FilterOverride::HeaderMutation(Arc::new(header_mutations(mutations).at("mutations")?))
    } else if any.is::<ext::local_ratelimit::v3::LocalRateLimit>() {
        FilterOverride::LocalRateLimit(Arc::new(local_rate_limit(&unpack(any)?)?))
    } else if any.is::<ext::ratelimit::v3::RateLimitPerRoute>() {
        FilterOverride::RateLimit(Arc::new(rate_limit::per_route(&unpack(any)?)?))
    } else if any.is::<ext::ext_authz::v3::ExtAuthzPerRoute>() {
        ext_authz::per_route(&unpack(any)?)?
    } else if any.is::<ext::jwt_authn::v3::PerRouteConfig>() {
        FilterOverride::JwtAuthn(jwt::per_route(&unpack(any)?)?)
    } else {
        return Ok(None);
    }))
}

fn router(value: &ext::router::v3::Router) -> Result<RouterFilter> {
    Ok(RouterFilter { suppress_envoy_headers: value.suppress_envoy_headers })
}

fn fault(value: &ext::fault::v3::HttpFault) -> Result<Fault> {
    Ok(Fault {
        delay: value.delay.as_ref().map(delay).transpose().at("delay")?,
        abort: value.abort.as_ref().map(abort).transpose().at("abort")?,
        upstream_cluster: non_empty(&value.upstream_cluster),
        headers: header_matchers(&value.headers, "headers")?,
        downstream_nodes: names(&value.downstream_nodes),
        max_active: value.max_active_faults,
    })
}

fn delay(value: &common_fault::FaultDelay) -> Result<FaultDelay> {
    use common_fault::fault_delay::FaultDelaySecifier as By;
    let by = match required(&value.fault_delay_secifier, "fixed_delay")? {
        By::FixedDelay(fixed) => {
            let fixed = duration(fixed).at("fixed_delay")?;
            if fixed.is_zero() {
                return refuse("fixed_delay: must be greater than zero");
            }
            FaultDelayBy::Fixed(fixed)
        }
        By::HeaderDelay(_) => FaultDelayBy::Header,
    };
    Ok(FaultDelay { fraction: optional_fraction(value.percentage.as_ref(), Fraction::NEVER).at("percentage")?, by })
}

fn abort(value: &ext::fault::v3::FaultAbort) -> Result<FaultAbort> {
    use ext::fault::v3::fault_abort::ErrorType;
    let by = match required(&value.error_type, "error_type")? {
        ErrorType::HttpStatus(status @ 200..600) => FaultAbortBy::Http(*status as u16),
        ErrorType::HttpStatus(_) => return refuse("http_status: must be between 200 and 599"),
        ErrorType::GrpcStatus(status) => FaultAbortBy::Grpc(*status),
        ErrorType::HeaderAbort(_) => FaultAbortBy::Header,
    };
    Ok(FaultAbort {
        fraction: optional_fraction(value.percentage.as_ref(), Fraction::NEVER).at("percentage")?,
        by,
        body: value.response_body.as_str().into(),
    })
}

fn cors(value: &ext::cors::v3::CorsPolicy) -> Result<CorsPolicy> {
    Ok(CorsPolicy {
        allow_origins: list(&value.allow_origin_string_match, "allow_origin_string_match", string_matcher)?,
        allow_methods: value.allow_methods.as_str().into(),
        allow_headers: value.allow_headers.as_str().into(),
        expose_headers: value.expose_headers.as_str().into(),
        max_age: value.max_age.as_str().into(),
        allow_credentials: value.allow_credentials.unwrap_or(false),
        allow_private_network_access: value.allow_private_network_access.unwrap_or(false),
        forward_not_matching_preflights: value.forward_not_matching_preflights.unwrap_or(true),
        enabled: value.filter_enabled.as_ref().map_or(Ok(Fraction::ALWAYS), runtime_fraction).at("filter_enabled")?,
        shadow: value.shadow_enabled.as_ref().map_or(Ok(Fraction::NEVER), runtime_fraction).at("shadow_enabled")?,
    })
}

/// The policy in the deprecated `cors` field of hosts and routes.
pub(crate) fn legacy_cors(value: &route::CorsPolicy) -> Result<CorsPolicy> {
    let enabled = value.enabled_specifier.as_ref().map(|route::cors_policy::EnabledSpecifier::FilterEnabled(set)| set);
    cors(&ext::cors::v3::CorsPolicy {
        allow_origin_string_match: value.allow_origin_string_match.clone(),
        allow_methods: value.allow_methods.clone(),
        allow_headers: value.allow_headers.clone(),
        expose_headers: value.expose_headers.clone(),
        max_age: value.max_age.clone(),
        allow_credentials: value.allow_credentials,
        filter_enabled: enabled.cloned(),
        shadow_enabled: value.shadow_enabled.clone(),
        allow_private_network_access: value.allow_private_network_access,
        forward_not_matching_preflights: value.forward_not_matching_preflights,
    })
}

fn rbac_filter(value: &ext::rbac::v3::Rbac) -> Result<RbacFilter> {
    Ok(RbacFilter {
        rules: value.rules.as_ref().map(rbac::rbac).transpose().at("rules")?,
        shadow_rules: value.shadow_rules.as_ref().map(rbac::rbac).transpose().at("shadow_rules")?,
        rules_stat_prefix: value.rules_stat_prefix.as_str().into(),
        shadow_rules_stat_prefix: value.shadow_rules_stat_prefix.as_str().into(),
    })
}

fn header_mutations(value: &ext::header_mutation::v3::Mutations) -> Result<HeaderMutationFilter> {
    Ok(HeaderMutationFilter {
        request: list(&value.request_mutations, "request_mutations", header_mutation)?,
        response: list(&value.response_mutations, "response_mutations", header_mutation)?,
    })
}

/// Envoy's default.
const DYNAMIC_DESCRIPTORS: u32 = 20;

fn local_rate_limit(value: &ext::local_ratelimit::v3::LocalRateLimit) -> Result<LocalRateLimit> {
    let gate = |gate: &Option<_>| gate.as_ref().map_or(Ok(Fraction::NEVER), runtime_fraction);
    if value.stat_prefix.is_empty() {
        return refuse("stat_prefix: is required");
    }
    Ok(LocalRateLimit {
        stat_prefix: value.stat_prefix.as_str().into(),
        status: match value.status.as_ref().map(|status| status.code) {
            Some(code @ 400..600) => code as u16,
            // Envoy falls back to 429 for what is no error.
            _ => 429,
        },
        bucket: value.token_bucket.as_ref().map(token_bucket).transpose().at("token_bucket")?,
        enabled: gate(&value.filter_enabled).at("filter_enabled")?,
        enforced: gate(&value.filter_enforced).at("filter_enforced")?,
        request_headers_when_not_enforced: header_adds(
            &value.request_headers_to_add_when_not_enforced,
            "request_headers_to_add_when_not_enforced",
        )?,
        response_headers: header_adds(&value.response_headers_to_add, "response_headers_to_add")?,
        resource_exhausted: value.rate_limited_as_resource_exhausted,
        descriptors: list(&value.descriptors, "descriptors", rate_limit::descriptor)?,
        most_values: match value.max_dynamic_descriptors {
            None => DYNAMIC_DESCRIPTORS,
            Some(0) => return refuse("max_dynamic_descriptors: must be at least 1"),
            Some(most) => most,
        },
        stage: value.stage,
        host_policies: rate_limit::host_policies(value.vh_rate_limits).at("vh_rate_limits")?,
        always_counts_all: value.always_consume_default_token_bucket.unwrap_or(true),
        policies: rate_limit::own_policies(&value.rate_limits)?,
    })
}

pub(crate) fn token_bucket(value: &kind::TokenBucket) -> Result<TokenBucket> {
    let fill_interval = duration(required(&value.fill_interval, "fill_interval")?).at("fill_interval")?;
    if value.max_tokens == 0 {
        return refuse("max_tokens: must be greater than zero");
    }
    if fill_interval < Duration::from_millis(1) {
        return refuse("fill_interval: must be at least 1 ms");
    }
    let tokens_per_fill = value.tokens_per_fill.unwrap_or(1);
    if tokens_per_fill == 0 {
        return refuse("tokens_per_fill: must be greater than zero");
    }
    Ok(TokenBucket { max_tokens: value.max_tokens, tokens_per_fill, fill_interval })
}

fn health_check(value: &ext::health_check::v3::HealthCheck) -> Result<HealthCheckFilter> {
    let pass_through =
        value.pass_through_mode.ok_or_else(|| PlanError::new("is required").under("pass_through_mode"))?;
    Ok(HealthCheckFilter { pass_through, headers: header_matchers(&value.headers, "headers")? })
}
