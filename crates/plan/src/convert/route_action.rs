//! What a route does: forward, redirect, answer.

use super::access_log::body_format;
use super::common::{
    duration, enumeration, inline_data, lb_match, list, non_empty, optional_duration, port, regex_rewrite, required,
    runtime_fraction,
};
use super::filter::per_filter;
use super::header::header_rules;
use super::retry::retry_policy;
use crate::common::Fraction;
use crate::error::{At, PlanError, Result, refuse};
use crate::format::Format;
use crate::header::HeaderKey;
use crate::route::{
    ClusterSpec, DirectResponse, Forward, ForwardSettings, HashBy, HashPolicy, HostRewrite, MaxStreamDuration,
    MirrorCluster, MirrorPolicy, PathRewrite, PathRule, Redirect, RedirectPath, RouteUpgrade, WeightRandom,
    WeightedCluster, WeightedClusters, WeightedName,
};
use meltemi_base::intern::{Made, Table, intern};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::route::v3 as proto;
use proto::route_action as action;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default for a route's timeout.
const TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) fn forward(value: &proto::RouteAction, matched: &PathRule) -> Result<Forward> {
    static KNOWN: Table<Made<ForwardSettings>> = Table::new();
    if !value.prefix_rewrite.is_empty() && matches!(matched, PathRule::Connect) {
        return refuse("prefix_rewrite: needs a match by path");
    }
    // Without the three ways to name a cluster, and the policy that a route's settings take over.
    let (_, common) = crate::support::split(&meltemi_proto::encode(value), &[1, 2, 3, 17])?;
    Ok(Forward { cluster: cluster_spec(value)?, settings: KNOWN.made_from(&common, || settings(value))? })
}

fn settings(value: &proto::RouteAction) -> Result<ForwardSettings> {
    use action::ClusterNotFoundResponseCode as NotFound;
    let priority = enumeration::<core::RoutingPriority>(value.priority).at("priority")?;
    let timeout = optional_duration(value.timeout.as_ref()).at("timeout")?.unwrap_or(TIMEOUT);
    Ok(ForwardSettings {
        cluster_not_found_status: match enumeration::<NotFound>(value.cluster_not_found_response_code)
            .at("cluster_not_found_response_code")?
        {
            NotFound::ServiceUnavailable => 503,
            NotFound::NotFound => 404,
            NotFound::InternalServerError => 500,
        },
        metadata_match: lb_match(value.metadata_match.as_ref()),
        path_rewrite: path_rewrite(value)?,
        host_rewrite: host_rewrite(value)?,
        append_x_forwarded_host: value.append_x_forwarded_host,
        timeout: (!timeout.is_zero()).then_some(timeout),
        idle_timeout: optional_duration(value.idle_timeout.as_ref()).at("idle_timeout")?,
        flush_timeout: optional_duration(value.flush_timeout.as_ref()).at("flush_timeout")?,
        max_stream_duration: value
            .max_stream_duration
            .as_ref()
            .map(max_stream)
            .transpose()
            .at("max_stream_duration")?,
        retry_policy: value.retry_policy.as_ref().map(retry_policy).transpose().at("retry_policy")?.map(Arc::new),
        mirrors: mirrors(&value.request_mirror_policies)?,
        hash_policy: hash_policies(&value.hash_policy)?,
        rate_limits: super::rate_limit::policies(&value.rate_limits)?,
        include_host_rate_limits: value.include_vh_rate_limits.unwrap_or(false),
        high_priority: priority == core::RoutingPriority::High,
        upgrades: upgrades(value)?,
        max_grpc_timeout: optional_duration(value.max_grpc_timeout.as_ref()).at("max_grpc_timeout")?,
        grpc_timeout_offset: optional_duration(value.grpc_timeout_offset.as_ref()).at("grpc_timeout_offset")?,
    })
}

fn cluster_spec(value: &proto::RouteAction) -> Result<ClusterSpec> {
    use action::ClusterSpecifier as Kind;
    Ok(match required(&value.cluster_specifier, "cluster_specifier")? {
        Kind::Cluster(name) if name.is_empty() => return refuse("cluster: must not be empty"),
        Kind::Cluster(name) => ClusterSpec::Named(intern(name)),
        Kind::ClusterHeader(name) => ClusterSpec::Header(HeaderKey::parse(name).at("cluster_header")?),
        Kind::WeightedClusters(clusters) => {
            ClusterSpec::Weighted(Arc::new(weighted(clusters).at("weighted_clusters")?))
        }
        Kind::ClusterSpecifierPlugin(_) => return refuse("cluster_specifier_plugin: is not supported"),
        Kind::InlineClusterSpecifierPlugin(_) => return refuse("inline_cluster_specifier_plugin: is not supported"),
    })
}

fn weighted(value: &proto::WeightedCluster) -> Result<WeightedClusters> {
    use proto::weighted_cluster::RandomValueSpecifier as Random;
    if value.clusters.is_empty() {
        return refuse("clusters: at least one is needed");
    }
    let clusters = list(&value.clusters, "clusters", weighted_cluster)?;
    let total: u64 = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total == 0 || total > u64::from(u32::MAX) {
        return refuse("clusters: the sum of the weights must be between 1 and 4294967295");
    }
    let random = match value.random_value_specifier.as_ref() {
        None | Some(Random::UseHashPolicy(false)) => WeightRandom::Stream,
        Some(Random::UseHashPolicy(true)) => WeightRandom::HashPolicy,
        Some(Random::HeaderName(name)) => WeightRandom::Header(HeaderKey::parse(name).at("header_name")?),
    };
    Ok(WeightedClusters { clusters, total, random })
}

fn weighted_cluster(value: &proto::weighted_cluster::ClusterWeight) -> Result<WeightedCluster> {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let cluster = match (value.name.as_str(), value.cluster_header.as_str()) {
        ("", "") => return refuse("name: one of name and cluster_header is required"),
        (name, "") => WeightedName::Named(intern(name)),
        ("", header) => WeightedName::Header(HeaderKey::parse(header).at("cluster_header")?),
        _ => return refuse("name: only one of name and cluster_header may be set"),
    };
    Ok(WeightedCluster {
        cluster,
        weight: value.weight.unwrap_or(0),
        metadata_match: lb_match(value.metadata_match.as_ref()),
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
        per_filter: per_filter(&value.typed_per_filter_config)?,
        host_rewrite: value
            .host_rewrite_specifier
            .as_ref()
            .map(|HostRewriteSpecifier::HostRewriteLiteral(host)| Arc::from(host.as_str())),
    })
}

fn path_rewrite(value: &proto::RouteAction) -> Result<PathRewrite> {
    let set = [
        !value.prefix_rewrite.is_empty(),
        value.regex_rewrite.is_some(),
        !value.path_rewrite.is_empty(),
        value.path_rewrite_policy.is_some(),
    ];
    if set.iter().filter(|set| **set).count() > 1 {
        return refuse("prefix_rewrite: only one of the path rewrites may be set");
    }
    if !value.prefix_rewrite.is_empty() {
        return Ok(PathRewrite::Prefix(value.prefix_rewrite.as_str().into()));
    }
    if let Some(rewrite) = &value.regex_rewrite {
        return Ok(PathRewrite::Regex(regex_rewrite(rewrite).at("regex_rewrite")?));
    }
    if !value.path_rewrite.is_empty() {
        return Ok(PathRewrite::Format(Format::parse(&value.path_rewrite).at("path_rewrite")?));
    }
    Ok(PathRewrite::None)
}

fn host_rewrite(value: &proto::RouteAction) -> Result<HostRewrite> {
    use action::HostRewriteSpecifier as Kind;
    Ok(match value.host_rewrite_specifier.as_ref() {
        None | Some(Kind::AutoHostRewrite(false)) => HostRewrite::None,
        Some(Kind::HostRewriteLiteral(host)) => HostRewrite::Literal(Format::literal(host)),
        Some(Kind::HostRewrite(host)) => HostRewrite::Literal(Format::parse(host).at("host_rewrite")?),
        Some(Kind::AutoHostRewrite(true)) => HostRewrite::Auto,
        Some(Kind::HostRewriteHeader(name)) => HostRewrite::Header(HeaderKey::parse(name).at("host_rewrite_header")?),
        Some(Kind::HostRewritePathRegex(rewrite)) => {
            HostRewrite::PathRegex(regex_rewrite(rewrite).at("host_rewrite_path_regex")?)
        }
    })
}

fn max_stream(value: &action::MaxStreamDuration) -> Result<MaxStreamDuration> {
    Ok(MaxStreamDuration {
        duration: optional_duration(value.max_stream_duration.as_ref()).at("max_stream_duration")?,
        grpc_timeout_max: optional_duration(value.grpc_timeout_header_max.as_ref()).at("grpc_timeout_header_max")?,
        grpc_timeout_offset: optional_duration(value.grpc_timeout_header_offset.as_ref())
            .at("grpc_timeout_header_offset")?,
    })
}

pub(crate) fn mirrors(values: &[action::RequestMirrorPolicy]) -> Result<Vec<Arc<MirrorPolicy>>> {
    list(values, "request_mirror_policies", |value| mirror(value).map(Arc::new))
}

fn mirror(value: &action::RequestMirrorPolicy) -> Result<MirrorPolicy> {
    let cluster = match (value.cluster.as_str(), value.cluster_header.as_str()) {
        ("", "") => return refuse("cluster: one of cluster and cluster_header is required"),
        (name, "") => MirrorCluster::Named(name.into()),
        ("", header) => MirrorCluster::Header(HeaderKey::parse(header).at("cluster_header")?),
        _ => return refuse("cluster: only one of cluster and cluster_header may be set"),
    };
    Ok(MirrorPolicy {
        cluster,
        fraction: value
            .runtime_fraction
            .as_ref()
            .map_or(Ok(Fraction::ALWAYS), runtime_fraction)
            .at("runtime_fraction")?,
        shadow_suffix: !value.disable_shadow_host_suffix_append,
        trace_sampled: value.trace_sampled,
        host_rewrite: non_empty(&value.host_rewrite_literal),
    })
}

pub(crate) fn hash_policies(values: &[action::HashPolicy]) -> Result<Vec<HashPolicy>> {
    list(values, "hash_policy", hash_policy)
}

fn hash_policy(value: &action::HashPolicy) -> Result<HashPolicy> {
    use action::hash_policy::PolicySpecifier as Kind;
    let by = match required(&value.policy_specifier, "policy_specifier")? {
        Kind::Header(header) => HashBy::Header {
            key: HeaderKey::parse(&header.header_name).at("header.header_name")?,
            rewrite: header.regex_rewrite.as_ref().map(regex_rewrite).transpose().at("header.regex_rewrite")?,
        },
        Kind::Cookie(cookie) if cookie.name.is_empty() => return refuse("cookie.name: is required"),
        Kind::Cookie(cookie) => HashBy::Cookie {
            name: cookie.name.as_str().into(),
            ttl: cookie.ttl.as_ref().map(duration).transpose().at("cookie.ttl")?,
            path: cookie.path.as_str().into(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| (Arc::from(attribute.name.as_str()), Arc::from(attribute.value.as_str())))
                .collect(),
        },
        Kind::ConnectionProperties(properties) if properties.source_ip => HashBy::SourceIp,
        Kind::ConnectionProperties(_) => return refuse("connection_properties.source_ip: must be true"),
        Kind::QueryParameter(parameter) if parameter.name.is_empty() => {
            return refuse("query_parameter.name: is required");
        }
        Kind::QueryParameter(parameter) => HashBy::QueryParameter(parameter.name.as_str().into()),
        Kind::FilterState(state) => HashBy::FilterState(state.key.as_str().into()),
    };
    Ok(HashPolicy { by, terminal: value.terminal })
}

fn upgrades(value: &proto::RouteAction) -> Result<Vec<RouteUpgrade>> {
    let upgrades = list(&value.upgrade_configs, "upgrade_configs", upgrade)?;
    for (index, one) in upgrades.iter().enumerate() {
        if upgrades[..index].iter().any(|other| other.kind == one.kind) {
            return refuse(format!("upgrade_configs[{index}]: upgrade {:?} appears twice", one.kind));
        }
    }
    Ok(upgrades)
}

fn upgrade(value: &action::UpgradeConfig) -> Result<RouteUpgrade> {
    let kind = value.upgrade_type.to_ascii_lowercase();
    if kind.is_empty() {
        return refuse("upgrade_type: is required");
    }
    if value.connect_config.is_some() && kind != "connect" {
        return refuse("connect_config: is only for CONNECT");
    }
    Ok(RouteUpgrade {
        kind: kind.into(),
        enabled: value.enabled.unwrap_or(true),
        terminate_connect: value.connect_config.is_some(),
    })
}

pub(crate) fn redirect(value: &proto::RedirectAction) -> Result<Redirect> {
    use proto::redirect_action::{
        PathRewriteSpecifier as PathKind, RedirectResponseCode as Code, SchemeRewriteSpecifier,
    };
    Ok(Redirect {
        status: match enumeration::<Code>(value.response_code).at("response_code")? {
            Code::MovedPermanently => 301,
            Code::Found => 302,
            Code::SeeOther => 303,
            Code::TemporaryRedirect => 307,
            Code::PermanentRedirect => 308,
        },
        scheme: match value.scheme_rewrite_specifier.as_ref() {
            None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
            Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
            Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => non_empty(scheme),
        },
        host: non_empty(&value.host_redirect),
        port: match value.port_redirect {
            0 => None,
            number => Some(port(number).at("port_redirect")?),
        },
        path: match value.path_rewrite_specifier.as_ref() {
            None => RedirectPath::Keep,
            Some(PathKind::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
            Some(PathKind::PathRedirect(path)) => RedirectPath::Full(Format::literal(path)),
            Some(PathKind::PathRewrite(path)) => RedirectPath::Full(Format::parse(path).at("path_rewrite")?),
            Some(PathKind::PrefixRewrite(prefix)) if prefix.is_empty() => RedirectPath::Keep,
            Some(PathKind::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.as_str().into()),
            Some(PathKind::RegexRewrite(rewrite)) => RedirectPath::Regex(regex_rewrite(rewrite).at("regex_rewrite")?),
        },
        strip_query: value.strip_query,
    })
}

pub(crate) fn direct_response(value: &proto::DirectResponseAction, max_body: usize) -> Result<DirectResponse> {
    let status = u16::try_from(value.status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| PlanError::new("must be between 200 and 599").under("status"))?;
    let body = value.body.as_ref().map(inline_data).transpose().at("body")?;
    if let Some(bytes) = &body
        && bytes.len() > max_body
    {
        return refuse(format!("body: response body size is {} bytes; maximum is {max_body}", bytes.len()));
    }
    Ok(DirectResponse {
        status,
        body,
        body_format: value.body_format.as_ref().map(body_format).transpose().at("body_format")?,
    })
}
