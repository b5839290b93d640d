//! Scopes computed on demand and shared by the nodes they fit.

use super::Snapshot;
use crate::config::ObjectKey;
use crate::node::{Node, NodeKind};
use crate::scope::{self, Catalogue, SidecarScope};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A namespace and the Sidecar that applies in it.
type ScopeKey = (Arc<str>, Option<ObjectKey>);

/// Shared by snapshots between which no scope changed. Bounded by namespaces times Sidecars.
#[derive(Clone, Default)]
pub(super) struct ScopeCache(Arc<Mutex<HashMap<ScopeKey, Arc<SidecarScope>>>>);

impl fmt::Debug for ScopeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScopeCache")
    }
}

impl ScopeCache {
    pub fn of(&self, snapshot: &Snapshot, node: &Node) -> Arc<SidecarScope> {
        let sidecar = match node.kind {
            NodeKind::Sidecar => snapshot.sidecar_for(&node.namespace, &node.labels),
            _ => None,
        };
        let key = (node.namespace.clone(), sidecar.as_ref().map(|sidecar| sidecar.key()));
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return found.clone();
        }
        // Built outside the lock: another thread may build the same scope, and equal work is cheaper than waiting.
        let catalogue = Catalogue {
            mesh: &snapshot.mesh,
            services: &snapshot.services,
            virtual_services: &snapshot.virtual_services,
        };
        let built = Arc::new(scope::build(&catalogue, &node.namespace, sidecar));
        lock().entry(key).or_insert(built).clone()
    }
}
