//! A case's mesh: its documents as a snapshot, its proxy as a node, and what that node gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_config::{Object, parse_documents, parse_mesh_config};
use meltemi_model::{
    Address, Endpoint, EndpointShard, Node, NodeDescription, Options, Port, Protocol, Resolution, Service, ServiceKey,
    Shared, Snapshot, TargetPort, Update,
};
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::listener::v3::Listener;
use meltemi_proto::envoy::config::route::v3::RouteConfiguration;
use meltemi_registry::Registry;
use meltemi_translate::{Cache, Resource, generate as resources, type_urls};
use serde_json::{Map, Value, json};

use super::case::{Case, Expected, folder};

pub struct Generated {
    pub listeners: Vec<Listener>,
    pub routes: Vec<RouteConfiguration>,
    pub clusters: Vec<Cluster>,
}

pub fn generate(case: &Case, dialect: &str) -> Result<Generated, String> {
    let snapshot = snapshot(case)?;
    let node = node(case, dialect)?;
    let cache = Cache::default();
    let of = |type_url| resources(&snapshot, &node, type_url, None, &cache);
    let listeners = decode(&of(type_urls::LISTENER), meltemi_proto::unpack_listener)?;
    let mut routes = of(type_urls::ROUTE);
    if let Expected::VirtualHosts { route, .. } = &case.expected
        && !routes.iter().any(|own| *own.name == **route)
    {
        let named = [Arc::from(route.as_str())];
        routes.extend(resources(&snapshot, &node, type_urls::ROUTE, Some(&named), &cache));
    }
    let routes = decode(&routes, meltemi_proto::unpack_route_configuration)?;
    let clusters = decode(&of(type_urls::CLUSTER), meltemi_proto::unpack_cluster)?;
    Ok(Generated { listeners, routes, clusters })
}

fn decode<T>(
    resources: &[Resource],
    unpack: fn(&meltemi_proto::Any) -> Result<T, meltemi_proto::DecodeError>,
) -> Result<Vec<T>, String> {
    resources.iter().map(|resource| unpack(&resource.body).map_err(|e| format!("{}: {e}", resource.name))).collect()
}

fn snapshot(case: &Case) -> Result<Snapshot, String> {
    let mesh = mesh_config(case)?;
    let mut registry = Registry::default();
    let mut update = registry.set_mesh(&mesh);
    let loaded = registry.load(objects(case)?.values());
    update.services = loaded.services;
    update.endpoints = loaded.endpoints;
    update.virtual_services = loaded.virtual_services;
    update.destination_rules = loaded.destination_rules;
    update.gateways = loaded.gateways;
    update.sidecars = loaded.sidecars;
    update.peer_authentications = loaded.peer_authentications;
    update.secrets = loaded.secrets;
    add_services(case, &mut update);
    // Istio's tests complete short names without a cluster domain.
    let options = Options { domain: "".into(), ..Options::default() };
    Ok(Snapshot::build(options, &update))
}

fn mesh_config(case: &Case) -> Result<Shared<meltemi_config::mesh::MeshConfig>, String> {
    let default = std::fs::read_to_string(folder().join("default_mesh_config.yaml")).map_err(|e| e.to_string())?;
    let mut config: Value = serde_saphyr::from_str(&default).map_err(|e| e.to_string())?;
    merge(&mut config, &case.document["mesh_config"]);
    for (key, more) in case.document["mesh_config_append"].as_object().into_iter().flatten() {
        let list = config[key].as_array_mut().ok_or("not a list")?;
        list.extend(more.as_array().into_iter().flatten().cloned());
    }
    let parsed = parse_mesh_config("mesh.yaml", &config.to_string()).map_err(|problems| format!("{problems:?}"))?;
    Ok(Shared::new(parsed.value))
}

fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(into), Value::Object(patch)) = (into, patch) else { return };
    for (key, value) in patch {
        match into.get_mut(key) {
            Some(own) if own.is_object() && value.is_object() => merge(own, value),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn objects(case: &Case) -> Result<BTreeMap<String, Object>, String> {
    let mut objects = BTreeMap::new();
    for key in ["config", "extra_configs", "kube_config"] {
        let text = case.document[key].as_str().unwrap_or_default();
        for document in parse_documents(key, text) {
            if let Some(object) = document.object {
                objects.insert(object.key().to_string(), object);
            } else if !document.is_readable() {
                return Err(format!("{:?}", document.problems));
            }
        }
    }
    Ok(objects)
}

/// Services that a case gives to the registry without Kubernetes.
fn add_services(case: &Case, update: &mut Update) {
    for service in case.document["services"].as_array().into_iter().flatten() {
        let hostname = service["hostname"].as_str().unwrap();
        let key = ServiceKey::new("default", hostname);
        let ports: Vec<Port> = service["ports"].as_array().unwrap().iter().map(port).collect();
        let instances =
            case.document["instances"].as_array().into_iter().flatten().filter(|i| i["service"] == hostname);
        let endpoints = instances.flat_map(|instance| {
            let named = ports.iter().find(|p| Some(u64::from(p.number)) == instance["service_port"].as_u64()).unwrap();
            let number = u32::try_from(instance["endpoint_port"].as_u64().unwrap()).unwrap();
            let addresses = instance["endpoint_addresses"].as_array().unwrap().iter();
            let endpoint = |address: &Value| {
                Shared::new(Endpoint {
                    address: Address::parse(address.as_str().unwrap()),
                    ports: vec![(named.name.clone(), number)],
                    namespace: "default".into(),
                    ..Endpoint::default()
                })
            };
            addresses.map(endpoint).collect::<Vec<_>>()
        });
        let shard = EndpointShard::new(key.clone(), endpoints.collect());
        let value = Service {
            hostname: hostname.into(),
            namespace: "default".into(),
            name: hostname.split('.').next().unwrap().into(),
            addresses: service["address"].as_str().map(Arc::from).into_iter().collect(),
            ports,
            resolution: Resolution::ClientSideLb,
            ..Service::default()
        };
        update.endpoints.insert(key.clone(), Some(Shared::new(shard)));
        update.services.insert(key, Some(Shared::new(value)));
    }
}

fn port(value: &Value) -> Port {
    Port {
        name: value["name"].as_str().unwrap().into(),
        number: u32::try_from(value["port"].as_u64().unwrap()).unwrap(),
        protocol: Protocol::parse(value["protocol"].as_str().unwrap()),
        target: TargetPort::Same,
    }
}

fn node(case: &Case, dialect: &str) -> Result<Node, String> {
    let proxy = &case.document["proxy"];
    let mut metadata: Map<String, Value> = proxy["metadata"].as_object().cloned().unwrap_or_default();
    let own = metadata.get("NAMESPACE").and_then(Value::as_str).map(str::to_owned);
    let namespace = proxy["config_namespace"].as_str().map(str::to_owned).or(own).unwrap_or_else(|| "default".into());
    metadata.insert("NAMESPACE".into(), json!(namespace));
    metadata.insert("ISTIO_VERSION".into(), json!("1.23.0"));
    metadata.insert("DIALECT".into(), json!(dialect));
    let mut labels = metadata.get("LABELS").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.extend(proxy["labels"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
    metadata.insert("LABELS".into(), Value::Object(labels));
    let addresses: Vec<&str> =
        proxy["ip_addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let first = addresses.first().copied().unwrap_or("1.1.1.1");
    if addresses.len() > 1 {
        metadata.insert("INSTANCE_IPS".into(), json!(addresses.join(",")));
    }
    let kind = proxy["type"].as_str().unwrap_or("sidecar");
    let description = NodeDescription {
        id: format!("{kind}~{first}~app.test~{namespace}.svc.cluster.local"),
        metadata,
        ..NodeDescription::default()
    };
    Node::new(description).map_err(|error| error.to_string())
}
