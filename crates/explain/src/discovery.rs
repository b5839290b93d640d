//! A running control plane's debug pages as a mesh: what its proxies are sent, and the documents behind it.
//!
//! Owns the reading of the pages, which are istiod's: `/debug/syncz`, `/debug/config_dump`, `/debug/configz`, `/debug/registryz`
//! and `/debug/mesh`. Never fetches; the caller does. Our own discovery also tells of Kubernetes documents
//! (`/debug/configz?kinds=all`), so that a mesh can be built anew from what is in force.

use std::sync::Arc;

use meltemi_config::{Kind, Meta, Object, Shape, Source, parse_documents};
use meltemi_proto::json::any_from_value;
use serde_json::{Map, Value, json};

use crate::mesh::{File, Mesh, MeshError};
use crate::sent::Sent;

/// Why the pages do not tell what is asked.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error("{page}: {reason}")]
    Page { page: String, reason: String },
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Gets a page by its path, such as `/debug/syncz`.
pub type Pages<'a> = &'a dyn Fn(&str) -> Result<Value, String>;

/// A connected proxy, as `/debug/syncz` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// `sidecar~10.244.0.5~catalog-v1-x.shop~shop.svc.cluster.local`.
    pub id: String,
    pub kind: String,
    pub pod: String,
    pub namespace: String,
}

fn page(pages: Pages<'_>, path: &str) -> Result<Value, DiscoveryError> {
    pages(path).map_err(|reason| DiscoveryError::Page { page: path.to_owned(), reason })
}

/// All connected proxies.
pub fn connected(pages: Pages<'_>) -> Result<Vec<Connected>, DiscoveryError> {
    let list = page(pages, "/debug/syncz")?;
    let one = |status: &Value| {
        // Istiod calls a proxy by its pod and namespace, ours by its node id as well.
        let id = status["proxy_id"].as_str().or(status["proxy"].as_str())?;
        let name = status["proxy"].as_str().unwrap_or(id);
        let (pod, namespace) = name.split_once('.')?;
        let kind = id.split('~').next().filter(|_| id.contains('~'));
        let kind = kind.or(status["proxy_type"].as_str()).unwrap_or("sidecar");
        Some(Connected {
            id: id.to_owned(),
            kind: kind.to_owned(),
            pod: pod.to_owned(),
            namespace: namespace.to_owned(),
        })
    };
    Ok(list.as_array().into_iter().flatten().filter_map(one).collect())
}

/// What a connected proxy is sent.
pub fn sent(pages: Pages<'_>, proxy: &Connected) -> Result<Sent, DiscoveryError> {
    let path = format!("/debug/config_dump?proxyID={}", proxy.id);
    let dump = page(pages, &path)?;
    of_dump(&dump).map_err(|reason| DiscoveryError::Page { page: path, reason })
}

/// The resources in a config dump, of a control plane or of Envoy.
pub fn of_dump(dump: &Value) -> Result<Sent, String> {
    let mut sent = Sent::default();
    let sections = dump["configs"].as_array().ok_or("not a config dump: it has no `configs`")?;
    let lists = |section: &Value, keys: &[&str]| -> Vec<Value> {
        keys.iter().flat_map(|key| section[*key].as_array().cloned().unwrap_or_default()).collect()
    };
    for section in sections {
        for entry in lists(section, &["static_listeners", "dynamic_listeners"]) {
            let active = if entry["active_state"].is_object() { &entry["active_state"] } else { &entry };
            let (name, body) = resource(&active["listener"], "name")?;
            sent.add_listener(name, body);
        }
        for entry in lists(section, &["static_route_configs", "dynamic_route_configs"]) {
            let (name, body) = resource(&entry["route_config"], "name")?;
            sent.add_route(name, body);
        }
        for entry in lists(section, &["static_clusters", "dynamic_active_clusters"]) {
            let (name, body) = resource(&entry["cluster"], "name")?;
            sent.add_cluster(name, body);
        }
        for entry in lists(section, &["static_endpoint_configs", "dynamic_endpoint_configs"]) {
            let (name, body) = resource(&entry["endpoint_config"], "cluster_name")?;
            sent.add_assignment(name, body);
        }
    }
    Ok(sent)
}

fn resource(value: &Value, key: &str) -> Result<(Arc<str>, Arc<meltemi_proto::Any>), String> {
    let camel = if key == "cluster_name" { "clusterName" } else { key };
    let name = value[key].as_str().or(value[camel].as_str()).unwrap_or_default();
    let body = any_from_value(value).map_err(|error| format!("{name}: {error}"))?;
    Ok((name.into(), Arc::new(body)))
}

/// The documents in force as one file of JSON documents, each with where it was written; and the mesh configuration.
pub struct InForce {
    documents: Vec<(Value, Option<Source>)>,
    mesh_config: File,
    /// Kubernetes documents are among them.
    pub is_whole: bool,
}

/// Reads what is in force.
pub fn in_force(pages: Pages<'_>) -> Result<InForce, DiscoveryError> {
    let list = page(pages, "/debug/configz?kinds=all")?;
    let documents: Vec<(Value, Option<Source>)> = list.as_array().into_iter().flatten().map(document).collect();
    let is_whole = documents.iter().any(|(document, _)| document["kind"] == "Service");
    let mesh = page(pages, "/debug/mesh")?;
    Ok(InForce { documents, mesh_config: ("/debug/mesh".to_owned(), mesh.to_string()), is_whole })
}

/// An entry of the page in the form of a document.
fn document(entry: &Value) -> (Value, Option<Source>) {
    let mut metadata = entry["metadata"].as_object().cloned().unwrap_or_default();
    let source = metadata.shift_remove("source");
    let source = source.and_then(|text| {
        let (file, line) = text.as_str()?.rsplit_once(':')?;
        Some(Source { file: file.into(), line: line.parse().ok()? })
    });
    let mut document = Map::new();
    for key in ["apiVersion", "kind"] {
        document.insert(key.to_owned(), entry[key].clone());
    }
    document.insert("metadata".to_owned(), Value::Object(metadata));
    let group = entry["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let kind = entry["kind"].as_str().and_then(|name| Kind::find(group, name));
    match (&entry["spec"], kind.map(|kind| kind.info().shape)) {
        (Value::Object(fields), Some(Shape::Document)) => document.extend(fields.clone()),
        (Value::Null, _) => {}
        (spec, _) => drop(document.insert("spec".to_owned(), spec.clone())),
    }
    (Value::Object(document), source)
}

impl InForce {
    /// The mesh that these documents are, with `over` applied on them: a document there takes the place of the one with its
    /// name.
    pub fn mesh(&self, over: &[File], mesh_config: Option<&File>) -> Result<Mesh, DiscoveryError> {
        let list: Vec<&Value> = self.documents.iter().map(|(document, _)| document).collect();
        let text = json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string();
        let mut documents = parse_documents("/debug/configz", &text);
        for (document, (_, source)) in documents.iter_mut().zip(&self.documents) {
            if let (Some(object), Some(source)) = (&mut document.object, source) {
                let meta = Meta { source: Some(source.clone()), ..(*object.meta).clone() };
                *object = Object::new(meta, object.spec.clone());
            }
        }
        let over = over.iter().flat_map(|(name, text)| parse_documents(name, text)).collect();
        Ok(Mesh::of_running(documents, over, mesh_config.unwrap_or(&self.mesh_config))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = include_str!("../../../samples/shop/services.yaml");

    fn shop() -> Mesh {
        Mesh::read(&[("services.yaml".to_owned(), SERVICES.to_owned())], None).unwrap()
    }

    #[test]
    fn a_config_dump_has_what_was_sent() {
        let mesh = shop();
        let sent = mesh.sent(mesh.proxies.iter().find_map(|proxy| proxy.node.as_ref()).unwrap());
        let listeners =
            sent.listeners.iter().map(|own| json!({"name": *own.name, "active_state": {"listener": own.json()}}));
        let routes = sent.routes.iter().map(|own| json!({"route_config": own.json()}));
        let clusters = sent.clusters.iter().map(|own| json!({"cluster": own.json()}));
        let endpoints = sent.assignments.iter().map(|own| json!({"endpoint_config": own.json()}));
        let dump = json!({"configs": [
            {"dynamic_listeners": listeners.collect::<Vec<_>>()},
            {"dynamic_route_configs": routes.collect::<Vec<_>>()},
            {"dynamic_active_clusters": clusters.collect::<Vec<_>>()},
            {"dynamic_endpoint_configs": endpoints.collect::<Vec<_>>()},
        ]});
        let read = of_dump(&dump).unwrap();
        assert!(!read.listeners.is_empty() && read.refusals().is_empty(), "{:?}", read.refusals());
        assert!(crate::diff::Compared::default().resources(&sent.bodies(), &read.bodies()).is_empty());
        assert!(of_dump(&json!({})).is_err());
    }

    #[test]
    fn proxies_are_those_that_istiod_or_we_list() {
        let page = json!([
            {"proxy": "web-1.shop", "proxy_id": "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"},
            {"proxy": "edge.istio-system", "proxy_type": "router"},
        ]);
        let found = connected(&|_| Ok(page.clone())).unwrap();
        let titles: Vec<String> =
            found.iter().map(|own| format!("{} {} {}", own.kind, own.pod, own.namespace)).collect();
        assert_eq!(titles, ["sidecar web-1 shop", "router edge istio-system"]);
        assert_eq!(found[1].id, "edge.istio-system");
    }

    #[test]
    fn documents_in_force_are_a_mesh_again_with_changes_over_them() {
        let entry = |kind: &str, version: &str, name: &str, spec: Value| {
            json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop", "source": "a.yaml:7"},
                "spec": spec})
        };
        let service = entry(
            "Service",
            "v1",
            "web",
            json!({"spec": {"clusterIP": "10.1.2.3", "ports": [{"port": 80, "name": "http"}]}}),
        );
        let rule = entry(
            "VirtualService",
            "networking.istio.io/v1",
            "web",
            json!({"hosts": ["web"], "http": [{"name": "one", "route": [{"destination": {"host": "web"}}]}]}),
        );
        let pages = |path: &str| match path {
            "/debug/mesh" => Ok(json!({})),
            _ => Ok(json!([service, rule])),
        };
        let in_force = in_force(&pages).unwrap();
        assert!(in_force.is_whole);
        let key = meltemi_config::Key::new(Kind::VirtualService, "shop", "web");
        let mesh = in_force.mesh(&[], None).unwrap();
        let place = mesh.origins.place(&key, "spec.http[0]").unwrap();
        assert_eq!(place.source.unwrap().to_string(), "a.yaml:7");
        let over = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web, namespace: shop}\nspec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}}]\n";
        let mesh = in_force.mesh(&[("over.yaml".to_owned(), over.to_owned())], None).unwrap();
        let place = mesh.origins.place(&key, "spec.http[0]").unwrap();
        assert_eq!(place.source.unwrap().to_string(), "over.yaml:7");
        assert_eq!(mesh.services.len(), 1);
    }
}
