//! How a cluster picks an endpoint.

use crate::endpoint::LocalityView;
use crate::wire::duration;
use meltemi_config::networking::{ConsistentHashLb, LoadBalancerSettings, SimpleLb};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::cluster::common_lb_config::ZoneAwareLbConfig;
use meltemi_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig,
    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig, common_lb_config,
};
use meltemi_proto::envoy::config::cluster::v3::load_balancing_policy::Policy;
use meltemi_proto::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use meltemi_proto::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use meltemi_proto::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use meltemi_proto::envoy::extensions::load_balancing_policies::peak_ewma::v3alpha::PeakEwma;
use meltemi_proto::envoy::r#type::v3::Percent;
use std::time::Duration;

/// After three decay times an observation has 5 % of its weight left: that is the window's end.
const WINDOW_DECAYS: u32 = 3;
/// Istio's ring when only the deprecated field or nothing says how large.
const RING_SIZE: u64 = 1024;

pub fn apply(cluster: &mut Cluster, settings: Option<&LoadBalancerSettings>, locality: Option<&LocalityView>) {
    if locality.is_some_and(LocalityView::is_weighted) {
        let common = cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default);
        common.locality_config_specifier =
            Some(common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(Default::default()));
    }
    if let Some(zone) = locality.and_then(LocalityView::zone) {
        let common = cluster.common_lb_config.get_or_insert_with(CommonLbConfig::default);
        let config = ZoneAwareLbConfig {
            routing_enabled: (!zone.enabled).then_some(Percent { value: 0.0 }),
            min_cluster_size: zone.min_cluster_size,
            ..ZoneAwareLbConfig::default()
        };
        common.locality_config_specifier = Some(common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(config));
    }
    if cluster.cluster_discovery_type == Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32)) {
        cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        return;
    }
    let slow_start = settings.and_then(slow_start);
    match settings.and_then(|settings| settings.simple).unwrap_or_default() {
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin as i32;
            cluster.lb_config = slow_start.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
            });
        }
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random as i32,
        SimpleLb::Passthrough => {
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
            cluster.load_assignment = None;
        }
    }
    if let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) {
        consistent_hash(cluster, hash);
    }
}

/// Peak-EWMA where the proxy has it, else least requests. What a rule says of its own comes first: a policy, or shares of
/// localities, of which Envoy's peak-EWMA knows nothing.
pub fn adaptive(cluster: &mut Cluster, settings: Option<&LoadBalancerSettings>, window: Duration) {
    let chosen = settings.is_some_and(|own| {
        let simple = own.simple.unwrap_or_default() != SimpleLb::Unspecified;
        simple || own.consistent_hash.is_some() || own.warmup.is_some() || own.warmup_duration_secs.is_some()
    });
    let by_locality = cluster.common_lb_config.as_ref().is_some_and(|own| own.locality_config_specifier.is_some());
    if chosen || by_locality || cluster.lb_policy != LbPolicy::LeastRequest as i32 {
        return;
    }
    let peak_ewma = PeakEwma { decay_time: Some(duration(window / WINDOW_DECAYS)), ..PeakEwma::default() };
    let policy = |name: &str, config: Any| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(config),
        }),
    };
    cluster.load_balancing_policy = Some(LoadBalancingPolicy {
        policies: vec![
            policy("peak_ewma", Any::pack(&peak_ewma)),
            policy("least_request", Any::pack(&LeastRequest::default())),
        ],
    });
}

fn consistent_hash(cluster: &mut Cluster, hash: &ConsistentHashLb) {
    let ring = |size: u64| {
        LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size: Some(size), ..RingHashLbConfig::default() })
    };
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev as i32;
        let table = Some(maglev.table_size).filter(|size| *size != 0);
        cluster.lb_config = table.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) }));
        return;
    }
    cluster.lb_policy = LbPolicy::RingHash as i32;
    cluster.lb_config = match &hash.ring_hash {
        Some(own) => Some(own.minimum_ring_size).filter(|size| *size != 0).map(ring),
        None => Some(ring(if hash.minimum_ring_size == 0 { RING_SIZE } else { hash.minimum_ring_size })),
    };
}

fn slow_start(settings: &LoadBalancerSettings) -> Option<SlowStartConfig> {
    let Some(warmup) = &settings.warmup else {
        return settings
            .warmup_duration_secs
            .map(|window| SlowStartConfig { slow_start_window: Some(duration(window)), ..SlowStartConfig::default() });
    };
    Some(SlowStartConfig {
        slow_start_window: warmup.duration.map(duration),
        aggression: Some(RuntimeDouble {
            default_value: warmup.aggression.map_or(1.0, |value| value.value()),
            runtime_key: "(".into(),
        }),
        min_weight_percent: Some(Percent { value: warmup.minimum_percent.map_or(10.0, |value| value.value()) }),
    })
}
