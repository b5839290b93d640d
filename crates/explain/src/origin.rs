//! Which document made a resource, and on which line of which file.
//!
//! The resources themselves say which object they come from (Istio's `filter_metadata.istio.config`), the documents know
//! their lines. Which rule of a VirtualService made a route is found by comparing the two, since nothing that is sent says so.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_config::networking::Server;
use meltemi_config::security::PeerAuthentication;
use meltemi_config::{Document, IntOrString, Key, Kind, Object, Source, Spec, Str};
use meltemi_model::Labels;
use meltemi_plan::Metadata;
use serde_json::{Value, json};

mod made;
pub mod rule;

/// A place in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub key: Key,
    /// `spec.http[1]`; empty for the whole object.
    pub path: String,
    /// Where it is written, if that is known.
    pub source: Option<Source>,
}

impl Place {
    /// `VirtualService shop/catalog spec.http[1]`.
    pub fn title(&self) -> String {
        if self.path.is_empty() { self.key.to_string() } else { format!("{} {}", self.key, self.path) }
    }

    pub fn json(&self) -> Value {
        json!({
            "kind": self.key.kind.as_str(),
            "namespace": &*self.key.namespace,
            "name": &*self.key.name,
            "path": self.path,
            "file": self.source.as_ref().map(|source| source.file.to_string()),
            "line": self.source.as_ref().map(|source| source.line),
        })
    }
}

/// All objects with their documents, where those are at hand.
#[derive(Debug, Default)]
pub struct Origins {
    objects: BTreeMap<Key, Object>,
    documents: BTreeMap<Key, Document>,
    /// What the control plane made of the Gateway API, and of which objects.
    made: BTreeMap<Key, Vec<Key>>,
    listeners: Vec<made::MadeListener>,
}

impl Origins {
    /// Of two documents of one object the later one counts, as in a store.
    pub fn of_documents(documents: impl IntoIterator<Item = Document>) -> Self {
        let mut origins = Self::default();
        for document in documents {
            if let Some(object) = &document.object {
                origins.objects.insert(object.key(), object.clone());
                origins.documents.insert(object.key(), document);
            }
        }
        origins
    }

    /// Objects that know where they were written but have no document.
    pub fn add_objects(&mut self, objects: impl IntoIterator<Item = Object>) {
        for object in objects {
            self.objects.insert(object.key(), object);
        }
    }

    /// The files that objects without a document say they were written in.
    pub fn files(&self) -> BTreeSet<Str> {
        let without = self.objects.iter().filter(|(key, _)| !self.documents.contains_key(key));
        without.filter_map(|(_, object)| Some(object.meta.source.as_ref()?.file.clone())).collect()
    }

    /// Gives objects their documents, where these still say the same.
    pub fn attach(&mut self, documents: impl IntoIterator<Item = Document>) {
        for document in documents {
            let Some(object) = &document.object else { continue };
            let key = object.key();
            if self.objects.get(&key).is_some_and(|own| own.spec == object.spec) {
                self.documents.entry(key).or_insert(document);
            }
        }
    }

    pub fn object(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.values().filter(move |object| object.kind() == kind)
    }

    /// A place in an object; none if there is no such object.
    pub fn place(&self, key: &Key, path: &str) -> Option<Place> {
        let Some(object) = self.objects.get(key) else {
            return self.place(self.made.get(key)?.first()?, "");
        };
        let line = self.documents.get(key).map(|document| document.line_of(path));
        let source = object.meta.source.clone();
        let source = source.map(|source| Source { line: line.unwrap_or(source.line), ..source });
        Some(Place { key: key.clone(), path: path.to_owned(), source })
    }

    /// The object that a resource says it comes from.
    pub fn of_metadata(&self, metadata: Option<&Metadata>) -> Option<Key> {
        let path = metadata?.value("istio", &["config"])?.as_str()?;
        let mut parts = path.strip_prefix("/apis/")?.split('/').skip(2);
        let (_, namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let kind = match kind {
            "virtual-service" => Kind::VirtualService,
            "destination-rule" => Kind::DestinationRule,
            _ => return None,
        };
        Some(Key::new(kind, namespace, name))
    }

    /// What shaped a cluster: the DestinationRule that it names, at its subset or its policy.
    pub fn of_cluster(&self, cluster: &meltemi_plan::Cluster) -> Option<Place> {
        let key = self.of_metadata(Some(&cluster.metadata))?;
        let subset = cluster.metadata.value("istio", &["subset"]).and_then(Value::as_str);
        let Some(Spec::DestinationRule(rule)) = self.objects.get(&key).map(|object| &object.spec) else {
            return self.place(&key, "");
        };
        let position = subset.and_then(|subset| rule.subsets.iter().position(|own| *own.name == *subset));
        let path = match position {
            Some(index) => format!("spec.subsets[{index}]"),
            None if rule.traffic_policy.is_some() => "spec.trafficPolicy".to_owned(),
            None => String::new(),
        };
        self.place(&key, &path)
    }

    /// The Service or ServiceEntry of a host.
    pub fn of_host(&self, host: &str) -> Option<Place> {
        let mut labels = host.split('.');
        let (name, namespace) = (labels.next()?, labels.next()?);
        if labels.next() == Some("svc") {
            let key = Key::new(Kind::Service, namespace, name);
            if self.objects.contains_key(&key) {
                return self.place(&key, "");
            }
        }
        let entry = self.of_kind(Kind::ServiceEntry).find(|object| match &object.spec {
            Spec::ServiceEntry(entry) => entry.hosts.iter().any(|own| **own == *host),
            _ => false,
        });
        self.place(&entry?.key(), "")
    }
}

impl Origins {
    /// The PeerAuthentication that counts for a workload: one that selects it, else the namespace's, else the mesh's.
    pub fn peer_authentication(&self, namespace: &str, root: &str, labels: &Labels) -> Option<Place> {
        let policies: Vec<(&Object, &PeerAuthentication)> = self
            .of_kind(Kind::PeerAuthentication)
            .filter_map(|object| match &object.spec {
                Spec::PeerAuthentication(policy) => Some((object, &**policy)),
                _ => None,
            })
            .collect();
        let selector = |policy: &PeerAuthentication| {
            let selector = policy.selector.as_ref().map(|selector| &selector.match_labels);
            selector.filter(|wanted| !wanted.is_empty()).cloned()
        };
        let selected = |(object, policy): &&(&Object, &PeerAuthentication)| {
            let own = *object.meta.namespace == *namespace && namespace != root;
            own && selector(policy)
                .is_some_and(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)))
        };
        let wide = |of: &str| {
            policies.iter().find(|(object, policy)| *object.meta.namespace == *of && selector(policy).is_none())
        };
        let found = policies.iter().find(selected).or_else(|| wide(namespace)).or_else(|| wide(root))?;
        self.place(&found.0.key(), "spec.mtls")
    }

    /// The Gateways whose servers a gateway with these labels has on a port of its own: that port, or the one that its Service
    /// maps to it.
    pub fn gateways(&self, labels: &Labels, port: u16) -> Vec<Place> {
        let mapped = self.ports_of(labels, port);
        let mut places = Vec::new();
        for object in self.of_kind(Kind::Gateway) {
            let Spec::Gateway(gateway) = &object.spec else { continue };
            if !gateway.selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                continue;
            }
            let on_port =
                |(_, server): &(usize, &Server)| server.port.as_ref().is_some_and(|own| mapped.contains(&own.number));
            let servers = gateway.servers.iter().enumerate().filter(on_port);
            places
                .extend(servers.filter_map(|(index, _)| self.place(&object.key(), &format!("spec.servers[{index}]"))));
        }
        places.extend(self.listeners(labels, &mapped));
        places
    }

    /// A workload's port, and the ports of Services that lead to it.
    fn ports_of(&self, labels: &Labels, port: u16) -> Vec<u32> {
        let mut ports = vec![u32::from(port)];
        for object in self.of_kind(Kind::Service) {
            let Spec::Service(service) = &object.spec else { continue };
            let selector = &service.spec.selector;
            if selector.is_empty() || !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                continue;
            }
            let leads = service.spec.ports.iter().filter(|own| match &own.target_port {
                Some(IntOrString::Int(target)) => *target == i32::from(port),
                Some(IntOrString::Text(_)) | None => false,
            });
            ports.extend(leads.map(|own| own.port));
        }
        ports
    }
}
