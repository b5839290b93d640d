//! A case's mesh: its documents as a snapshot, its proxy as a node, and what that node is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Object, parse_documents, parse_mesh_config};
use meltemi_model::{
    Address, Endpoint, EndpointShard, Node, NodeDescription, Options, Port, Protocol, Resolution, Service, ServiceKey,
    Shared, Snapshot, TargetPort, Update,
};
use meltemi_registry::Registry;
use meltemi_translate::Cache;
use serde_json::{Map, Value, json};

use super::read::{Case, CaseError, Expected, text_of};
use crate::sent::Sent;

/// For which proxy the resources are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Ours, and Istio's build of Envoy.
    #[default]
    IstioProxy,
    /// Envoy as it comes.
    Envoy,
}

impl Dialect {
    /// What the node calls it in its metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::IstioProxy => "istio-proxy",
            Self::Envoy => "envoy",
        }
    }
}

/// What the proxy of a case is sent.
#[derive(Debug)]
pub struct MeshOfCase {
    pub sent: Sent,
}

impl MeshOfCase {
    pub fn build(case: &Case, dialect: Dialect) -> Result<Self, CaseError> {
        let wrong = |reason: String| CaseError::new(&case.file, reason);
        let snapshot = snapshot(case).map_err(wrong)?;
        let node = node(case, dialect).map_err(wrong)?;
        let routes = match &case.expected {
            Expected::VirtualHosts { route, .. } => vec![route.as_str()],
            _ => Vec::new(),
        };
        Ok(Self { sent: Sent::generate(&snapshot, &node, &Cache::default(), &routes) })
    }
}

fn snapshot(case: &Case) -> Result<Snapshot, String> {
    let mesh = mesh_config(&case.document)?;
    let mut registry = Registry::default();
    let changed = registry.set_mesh(&mesh);
    let loaded = registry.load(objects(case)?.values());
    let mut update = Update { mesh: changed.mesh, ..loaded };
    add_services(&case.document, &mut update)?;
    // Istio's tests complete short names without a cluster domain.
    let options = Options { domain: "".into(), ..Options::default() };
    Ok(Snapshot::build(options, &update))
}

/// The defaults with a case's patch over them (RFC 7396), and what it appends to their lists.
pub(crate) fn mesh_config(document: &Value) -> Result<Shared<MeshConfig>, String> {
    let mut config = serde_json::to_value(MeshConfig::default()).map_err(|error| error.to_string())?;
    merge(&mut config, &document["mesh_config"]);
    for (key, more) in document["mesh_config_append"].as_object().into_iter().flatten() {
        if config[key].is_null() {
            config[key] = json!([]);
        }
        let list = config[key].as_array_mut().ok_or_else(|| format!("mesh_config_append.{key}: not a list"))?;
        list.extend(more.as_array().into_iter().flatten().cloned());
    }
    let shown = |problems: Vec<meltemi_config::Problem>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let parsed = parse_mesh_config("mesh_config", &config.to_string()).map_err(shown)?;
    Ok(Shared::new(parsed.value))
}

/// JSON merge patch.
pub(crate) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return };
    let Value::Object(into) = into else { return };
    for (key, value) in patch {
        if value.is_null() {
            into.remove(key);
        } else if value.is_object() {
            let own = into.entry(key.clone()).or_insert_with(|| json!({}));
            if !own.is_object() {
                *own = json!({});
            }
            merge(own, value);
        } else {
            into.insert(key.clone(), value.clone());
        }
    }
}

fn objects(case: &Case) -> Result<BTreeMap<Key, Object>, String> {
    let mut objects = BTreeMap::new();
    for key in ["config", "extra_configs", "kube_config"] {
        let text = match &case.document[key] {
            Value::String(text) => text.clone(),
            Value::Array(list) => list.iter().map(text_of).collect::<Vec<_>>().join("\n---\n"),
            _ => continue,
        };
        for document in parse_documents(key, &text) {
            if let Some(object) = document.object {
                objects.insert(object.key(), object);
            } else if !document.is_readable() {
                return Err(document.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
            }
        }
    }
    Ok(objects)
}

/// Services that a case gives to the registry without Kubernetes.
fn add_services(document: &Value, update: &mut Update) -> Result<(), String> {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let instances = list(&document["instances"]);
    for service in list(&document["services"]) {
        let hostname = text_of(&service["hostname"]);
        let key = ServiceKey::new("default", hostname.as_str());
        let ports: Vec<Port> = list(&service["ports"]).iter().map(port).collect();
        let own = instances.iter().filter(|instance| instance["service"] == *hostname);
        let endpoints = own.map(|instance| endpoints(instance, &ports)).collect::<Result<Vec<_>, _>>()?;
        let shard = EndpointShard::new(key.clone(), endpoints.into_iter().flatten().collect());
        let value = Service {
            hostname: hostname.as_str().into(),
            namespace: "default".into(),
            name: hostname.split('.').next().unwrap_or_default().into(),
            addresses: service["address"].as_str().map(Arc::from).into_iter().collect(),
            ports,
            resolution: Resolution::ClientSideLb,
            ..Service::default()
        };
        update.endpoints.insert(key.clone(), Some(Shared::new(shard)));
        update.services.insert(key, Some(Shared::new(value)));
    }
    Ok(())
}

fn endpoints(instance: &Value, ports: &[Port]) -> Result<Vec<Shared<Endpoint>>, String> {
    let named = ports.iter().find(|port| Some(u64::from(port.number)) == instance["service_port"].as_u64());
    let port = named.ok_or("instances: a service_port that the service does not have")?;
    let number = number(&instance["endpoint_port"]);
    let addresses = instance["endpoint_addresses"].as_array().into_iter().flatten();
    let endpoint = |address: &Value| {
        Shared::new(Endpoint {
            address: Address::parse(&text_of(address)),
            ports: vec![(port.name.clone(), number)],
            namespace: "default".into(),
            ..Endpoint::default()
        })
    };
    Ok(addresses.map(endpoint).collect())
}

fn number(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

fn port(value: &Value) -> Port {
    Port {
        name: text_of(&value["name"]).into(),
        number: number(&value["port"]),
        protocol: Protocol::parse(&text_of(&value["protocol"])),
        target: TargetPort::Same,
    }
}

fn node(case: &Case, dialect: Dialect) -> Result<Node, String> {
    let proxy = &case.document["proxy"];
    let mut metadata: Map<String, Value> = proxy["metadata"].as_object().cloned().unwrap_or_default();
    let own = metadata.get("NAMESPACE").and_then(Value::as_str).map(str::to_owned);
    let namespace = proxy["config_namespace"].as_str().map(str::to_owned).or(own).unwrap_or_else(|| "default".into());
    metadata.insert("NAMESPACE".into(), json!(namespace));
    metadata.entry("ISTIO_VERSION").or_insert_with(|| json!("1.23.0"));
    metadata.insert("DIALECT".into(), json!(dialect.name()));
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
    let name = proxy["id"].as_str().unwrap_or("app.test");
    let domain = proxy["dns_domain"].as_str().map_or_else(|| format!("{namespace}.svc.cluster.local"), str::to_owned);
    let description =
        NodeDescription { id: format!("{kind}~{first}~{name}~{domain}"), metadata, ..NodeDescription::default() };
    Node::new(description).map_err(|error| format!("proxy: {error}"))
}
