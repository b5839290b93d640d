//! Dynamic forward proxying: the cluster, the HTTP filter and the filter by TLS server name.

use super::cluster::{dns_failure_rate, dns_family, dns_resolver};
use super::common::{duration_or, port, positive, required};
use crate::dynamic_forward::{DnsCache, SniForward};
use crate::error::{At, Result, refuse};
use meltemi_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3 as cluster;
use meltemi_proto::envoy::extensions::common::dynamic_forward_proxy::v3 as common;
use meltemi_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as http;
use meltemi_proto::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;
use std::sync::Arc;
use std::time::Duration;

/// The cluster's cache, and whether it may go without the checks of server names that Envoy wants of such a cluster.
pub(crate) fn cluster(value: &cluster::ClusterConfig) -> Result<(Arc<DnsCache>, bool)> {
    use cluster::cluster_config::ClusterImplementationSpecifier as By;
    match &value.cluster_implementation_specifier {
        Some(By::DnsCacheConfig(cache)) => {
            Ok((dns_cache(cache).at("dns_cache_config")?, value.allow_insecure_cluster_options))
        }
        Some(By::SubClustersConfig(_)) => refuse("sub_clusters_config: is not supported"),
        None => refuse("dns_cache_config: is required"),
    }
}

pub(crate) fn http_filter(value: &http::FilterConfig) -> Result<Arc<DnsCache>> {
    use http::filter_config::ImplementationSpecifier as By;
    match &value.implementation_specifier {
        Some(By::DnsCacheConfig(cache)) => dns_cache(cache).at("dns_cache_config"),
        Some(By::SubClusterConfig(_)) => refuse("sub_cluster_config: is not supported"),
        None => refuse("dns_cache_config: is required"),
    }
}

pub(crate) fn sni_filter(value: &sni::FilterConfig) -> Result<SniForward> {
    let cache = required(&value.dns_cache_config, "dns_cache_config")?;
    let by = match value.port_specifier {
        Some(sni::filter_config::PortSpecifier::PortValue(value)) => port(value).at("port_value")?,
        None => 443,
    };
    Ok(SniForward { cache: dns_cache(cache).at("dns_cache_config")?, port: by })
}

fn dns_cache(value: &common::DnsCacheConfig) -> Result<Arc<DnsCache>> {
    if value.name.is_empty() {
        return refuse("name: is required");
    }
    let minute = Duration::from_secs(60);
    let refresh_rate =
        duration_or(value.dns_refresh_rate.as_ref(), minute).and_then(positive).at("dns_refresh_rate")?;
    let rate = value.dns_failure_refresh_rate.as_ref().map(|rate| (&rate.base_interval, &rate.max_interval));
    let (failure_base, failure_max) = dns_failure_rate(rate, refresh_rate)?;
    if let Some(resolver) = &value.typed_dns_resolver_config {
        dns_resolver(resolver).at("typed_dns_resolver_config")?;
    }
    let max_hosts = match value.max_hosts {
        Some(0) => return refuse("max_hosts: must be greater than zero"),
        most => most.unwrap_or(1024),
    };
    Ok(Arc::new(DnsCache {
        name: value.name.as_str().into(),
        family: dns_family(value.dns_lookup_family).at("dns_lookup_family")?,
        refresh_rate,
        failure_base,
        failure_max,
        forget_failures: value.disable_dns_refresh_on_failure,
        host_ttl: duration_or(value.host_ttl.as_ref(), 5 * minute).and_then(positive).at("host_ttl")?,
        max_hosts,
        max_pending: value.dns_cache_circuit_breaker.and_then(|breaker| breaker.max_pending_requests).unwrap_or(1024),
        query_timeout: duration_or(value.dns_query_timeout.as_ref(), Duration::from_secs(5)).at("dns_query_timeout")?,
    }))
}
