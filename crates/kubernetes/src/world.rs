//! Everything that the API server has said, and the part of it that is in force: the objects of namespaces that the mesh's
//! `discoverySelectors` select, and those of the cluster.
//!
//! Owns both, what is wrong with objects, and when all kinds have been listed. Never does I/O. A change costs work for the
//! objects in it; other selectors, or other labels of a namespace, cost a walk over all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meltemi_config::mesh::MeshLabelSelector;
use meltemi_config::{Key, Kind, Object, Problem, Str};
use meltemi_store::{ConfigSet, MemoryStore};
use tokio::sync::watch;

use crate::decode::Decoded;
use crate::revision::REVISION;
use crate::selector::selects;

/// What is wrong is kept for so many objects.
const MAX_PROBLEMS: usize = 10_000;

/// What happened to an object.
#[derive(Debug)]
pub(crate) enum Event {
    Said(Decoded),
    Deleted(Key),
}

pub(crate) struct World {
    all: ConfigSet,
    view: Arc<MemoryStore>,
    /// What is wrong, with the uid of the object with which it is.
    problems: BTreeMap<Key, (Str, Vec<Problem>)>,
    told: watch::Sender<Arc<[Problem]>>,
    /// They differ from what was told.
    untold: bool,
    /// Kinds that have not been listed yet.
    waiting: BTreeSet<Kind>,
    ready: watch::Sender<bool>,
    selectors: Vec<MeshLabelSelector>,
}

impl World {
    /// Nothing is known yet; ready once all of `kinds` have been listed, or are known not to be served.
    pub fn new(kinds: impl IntoIterator<Item = Kind>, view: Arc<MemoryStore>) -> Self {
        Self {
            all: ConfigSet::default(),
            view,
            problems: BTreeMap::new(),
            told: watch::Sender::default(),
            untold: false,
            waiting: kinds.into_iter().collect(),
            ready: watch::Sender::new(false),
            selectors: Vec::new(),
        }
    }

    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub fn problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.told.subscribe()
    }

    /// Of an object with which something is wrong: one that was made again under the same name is another.
    pub fn uid_of_wrong(&self, key: &Key) -> Option<Str> {
        self.problems.get(key).map(|(uid, _)| uid.clone())
    }

    /// What has not been listed yet.
    pub fn waiting(&self) -> impl Iterator<Item = Kind> {
        self.waiting.iter().copied()
    }

    /// Takes changes of one kind, as one.
    pub fn apply(&mut self, kind: Kind, events: impl IntoIterator<Item = Event>) {
        let mut changed = BTreeSet::new();
        for event in events {
            match event {
                Event::Said(decoded) => self.take(decoded, &mut changed),
                Event::Deleted(key) => self.drop(&key, &mut changed),
            }
        }
        self.publish(kind, &changed);
    }

    /// Takes a whole list: what is not in it is gone.
    pub fn replace(&mut self, kind: Kind, listed: Vec<Decoded>) {
        let present: BTreeSet<Key> = listed.iter().map(Decoded::key).collect();
        let mut changed = BTreeSet::new();
        for decoded in listed {
            self.take(decoded, &mut changed);
        }
        let known = self.all.of_kind(kind).map(Object::key).chain(self.problems.keys().cloned());
        let gone: Vec<Key> = known.filter(|key| key.kind == kind && !present.contains(key)).collect();
        for key in gone {
            self.drop(&key, &mut changed);
        }
        self.publish(kind, &changed);
        self.settle(kind);
    }

    /// The server does not have the kind, or no longer.
    pub fn vanish(&mut self, kind: Kind) {
        self.replace(kind, Vec::new());
    }

    /// Puts the mesh's `discoverySelectors` in force; none select everything.
    pub fn select(&mut self, selectors: &[MeshLabelSelector]) {
        if self.selectors != selectors {
            self.selectors = selectors.to_vec();
            self.view.replace(self.selected());
        }
    }

    fn take(&mut self, decoded: Decoded, changed: &mut BTreeSet<Key>) {
        match decoded {
            Decoded::Taken(object, problems) => {
                let key = object.key();
                self.note(&key, (object.meta.uid.clone(), problems));
                // Versions and heartbeats are no change.
                if self.all.get(&key) != Some(&*object) {
                    self.all.insert(*object);
                    changed.insert(key);
                }
            }
            Decoded::Refused((key, uid), problems) => self.note(&key, (uid, problems)),
            Decoded::Foreign(key) => self.drop(&key, changed),
        }
    }

    fn drop(&mut self, key: &Key, changed: &mut BTreeSet<Key>) {
        self.note(key, Default::default());
        if self.all.remove(key).is_some() {
            changed.insert(key.clone());
        }
    }

    fn note(&mut self, key: &Key, wrong: (Str, Vec<Problem>)) {
        if wrong.1.is_empty() {
            self.untold |= self.problems.remove(key).is_some();
        } else if self.problems.get(key) != Some(&wrong)
            && (self.problems.len() < MAX_PROBLEMS || self.problems.contains_key(key))
        {
            self.problems.insert(key.clone(), wrong);
            self.untold = true;
        }
    }

    fn publish(&mut self, kind: Kind, changed: &BTreeSet<Key>) {
        if std::mem::take(&mut self.untold) {
            self.told.send_replace(self.problems.values().flat_map(|(_, problems)| problems).cloned().collect());
        }
        if changed.is_empty() {
            return;
        }
        if kind == Kind::Namespace && !self.selectors.is_empty() {
            self.view.replace(self.selected());
            return;
        }
        let selected = |key: &&Key| self.is_selected(&key.namespace) || **key == Key::mesh_config_map();
        let (there, gone): (Vec<&Key>, Vec<&Key>) =
            changed.iter().filter(selected).partition(|key| self.all.get(key).is_some());
        if !there.is_empty() {
            self.view.apply(there.into_iter().filter_map(|key| self.all.get(key).cloned()));
        }
        if !gone.is_empty() {
            self.view.remove(gone);
        }
    }

    fn settle(&mut self, kind: Kind) {
        if self.waiting.remove(&kind) && self.waiting.is_empty() {
            self.ready.send_replace(true);
        }
    }

    /// Objects of the cluster are everybody's.
    fn is_selected(&self, namespace: &Str) -> bool {
        if self.selectors.is_empty() || namespace.is_empty() {
            return true;
        }
        let labels = self.all.get(&Key::new(Kind::Namespace, "", namespace)).map(|object| &object.meta.labels);
        labels.is_some_and(|labels| self.selectors.iter().any(|selector| selects(selector, labels)))
    }

    fn selected(&self) -> ConfigSet {
        if self.selectors.is_empty() {
            return self.all.clone();
        }
        let mut known: BTreeMap<Str, bool> = BTreeMap::new();
        let mesh = Key::mesh_config_map();
        let selected = self.all.iter().filter(|object| {
            let namespace = &object.meta.namespace;
            let is_in = *known.entry(namespace.clone()).or_insert_with(|| self.is_selected(namespace));
            is_in || object.key() == mesh
        });
        ConfigSet::from_objects(selected.cloned())
    }

    /// All objects of a kind, selected or not.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.all.of_kind(kind)
    }

    /// What a namespace says by its label `istio.io/rev`, empty where it says nothing; none where it is not known.
    pub fn revision_of(&self, namespace: &str) -> Option<Str> {
        let object = self.all.get(&Key::new(Kind::Namespace, "", namespace))?;
        Some(object.meta.labels.get(REVISION).cloned().unwrap_or_default())
    }

    /// The namespaces that are selected.
    pub fn namespaces(&self) -> BTreeSet<Str> {
        let all = self.all.of_kind(Kind::Namespace).filter(|object| object.meta.deletion_timestamp.is_none());
        all.map(|object| object.meta.name.clone()).filter(|name| self.is_selected(name)).collect()
    }
}

#[cfg(test)]
mod tests;
