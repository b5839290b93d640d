//! Clusters.

use super::cluster_http::upstream_http;
use super::common::{
    KIB, config_source, duration, duration_or, enumeration, fingerprint, keepalive, list, numeric, optional_duration,
    percent, positive, required, resolve, shared_metadata, structure, timeout_or, unknown_type, unpack,
};
use super::health::health_check;
use super::lb::{common_lb, lb_policy};
use super::transport::{transport_match, upstream};
use super::{dynamic_forward, endpoint, istio};
use crate::anomaly::AnomalyDetection;
use crate::cluster::{
    BindConfig, CircuitBreakers, Cluster, ClusterKind, ClusterSettings, DnsFamily, DnsSettings, LbSubsets, OriginalDst,
    OutlierDetection, RetryBudget, SubsetFallback, SubsetSelector, Thresholds, TransportSocket, UpstreamFilter,
    UpstreamHttp,
};
use crate::common::{Address, ConfigSource};
use crate::error::{At, PlanError, Result, refuse};
use meltemi_base::intern::{Table, intern};
use meltemi_proto::envoy::config::cluster::v3 as proto;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::clusters::dns::v3::DnsCluster;
use meltemi_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use meltemi_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use meltemi_proto::envoy::tcp::metadataexchange::config::MetadataExchange;
use meltemi_proto::prost_types;
use proto::cluster::{ClusterDiscoveryType, DiscoveryType, LbConfig};
use std::sync::Arc;
use std::time::Duration;

const BUFFER_LIMIT: u32 = KIB * KIB;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What differs from cluster to cluster: name, `eds_cluster_config`, `transport_socket`, `metadata`, `alt_stat_name`,
/// `load_assignment`, `transport_socket_matches`. The rest makes the settings.
const OWN: &[u32] = &[1, 3, 24, 25, 28, 33, 43];

/// Settings that some cluster has, by their encoded form.
static SETTINGS: Table<ClusterSettings> = Table::new();

pub fn cluster(value: &proto::Cluster) -> Result<Cluster> {
    encoded_cluster(&meltemi_proto::encode(value))
}

/// Settings that are known already are not converted again: of a cluster like many others only its own fields are read.
pub fn encoded_cluster(bytes: &[u8]) -> Result<Cluster> {
    let (own, common) = crate::support::split(bytes, OWN)?;
    let hash = fingerprint(&common);
    let settings = match SETTINGS.find(hash, |known| *known.encoded == *common) {
        Some(known) => known,
        None => {
            crate::support::check(&common, "envoy.config.cluster.v3.Cluster")?;
            let settings = Arc::new(settings(&meltemi_proto::decode_cluster(&common)?, common.into())?);
            SETTINGS.insert(hash, &settings);
            settings
        }
    };
    crate::support::check(&own, "envoy.config.cluster.v3.Cluster")?;
    let value = meltemi_proto::decode_cluster(&own)?;
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    let assignment = value.load_assignment.as_ref().map(endpoint::unchecked).transpose().at("load_assignment")?;
    check_endpoints(&settings.kind, assignment.as_ref()).at("load_assignment")?;
    let name = intern(&value.name);
    if value.transport_socket_matches.len() >= usize::from(u16::MAX) {
        return refuse("transport_socket_matches: too many");
    }
    let metadata = shared_metadata(value.metadata.as_ref());
    let anomalies = AnomalyDetection::of(metadata.as_deref()).at("filter_metadata").at("metadata")?;
    Ok(Cluster {
        stat_name: if value.alt_stat_name.is_empty() { name.clone() } else { intern(&value.alt_stat_name) },
        service_name: match settings.kind {
            ClusterKind::Eds => eds(&value)?,
            ClusterKind::Static
            | ClusterKind::StrictDns
            | ClusterKind::LogicalDns
            | ClusterKind::OriginalDst(_)
            | ClusterKind::DynamicForward(_) => Arc::default(),
        },
        name,
        load_assignment: assignment.map(Arc::new),
        transport: value
            .transport_socket
            .as_ref()
            .map_or(Ok(TransportSocket::Plain), upstream)
            .at("transport_socket")?,
        transport_matches: list(&value.transport_socket_matches, "transport_socket_matches", transport_match)?,
        anomalies: anomalies.map(Arc::new),
        metadata: metadata.unwrap_or_default(),
        settings,
        fingerprint: fingerprint(bytes),
    })
}

fn settings(value: &proto::Cluster, encoded: bytes::Bytes) -> Result<ClusterSettings> {
    let (kind, dns) = discovery(value)?;
    let upstream_options = value.upstream_connection_options.unwrap_or_default();
    let (lb_policy, extension_lb) = lb_policy(value)?;
    let provides = matches!(kind, ClusterKind::OriginalDst(_) | ClusterKind::DynamicForward(_));
    if provides != matches!(lb_policy, crate::cluster::LbPolicy::ClusterProvided) {
        return refuse(
            "lb_policy: ORIGINAL_DST and dynamic_forward_proxy clusters, and only they, take CLUSTER_PROVIDED",
        );
    }
    let common_lb = common_lb(value, extension_lb).at("common_lb_config")?;
    Ok(ClusterSettings {
        kind,
        connect_timeout: duration_or(value.connect_timeout.as_ref(), CONNECT_TIMEOUT)
            .and_then(positive)
            .at("connect_timeout")?,
        lb_policy,
        lb: common_lb,
        subsets: value.lb_subset_config.as_ref().map(subsets).transpose().at("lb_subset_config")?.flatten(),
        breakers: breakers(value.circuit_breakers.as_ref()).at("circuit_breakers")?.into(),
        outlier: value.outlier_detection.as_ref().map(outlier).transpose().at("outlier_detection")?.map(Arc::new),
        health_checks: list(&value.health_checks, "health_checks", health_check)?,
        http: upstream_http(value).and_then(|http| checked_names(value, http))?,
        dns,
        keepalive: keepalive(upstream_options.tcp_keepalive.as_ref()),
        bind: value.upstream_bind_config.as_ref().map(bind_config).transpose().at("upstream_bind_config")?,
        buffer_limit: value.per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        ignore_health_on_host_removal: value.ignore_health_on_host_removal,
        close_connections_on_host_health_failure: value.close_connections_on_host_health_failure,
        wait_for_warm_on_init: value.wait_for_warm_on_init.unwrap_or(true),
        cleanup_interval: duration_or(value.cleanup_interval.as_ref(), Duration::from_secs(5))
            .and_then(positive)
            .at("cleanup_interval")?,
        pool_per_downstream_connection: value.connection_pool_per_downstream_connection,
        track_timeout_budgets: value.track_cluster_stats.as_ref().is_some_and(|stats| stats.timeout_budgets)
            || value.track_timeout_budgets,
        filters: list(&value.filters, "filters", upstream_filter)?,
        preconnect_ratio: value
            .preconnect_policy
            .as_ref()
            .and_then(|policy| policy.per_upstream_preconnect_ratio)
            .unwrap_or(1.0),
        encoded,
    })
}

fn discovery(value: &proto::Cluster) -> Result<(ClusterKind, DnsSettings)> {
    let dns = dns_settings(value)?;
    let kind = match value.cluster_discovery_type.as_ref() {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => enumeration::<DiscoveryType>(*kind).at("type")?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            return custom_cluster(custom, dns).at("cluster_type");
        }
    };
    let kind = match kind {
        DiscoveryType::Static => ClusterKind::Static,
        DiscoveryType::StrictDns => ClusterKind::StrictDns,
        DiscoveryType::LogicalDns => ClusterKind::LogicalDns,
        DiscoveryType::Eds => ClusterKind::Eds,
        DiscoveryType::OriginalDst => ClusterKind::OriginalDst(original_dst(value)?),
    };
    Ok((kind, dns))
}

/// `envoy.cluster.dns`, which newer control planes send for both DNS kinds.
fn custom_cluster(
    value: &proto::cluster::CustomClusterType,
    mut dns: DnsSettings,
) -> Result<(ClusterKind, DnsSettings)> {
    let any = required(&value.typed_config, "typed_config").and_then(resolve)?;
    if any.is::<ClusterConfig>() {
        let (cache, _) = dynamic_forward::cluster(&unpack(&any)?).at("typed_config")?;
        return Ok((ClusterKind::DynamicForward(cache), dns));
    }
    if !any.is::<DnsCluster>() {
        return unknown_type(&any).at("typed_config");
    }
    let config: DnsCluster = unpack(&any)?;
    dns.refresh_rate = duration_or(config.dns_refresh_rate.as_ref(), dns.refresh_rate)
        .and_then(positive)
        .at("typed_config.dns_refresh_rate")?;
    dns.jitter = duration_or(config.dns_jitter.as_ref(), dns.jitter).at("typed_config.dns_jitter")?;
    dns.respect_ttl = config.respect_dns_ttl;
    let rate = config.dns_failure_refresh_rate.as_ref().map(|rate| (&rate.base_interval, &rate.max_interval));
    (dns.failure_base, dns.failure_max) = dns_failure_rate(rate, dns.refresh_rate).at("typed_config")?;
    use meltemi_proto::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as Family;
    dns.family = match enumeration::<Family>(config.dns_lookup_family).at("typed_config.dns_lookup_family")? {
        Family::Unspecified | Family::Auto => DnsFamily::Auto,
        Family::V4Only => DnsFamily::V4Only,
        Family::V6Only => DnsFamily::V6Only,
        Family::V4Preferred => DnsFamily::V4Preferred,
        Family::All => DnsFamily::All,
    };
    if let Some(resolver) = &config.typed_dns_resolver_config {
        dns_resolver(resolver).at("typed_config.typed_dns_resolver_config")?;
    }
    let kind = if config.all_addresses_in_single_endpoint { ClusterKind::LogicalDns } else { ClusterKind::StrictDns };
    Ok((kind, dns))
}

/// The name of the load assignment.
fn eds(value: &proto::Cluster) -> Result<Arc<str>> {
    let config = required(&value.eds_cluster_config, "eds_cluster_config")?;
    let source =
        required(&config.eds_config, "eds_config").and_then(config_source).at("eds_cluster_config.eds_config")?;
    if source != ConfigSource::Ads {
        return refuse("eds_cluster_config.eds_config: only ADS is supported");
    }
    let service = if config.service_name.is_empty() { &value.name } else { &config.service_name };
    Ok(intern(service))
}

fn original_dst(value: &proto::Cluster) -> Result<OriginalDst> {
    let Some(LbConfig::OriginalDstLbConfig(config)) = value.lb_config.as_ref() else {
        return Ok(OriginalDst::default());
    };
    let header = match (config.use_http_header, config.http_header_name.as_str()) {
        (false, _) => None,
        (true, "") => Some(http::HeaderName::from_static("x-envoy-original-dst-host")),
        (true, name) => Some(super::header::header_name(name).at("original_dst_lb_config.http_header_name")?),
    };
    let port_override = config
        .upstream_port_override
        .map(super::common::port)
        .transpose()
        .at("original_dst_lb_config.upstream_port_override")?;
    Ok(OriginalDst { header, port_override })
}

fn check_endpoints(kind: &ClusterKind, assignment: Option<&crate::endpoint::LoadAssignment>) -> Result<()> {
    match (kind, assignment) {
        (ClusterKind::Eds | ClusterKind::OriginalDst(_) | ClusterKind::DynamicForward(_), Some(_)) => {
            refuse("may not be set for this type")
        }
        (ClusterKind::LogicalDns, None) => refuse("LOGICAL_DNS clusters must have a single endpoint"),
        (_, None) => Ok(()),
        (ClusterKind::Static, Some(assignment)) => {
            let named = assignment
                .localities
                .iter()
                .flat_map(|locality| &locality.endpoints)
                .find(|endpoint| matches!(endpoint.address, Address::Name { .. }));
            match named {
                Some(endpoint) => refuse(format!("{} is not an IP address; use STRICT_DNS", endpoint.address)),
                None => Ok(()),
            }
        }
        (ClusterKind::LogicalDns, Some(assignment)) => {
            let count: usize = assignment.localities.iter().map(|locality| locality.endpoints.len()).sum();
            if count == 1 { Ok(()) } else { refuse("LOGICAL_DNS clusters must have a single endpoint") }
        }
        (ClusterKind::StrictDns, Some(_)) => Ok(()),
    }
}

fn dns_settings(value: &proto::Cluster) -> Result<DnsSettings> {
    let refresh_rate = duration_or(value.dns_refresh_rate.as_ref(), Duration::from_secs(5))
        .and_then(positive)
        .at("dns_refresh_rate")?;
    let rate = value.dns_failure_refresh_rate.as_ref().map(|rate| (&rate.base_interval, &rate.max_interval));
    let (failure_base, failure_max) = dns_failure_rate(rate, refresh_rate)?;
    if let Some(resolver) = &value.typed_dns_resolver_config {
        dns_resolver(resolver).at("typed_dns_resolver_config")?;
    }
    Ok(DnsSettings {
        refresh_rate,
        jitter: duration_or(value.dns_jitter.as_ref(), Duration::ZERO).at("dns_jitter")?,
        failure_base,
        failure_max,
        respect_ttl: value.respect_dns_ttl,
        family: dns_family(value.dns_lookup_family).at("dns_lookup_family")?,
        resolvers: Vec::new(),
        use_tcp: false,
        no_search_domain: false,
    })
}

/// The first and the longest pause after a failed query: base and maximum interval of a `dns_failure_refresh_rate`.
pub(crate) fn dns_failure_rate(
    rate: Option<(&Option<prost_types::Duration>, &Option<prost_types::Duration>)>,
    refresh_rate: Duration,
) -> Result<(Duration, Duration)> {
    let Some((base, most)) = rate else { return Ok((refresh_rate, refresh_rate)) };
    let base = required(base, "base_interval").and_then(|base| duration(base).at("base_interval"));
    let base = base.at("dns_failure_refresh_rate")?;
    let most = duration_or(most.as_ref(), base.saturating_mul(10));
    Ok((base, most.at("dns_failure_refresh_rate.max_interval")?))
}

/// `Cluster.DnsLookupFamily`.
pub(crate) fn dns_family(value: i32) -> Result<DnsFamily> {
    use proto::cluster::DnsLookupFamily as Family;
    Ok(match enumeration::<Family>(value)? {
        Family::Auto => DnsFamily::Auto,
        Family::V4Only => DnsFamily::V4Only,
        Family::V6Only => DnsFamily::V6Only,
        Family::V4Preferred => DnsFamily::V4Preferred,
        Family::All => DnsFamily::All,
    })
}

/// Envoy wants of a dynamic forward proxy that the server's certificate be that of the host which the client named, unless it is
/// told that this does not matter; where nothing is said of the protocol, it turns both checks on.
fn checked_names(value: &proto::Cluster, mut http: UpstreamHttp) -> Result<UpstreamHttp> {
    let Some(ClusterDiscoveryType::ClusterType(custom)) = &value.cluster_discovery_type else { return Ok(http) };
    let any = required(&custom.typed_config, "typed_config").and_then(resolve)?;
    if !any.is::<ClusterConfig>() {
        return Ok(http);
    }
    if value.upstream_http_protocol_options.is_none() && value.typed_extension_protocol_options.is_empty() {
        (http.auto_sni, http.auto_san_validation) = (true, true);
    }
    let (_, insecure) = dynamic_forward::cluster(&unpack(&any)?)?;
    match insecure || (http.auto_sni && http.auto_san_validation) {
        true => Ok(http),
        false => {
            refuse("cluster_type: needs auto_sni and auto_san_validation, unless allow_insecure_cluster_options is set")
        }
    }
}

/// The system's resolver is what there is; one that only names itself changes nothing.
pub(crate) fn dns_resolver(value: &core::TypedExtensionConfig) -> Result<()> {
    use meltemi_proto::envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;
    let any = required(&value.typed_config, "typed_config").and_then(resolve)?;
    match any.is::<CaresDnsResolverConfig>() || any.is::<GetAddrInfoDnsResolverConfig>() {
        true => Ok(()),
        false => unknown_type(&any).at("typed_config"),
    }
}

fn breakers(value: Option<&proto::CircuitBreakers>) -> Result<CircuitBreakers> {
    let mut built =
        CircuitBreakers { default: thresholds(None)?, high: thresholds(None)?, per_host_max_connections: None };
    let Some(value) = value else { return Ok(built) };
    for (index, each) in value.thresholds.iter().enumerate() {
        let converted = thresholds(Some(each)).at_index("thresholds", index)?;
        match enumeration::<core::RoutingPriority>(each.priority).at_index("thresholds", index)? {
            core::RoutingPriority::Default => built.default = converted,
            core::RoutingPriority::High => built.high = converted,
        }
    }
    Ok(built)
}

fn thresholds(value: Option<&proto::circuit_breakers::Thresholds>) -> Result<Thresholds> {
    let value = value.cloned().unwrap_or_default();
    Ok(Thresholds {
        max_connections: value.max_connections.unwrap_or(1024),
        max_pending_requests: value.max_pending_requests.unwrap_or(1024),
        max_requests: value.max_requests.unwrap_or(1024),
        max_retries: value.max_retries.unwrap_or(3),
        retry_budget: value.retry_budget.as_ref().map(retry_budget).transpose().at("retry_budget")?,
        track_remaining: value.track_remaining,
    })
}

fn retry_budget(value: &proto::circuit_breakers::thresholds::RetryBudget) -> Result<RetryBudget> {
    Ok(RetryBudget {
        percent: percent(value.budget_percent.as_ref(), 20.0).at("budget_percent")?,
        min_concurrency: value.min_retry_concurrency.unwrap_or(3),
    })
}

fn outlier(value: &proto::OutlierDetection) -> Result<OutlierDetection> {
    let enforced = |value: Option<u32>, default: u32, field: &str| match value.unwrap_or(default) {
        percent @ 0..=100 => Ok(percent),
        _ => Err(PlanError::new("must be at most 100").under(field)),
    };
    let base = duration_or(value.base_ejection_time.as_ref(), Duration::from_secs(30)).at("base_ejection_time")?;
    let max = optional_duration(value.max_ejection_time.as_ref()).at("max_ejection_time")?;
    Ok(OutlierDetection {
        consecutive_5xx: value.consecutive_5xx.unwrap_or(5),
        enforcing_consecutive_5xx: enforced(value.enforcing_consecutive_5xx, 100, "enforcing_consecutive_5xx")?,
        consecutive_gateway_failure: value.consecutive_gateway_failure.unwrap_or(5),
        enforcing_consecutive_gateway_failure: enforced(
            value.enforcing_consecutive_gateway_failure,
            0,
            "enforcing_consecutive_gateway_failure",
        )?,
        split_external_local_origin_errors: value.split_external_local_origin_errors,
        consecutive_local_origin_failure: value.consecutive_local_origin_failure.unwrap_or(5),
        enforcing_consecutive_local_origin_failure: enforced(
            value.enforcing_consecutive_local_origin_failure,
            100,
            "enforcing_consecutive_local_origin_failure",
        )?,
        interval: duration_or(value.interval.as_ref(), Duration::from_secs(10)).and_then(positive).at("interval")?,
        base_ejection_time: base,
        max_ejection_time: max.unwrap_or(Duration::from_secs(300)).max(base),
        max_ejection_time_jitter: duration_or(value.max_ejection_time_jitter.as_ref(), Duration::ZERO)
            .at("max_ejection_time_jitter")?,
        max_ejection_percent: enforced(value.max_ejection_percent, 10, "max_ejection_percent")?,
        always_eject_one_host: value.always_eject_one_host.unwrap_or(false),
        enforcing_success_rate: enforced(value.enforcing_success_rate, 100, "enforcing_success_rate")?,
        enforcing_local_origin_success_rate: enforced(
            value.enforcing_local_origin_success_rate,
            100,
            "enforcing_local_origin_success_rate",
        )?,
        success_rate_minimum_hosts: value.success_rate_minimum_hosts.unwrap_or(5),
        success_rate_request_volume: value.success_rate_request_volume.unwrap_or(100),
        success_rate_stdev_factor: value.success_rate_stdev_factor.unwrap_or(1900),
        failure_percentage_threshold: enforced(value.failure_percentage_threshold, 85, "failure_percentage_threshold")?,
        enforcing_failure_percentage: enforced(value.enforcing_failure_percentage, 0, "enforcing_failure_percentage")?,
        enforcing_failure_percentage_local_origin: enforced(
            value.enforcing_failure_percentage_local_origin,
            0,
            "enforcing_failure_percentage_local_origin",
        )?,
        failure_percentage_minimum_hosts: value.failure_percentage_minimum_hosts.unwrap_or(5),
        failure_percentage_request_volume: value.failure_percentage_request_volume.unwrap_or(50),
        successful_health_check_uneject_host: value.successful_active_health_check_uneject_host.unwrap_or(true),
    })
}

fn bind_config(value: &core::BindConfig) -> Result<BindConfig> {
    let mut extra_sources = list(&value.extra_source_addresses, "extra_source_addresses", |extra| {
        required(&extra.address, "address").and_then(numeric).at("address")
    })?;
    extra_sources.extend(list(&value.additional_source_addresses, "additional_source_addresses", numeric)?);
    Ok(BindConfig {
        source: value.source_address.as_ref().map(numeric).transpose().at("source_address")?,
        extra_sources,
        freebind: value.freebind.unwrap_or(false),
        socket_options: Vec::new(),
    })
}

fn subsets(value: &proto::cluster::LbSubsetConfig) -> Result<Option<LbSubsets>> {
    use proto::cluster::lb_subset_config::{
        LbSubsetFallbackPolicy as Fallback, lb_subset_selector::LbSubsetSelectorFallbackPolicy as Own,
    };
    if value.subset_selectors.is_empty() {
        return Ok(None);
    }
    let selectors = list(&value.subset_selectors, "subset_selectors", |selector| {
        let fallback = match enumeration::<Own>(selector.fallback_policy).at("fallback_policy")? {
            Own::NotDefined => None,
            Own::NoFallback => Some(SubsetFallback::None),
            Own::AnyEndpoint => Some(SubsetFallback::AnyEndpoint),
            Own::DefaultSubset => Some(SubsetFallback::DefaultSubset),
            Own::KeysSubset => return refuse("fallback_policy: KEYS_SUBSET is not supported"),
        };
        Ok(SubsetSelector { keys: super::common::names(&selector.keys), fallback })
    })?;
    Ok(Some(LbSubsets {
        fallback: match enumeration::<Fallback>(value.fallback_policy).at("fallback_policy")? {
            Fallback::NoFallback => SubsetFallback::None,
            Fallback::AnyEndpoint => SubsetFallback::AnyEndpoint,
            Fallback::DefaultSubset => SubsetFallback::DefaultSubset,
        },
        default_subset: value.default_subset.as_ref().map_or_else(|| serde_json::json!({}), structure),
        selectors,
        panic_mode_any: value.panic_mode_any,
        list_as_any: value.list_as_any,
    }))
}

fn upstream_filter(value: &proto::Filter) -> Result<UpstreamFilter> {
    let any = required(&value.typed_config, "typed_config").and_then(resolve)?;
    if !any.is::<MetadataExchange>() {
        return unknown_type(&any).at("typed_config");
    }
    let exchange = istio::metadata_exchange(&unpack(&any)?).at("typed_config")?;
    Ok(UpstreamFilter::MetadataExchange(Arc::new(exchange)))
}

/// A timeout in both of the places that protocol options can stand.
pub(crate) fn idle_timeout(value: &core::HttpProtocolOptions) -> Result<Option<Duration>> {
    timeout_or(value.idle_timeout.as_ref(), Some(Duration::from_secs(3600))).at("idle_timeout")
}

#[cfg(test)]
mod tests;
