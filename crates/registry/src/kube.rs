//! A Kubernetes Service and its endpoints: from EndpointSlices, else from Endpoints, else from the pods it selects.

use crate::Context;
use crate::workload::{of_pod, of_selected_entry, service_of, target_port};
use crate::world::Held;
use meltemi_config::kube::{EndpointPort, EndpointSlice, Endpoints, KubeService, ObjectReference, Pod, ServiceType};
use meltemi_config::{IntOrString, Str};
use meltemi_model::config::creation;
use meltemi_model::{
    Address, Endpoint, Health, Labels, ObjectKey, Port, Protocol, RegistryKind, Resolution, Service, ServiceKey,
    TargetPort, TrafficDistribution,
};
use std::sync::Arc;

const EXPORT_TO: &str = "networking.istio.io/exportTo";
const TRAFFIC_DISTRIBUTION: &str = "networking.istio.io/traffic-distribution";
const CANONICAL_ACCOUNTS: &str = "alpha.istio.io/canonical-serviceaccounts";
const ACCOUNTS: &str = "alpha.istio.io/kubernetes-serviceaccounts";

pub(crate) fn derive(context: &Context<'_>, key: &ServiceKey) -> Option<(Service, Vec<Endpoint>)> {
    let own = service_of(key, &context.options.domain)?;
    let held = context.world.service(&own)?;
    let service = service(context, key, held);
    let endpoints =
        if service.resolution == Resolution::Alias { Vec::new() } else { endpoints(context, &own, held, &service) };
    Some((service, endpoints))
}

fn service(context: &Context<'_>, key: &ServiceKey, held: &Held<KubeService>) -> Service {
    let (meta, spec) = (&held.meta, &held.spec.spec);
    let external = spec.service_type == ServiceType::ExternalName;
    let headless = !external && spec.is_headless();
    let list = |annotation: &str| -> Vec<&str> {
        let text = meta.annotations.get(annotation).map_or("", |text| &**text);
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect()
    };
    let accounts = list(ACCOUNTS)
        .into_iter()
        .map(|account| format!("spiffe://{}/ns/{}/sa/{account}", context.trust_domain, meta.namespace));
    let distribution = meta.annotations.get(TRAFFIC_DISTRIBUTION).unwrap_or(&spec.traffic_distribution);
    Service {
        hostname: key.hostname.clone(),
        namespace: key.namespace.clone(),
        name: meta.name.clone(),
        addresses: if external { Vec::new() } else { spec.vips().cloned().collect() },
        ports: spec.ports.iter().map(port).collect(),
        resolution: match (external, headless) {
            (true, _) => Resolution::Alias,
            (_, true) => Resolution::Passthrough,
            _ => Resolution::ClientSideLb,
        },
        export_to: context.export_to(list(EXPORT_TO), &meta.namespace),
        subject_alt_names: accounts
            .chain(list(CANONICAL_ACCOUNTS).into_iter().map(str::to_owned))
            .map(Arc::from)
            .collect(),
        labels: meta.labels.clone(),
        registry: RegistryKind::Kubernetes,
        headless,
        external_name: external.then(|| spec.external_name.clone()),
        selector: if external { Labels::new() } else { spec.selector.clone() },
        publish_not_ready: spec.publish_not_ready_addresses,
        node_local: &*spec.internal_traffic_policy == "Local",
        distribution: traffic_distribution(distribution),
        creation: creation(meta),
        ..Service::default()
    }
}

fn traffic_distribution(text: &str) -> TrafficDistribution {
    match text.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => TrafficDistribution::PreferSameZone,
        "prefersamenode" => TrafficDistribution::PreferSameNode,
        _ => TrafficDistribution::Any,
    }
}

fn port(port: &meltemi_config::kube::KubeServicePort) -> Port {
    let app_protocol = Some(&*port.app_protocol);
    Port {
        name: port.name.clone(),
        number: port.port,
        protocol: Protocol::of_service_port(&port.name, port.port, &port.protocol, app_protocol),
        target: match &port.target_port {
            None | Some(IntOrString::Int(0)) => TargetPort::Same,
            Some(IntOrString::Int(number)) => u32::try_from(*number).map_or(TargetPort::Same, TargetPort::Number),
            Some(IntOrString::Text(name)) => match name.parse() {
                Ok(number) => TargetPort::Number(number),
                Err(_) => TargetPort::Name(name.clone()),
            },
        },
    }
}

fn endpoints(context: &Context<'_>, own: &ObjectKey, held: &Held<KubeService>, service: &Service) -> Vec<Endpoint> {
    let world = context.world;
    let mut found: Vec<Endpoint> = if let Some(slices) = world.slices(own) {
        slices.flat_map(|slice| of_slice(context, slice, service)).collect()
    } else if let Some(endpoints) = world.endpoints(own) {
        of_endpoints(context, endpoints, service)
    } else if service.selector.is_empty() {
        Vec::new()
    } else {
        of_pods(context, held, service)
    };
    if !service.selector.is_empty() {
        found.extend(world.workload_entries_selected(&own.namespace, &service.selector).map(|entry| {
            let mut endpoint = of_selected_entry(context, entry);
            endpoint.ports = service
                .ports
                .iter()
                .filter_map(|port| {
                    let declared = entry.spec.ports.get(&port.name).copied();
                    Some((port.name.clone(), declared.or_else(|| port.target_number())?))
                })
                .collect();
            endpoint
        }));
    }
    found
}

/// One for each address of a pod that EndpointSlices of the Service would have.
fn of_pods(context: &Context<'_>, held: &Held<KubeService>, service: &Service) -> Vec<Endpoint> {
    let pods = context.world.pods_selected(&service.namespace, &service.selector);
    let of_one = |pod: &Held<Pod>| {
        let ports = held.spec.spec.ports.iter();
        let ports = ports.filter_map(|port| {
            Some((port.name.clone(), target_port(Some(&pod.spec), port.port, port.target_port.as_ref())?))
        });
        let mut endpoint = of_pod(context, pod);
        endpoint.ports = ports.collect();
        if pod.spec.spec.subdomain != service.name {
            endpoint.hostname = None;
        }
        if service.publish_not_ready {
            endpoint.health = Health::Healthy;
        }
        let addresses = addresses(&held.spec, &pod.spec).into_iter();
        addresses.map(|address| Endpoint { address: Address::Host(address), ..endpoint.clone() }).collect::<Vec<_>>()
    };
    pods.flat_map(of_one).collect()
}

/// The addresses of a pod in the families of a Service: where it names none, all if it is to have two, else the first.
fn addresses(service: &KubeService, pod: &Pod) -> Vec<Str> {
    let families = &service.spec.ip_families;
    let is_dual = matches!(&*service.spec.ip_family_policy, "PreferDualStack" | "RequireDualStack");
    let family = |address: &Str| if address.contains(':') { "IPv6" } else { "IPv4" };
    match (families.is_empty(), is_dual) {
        (true, true) => pod.ips().cloned().collect(),
        (true, false) => pod.ips().next().cloned().into_iter().collect(),
        (false, _) => pod.ips().filter(|own| families.iter().any(|named| **named == *family(own))).cloned().collect(),
    }
}

/// The endpoint at an address, with what its pod says where the pod is known.
fn at(context: &Context<'_>, address: &Str, target: Option<&ObjectReference>, service: &Service) -> Endpoint {
    let named = target.filter(|target| &*target.kind == "Pod").and_then(|target| {
        let namespace = if target.namespace.is_empty() { &service.namespace } else { &target.namespace };
        context.world.pod(&ObjectKey::new(namespace.clone(), target.name.clone()))
    });
    let mut endpoint = match named.or_else(|| context.world.pod_at(address)) {
        Some(pod) => of_pod(context, pod),
        None => Endpoint {
            namespace: service.namespace.clone(),
            network: context.options.network.clone(),
            cluster: context.options.cluster_id.clone(),
            ..Endpoint::default()
        },
    };
    endpoint.address = Address::Host(address.clone());
    endpoint
}

/// The endpoint's port for each service port of the same name; a single unnamed one serves a single port whatever its name.
fn ports(declared: &[EndpointPort], service: &Service) -> Vec<(Arc<str>, u32)> {
    let own = declared.iter().filter_map(|port| Some((port.name.clone(), port.port?)));
    if let ([port], [only]) = (declared, &service.ports[..])
        && port.name.is_empty()
    {
        return port.port.map(|number| (only.name.clone(), number)).into_iter().collect();
    }
    own.collect()
}

fn of_slice(context: &Context<'_>, slice: &Held<EndpointSlice>, service: &Service) -> Vec<Endpoint> {
    if &*slice.spec.address_type == "FQDN" {
        return Vec::new();
    }
    let ports = ports(&slice.spec.ports, service);
    let mut found = Vec::new();
    for declared in &slice.spec.endpoints {
        let conditions = &declared.conditions;
        let ready = conditions.ready.unwrap_or(true);
        let terminating = conditions.terminating.unwrap_or(false);
        let health = match (ready || service.publish_not_ready, terminating, conditions.serving.unwrap_or(true)) {
            (true, false, _) => Health::Healthy,
            (_, true, true) => Health::Draining,
            (_, true, false) => continue,
            (false, false, _) => Health::Unhealthy,
        };
        for address in &declared.addresses {
            let mut endpoint = at(context, address, declared.target_ref.as_ref(), service);
            endpoint.ports.clone_from(&ports);
            endpoint.health = health;
            endpoint.hostname = Some(&declared.hostname).filter(|name| !name.is_empty()).cloned();
            if endpoint.node_name.is_empty() {
                endpoint.node_name = declared.node_name.clone();
            }
            found.push(endpoint);
        }
    }
    found
}

fn of_endpoints(context: &Context<'_>, endpoints: &Held<Endpoints>, service: &Service) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for subset in &endpoints.spec.subsets {
        let ports = ports(&subset.ports, service);
        let ready = subset.addresses.iter().map(|address| (address, Health::Healthy));
        let unready = if service.publish_not_ready { Health::Healthy } else { Health::Unhealthy };
        let unready = subset.not_ready_addresses.iter().map(move |address| (address, unready));
        for (address, health) in ready.chain(unready) {
            let mut endpoint = at(context, &address.ip, address.target_ref.as_ref(), service);
            endpoint.ports.clone_from(&ports);
            endpoint.health = health;
            endpoint.hostname = Some(&address.hostname).filter(|name| !name.is_empty()).cloned();
            found.push(endpoint);
        }
    }
    found
}
