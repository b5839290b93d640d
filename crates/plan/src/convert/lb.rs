//! Load balancing: the policy enum with its own messages, or the extension list.

use super::common::{duration, duration_or, enumeration, percent, positive, required, resolve, unpack};
use super::route_action::hash_policies;
use crate::cluster::{CommonLb, HashFunction, LbPolicy, LocalityLb, OverrideHostStatus, SlowStart, ZoneAware};
use crate::error::{At, Result, refuse};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3 as proto;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::load_balancing_policies as ext;
use meltemi_proto::envoy::r#type::v3::Percent;
use meltemi_proto::prost_types;
use proto::cluster::{LbConfig, LbPolicy as Kind};
use std::time::Duration;

/// Envoy's defaults of peak-EWMA.
const DECAY_TIME: Duration = Duration::from_secs(10);
const DEFAULT_RTT: Duration = Duration::from_millis(10);
const MIN_RING: u64 = 1024;
const MAX_RING: u64 = 8 << 20;
const MAGLEV_TABLE: u64 = 65_537;
const MAX_MAGLEV_TABLE: u64 = 5_000_011;

/// What a policy extension says about localities and hashing itself.
#[derive(Default)]
pub(crate) struct ExtensionLb {
    locality: Option<LocalityLb>,
    hashing: Option<ext::common::v3::ConsistentHashingLbConfig>,
}

pub(crate) fn lb_policy(value: &proto::Cluster) -> Result<(LbPolicy, ExtensionLb)> {
    if let Some(policy) = &value.load_balancing_policy {
        return extension(policy).at("load_balancing_policy");
    }
    Ok((legacy(value)?, ExtensionLb::default()))
}

fn legacy(value: &proto::Cluster) -> Result<LbPolicy> {
    Ok(match enumeration::<Kind>(value.lb_policy).at("lb_policy")? {
        Kind::RoundRobin => {
            let slow_start = match value.lb_config.as_ref() {
                Some(LbConfig::RoundRobinLbConfig(config)) => legacy_slow_start(config.slow_start_config.as_ref())?,
                _ => None,
            };
            LbPolicy::RoundRobin { slow_start }
        }
        Kind::LeastRequest => match value.lb_config.as_ref() {
            Some(LbConfig::LeastRequestLbConfig(config)) => least_request(
                config.choice_count,
                config.active_request_bias.as_ref(),
                legacy_slow_start(config.slow_start_config.as_ref())?,
            )
            .at("least_request_lb_config")?,
            _ => least_request(None, None, None)?,
        },
        Kind::Random => LbPolicy::Random,
        Kind::RingHash => match value.lb_config.as_ref() {
            Some(LbConfig::RingHashLbConfig(config)) => {
                let murmur =
                    config.hash_function == proto::cluster::ring_hash_lb_config::HashFunction::MurmurHash2 as i32;
                ring(config.minimum_ring_size, config.maximum_ring_size, murmur).at("ring_hash_lb_config")?
            }
            _ => ring(None, None, false)?,
        },
        Kind::Maglev => match value.lb_config.as_ref() {
            Some(LbConfig::MaglevLbConfig(config)) => maglev(config.table_size).at("maglev_lb_config")?,
            _ => maglev(None)?,
        },
        Kind::ClusterProvided => LbPolicy::ClusterProvided,
        Kind::LoadBalancingPolicyConfig => return refuse("load_balancing_policy: is required by lb_policy"),
    })
}

fn least_request(
    choices: Option<u32>,
    bias: Option<&core::RuntimeDouble>,
    slow_start: Option<SlowStart>,
) -> Result<LbPolicy> {
    let choices = match choices.unwrap_or(2) {
        0 | 1 => return refuse("choice_count: must be at least 2"),
        count => count,
    };
    Ok(LbPolicy::LeastRequest {
        choices,
        active_request_bias: bias.map_or(1.0, |bias| bias.default_value),
        full_scan: false,
        slow_start,
    })
}

fn ring(minimum: Option<u64>, maximum: Option<u64>, murmur: bool) -> Result<LbPolicy> {
    let (minimum_size, maximum_size) = (minimum.unwrap_or(MIN_RING), maximum.unwrap_or(MAX_RING));
    if maximum_size > MAX_RING || minimum_size > MAX_RING {
        return refuse(format!("maximum_ring_size: must be at most {MAX_RING}"));
    }
    if minimum_size > maximum_size {
        return refuse("minimum_ring_size: must not be more than maximum_ring_size");
    }
    let hash = if murmur { HashFunction::Murmur2 } else { HashFunction::XxHash };
    Ok(LbPolicy::RingHash { minimum_size, maximum_size, hash })
}

fn maglev(table_size: Option<u64>) -> Result<LbPolicy> {
    let table_size = table_size.unwrap_or(MAGLEV_TABLE);
    if table_size > MAX_MAGLEV_TABLE {
        return refuse(format!("table_size: must be at most {MAX_MAGLEV_TABLE}"));
    }
    if !is_prime(table_size) {
        return refuse("table_size: must be prime");
    }
    Ok(LbPolicy::Maglev { table_size })
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

fn slow_start(
    window: Option<&prost_types::Duration>,
    aggression: Option<&core::RuntimeDouble>,
    min_weight: Option<&Percent>,
) -> Result<Option<SlowStart>> {
    let Some(window) = window else { return Ok(None) };
    Ok(Some(SlowStart {
        window: duration(window).at("slow_start_window")?,
        aggression: aggression.map_or(1.0, |aggression| aggression.default_value),
        min_weight_percent: percent(min_weight, 10.0).at("min_weight_percent")?,
    }))
}

fn legacy_slow_start(value: Option<&proto::cluster::SlowStartConfig>) -> Result<Option<SlowStart>> {
    value.map_or(Ok(None), |config| {
        slow_start(config.slow_start_window.as_ref(), config.aggression.as_ref(), config.min_weight_percent.as_ref())
            .at("slow_start_config")
    })
}

fn new_slow_start(value: Option<&ext::common::v3::SlowStartConfig>) -> Result<Option<SlowStart>> {
    value.map_or(Ok(None), |config| {
        slow_start(config.slow_start_window.as_ref(), config.aggression.as_ref(), config.min_weight_percent.as_ref())
            .at("slow_start_config")
    })
}

/// The first policy of the list that is known.
fn extension(value: &proto::LoadBalancingPolicy) -> Result<(LbPolicy, ExtensionLb)> {
    for (index, policy) in value.policies.iter().enumerate() {
        let config = required(&policy.typed_extension_config, "typed_extension_config").at_index("policies", index)?;
        let any = required(&config.typed_config, "typed_config").and_then(resolve).at_index("policies", index)?;
        if let Some(found) = known(&any).at_index("policies", index)? {
            return Ok(found);
        }
    }
    refuse("policies: none of them is supported")
}

fn known(any: &Any) -> Result<Option<(LbPolicy, ExtensionLb)>> {
    let mut extra = ExtensionLb::default();
    let policy = if any.is::<ext::round_robin::v3::RoundRobin>() {
        let config: ext::round_robin::v3::RoundRobin = unpack(any)?;
        extra.locality = locality(config.locality_lb_config.as_ref()).at("locality_lb_config")?;
        LbPolicy::RoundRobin { slow_start: new_slow_start(config.slow_start_config.as_ref())? }
    } else if any.is::<ext::least_request::v3::LeastRequest>() {
        let config: ext::least_request::v3::LeastRequest = unpack(any)?;
        extra.locality = locality(config.locality_lb_config.as_ref()).at("locality_lb_config")?;
        let full = config.selection_method == ext::least_request::v3::least_request::SelectionMethod::FullScan as i32
            || config.enable_full_scan == Some(true);
        let start = new_slow_start(config.slow_start_config.as_ref())?;
        match least_request(config.choice_count, config.active_request_bias.as_ref(), start)? {
            LbPolicy::LeastRequest { choices, active_request_bias, slow_start, .. } => {
                LbPolicy::LeastRequest { choices, active_request_bias, full_scan: full, slow_start }
            }
            other => other,
        }
    } else if any.is::<ext::random::v3::Random>() {
        let config: ext::random::v3::Random = unpack(any)?;
        extra.locality = locality(config.locality_lb_config.as_ref()).at("locality_lb_config")?;
        LbPolicy::Random
    } else if any.is::<ext::peak_ewma::v3alpha::PeakEwma>() {
        peak_ewma(&unpack(any)?)?
    } else if any.is::<ext::ring_hash::v3::RingHash>() {
        let config: ext::ring_hash::v3::RingHash = unpack(any)?;
        extra.locality = config.locality_weighted_lb_config.as_ref().map(|_| LocalityLb::Weighted);
        extra.hashing = Some(ext::common::v3::ConsistentHashingLbConfig {
            use_hostname_for_hashing: config.use_hostname_for_hashing,
            hash_balance_factor: config.hash_balance_factor,
            hash_policy: Vec::new(),
        });
        if config.consistent_hashing_lb_config.is_some() {
            extra.hashing = config.consistent_hashing_lb_config;
        }
        let murmur = config.hash_function == ext::ring_hash::v3::ring_hash::HashFunction::MurmurHash2 as i32;
        ring(config.minimum_ring_size, config.maximum_ring_size, murmur)?
    } else if any.is::<ext::maglev::v3::Maglev>() {
        let config: ext::maglev::v3::Maglev = unpack(any)?;
        extra.locality = config.locality_weighted_lb_config.as_ref().map(|_| LocalityLb::Weighted);
        extra.hashing = config.consistent_hashing_lb_config;
        maglev(config.table_size)?
    } else if any.is::<ext::cluster_provided::v3::ClusterProvided>() {
        LbPolicy::ClusterProvided
    } else {
        return Ok(None);
    };
    Ok(Some((policy, extra)))
}

fn peak_ewma(value: &ext::peak_ewma::v3alpha::PeakEwma) -> Result<LbPolicy> {
    Ok(LbPolicy::PeakEwma {
        decay_time: duration_or(value.decay_time.as_ref(), DECAY_TIME).and_then(positive).at("decay_time")?,
        default_rtt: duration_or(value.default_rtt.as_ref(), DEFAULT_RTT).and_then(positive).at("default_rtt")?,
    })
}

fn locality(value: Option<&ext::common::v3::LocalityLbConfig>) -> Result<Option<LocalityLb>> {
    use ext::common::v3::locality_lb_config::LocalityConfigSpecifier as Specifier;
    match value.and_then(|config| config.locality_config_specifier.as_ref()) {
        None => Ok(None),
        Some(Specifier::LocalityWeightedLbConfig(_)) => Ok(Some(LocalityLb::Weighted)),
        Some(Specifier::ZoneAwareLbConfig(zone)) => zone_aware(zone).at("zone_aware_lb_config").map(Some),
    }
}

fn zone_aware(zone: &ext::common::v3::locality_lb_config::ZoneAwareLbConfig) -> Result<LocalityLb> {
    use ext::common::v3::locality_lb_config::zone_aware_lb_config::LocalityBasis;
    #[allow(deprecated)]
    let forced = zone.force_locality_direct_routing.then_some(1);
    let basis = enumeration::<LocalityBasis>(zone.locality_basis).at("locality_basis")?;
    Ok(LocalityLb::ZoneAware(ZoneAware {
        force_local_zone: zone.force_local_zone.map(|force| force.min_size.unwrap_or(1)).or(forced),
        by_weight: basis == LocalityBasis::HealthyHostsWeight,
        ..zone_base(zone.routing_enabled.as_ref(), zone.min_cluster_size, zone.fail_traffic_on_panic)?
    }))
}

/// What the cluster's own field and the load balancing policy's have in common.
fn zone_base(
    routing: Option<&Percent>,
    min_cluster_size: Option<u64>,
    fail_traffic_on_panic: bool,
) -> Result<ZoneAware> {
    let default = ZoneAware::default();
    Ok(ZoneAware {
        routing_enabled: percent(routing, f64::from(default.routing_enabled)).at("routing_enabled")?.round() as u32,
        min_cluster_size: min_cluster_size.unwrap_or(default.min_cluster_size),
        fail_traffic_on_panic,
        ..default
    })
}

pub(crate) fn common_lb(value: &proto::Cluster, extension: ExtensionLb) -> Result<CommonLb> {
    use proto::cluster::common_lb_config::LocalityConfigSpecifier as Specifier;
    let config = value.common_lb_config.clone().unwrap_or_default();
    let own = match config.locality_config_specifier.as_ref() {
        None => LocalityLb::None,
        Some(Specifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(Specifier::ZoneAwareLbConfig(zone)) => LocalityLb::ZoneAware(
            zone_base(zone.routing_enabled.as_ref(), zone.min_cluster_size, zone.fail_traffic_on_panic)
                .at("zone_aware_lb_config")?,
        ),
    };
    let legacy_hashing = config.consistent_hashing_lb_config.as_ref();
    let hashing = extension.hashing.unwrap_or_else(|| ext::common::v3::ConsistentHashingLbConfig {
        use_hostname_for_hashing: legacy_hashing.is_some_and(|hashing| hashing.use_hostname_for_hashing),
        hash_balance_factor: legacy_hashing.and_then(|hashing| hashing.hash_balance_factor),
        hash_policy: Vec::new(),
    });
    Ok(CommonLb {
        healthy_panic_threshold: percent(config.healthy_panic_threshold.as_ref(), 50.0)
            .at("healthy_panic_threshold")?,
        locality: extension.locality.unwrap_or(own),
        use_hostname_for_hashing: hashing.use_hostname_for_hashing,
        hash_balance_factor: 0,
        hash_policy: hash_policies(&hashing.hash_policy)?,
        close_connections_on_host_set_change: config.close_connections_on_host_set_change,
        ignore_new_hosts_until_first_hc: config.ignore_new_hosts_until_first_hc,
        update_merge_window: duration_or(config.update_merge_window.as_ref(), Duration::from_secs(1))
            .at("update_merge_window")?,
        override_host_status: config
            .override_host_status
            .as_ref()
            .map_or(Ok(OverrideHostStatus::default()), override_host_status)
            .at("override_host_status")?,
    })
}

/// An empty set takes no host; sessions are then kept by nobody.
fn override_host_status(value: &core::HealthStatusSet) -> Result<OverrideHostStatus> {
    let mut found = OverrideHostStatus { healthy: false, degraded: false, unhealthy: false, draining: false };
    for (index, status) in value.statuses.iter().enumerate() {
        match core::HealthStatus::try_from(*status) {
            Ok(core::HealthStatus::Unknown | core::HealthStatus::Healthy) => found.healthy = true,
            Ok(core::HealthStatus::Degraded) => found.degraded = true,
            Ok(core::HealthStatus::Unhealthy | core::HealthStatus::Timeout) => found.unhealthy = true,
            Ok(core::HealthStatus::Draining) => found.draining = true,
            Err(_) => return refuse(format!("statuses[{index}]: {status} is no status")),
        }
    }
    Ok(found)
}
