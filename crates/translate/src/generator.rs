//! The contract between a kind of resource and its key, and the cache that the contract makes safe.
//!
//! A generator first gathers everything a resource depends on into one value (`inputs`), then renders the resource from that
//! value alone (`build`). What is not in the value cannot change the output, so a cache keyed by it is never stale, and two
//! proxies with equal inputs share one encoded resource. Never give `build` the snapshot or the node.
//!
//! Costs: a hit is one hash of the inputs and one map look-up under a short lock; a miss also builds, encodes and hashes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use meltemi_model::{Node, Snapshot};
use meltemi_proto::Any;

/// One xDS resource, encoded once and shared by every session that sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Hash of the encoded body: equal bodies have equal versions, on every instance of discovery.
    pub version: Arc<str>,
    pub body: Arc<Any>,
}

impl Resource {
    pub fn new(name: Arc<str>, body: Any) -> Self {
        Self { name, version: content_version(&body).into(), body: Arc::new(body) }
    }
}

fn content_version(body: &Any) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&body.value))
}

/// A kind of resource: what a node gets, what each depends on, and how it is rendered from that.
pub trait Generator {
    /// Everything the resource depends on. Large parts are [`meltemi_model::Shared`], so that hashing stays
    /// cheap.
    type Input: Hash + Eq + Send + Sync + 'static;

    /// The names that a wildcard subscription gets, in a stable order.
    fn names(snapshot: &Snapshot, node: &Node) -> Vec<Arc<str>>;

    /// What the resource of that name depends on; `None` where the node has no such resource.
    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<Self::Input>;

    /// All of a wildcard subscription at once, for kinds whose resources are found together.
    fn all(snapshot: &Snapshot, node: &Node) -> Vec<(Arc<str>, Self::Input)> {
        let names = Self::names(snapshot, node);
        names.into_iter().filter_map(|name| Self::inputs(snapshot, node, &name).map(|input| (name, input))).collect()
    }

    /// Several named resources, for kinds whose resources are cheaper found together.
    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, Self::Input)> {
        let known = names.iter();
        known.filter_map(|name| Self::inputs(snapshot, node, name).map(|input| (name.clone(), input))).collect()
    }

    fn build(input: &Self::Input) -> Any;
}

/// Built resources of one kind by their inputs, bounded in number and in bytes by two generations: what was not asked for
/// while half of either was inserted is forgotten.
pub struct Built<I> {
    generations: Mutex<Generations<I>>,
    capacity: usize,
    /// Of the bodies.
    max_bytes: usize,
}

struct Generations<I> {
    young: HashMap<Arc<I>, Resource>,
    old: HashMap<Arc<I>, Resource>,
    /// Of the bodies of the young.
    bytes: usize,
    hits: u64,
    misses: u64,
}

impl<I: Hash + Eq> Built<I> {
    pub fn new(capacity: usize, max_bytes: usize) -> Self {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), bytes: 0, hits: 0, misses: 0 };
        Self { generations: Mutex::new(generations), capacity: capacity.max(2), max_bytes }
    }

    /// The resource of these inputs, built at most once while remembered. Two threads that miss together both build, and
    /// the first one's resource is kept.
    pub fn get_or_build(&self, name: Arc<str>, input: I, build: impl FnOnce(&I) -> Any) -> Resource {
        let input = Arc::new(input);
        if let Some(mut resource) = self.find(&input) {
            if resource.name != name {
                resource.name = name;
            }
            return resource;
        }
        let resource = Resource::new(name, build(&input));
        self.insert(input, resource)
    }

    fn find(&self, input: &Arc<I>) -> Option<Resource> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match generations.young.get(input) {
            Some(resource) => Some(resource.clone()),
            None => generations.old.remove_entry(input).map(|(input, resource)| {
                generations.bytes += resource.body.value.len();
                generations.young.insert(input, resource.clone());
                resource
            }),
        };
        match found {
            Some(_) => generations.hits += 1,
            None => generations.misses += 1,
        }
        found
    }

    fn insert(&self, input: Arc<I>, resource: Resource) -> Resource {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = resource.body.value.len();
        if generations.young.len() >= self.capacity / 2 || generations.bytes + bytes > self.max_bytes / 2 {
            generations.old = std::mem::take(&mut generations.young);
            generations.bytes = 0;
        }
        match generations.young.entry(input) {
            Entry::Occupied(first) => first.get().clone(),
            Entry::Vacant(place) => {
                let resource = place.insert(resource).clone();
                generations.bytes += bytes;
                resource
            }
        }
    }

    /// The resources held.
    pub fn held(&self) -> Vec<Resource> {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.values().chain(generations.old.values()).cloned().collect()
    }

    /// Forgets them.
    pub fn clear(&self) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.clear();
        generations.old.clear();
    }

    /// Entries held, look-ups that found one, look-ups that did not.
    pub fn statistics(&self) -> (usize, u64, u64) {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        (generations.young.len() + generations.old.len(), generations.hits, generations.misses)
    }
}

#[cfg(test)]
mod tests;
