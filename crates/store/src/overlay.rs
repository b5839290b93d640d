//! A store with further objects over it that live in memory only: what this process itself adds to what its users wrote.
//!
//! Owns those objects. Never writes into the store below, whose objects win over added ones of the same key. A change
//! of either costs a copy of the namespaces that hold added objects; without any, the set below is passed on as it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meltemi_config::{Key, Object};
use tokio::sync::watch;

use crate::set::ConfigSet;
use crate::watch::{Changes, ConfigStore};

/// A store below, and what was added to it.
pub struct OverlayStore {
    below: Arc<dyn ConfigStore>,
    layers: Mutex<Layers>,
    current: watch::Sender<Arc<ConfigSet>>,
}

struct Layers {
    below: Arc<ConfigSet>,
    added: ConfigSet,
}

impl Layers {
    fn merged(&self) -> Arc<ConfigSet> {
        if self.added.is_empty() {
            return self.below.clone();
        }
        let mut set = ConfigSet::clone(&self.below);
        let added = self.added.iter().filter(|object| self.below.get(&object.key()).is_none());
        added.for_each(|object| set.insert(object.clone()));
        Arc::new(set)
    }
}

impl OverlayStore {
    /// Nothing is added yet. The store below is followed while [`Self::follow`] runs.
    pub fn new(below: Arc<dyn ConfigStore>) -> Self {
        let set = below.snapshot();
        let layers = Mutex::new(Layers { below: set.clone(), added: ConfigSet::default() });
        Self { below, layers, current: watch::Sender::new(set) }
    }

    /// Takes over what changes below; ends when the store below is gone.
    pub async fn follow(&self) {
        let mut changes = self.below.changes();
        // Whatever changed before we listened.
        self.set_below(changes.seen().clone());
        while let Some((set, _)) = changes.next().await {
            self.set_below(set);
        }
    }

    /// Adds an object, or puts it in place of an added one of the same key.
    pub fn put(&self, object: Object) {
        let mut layers = self.lock();
        layers.added.insert(object);
        self.current.send_replace(layers.merged());
    }

    /// Takes an added object away again.
    pub fn remove(&self, key: &Key) {
        let mut layers = self.lock();
        if layers.added.remove(key).is_some() {
            self.current.send_replace(layers.merged());
        }
    }

    fn set_below(&self, set: Arc<ConfigSet>) {
        let mut layers = self.lock();
        if !Arc::ptr_eq(&layers.below, &set) {
            layers.below = set;
            self.current.send_replace(layers.merged());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConfigStore for OverlayStore {
    fn snapshot(&self) -> Arc<ConfigSet> {
        self.current.borrow().clone()
    }

    fn changes(&self) -> Changes {
        Changes::new(self.current.subscribe())
    }
}

#[cfg(test)]
mod tests;
