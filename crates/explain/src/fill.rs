//! What a cluster would add to manifests: pods for workloads, addresses for pods and services, a gateway.
//!
//! Owns the stand-ins, which are the same each time: an address follows from a name alone, so that two versions of a
//! configuration differ in nothing else. What the documents bring is left as it is. The rules of who is in the mesh and of the
//! default gateway are those of `meltemi up`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::Arc;

use meltemi_config::kube::{KubeService, KubeServicePort, Pod, PodSpec, PodTemplate, ServiceSpec, ServiceType};
use meltemi_config::{IntOrString, Meta, Object, OwnerReference, Resource, Spec, Str};

use crate::proxies::Injection;

const SYSTEM: &str = "istio-system";
const GATEWAY: &str = "istio-ingressgateway";
/// More replicas of one workload are not told apart.
const MAX_REPLICAS: i32 = 1000;
/// 10.244.0.0/16, where `meltemi up` has its pods.
const PODS: (u32, u32) = (u32::from_be_bytes([10, 244, 0, 2]), 60_000);
/// 10.96.0.0/12, Kubernetes' usual range.
const SERVICES: (u32, u32) = (u32::from_be_bytes([10, 96, 0, 1]), (1 << 20) - 2);

/// The documents' objects with what was added, and what was.
#[derive(Debug, Default)]
pub struct Filled {
    pub objects: Vec<Object>,
    pub notes: Vec<String>,
}

/// Adds what is missing.
pub fn fill(objects: Vec<Object>) -> Filled {
    let mut filled = Filled::default();
    let mut pods = made_pods(&objects);
    let mut objects = objects;
    if let Some(gateway) = gateway_pod(&objects, &pods) {
        objects.extend(gateway_service(&objects));
        pods.push(gateway);
        filled.notes.push(format!("the documents bring no gateway: {SYSTEM}/{GATEWAY} stands for it"));
    }
    let injection = Injection::of(&objects);
    let pods: Vec<Object> = pods.into_iter().map(|pod| labelled(pod, &injection)).collect();
    if !pods.is_empty() {
        filled.notes.push(format!("{} pods have no address in the documents: stand-ins are used", pods.len()));
    }
    let addressed = with_addresses(pods, &objects, PODS, |meta, spec, address| match spec {
        Spec::Pod(pod) if pod.status.pod_ip.is_empty() => Some(pod_at(meta, pod, address)),
        _ => None,
    });
    let given: BTreeSet<_> = addressed.iter().map(Object::key).collect();
    objects.retain(|object| !given.contains(&object.key()));
    objects.extend(addressed);
    let (services, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(wants_address);
    let services = with_addresses(services, &others, SERVICES, |meta, spec, address| match spec {
        Spec::Service(service) => Some(service_at(meta, service, address)),
        _ => None,
    });
    filled.objects = others.into_iter().chain(services).collect();
    filled
}

/// The pods that workloads would have, for those of which the documents have none, and pods without an address.
fn made_pods(objects: &[Object]) -> Vec<Object> {
    let mut made = Vec::new();
    for object in objects {
        if let Spec::Pod(pod) = &object.spec {
            if pod.status.pod_ip.is_empty() {
                made.push(object.clone());
            }
            continue;
        }
        let Some((replicas, template)) = template(object) else { continue };
        let owned = object.meta.owner_references.iter().any(|owner| owner.controller);
        if !owned && !has_pods(objects, object, template) {
            made.extend((0..replicas).map(|ordinal| pod_of(object, template, ordinal)));
        }
    }
    made
}

fn template(object: &Object) -> Option<(i32, &PodTemplate)> {
    let count = |replicas: Option<i32>| replicas.unwrap_or(1).clamp(0, MAX_REPLICAS);
    match &object.spec {
        Spec::Deployment(workload) => Some((count(workload.spec.replicas), &workload.spec.template)),
        Spec::StatefulSet(workload) => Some((count(workload.spec.replicas), &workload.spec.template)),
        Spec::ReplicaSet(workload) => Some((count(workload.spec.replicas), &workload.spec.template)),
        Spec::DaemonSet(workload) => Some((1, &workload.spec.template)),
        _ => None,
    }
}

fn has_pods(objects: &[Object], workload: &Object, template: &PodTemplate) -> bool {
    let labels = &template.metadata.labels;
    let same = |pod: &Object| {
        matches!(pod.spec, Spec::Pod(_))
            && pod.meta.namespace == workload.meta.namespace
            && !pod.meta.owner_references.is_empty()
            && labels.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value))
    };
    !labels.is_empty() && objects.iter().any(same)
}

fn pod_of(workload: &Object, template: &PodTemplate, ordinal: i32) -> Object {
    let owner =
        OwnerReference { kind: workload.kind().as_str().into(), name: workload.meta.name.clone(), controller: true };
    let meta = Meta {
        name: format!("{}-{ordinal}", workload.meta.name).into(),
        namespace: workload.meta.namespace.clone(),
        labels: template.metadata.labels.clone(),
        annotations: template.metadata.annotations.clone(),
        owner_references: vec![owner],
        source: workload.meta.source.clone(),
        ..Meta::default()
    };
    Object::new(meta, Pod { spec: template.spec.clone(), ..Pod::default() }.into_spec())
}

/// With the labels that injection adds.
fn labelled(object: Object, injection: &Injection<'_>) -> Object {
    let Spec::Pod(pod) = &object.spec else { return object };
    if injection.kind(&object.meta, pod).is_none() {
        return object;
    }
    let mut meta = (*object.meta).clone();
    let own = &object.meta.labels;
    let first = |keys: &[&str]| keys.iter().find_map(|key| own.get(*key).cloned());
    let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let owner = meta.owner_references.first().map_or_else(|| meta.name.clone(), |owner| owner.name.clone());
    for (key, value) in [
        ("service.istio.io/canonical-name", name.unwrap_or(owner)),
        ("service.istio.io/canonical-revision", revision.unwrap_or_else(|| "latest".into())),
        ("security.istio.io/tlsMode", "istio".into()),
    ] {
        meta.labels.entry(key.into()).or_insert(value);
    }
    Object::new(meta, object.spec.clone())
}

fn pod_at(meta: &Meta, pod: &Pod, address: Ipv4Addr) -> Object {
    let mut pod = pod.clone();
    pod.status.pod_ip = address.to_string().into();
    if pod.status.phase.is_empty() {
        pod.status.phase = "Running".into();
    }
    Object::new(meta.clone(), pod.into_spec())
}

fn wants_address(object: &Object) -> bool {
    let Spec::Service(service) = &object.spec else { return false };
    let spec = &service.spec;
    spec.service_type != ServiceType::ExternalName && !spec.is_headless() && spec.vips().next().is_none()
}

fn service_at(meta: &Meta, service: &KubeService, address: Ipv4Addr) -> Object {
    let mut service = service.clone();
    service.spec.cluster_ip = address.to_string().into();
    Object::new(meta.clone(), service.into_spec())
}

/// Gives each object an address of a range that none of the others has.
fn with_addresses(
    wanting: Vec<Object>,
    others: &[Object],
    range: (u32, u32),
    place: impl Fn(&Meta, &Spec, Ipv4Addr) -> Option<Object>,
) -> Vec<Object> {
    let mut taken: BTreeSet<Ipv4Addr> = others.iter().flat_map(|object| addresses(&object.spec)).collect();
    let ordered: BTreeMap<_, _> = wanting.into_iter().map(|object| (object.key(), object)).collect();
    let mut placed = Vec::new();
    for object in ordered.into_values() {
        let mut hasher = DefaultHasher::new();
        (&object.meta.namespace, &object.meta.name).hash(&mut hasher);
        let start = u32::try_from(hasher.finish() % u64::from(range.1)).unwrap_or_default();
        let mut candidates = (0..range.1).map(|step| Ipv4Addr::from(range.0 + (start + step) % range.1));
        let Some(address) = candidates.find(|address| !taken.contains(address)) else { continue };
        taken.insert(address);
        placed.extend(place(&object.meta, &object.spec, address));
    }
    placed
}

fn addresses(spec: &Spec) -> Vec<Ipv4Addr> {
    let parsed = |text: &Str| text.parse().ok();
    match spec {
        Spec::Pod(pod) => pod.ips().filter_map(parsed).collect(),
        Spec::Service(service) => service.spec.vips().filter_map(parsed).collect(),
        _ => Vec::new(),
    }
}

/// Nothing runs in it but the proxy: Istio's template says so, or the containers do.
pub fn is_gateway(meta: &Meta, spec: &PodSpec) -> bool {
    let templates = meta.annotations.get("inject.istio.io/templates").map_or("", |value| &**value);
    let containers = &spec.containers;
    templates.split(',').any(|name| name.trim() == "gateway")
        || !containers.is_empty() && containers.iter().all(|container| &*container.name == "istio-proxy")
}

/// The gateway of Istio's default installation, where Gateways have nobody to serve them.
fn gateway_pod(objects: &[Object], made: &[Object]) -> Option<Object> {
    let is_router = |object: &Object| match &object.spec {
        Spec::Pod(pod) => is_gateway(&object.meta, &pod.spec),
        _ => false,
    };
    let wanted = objects.iter().any(|object| match &object.spec {
        Spec::Gateway(_) => true,
        Spec::KubernetesGateway(gateway) => gateway.names_service(GATEWAY),
        _ => false,
    });
    if !wanted || objects.iter().chain(made).any(is_router) {
        return None;
    }
    let meta = Meta {
        name: format!("{GATEWAY}-0").into(),
        namespace: SYSTEM.into(),
        labels: labels(),
        annotations: BTreeMap::from([("inject.istio.io/templates".into(), "gateway".into())]),
        owner_references: vec![OwnerReference { kind: "Deployment".into(), name: GATEWAY.into(), controller: true }],
        ..Meta::default()
    };
    let spec = PodSpec { service_account_name: GATEWAY.into(), ..PodSpec::default() };
    Some(Object::new(meta, Pod { spec, ..Pod::default() }.into_spec()))
}

fn labels() -> BTreeMap<Str, Str> {
    BTreeMap::from([("app".into(), GATEWAY.into()), ("istio".into(), "ingressgateway".into())])
}

/// Its Service, unless the documents bring that: 80 and 443 as in Istio's installation, and the ports of the Gateways.
fn gateway_service(objects: &[Object]) -> Option<Object> {
    let brought = |object: &Object| {
        matches!(object.spec, Spec::Service(_)) && *object.meta.name == *GATEWAY && *object.meta.namespace == *SYSTEM
    };
    if objects.iter().any(brought) {
        return None;
    }
    let own = objects.iter().flat_map(|object| match &object.spec {
        Spec::Gateway(gateway) => {
            gateway.servers.iter().filter_map(|server| server.port.as_ref().map(|port| port.number)).collect()
        }
        Spec::KubernetesGateway(gateway) if gateway.names_service(GATEWAY) => {
            gateway.listeners.iter().map(|listener| listener.port).collect()
        }
        _ => Vec::new(),
    });
    let numbers: BTreeSet<u32> = own.chain([80, 443]).collect();
    let port = |number: &u32| KubeServicePort {
        name: format!("port-{number}").into(),
        port: *number,
        target_port: Some(IntOrString::Int(match number {
            80 => 8080,
            443 => 8443,
            other => i32::try_from(*other).unwrap_or_default(),
        })),
        ..KubeServicePort::default()
    };
    let spec = ServiceSpec {
        service_type: ServiceType::LoadBalancer,
        ports: numbers.iter().map(port).collect(),
        selector: labels(),
        ..ServiceSpec::default()
    };
    let meta = Meta { name: GATEWAY.into(), namespace: SYSTEM.into(), labels: labels(), ..Meta::default() };
    Some(Object::new(meta, Spec::Service(Arc::new(KubeService { spec, ..KubeService::default() }))))
}
