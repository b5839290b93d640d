//! The documents that discovery reads: the user's, with what a Kubernetes API server and scheduler would add.
//!
//! Owns the folder `config` of the run. Services get an address, replicas become Pods, and the gateway gets its Service.
//! A file is written only when its content changed, and always replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use meltemi_config::kube::{KubeService, ServiceType};
use meltemi_config::{Object, Shape, Spec, gateway_api};
use serde_json::{Map, Value, json};

use crate::address::{FABRIC, service_addresses};
use crate::error::LocalError;
use crate::protocol::Publish;
use crate::resolver::Names;
use crate::workload::{GATEWAY, Replica, Role, SYSTEM};

#[cfg(test)]
mod tests;

/// The one machine, as Kubernetes would call it.
pub(crate) const NODE: &str = "local";
pub(crate) const DOMAIN: &str = "cluster.local";

/// The files last written, by name.
pub(crate) struct Folder {
    path: PathBuf,
    written: BTreeMap<String, String>,
}

impl Folder {
    pub fn create(path: PathBuf) -> Result<Self, LocalError> {
        fs::create_dir_all(&path).map_err(LocalError::io("state folder"))?;
        Ok(Folder { path, written: BTreeMap::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder hold exactly these files.
    pub fn sync(&mut self, files: BTreeMap<String, String>) -> Result<(), LocalError> {
        for (name, content) in &files {
            if self.written.get(name) != Some(content) {
                let (path, partial) = (self.path.join(name), self.path.join(format!(".{name}.partial")));
                fs::write(&partial, content).map_err(LocalError::io(name.clone()))?;
                fs::rename(&partial, path).map_err(LocalError::io(name.clone()))?;
            }
        }
        for name in self.written.keys().filter(|name| !files.contains_key(*name)) {
            let _ = fs::remove_file(self.path.join(name));
        }
        self.written = files;
        Ok(())
    }
}

/// Services that need an address, and those that bring one.
pub(crate) fn addresses(objects: &[Object]) -> BTreeMap<String, Ipv4Addr> {
    let mut wanting = BTreeSet::from([format!("{SYSTEM}/{GATEWAY}")]);
    let mut fixed = BTreeSet::new();
    for object in objects {
        if let Spec::Service(service) = &object.spec {
            fixed.extend(service.spec.vips().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()));
            if wants_address(service) {
                wanting.insert(format!("{}/{}", object.meta.namespace, object.meta.name));
            }
        }
    }
    service_addresses(&wanting, &fixed)
}

fn wants_address(service: &KubeService) -> bool {
    let spec = &service.spec;
    spec.service_type != ServiceType::ExternalName && !spec.is_headless() && spec.vips().next().is_none()
}

/// What discovery reads of the user's documents: all but workloads, which come as Pods.
pub(crate) fn mirror(objects: &[Object], addresses: &BTreeMap<String, Ipv4Addr>) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for object in objects {
        let workload = matches!(
            &object.spec,
            Spec::Deployment(_) | Spec::StatefulSet(_) | Spec::ReplicaSet(_) | Spec::DaemonSet(_) | Spec::Job(_)
        );
        let replica = matches!(&object.spec, Spec::Pod(pod) if pod.status.pod_ip.is_empty());
        if workload || replica {
            continue;
        }
        let meta = &object.meta;
        let mut document = document(object);
        if let Some(address) = addresses.get(&format!("{}/{}", meta.namespace, meta.name))
            && matches!(&object.spec, Spec::Service(service) if wants_address(service))
        {
            document["spec"]["clusterIP"] = json!(address);
        }
        let name = format!("{}-{}-{}.json", resource(object), meta.namespace, meta.name);
        files.insert(name, document.to_string());
    }
    files
}

/// The plural name, with the group where Istio has another kind of that name.
fn resource(object: &Object) -> String {
    let info = object.kind().info();
    match info.group {
        gateway_api::GROUP => format!("{}.{}", info.plural, info.group),
        _ => info.plural.to_owned(),
    }
}

fn document(object: &Object) -> Value {
    let (meta, info) = (&object.meta, object.kind().info());
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(*meta.name));
    if info.namespaced {
        metadata.insert("namespace".to_owned(), json!(*meta.namespace));
    }
    for (key, map) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !map.is_empty() {
            metadata.insert(key.to_owned(), json!(map));
        }
    }
    if let Some(time) = &meta.creation_timestamp {
        metadata.insert("creationTimestamp".to_owned(), json!(time.to_string()));
    }
    let mut document = json!({"apiVersion": object.kind().api_version(), "kind": info.name, "metadata": metadata});
    let body = serde_json::to_value(&object.spec).unwrap_or_default();
    match (info.shape, body) {
        (Shape::Document, Value::Object(fields)) => {
            if let Value::Object(document) = &mut document {
                document.extend(fields);
            }
        }
        (_, body) => document["spec"] = body,
    }
    document
}

/// The Pod of a replica: its file's name and content.
pub(crate) fn pod(replica: &Replica, address: Ipv4Addr, ready: bool) -> (String, String) {
    let mut containers: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for container in &replica.containers {
        containers.entry(&container.name).or_default();
    }
    for port in &replica.ports {
        let value = json!({"name": port.name, "containerPort": port.number, "protocol": port.protocol});
        containers.entry(&port.container).or_default().push(value);
    }
    let mut containers: Vec<_> =
        containers.into_iter().map(|(name, ports)| json!({"name": name, "ports": ports})).collect();
    if replica.role != Role::Plain {
        containers.push(json!({"name": "istio-proxy", "ports": [{"name": "http-envoy-prom", "containerPort": 15090}]}));
    }
    let status = if ready { "True" } else { "False" };
    let mut document = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": replica.name,
            "namespace": replica.namespace,
            "labels": replica.labels,
            "annotations": replica.annotations,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": replica.owner_kind, "name": replica.owner,
                "uid": "", "controller": true}],
        },
        "spec": {"serviceAccountName": replica.service_account, "nodeName": NODE, "containers": containers},
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "hostIP": FABRIC,
            "conditions": [{"type": "Ready", "status": status}],
        },
    });
    for (key, value) in [("hostname", &replica.hostname), ("subdomain", &replica.subdomain)] {
        if !value.is_empty() {
            document["spec"][key] = json!(value);
        }
    }
    (format!("pods-{}-{}.json", replica.namespace, replica.name), document.to_string())
}

/// The ports of the mesh's Gateways, and where our gateway listens for them: 80 and 443 as in Istio's installation.
pub(crate) fn gateway_ports(objects: &[Object]) -> Vec<Publish> {
    let mut ports = BTreeMap::from([(80, publish(80, "HTTP", false))]);
    for (number, protocol, tls) in objects.iter().flat_map(servers) {
        ports.insert(number, publish(number, &protocol.to_uppercase(), tls));
    }
    ports.into_values().collect()
}

/// Port, protocol and whether there is TLS, of what an object has our gateway serve.
fn servers(object: &Object) -> Vec<(u16, &str, bool)> {
    let all: Vec<(u32, &str, bool)> = match &object.spec {
        Spec::Gateway(gateway) => {
            let known = gateway.servers.iter().filter_map(|server| Some((server.port.as_ref()?, server.tls.is_some())));
            known.map(|(port, tls)| (port.number, &*port.protocol, tls)).collect()
        }
        Spec::KubernetesGateway(gateway) if gateway.names_service(GATEWAY) && &*object.meta.namespace == SYSTEM => {
            let listeners = gateway.listeners.iter();
            listeners.map(|listener| (listener.port, &*listener.protocol, listener.tls.is_some())).collect()
        }
        _ => Vec::new(),
    };
    all.into_iter().filter_map(|(port, protocol, tls)| Some((u16::try_from(port).ok()?, protocol, tls))).collect()
}

/// Those that a Gateway resource names, and on which our gateway therefore must come to listen.
pub(crate) fn named_gateway_ports(objects: &[Object]) -> BTreeSet<u16> {
    objects.iter().flat_map(servers).map(|(port, _, _)| port).collect()
}

fn publish(port: u16, protocol: &str, tls: bool) -> Publish {
    let target = match port {
        80 => 8080,
        443 => 8443,
        other => other,
    };
    let tls = tls && protocol != "HTTP" || matches!(protocol, "HTTPS" | "TLS");
    Publish { port, target, tls, http: matches!(protocol, "HTTP" | "HTTPS" | "HTTP2" | "GRPC" | "GRPC-WEB") }
}

/// The Service of our gateway, unless the user's documents bring it.
pub(crate) fn gateway_service(objects: &[Object], address: Ipv4Addr, ports: &[Publish]) -> Option<(String, String)> {
    let brought = objects.iter().any(|object| {
        matches!(object.spec, Spec::Service(_)) && &*object.meta.name == GATEWAY && &*object.meta.namespace == SYSTEM
    });
    if brought {
        return None;
    }
    let ports: Vec<_> = ports
        .iter()
        .map(|publish| {
            let protocol = match (publish.http, publish.tls) {
                (true, false) => "http2",
                (true, true) => "https",
                (false, true) => "tls",
                (false, false) => "tcp",
            };
            json!({"name": format!("{protocol}-{}", publish.port), "port": publish.port,
                "targetPort": publish.target, "protocol": "TCP"})
        })
        .collect();
    let document = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": GATEWAY, "namespace": SYSTEM, "labels": {"app": GATEWAY, "istio": "ingressgateway"}},
        "spec": {"type": "LoadBalancer", "clusterIP": address, "ports": ports,
            "selector": {"app": GATEWAY, "istio": "ingressgateway"}},
        "status": {"loadBalancer": {"ingress": [{"ip": address}]}},
    });
    Some((format!("services-{SYSTEM}-{GATEWAY}.json"), document.to_string()))
}

/// What the cluster's DNS answers: services, headless ones by their ready replicas, those of them that have a name of their own,
/// and discovery.
pub(crate) fn names<'a>(
    objects: &[Object],
    addresses: &BTreeMap<String, Ipv4Addr>,
    ready: impl Iterator<Item = (&'a Replica, Ipv4Addr)> + Clone,
) -> Names {
    let mut names = Names::new();
    names.insert(format!("istiod.{SYSTEM}.svc.{DOMAIN}"), vec![FABRIC]);
    for (name, address) in addresses {
        if let Some((namespace, name)) = name.split_once('/') {
            names.insert(format!("{name}.{namespace}.svc.{DOMAIN}"), vec![*address]);
        }
    }
    for object in objects {
        let Spec::Service(service) = &object.spec else { continue };
        let name = format!("{}.{}.svc.{DOMAIN}", object.meta.name, object.meta.namespace).to_lowercase();
        if service.spec.is_headless() {
            let selected = ready.clone().filter(|(replica, _)| {
                let labels = |(key, value): (&meltemi_config::Str, &meltemi_config::Str)| {
                    replica.labels.get(&**key).is_some_and(|have| **have == **value)
                };
                replica.namespace == *object.meta.namespace
                    && !service.spec.selector.is_empty()
                    && service.spec.selector.iter().all(labels)
            });
            let own = |replica: &Replica| *replica.subdomain == *object.meta.name && !replica.hostname.is_empty();
            for (replica, address) in selected.clone().filter(|(replica, _)| own(replica)) {
                names.insert(format!("{}.{name}", replica.hostname).to_lowercase(), vec![address]);
            }
            names.insert(name, selected.map(|(_, address)| address).collect());
        } else if let Some(address) = service.spec.vips().find_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
            names.insert(name, vec![address]);
        }
    }
    names
}
