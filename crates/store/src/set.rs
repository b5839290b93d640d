//! `ConfigSet`: every object in force, as an immutable value whose unchanged parts are shared with its predecessor.
//!
//! Cloning costs one reference count a kind; replacing an object copies the map of its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_config::{Key, Kind, Meta, Object, Resource, Str};

type ByName = BTreeMap<Str, Object>;
type ByNamespace = BTreeMap<Str, Arc<ByName>>;

/// All objects by kind, namespace and name.
#[derive(Debug, Clone, Default)]
pub struct ConfigSet {
    kinds: BTreeMap<Kind, Arc<ByNamespace>>,
}

/// The keys in which two sets differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// New or different.
    pub upserted: BTreeSet<Key>,
    pub removed: BTreeSet<Key>,
}

impl ChangeSet {
    pub fn is_empty(&self) -> bool {
        self.upserted.is_empty() && self.removed.is_empty()
    }

    /// All keys, changed or removed.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.upserted.iter().chain(&self.removed)
    }

    /// True if an object of this kind changed.
    pub fn touches(&self, kind: Kind) -> bool {
        self.keys().any(|k| k.kind == kind)
    }

    /// Adds what happened afterwards.
    pub fn merge(&mut self, later: ChangeSet) {
        for key in later.upserted {
            self.removed.remove(&key);
            self.upserted.insert(key);
        }
        for key in later.removed {
            self.upserted.remove(&key);
            self.removed.insert(key);
        }
    }
}

impl ConfigSet {
    /// A set of these objects; of two with the same key the later one stays.
    pub fn from_objects(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut set = Self::default();
        for object in objects {
            set.insert(object);
        }
        set
    }

    /// Puts an object in, in place of one with the same key.
    pub fn insert(&mut self, object: Object) {
        let kind = Arc::make_mut(self.kinds.entry(object.kind()).or_default());
        let names = Arc::make_mut(kind.entry(object.meta.namespace.clone()).or_default());
        names.insert(object.meta.name.clone(), object);
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        self.get(key)?;
        let kind = Arc::make_mut(self.kinds.get_mut(&key.kind)?);
        let names = Arc::make_mut(kind.get_mut(&key.namespace)?);
        let removed = names.remove(&key.name);
        if names.is_empty() {
            kind.remove(&key.namespace);
        }
        removed
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.kinds.get(&key.kind)?.get(&key.namespace)?.get(&key.name)
    }

    /// The object of type `T` with this name.
    pub fn lookup<T: Resource>(&self, namespace: &str, name: &str) -> Option<(&Arc<Meta>, &Arc<T>)> {
        typed(self.kinds.get(&T::KIND)?.get(namespace)?.get(name)?)
    }

    /// All objects of a kind, ordered by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.kinds.get(&kind).into_iter().flat_map(|k| k.values()).flat_map(|names| names.values())
    }

    /// All objects of a kind in a namespace, ordered by name.
    pub fn of_kind_in(&self, kind: Kind, namespace: &str) -> impl Iterator<Item = &Object> {
        self.kinds.get(&kind).and_then(|k| k.get(namespace)).into_iter().flat_map(|names| names.values())
    }

    /// All objects of type `T`, ordered by namespace and name.
    pub fn list<T: Resource>(&self) -> impl Iterator<Item = (&Arc<Meta>, &Arc<T>)> {
        self.of_kind(T::KIND).filter_map(typed)
    }

    /// All objects of type `T` in a namespace, ordered by name.
    pub fn list_in<T: Resource>(&self, namespace: &str) -> impl Iterator<Item = (&Arc<Meta>, &Arc<T>)> {
        self.of_kind_in(T::KIND, namespace).filter_map(typed)
    }

    /// Every object.
    pub fn iter(&self) -> impl Iterator<Item = &Object> {
        self.kinds.values().flat_map(|k| k.values()).flat_map(|names| names.values())
    }

    pub fn len(&self) -> usize {
        self.kinds.values().flat_map(|k| k.values()).map(|names| names.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What must change in `self` to become `next`. Shared parts are not looked into.
    pub fn diff(&self, next: &ConfigSet) -> ChangeSet {
        let mut changes = ChangeSet::default();
        let kinds: BTreeSet<Kind> = self.kinds.keys().chain(next.kinds.keys()).copied().collect();
        for kind in kinds {
            match (self.kinds.get(&kind), next.kinds.get(&kind)) {
                (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
                (old, new) => diff_kind(old.map(|a| &**a), new.map(|a| &**a), &mut changes, kind),
            }
        }
        changes
    }
}

fn typed<T: Resource>(object: &Object) -> Option<(&Arc<Meta>, &Arc<T>)> {
    object.spec_as::<T>().map(|spec| (&object.meta, spec))
}

fn diff_kind(old: Option<&ByNamespace>, new: Option<&ByNamespace>, changes: &mut ChangeSet, kind: Kind) {
    let namespaces: BTreeSet<&Str> = old.into_iter().chain(new).flat_map(|m| m.keys()).collect();
    let empty = ByName::new();
    for namespace in namespaces {
        let (before, after) = (old.and_then(|m| m.get(namespace)), new.and_then(|m| m.get(namespace)));
        if let (Some(before), Some(after)) = (before, after)
            && Arc::ptr_eq(before, after)
        {
            continue;
        }
        let before = before.map_or(&empty, |a| &**a);
        let after = after.map_or(&empty, |a| &**a);
        let key = |name: &Str| Key { kind, namespace: namespace.clone(), name: name.clone() };
        for (name, object) in after {
            if before.get(name) != Some(object) {
                changes.upserted.insert(key(name));
            }
        }
        changes.removed.extend(before.keys().filter(|n| !after.contains_key(*n)).map(key));
    }
}

#[cfg(test)]
mod tests;
