//! What many sidecars have in common, generated once.
//!
//! Owns [`Facets`]: all of a sidecar that its outbound listeners and its routes can depend on. They are generated for a node
//! made from the facets alone, so that two sidecars with equal facets get the same resources by construction; replicas of one
//! workload have equal facets. Remembered for one state of the mesh. A hit costs a hash of the facets instead of a walk over
//! all services in sight, which is what keeps a push to a thousand proxies cheap.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use meltemi_config::Str;
use meltemi_config::mesh::MeshConfig;
use meltemi_model::destination_rule::DestinationRuleIndex;
use meltemi_model::virtual_service::VirtualServiceIndex;
use meltemi_model::{Labels, Node, NodeKind, ResilienceIndex, ServiceIndex, Shared, Snapshot};
use serde_json::{Map, Value};

use crate::dialect::Dialect;
use crate::generator::Resource;

/// Metadata that shows in outbound listeners or in routes.
const METADATA: [&str; 18] = [
    "CLUSTER_ID",
    "DNS_AUTO_ALLOCATE",
    "DNS_CAPTURE",
    "DNS_PROXY_ADDR",
    "HTTP10",
    "HTTP_PROXY_PORT",
    "IDLE_TIMEOUT",
    "INTERCEPTION_MODE",
    "ISTIO_DUAL_STACK",
    "MESH_ID",
    "NAMESPACE",
    "NETWORK",
    "ON_DEMAND",
    "OUTBOUND_LISTENER_EXACT_BALANCE",
    "PROXY_CONFIG",
    "SERVICE_ACCOUNT",
    "UNPRIVILEGED_POD",
    "WORKLOAD_NAME",
];

/// Sets of resources remembered for one state of the mesh.
const MAX_BATCHES: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Facets {
    namespace: Arc<str>,
    dns_domain: Arc<str>,
    labels: Labels,
    dialect: Dialect,
    v4: bool,
    v6: bool,
    /// Only where nothing else names the workload.
    name: Arc<str>,
    /// As JSON, so that it has a hash.
    metadata: String,
}

/// What of the labels may show in the resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelUse {
    /// Listeners: the workload's names are in its trace tags.
    All,
    /// Routes: selectors alone.
    Selectors,
}

impl Facets {
    /// `None` where the node is no sidecar, or has resources of its own kind.
    pub fn of(node: &Node, labels: LabelUse, selected: &BTreeSet<Str>) -> Option<Self> {
        let dialect = Dialect::of(node);
        if node.kind != NodeKind::Sidecar || dialect == Dialect::Grpc {
            return None;
        }
        let metadata: Map<String, Value> = METADATA
            .iter()
            .filter_map(|key| node.metadata.get(*key).map(|value| ((*key).to_owned(), value.clone())))
            .collect();
        let kept = |key: &Arc<str>| labels == LabelUse::All || selected.contains(key);
        let named = metadata.contains_key("WORKLOAD_NAME") || labels == LabelUse::Selectors;
        Some(Self {
            namespace: node.namespace.clone(),
            dns_domain: node.dns_domain.clone(),
            labels: node.labels.iter().filter(|(key, _)| kept(key)).map(|(k, v)| (k.clone(), v.clone())).collect(),
            dialect,
            v4: node.has_ipv4(),
            v6: node.has_ipv6(),
            name: if named { "".into() } else { node.name.clone() },
            metadata: Value::Object(metadata).to_string(),
        })
    }

    /// A sidecar that has these facets and nothing else.
    pub fn node(&self) -> Node {
        let mut metadata = match serde_json::from_str(&self.metadata) {
            Ok(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        let dialect = match self.dialect {
            Dialect::IstioProxy => "istio-proxy",
            Dialect::Envoy => "envoy",
            Dialect::Grpc => "grpc",
        };
        metadata.insert("DIALECT".into(), dialect.into());
        let families = [(self.v4, "0.0.0.0"), (self.v6, "::")];
        Node {
            id: "".into(),
            kind: NodeKind::Sidecar,
            ip_addresses: families.into_iter().filter(|(has, _)| *has).map(|(_, any)| any.into()).collect(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            dns_domain: self.dns_domain.clone(),
            labels: self.labels.clone(),
            locality: meltemi_model::Locality::default(),
            extensions: BTreeSet::new(),
            user_agent: "".into(),
            metadata,
        }
    }
}

/// One state of the mesh: unchanged parts are the same allocation, which is kept so that its address stays its own.
#[derive(Clone)]
struct State {
    shape: u64,
    mesh: Shared<MeshConfig>,
    services: Arc<ServiceIndex>,
    virtual_services: Arc<VirtualServiceIndex>,
    destination_rules: Arc<DestinationRuleIndex>,
    resilience: Arc<ResilienceIndex>,
}

impl State {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            shape: snapshot.shape,
            mesh: snapshot.mesh.clone(),
            services: snapshot.services.clone(),
            virtual_services: snapshot.virtual_services.clone(),
            destination_rules: snapshot.destination_rules.clone(),
            resilience: snapshot.resilience.clone(),
        }
    }

    fn is(&self, snapshot: &Snapshot) -> bool {
        self.shape == snapshot.shape
            && self.mesh.ptr_eq(&snapshot.mesh)
            && Arc::ptr_eq(&self.services, &snapshot.services)
            && Arc::ptr_eq(&self.virtual_services, &snapshot.virtual_services)
            && Arc::ptr_eq(&self.destination_rules, &snapshot.destination_rules)
            && Arc::ptr_eq(&self.resilience, &snapshot.resilience)
    }
}

/// What was asked: the type, and the names where it was not all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub type_url: &'static str,
    pub names: Option<Vec<Arc<str>>>,
    pub facets: Facets,
}

#[derive(Default)]
pub struct Batches(Mutex<Option<Kept>>);

struct Kept {
    state: State,
    /// Labels that some selector of the mesh reads.
    selected: Arc<BTreeSet<Str>>,
    answers: HashMap<Question, Arc<[Resource]>>,
}

impl Batches {
    /// Forgets all answers.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The labels that selectors of this mesh read.
    pub fn selected_labels(&self, snapshot: &Snapshot) -> Arc<BTreeSet<Str>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(kept) if kept.state.is(snapshot) => kept.selected.clone(),
            // A slow push of an older state must not displace what the current one needs.
            Some(kept) if kept.state.shape > snapshot.shape => Arc::new(selected_labels(snapshot)),
            _ => {
                let selected = Arc::new(selected_labels(snapshot));
                let state = State::of(snapshot);
                *kept = Some(Kept { state, selected: selected.clone(), answers: HashMap::new() });
                selected
            }
        }
    }

    pub fn get_or_make(
        &self,
        snapshot: &Snapshot,
        question: Question,
        make: impl FnOnce(&Node) -> Vec<Resource>,
    ) -> Arc<[Resource]> {
        if let Some(found) = self.find(snapshot, &question) {
            return found;
        }
        let made: Arc<[Resource]> = make(&question.facets.node()).into();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = kept.as_mut().filter(|kept| kept.state.is(snapshot)) {
            if kept.answers.len() >= MAX_BATCHES {
                kept.answers.clear();
            }
            kept.answers.insert(question, made.clone());
        }
        made
    }

    fn find(&self, snapshot: &Snapshot, question: &Question) -> Option<Arc<[Resource]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().filter(|kept| kept.state.is(snapshot))?.answers.get(question).cloned()
    }
}

fn selected_labels(snapshot: &Snapshot) -> BTreeSet<Str> {
    let mut keys = BTreeSet::new();
    for rule in snapshot.virtual_services.iter() {
        let http = rule.spec.http.iter().flat_map(|http| &http.matches).flat_map(|m| m.source_labels.keys());
        let tls = rule.spec.tls.iter().flat_map(|tls| &tls.matches).flat_map(|m| m.source_labels.keys());
        let tcp = rule.spec.tcp.iter().flat_map(|tcp| &tcp.matches).flat_map(|m| m.source_labels.keys());
        keys.extend(http.chain(tls).chain(tcp).cloned());
    }
    let rules = snapshot.destination_rules.iter().filter_map(|rule| rule.spec.workload_selector.as_ref());
    keys.extend(rules.flat_map(|selector| selector.match_labels.keys().cloned()).collect::<Vec<_>>());
    keys.extend(snapshot.resilience.selected_labels().cloned());
    for sidecar in snapshot.sidecars.values() {
        keys.extend(sidecar.spec.workload_selector.iter().flat_map(|selector| selector.labels.keys().cloned()));
    }
    keys
}

#[cfg(test)]
mod tests;
