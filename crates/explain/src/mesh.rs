//! A mesh from documents: what the control plane would make of them, and every proxy that it would serve.

use std::collections::BTreeMap;

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Document, Key, Kind, Object, Problem, Severity, Spec, parse_documents, parse_mesh_config};
use meltemi_model::{Labels, Node, Options, ServiceKey, Shared, Snapshot};
use meltemi_registry::Registry;
use meltemi_translate::Cache;

use crate::fill;
use crate::names::{self, KnownService};
use crate::origin::Origins;
use crate::proxies::{self, Proxy};
use crate::sent::{Bodies, Sent};

/// Why there is no mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("the mesh configuration is wrong:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
    MeshConfig(Vec<Problem>),
    #[error("pod: {0}")]
    Node(#[from] meltemi_model::NodeError),
}

/// A file's name and text.
pub type File = (String, String);

pub struct Mesh {
    pub snapshot: Snapshot,
    pub proxies: Vec<Proxy>,
    pub origins: Origins,
    pub services: Vec<KnownService>,
    /// What is worth knowing of how the documents were read.
    pub notes: Vec<String>,
    /// Documents that the control plane would refuse, and why. They are not in force.
    pub refused: Vec<Problem>,
    cache: Cache,
}

impl Mesh {
    /// Reads documents. `mesh_config` is a file's content; without it the ConfigMap `istio` counts, as in a cluster.
    pub fn read(files: &[File], mesh_config: Option<&File>) -> Result<Self, MeshError> {
        let documents: Vec<Document> = files.iter().flat_map(|(name, text)| parse_documents(name, text)).collect();
        Self::build(BTreeMap::new(), documents, mesh_config)
    }

    /// What runs, with documents applied over it. Lines are known of the latter only.
    pub(crate) fn of_running(
        running: Vec<Document>,
        over: Vec<Document>,
        mesh_config: &File,
    ) -> Result<Self, MeshError> {
        let objects = running.into_iter().filter_map(|document| document.object);
        Self::build(objects.map(|object| (object.key(), object)).collect(), over, Some(mesh_config))
    }

    fn build(
        mut objects: BTreeMap<Key, Object>,
        documents: Vec<Document>,
        mesh_config: Option<&File>,
    ) -> Result<Self, MeshError> {
        let mut refused = Vec::new();
        let mut accepted = Vec::new();
        for document in documents {
            let errors = document.check_meaning().into_iter().filter(|problem| problem.severity == Severity::Error);
            let before = refused.len();
            refused.extend(errors);
            if refused.len() == before {
                accepted.push(document);
            }
        }
        let own = accepted.iter().filter_map(|document| document.object.clone());
        objects.extend(own.map(|object| (object.key(), object)));
        let config = settings(&objects, mesh_config)?;
        let filled = fill::fill(objects.into_values().collect());
        let proxies = proxies::of_objects(&filled.objects, &Options::default().domain)?;
        let snapshot = snapshot(&filled.objects, config);
        let mut origins = Origins::of_documents(accepted);
        let added: Vec<Object> =
            filled.objects.iter().filter(|object| origins.object(&object.key()).is_none()).cloned().collect();
        origins.add_objects(added);
        origins.add_made(&snapshot);
        let services = names::of_snapshot(&snapshot);
        Ok(Self { services, snapshot, proxies, origins, notes: filled.notes, refused, cache: Cache::default() })
    }

    /// What a proxy would be sent.
    pub fn sent(&self, node: &Node) -> Sent {
        Sent::generate(&self.snapshot, node, &self.cache, &[])
    }

    /// As [`Mesh::sent`], to be compared only.
    pub fn bodies(&self, node: &Node) -> Bodies {
        Bodies::generate(&self.snapshot, node, &self.cache)
    }

    /// The port of the workload at an address to which a service leads that has this port.
    pub fn target_port(&self, address: std::net::IpAddr, port: u16) -> Option<u16> {
        let address = address.to_string();
        let services = self.snapshot.services_at(&address);
        services.iter().find_map(|key| {
            let service = self.snapshot.services.get(key)?;
            let name = &service.ports.iter().find(|own| own.number == u32::from(port))?.name;
            let endpoints = self.snapshot.endpoints.of(key);
            let own = endpoints.iter().find(|endpoint| endpoint.address.to_string() == address)?;
            u16::try_from(own.port(name)?).ok()
        })
    }

    /// What the sidecar of the workload at an address is sent; none where there is no sidecar.
    pub fn sent_at(&self, address: std::net::IpAddr) -> Option<Sent> {
        self.sidecar_at(address).map(|node| self.sent(node))
    }

    /// The sidecar of the workload at an address.
    pub fn sidecar_at(&self, address: std::net::IpAddr) -> Option<&Node> {
        let address = address.to_string();
        let nodes = self.proxies.iter().filter_map(|proxy| proxy.node.as_ref());
        let mut sidecars = nodes.filter(|node| node.is_sidecar());
        sidecars.find(|node| node.ip_addresses.first().is_some_and(|own| **own == *address))
    }

    /// An address that clients of a headless service may get for its name.
    pub fn address_of_headless(&self, service: &KnownService) -> Option<std::net::IpAddr> {
        let key = ServiceKey::new(service.namespace.as_str(), service.hostname.as_str());
        self.snapshot.services.get(&key).filter(|service| service.headless)?;
        self.snapshot.endpoints.of(&key).iter().find_map(|endpoint| endpoint.address.to_string().parse().ok())
    }

    /// Name, namespace and selector of every Service.
    pub fn selectors(&self) -> Vec<(String, String, Labels)> {
        let services = self.origins.of_kind(Kind::Service).filter_map(|object| match &object.spec {
            Spec::Service(service) => Some((&object.meta, service)),
            _ => None,
        });
        services
            .map(|(meta, service)| (meta.name.to_string(), meta.namespace.to_string(), service.spec.selector.clone()))
            .collect()
    }
}

fn settings(objects: &BTreeMap<Key, Object>, file: Option<&File>) -> Result<MeshConfig, MeshError> {
    let map = objects.get(&Key::mesh_config_map()).and_then(Object::mesh_config);
    let (name, text) = match (file, map) {
        (Some((name, text)), _) => (name.as_str(), text.as_str()),
        (None, Some(text)) => ("ConfigMap istio-system/istio", text),
        (None, None) => return Ok(MeshConfig::default()),
    };
    parse_mesh_config(name, text).map(|settings| settings.value).map_err(MeshError::MeshConfig)
}

fn snapshot(objects: &[Object], config: MeshConfig) -> Snapshot {
    let mesh = Shared::new(config);
    let mut registry = Registry::default();
    registry.set_mesh(&mesh);
    let mut update = registry.load(objects);
    update.mesh = Some(mesh);
    Snapshot::build(Options::default(), &update)
}
