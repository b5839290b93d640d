//! ServiceEntries: one service for each host, with declared endpoints, selected workloads, or the host itself.

use crate::Context;
use crate::workload::{of_pod, of_selected_entry, of_workload_entry};
use crate::world::Held;
use meltemi_config::Meta;
use meltemi_config::networking::{Resolution as Declared, ServiceEntry, ServiceLocation, ServicePort};
use meltemi_model::config::creation;
use meltemi_model::{
    Address, Endpoint, Labels, Port, Protocol, RegistryKind, Resolution, Service, ServiceKey, TargetPort,
};
use std::sync::Arc;

/// What each ServiceEntry of a host contributes, the oldest first.
pub(crate) fn derive(context: &Context<'_>, key: &ServiceKey) -> Vec<(Service, Vec<Endpoint>)> {
    let entries = context.world.entries_of(key);
    entries.into_iter().map(|entry| (service(context, key, entry), endpoints(context, key, entry))).collect()
}

fn service(context: &Context<'_>, key: &ServiceKey, entry: &Held<ServiceEntry>) -> Service {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let selector = spec.workload_selector.as_ref().map(|selector| selector.labels.clone());
    Service {
        hostname: key.hostname.clone(),
        namespace: key.namespace.clone(),
        name: key.hostname.clone(),
        addresses: spec.addresses.clone(),
        ports: spec.ports.iter().map(port).collect(),
        resolution: match spec.resolution {
            Declared::None => Resolution::Passthrough,
            Declared::Static => Resolution::ClientSideLb,
            Declared::Dns => Resolution::DnsLb,
            Declared::DnsRoundRobin => Resolution::DnsRoundRobin,
            Declared::DynamicDns => Resolution::DynamicDns,
        },
        mesh_external: spec.location == ServiceLocation::MeshExternal,
        export_to: context.export_to(spec.export_to.iter().map(|entry| &**entry), &meta.namespace),
        subject_alt_names: spec.subject_alt_names.clone(),
        labels: meta.labels.clone(),
        registry: RegistryKind::External,
        selector: selector.unwrap_or_default(),
        declarations: 1,
        creation: creation(meta),
        ..Service::default()
    }
}

fn port(port: &ServicePort) -> Port {
    let target = if port.target_port == 0 { TargetPort::Same } else { TargetPort::Number(port.target_port) };
    Port { name: port.name.clone(), number: port.number, protocol: Protocol::parse(&port.protocol), target }
}

fn ports(spec: &ServiceEntry, declared: impl Fn(&Arc<str>) -> Option<u32>) -> Vec<(Arc<str>, u32)> {
    let default = |port: &ServicePort| if port.target_port == 0 { port.number } else { port.target_port };
    spec.ports.iter().map(|port| (port.name.clone(), declared(&port.name).unwrap_or_else(|| default(port)))).collect()
}

fn endpoints(context: &Context<'_>, key: &ServiceKey, entry: &Held<ServiceEntry>) -> Vec<Endpoint> {
    let spec = &entry.spec;
    if let Some(selector) = &spec.workload_selector {
        return selected(context, &entry.meta, spec, &selector.labels);
    }
    if spec.endpoints.is_empty() && matches!(spec.resolution, Declared::Dns | Declared::DnsRoundRobin) {
        return vec![Endpoint {
            address: Address::Host(key.hostname.clone()),
            ports: ports(spec, |_| None),
            namespace: entry.meta.namespace.clone(),
            workload_name: entry.meta.name.clone(),
            cluster: context.options.cluster_id.clone(),
            ..Endpoint::default()
        }];
    }
    let declared = spec.endpoints.iter().enumerate().map(|(index, workload)| {
        let mut endpoint = of_workload_entry(context, workload, &entry.meta, workload.labels.clone());
        endpoint.workload_name = format!("{}-{index}", entry.meta.name).into();
        endpoint.ports = ports(spec, |name| workload.ports.get(name).copied());
        endpoint
    });
    declared.collect()
}

fn selected(context: &Context<'_>, meta: &Meta, spec: &ServiceEntry, selector: &Labels) -> Vec<Endpoint> {
    let entries = context.world.workload_entries_selected(&meta.namespace, selector).map(|workload| {
        let mut endpoint = of_selected_entry(context, workload);
        endpoint.ports = ports(spec, |name| workload.spec.ports.get(name).copied());
        endpoint
    });
    let pods = context.world.pods_selected(&meta.namespace, selector).filter_map(|pod| {
        let mut endpoint = of_pod(context, pod);
        endpoint.address = Address::Host(pod.spec.ips().next()?.clone());
        endpoint.ports = ports(spec, |_| None);
        Some(endpoint)
    });
    entries.chain(pods).collect()
}
