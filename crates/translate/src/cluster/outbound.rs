//! A port of a service, or of a subset of it, as a cluster.

use super::input::{OutboundCluster, ProxyClass};
use super::{fixed, load_balancer, metadata, policy, protocol, tls};
use crate::dialect::Dialect;
use crate::dynamic_dns::{self, DnsCache};
use crate::endpoint::{self, LocalityView};
use crate::names;
use crate::wire::duration;
use meltemi_config::networking::{ClientTlsMode, ConnectionPoolSettings, TrafficPolicy};
use meltemi_model::{RegistryKind, Resolution};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy, OriginalDstLbConfig,
};
use meltemi_proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, HealthStatus, HealthStatusSet, TypedExtensionConfig,
    UpstreamHttpProtocolOptions, config_source,
};
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use meltemi_proto::envoy::r#type::v3::Percent;
use std::time::Duration;

/// Istiod's defaults: `PILOT_DNS_JITTER_DURATION`, and `PILOT_DNS_CARES_UDP_MAX_QUERIES` on one local port.
const DNS_JITTER: Duration = Duration::from_millis(100);
const UDP_MAX_QUERIES: u32 = 100;

pub fn build(input: &OutboundCluster) -> Cluster {
    if dynamic_dns::is_dynamic(&input.service) {
        return dynamic(input);
    }
    let discovery = discovery_type(input);
    let mut cluster = Cluster {
        name: input.name.to_string(),
        alt_stat_name: stat_name(input),
        cluster_discovery_type: Some(fixed::discovery(discovery)),
        common_lb_config: Some(CommonLbConfig::default()),
        ..Cluster::default()
    };
    match discovery {
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => dns(&mut cluster, input),
        DiscoveryType::OriginalDst => original_destination(&mut cluster, input),
        _ => {}
    }
    metadata::services(&mut cluster, std::iter::once(&*input.service));
    traffic_policy(&mut cluster, input);
    if cluster.cluster_discovery_type == Some(fixed::discovery(DiscoveryType::Eds)) {
        cluster.eds_cluster_config = Some(eds(&input.name));
    }
    describe(&mut cluster, input);
    cluster
}

/// Hosts are those that requests name: nothing to balance, and nobody of the mesh.
fn dynamic(input: &OutboundCluster) -> Cluster {
    let mut cluster = Cluster {
        name: input.name.to_string(),
        alt_stat_name: stat_name(input),
        lb_policy: LbPolicy::ClusterProvided as i32,
        ..Cluster::default()
    };
    metadata::services(&mut cluster, std::iter::once(&*input.service));
    let auto = traffic_policy(&mut cluster, input);
    cluster.common_lb_config = None;
    let cache = DnsCache::of_service(&input.service, input.common.ipv4, input.common.ipv6);
    // Envoy turns both checks on by itself where nothing is said of the protocol.
    let checked = cluster.typed_extension_protocol_options.is_empty() || auto.auto_sni && auto.auto_san_validation;
    cluster.cluster_discovery_type = Some(fixed::dynamic_forward(&cache, !checked));
    describe(&mut cluster, input);
    cluster
}

/// What statistics, access logs and tools read.
fn describe(cluster: &mut Cluster, input: &OutboundCluster) {
    metadata::exchange(cluster, input.common.dialect);
    if input.service.mesh_external {
        metadata::external(cluster);
    }
    if let Some(rule) = &input.rule {
        metadata::origin(cluster, &rule.rule);
        let mode = input.policy.as_ref().and_then(|policy| policy.tls.as_ref()).map(|tls| tls.mode);
        if matches!(mode, Some(ClientTlsMode::Simple | ClientTlsMode::Mutual)) {
            metadata::keep_alpn(cluster);
        }
    }
    if !input.subset.is_empty() {
        metadata::subset(cluster, &input.subset);
    }
}

/// Everything a DestinationRule can say, in the order in which one thing decides another: protocol before TLS. Gives what the
/// cluster takes from requests for its TLS.
fn traffic_policy(cluster: &mut Cluster, input: &OutboundCluster) -> UpstreamHttpProtocolOptions {
    let empty = TrafficPolicy::default();
    let rules = input.policy.as_ref().unwrap_or(&empty);
    let no_pool = ConnectionPoolSettings::default();
    let pool = rules.connection_pool.as_ref().unwrap_or(&no_pool);
    let mesh = &input.common.mesh;
    let mut options = protocol::of_port(input.port.protocol, &input.common);
    let undecided = options.upstream == protocol::Upstream::Default;
    if undecided && policy::upgrades_to_http2(pool, input.port.protocol, mesh) {
        options.upstream = protocol::Upstream::Http2;
    }
    let budget =
        rules.retry_budget.clone().or_else(|| policy::automatic_budget(pool, input.resilience.retries.as_ref()));
    policy::connection_pool(cluster, pool, budget.as_ref(), mesh);
    policy::http_options(&mut options, pool);
    let common = cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default);
    common.healthy_panic_threshold = Some(Percent { value: 0.0 });
    if input.reach_draining && input.subset.is_empty() {
        let statuses = [HealthStatus::Healthy, HealthStatus::Draining, HealthStatus::Unknown, HealthStatus::Degraded];
        common.override_host_status = Some(HealthStatusSet { statuses: statuses.map(i32::from).to_vec() });
    }
    if let Some(outlier) = &rules.outlier_detection {
        policy::outlier_detection(cluster, outlier);
        options.error_matcher = policy::error_codes(&outlier.outlier_detection_http_error_codes);
    }
    if cluster.lb_policy != LbPolicy::ClusterProvided as i32 {
        let weighted = LocalityView::settings(mesh, &input.service, input.policy.as_ref());
        load_balancer::apply(cluster, rules.load_balancer.as_ref(), weighted.as_ref());
        let http = input.port.protocol.is_http() || input.port.protocol.is_sniffed();
        if let Some(window) = input.resilience.balancing_window.filter(|_| http) {
            load_balancer::adaptive(cluster, rules.load_balancer.as_ref(), window);
        }
    }
    if let Some(anomalies) = &input.resilience.anomalies {
        crate::route::resilience::watch(cluster.metadata.get_or_insert_default(), anomalies);
    }
    tls::apply(cluster, input, &mut options);
    let auto = options.auto.clone();
    options.apply(cluster);
    auto
}

fn discovery_type(input: &OutboundCluster) -> DiscoveryType {
    match input.service.resolution {
        Resolution::DnsLb => DiscoveryType::StrictDns,
        Resolution::DnsRoundRobin => DiscoveryType::LogicalDns,
        // A gateway has no original destination.
        Resolution::Passthrough if input.common.class == ProxyClass::Sidecar => DiscoveryType::OriginalDst,
        Resolution::ClientSideLb | Resolution::Passthrough | Resolution::DynamicDns | Resolution::Alias => {
            DiscoveryType::Eds
        }
    }
}

fn dns(cluster: &mut Cluster, input: &OutboundCluster) {
    cluster.dns_lookup_family = dynamic_dns::lookup_family(input.common.ipv4, input.common.ipv6) as i32;
    #[allow(deprecated)]
    {
        // The fields' replacement is a cluster extension that gRPC and older proxies do not know.
        cluster.dns_refresh_rate = Some(duration(input.common.mesh.dns_refresh_rate));
        cluster.dns_jitter = Some(duration(DNS_JITTER));
        cluster.respect_dns_ttl = true;
    }
    cluster.typed_dns_resolver_config = Some(TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".into(),
        typed_config: Some(Any::pack(&CaresDnsResolverConfig {
            udp_max_queries: Some(UDP_MAX_QUERIES),
            ..CaresDnsResolverConfig::default()
        })),
    });
    cluster.load_assignment = Some(load_assignment(input));
}

/// The names to resolve. A logical DNS cluster has exactly one.
pub fn load_assignment(input: &OutboundCluster) -> ClusterLoadAssignment {
    let mut assignment = endpoint::render_dns(input);
    if input.service.resolution == Resolution::DnsRoundRobin {
        assignment.endpoints.truncate(1);
        assignment.endpoints.iter_mut().for_each(|locality| locality.lb_endpoints.truncate(1));
    }
    assignment
}

fn original_destination(cluster: &mut Cluster, input: &OutboundCluster) {
    let target = input.port.target_number().filter(|target| *target != input.port.number);
    if let Some(target) = target.filter(|_| input.service.registry == RegistryKind::External) {
        let config = OriginalDstLbConfig { upstream_port_override: Some(target), ..OriginalDstLbConfig::default() };
        cluster.lb_config = Some(LbConfig::OriginalDstLbConfig(config));
    }
}

pub fn eds(name: &str) -> EdsClusterConfig {
    EdsClusterConfig {
        service_name: name.into(),
        eds_config: Some(ConfigSource {
            config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
            initial_fetch_timeout: Some(duration(Duration::ZERO)),
            resource_api_version: ApiVersion::V3 as i32,
            ..ConfigSource::default()
        }),
    }
}

/// The name by which statistics know the cluster: its own, or by the mesh's pattern.
fn stat_name(input: &OutboundCluster) -> String {
    let pattern = &*input.common.mesh.outbound_cluster_stat_name;
    if pattern.is_empty() {
        return match input.common.dialect {
            Dialect::Grpc => String::new(),
            Dialect::IstioProxy | Dialect::Envoy => metadata::stat_name(&input.name),
        };
    }
    metadata::stat_name(&names::stat_pattern(
        pattern,
        &input.service,
        &input.subset,
        (&input.port.name, input.port.number),
        0,
    ))
}
