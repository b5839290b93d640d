//! Load assignments.

use super::common::{address, enumeration, fingerprint, list, port, required, shared_metadata};
use crate::common::Address;
use crate::endpoint::{Endpoint, EndpointHealth, EndpointHealthCheck, LoadAssignment, Locality, LocalityEndpoints};
use crate::error::{At, Result, refuse};
use meltemi_base::intern::{Table, intern};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::endpoint::v3 as proto;
use std::sync::Arc;

/// Envoy's default overprovisioning, in percent.
const OVERPROVISIONING: u32 = 140;
/// Envoy's bound on priorities.
const MAX_PRIORITY: u32 = 128;

pub fn load_assignment(value: &proto::ClusterLoadAssignment) -> Result<LoadAssignment> {
    let bytes = meltemi_proto::encode(value);
    crate::support::check(&bytes, "envoy.config.endpoint.v3.ClusterLoadAssignment")?;
    Ok(LoadAssignment { fingerprint: fingerprint(&bytes), ..unchecked(value)? })
}

pub fn encoded_load_assignment(bytes: &[u8]) -> Result<LoadAssignment> {
    // Decoding drops fields that are too new for our types; they are refused like any other that has no effect.
    crate::support::check(bytes, "envoy.config.endpoint.v3.ClusterLoadAssignment")?;
    Ok(LoadAssignment { fingerprint: fingerprint(bytes), ..unchecked(&meltemi_proto::decode_load_assignment(bytes)?)? })
}

/// Without the walk for unsupported fields: the caller's resource held this one and was walked.
pub(crate) fn unchecked(value: &proto::ClusterLoadAssignment) -> Result<LoadAssignment> {
    if value.cluster_name.is_empty() {
        return refuse("cluster_name: is required");
    }
    let policy = value.policy.clone().unwrap_or_default();
    let overprovisioning_factor = match policy.overprovisioning_factor {
        Some(0) => return refuse("policy.overprovisioning_factor: must be greater than zero"),
        factor => factor.unwrap_or(OVERPROVISIONING),
    };
    Ok(LoadAssignment {
        cluster: intern(&value.cluster_name),
        localities: list(&value.endpoints, "endpoints", locality_endpoints)?.into(),
        overprovisioning_factor,
        weighted_priority_health: policy.weighted_priority_health,
        fingerprint: 0,
    })
}

pub(crate) fn locality(value: Option<&core::Locality>) -> Locality {
    value.map_or_else(Locality::default, |locality| Locality {
        region: intern(&locality.region),
        zone: intern(&locality.zone),
        sub_zone: intern(&locality.sub_zone),
    })
}

fn shared_locality(value: Option<&core::Locality>) -> Arc<Locality> {
    static KNOWN: Table<Locality> = Table::new();
    KNOWN.share(locality(value))
}

fn locality_endpoints(value: &proto::LocalityLbEndpoints) -> Result<LocalityEndpoints> {
    use proto::locality_lb_endpoints::LbConfig;
    if value.priority > MAX_PRIORITY {
        return refuse(format!("priority: must be at most {MAX_PRIORITY}"));
    }
    let endpoints = match value.lb_config.as_ref() {
        None => list(&value.lb_endpoints, "lb_endpoints", endpoint)?,
        Some(LbConfig::LoadBalancerEndpoints(endpoints)) => {
            list(&endpoints.lb_endpoints, "lb_endpoints", endpoint).at("load_balancer_endpoints")?
        }
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            return refuse("leds_cluster_locality_config: is not supported");
        }
    };
    if value.load_balancing_weight == Some(0) {
        return refuse("load_balancing_weight: must be greater than zero");
    }
    Ok(LocalityEndpoints {
        locality: shared_locality(value.locality.as_ref()),
        priority: value.priority,
        weight: value.load_balancing_weight,
        endpoints: endpoints.into(),
    })
}

fn endpoint(value: &proto::LbEndpoint) -> Result<Endpoint> {
    use proto::lb_endpoint::HostIdentifier;
    let host = match required(&value.host_identifier, "endpoint")? {
        HostIdentifier::Endpoint(endpoint) => endpoint,
        HostIdentifier::EndpointName(_) => return refuse("endpoint_name: is not supported"),
    };
    let health = match enumeration::<core::HealthStatus>(value.health_status).at("health_status")? {
        core::HealthStatus::Unknown => EndpointHealth::Unknown,
        core::HealthStatus::Healthy => EndpointHealth::Healthy,
        core::HealthStatus::Unhealthy => EndpointHealth::Unhealthy,
        core::HealthStatus::Draining => EndpointHealth::Draining,
        core::HealthStatus::Timeout => EndpointHealth::Timeout,
        core::HealthStatus::Degraded => EndpointHealth::Degraded,
    };
    Ok(Endpoint {
        address: endpoint_address(required(&host.address, "endpoint.address")?).at("endpoint.address")?,
        additional_addresses: Box::default(),
        hostname: intern(&host.hostname),
        weight: match value.load_balancing_weight {
            Some(0) => return refuse("load_balancing_weight: must be greater than zero"),
            weight => weight.unwrap_or(1),
        },
        health,
        metadata: shared_metadata(value.metadata.as_ref()),
        health_check: host
            .health_check_config
            .as_ref()
            .map(|check| health_check(check).map(Box::new))
            .transpose()
            .at("endpoint.health_check_config")?,
    })
}

fn endpoint_address(value: &core::Address) -> Result<Address> {
    match address(value)? {
        Address::Internal { .. } => refuse("envoy_internal_address: is not supported"),
        other => Ok(other),
    }
}

fn health_check(value: &proto::endpoint::HealthCheckConfig) -> Result<EndpointHealthCheck> {
    Ok(EndpointHealthCheck {
        port: port(value.port_value).at("port_value")?,
        hostname: value.hostname.as_str().into(),
        address: value.address.as_ref().map(endpoint_address).transpose().at("address")?,
        disabled: value.disable_active_health_check,
    })
}
