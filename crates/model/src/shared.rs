//! Values shared by many snapshots and generator inputs.
//!
//! Owns [`Shared`]: an `Arc` with the content hash of its value, computed once where the value is made, so that hashing or
//! comparing a generator's input costs a word and not the value. Must never hold a value that changes behind the `Arc`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3Default;

/// An `Arc` that knows the hash of what it holds.
pub struct Shared<T: ?Sized> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Shared<T> {
    pub fn new(value: T) -> Self {
        Self { hash: content_hash(&value), value: Arc::new(value) }
    }
}

impl<T: ?Sized> Shared<T> {
    pub fn content_hash(&self) -> u64 {
        self.hash
    }

    pub fn arc(&self) -> &Arc<T> {
        &self.value
    }

    pub fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }
}

/// The stable 64-bit hash of a value.
pub fn content_hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = Xxh3Default::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, value: self.value.clone() }
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl<T: PartialEq + ?Sized> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value) || (self.hash == other.hash && self.value == other.value)
    }
}

impl<T: PartialEq + ?Sized> Eq for Shared<T> {}

impl<T: fmt::Debug + ?Sized> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
