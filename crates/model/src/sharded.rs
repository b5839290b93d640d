//! A map for snapshots: cloning costs 256 reference counts and a change copies one bucket, so the next snapshot of a mesh of
//! 10,000 services after one endpoint change copies some 40 entries.
//!
//! Must never be iterated where order shows in an output without sorting: order is by bucket, then by key.

use crate::shared::content_hash;
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

const BUCKETS: usize = 256;

#[derive(Debug)]
pub struct Sharded<K, V> {
    buckets: Vec<Arc<BTreeMap<K, V>>>,
    len: usize,
}

impl<K, V> Clone for Sharded<K, V> {
    fn clone(&self) -> Self {
        Self { buckets: self.buckets.clone(), len: self.len }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Default for Sharded<K, V> {
    fn default() -> Self {
        let empty = Arc::new(BTreeMap::new());
        Self { buckets: vec![empty; BUCKETS], len: 0 }
    }
}

fn bucket<Q: Hash + ?Sized>(key: &Q) -> usize {
    (content_hash(key) as usize) % BUCKETS
}

impl<K: Ord + Hash + Clone, V: Clone> Sharded<K, V> {
    pub fn get<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.buckets[bucket(key)].get(key)
    }

    pub fn contains_key<Q: Ord + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let old = Arc::make_mut(&mut self.buckets[bucket(&key)]).insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    pub fn remove<Q: Ord + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let slot = &mut self.buckets[bucket(key)];
        if !slot.contains_key(key) {
            return None;
        }
        let old = Arc::make_mut(slot).remove(key);
        self.len -= usize::from(old.is_some());
        old
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }

    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// How many buckets the two maps hold in common; a test's view of sharing.
    pub fn shared_buckets(&self, other: &Self) -> usize {
        self.buckets.iter().zip(&other.buckets).filter(|(a, b)| Arc::ptr_eq(a, b)).count()
    }
}
