//! A port of the workload itself as a cluster.

use super::input::InboundCluster;
use super::{fixed, metadata, policy, protocol};
use crate::names;
use crate::wire::{duration, socket_address};
use meltemi_config::networking::{ConnectionPoolSettings, RetryBudget, TrafficPolicy};
use meltemi_model::destination_rule::for_port;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::cluster::v3::cluster::{CommonLbConfig, DiscoveryType, LbPolicy};
use meltemi_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use std::time::Duration;

/// As good as never: an inbound original-destination host must not be forgotten between requests. The largest that Envoy takes.
const NO_CLEANUP: Duration = Duration::from_secs(9_223_372_035);

pub fn build(input: &InboundCluster) -> Cluster {
    let name = names::inbound(input.port);
    let mut cluster = Cluster {
        alt_stat_name: stat_name(input, &name),
        name,
        common_lb_config: Some(CommonLbConfig::default()),
        ..Cluster::default()
    };
    match &input.endpoint {
        None => {
            cluster.cluster_discovery_type = Some(fixed::discovery(DiscoveryType::OriginalDst));
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.cleanup_interval = Some(duration(NO_CLEANUP));
        }
        Some((address, port)) => {
            cluster.cluster_discovery_type = Some(fixed::discovery(DiscoveryType::Static));
            cluster.load_assignment = Some(assignment(&cluster.name, address, *port));
        }
    }
    let loopback = input
        .endpoint
        .as_ref()
        .is_some_and(|(address, _)| matches!(&**address, "127.0.0.1" | "::1") || address.starts_with("unix:"));
    if !loopback {
        cluster.upstream_bind_config = Some(fixed::inbound_source(&input.common));
    }
    if input.services.iter().any(|service| !service.mesh_external) {
        metadata::services(&mut cluster, input.services.iter().map(|service| &**service));
    }
    let pool = pool(input);
    let mut options = protocol::of_port(input.protocol, &input.common);
    policy::connection_pool(&mut cluster, &pool, budget(input).as_ref(), &input.common.mesh);
    policy::http_options(&mut options, &pool);
    options.apply(&mut cluster);
    if let Some(rule) = input.rule.as_ref().filter(|rule| rule.spec().traffic_policy.is_some()) {
        metadata::origin(&mut cluster, &rule.rule);
    }
    cluster
}

/// Of the service's rule, for the retries that the workload's own proxy makes.
fn budget(input: &InboundCluster) -> Option<RetryBudget> {
    of_port(input)?.retry_budget
}

/// The service's rule as it is for the port.
fn of_port(input: &InboundCluster) -> Option<TrafficPolicy> {
    let policy = input.rule.as_ref().and_then(|rule| rule.spec().traffic_policy.as_ref());
    for_port(policy, input.service_port.as_ref().map_or(0, |port| port.number))
}

/// Limits that clients get for a service hold for its workload too, so that it is not the narrower; a Sidecar's own win.
fn pool(input: &InboundCluster) -> ConnectionPoolSettings {
    if let Some(own) = &input.connection_pool {
        return own.clone();
    }
    let of_rule = of_port(input).and_then(|policy| policy.connection_pool);
    let of_mesh =
        || input.common.mesh.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.clone());
    of_rule.or_else(of_mesh).unwrap_or_default()
}

fn assignment(name: &str, address: &str, port: u32) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(socket_address(address, port)), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}

fn stat_name(input: &InboundCluster, name: &str) -> String {
    let pattern = &*input.common.mesh.inbound_cluster_stat_name;
    match (input.services.first(), &input.service_port) {
        (Some(service), Some(port)) if !pattern.is_empty() => {
            let port = (&*port.name, port.number);
            metadata::stat_name(&names::stat_pattern(pattern, service, "", port, input.port))
        }
        _ => metadata::stat_name(name),
    }
}
