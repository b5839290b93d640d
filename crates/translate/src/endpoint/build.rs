//! Load assignments rendered.

use super::locality::Group;
use super::{AssignmentInput, Found, declared_mtls};
use crate::cluster::OutboundCluster;
use crate::wire::socket_address;
use meltemi_model::labels::{pairs, selects};
use meltemi_model::{Address, Endpoint, Health, Labels, Locality, TlsMode, session};
use meltemi_proto::envoy::config::core::v3::{HealthStatus, Locality as ProtoLocality, Metadata};
use meltemi_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as ProtoEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};
use meltemi_proto::prost_types::{Struct, Value, value};
use std::collections::BTreeMap;
use std::net::IpAddr;

const DEFAULT_REVISION: &str = "latest";

pub fn assignment(input: &AssignmentInput) -> ClusterLoadAssignment {
    let endpoints = input.found.as_ref().map(of_service).unwrap_or_default();
    ClusterLoadAssignment { cluster_name: input.name.to_string(), endpoints, ..ClusterLoadAssignment::default() }
}

fn of_service(found: &Found) -> Vec<LocalityLbEndpoints> {
    let mut chosen = Vec::new();
    for (index, endpoint) in found.shard.endpoints.iter().enumerate() {
        let mtls = found.mtls.unwrap_or(endpoint.tls_mode == TlsMode::Istio && !found.mtls_disabled.contains(&index));
        let Some(port) = endpoint.port(&found.port_name) else { continue };
        let draining = session::is_draining(endpoint, &found.draining_label);
        let wanted = is_usable(endpoint, draining, found.with_draining)
            && selects(pairs(&found.subset), &endpoint.labels)
            && (found.with_unhealthy || endpoint.health != Health::Unhealthy)
            && (mtls || !found.mtls_only)
            && found.workload.as_ref().is_none_or(|workload| workload.has(endpoint))
            && found.node_name.as_ref().is_none_or(|name| *name == endpoint.node_name);
        if wanted {
            let tls = mtls && endpoint.tls_mode == TlsMode::Istio;
            let mut rendered = lb_endpoint(endpoint, port, tls, found.telemetry);
            if draining {
                rendered.health_status = HealthStatus::Draining as i32;
            }
            chosen.push((&**endpoint, rendered));
        }
    }
    let groups = group(chosen);
    match &found.locality {
        Some(view) => view.apply(groups),
        None => groups.into_iter().map(|group| group.rendered).collect(),
    }
}

/// EDS carries addresses only, and endpoints on their way out are told of only where sessions still reach them.
fn is_usable(endpoint: &Endpoint, draining: bool, with_draining: bool) -> bool {
    let addressed = match &endpoint.address {
        Address::Host(host) => host.parse::<IpAddr>().is_ok(),
        Address::Unix(_) => true,
    };
    let healthy = match (draining, endpoint.health) {
        (_, Health::Terminating) => false,
        (true, _) => with_draining,
        (false, _) => true,
    };
    addressed && healthy
}

/// The assignment inside a DNS cluster: names, in one locality per declared locality.
pub fn render_dns(input: &OutboundCluster) -> ClusterLoadAssignment {
    let Some(dns) = &input.dns else { return ClusterLoadAssignment::default() };
    let none = Labels::new();
    let subset = input.rule.as_ref().and_then(|rule| rule.subset(&input.subset)).map_or(&none, |subset| &subset.labels);
    let declared = declared_mtls(input.policy.as_ref());
    let chosen =
        dns.shard.endpoints.iter().filter(|endpoint| selects(pairs(subset), &endpoint.labels)).filter_map(|endpoint| {
            let port = endpoint.port(&input.port.name)?;
            let tls = endpoint.tls_mode == TlsMode::Istio && declared.unwrap_or(true);
            Some((&**endpoint, lb_endpoint(endpoint, port, tls, true)))
        });
    let groups = group(chosen.collect());
    let endpoints = match &dns.locality {
        Some(view) => view.apply(groups),
        None => groups.into_iter().map(|group| group.rendered).collect(),
    };
    ClusterLoadAssignment { cluster_name: input.name.to_string(), endpoints, ..ClusterLoadAssignment::default() }
}

fn group(chosen: Vec<(&Endpoint, LbEndpoint)>) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<&Locality, Group<'_>> = BTreeMap::new();
    for (endpoint, rendered) in chosen {
        let group = groups.entry(&endpoint.locality).or_insert_with(|| Group::empty(&endpoint.locality, 0));
        group.endpoints.push(endpoint);
        group.rendered.lb_endpoints.push(rendered);
    }
    groups.into_values().map(Group::weighed).collect()
}

pub fn locality(locality: &Locality) -> ProtoLocality {
    ProtoLocality {
        region: locality.region.to_string(),
        zone: locality.zone.to_string(),
        sub_zone: locality.sub_zone.to_string(),
    }
}

fn lb_endpoint(endpoint: &Endpoint, port: u32, tls: bool, telemetry: bool) -> LbEndpoint {
    let address = match &endpoint.address {
        Address::Host(host) => socket_address(host, port),
        Address::Unix(path) => socket_address(&format!("unix://{path}"), 0),
    };
    let health = match endpoint.health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Unhealthy => HealthStatus::Unhealthy,
        Health::Draining | Health::Terminating => HealthStatus::Draining,
    };
    let address = ProtoEndpoint { address: Some(address), ..ProtoEndpoint::default() };
    LbEndpoint {
        health_status: health as i32,
        metadata: telemetry.then(|| metadata(endpoint, tls)),
        load_balancing_weight: Some(endpoint.weight.max(1)),
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(address)),
    }
}

/// Which TLS the endpoint takes, and for telemetry `name;namespace;canonical name;canonical revision;cluster`.
fn metadata(endpoint: &Endpoint, tls: bool) -> Metadata {
    let text = |value: &str| Value { kind: Some(value::Kind::StringValue(value.into())) };
    let one = |key: &str, value: &str| Struct { fields: [(key.to_owned(), text(value))].into_iter().collect() };
    let mut metadata = Metadata::default();
    if tls {
        metadata.filter_metadata.insert("envoy.transport_socket_match".into(), one("tlsMode", "istio"));
    }
    // What is no workload has no workload's namespace.
    let namespace = if endpoint.workload_name.is_empty() { "" } else { &*endpoint.namespace };
    let workload = format!(
        "{};{namespace};{};{};{}",
        endpoint.workload_name,
        endpoint.canonical_name(),
        told_revision(endpoint),
        endpoint.cluster
    );
    metadata.filter_metadata.insert("istio".into(), one("workload", &workload));
    metadata
}

/// The revision that readers assume is not told.
fn told_revision(endpoint: &Endpoint) -> &str {
    match endpoint.canonical_revision() {
        DEFAULT_REVISION => "",
        revision => revision,
    }
}
