//! From the plan's words to this crate's: how hosts are chosen, and load assignments as resolved hosts.

use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_net::Address;
use meltemi_plan::cluster::{self, LocalityLb};
use meltemi_plan::endpoint::EndpointHealthCheck;
use meltemi_plan::{Cluster, ClusterKind, EndpointHealth, LbPolicy, LoadAssignment};

use crate::endpoint::Check;
use crate::hash::HashFunction;
use crate::latency::PeakEwma;
use crate::members::{EdsHealth, Host, HostGroup, Lifecycle};
use crate::set::{LocalityMembers, Policy, Shape, SlowStart};

pub(crate) fn shape(plan: &Cluster) -> Shape {
    let use_hostname = plan.lb.use_hostname_for_hashing;
    let policy = match (&plan.kind, &plan.lb_policy) {
        (ClusterKind::OriginalDst(_), _) | (_, LbPolicy::ClusterProvided) => Policy::OriginalDst,
        (_, LbPolicy::RoundRobin { slow_start: start }) => {
            Policy::RoundRobin { slow_start: slow_start(start.as_ref()) }
        }
        (_, LbPolicy::LeastRequest { choices, active_request_bias, full_scan, slow_start: start }) => {
            Policy::LeastRequest {
                // All of them, for a full scan.
                choices: if *full_scan { u32::MAX } else { *choices },
                active_request_bias: *active_request_bias,
                slow_start: slow_start(start.as_ref()),
            }
        }
        (_, LbPolicy::Random) => Policy::Random,
        (_, LbPolicy::PeakEwma { decay_time, default_rtt }) => {
            Policy::PeakEwma(PeakEwma { decay: *decay_time, default_rtt: *default_rtt })
        }
        (_, LbPolicy::RingHash { minimum_size, maximum_size, hash }) => Policy::RingHash {
            min_size: *minimum_size,
            max_size: *maximum_size,
            function: match hash {
                cluster::HashFunction::XxHash => HashFunction::XxHash,
                cluster::HashFunction::Murmur2 => HashFunction::Murmur2,
            },
            use_hostname,
        },
        (_, LbPolicy::Maglev { table_size }) => Policy::Maglev { table_size: *table_size, use_hostname },
    };
    let assignment = plan.load_assignment.as_ref();
    Shape {
        policy,
        panic_threshold: plan.lb.healthy_panic_threshold.round() as u32,
        fail_traffic_on_panic: plan.lb.locality.zone_aware().fail_traffic_on_panic,
        overprovisioning: assignment.map_or(140, |a| a.overprovisioning_factor),
        locality_weighted: plan.lb.locality == LocalityLb::Weighted,
        weighted_priority_health: assignment.is_some_and(|a| a.weighted_priority_health),
    }
}

fn slow_start(config: Option<&cluster::SlowStart>) -> Option<SlowStart> {
    config.map(|start| SlowStart {
        window: start.window,
        aggression: if start.aggression > 0.0 { start.aggression } else { 1.0 },
        min_weight: start.min_weight_percent / 100.0,
    })
}

pub(crate) fn lifecycle(plan: &Cluster) -> Lifecycle {
    Lifecycle { checked: !plan.health_checks.is_empty(), ignore_health_on_removal: plan.ignore_health_on_host_removal }
}

/// The address of a host that needs no resolving; internal listeners are named by their listener.
pub(crate) fn address(address: &meltemi_plan::Address) -> Option<Address> {
    match address {
        meltemi_plan::Address::Socket(socket) => Some(Address::Socket(*socket)),
        meltemi_plan::Address::Pipe { path, .. } => Some(Address::Unix(Arc::new(path.to_path_buf()))),
        meltemi_plan::Address::Name { .. } | meltemi_plan::Address::Internal { .. } => None,
    }
}

/// An assignment's groups where every address is one already. A name has no place there, and is left out.
pub(crate) fn groups(plan: &Cluster, assignment: &LoadAssignment) -> Vec<HostGroup> {
    resolved(plan, assignment, |endpoint| address(&endpoint.address).into_iter().collect())
}

/// An assignment's groups with each endpoint's addresses as `resolve` gives them.
pub(crate) fn resolved(
    plan: &Cluster,
    assignment: &LoadAssignment,
    resolve: impl Fn(&meltemi_plan::Endpoint) -> Vec<Address>,
) -> Vec<HostGroup> {
    let group = |locality: &meltemi_plan::LocalityEndpoints| HostGroup {
        locality: locality.locality.clone(),
        priority: locality.priority,
        weight: locality.weight.unwrap_or(0),
        hosts: locality
            .endpoints
            .iter()
            .flat_map(|endpoint| resolve(endpoint).into_iter().map(|address| host(plan, endpoint, address)))
            .collect(),
    };
    assignment.localities.iter().map(group).collect()
}

fn host(plan: &Cluster, endpoint: &meltemi_plan::Endpoint, address: Address) -> Host {
    Host {
        hostname: hostname(endpoint),
        weight: endpoint.weight.max(1),
        health: match endpoint.health {
            EndpointHealth::Unknown | EndpointHealth::Healthy => EdsHealth::Healthy,
            EndpointHealth::Degraded => EdsHealth::Degraded,
            EndpointHealth::Unhealthy | EndpointHealth::Timeout => EdsHealth::Unhealthy,
            EndpointHealth::Draining => EdsHealth::Draining,
        },
        transport: plan.transport_index(endpoint.metadata.as_deref()),
        check: endpoint.health_check.as_ref().map(|check| Box::new(how_checked(check, &address))),
        metadata: endpoint.metadata.clone(),
        address,
    }
}

/// The endpoint's own name, else the name that was resolved.
fn hostname(endpoint: &meltemi_plan::Endpoint) -> Arc<str> {
    match &endpoint.address {
        meltemi_plan::Address::Name { host, .. } if endpoint.hostname.is_empty() => host.clone(),
        _ => endpoint.hostname.clone(),
    }
}

fn how_checked(check: &EndpointHealthCheck, endpoint: &Address) -> Check {
    let base = check.address.as_ref().and_then(address).or_else(|| Some(endpoint.clone()));
    let target = base.map(|base| match (base.socket(), check.port) {
        (Some(socket), port) if port != 0 => Address::Socket(SocketAddr::new(socket.ip(), port)),
        _ => base,
    });
    Check {
        address: target.filter(|target| target != endpoint),
        hostname: check.hostname.clone(),
        disabled: check.disabled,
    }
}

/// Members as an update would name them, for a cluster's next version, whose transports may differ.
pub(crate) fn as_group(plan: &Cluster, members: &LocalityMembers) -> HostGroup {
    HostGroup {
        locality: members.hosts.first().map(|h| h.locality.clone()).unwrap_or_default(),
        priority: members.priority,
        weight: members.weight,
        hosts: members
            .hosts
            .iter()
            .map(|h| Host {
                address: h.address.clone(),
                hostname: h.hostname.clone(),
                weight: h.weight,
                health: match &h.state {
                    state if state.has(crate::Fault::Draining) => EdsHealth::Draining,
                    state if state.has(crate::Fault::Eds) => EdsHealth::Unhealthy,
                    state if state.has(crate::Fault::EdsDegraded) => EdsHealth::Degraded,
                    _ => EdsHealth::Healthy,
                },
                metadata: h.metadata.clone(),
                transport: plan.transport_index(h.metadata.as_deref()),
                check: h.check.clone(),
            })
            .collect(),
    }
}
