//! Services and endpoints as istiod's `/debug/registryz` and `/debug/endpointShardz` write them: its Go structs as
//! JSON, in which a field without a tag has its Go name.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_model::{
    Endpoint, Health, Port, Resolution, Service, Shared, Snapshot, TlsMode, TrafficDistribution, Visibility,
};
use serde_json::{Map, Value, json};

/// Istiod's word for no address.
const NO_ADDRESS: &str = "0.0.0.0";

/// All services; those of Kubernetes are of `cluster`.
pub(super) fn services(snapshot: &Snapshot, cluster: &str) -> Value {
    snapshot.services.ordered().iter().map(|own| service(own, cluster)).collect()
}

pub(super) fn port(port: &Port) -> Value {
    json!({ "name": &*port.name, "port": port.number, "protocol": port.protocol.name() })
}

pub(super) fn service(service: &Service, cluster: &str) -> Value {
    let addresses: Vec<&str> = service.addresses.iter().map(|address| &**address).collect();
    let default_address = addresses.first().copied().unwrap_or(NO_ADDRESS);
    let vips = if addresses.is_empty() { Value::Null } else { json!({ cluster: addresses }) };
    let mut value = json!({
        "Attributes": attributes(service),
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "hostname": &*service.hostname,
        "clusterVIPs": { "Addresses": vips },
        "defaultAddress": default_address,
        "Resolution": resolution(service.resolution),
        "MeshExternal": service.mesh_external,
        "ResourceVersion": "",
    });
    if let Some(address) = service.auto_address {
        value["autoAllocatedIPv4Address"] = address.to_string().into();
    }
    if let Some(time) = service.creation.and_then(|(seconds, _)| jiff::Timestamp::from_second(seconds).ok()) {
        value["creationTime"] = time.to_string().into();
    }
    if !service.subject_alt_names.is_empty() {
        value["serviceAccounts"] = service.subject_alt_names.iter().map(|name| &**name).collect();
    }
    value
}

fn attributes(service: &Service) -> Value {
    let aliases = service.aliases.iter().map(|key| json!({ "Namespace": &*key.namespace, "Hostname": &*key.hostname }));
    json!({
        "ServiceRegistry": service.registry.name(),
        "Name": &*service.name,
        "Namespace": &*service.namespace,
        "Labels": strings(&service.labels),
        "ExportTo": visibility(&service.export_to),
        "LabelSelectors": strings(&service.selector),
        "Aliases": aliases.collect::<Vec<_>>(),
        "ExternalName": service.external_name.as_deref().unwrap_or_default(),
        "NodeLocal": service.node_local,
        "TrafficDistribution": distribution(service.distribution),
        "PublishNotReadyAddresses": service.publish_not_ready,
    })
}

fn strings(labels: &meltemi_model::Labels) -> Map<String, Value> {
    labels.iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect()
}

/// A Go set: a map to nothing.
fn set<'a>(values: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    values.map(|value| (value.to_owned(), json!({}))).collect()
}

pub(super) fn visibility(export_to: &Visibility) -> Map<String, Value> {
    match export_to {
        Visibility::Public => set(["*"].into_iter()),
        Visibility::None => set(["~"].into_iter()),
        Visibility::Namespaces(namespaces) => set(namespaces.iter().map(|namespace| &**namespace)),
    }
}

/// The numbers of istiod's constants.
fn resolution(resolution: Resolution) -> u8 {
    match resolution {
        Resolution::ClientSideLb => 0,
        Resolution::DnsLb => 1,
        Resolution::Passthrough => 2,
        Resolution::DnsRoundRobin => 3,
        Resolution::Alias => 4,
        Resolution::DynamicDns => 5,
    }
}

fn distribution(distribution: TrafficDistribution) -> u8 {
    match distribution {
        TrafficDistribution::Any => 0,
        TrafficDistribution::PreferSameZone => 1,
        TrafficDistribution::PreferSameNode => 2,
    }
}

/// Endpoints by host, namespace and shard: `<registry>/<cluster>`. Those without a cluster are of `cluster`.
pub(super) fn endpoints(snapshot: &Snapshot, cluster: &str) -> Value {
    let mut hosts = Map::new();
    for service in snapshot.services.ordered().iter() {
        let shards = shards(service, snapshot.endpoints.of(&service.key()), &snapshot.mesh.trust_domain, cluster);
        let namespaces = hosts.entry(&*service.hostname).or_insert_with(|| json!({}));
        namespaces[&*service.namespace] = shards;
    }
    Value::Object(hosts)
}

fn shards(service: &Service, endpoints: &[Shared<Endpoint>], trust_domain: &str, cluster: &str) -> Value {
    let (mut shards, mut accounts) = (Map::new(), BTreeSet::new());
    for endpoint in endpoints {
        let account = endpoint.identity(trust_domain).unwrap_or_default();
        let own = if endpoint.cluster.is_empty() { cluster } else { &endpoint.cluster };
        let shard = shards.entry(format!("{}/{own}", service.registry.name())).or_insert_with(|| json!([]));
        if let Value::Array(list) = shard {
            list.extend(endpoint.ports.iter().map(|port| endpoint_value(endpoint, port, &account, own)));
        }
        accounts.insert(account);
    }
    let accounts = accounts.iter().map(String::as_str).filter(|account| !account.is_empty());
    json!({ "Shards": shards, "ServiceAccounts": set(accounts) })
}

/// Istiod has an endpoint for each port of a service.
fn endpoint_value(endpoint: &Endpoint, port: &(Arc<str>, u32), account: &str, cluster: &str) -> Value {
    json!({
        "Labels": strings(&endpoint.labels),
        "Addresses": [endpoint.address.to_string()],
        "ServicePortName": &*port.0,
        "ServiceAccount": account,
        "Network": &*endpoint.network,
        "Locality": { "Label": endpoint.locality.to_string(), "ClusterID": cluster },
        "EndpointPort": port.1,
        "LbWeight": endpoint.weight,
        "TLSMode": match endpoint.tls_mode {
            TlsMode::Istio => "istio",
            TlsMode::Disabled => "disabled",
        },
        "Namespace": &*endpoint.namespace,
        "WorkloadName": &*endpoint.workload_name,
        "HostName": endpoint.hostname.as_deref().unwrap_or_default(),
        "HealthStatus": match endpoint.health {
            Health::Healthy => 1,
            Health::Unhealthy => 2,
            Health::Draining => 3,
            Health::Terminating => 4,
        },
        "NodeName": &*endpoint.node_name,
    })
}
