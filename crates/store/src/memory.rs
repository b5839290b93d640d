//! A store that is filled by code: tests, simulations, and sources that are not files.

use std::sync::Arc;

use meltemi_config::{Key, Object};
use tokio::sync::watch;

use crate::set::ConfigSet;
use crate::watch::{Changes, ConfigStore};

/// A store in memory.
#[derive(Debug)]
pub struct MemoryStore {
    current: watch::Sender<Arc<ConfigSet>>,
}

impl MemoryStore {
    pub fn new(set: ConfigSet) -> Self {
        Self { current: watch::Sender::new(Arc::new(set)) }
    }

    /// Adds or replaces objects, as one change.
    pub fn apply(&self, objects: impl IntoIterator<Item = Object>) {
        self.current.send_modify(|set| objects.into_iter().for_each(|o| Arc::make_mut(set).insert(o)));
    }

    /// Removes objects, as one change.
    pub fn remove<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        self.current.send_modify(|set| {
            for key in keys {
                Arc::make_mut(set).remove(key);
            }
        });
    }

    /// Puts another set in force.
    pub fn replace(&self, set: ConfigSet) {
        self.current.send_replace(Arc::new(set));
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(ConfigSet::default())
    }
}

impl ConfigStore for MemoryStore {
    fn snapshot(&self) -> Arc<ConfigSet> {
        self.current.borrow().clone()
    }

    fn changes(&self) -> Changes {
        Changes::new(self.current.subscribe())
    }
}
