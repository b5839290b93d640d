//! Scopes computed on demand and shared by the nodes they fit.

use super::Snapshot;
use crate::change::Change;
use crate::config::ObjectKey;
use crate::node::{Node, NodeKind};
use crate::scope::{self, Catalogue, SidecarScope};
use crate::service::ServiceKey;
use meltemi_config::Kind;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A namespace and the Sidecar that applies in it.
type ScopeKey = (Arc<str>, Option<ObjectKey>);

type Scopes = Mutex<HashMap<ScopeKey, Arc<SidecarScope>>>;

/// Shared by snapshots between which no scope changed. Bounded by namespaces times Sidecars.
#[derive(Clone, Default)]
pub(super) struct ScopeCache {
    current: Arc<Scopes>,
    before: Option<Before>,
}

/// Scopes of a snapshot with the same mesh and Sidecars, and what differs since.
#[derive(Clone)]
struct Before {
    scopes: Arc<Scopes>,
    services: Arc<BTreeSet<ServiceKey>>,
    routes: bool,
}

impl fmt::Debug for ScopeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeCache")
    }
}

impl ScopeCache {
    /// The cache after services or VirtualServices changed: what they cannot have touched is taken over when asked for.
    pub fn after(&self, change: &Change) -> Self {
        let before = Before {
            scopes: self.current.clone(),
            services: Arc::new(change.services.clone()),
            routes: change.configs.iter().any(|key| key.kind == Kind::VirtualService),
        };
        Self { current: Arc::default(), before: Some(before) }
    }

    pub fn of(&self, snapshot: &Snapshot, node: &Node) -> Arc<SidecarScope> {
        let sidecar = match node.kind {
            NodeKind::Sidecar => snapshot.sidecar_for(&node.namespace, &node.labels),
            _ => None,
        };
        let key = (node.namespace.clone(), sidecar.as_ref().map(|sidecar| sidecar.key()));
        let find = |scopes: &Scopes| scopes.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(found) = find(&self.current) {
            return found;
        }
        let before = self.before.as_ref().and_then(|before| Some((before, find(&before.scopes)?)));
        let before = before.filter(|(before, scope)| !before.services.iter().any(|key| scope.involves_service(key)));
        // Built outside the lock: another thread may build the same scope, and equal work is cheaper than waiting.
        let catalogue = Catalogue {
            mesh: &snapshot.mesh,
            services: &snapshot.services,
            virtual_services: &snapshot.virtual_services,
        };
        let built = match before {
            Some((Before { routes: false, .. }, scope)) => scope,
            before => {
                let before = before.map(|(_, scope)| scope);
                Arc::new(scope::build(&catalogue, &node.namespace, sidecar, before.as_deref()))
            }
        };
        let mut scopes = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.entry(key).or_insert(built).clone()
    }
}
