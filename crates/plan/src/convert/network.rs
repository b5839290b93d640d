//! Network filters.

use super::access_log::access_logs;
use super::common::{
    duration, enumeration, inline_data, lb_match, list, optional_duration, positive, required, resolve, timeout_or,
    unknown_type, unpack,
};
use super::filter::on_demand_clusters;
use super::header::header_adds;
use super::{dynamic_forward, ext_authz, hcm, istio, rbac};
use crate::error::{At, PlanError, Result, refuse};
use crate::filter::RbacFilter;
use crate::format::Format;
use crate::listener::{NetworkFilter, NetworkRbac};
use crate::on_demand::OnDemand;
use crate::tcp_proxy::{ConnectMode, TcpCluster, TcpProxy, TcpWeighted, Tunnel};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::listener::v3 as listener;
use meltemi_proto::envoy::extensions::filters::network as ext;
use meltemi_proto::envoy::tcp::metadataexchange::config::MetadataExchange;
use std::sync::Arc;
use std::time::Duration;

const TCP_IDLE: Duration = Duration::from_secs(3600);

pub(crate) fn network_filters(values: &[listener::Filter]) -> Result<Vec<NetworkFilter>> {
    let filters = list(values, "filters", network_filter)?;
    if filters.is_empty() {
        return refuse("filters: at least one is needed");
    }
    let last = filters.len() - 1;
    for (index, filter) in filters.iter().enumerate() {
        let fault = match (is_terminal(filter), index == last) {
            (true, false) => "ends the chain, so nothing may come after it",
            (false, true) => "is the last filter but does not end the chain",
            _ => continue,
        };
        return Err(PlanError::new(fault).under(&format!("filters[{index}]")));
    }
    Ok(filters)
}

fn is_terminal(filter: &NetworkFilter) -> bool {
    match filter {
        NetworkFilter::HttpConnectionManager(_)
        | NetworkFilter::TcpProxy(_)
        | NetworkFilter::DirectResponse(_)
        | NetworkFilter::Echo => true,
        NetworkFilter::Rbac(_)
        | NetworkFilter::MetadataExchange(_)
        | NetworkFilter::IstioStats(_)
        | NetworkFilter::ConnectionRateLimit(_)
        | NetworkFilter::ExtAuthz(_)
        | NetworkFilter::SetFilterState(_)
        | NetworkFilter::SniDynamicForward(_)
        | NetworkFilter::SniCluster => false,
    }
}

fn network_filter(value: &listener::Filter) -> Result<NetworkFilter> {
    let any = match value.config_type.as_ref() {
        Some(listener::filter::ConfigType::TypedConfig(any)) => resolve(any).at("typed_config")?,
        Some(listener::filter::ConfigType::ConfigDiscovery(_)) => return refuse("config_discovery: is not supported"),
        None => return refuse("typed_config: is required"),
    };
    config(&any).at("typed_config")
}

fn config(any: &Any) -> Result<NetworkFilter> {
    use ext::http_connection_manager::v3::HttpConnectionManager;
    Ok(if any.is::<HttpConnectionManager>() {
        let config = meltemi_proto::unpack_http_connection_manager(any)?;
        NetworkFilter::HttpConnectionManager(Arc::new(hcm::hcm(&config)?))
    } else if any.is::<ext::tcp_proxy::v3::TcpProxy>() {
        NetworkFilter::TcpProxy(Arc::new(tcp_proxy(&unpack(any)?)?))
    } else if any.is::<ext::rbac::v3::Rbac>() {
        NetworkFilter::Rbac(Arc::new(network_rbac(&unpack(any)?)?))
    } else if any.is::<ext::ext_authz::v3::ExtAuthz>() {
        NetworkFilter::ExtAuthz(Arc::new(ext_authz::network(&unpack(any)?)?))
    } else if any.is::<MetadataExchange>() {
        NetworkFilter::MetadataExchange(Arc::new(istio::metadata_exchange(&unpack(any)?)?))
    } else if any.is::<meltemi_proto::stats::PluginConfig>() {
        NetworkFilter::IstioStats(Arc::new(istio::stats(&unpack(any)?)?))
    } else if any.is::<ext::direct_response::v3::Config>() {
        NetworkFilter::DirectResponse(direct_response(&unpack(any)?)?)
    } else if any.is::<ext::sni_dynamic_forward_proxy::v3::FilterConfig>() {
        NetworkFilter::SniDynamicForward(Arc::new(dynamic_forward::sni_filter(&unpack(any)?)?))
    } else if any.is::<ext::echo::v3::Echo>() {
        NetworkFilter::Echo
    } else {
        return unknown_type(any);
    })
}

fn tcp_proxy(value: &ext::tcp_proxy::v3::TcpProxy) -> Result<TcpProxy> {
    use meltemi_proto::envoy::r#type::v3::hash_policy::PolicySpecifier;
    if value.stat_prefix.is_empty() {
        return refuse("stat_prefix: is required");
    }
    let hashes =
        list(&value.hash_policy, "hash_policy", |policy| match required(&policy.policy_specifier, "source_ip")? {
            PolicySpecifier::SourceIp(_) => Ok(()),
            PolicySpecifier::FilterState(_) => refuse("filter_state: is not supported"),
        })?;
    let max_connect_attempts = match value.max_connect_attempts {
        Some(0) => return refuse("max_connect_attempts: must be greater than zero"),
        attempts => attempts.unwrap_or(1),
    };
    Ok(TcpProxy {
        stat_prefix: value.stat_prefix.as_str().into(),
        cluster: tcp_cluster(value)?,
        idle_timeout: timeout_or(value.idle_timeout.as_ref(), Some(TCP_IDLE)).at("idle_timeout")?,
        max_downstream_duration: optional_duration(value.max_downstream_connection_duration.as_ref())
            .at("max_downstream_connection_duration")?,
        access_logs: access_logs(&value.access_log, "access_log")?,
        max_connect_attempts,
        backoff: value.backoff_options.as_ref().map(backoff).transpose().at("backoff_options")?,
        hash_source_ip: !hashes.is_empty(),
        metadata_match: lb_match(value.metadata_match.as_ref()),
        connect_mode: connect_mode(value)?,
        on_demand: value.on_demand.as_ref().map(on_demand).transpose().at("on_demand")?,
        tunnel: value.tunneling_config.as_ref().map(tunnel).transpose().at("tunneling_config")?,
    })
}

fn tunnel(value: &ext::tcp_proxy::v3::tcp_proxy::TunnelingConfig) -> Result<Tunnel> {
    let post_path = match (value.use_post, value.post_path.as_str()) {
        (false, "") => None,
        (false, _) => return refuse("post_path: only with use_post"),
        (true, "") => Some("/".into()),
        (true, path) => Some(path.into()),
    };
    if value.hostname.is_empty() {
        return refuse("hostname: is required");
    }
    let hostname = Format::parse(&value.hostname).at("hostname")?;
    Ok(Tunnel { hostname, post_path, headers: header_adds(&value.headers_to_add, "headers_to_add")? })
}

fn on_demand(value: &ext::tcp_proxy::v3::tcp_proxy::OnDemand) -> Result<OnDemand> {
    on_demand_clusters(value.odcds_config.as_ref(), value.timeout.as_ref(), "odcds_config")
}

fn connect_mode(value: &ext::tcp_proxy::v3::TcpProxy) -> Result<ConnectMode> {
    use ext::tcp_proxy::v3::UpstreamConnectMode as Mode;
    match enumeration::<Mode>(value.upstream_connect_mode).at("upstream_connect_mode")? {
        Mode::Immediate => Ok(ConnectMode::Immediate),
        Mode::OnDownstreamData => refuse("upstream_connect_mode: ON_DOWNSTREAM_DATA is not supported"),
        // The handshake is over before a network filter runs here, so this is what `IMMEDIATE` does.
        Mode::OnDownstreamTlsHandshake => Ok(ConnectMode::Immediate),
    }
}

fn backoff(value: &meltemi_proto::envoy::config::core::v3::BackoffStrategy) -> Result<(Duration, Duration)> {
    let base = duration(required(&value.base_interval, "base_interval")?).and_then(positive).at("base_interval")?;
    let max = optional_duration(value.max_interval.as_ref()).at("max_interval")?.unwrap_or(base.saturating_mul(10));
    if max < base { refuse("max_interval: must not be less than base_interval") } else { Ok((base, max)) }
}

fn tcp_cluster(value: &ext::tcp_proxy::v3::TcpProxy) -> Result<TcpCluster> {
    use ext::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
    match required(&value.cluster_specifier, "cluster")? {
        ClusterSpecifier::Cluster(name) if name.is_empty() => refuse("cluster: must not be empty"),
        ClusterSpecifier::Cluster(name) => Ok(TcpCluster::Single(name.as_str().into())),
        ClusterSpecifier::WeightedClusters(weighted) if weighted.clusters.is_empty() => {
            refuse("weighted_clusters.clusters: at least one is needed")
        }
        ClusterSpecifier::WeightedClusters(weighted) => {
            let clusters =
                list(&weighted.clusters, "clusters", |cluster| match (cluster.name.as_str(), cluster.weight) {
                    ("", _) => refuse("name: is required"),
                    (_, 0) => refuse("weight: must be greater than zero"),
                    (name, weight) => Ok(TcpWeighted {
                        name: name.into(),
                        weight,
                        metadata_match: lb_match(cluster.metadata_match.as_ref()),
                    }),
                })
                .at("weighted_clusters")?;
            let total = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
            Ok(TcpCluster::Weighted { clusters, total })
        }
    }
}

fn network_rbac(value: &ext::rbac::v3::Rbac) -> Result<NetworkRbac> {
    if value.stat_prefix.is_empty() {
        return refuse("stat_prefix: is required");
    }
    Ok(NetworkRbac {
        stat_prefix: value.stat_prefix.as_str().into(),
        rules: RbacFilter {
            rules: value.rules.as_ref().map(rbac::rbac).transpose().at("rules")?,
            shadow_rules: value.shadow_rules.as_ref().map(rbac::rbac).transpose().at("shadow_rules")?,
            rules_stat_prefix: "".into(),
            shadow_rules_stat_prefix: value.shadow_rules_stat_prefix.as_str().into(),
        },
    })
}

fn direct_response(value: &ext::direct_response::v3::Config) -> Result<bytes::Bytes> {
    Ok(value.response.as_ref().map(inline_data).transpose().at("response")?.unwrap_or_default())
}
