//! A mesh from documents, and its resources as JSON.

use std::sync::Arc;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Severity, parse_documents, parse_mesh_config};
use meltemi_model::{Node, NodeDescription, Options, Shared, Snapshot};
use meltemi_proto::json;
use meltemi_registry::Registry;
use meltemi_translate::{Cache, generate, type_urls};
use serde_json::{Value, json};

pub struct Mesh {
    snapshot: Snapshot,
    cache: Cache,
}

impl Mesh {
    pub fn new(documents: &str) -> Self {
        Self::with_config("{}", documents)
    }

    pub fn with_config(mesh: &str, documents: &str) -> Self {
        Self::with_options(Options::default(), mesh, documents)
    }

    pub fn with_options(options: Options, mesh: &str, documents: &str) -> Self {
        let mesh: Shared<MeshConfig> = Shared::new(parse_mesh_config("mesh", mesh).unwrap().value);
        let mut objects = Vec::new();
        for document in parse_documents("test", documents) {
            let errors: Vec<_> = document.check().into_iter().filter(|p| p.severity == Severity::Error).collect();
            assert!(errors.is_empty(), "{errors:?}");
            objects.extend(document.object);
        }
        let mut registry = Registry::default();
        let first = registry.set_mesh(&mesh);
        let snapshot = Snapshot::build(options, &first);
        let (snapshot, _) = snapshot.next(&registry.load(&objects));
        Self { snapshot, cache: Cache::default() }
    }

    /// The named resource for the node; names exist or the test fails.
    pub fn resource(&self, node: &Node, type_url: &str, name: &str) -> Value {
        self.find(node, type_url, name).unwrap_or_else(|| panic!("no {name} among {:?}", self.names(node, type_url)))
    }

    pub fn find(&self, node: &Node, type_url: &str, name: &str) -> Option<Value> {
        let named = [Arc::from(name)];
        let found = generate(&self.snapshot, node, type_url, Some(&named), &self.cache);
        found.first().map(|resource| json::any_to_value(&resource.body, json::Secrets::Shown))
    }

    /// As a wildcard subscription gets it.
    pub fn all(&self, node: &Node, type_url: &str, name: &str) -> Value {
        let all = generate(&self.snapshot, node, type_url, None, &self.cache);
        let found = all.iter().find(|resource| *resource.name == *name).unwrap_or_else(|| panic!("no {name}"));
        json::any_to_value(&found.body, json::Secrets::Shown)
    }

    pub fn names(&self, node: &Node, type_url: &str) -> Vec<String> {
        let all = generate(&self.snapshot, node, type_url, None, &self.cache);
        all.iter().map(|resource| resource.name.to_string()).collect()
    }

    pub fn listener(&self, node: &Node, name: &str) -> Value {
        self.resource(node, type_urls::LISTENER, name)
    }

    /// The routes of the virtual host that has a domain.
    pub fn routes(&self, node: &Node, configuration: &str, domain: &str) -> Vec<Value> {
        let config = self.resource(node, type_urls::ROUTE, configuration);
        let hosts = config["virtual_hosts"].as_array().unwrap();
        let has = |host: &&Value| host["domains"].as_array().unwrap().contains(&json!(domain));
        let host = hosts.iter().find(has).unwrap_or_else(|| panic!("no domain {domain} in {config}"));
        host["routes"].as_array().cloned().unwrap_or_default()
    }
}

pub fn node(kind: &str, metadata: Value) -> Node {
    let mut metadata = metadata.as_object().cloned().unwrap();
    metadata.entry("DIALECT").or_insert(json!("istio-proxy"));
    metadata.entry("NAMESPACE").or_insert(json!("default"));
    let id = format!("{kind}~10.0.0.1~client.default~default.svc.cluster.local");
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap()
}

pub fn sidecar() -> Node {
    node("sidecar", json!({"LABELS": {"app": "client"}}))
}

/// A Service of namespace `default` with one port.
pub fn service(name: &str, address: &str, port: u16, port_name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{clusterIP: {address}, ports: [{{name: {port_name}, port: {port}}}], selector: {{app: {name}}}}}\n"
    )
}

/// A VirtualService for service `a`, from the YAML of its spec beyond `hosts`.
pub fn rule(spec: &str) -> String {
    let indented = spec.replace('\n', "\n  ");
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: r, namespace: default}}\n\
         spec:\n  hosts: [a]\n  {indented}\n"
    )
}

/// What a path leads to: fields by name, list entries by number.
pub fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, part| match part.parse::<usize>() {
        Ok(index) => &value[index],
        Err(_) => &value[part],
    })
}
