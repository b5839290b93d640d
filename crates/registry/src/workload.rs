//! What a Pod or a WorkloadEntry says about the endpoints it backs.

use crate::Context;
use crate::world::{Held, workload_entry_labels};
use meltemi_config::kube::Pod;
use meltemi_config::networking::WorkloadEntry;
use meltemi_config::{IntOrString, Meta};
use meltemi_model::{Address, Endpoint, Health, Labels, Locality, ObjectKey, ServiceKey, TlsMode};
use std::sync::Arc;

const TLS_MODE: &str = "security.istio.io/tlsMode";
const NETWORK: &str = "topology.istio.io/network";

/// The host name of a Kubernetes Service.
pub(crate) fn host_of(key: &ObjectKey, domain: &str) -> ServiceKey {
    ServiceKey::new(key.namespace.clone(), format!("{}.{}.svc.{domain}", key.name, key.namespace))
}

/// The Service of a host name, if it is one of this cluster's.
pub(crate) fn service_of(key: &ServiceKey, domain: &str) -> Option<ObjectKey> {
    let name =
        key.hostname.strip_suffix(domain)?.strip_suffix(".svc.")?.strip_suffix(&*key.namespace)?.strip_suffix('.')?;
    Some(ObjectKey::new(key.namespace.clone(), name))
}

fn tls_mode(labels: &Labels) -> Option<TlsMode> {
    labels.get(TLS_MODE).map(|mode| if &**mode == "istio" { TlsMode::Istio } else { TlsMode::Disabled })
}

fn network(labels: &Labels, context: &Context<'_>) -> Arc<str> {
    labels.get(NETWORK).unwrap_or(&context.options.network).clone()
}

/// The endpoint of a pod, without address and ports.
pub(crate) fn of_pod(context: &Context<'_>, pod: &Held<Pod>) -> Endpoint {
    let labels = &pod.meta.labels;
    Endpoint {
        labels: labels.clone(),
        network: network(labels, context),
        locality: locality(context, pod),
        service_account: pod.spec.spec.effective_service_account().into(),
        namespace: pod.meta.namespace.clone(),
        workload_name: workload_name(&pod.meta),
        tls_mode: tls_mode(labels).unwrap_or_default(),
        health: if pod.spec.is_ready() { Health::Healthy } else { Health::Unhealthy },
        hostname: Some(&pod.spec.spec.hostname).filter(|name| !name.is_empty()).cloned(),
        node_name: pod.spec.spec.node_name.clone(),
        cluster: context.options.cluster_id.clone(),
        ..Endpoint::default()
    }
}

/// The label `istio-locality`, else the node's topology labels, else the pod's own.
fn locality(context: &Context<'_>, pod: &Held<Pod>) -> Locality {
    let labels = &pod.meta.labels;
    if let Some(label) = labels.get("istio-locality") {
        return Locality::of_label(label);
    }
    let node = context.world.node(&pod.spec.spec.node_name).map(|node| &node.meta.labels);
    let of = |labels: &Labels| {
        let value = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned().unwrap_or_else(|| "".into());
        Locality {
            region: value(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
            zone: value(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
            sub_zone: value(&["topology.istio.io/subzone"]),
        }
    };
    node.map(of).filter(|locality| !locality.is_empty()).unwrap_or_else(|| of(labels))
}

/// The name of what made the pod: a Deployment by its ReplicaSet without the template's hash, a CronJob by its Job without
/// the time, else the controller itself, else the pod.
pub(crate) fn workload_name(meta: &Meta) -> Arc<str> {
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller).or(meta.owner_references.first())
    else {
        return meta.name.clone();
    };
    let stem = |suffix: &str| owner.name.strip_suffix(suffix).and_then(|stem| stem.strip_suffix('-'));
    match &*owner.kind {
        "ReplicaSet" => match meta.labels.get("pod-template-hash").and_then(|hash| stem(hash)) {
            Some(name) => name.into(),
            None => owner.name.clone(),
        },
        "Job" => match owner.name.rsplit_once('-') {
            Some((name, time)) if time.len() >= 8 && time.bytes().all(|byte| byte.is_ascii_digit()) => name.into(),
            _ => owner.name.clone(),
        },
        _ => owner.name.clone(),
    }
}

/// A target port on a pod: its number, or the container port of that name.
pub(crate) fn target_port(pod: Option<&Pod>, port: u32, target: Option<&IntOrString>) -> Option<u32> {
    match target {
        None | Some(IntOrString::Int(0)) => Some(port),
        Some(IntOrString::Int(number)) => u32::try_from(*number).ok(),
        Some(IntOrString::Text(name)) => {
            if let Ok(number) = name.parse() {
                return Some(number);
            }
            let spec = &pod?.spec;
            let containers = spec.containers.iter().chain(&spec.init_containers);
            containers
                .flat_map(|container| &container.ports)
                .find(|port| port.name == *name)
                .map(|port| port.container_port)
        }
    }
}

/// The endpoint of a WorkloadEntry, without ports. `meta` is that of the object that declares it.
pub(crate) fn of_workload_entry(context: &Context<'_>, spec: &WorkloadEntry, meta: &Meta, labels: Labels) -> Endpoint {
    let secured = if spec.service_account.is_empty() { TlsMode::Disabled } else { TlsMode::Istio };
    let network = if spec.network.is_empty() { network(&labels, context) } else { spec.network.clone() };
    let locality = match labels.get("istio-locality") {
        Some(label) if spec.locality.is_empty() => Locality::of_label(label),
        _ => Locality::parse(&spec.locality),
    };
    Endpoint {
        address: Address::parse(&spec.address),
        network,
        locality,
        weight: spec.weight,
        service_account: spec.service_account.clone(),
        namespace: meta.namespace.clone(),
        workload_name: meta.name.clone(),
        tls_mode: tls_mode(&labels).unwrap_or(secured),
        cluster: context.options.cluster_id.clone(),
        labels,
        ..Endpoint::default()
    }
}

pub(crate) fn of_selected_entry(context: &Context<'_>, entry: &Held<WorkloadEntry>) -> Endpoint {
    of_workload_entry(context, &entry.spec, &entry.meta, workload_entry_labels(entry))
}
